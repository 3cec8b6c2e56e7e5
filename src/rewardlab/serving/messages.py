"""What the server and its worker process say to each other, pickled over a socket pair between parent and child.

The worker first says :class:`Loaded` or :class:`LoadFailed`. Then it answers each :class:`Batch` with :class:`Done`, in
their order, and says :class:`Alive` between forwards, so that one that hangs can be told from one that is slow. No
torch, so that the server's process never loads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rewardlab.serving.items import Item, ModelInfo, Result
from rewardlab.types import Scale


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """What a worker loads.

    Attributes:
        path: As :func:`~rewardlab.scoring.opening.open_scorer` has it.
        options: Its options.
        name: What the model is called in answers.
        opener: ``module:function`` that opens the scorer; another one than the default makes faults, for tests.
        require_contract: Refuse a model without a contract, which nothing could verify: what a reload asks for.
        scale: What the dialects' numbers are given in; a model that cannot give it is refused.
    """

    path: str
    options: Mapping[str, Any] = field(default_factory=dict)
    name: str = "reward-model"
    opener: str = "rewardlab.scoring.opening:open_scorer"
    require_contract: bool = False
    scale: Scale = "raw"


@dataclass(frozen=True, slots=True)
class Batch:
    """To the worker: score these.

    Attributes:
        number: Counted up by the server.
        items: The items.
    """

    number: int
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Sleep:
    """To the worker: move the weights to main memory and free the accelerator; answered by :class:`Alive`."""


@dataclass(frozen=True, slots=True)
class WakeUp:
    """To the worker: move them back; answered by :class:`Alive`."""


@dataclass(frozen=True, slots=True)
class Stop:
    """To the worker: end. A closed socket means the same, so that a worker never outlives its server."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """From the worker: ready.

    Attributes:
        model: The model.
        seconds: What loading took.
    """

    model: ModelInfo
    seconds: float


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """From the worker, which then ends: the model cannot be loaded.

    Attributes:
        message: Why.
        hint: How to fix it.
        used_wrongly: Whether an option is to blame, and not the model.
    """

    message: str
    hint: str = ""
    used_wrongly: bool = False


@dataclass(frozen=True, slots=True)
class Alive:
    """From the worker: a forward is done, or it slept or woke."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a batch cost.

    Attributes:
        tokens_given: Tokens of all its sequences.
        tokens_computed: Tokens that went through the model: shared prefixes once.
        seconds: In the worker, from its ids to its scores.
    """

    tokens_given: int
    tokens_computed: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Done:
    """From the worker: the results of a batch.

    Attributes:
        number: The batch's.
        results: One per item, in order.
        work: What it cost.
    """

    number: int
    results: tuple[Result, ...]
    work: Work

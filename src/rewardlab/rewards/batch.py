"""What a transform is given, and what a chain of them gives back: frozen records of float64 numbers."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RewardBatch:
    """The scores of one rank's completions of one step, and what transforms may need beside them.

    Attributes:
        scores: One per completion, shape (n,), float64; NaN where there is none (a completion that could not be
            scored). Per-token rewards have the shape (n, tokens), ``-inf`` where a position is masked.
        prompts: What completions of one prompt share, one key per completion (equal keys: one group); None where it is
            not known, and then nothing that works per prompt can be used.
        baselines: The score of the reference completion of each completion's prompt, shape (n,), float64, NaN where
            a prompt has none; None where there are none at all.
        ended: Whether each completion ended by itself (with its EOS), shape (n,), bool; None where it is not known.
    """

    scores: FloatArray
    prompts: Sequence[Hashable] | None = None
    baselines: FloatArray | None = None
    ended: NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True)
class Offence:
    """A score that is no finite number: it moves no state, and has no reward.

    Attributes:
        index: Which completion of the batch.
        value: What came: NaN or an infinity.
        reason: Why it is refused, in words.
    """

    index: int
    value: float
    reason: str


@dataclass(frozen=True, slots=True)
class RewardResult:
    """What a chain gave.

    Attributes:
        rewards: As ``RewardBatch.scores`` was shaped, float64; NaN where a completion has none, ``-inf`` where a
            position is masked.
        offences: The scores that were refused.
        statistics: What is worth logging, by name: of the scores before, of the rewards after, of each transform.
    """

    rewards: FloatArray
    offences: tuple[Offence, ...] = ()
    statistics: Mapping[str, float] = field(default_factory=dict)

"""Items -> results, with one scorer: what the worker process does, and nothing of how it is reached.

All items of a call are one pass over the model, in which the engine computes shared prefixes once. An item that cannot
be read, or that the model gives no finite score, is refused alone; a pass that raises is done again in halves, down to
the item that it was.
"""

from __future__ import annotations

import gc
import hashlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Literal

import torch
from torch import nn

from rewardlab.data.encoding import EncodedGroup
from rewardlab.errors import CheckpointError, ConfigError, DataError
from rewardlab.modeling.contract import FILE_NAME
from rewardlab.scoring.ensemble import EnsembleScorer
from rewardlab.scoring.implicit import ImplicitRewardScorer
from rewardlab.scoring.scorer import Scorer
from rewardlab.serving.encoding import ItemEncoder, is_unlike_template, refusal_of
from rewardlab.serving.fault_log import log_fault
from rewardlab.serving.items import Item, ItemRefusal, ItemScore, ModelInfo, Result
from rewardlab.serving.messages import Work

logger = logging.getLogger(__name__)

_LIBRARIES = ("rewardlab", "torch", "transformers", "tokenizers")


class ItemScorer:
    """Scores items.

    Args:
        scorer: Whatever :func:`~rewardlab.scoring.opening.open_scorer` opens; its scores are raw.
        name: What the model is called in answers.
        path: What was opened.

    Attributes:
        info: What the server knows of the model.

    Raises:
        ConfigError: The scorer gives other than raw scores.
    """

    def __init__(self, scorer: Scorer, *, name: str, path: str) -> None:
        if scorer.scale != "raw":
            raise ConfigError(
                f"the scorer gives its scores on the scale {scorer.scale!r}, expected raw ones",
                hint="load it without a scale; the server puts raw scores on any scale",
            )
        self._scorer = scorer
        self._encoder = ItemEncoder(scorer)
        self._slept_on: list[torch.device] = []
        self.info: ModelInfo = _info_of(scorer, self._encoder, name, path)

    def encode(self, items: Sequence[Item]) -> list[EncodedGroup | DataError]:
        """Ids of each item: the part of :meth:`score` that needs no model, for another thread to do ahead.

        Args:
            items: The items.
        """
        return self._encoder.encode(items)

    def score(
        self, items: Sequence[Item], on_progress: Callable[[], object] | None = None
    ) -> tuple[tuple[Result, ...], Work]:
        """The result of each item, in order, and what they cost together.

        Args:
            items: The items.
            on_progress: Called after every forward.
        """
        return self.score_encoded(self.encode(items), on_progress)

    def score_encoded(
        self, encoded: Sequence[EncodedGroup | DataError], on_progress: Callable[[], object] | None = None
    ) -> tuple[tuple[Result, ...], Work]:
        """As :meth:`score`, of items already encoded.

        Args:
            encoded: From :meth:`encode`.
            on_progress: Called after every forward.

        Raises:
            torch.AcceleratorError: The device is broken for this process: nothing can be computed any more.
        """
        start = time.monotonic()
        readable = {place: one for place, one in enumerate(encoded) if not isinstance(one, DataError)}
        with _counted(self._scorer, on_progress) as counter:
            scored = iter(self._tried(list(readable.values())))
        results = tuple(refusal_of(one) if isinstance(one, DataError) else next(scored) for one in encoded)
        given = sum(self._scorer.num_tokens(one) for one in readable.values())
        return results, Work(given, counter.tokens, time.monotonic() - start)

    def sleep(self) -> None:
        """Move every model to main memory and free the accelerator's."""
        if self._slept_on:
            return
        self._slept_on = [each.model.device for each in self._scorer.checkpoints]
        self._move([torch.device("cpu")] * len(self._slept_on))
        gc.collect()
        _give_back_memory()

    def wake_up(self) -> None:
        """Move every model back to where it was."""
        if self._slept_on:
            self._move(self._slept_on)
        self._slept_on = []

    def _move(self, devices: Sequence[torch.device]) -> None:
        for each, device in zip(self._scorer.checkpoints, devices, strict=True):
            model: nn.Module = each.model
            model.to(device)

    def _tried(self, encoded: Sequence[EncodedGroup]) -> list[Result]:
        """The results of one pass; of one that raised, those of its halves."""
        if not encoded:
            return []
        try:
            return self._computed(encoded)
        except torch.AcceleratorError:
            raise
        except Exception as error:
            if len(encoded) == 1:
                return [_refusal_of_failure(error)]
            is_memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
        # Outside of the handler: the error holds the frames of the forward, and they its tensors.
        if is_memory:
            _give_back_memory()
        middle = len(encoded) // 2
        return self._tried(encoded[:middle]) + self._tried(encoded[middle:])

    def _computed(self, encoded: Sequence[EncodedGroup]) -> list[Result]:
        scorer = self._scorer
        steps: Sequence[Sequence[Sequence[float]]] = [[()]] * len(encoded)
        spreads: Sequence[Sequence[float | None]] = [[None]] * len(encoded)
        if scorer.has_steps:
            scores, steps = scorer.score_encoded_steps(encoded)
        elif scorer.is_ensemble:
            scores, spreads = scorer.score_encoded_disagreement(encoded)
        else:
            scores = scorer.score_encoded(encoded)
        return [
            _result(one, own_scores[0], tuple(own_steps[0]), own_spreads[0])
            for one, own_scores, own_steps, own_spreads in zip(encoded, scores, steps, spreads, strict=True)
        ]


def _result(one: EncodedGroup, score: float, steps: tuple[float, ...], disagreement: float | None) -> Result:
    numbers = (score, *steps, *(() if disagreement is None else (disagreement,)))
    if wrong := [number for number in numbers if not math.isfinite(number)]:
        return ItemRefusal(
            "not_finite", f"the model gives {wrong[0]}, and a score must be finite", hint="score in float32"
        )
    return ItemScore(score, one.lengths[0], one.truncated > 0, steps, disagreement, is_unlike_template(one))


def _refusal_of_failure(error: Exception) -> ItemRefusal:
    """Why scoring one item raised; in the words of the error only where they are ours, which hold no text."""
    if isinstance(error, DataError):
        return refusal_of(error)
    if isinstance(error, CheckpointError):  # an ensemble refuses a member's score that is not finite
        return ItemRefusal("not_finite", error.message, error.hint)
    log_fault(logger, "scoring an item", error)
    return ItemRefusal("failed", f"scoring it raised {type(error).__name__}", hint="the server's log says where")


@dataclass(slots=True)
class _Counter:
    tokens: int = 0


@contextmanager
def _counted(scorer: Scorer, on_forward: Callable[[], object] | None) -> Iterator[_Counter]:
    """Count the tokens, padding included, that go through a scorer's models."""
    counter = _Counter()

    def hook(_: Any, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        counter.tokens += kwargs["input_ids"].numel()
        if on_forward is not None:
            on_forward()

    models = dict.fromkeys(each.model for each in scorer.checkpoints)
    handles = [model.register_forward_hook(hook, with_kwargs=True) for model in models]
    try:
        yield counter
    finally:
        for handle in handles:
            handle.remove()


def _give_back_memory() -> None:
    """Empty the allocator's cache, which other processes cannot use."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _info_of(scorer: Scorer, encoder: ItemEncoder, name: str, path: str) -> ModelInfo:
    members, how, on = (scorer.members, scorer.how, scorer.on) if isinstance(scorer, EnsembleScorer) else ((), "", "")
    model, scale = scorer.loaded.model, scorer.reference_scale
    return ModelInfo(
        name=name,
        path=path,
        fingerprint=scorer.fingerprint,
        contract_sha256=_contract_sha256(scorer),
        kind=scorer.read_out.kind,
        architecture=_architecture(scorer),
        max_length=encoder.max_length,
        dtype=scorer.loaded.dtype,
        device=str(model.device),
        layout=scorer.layout.layout,
        tokens_per_batch=scorer.tokens_per_batch,
        activation=_activation(scorer),
        reads_rendered=encoder.reads_rendered,
        members=tuple(members),
        how=how,
        members_scale=on,
        rendered_example=encoder.rendered_example,
        reference=scale.reference,
        temperature=scale.temperature,
        unit=scale.unit,
        versions={library: version(library) for library in _LIBRARIES},
    )


def _architecture(scorer: Scorer) -> str:
    if isinstance(scorer, EnsembleScorer):
        return f"ensemble of {len(scorer.members)}"
    own = type(scorer.loaded.model).__name__
    return f"implicit reward of {own}" if isinstance(scorer, ImplicitRewardScorer) else own


def _activation(scorer: Scorer) -> Literal["identity", "sigmoid"]:
    """What vLLM applies to the one logit of such a model; nothing where it could not load what scores here."""
    if isinstance(scorer, EnsembleScorer | ImplicitRewardScorer) or scorer.read_out.kind != "sequence":
        return "identity"
    return "identity" if scorer.loaded.model.config.problem_type == "regression" else "sigmoid"


def _contract_sha256(scorer: Scorer) -> str | None:
    """Of the contract's file; of several, of their hashes in order; None where any model has none."""
    checkpoints = scorer.checkpoints
    if any(each.contract is None for each in checkpoints):
        return None
    hashes = [hashlib.sha256((each.folder / FILE_NAME).read_bytes()).hexdigest() for each in checkpoints]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()

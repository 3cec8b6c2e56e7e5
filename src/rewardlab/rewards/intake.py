"""From a rank's batch to what all ranks exchange, and from all ranks' shares to one flat list of scores.

Here scores are checked: which are masked, which are refused and why, and whether what belongs to them fits. This file
knows batches and shapes; it knows neither transforms nor how shares travel.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rewardlab.errors import ConfigError, DataError
from rewardlab.rewards.batch import FloatArray, Offence, RewardBatch
from rewardlab.rewards.entries import Entries

LARGEST = float(np.finfo(np.float32).max)
"""3.4e38: no head gives more, and the square of more than 1e154 would be infinite in a statistic."""

_GIVE = {
    "prompts": "RewardBatch(prompts=...): one key per completion, equal for completions of one prompt",
    "baselines": "RewardBatch(baselines=...): the score of each prompt's reference completion",
    "ended": "RewardBatch(ended=...): whether each completion ended with its EOS",
}


@dataclass(frozen=True, slots=True)
class RankShare:
    """What one rank has: the scores that can be used, flat, and what belongs to its completions.

    Attributes:
        entries: As in :class:`Entries`, rows numbered from 0.
        usable: Which scores these are, in the shape of the scores.
        masked: Which positions are masked, in that shape.
        offences: What was refused.
    """

    entries: Entries
    usable: NDArray[np.bool_]
    masked: NDArray[np.bool_]
    offences: tuple[Offence, ...]

    def filled(self, values: FloatArray) -> FloatArray:
        """The rewards in the shape of the scores: NaN where refused, ``-inf`` where masked."""
        rewards = np.where(self.masked, -np.inf, np.nan)
        rewards[self.usable] = values
        return rewards


def read_share(batch: RewardBatch, needs: Collection[str], uses: Collection[str]) -> RankShare:
    """Check a batch, and take out what cannot be used.

    Args:
        batch: As it came.
        needs: What it must have.
        uses: What is to be taken along where it is there.

    Raises:
        ConfigError: It has not what is needed.
        DataError: A shape that does not fit, prompts that cannot be compared, or ``ended`` that is not true or false.
    """
    scores = _floats(batch.scores, "scores")
    if scores.ndim not in (1, 2):
        raise DataError(f"scores must have the shape (n,) or (n, tokens), got {scores.shape}")
    number = len(scores)
    for name in sorted(needs):
        if number and getattr(batch, name) is None:
            raise ConfigError(f"the chain needs {name}, and the batch has none", hint=_GIVE[name])
    baselines = batch.baselines if "baselines" in uses else None
    baselines = None if baselines is None else _floats(baselines, "baselines", number)
    masked = scores == -np.inf if scores.ndim == 2 else np.zeros(scores.shape, dtype=bool)
    offences = _offences(scores, masked, baselines)
    fine = np.ones(number, dtype=bool)
    fine[[offence.index for offence in offences]] = False
    usable = ~masked & (fine if scores.ndim == 1 else fine[:, None])
    rows = np.nonzero(usable)[0]
    entries = Entries(
        values=scores[usable],
        rows=rows,
        last=np.append(rows[1:] != rows[:-1], True)[: len(rows)],
        num_rows=number,
        prompts=_prompts(batch.prompts, number) if "prompts" in uses else None,
        baselines=baselines,
        ended=_ended(batch.ended, number) if "ended" in uses else None,
    )
    return RankShare(entries, usable, masked, offences)


def merge(shares: Sequence[RankShare], rank: int) -> tuple[Entries, slice]:
    """All ranks' shares as one, in their order.

    Args:
        shares: One per rank.
        rank: Which is this one's.

    Returns:
        The entries of all, and where this rank's values lie among them.

    Raises:
        DataError: Some ranks have what others, with completions too, have not; or some have rewards per token and
            others one per completion.
    """
    if len({share.usable.ndim for share in shares if share.entries.num_rows}) > 1:
        raise DataError(
            "some ranks have one score per completion, shape (n,), and others one per token, shape (n, tokens)",
            hint="give the same on every rank; a rank with no completions may give either",
        )
    every = [share.entries for share in shares]
    first_row = np.cumsum([0, *(entries.num_rows for entries in every)])
    first_value = np.cumsum([0, *(len(entries.values) for entries in every)])
    prompts = _all_or_none(every, "prompts")
    baselines, ended = _all_or_none(every, "baselines"), _all_or_none(every, "ended")
    merged = Entries(
        values=np.concatenate([entries.values for entries in every]),
        rows=np.concatenate([entries.rows + first for entries, first in zip(every, first_row, strict=False)]),
        last=np.concatenate([entries.last for entries in every]),
        num_rows=int(first_row[-1]),
        prompts=None if prompts is None else [prompt for of_rank in prompts for prompt in of_rank],
        baselines=None if baselines is None else np.concatenate(baselines),
        ended=None if ended is None else np.concatenate(ended),
    )
    return merged, slice(int(first_value[rank]), int(first_value[rank + 1]))


def _all_or_none(every: Sequence[Entries], name: str) -> list[Any] | None:
    given = [getattr(entries, name) for entries in every if entries.num_rows]
    there = [value for value in given if value is not None]
    if there and len(there) < len(given):
        raise DataError(f"some ranks have {name} and others have none", hint="give them on every rank, or on none")
    return there or None


def _floats(values: Any, name: str, number: int | None = None) -> FloatArray:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:  # the last: a tensor that has a gradient
        raise DataError(
            f"{name} must be numbers in one array: {error}",
            hint="give a NumPy array, or lists; per-token rewards are padded with -inf",
        ) from error
    if number is not None and array.shape != (number,):
        raise DataError(f"{name} must be one per completion, shape ({number},), got {array.shape}")
    return array


def _offences(scores: FloatArray, masked: NDArray[np.bool_], baselines: FloatArray | None) -> tuple[Offence, ...]:
    """One per completion that cannot be used, with the first reason."""
    offences = []
    refused = ~(masked | (np.abs(scores) <= LARGEST))
    for index in np.flatnonzero(refused if scores.ndim == 1 else refused.any(axis=1)):
        value = float(scores[index] if scores.ndim == 1 else scores[index][refused[index]][0])
        offences.append(Offence(int(index), value, _reason(value, "score" if scores.ndim == 1 else "token's reward")))
    if baselines is not None:
        known = {offence.index for offence in offences}
        for index in np.flatnonzero(np.abs(baselines) > LARGEST):
            if int(index) not in known:
                value = float(baselines[index])
                offences.append(Offence(int(index), value, _reason(value, "baseline")))
    return tuple(sorted(offences, key=lambda offence: offence.index))


def _reason(value: float, what: str) -> str:
    if np.isnan(value):
        return f"there is no {what} (NaN)"
    return f"the {what} is infinite" if np.isinf(value) else f"the {what} is larger than float32 can hold"


def _prompts(prompts: Sequence[Hashable] | None, number: int) -> list[Hashable] | None:
    if prompts is None:
        return None
    try:
        keys = list(prompts)
        set(keys)
    except TypeError as error:
        raise DataError(f"prompts must be keys that can be compared: {error}", hint="PromptGroup.prompt_key") from error
    if len(keys) != number:
        raise DataError(f"prompts must be one key per completion: {number} completions, {len(keys)} prompts")
    return keys


def _ended(ended: Any, number: int) -> NDArray[np.bool_] | None:
    if ended is None:
        return None
    array = np.asarray(ended)
    if array.shape != (number,) or (array.dtype != np.bool_ and number):
        raise DataError(f"ended must be {number} times true or false, got {array.dtype} of shape {array.shape}")
    return array.astype(np.bool_)

"""Preference pairs out of scored groups, e.g. to train DPO on a policy's own completions.

This file knows groups and their scores; what gives the scores, and who learns from the pairs, it does not know.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from rewardlab.errors import ConfigError, DataError
from rewardlab.types import Pair, PromptGroup

How: TypeAlias = Literal["best-worst", "best-rest", "all"]
"""Which pairs a group gives: its best over its worst, its best over each other, or every better over every worse."""


@dataclass(frozen=True, slots=True)
class PreferencePairs:
    """Pairs that were made of scored groups, and what gave none.

    Attributes:
        groups: One group per prompt that gave a pair, with the completions that stand in one; a pair's ``strength`` is
            the difference of its scores.
        pairs: How many pairs.
        ties: Comparisons that gave no pair since the scores, or the texts, are equal.
        below_gap: Comparisons that gave none since the scores differ by less than ``min_gap``.
        unscored: Completions without a score, which stand in no pair.
        without_pair: Groups that gave no pair at all.
    """

    groups: list[PromptGroup]
    pairs: int
    ties: int
    below_gap: int
    unscored: int
    without_pair: int


def preference_pairs(
    groups: Sequence[PromptGroup],
    scores: Sequence[Sequence[float | None]],
    *,
    how: How = "best-worst",
    min_gap: float = 0.0,
) -> PreferencePairs:
    """Preference pairs out of scored completions, e.g. to train DPO on. Equal scores give no pair.

    Nor do equal texts, whose scores may differ by rounding (they stood in different batches) and teach nothing.

    Args:
        groups: Prompts with their completions; what was known of them (pairs, ratings, labels) is not taken over.
        scores: Per group, one score per completion; None or NaN where one could not be scored.
        how: Which comparisons of a group are made.
        min_gap: Scores must differ by at least this much, in units of the score. A pair that the reward model itself
            finds close is one it often gets wrong: with calibrated scores a gap of 1 is a preference of 73 %.

    Raises:
        ConfigError: No such ``how``, or a gap below 0.
        DataError: Scores that do not match the completions, or are infinite.
    """
    if how not in get_args(How):
        raise ConfigError(f"there is no way {how!r} to make pairs", hint=f"the ways are {', '.join(get_args(How))}")
    if not min_gap >= 0:
        raise ConfigError(f"min_gap must be >= 0, got {min_gap}")
    if len(scores) != len(groups):
        raise DataError(f"{len(groups)} groups but {len(scores)} lists of scores", hint="score every group, in order")
    made: list[PromptGroup] = []
    pairs = ties = below_gap = unscored = 0
    for group, given in zip(groups, scores, strict=True):
        if len(given) != len(group.completions):
            raise DataError(f"{group.name}: {len(group.completions)} completions but {len(given)} scores")
        known = {i: float(s) for i, s in enumerate(given) if s is not None and not math.isnan(s)}
        if any(math.isinf(score) for score in known.values()):
            raise DataError(f"{group.name}: a score is infinite", hint="score in float32")
        unscored += len(given) - len(known)
        order = sorted(known, key=lambda index: -known[index])  # sorted is stable: of equal scores the earlier
        texts = group.completion_keys
        found: list[tuple[int, int]] = []
        for better, worse in _comparisons(order, how):
            gap = known[better] - known[worse]
            if gap == 0 or texts[better] == texts[worse]:
                ties += 1
            elif gap < min_gap:
                below_gap += 1
            else:
                found.append((better, worse))
        if found:
            pairs += len(found)
            made.append(_group_of(group, found, known))
    return PreferencePairs(made, pairs, ties, below_gap, unscored, len(groups) - len(made))


def _comparisons(order: Sequence[int], how: How) -> list[tuple[int, int]]:
    """Pairs of indices (better, worse or equal), of completions in falling order of their scores."""
    if how == "best-worst":
        return [(order[0], order[-1])] if len(order) > 1 else []
    firsts = order[:1] if how == "best-rest" else order
    return [(better, worse) for place, better in enumerate(firsts) for worse in order[place + 1 :]]


def _group_of(group: PromptGroup, found: Sequence[tuple[int, int]], known: dict[int, float]) -> PromptGroup:
    """The completions that stand in a pair, best first, and their pairs."""
    used = sorted({index for pair in found for index in pair}, key=lambda index: (-known[index], index))
    place = {index: number for number, index in enumerate(used)}
    return PromptGroup(
        group.prompt,
        tuple(group.completions[index] for index in used),
        pairs=tuple(Pair(place[a], place[b], strength=known[a] - known[b]) for a, b in found),
        id=group.id,
        subset=group.subset,
        source=group.source,
    )

"""What an objective is given beside the scores: one record per kind of supervision.

Each names its completions by their place in the batch's flat vector of scores. These records know no text and no
group; the trainer makes them from groups.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TypeAlias, TypeVar, cast

import torch
from torch import Tensor

from rewardlab.objectives.reduction import check_same_shape

MASKED = -100
"""The label of a token or step that counts in no loss, as everywhere in transformers and torch."""

_LEFT_OUT = cast("Tensor", None)

_Record = TypeVar("_Record", "PairTargets", "RankingTargets", "RatingTargets", "TokenTargets", "StepTargets")


@dataclass(frozen=True, slots=True)
class PairTargets:
    """The preferences of a batch, as indices into its completions' scores.

    Attributes:
        chosen: Index of each pair's preferred completion (of a tie: of one of the two), shape (pairs,), int64.
        rejected: Index of each pair's other completion, shape (pairs,), int64.
        margin: Margin of each pair, shape (pairs,), float32; 0 where the row has none and for ties.
        weight: Weight of each pair, shape (pairs,), float32; 1 where the row has none.
        group: Index in the batch of the group each pair belongs to, shape (pairs,), int64.
        p_chosen: Probability that ``chosen`` is preferred, shape (pairs,), float32, in [0, 1]; by default 1, and 1/2
            for ties.
        strength: How much better ``chosen`` is, shape (pairs,), float32, >= 0; NaN where unknown, as by default.
        tie: Whether the two were judged equally good, shape (pairs,), bool; by default none.
    """

    chosen: Tensor
    rejected: Tensor
    margin: Tensor
    weight: Tensor
    group: Tensor
    p_chosen: Tensor = _LEFT_OUT
    strength: Tensor = _LEFT_OUT
    tie: Tensor = _LEFT_OUT

    def __post_init__(self) -> None:
        """Fill in what was left out; refuse vectors of different lengths."""
        like = torch.zeros_like(self.chosen, dtype=torch.float32)
        if self.tie is _LEFT_OUT:
            object.__setattr__(self, "tie", like.bool())
        if self.p_chosen is _LEFT_OUT:
            object.__setattr__(self, "p_chosen", 1 - 0.5 * self.tie.float())
        if self.strength is _LEFT_OUT:
            object.__setattr__(self, "strength", like + torch.nan)
        check_same_shape(**{field.name: getattr(self, field.name) for field in dataclasses.fields(self)})

    def to(self, device: torch.device) -> PairTargets:
        """The same targets on another device."""
        return _moved(self, device)


@dataclass(frozen=True, slots=True)
class RankingTargets:
    """The rankings of a batch, padded to the longest.

    Attributes:
        index: Index of each ranked completion into the scores, shape (rankings, K), int64; -1 is padding.
        ranks: Rank of each, shape (rankings, K), int64, dense from 0 = best, equal = tie; -1 is unranked (worse than
            all that are ranked), or padding.
        weight: Weight of each ranking, shape (rankings,), float32.
        group: Index in the batch of the group each ranking belongs to, shape (rankings,), int64.
    """

    index: Tensor
    ranks: Tensor
    weight: Tensor
    group: Tensor

    def __post_init__(self) -> None:
        """Refuse tables of different shapes, and as many weights or groups as there are not rankings."""
        if self.index.ndim != 2 or self.index.shape != self.ranks.shape:
            raise ValueError(
                "expected index and ranks of one shape (rankings, K), got "
                f"{tuple(self.index.shape)} and {tuple(self.ranks.shape)}"
            )
        check_same_shape(rankings=self.index[:, 0], weight=self.weight, group=self.group)

    def to(self, device: torch.device) -> RankingTargets:
        """The same targets on another device."""
        return _moved(self, device)


@dataclass(frozen=True, slots=True)
class RatingTargets:
    """The ratings of a batch's completions.

    Attributes:
        index: Index of each rated completion into the scores, shape (ratings,), int64.
        rating: Its rating, shape (ratings,), float32, in the data's own units.
        weight: Its weight, shape (ratings,), float32.
        group: Index in the batch of the group it belongs to, shape (ratings,), int64.
    """

    index: Tensor
    rating: Tensor
    weight: Tensor
    group: Tensor

    def __post_init__(self) -> None:
        """Refuse vectors of different lengths."""
        check_same_shape(index=self.index, rating=self.rating, weight=self.weight, group=self.group)

    def to(self, device: torch.device) -> RatingTargets:
        """The same targets on another device."""
        return _moved(self, device)


@dataclass(frozen=True, slots=True)
class TokenTargets:
    """The outcome at each token that is read.

    Attributes:
        label: Probability that the completion is correct, shape (n,), float32, in [0, 1]; ``MASKED`` where it does
            not count.
    """

    label: Tensor

    def to(self, device: torch.device) -> TokenTargets:
        """The same targets on another device."""
        return _moved(self, device)


@dataclass(frozen=True, slots=True)
class StepTargets:
    """The class of each step that is read.

    Attributes:
        label: Class (:func:`~rewardlab.objectives.process.class_of`), shape (n,), int64; ``MASKED`` where nobody
            judged it.
    """

    label: Tensor

    def to(self, device: torch.device) -> StepTargets:
        """The same targets on another device."""
        return _moved(self, device)


Targets: TypeAlias = PairTargets | RankingTargets | RatingTargets | TokenTargets | StepTargets
"""What any objective is given beside the scores."""


def _moved(record: _Record, device: torch.device) -> _Record:
    return type(record)(*(getattr(record, field.name).to(device) for field in dataclasses.fields(record)))

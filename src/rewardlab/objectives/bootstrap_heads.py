"""Several heads, each with its own bootstrap of a batch: how often a unit counts for a head, and the loss of them all.

For each head, each unit (pair, ranking, rating; under grouped pairs the prompt) counts as often as a draw from
Poisson(1) says: the online form of the bootstrap, in which no unit needs to know of the others (Oza & Russell 2001,
"Online Bagging and Boosting"; for the heads of one network Osband et al. 2016, arXiv:1602.04621). A draw is a hash of
the seed, the head's number and the unit's key: it is the same in every epoch, after resuming, on every rank, and
whatever shares its micro-batch.

This file knows counts and objectives; what a unit's key is, the trainer says.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeAlias, TypeVar

import torch
from torch import Tensor

from rewardlab.objectives.reduction import Objective
from rewardlab.objectives.targets import PairTargets, RankingTargets, RatingTargets

SequenceTargets: TypeAlias = PairTargets | RankingTargets | RatingTargets
_Record = TypeVar("_Record", bound=SequenceTargets)

# P(count <= k) of a Poisson(1): beyond k = 20 the rest is below a float's resolution.
_CUMULATIVE = list(accumulate(math.exp(-1) / math.factorial(k) for k in range(21)))
_NO_UNITS = 1e-30  # in place of 0, by which a sum of nothing would be divided


def poisson_counts(keys: Sequence[bytes], num_heads: int, seed: int) -> Tensor:
    """How often each unit counts for each head: independent draws from Poisson(1), the same for the same key.

    Args:
        keys: What tells the units apart.
        num_heads: The number of heads; a head's draws do not depend on it.
        seed: Seed of the run.

    Returns:
        Shape (units, num_heads), int64.
    """
    salts = [f"count for head {head} of seed {seed}".encode() for head in range(num_heads)]
    rows = [[_poisson(hashlib.blake2b(key, digest_size=8, key=salt).digest()) for salt in salts] for key in keys]
    return torch.tensor(rows, dtype=torch.long).reshape(len(keys), num_heads)


def _poisson(digest: bytes) -> int:
    """By inversion of the distribution function at a number of [0, 1) with 53 bits."""
    return min(bisect_right(_CUMULATIVE, (int.from_bytes(digest, "big") >> 11) * 2.0**-53), len(_CUMULATIVE) - 1)


def resampled(targets: _Record, counts: Tensor) -> _Record:
    """Targets in which each row stands as often as it counts; the copies of a group are groups of their own.

    Args:
        targets: Pairs, rankings or ratings.
        counts: Of each, shape (rows,), int64.
    """
    place = torch.repeat_interleave(torch.arange(len(counts)), counts)
    copy = torch.arange(len(place)) - (counts.cumsum(0) - counts)[place]
    rows = {field.name: getattr(targets, field.name)[place] for field in dataclasses.fields(targets)}
    rows["group"] = rows["group"] * (int(counts.max()) + 1 if len(counts) else 1) + copy
    return type(targets)(**rows)


@dataclass(frozen=True, slots=True)
class HeadTargets:
    """What several heads learn from.

    Attributes:
        plain: The batch as it came, each unit once.
        of_heads: Of each head its bootstrap of it.
    """

    plain: SequenceTargets
    of_heads: tuple[SequenceTargets, ...]

    @classmethod
    def of(cls, plain: SequenceTargets, counts: Tensor) -> HeadTargets:
        """Resample a batch for each head.

        Args:
            plain: The batch.
            counts: How often each of its rows counts for each head, shape (rows, heads), int64.
        """
        return cls(plain, tuple(resampled(plain, column) for column in counts.T))

    def to(self, device: torch.device) -> HeadTargets:
        """The same targets on another device."""
        return HeadTargets(self.plain.to(device), tuple(targets.to(device) for targets in self.of_heads))


class BootstrapHeads:
    """The loss of several heads: the sum of each head's loss over its own bootstrap of the batch.

    ``sum over heads h and units u of count[u, h] * loss(u; scores of h)``, to be divided by the step's total of
    :meth:`num_units`, ``sum of count[u, h] * what u counts``. Parameters that the objective learns itself (Davidson's
    tie parameter) are shared by the heads.

    Args:
        objective: What each head learns; one that is read once per sequence.
    """

    def __init__(self, objective: Objective) -> None:
        self._objective = objective

    def __call__(self, scores: Tensor, targets: HeadTargets) -> Tensor:
        """Weighted sum of the losses.

        Args:
            scores: Each head's scores of all completions of the batch, shape (completions, heads).
            targets: What each head learns from.

        Returns:
            Scalar, float32 (float64 for float64 scores).

        Raises:
            ValueError: There are not as many heads as there are bootstraps.
        """
        if scores.ndim != 2 or scores.shape[1] != len(targets.of_heads):
            raise ValueError(f"scores of shape {tuple(scores.shape)} for {len(targets.of_heads)} heads")
        losses = [
            self._objective(own, of_head) for own, of_head in zip(scores.unbind(1), targets.of_heads, strict=True)
        ]
        return torch.stack(losses).sum()

    def num_units(self, targets: HeadTargets) -> float:
        """What the batch counts in the step's denominator, over all heads; never 0, though no unit may count."""
        return max(sum(self._objective.num_units(of_head) for of_head in targets.of_heads), _NO_UNITS)

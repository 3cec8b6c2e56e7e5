"""Regression: scores -> squared distance from ratings.

Pure functions of scores. This file knows no attribute and no scale; which number is a completion's rating is the
trainer's.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from rewardlab.objectives.reduction import Objective, check_same_shape, in_float32
from rewardlab.objectives.targets import RatingTargets
from rewardlab.types import Kind


def regression_loss(scores: Tensor, ratings: Tensor) -> Tensor:
    """Squared difference of each score and its rating.

    Args:
        scores: Scores, shape (n,).
        ratings: What they should be, shape (n,), in score units.

    Returns:
        Loss per rating, shape (n,), float32 (float64 for float64 scores).

    Raises:
        ValueError: Shapes differ (broadcasting would train every score on every rating).
    """
    scores = in_float32(scores)
    check_same_shape(scores=scores, ratings=ratings)
    return (scores - ratings.to(scores.dtype)) ** 2


class Regression(Objective):
    """Squared error between scores and standardised ratings; the unit is the rating, counting its weight.

    The score learns ``(rating - rating_mean) / rating_std``, not the rating: the head of a decoder has no bias that
    could hold a mean, and a scale of 1 to 10 would start a hundred times too high. There is no centering penalty:
    ratings say where zero is.

    Args:
        rating_mean: Mean of the ratings of the training data.
        rating_std: Their standard deviation, > 0.

    Attributes:
        rating_mean: The mean, scalar, float32; stored with the objective, so that scores can be turned back.
        rating_std: The standard deviation likewise.

    References:
        Wang et al. 2023, HelpSteer (arXiv:2311.09528) and 2024, HelpSteer2 (arXiv:2406.08673): mean squared error on
        attribute ratings.
    """

    kind: ClassVar[Kind] = "sequence"
    rating_mean: Tensor
    rating_std: Tensor

    def __init__(self, rating_mean: float = 0.0, rating_std: float = 1.0) -> None:
        super().__init__()
        if not (math.isfinite(rating_mean) and math.isfinite(rating_std) and rating_std > 0):
            raise ValueError(
                f"ratings need a finite mean and a standard deviation > 0, got {rating_mean} and {rating_std}: ratings "
                "that are all alike teach nothing"
            )
        self.register_buffer("rating_mean", torch.tensor(rating_mean, dtype=torch.float32))
        self.register_buffer("rating_std", torch.tensor(rating_std, dtype=torch.float32))

    def forward(self, scores: Tensor, targets: RatingTargets) -> Tensor:
        """Weighted sum of the squared errors.

        Args:
            scores: Scores of all completions of the batch, shape (completions,).
            targets: Which completions were rated, how, and with which weight.

        Returns:
            Scalar, float32 (float64 for float64 scores); divide by the step's total of :meth:`num_units`.
        """
        wanted = (targets.rating - self.rating_mean) / self.rating_std
        losses = regression_loss(scores[targets.index], wanted)
        return torch.sum(losses * targets.weight.to(losses.dtype))

    @staticmethod
    def num_units(targets: RatingTargets) -> float:
        """What the batch counts in the step's denominator: the sum of the ratings' weights."""
        return float(targets.weight.double().sum())

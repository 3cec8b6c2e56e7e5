"""Davidson's model of paired comparison with ties: how likely a tie is, is learned with the scores.

Pure functions of scores, like :mod:`rewardlab.objectives.pairwise`, whose Bradley-Terry this is once ties are left out.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from rewardlab.objectives.reduction import Objective, check_same_shape, checked_coefficient, in_float32
from rewardlab.objectives.targets import PairTargets
from rewardlab.types import Kind


def davidson_loss(
    chosen: Tensor,
    rejected: Tensor,
    tie: Tensor,
    log_nu: Tensor,
    margin: Tensor | None = None,
    center_rewards_coefficient: float = 0.0,
    p_chosen: Tensor | None = None,
) -> Tensor:
    """Negative log-likelihood of each win or tie under Davidson's model, plus the centering penalty.

    With ``d = chosen - rejected - margin``, the three outcomes win, tie and loss have the probabilities
    ``softmax(d/2, log nu, -d/2)``, that is ``e^chosen``, ``nu e^((chosen + rejected)/2)`` and ``e^rejected`` over their
    sum. A strict pair costs ``-p log P(win) - (1 - p) log P(loss)``, a tie ``-log P(tie)``.

    Args:
        chosen: Scores of the preferred completions (of a tie: of one of the two), shape (pairs,), logits.
        rejected: Scores of the other completions, shape (pairs,), logits.
        tie: Which pairs are ties, shape (pairs,), bool.
        log_nu: Logarithm of nu, scalar: nu = 0 knows no ties; at equal scores P(tie) = nu / (2 + nu).
        margin: What to subtract from each difference, shape (pairs,); None for no margin.
        center_rewards_coefficient: Weight of the centering penalty ``(chosen + rejected)**2``, >= 0.
        p_chosen: Target probability p of each preference, given that it is no tie, shape (pairs,); None for 1. Not
            looked at where ``tie``.

    Returns:
        Loss per pair, shape (pairs,), float32 (float64 for float64 scores), in nats.

    Raises:
        ValueError: Shapes differ.

    Relations:
        Given a decision, the probability of a win is P(win) / (P(win) + P(loss)) = sigmoid(d), whatever nu: scores
        are compared as under Bradley-Terry. Without ties and with nu -> 0 the loss is
        :func:`~rewardlab.objectives.pairwise.bradley_terry_loss`.

    References:
        Davidson 1970, "On extending the Bradley-Terry model to accommodate ties in paired comparison experiments",
        Journal of the American Statistical Association 65 (329).
    """
    chosen, rejected = in_float32(chosen), in_float32(rejected)
    p = torch.ones_like(chosen) if p_chosen is None else p_chosen.to(chosen.dtype)
    check_same_shape(chosen=chosen, rejected=rejected, tie=tie, p_chosen=p)
    difference = chosen - rejected
    if margin is not None:
        check_same_shape(chosen=chosen, margin=margin)
        difference = difference - margin.to(difference.dtype)
    target = torch.stack([p.masked_fill(tie, 0), tie.to(p.dtype), (1 - p).masked_fill(tie, 0)], dim=-1)
    loss = functional.cross_entropy(_outcome_logits(difference, log_nu), target, reduction="none")
    if center_rewards_coefficient:
        loss = loss + center_rewards_coefficient * (chosen + rejected) ** 2
    return loss


def davidson_tie_probability(difference: Tensor, log_nu: Tensor) -> Tensor:
    """Probability that two completions tie.

    Args:
        difference: Score difference, any shape; its sign does not matter.
        log_nu: Logarithm of nu, scalar.

    Returns:
        Same shape, float32 (float64 for float64 differences): ``nu / (nu + 2 cosh(difference / 2))``.
    """
    return torch.softmax(_outcome_logits(in_float32(difference), log_nu), dim=-1)[..., 1]


class Davidson(Objective):
    """Davidson's model over the pairs of a batch; the unit is the pair, counting its weight, ties included.

    Args:
        center_rewards_coefficient: Weight of the centering penalty; 0 switches it off.

    Attributes:
        log_nu: The learned logarithm of the tie parameter, scalar, float32; starts at 0, where nu = 1 and completions
            of equal scores tie in one of three comparisons.
    """

    kind: ClassVar[Kind] = "sequence"

    def __init__(self, center_rewards_coefficient: float = 0.01) -> None:
        super().__init__()
        self.center_rewards_coefficient = checked_coefficient(center_rewards_coefficient)
        self.log_nu = nn.Parameter(torch.zeros((), dtype=torch.float32))

    @property
    def nu(self) -> float:
        """The tie parameter."""
        return float(self.log_nu.detach().exp())

    def forward(self, scores: Tensor, targets: PairTargets) -> Tensor:
        """Weighted sum of the pair losses.

        Args:
            scores: Scores of all completions of the batch, shape (completions,).
            targets: Which completions are compared, and which tied, with margins, weights and target probabilities.

        Returns:
            Scalar, float32 (float64 for float64 scores); divide by the step's total of :meth:`num_units`.
        """
        losses = davidson_loss(
            scores[targets.chosen],
            scores[targets.rejected],
            targets.tie,
            self.log_nu,
            targets.margin,
            self.center_rewards_coefficient,
            targets.p_chosen,
        )
        return torch.sum(losses * targets.weight.to(losses.dtype))

    @staticmethod
    def num_units(targets: PairTargets) -> float:
        """What the batch counts in the step's denominator: the sum of its pair weights."""
        return float(targets.weight.double().sum())


def _outcome_logits(difference: Tensor, log_nu: Tensor) -> Tensor:
    """Logits of win, tie and loss, shape (..., 3)."""
    tie = log_nu.to(difference.dtype).expand_as(difference)
    return torch.stack([difference / 2, tie, -difference / 2], dim=-1)

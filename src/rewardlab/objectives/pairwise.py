"""Pairwise objectives: scores of preferred and other completions -> one loss per pair.

Pure functions of scores. This file knows no model, no tokens and no batches; how the losses of a step are added up is
:mod:`rewardlab.objectives.reduction`'s.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from rewardlab.objectives.reduction import PairTargets, check_same_shape, in_float32


def bradley_terry_loss(
    chosen: Tensor,
    rejected: Tensor,
    margin: Tensor | None = None,
    center_rewards_coefficient: float = 0.0,
) -> Tensor:
    """Negative log-likelihood of each preference under Bradley-Terry, plus the centering penalty.

    ``-log sigmoid(chosen - rejected - margin) + coefficient * (chosen + rejected)**2``

    The first term sees only score differences; the penalty is what anchors the scores around zero. With the differences
    fixed, the global shift that minimises it is ``-mean(chosen + rejected) / 2``.

    Args:
        chosen: Scores of the preferred completions, shape (pairs,), logits.
        rejected: Scores of the other completions, shape (pairs,), logits.
        margin: What to subtract from each difference, shape (pairs,), in score units; None for no margin.
        center_rewards_coefficient: Weight of the centering penalty, >= 0.

    Returns:
        Loss per pair, shape (pairs,), float32 (float64 for float64 scores), in nats.

    Raises:
        ValueError: Shapes differ (broadcasting would train on the wrong pairs).

    Note:
        ``logsigmoid`` keeps the loss and its gradient finite at differences of +-1000. Low-precision scores are
        raised to float32 first.

    References:
        Bradley & Terry 1952; margin: Llama 2, eq. 2 (arXiv:2307.09288); centering: Eisenstein et al. 2023, eq. 2
        (arXiv:2312.09244), coefficient and form as TRL 1.16 ``RewardConfig.center_rewards_coefficient``.
    """
    chosen, rejected = in_float32(chosen), in_float32(rejected)
    check_same_shape(chosen=chosen, rejected=rejected)
    difference = chosen - rejected
    if margin is not None:
        check_same_shape(chosen=chosen, margin=margin)
        difference = difference - margin.to(difference.dtype)
    loss = -functional.logsigmoid(difference)
    if center_rewards_coefficient:
        loss = loss + center_rewards_coefficient * (chosen + rejected) ** 2
    return loss


class BradleyTerry(nn.Module):
    """Bradley-Terry over the pairs of a batch; the unit of the loss is the pair, counting its weight.

    Args:
        center_rewards_coefficient: Weight of the centering penalty; 0 switches it off.
    """

    def __init__(self, center_rewards_coefficient: float = 0.01) -> None:
        super().__init__()
        if not center_rewards_coefficient >= 0:
            raise ValueError(f"center_rewards_coefficient must be >= 0, got {center_rewards_coefficient}")
        self.center_rewards_coefficient = center_rewards_coefficient

    def forward(self, scores: Tensor, targets: PairTargets) -> Tensor:
        """Weighted sum of the pair losses.

        Args:
            scores: Scores of all completions of the batch, shape (completions,).
            targets: Which completions are compared, with margins and weights.

        Returns:
            Scalar sum over pairs of weight * loss, float32; divide by the step's total of :meth:`num_units`.
        """
        losses = bradley_terry_loss(
            scores[targets.chosen], scores[targets.rejected], targets.margin, self.center_rewards_coefficient
        )
        return torch.sum(losses * targets.weight.to(losses.dtype))

    @staticmethod
    def num_units(targets: PairTargets) -> float:
        """What the batch counts in the step's denominator: the sum of its pair weights."""
        return float(targets.weight.double().sum())

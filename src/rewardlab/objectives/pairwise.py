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
        self.center_rewards_coefficient = _checked_coefficient(center_rewards_coefficient)

    def forward(self, scores: Tensor, targets: PairTargets) -> Tensor:
        """Weighted sum of the pair losses.

        Args:
            scores: Scores of all completions of the batch, shape (completions,).
            targets: Which completions are compared, with margins and weights.

        Returns:
            Scalar sum over pairs of weight * loss, float32; divide by the step's total of :meth:`num_units`.
        """
        losses = _pair_losses(scores, targets, self.center_rewards_coefficient)
        return torch.sum(losses * targets.weight.to(losses.dtype))

    @staticmethod
    def num_units(targets: PairTargets) -> float:
        """What the batch counts in the step's denominator: the sum of its pair weights."""
        return float(targets.weight.double().sum())


class GroupedPairs(nn.Module):
    """Bradley-Terry over all pairs of a prompt together; the unit of the loss is the prompt.

    ``sum over prompts of [sum over its pairs of weight * loss / sum over its pairs of weight]``

    With weights of 1, each of a prompt's n strict pairs counts 1/n, so that a prompt with many ranked completions has
    no more say than one with a single pair; under :class:`BradleyTerry` it has n times as much. What a prompt is, the
    batch says: the pairs of one group. Rows of one prompt that stand in several groups count once for each.

    Args:
        center_rewards_coefficient: Weight of the centering penalty, a part of each pair's loss; 0 switches it off.

    Note:
        A pair's weight is relative to the other pairs of its group: a group with one pair counts 1 whatever its weight.

    References:
        Ouyang et al. 2022 (InstructGPT, arXiv:2203.02155), eq. 1, whose 1 / (K choose 2) this is for a ranking without
        ties. All pairs of a prompt go into one step there, since shuffled apart they made the model overfit in one
        epoch.
    """

    def __init__(self, center_rewards_coefficient: float = 0.01) -> None:
        super().__init__()
        self.center_rewards_coefficient = _checked_coefficient(center_rewards_coefficient)

    def forward(self, scores: Tensor, targets: PairTargets) -> Tensor:
        """Sum over the groups of the weighted mean of their pair losses.

        Args:
            scores: Scores of all completions of the batch, shape (completions,).
            targets: Which completions are compared, with margins, weights and the group of each pair.

        Returns:
            Scalar, float32 (float64 for float64 scores); divide by the step's total of :meth:`num_units`.
        """
        losses = _pair_losses(scores, targets, self.center_rewards_coefficient)
        weight = targets.weight.to(losses.dtype)
        groups, place = torch.unique(targets.group, return_inverse=True)
        whole = weight.new_zeros(len(groups)).index_add(0, place, weight)
        return torch.sum(losses * weight / whole[place])

    @staticmethod
    def num_units(targets: PairTargets) -> float:
        """What the batch counts in the step's denominator: the number of its groups that have pairs."""
        return float(len(torch.unique(targets.group)))


def _pair_losses(scores: Tensor, targets: PairTargets, center_rewards_coefficient: float) -> Tensor:
    return bradley_terry_loss(
        scores[targets.chosen], scores[targets.rejected], targets.margin, center_rewards_coefficient
    )


def _checked_coefficient(value: float) -> float:
    if not value >= 0:
        raise ValueError(f"center_rewards_coefficient must be >= 0, got {value}")
    return value

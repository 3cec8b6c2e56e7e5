"""Pairwise objectives: scores of preferred and other completions -> one loss per pair.

Pure functions of scores. This file knows no model, no tokens and no batches; how the losses of a step are added up is
:mod:`rewardlab.objectives.reduction`'s. Ties with a probability of their own are
:mod:`rewardlab.objectives.davidson`'s.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from rewardlab.objectives.reduction import Objective, check_same_shape, checked_coefficient, in_float32
from rewardlab.objectives.targets import PairTargets
from rewardlab.types import Kind


def bradley_terry_loss(
    chosen: Tensor,
    rejected: Tensor,
    margin: Tensor | None = None,
    center_rewards_coefficient: float = 0.0,
    p_chosen: Tensor | None = None,
) -> Tensor:
    """Negative log-likelihood of each preference under Bradley-Terry, plus the centering penalty.

    ``-p log sigmoid(d) - (1 - p) log sigmoid(-d) + coefficient * (chosen + rejected)**2``, ``d = chosen - rejected -
    margin``

    The first terms see only score differences; the penalty is what anchors the scores around zero. With the
    differences fixed, the global shift that minimises it is ``-mean(chosen + rejected) / 2``.

    Args:
        chosen: Scores of the preferred completions, shape (pairs,), logits.
        rejected: Scores of the other completions, shape (pairs,), logits.
        margin: What to subtract from each difference, shape (pairs,), in score units; None for no margin.
        center_rewards_coefficient: Weight of the centering penalty, >= 0.
        p_chosen: Target probability p of each preference, shape (pairs,), in [0, 1]; None for 1.

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
    if p_chosen is None:
        loss = -functional.logsigmoid(difference)
    else:
        check_same_shape(chosen=chosen, p_chosen=p_chosen)
        p = p_chosen.to(difference.dtype)
        loss = -p * functional.logsigmoid(difference) - (1 - p) * functional.logsigmoid(-difference)
    if center_rewards_coefficient:
        loss = loss + center_rewards_coefficient * (chosen + rejected) ** 2
    return loss


class BradleyTerry(Objective):
    """Bradley-Terry over the pairs of a batch; the unit of the loss is the pair, counting its weight.

    A tie is a pair whose target probability is 1/2, which draws its two scores together.

    Args:
        center_rewards_coefficient: Weight of the centering penalty; 0 switches it off.
        label_smoothing: Share of the preferences taken to be mislabelled, in [0, 0.5): each target probability p
            becomes ``p (1 - label_smoothing) + (1 - p) label_smoothing``.

    References:
        Label smoothing: Mitchell 2023, "A note on DPO with noisy preferences & relationship to IPO" (conservative
        DPO), as TRL's ``label_smoothing`` of the sigmoid loss.
    """

    kind: ClassVar[Kind] = "sequence"

    def __init__(self, center_rewards_coefficient: float = 0.01, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.center_rewards_coefficient = checked_coefficient(center_rewards_coefficient)
        self.label_smoothing = _checked_smoothing(label_smoothing)

    def forward(self, scores: Tensor, targets: PairTargets) -> Tensor:
        """Weighted sum of the pair losses.

        Args:
            scores: Scores of all completions of the batch, shape (completions,).
            targets: Which completions are compared, with margins, weights and target probabilities.

        Returns:
            Scalar sum over pairs of weight * loss, float32; divide by the step's total of :meth:`num_units`.
        """
        losses = _pair_losses(scores, targets, self.center_rewards_coefficient, self.label_smoothing)
        return torch.sum(losses * targets.weight.to(losses.dtype))

    @staticmethod
    def num_units(targets: PairTargets) -> float:
        """What the batch counts in the step's denominator: the sum of its pair weights."""
        return float(targets.weight.double().sum())


class GroupedPairs(Objective):
    """Bradley-Terry over all pairs of a prompt together; the unit of the loss is the prompt.

    ``sum over prompts of [sum over its strict pairs of weight * loss / sum over its strict pairs of weight]``

    With weights of 1, each of a prompt's n strict pairs counts 1/n, so that a prompt with many ranked completions has
    no more say than one with a single pair; under :class:`BradleyTerry` it has n times as much. What a prompt is, the
    batch says: the pairs of one group. Rows of one prompt that stand in several groups count once for each.

    Ties count nothing here: not as pairs, and a group that has only ties is no unit. Where ties are to be learned
    from, take :class:`BradleyTerry` or :class:`~rewardlab.objectives.davidson.Davidson`.

    Args:
        center_rewards_coefficient: Weight of the centering penalty, a part of each pair's loss; 0 switches it off.
        label_smoothing: As in :class:`BradleyTerry`.

    Note:
        A pair's weight is relative to the other pairs of its group: a group with one pair counts 1 whatever its weight.

    References:
        Ouyang et al. 2022 (InstructGPT, arXiv:2203.02155), eq. 1, whose 1 / (K choose 2) this is for a ranking without
        ties. All pairs of a prompt go into one step there, since shuffled apart they made the model overfit in one
        epoch.
    """

    kind: ClassVar[Kind] = "sequence"

    def __init__(self, center_rewards_coefficient: float = 0.01, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.center_rewards_coefficient = checked_coefficient(center_rewards_coefficient)
        self.label_smoothing = _checked_smoothing(label_smoothing)

    def forward(self, scores: Tensor, targets: PairTargets) -> Tensor:
        """Sum over the groups of the weighted mean of their strict pairs' losses.

        Args:
            scores: Scores of all completions of the batch, shape (completions,).
            targets: Which completions are compared, with margins, weights, ties and the group of each pair.

        Returns:
            Scalar, float32 (float64 for float64 scores); divide by the step's total of :meth:`num_units`.
        """
        strict = ~targets.tie
        losses = _pair_losses(scores, targets, self.center_rewards_coefficient, self.label_smoothing)[strict]
        weight = targets.weight[strict].to(losses.dtype)
        groups, place = torch.unique(targets.group[strict], return_inverse=True)
        whole = weight.new_zeros(len(groups)).index_add(0, place, weight)
        return torch.sum(losses * weight / whole[place])

    @staticmethod
    def num_units(targets: PairTargets) -> float:
        """What the batch counts in the step's denominator: the number of its groups that have strict pairs."""
        return float(len(torch.unique(targets.group[~targets.tie])))


class ScaledBradleyTerry(Objective):
    """Bradley-Terry with each pair's loss multiplied by its strength; the unit is the pair, counting its weight.

    ``strength * bradley_terry_loss``: a pair that is much better pulls harder, but, unlike with a margin, not further.
    Strength is no part of the denominator, as in the source. The whole loss is multiplied, the centering penalty too,
    so that the unit of the strengths changes the size of the loss but not where it is least. A tie has the strength 0:
    its loss is 0, and it is counted like any pair of strength 0.

    Args:
        center_rewards_coefficient: Weight of the centering penalty; 0 switches it off.

    References:
        Wang et al. 2024, HelpSteer2-Preference (arXiv:2410.01257), the Scaled Bradley-Terry loss.
    """

    kind: ClassVar[Kind] = "sequence"

    def __init__(self, center_rewards_coefficient: float = 0.01) -> None:
        super().__init__()
        self.center_rewards_coefficient = checked_coefficient(center_rewards_coefficient)

    def forward(self, scores: Tensor, targets: PairTargets) -> Tensor:
        """Weighted sum of strength * loss.

        Args:
            scores: Scores of all completions of the batch, shape (completions,).
            targets: Which completions are compared, with weights and strengths.

        Returns:
            Scalar, float32 (float64 for float64 scores); divide by the step's total of :meth:`num_units`.

        Raises:
            ValueError: A strict pair has no strength (NaN).
        """
        unknown = torch.isnan(targets.strength) & ~targets.tie
        if bool(unknown.any()):
            raise ValueError(
                f"{int(unknown.sum())} of {len(unknown)} pairs have no strength, by which scaled_bradley_terry "
                "multiplies their loss: give each row a strength or two ratings, or choose bradley_terry"
            )
        losses = _pair_losses(scores, targets, self.center_rewards_coefficient)
        strength = targets.strength.masked_fill(targets.tie, 0.0).to(losses.dtype)
        return torch.sum(losses * strength * targets.weight.to(losses.dtype))

    @staticmethod
    def num_units(targets: PairTargets) -> float:
        """What the batch counts in the step's denominator: the sum of its pair weights."""
        return float(targets.weight.double().sum())


def _pair_losses(
    scores: Tensor, targets: PairTargets, center_rewards_coefficient: float, label_smoothing: float = 0.0
) -> Tensor:
    p_chosen = targets.p_chosen
    if label_smoothing:
        p_chosen = p_chosen * (1 - label_smoothing) + (1 - p_chosen) * label_smoothing
    return bradley_terry_loss(
        scores[targets.chosen], scores[targets.rejected], targets.margin, center_rewards_coefficient, p_chosen
    )


def _checked_smoothing(value: float) -> float:
    if not 0 <= value < 0.5:
        raise ValueError(f"label_smoothing must be in [0, 0.5), got {value}")
    return value

"""K-wise objectives: the scores of completions ranked together -> one loss per ranking.

Pure functions of scores. This file knows no model and no text; how the losses of a step are added up is
:mod:`rewardlab.objectives.reduction`'s.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from rewardlab.objectives.reduction import Objective, checked_coefficient, in_float32
from rewardlab.objectives.targets import RankingTargets
from rewardlab.types import Kind

RANKING_TIES = ("efron", "breslow")
"""How ties inside a ranking are taken, see :func:`plackett_luce_loss`."""

_NOTHING = -1e30  # the log of an empty sum, finite: the gradient of -inf is NaN


def plackett_luce_loss(scores: Tensor, ranks: Tensor, mask: Tensor, ranking_ties: str = "efron") -> Tensor:
    """Negative log-likelihood of each ranking under Plackett-Luce.

    A ranking is drawn from the top: each place goes to one of those not yet placed, with probability
    ``softmax(scores)`` among them. So with the completions in the order of their ranks the loss is ``sum over k < K of
    [logsumexp(s_k, ..., s_K) - s_k]``.

    *Unranked* completions (top-k lists) are worse than all that are ranked: they stand in every denominator and in no
    numerator. *Ties*: of m that share a rank, each has the denominator ``D`` (the sum of ``exp(score)`` over them and
    all that are worse) under ``"breslow"``; under ``"efron"`` the j-th of them (j = 0 .. m-1) has ``D - (j/m) T`` with
    ``T`` the sum over the tied alone, as if the average one of them had been taken away j times.

    Args:
        scores: Scores, shape (rankings, K), logits. What stands at padding is not looked at.
        ranks: Ranks, shape (rankings, K), int64: 0 = best, equal = tie, below K; -1 = unranked.
        mask: Which are completions and not padding, shape (rankings, K), bool.
        ranking_ties: ``"efron"`` or ``"breslow"``.

    Returns:
        Loss per ranking, shape (rankings,), float32 (float64 for float64 scores), in nats.

    Raises:
        ValueError: Shapes differ, a rank is K or more, or the rule for ties is none of these.

    Note:
        Time and memory are those of one sort. Scores are taken relative to their ranking's best, and all sums of
        exponentials stay logarithms, so that loss and gradient are finite at scores of +-1000.

    Relations:
        At K = 2 without a tie this is :func:`~rewardlab.objectives.pairwise.bradley_terry_loss`. Without ties the
        probabilities of all K! rankings sum to 1. It equals the Cox partial likelihood of one stratum in which the
        best "fails" first; unranked completions are the censored ones. Two that tie at K = 2 cost twice Bradley-Terry's
        loss at a target of 1/2 (Efron: less log 2, which no gradient sees). Efron's rule is the closer one to the mean
        over all orders that the tied could have had; Breslow's is the cruder and more common one.

    References:
        Luce 1959; Plackett 1975; as a loss for networks: Xia et al. 2008 (ListMLE). Ties: Efron 1977, "The efficiency
        of Cox's likelihood function for censored data"; Breslow 1974, "Covariance analysis of censored survival data".
    """
    if scores.ndim != 2 or not scores.shape == ranks.shape == mask.shape:
        shapes = {"scores": tuple(scores.shape), "ranks": tuple(ranks.shape), "mask": tuple(mask.shape)}
        raise ValueError(f"expected tables of one shape (rankings, K), got {shapes}")
    if ranking_ties not in RANKING_TIES:
        raise ValueError(f"unknown ranking_ties {ranking_ties!r}: one of {', '.join(RANKING_TIES)}")
    most = scores.shape[1]
    if bool((ranks >= most).any()):
        raise ValueError(f"ranks must be below K = {most} (dense from 0), got {int(ranks.max())}")
    # Levels: one for each rank, then the unranked, then padding, which is below all and so in no denominator.
    level = ranks.masked_fill(ranks < 0, most).masked_fill(~mask, most + 1)
    values = in_float32(scores).masked_fill(~mask, 0.0)
    best = values.detach().masked_fill(~mask, _NOTHING).amax(dim=1, keepdim=True)
    values = values - best.masked_fill(best == _NOTHING, 0.0)
    level, order = level.sort(dim=1, stable=True)
    values = values.gather(1, order)
    tied, worse, size = _log_sums(values, level, num_levels=most + 2)
    first = (size.cumsum(dim=1) - size).gather(1, level)
    place = torch.arange(most, device=scores.device) - first  # j, among those of its own level
    share = place / size.gather(1, level).to(values.dtype) if ranking_ties == "efron" else torch.zeros_like(values)
    denominator = torch.logaddexp(worse.gather(1, level), tied.gather(1, level) + torch.log1p(-share))
    return torch.sum((denominator - values).masked_fill(level >= most, 0.0), dim=1)


def _log_sums(values: Tensor, level: Tensor, num_levels: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of each level: log of its sum of exponentials, the same of all levels worse than it (without the last), its size.

    Returns:
        Three tables of shape (rankings, num_levels).
    """
    empty = values.new_full((len(values), num_levels), _NOTHING)
    peak = empty.scatter_reduce(1, level, values.detach(), "amax")
    ones = torch.ones_like(level)
    size = torch.zeros_like(empty, dtype=level.dtype).scatter_add(1, level, ones)
    total = torch.zeros_like(empty).scatter_add(1, level, torch.exp(values - peak.gather(1, level)))
    within = torch.where(size > 0, torch.log(total.masked_fill(size == 0, 1.0)) + peak, empty)
    from_here = torch.logcumsumexp(within[:, :-1].flip(1), dim=1).flip(1)
    worse = torch.cat([from_here[:, 1:], empty[:, :2]], dim=1)
    return within, worse, size


class PlackettLuce(Objective):
    """Plackett-Luce over the rankings of a batch; the unit of the loss is the ranking, counting its weight.

    ``weight * [plackett_luce_loss + coefficient * (2 * mean of the ranking's scores)**2]``: at K = 2 the penalty is
    the ``(chosen + rejected)**2`` of :func:`~rewardlab.objectives.pairwise.bradley_terry_loss`.

    Args:
        center_rewards_coefficient: Weight of the centering penalty; 0 switches it off.
        ranking_ties: How ties inside a ranking are taken: ``"efron"`` or ``"breslow"``.
    """

    kind: ClassVar[Kind] = "sequence"

    def __init__(self, center_rewards_coefficient: float = 0.01, ranking_ties: str = "efron") -> None:
        super().__init__()
        if ranking_ties not in RANKING_TIES:
            raise ValueError(f"unknown ranking_ties {ranking_ties!r}: one of {', '.join(RANKING_TIES)}")
        self.center_rewards_coefficient = checked_coefficient(center_rewards_coefficient)
        self.ranking_ties = ranking_ties

    def forward(self, scores: Tensor, targets: RankingTargets) -> Tensor:
        """Weighted sum of the rankings' losses.

        Args:
            scores: Scores of all completions of the batch, shape (completions,).
            targets: Which completions were ranked, how, and with which weight.

        Returns:
            Scalar, float32 (float64 for float64 scores); divide by the step's total of :meth:`num_units`.
        """
        mask = targets.index >= 0
        table = in_float32(scores)[targets.index.clamp(min=0)].masked_fill(~mask, 0.0)
        losses = plackett_luce_loss(table, targets.ranks, mask, self.ranking_ties)
        if self.center_rewards_coefficient:
            mean = table.sum(dim=1) / mask.sum(dim=1)
            losses = losses + self.center_rewards_coefficient * (2 * mean) ** 2
        return torch.sum(losses * targets.weight.to(losses.dtype))

    @staticmethod
    def num_units(targets: RankingTargets) -> float:
        """What the batch counts in the step's denominator: the sum of its rankings' weights."""
        return float(targets.weight.double().sum())

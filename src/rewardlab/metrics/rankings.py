"""Scores against rankings: how alike is their order, and is the best-ranked completion the top-scored one?

Each ranking counts once and alike (``weight`` belongs to the loss). Completions that were not ranked share the last
place. Pure numpy in float64; where the scores come from is not known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rewardlab.errors import DataError
from rewardlab.metrics.bootstrap import FloatArray, Interval, Statistic, bootstrap_by_cluster, mean_of
from rewardlab.metrics.correlation import kendall_tau, spearman
from rewardlab.metrics.inputs import check_scores, prompt_clusters
from rewardlab.types import PromptGroup, Ranking, text_of

_STATISTICS: Mapping[str, Statistic] = {  # column numbers as in _row
    "kendall_tau": mean_of(1),
    "spearman": mean_of(2),
    "top1": mean_of(3),
    "longer_kendall_tau": mean_of(4),
    "random_top1": mean_of(5),
    "longest_top1": mean_of(6),
    "shortest_top1": mean_of(7),
}


@dataclass(frozen=True, slots=True)
class RankingResult:
    """Metrics of one model on rankings; what each means is in ``docs/metrics.md``.

    Attributes:
        num_rankings: Rankings evaluated.
        num_prompts: Clusters that the intervals resample.
        num_undecided: Rankings in which all completions are tied: they order nothing and are left out.
        kendall_tau: Mean of each ranking's tau-b with the scores; 0 where the scores are all equal.
        spearman: Mean of each ranking's Spearman correlation with the scores; 0 likewise.
        top1: Share of rankings whose top-scored completion is best-ranked; equal top scores share the choice.
        longer_kendall_tau: Mean tau-b with the lengths in characters; of shortness it is the negative.
        random_top1: ``top1`` of choosing at random.
        longest_top1: ``top1`` of choosing the longest.
        shortest_top1: ``top1`` of choosing the shortest.
    """

    num_rankings: int
    num_prompts: int
    num_undecided: int
    kendall_tau: Interval
    spearman: Interval
    top1: Interval
    longer_kendall_tau: Interval
    random_top1: Interval
    longest_top1: Interval
    shortest_top1: Interval

    @property
    def above_length_baselines(self) -> bool | None:
        """Whether tau's lower bound is above that of longer and of shorter; None where there is no bound."""
        return None if self.kendall_tau.low is None else self.kendall_tau.low > abs(self.longer_kendall_tau.value)

    def to_dict(self) -> dict[str, Any]:
        """Numbers, booleans and None only; intervals as ``{"value", "low", "high"}``."""
        return {
            "num_rankings": self.num_rankings,
            "num_prompts": self.num_prompts,
            "num_undecided": self.num_undecided,
            **{name: getattr(self, name).to_dict() for name in _STATISTICS},
            "above_length_baselines": self.above_length_baselines,
        }


def orders_something(ranking: Ranking) -> bool:
    """Whether a ranking puts any completion above another."""
    return len(set(ranking.ranks)) > 1


def evaluate_rankings(
    groups: Sequence[PromptGroup],
    scores: Sequence[Sequence[float]],
    *,
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> RankingResult:
    """Compares scores that are already there with the rankings.

    Args:
        groups: Groups, some with rankings.
        scores: Per group, one score per completion.
        resamples: Bootstrap resamples behind the intervals, which resample prompts.
        seed: Seed of the resamples.
        confidence: Coverage of the intervals, in (0, 1).

    Raises:
        DataError: No ranking orders anything, scores that do not match the completions one to one, or a score that is
            not finite.
    """
    check_scores(groups, scores)
    rows, prompts, undecided = [], [], 0
    for prompt, group, group_scores in zip(prompt_clusters(groups), groups, scores, strict=True):
        for ranking in group.rankings:
            if orders_something(ranking):
                rows.append(_row(ranking, group, group_scores))
                prompts.append(prompt)
            else:
                undecided += 1
    if not rows:
        raise DataError("no ranking puts one completion above another", hint="Give rows with different ranks.")
    found: dict[str, Any] = dict(
        bootstrap_by_cluster(rows, prompts, _STATISTICS, resamples=resamples, seed=seed, confidence=confidence)
    )
    return RankingResult(len(rows), len(set(prompts)), undecided, **found)


def _row(ranking: Ranking, group: PromptGroup, group_scores: Sequence[float]) -> tuple[float, ...]:
    """Count, tau, rho, top-1 credit; of length: tau; top-1 credit at random, of the longest, of the shortest."""
    last = max(rank for rank in ranking.ranks if rank is not None) + 1
    goodness = -np.array([last if rank is None else rank for rank in ranking.ranks], dtype=np.float64)
    values = np.array([group_scores[index] for index in ranking.completions], dtype=np.float64)
    lengths = np.array([len(text_of(group.completions[index])) for index in ranking.completions], dtype=np.float64)
    best = goodness == goodness.max()

    def credit(of: FloatArray) -> float:
        return float(best[of == of.max()].mean())

    return (
        1.0,
        _or_zero(kendall_tau(values, goodness)),
        _or_zero(spearman(values, goodness)),
        credit(values),
        _or_zero(kendall_tau(lengths, goodness)),
        float(best.mean()),
        credit(lengths),
        credit(-lengths),
    )


def _or_zero(correlation: float) -> float:
    """Equal scores order nothing: they agree with the ranking as chance does, and are not left out."""
    return 0.0 if np.isnan(correlation) else correlation

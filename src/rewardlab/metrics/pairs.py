"""Groups, their preferences and their scores -> the metrics with intervals, beside the baselines of length.

Where the scores come from is not known here, so training, evaluation and scripts measure alike. This file decides what
is counted: every preference of every group once, each with the same weight (``weight`` belongs to the loss), pairs of
one prompt as one cluster; pairs judged equally good are no preference, and are looked at by themselves. How a result
looks on a terminal is :mod:`rewardlab.evaluation.table`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rewardlab.errors import DataError
from rewardlab.metrics.accuracy import score_margins
from rewardlab.metrics.auc import auc_statistic
from rewardlab.metrics.bootstrap import Interval, Statistic, bootstrap_by_cluster, bootstrap_weights, mean_of
from rewardlab.metrics.inputs import check_scores, prompt_clusters
from rewardlab.metrics.probability import ECE_BINS, calibration_gaps, pair_log_losses
from rewardlab.types import Pair, PromptGroup, text_of

NO_SUBSET = "(none)"
"""Name of the subset of pairs without one, where other pairs have one; the subsets then still add up to the whole."""

_GAPS = 6
_STATISTICS: Mapping[str, Statistic] = {  # column numbers as in _rows
    "accuracy": mean_of(1),
    "log_loss": mean_of(2),
    "ece": lambda sums: np.abs(sums[:, _GAPS:]).sum(axis=1) / sums[:, 0],
    "margin": mean_of(3),
    "longer_wins": mean_of(4),
    "shorter_wins": mean_of(5),
}


@dataclass(frozen=True, slots=True)
class PairResult:
    """One evaluated pair.

    Attributes:
        group: Index of its group among the groups evaluated, where its text is.
        pair: Which completions of the group were compared.
        prompt: Label of its cluster: equal for two pairs if and only if they are resampled together.
        id: The group's id.
        subset: The group's subset.
        chosen_score: Score of the chosen completion, a logit.
        rejected_score: Score of the rejected completion, a logit.
        chosen_length: Characters of the chosen completion.
        rejected_length: Characters of the rejected completion.
    """

    group: int
    pair: Pair
    prompt: str
    id: str | int | None
    subset: str | None
    chosen_score: float
    rejected_score: float
    chosen_length: int
    rejected_length: int

    @property
    def margin(self) -> float:
        """Chosen minus rejected score; > 0 is a win, 0 a tie."""
        return self.chosen_score - self.rejected_score


@dataclass(frozen=True, slots=True)
class SubsetResult:
    """The accuracy on one subset; its interval resamples the prompts of the subset alone."""

    num_pairs: int
    accuracy: Interval

    def to_dict(self) -> dict[str, Any]:
        """``{"num_pairs", "accuracy": {"value", "low", "high"}}``."""
        return {"num_pairs": self.num_pairs, "accuracy": self.accuracy.to_dict()}


@dataclass(frozen=True, slots=True)
class TieResult:
    """How the scores of completions judged equally good differ, beside those of which one was preferred.

    Attributes:
        difference_of_ties: Mean absolute score difference of the tied pairs.
        difference_of_preferences: The same of the others.
        auc: Probability that a random tie has a smaller absolute difference than a random preference; 1/2 is chance.
    """

    difference_of_ties: Interval
    difference_of_preferences: Interval
    auc: Interval

    def to_dict(self) -> dict[str, Any]:
        """One ``{"value", "low", "high"}`` for each attribute."""
        return {
            "difference_of_ties": self.difference_of_ties.to_dict(),
            "difference_of_preferences": self.difference_of_preferences.to_dict(),
            "auc": self.auc.to_dict(),
        }


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """Metrics of one model on one set; what each means is in ``docs/metrics.md``.

    Attributes:
        num_pairs: Preferences evaluated: pairs of which one completion is the better one.
        num_prompts: Their clusters, which the intervals resample: distinct prompts, and one per group without a prompt.
        accuracy: Share of pairs whose chosen completion scores strictly higher.
        log_loss: Mean of ``-log sigmoid(chosen - rejected)``, nats.
        ece: Expected calibration error of ``sigmoid(|margin|)``.
        margin: Mean of chosen minus rejected score.
        longer_wins: Accuracy of always choosing the longer completion, in characters.
        shorter_wins: Accuracy of always choosing the shorter completion.
        ties: Preferences with equal scores; counted as not won.
        tied_labels: Pairs judged equally good; no part of any metric but ``tie_aware``.
        tie_aware: What the scores make of these; None where there are none.
        subsets: Per subset, in order of name; empty where no group has one.
        confidence: Coverage of the intervals.
        resamples: Bootstrap resamples behind the intervals.
        seed: Seed of the resamples.
        pairs: Each preference's own numbers, in the order of the groups; not part of :meth:`to_dict`.
    """

    num_pairs: int
    num_prompts: int
    accuracy: Interval
    log_loss: Interval
    ece: Interval
    margin: Interval
    longer_wins: Interval
    shorter_wins: Interval
    ties: int
    tied_labels: int
    tie_aware: TieResult | None
    subsets: Mapping[str, SubsetResult]
    confidence: float
    resamples: int
    seed: int
    pairs: tuple[PairResult, ...]

    @property
    def best_length_baseline(self) -> float:
        """Accuracy of the better of always-longer and always-shorter."""
        return max(self.longer_wins.value, self.shorter_wins.value)

    @property
    def above_length_baselines(self) -> bool | None:
        """Whether the accuracy's lower bound is above both length baselines; None where there is no bound."""
        return None if self.accuracy.low is None else self.accuracy.low > self.best_length_baseline

    def to_dict(self) -> dict[str, Any]:
        """What ``rewardlab evaluate --json`` prints: numbers, strings, booleans and None only."""
        return {
            "num_pairs": self.num_pairs,
            "num_prompts": self.num_prompts,
            **{name: getattr(self, name).to_dict() for name in _STATISTICS},
            "ties": self.ties,
            "tied_labels": self.tied_labels,
            **({"tie_aware": self.tie_aware.to_dict()} if self.tie_aware else {}),
            "above_length_baselines": self.above_length_baselines,
            "subsets": {name: subset.to_dict() for name, subset in self.subsets.items()},
            "ece_bins": ECE_BINS,
            "bootstrap": {
                "unit": "prompt",
                "confidence": self.confidence,
                "resamples": self.resamples,
                "seed": self.seed,
            },
        }


def require_pairs(groups: Sequence[PromptGroup]) -> None:
    """Refuses groups that cannot be evaluated; meant to be called before hours of scoring.

    Raises:
        DataError: There are no groups, some compare nothing (the first of them are named), or all pairs are ties.
    """
    if not groups:
        raise DataError(
            "there are no pairs to evaluate",
            hint="Give a file with at least one row with a chosen and a rejected side.",
        )
    without = [group.name for group in groups if not group.pairs]
    if without:
        named = ", ".join(without[:5]) + (f" and {len(without) - 5} more" if len(without) > 5 else "")
        raise DataError(
            f"{len(without)} of {len(groups)} rows say no preference: {named}",
            hint="Evaluation needs rows that say which completion is preferred; leave the others to `rewardlab score`.",
        )
    if all(pair.tie for group in groups for pair in group.pairs):
        raise DataError(
            "all pairs are ties: there is no preference to evaluate",
            hint="Add rows in which one completion was preferred.",
        )


def evaluate_scores(
    groups: Sequence[PromptGroup],
    scores: Sequence[Sequence[float]],
    *,
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> EvaluationResult:
    """Compares scores that are already there with the preferences.

    Args:
        groups: Groups with at least one pair each, and not only ties.
        scores: Per group, one score per completion.
        resamples: Bootstrap resamples behind the intervals.
        seed: Seed of the resamples.
        confidence: Coverage of the intervals, in (0, 1).

    Returns:
        The metrics, their intervals, and each preference's numbers.

    Raises:
        DataError: No groups, a group without pairs, only ties, scores that do not match the completions one to one, or
            a score that is not finite.
    """
    require_pairs(groups)
    check_scores(groups, scores)
    compared = _pair_results(groups, scores)
    pairs = tuple(pair for pair in compared if not pair.pair.tie)
    rows = _rows(pairs)
    prompts = [pair.prompt for pair in pairs]
    options: dict[str, Any] = {"resamples": resamples, "seed": seed, "confidence": confidence}

    subsets = {}
    if any(pair.subset is not None for pair in pairs):
        names = np.array([NO_SUBSET if pair.subset is None else pair.subset for pair in pairs], dtype=object)
        for name in sorted(set(names)):
            members = np.flatnonzero(names == name)
            interval = bootstrap_by_cluster(
                rows[members], [prompts[i] for i in members], {"accuracy": _STATISTICS["accuracy"]}, **options
            )
            subsets[name] = SubsetResult(len(members), interval["accuracy"])

    metrics: dict[str, Any] = dict(bootstrap_by_cluster(rows, prompts, _STATISTICS, **options))
    return EvaluationResult(
        num_pairs=len(pairs),
        num_prompts=len(set(prompts)),
        **metrics,
        ties=sum(pair.margin == 0 for pair in pairs),
        tied_labels=len(compared) - len(pairs),
        tie_aware=_tie_result(compared, options) if len(compared) > len(pairs) else None,
        subsets=subsets,
        pairs=pairs,
        **options,
    )


def _pair_results(groups: Sequence[PromptGroup], scores: Sequence[Sequence[float]]) -> list[PairResult]:
    """Every pair of every group, in order."""
    results = []
    clusters = prompt_clusters(groups)
    for index, (group, group_scores) in enumerate(zip(groups, scores, strict=True)):
        lengths = [len(text_of(completion)) for completion in group.completions]
        results += [
            PairResult(
                group=index,
                pair=pair,
                prompt=clusters[index],
                id=group.id,
                subset=group.subset,
                chosen_score=float(group_scores[pair.chosen]),
                rejected_score=float(group_scores[pair.rejected]),
                chosen_length=lengths[pair.chosen],
                rejected_length=lengths[pair.rejected],
            )
            for pair in group.pairs
        ]
    return results


def _rows(pairs: Sequence[PairResult]) -> NDArray[np.float64]:
    """What is summed per prompt, shape (pairs, columns): count, win, log loss, margin, longer, shorter, ECE's bins."""
    margins = score_margins([pair.chosen_score for pair in pairs], [pair.rejected_score for pair in pairs])
    lengths = score_margins([pair.chosen_length for pair in pairs], [pair.rejected_length for pair in pairs])
    columns = [np.ones(len(pairs)), margins > 0, pair_log_losses(margins), margins, lengths > 0, lengths < 0]
    return np.column_stack([*columns, calibration_gaps(margins)])


def _tie_result(compared: Sequence[PairResult], options: Mapping[str, Any]) -> TieResult:
    """Of preferences and ties together, at least one of each."""
    tied = np.array([pair.pair.tie for pair in compared])
    differences = np.abs([pair.margin for pair in compared])
    prompts = [pair.prompt for pair in compared]
    means = bootstrap_by_cluster(
        np.column_stack([tied, ~tied, differences * tied, differences * ~tied]),
        prompts,
        {"difference_of_ties": mean_of(2), "difference_of_preferences": mean_of(3, count=1)},
        skip_undefined=True,
        **options,
    )
    return TieResult(**means, **bootstrap_weights(prompts, {"auc": auc_statistic(-differences, tied)}, **options))

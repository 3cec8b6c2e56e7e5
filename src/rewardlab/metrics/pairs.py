"""Groups, their preferences and their scores -> the metrics with intervals, beside the baselines of length.

Where the scores come from is not known here, so training, evaluation and scripts measure alike. This file decides what
is counted: every preference of every group once, each with the same weight (``weight`` belongs to the loss), pairs of
one prompt as one cluster; pairs judged equally good are no preference, and are looked at by themselves. How a result
looks on a terminal is :mod:`rewardlab.evaluation.table`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rewardlab.errors import DataError
from rewardlab.metrics.accuracy import score_margins
from rewardlab.metrics.bootstrap import Bootstrapped, FloatArray, Interval, Statistic, bootstrap_by_cluster, mean_of
from rewardlab.metrics.inputs import as_judged, check_scores, prompt_clusters
from rewardlab.metrics.length_control import LengthControlled, control_length, length_columns, length_statistics
from rewardlab.metrics.probability import ECE_BINS
from rewardlab.metrics.probability_columns import WORDS, probability_columns, probability_statistics
from rewardlab.metrics.reliability import ReliabilityBin, reliability
from rewardlab.metrics.ties import TieResult, evaluate_ties
from rewardlab.types import MOST_IMPLIED_PAIRS, Pair, PromptGroup, text_of

NO_SUBSET = "(none)"
"""Name of the subset of pairs without one, where other pairs have one; the subsets then still add up to the whole."""

_STATISTICS: Mapping[str, Statistic] = {  # column numbers as in _rows
    "accuracy": mean_of(1),
    **probability_statistics(5),
    "margin": mean_of(2),
    "longer_wins": mean_of(3),
    "shorter_wins": mean_of(4),
}
_OF_SUBSETS = {name: _STATISTICS[name] for name in ("accuracy", "log_loss")}


@dataclass(frozen=True, slots=True)
class PairResult:
    """One evaluated pair.

    Attributes:
        group: Index of its group among the groups evaluated, where its text is.
        pair: Which completions of the group were compared, the likelier one of a soft label as the chosen one.
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
    """The figures of one subset; the intervals resample the prompts of the subset alone."""

    num_pairs: int
    accuracy: Interval
    log_loss: Interval

    def to_dict(self) -> dict[str, Any]:
        """``{"num_pairs", "accuracy": {"value", "low", "high"}, "log_loss": {...}}``."""
        return {"num_pairs": self.num_pairs, **{name: getattr(self, name).to_dict() for name in _OF_SUBSETS}}


@dataclass(frozen=True, slots=True)
class EvaluationResult(Bootstrapped):
    """Metrics of one model on one set; what each means is in ``docs/metrics.md``.

    Attributes:
        num_pairs: Preferences evaluated: pairs of which one completion is the better one.
        num_prompts: Their clusters, which the intervals resample: distinct prompts, and one per group without a prompt.
        accuracy: Share of pairs whose chosen completion scores strictly higher.
        log_loss: Mean of ``-log sigmoid(chosen - rejected)``, nats.
        brier: Mean of ``(1 - sigmoid(chosen - rejected))^2``.
        ece: Expected calibration error of ``sigmoid(|margin|)``, in bins of equal width.
        ece_equal_mass: The same in bins with as many pairs each.
        margin: Mean of chosen minus rejected score.
        longer_wins: Accuracy of always choosing the longer completion, in characters.
        shorter_wins: Accuracy of always choosing the shorter completion.
        ties: Preferences with equal scores; counted as not won.
        tied_labels: Pairs judged equally good, or of probability 1/2; no part of any metric but ``tie_aware``.
        tie_aware: What the scores make of these; None where there are none.
        temperature: The temperature the margins were also divided by; None where none was given.
        calibrated: ``log_loss``, ``brier``, ``ece`` and ``ece_equal_mass`` of ``margin / temperature``; empty without.
        reliability: The bins of a reliability diagram, of equal width: ``before``, and at the temperature ``after``.
        length_controlled: The accuracy when length cannot help.
        subsets: Per subset, in order of name; empty where no group has one.
        pairs: Each preference's own numbers, in the order of the groups; not part of :meth:`to_dict`.
    """

    num_pairs: int
    num_prompts: int
    accuracy: Interval
    log_loss: Interval
    brier: Interval
    ece: Interval
    ece_equal_mass: Interval
    margin: Interval
    longer_wins: Interval
    shorter_wins: Interval
    ties: int
    tied_labels: int
    tie_aware: TieResult | None
    temperature: float | None
    calibrated: Mapping[str, Interval]
    reliability: Mapping[str, tuple[ReliabilityBin, ...]]
    length_controlled: LengthControlled
    subsets: Mapping[str, SubsetResult]
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
            "temperature": self.temperature,
            "calibrated": {name: interval.to_dict() for name, interval in self.calibrated.items()},
            "above_length_baselines": self.above_length_baselines,
            "length_controlled": self.length_controlled.to_dict(),
            "subsets": {name: subset.to_dict() for name, subset in self.subsets.items()},
            "ece_bins": ECE_BINS,
            "reliability": {name: [asdict(bin) for bin in bins] for name, bins in self.reliability.items()},
            "bootstrap": self.bootstrap,
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
    if unlisted := [group for group in groups if group.num_unlisted_pairs and not group.pairs]:
        first = unlisted[0]
        raise DataError(
            f"{len(unlisted)} of {len(groups)} rows rank too many completions for pairs: {first.name} ranks "
            f"{len(first.completions):,}, which is {first.num_unlisted_pairs:,} pairs, and at most "
            f"{MOST_IMPLIED_PAIRS:,} are made",
            hint="Leave such rows out, or completions in them; `rewardlab evaluate` gives their rank correlation.",
        )
    if without:
        named = ", ".join(without[:5]) + (f" and {len(without) - 5} more" if len(without) > 5 else "")
        raise DataError(
            f"{len(without)} of {len(groups)} rows say no preference: {named}",
            hint="Evaluation needs rows that say which completion is preferred; leave the others to `rewardlab score`.",
        )
    if all(as_judged(pair).tie for group in groups for pair in group.pairs):
        raise DataError(
            "all pairs are ties: there is no preference to evaluate",
            hint="Add rows in which one completion was preferred.",
        )


def evaluate_scores(
    groups: Sequence[PromptGroup],
    scores: Sequence[Sequence[float]],
    *,
    temperature: float | None = None,
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> EvaluationResult:
    """Compares scores that are already there with the preferences.

    Args:
        groups: Groups with at least one pair each, and not only ties.
        scores: Per group, one score per completion, raw.
        temperature: Fitted temperature, > 0: log loss, Brier score and calibration errors are then also given at it.
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
    margins = score_margins([pair.chosen_score for pair in pairs], [pair.rejected_score for pair in pairs])
    chosen_lengths = [pair.chosen_length for pair in pairs]
    rejected_lengths = [pair.rejected_length for pair in pairs]
    rows = _rows(margins, score_margins(chosen_lengths, rejected_lengths))
    by_length = length_columns(margins, chosen_lengths, rejected_lengths)
    table = np.column_stack([rows, by_length])
    statistics = {**_STATISTICS, **length_statistics(by_length, rows.shape[1])}
    if temperature is not None:
        statistics |= {f"calibrated {name}": one for name, one in probability_statistics(table.shape[1]).items()}
        table = np.column_stack([table, probability_columns(margins, temperature)])
    prompts = [pair.prompt for pair in pairs]
    options: dict[str, Any] = {"resamples": resamples, "seed": seed, "confidence": confidence}
    # A resample may lack pairs of matched length; the other figures are defined on every one.
    found = bootstrap_by_cluster(table, prompts, statistics, skip_undefined=True, **options)
    diagrams = {"before": 1.0} if temperature is None else {"before": 1.0, "after": temperature}
    metrics: dict[str, Any] = {name: found[name] for name in _STATISTICS}
    return EvaluationResult(
        num_pairs=len(pairs),
        num_prompts=len(set(prompts)),
        **metrics,
        ties=int((margins == 0).sum()),
        tied_labels=len(compared) - len(pairs),
        tie_aware=_tie_result(compared, options) if len(compared) > len(pairs) else None,
        temperature=temperature,
        calibrated={name: found[f"calibrated {name}"] for name in WORDS if temperature is not None},
        reliability={name: tuple(reliability(margins, at, confidence=confidence)) for name, at in diagrams.items()},
        length_controlled=control_length(margins, chosen_lengths, rejected_lengths, prompts, found, **options),
        subsets=_subset_results(pairs, rows, options),
        pairs=pairs,
        **options,
    )


def subsets_of(pairs: Sequence[PairResult]) -> dict[str, list[int]]:
    """Which pairs are in each subset, in order of its name; nothing where no pair has one."""
    if all(pair.subset is None for pair in pairs):
        return {}
    members: dict[str, list[int]] = {}
    for place, pair in enumerate(pairs):
        members.setdefault(NO_SUBSET if pair.subset is None else pair.subset, []).append(place)
    return dict(sorted(members.items()))


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
            for pair in map(as_judged, group.pairs)
        ]
    return results


def _rows(margins: FloatArray, longer_by: FloatArray) -> FloatArray:
    """What is summed per prompt, shape (pairs, columns): count, win, margin, longer, shorter, as probabilities."""
    columns = [np.ones(len(margins)), margins > 0, margins, longer_by > 0, longer_by < 0]
    return np.column_stack([*columns, probability_columns(margins)])


def _subset_results(
    pairs: Sequence[PairResult], rows: FloatArray, options: Mapping[str, Any]
) -> dict[str, SubsetResult]:
    found = {}
    for name, members in subsets_of(pairs).items():
        prompts = [pairs[place].prompt for place in members]
        found[name] = SubsetResult(len(members), **bootstrap_by_cluster(rows[members], prompts, _OF_SUBSETS, **options))
    return found


def _tie_result(compared: Sequence[PairResult], options: Mapping[str, Any]) -> TieResult:
    """Of preferences and ties together, at least one of each."""
    margins, tied = [pair.margin for pair in compared], [pair.pair.tie for pair in compared]
    return evaluate_ties(margins, tied, [pair.prompt for pair in compared], **options)

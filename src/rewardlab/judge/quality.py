"""How far a judge can be believed: what it found in both orders, against what people found.

Every figure has an interval by prompt. An abstention is counted as one and is in no other figure: it is neither right
nor wrong nor half of each. What each figure means is in ``docs/judge_quality.md``. This file knows judged pairs; it
asks nobody.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from rewardlab.errors import DataError
from rewardlab.judge.chat import Usage
from rewardlab.judge.quality_figures import (
    Abstentions,
    HumanAgreement,
    JudgeQuality,
    JudgingCost,
    LengthEffect,
    PositionEffect,
    SelfPreference,
    StatedProbability,
)
from rewardlab.judge.verdicts import Abstention, Choice, PairReading, PairVerdict
from rewardlab.metrics.bootstrap import (
    FloatArray,
    Interval,
    Statistic,
    bootstrap_by_cluster,
    bootstrap_weights,
    mean_of,
)
from rewardlab.metrics.kappa import agreement
from rewardlab.metrics.probability_columns import probability_columns, probability_statistics
from rewardlab.metrics.system_ranking import SystemComparison, SystemRanking, TieModel
from rewardlab.metrics.system_ranking import rank_systems as rank_compared_systems
from rewardlab.metrics.win_rate import FEWEST_COMPARISONS, WinRate, fit_logistic, win_rate

_OF_FIRST: Mapping[Choice, float] = {"first": 1.0, "tie": 0.5, "second": 0.0}
_SUREST = 1e-12  # a probability of exactly 0 or 1 has no logit


@dataclass(frozen=True, slots=True)
class JudgedPair:
    """One comparison that the judge was asked, and what people said of it.

    Attributes:
        prompt: Key of the prompt; intervals resample by it.
        verdict: What the judge found in both orders.
        human: What people prefer, of the completions as given; None where nobody said.
        lengths: Characters of the first and of the second completion.
        systems: What wrote each; None where it is not known.
        subset: The row's subset.
    """

    prompt: str
    verdict: PairVerdict
    human: Choice | None
    lengths: tuple[int, int]
    systems: tuple[str | None, str | None] = (None, None)
    subset: str | None = None

    @property
    def preference(self) -> float | None:
        """How much the judge prefers the first: its probability, else 1, 1/2 or 0; None where it abstained."""
        choice = self.verdict.choice
        if choice is None:
            return None
        return _OF_FIRST[choice] if self.verdict.p_first is None else self.verdict.p_first


def measure_quality(
    pairs: Sequence[JudgedPair],
    usage: Usage | None = None,
    self_name: str | None = None,
    *,
    seconds: float | None = None,
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> JudgeQuality:
    """Agreement with people, effects of position, length and authorship, calibration and cost.

    Args:
        pairs: Comparisons judged in both orders.
        usage: What the judge used for them.
        self_name: What the judge is called among the systems.
        seconds: What the run took.
        resamples: Bootstrap resamples behind the intervals, of prompts.
        seed: Seed of the resamples.
        confidence: Coverage of the intervals, in (0, 1).

    Raises:
        DataError: There are no pairs.
    """
    if not pairs:
        raise DataError("there are no judged comparisons", hint="Judge a file of pairs, e.g. with human labels.")
    options: dict[str, Any] = {"resamples": resamples, "seed": seed, "confidence": confidence}
    judged = [pair for pair in pairs if pair.verdict.choice is not None]
    labelled = [pair for pair in judged if pair.human is not None]
    themselves = _self_preference(labelled, self_name, options) if self_name else None
    notes = []
    if self_name and themselves is None:
        names = sorted({name for pair in pairs for name in pair.systems if name is not None})
        known = f"the systems are {', '.join(names[:10])}" if names else "no row names its systems"
        notes.append(f"no self-preference: no judged and labelled comparison of {self_name} with another; {known}")
    if not labelled:
        notes.append("no comparison has both a verdict and a human label: agreement cannot be measured")
    subsets = sorted({pair.subset for pair in labelled if pair.subset is not None})
    return JudgeQuality(
        num_pairs=len(pairs),
        num_prompts=len({pair.prompt for pair in pairs}),
        num_labelled=sum(pair.human is not None for pair in pairs),
        abstentions=_abstentions(pairs, options),
        judge_ties=sum(pair.verdict.choice == "tie" for pair in judged),
        human_ties=sum(pair.human == "tie" for pair in pairs),
        agreement=_agreement(labelled, options),
        consistent=_agreement([pair for pair in labelled if pair.verdict.consistent], options),
        position=_position(pairs, options),
        length=_length(judged, options),
        self_preference=themselves,
        probability=_probability(labelled, options),
        cost=_cost(usage, seconds) if usage else None,
        subsets={name: _agreement([pair for pair in labelled if pair.subset == name], options) for name in subsets},
        notes=tuple(notes),
        **options,
    )


def _means(
    pairs: Sequence[JudgedPair], columns: Mapping[str, Any], options: dict[str, Any], **more: Statistic
) -> dict[str, Interval]:
    """The mean of each column, and more statistics of their sums, of which column 0 counts the rows.

    Columns are of 0 to 1. Where one is 0 or 1 throughout, every resample is too, and an interval that is a point would
    be too sure of itself: there it is the exact one of as many trials as there are prompts.
    """
    rows = np.column_stack([np.ones(len(pairs)), *(np.asarray(column, np.float64) for column in columns.values())])
    statistics = {name: mean_of(place) for place, name in enumerate(columns, start=1)}
    prompts = [pair.prompt for pair in pairs]
    found = bootstrap_by_cluster(rows, prompts, {**statistics, **more}, **options)
    number = len(set(prompts))
    for name in columns:
        if found[name].low is not None and found[name].value in (0, 1):
            found[name] = exact_share(round(found[name].value) * number, number, options["confidence"])
    return found


def _difference(sums: FloatArray) -> FloatArray:
    """Of the means of the first two columns."""
    gap: FloatArray = (sums[:, 1] - sums[:, 2]) / sums[:, 0]
    return gap


def _abstentions(pairs: Sequence[JudgedPair], options: dict[str, Any]) -> Abstentions:
    found = [pair.verdict.abstention for pair in pairs if pair.verdict.choice is None]
    by_kind = Counter(one.kind for one in found if one is not None)
    rate = _means(pairs, {"rate": [pair.verdict.choice is None for pair in pairs]}, options)["rate"]
    return Abstentions(len(found), rate, dict(sorted(by_kind.items())))


def _agreement(labelled: Sequence[JudgedPair], options: dict[str, Any]) -> HumanAgreement:
    if not labelled:
        return HumanAgreement(0, 0, None, None)
    decided = [pair for pair in labelled if "tie" not in (pair.verdict.choice, pair.human)]
    accuracy = None
    if decided:
        same = [pair.verdict.choice == pair.human for pair in decided]
        accuracy = _means(decided, {"accuracy": same}, options)["accuracy"]
    judge, human = ([str(choice) for choice in choices] for choices in _choices(labelled))
    three_way = agreement(judge, human, [pair.prompt for pair in labelled], **options)
    return HumanAgreement(len(labelled), len(decided), accuracy, three_way)


def _choices(pairs: Sequence[JudgedPair]) -> tuple[list[Choice | None], list[Choice | None]]:
    return [pair.verdict.choice for pair in pairs], [pair.human for pair in pairs]


def _position(pairs: Sequence[JudgedPair], options: dict[str, Any]) -> PositionEffect | None:
    read, leanings = [], []
    for pair in pairs:
        one, other = pair.verdict.as_given, pair.verdict.swapped
        if not isinstance(one, Abstention) and not isinstance(other, Abstention):
            read.append(pair)
            leanings.append(_leaning(one, other))
    if not read:
        return None
    toward = np.array(leanings)
    columns = {"first": toward > 0, "second": toward < 0, "same": toward == 0}
    found = _means(read, columns, options, advantage=_difference)
    advantage = found["advantage"]
    direction: Literal["first", "second"] | None = None
    if advantage.low is not None and advantage.high is not None:
        direction = "first" if advantage.low > 0 else "second" if advantage.high < 0 else None
    return PositionEffect(len(read), found["same"], found["first"], found["second"], advantage, direction)


def _leaning(as_given: PairReading, swapped: PairReading) -> float:
    """How much more the place shown first was chosen; ``swapped`` is in the given order, so its first came last."""
    return _OF_FIRST[as_given.choice] - _OF_FIRST[swapped.choice]


def _length(judged: Sequence[JudgedPair], options: dict[str, Any]) -> LengthEffect | None:
    different = [pair for pair in judged if pair.verdict.choice != "tie" and pair.lengths[0] != pair.lengths[1]]
    if not different:
        return None
    longer = _means(different, {"longer": _is_longer(different, "judge")}, options)["longer"]
    both = [pair for pair in different if pair.human in ("first", "second")]
    by_both: dict[str, Interval] = {}
    if both:
        columns = {"by_judge": _is_longer(both, "judge"), "by_humans": _is_longer(both, "human")}
        by_both = _means(both, columns, options, difference=_difference)
    return LengthEffect(
        num_pairs=len(different),
        longer=longer,
        num_with_human=len(both),
        by_judge=by_both.get("by_judge"),
        by_humans=by_both.get("by_humans"),
        difference=by_both.get("difference"),
        coefficient=_length_coefficient(judged, options),
    )


def _is_longer(pairs: Sequence[JudgedPair], who: Literal["judge", "human"]) -> list[bool]:
    judge, human = _choices(pairs)
    chosen = judge if who == "judge" else human
    return [(one == "first") == (pair.lengths[0] > pair.lengths[1]) for one, pair in zip(chosen, pairs, strict=True)]


def _length_coefficient(judged: Sequence[JudgedPair], options: dict[str, Any]) -> Interval | None:
    """The b of ``sigmoid(a h + b tanh(d / s))``.

    h is the human choice, +1 or -1; d the length difference; s the root mean square of these. Without an intercept both
    orders of a pair say the same, so it does not matter which came first in the row.
    """
    pairs = [pair for pair in judged if pair.human in ("first", "second")]
    gaps = np.array([pair.lengths[0] - pair.lengths[1] for pair in pairs], dtype=np.float64)
    if len(pairs) < FEWEST_COMPARISONS or not gaps.any():
        return None
    human = np.array([1.0 if pair.human == "first" else -1.0 for pair in pairs])
    features = np.column_stack([human, np.tanh(gaps / np.sqrt(np.mean(gaps**2)))])
    targets = np.array([pair.preference for pair in pairs], dtype=np.float64)
    if not np.isfinite(fit_logistic(features, targets, np.ones((1, len(pairs))))).all():
        return None
    statistic = {"length": lambda weights: fit_logistic(features, targets, weights)[:, 1]}
    return bootstrap_weights([pair.prompt for pair in pairs], statistic, **options)["length"]


def _self_preference(labelled: Sequence[JudgedPair], self_name: str, options: dict[str, Any]) -> SelfPreference | None:
    pairs = [p for p in labelled if None not in p.systems and p.systems.count(self_name) == 1]
    if not pairs:
        return None
    is_first = np.array([pair.systems[0] == self_name for pair in pairs])
    by_judge, by_humans = (np.array([_OF_FIRST[one] for one in some if one]) for some in _choices(pairs))
    columns = {
        "by_judge": np.where(is_first, by_judge, 1 - by_judge),
        "by_humans": np.where(is_first, by_humans, 1 - by_humans),
    }
    found = _means(pairs, columns, options, difference=_difference)
    return SelfPreference(self_name, len(pairs), found["by_judge"], found["by_humans"], found["difference"])


def _probability(labelled: Sequence[JudgedPair], options: dict[str, Any]) -> StatedProbability | None:
    pairs = [p for p in labelled if p.verdict.p_first is not None and p.human != "tie"]
    if not pairs:
        return None
    stated = np.array([p.verdict.p_first if p.human == "first" else 1 - (p.verdict.p_first or 0.0) for p in pairs])
    stated = np.clip(stated.astype(np.float64), _SUREST, 1 - _SUREST)
    rows = np.column_stack([np.ones(len(pairs)), probability_columns(np.log(stated) - np.log1p(-stated))])
    statistics = {name: one for name, one in probability_statistics(1).items() if name in ("brier", "ece")}
    found = bootstrap_by_cluster(rows, [pair.prompt for pair in pairs], statistics, **options)
    return StatedProbability(len(pairs), found["brier"], found["ece"])


def _cost(usage: Usage, seconds: float | None) -> JudgingCost:
    failed = sum(count for kind, count in usage.failures.items() if kind != "budget")  # beyond a limit nothing is sent
    answered = max(0, usage.calls - usage.probe_calls - failed) / 2
    tokens = usage.prompt_tokens + usage.completion_tokens
    return JudgingCost(
        calls=usage.calls,
        probe_calls=usage.probe_calls,
        cached=usage.cached,
        answered=answered,
        cost=usage.cost,
        cost_per_comparison=usage.cost / answered if usage.cost is not None and answered else None,
        tokens_per_comparison=tokens / answered if answered else None,
        seconds_per_comparison=seconds / answered if seconds is not None and answered else None,
        estimated=usage.estimated,
    )


def exact_share(count: int, number: int, confidence: float = 0.95) -> Interval:
    """A share of independent trials with the interval of Clopper and Pearson 1934, which is no point at 0 or 1.

    Args:
        count: How many did.
        number: Of how many, at least 1.
        confidence: Coverage of the interval, in (0, 1).
    """
    from scipy.stats import binomtest

    bounds = binomtest(count, number).proportion_ci(confidence, method="exact")
    return Interval(count / number, float(bounds.low), float(bounds.high))


def rank_systems(
    pairs: Sequence[JudgedPair],
    *,
    tie_model: TieModel = "davidson",
    prior: float = 0.0,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> SystemRanking | None:
    """The strengths of the systems by the judge's verdicts; None where no two systems were compared.

    Comparisons without a verdict, without both names, or of a system with itself are left out.

    Args:
        pairs: Comparisons judged in both orders.
        tie_model: See :func:`~rewardlab.metrics.system_ranking.rank_systems`.
        prior: Weight of each system's pseudo-comparisons; 0: none.
        resamples: Bootstrap resamples behind the intervals, of prompts.
        seed: Seed of the resamples.
        confidence: Coverage of the intervals, in (0, 1).

    Raises:
        DataError: The strengths have no finite maximum.
    """
    compared = [
        SystemComparison(first, second, pair.verdict.choice, pair.prompt)
        for pair, first, second in _of_two_systems(pairs)
        if pair.verdict.choice is not None
    ]
    if not compared:
        return None
    return rank_compared_systems(
        compared, tie_model=tie_model, prior=prior, resamples=resamples, seed=seed, confidence=confidence
    )


def win_rates(
    pairs: Sequence[JudgedPair], *, resamples: int = 2000, seed: int = 0, confidence: float = 0.95
) -> dict[tuple[str, str], WinRate]:
    """How often the first of two systems is preferred, raw and length-controlled, by their names in alphabetical order.

    Its verdicts count, ties, among them all disagreements of the two orders, as 1/2; its probabilities give a rate of
    their own where every comparison of the two systems has one. What :func:`rank_systems` leaves out is left out too.

    Args:
        pairs: Comparisons judged in both orders.
        resamples: Bootstrap resamples behind the intervals, of prompts.
        seed: Seed of the resamples.
        confidence: Coverage of the intervals, in (0, 1).
    """
    found: dict[tuple[str, str], list[tuple[float, float | None, int, int, str]]] = {}
    for pair, first, second in _of_two_systems(pairs):
        if (choice := pair.verdict.choice) is None:
            continue
        won, probability, (one, other) = _OF_FIRST[choice], pair.verdict.p_first, pair.lengths
        if first > second:
            first, second, won, one, other = second, first, 1 - won, other, one
            probability = None if probability is None else 1 - probability
        found.setdefault((first, second), []).append((won, probability, one, other, pair.prompt))
    rates = {}
    for names in sorted(found):
        wins, probabilities, ones, others, prompts = zip(*found[names], strict=True)
        rates[names] = win_rate(
            wins,
            ones,
            others,
            prompts,
            probabilities=None if None in probabilities else probabilities,
            resamples=resamples,
            seed=seed,
            confidence=confidence,
        )
    return rates


def _of_two_systems(pairs: Sequence[JudgedPair]) -> list[tuple[JudgedPair, str, str]]:
    named = [(pair, *pair.systems) for pair in pairs]
    return [(pair, one, other) for pair, one, other in named if one is not None and other is not None and one != other]

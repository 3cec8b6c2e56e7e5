"""Two models on the same pairs: is one better, or is it chance?

The models are compared pair by pair, which says much more than whether their two intervals overlap: what is hard for
one is hard for the other, and that cancels. Differences have the bootstrap's intervals, by prompt; McNemar's test is
beside them. Pure numpy in float64, SciPy for the test; where the scores come from is not known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rewardlab.errors import DataError
from rewardlab.metrics.bootstrap import Bootstrapped, FloatArray, Interval, Statistic, bootstrap_by_cluster, mean_of
from rewardlab.metrics.pairs import EvaluationResult, PairResult, subsets_of
from rewardlab.metrics.probability_columns import WORDS, probability_columns, probability_statistics

_NAMES = ("accuracy", *WORDS)


@dataclass(frozen=True, slots=True)
class SubsetComparison:
    """The accuracies on one subset and their difference, second minus first; resamples the subset's own prompts."""

    num_pairs: int
    first: float
    second: float
    difference: Interval

    def to_dict(self) -> dict[str, Any]:
        """``{"num_pairs", "first", "second", "difference": {"value", "low", "high"}}``."""
        return {
            "num_pairs": self.num_pairs,
            "first": self.first,
            "second": self.second,
            "difference": self.difference.to_dict(),
        }


@dataclass(frozen=True, slots=True)
class Comparison(Bootstrapped):
    """Two models on the same preferences; every difference is second minus first.

    Attributes:
        num_pairs: Preferences compared.
        num_prompts: Clusters that the intervals resample.
        only_first: Pairs that the first model has right and the second wrong (a tie is not right).
        only_second: Pairs that the second has right and the first wrong.
        mcnemar_p: P-value of McNemar's exact test, two-sided. It counts pairs as independent; where several are of one
            prompt, trust the accuracy's interval instead.
        first: ``accuracy``, ``log_loss``, ``brier``, ``ece`` and ``ece_equal_mass`` of the first model, at T = 1.
        second: The same of the second.
        differences: The difference of each.
        calibrated: The difference of the last four, each model at its own temperature; empty unless both have one.
        subsets: Per subset, in order of name.
    """

    num_pairs: int
    num_prompts: int
    only_first: int
    only_second: int
    mcnemar_p: float
    first: Mapping[str, float]
    second: Mapping[str, float]
    differences: Mapping[str, Interval]
    calibrated: Mapping[str, Interval]
    subsets: Mapping[str, SubsetComparison]

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the test and of the subsets should not overlook."""
        notes = []
        if self.num_prompts < self.num_pairs:
            pairs = f"{self.num_pairs:,} pairs are of {self.num_prompts:,} prompts"
            notes.append(
                f"McNemar's test counts pairs as independent, but the {pairs}: the intervals know, it does not."
            )
        if len(self.subsets) > 1:
            expected = f"{len(self.subsets) * (1 - self.confidence):.2g}"
            notes.append(
                f"Of {len(self.subsets)} subsets compared at {100 * self.confidence:g} %, {expected} would leave out "
                "zero by chance alone, were the models equally good."
            )
        return tuple(notes)

    def to_dict(self) -> dict[str, Any]:
        """Numbers, text and None only; intervals as ``{"value", "low", "high"}``."""
        return {
            "num_pairs": self.num_pairs,
            "num_prompts": self.num_prompts,
            "mcnemar": {"only_first": self.only_first, "only_second": self.only_second, "p": self.mcnemar_p},
            "first": dict(self.first),
            "second": dict(self.second),
            "differences": {name: interval.to_dict() for name, interval in self.differences.items()},
            "calibrated": {name: interval.to_dict() for name, interval in self.calibrated.items()},
            "subsets": {name: subset.to_dict() for name, subset in self.subsets.items()},
            "notes": list(self.notes),
            "bootstrap": self.bootstrap,
        }


@dataclass(frozen=True, slots=True)
class MarginComparison(Bootstrapped):
    """Two models' margins of the same preferences; every difference is second minus first.

    Attributes:
        num_pairs: Preferences compared.
        num_prompts: Clusters that the intervals resample.
        only_first: Pairs that the first model has right and the second wrong (a tie is not right).
        only_second: Pairs that the second has right and the first wrong.
        mcnemar_p: P-value of McNemar's exact test, two-sided; as for :class:`Comparison`.
        first: ``accuracy``, ``log_loss``, ``brier``, ``ece`` and ``ece_equal_mass`` of the first model, the last four
            at its own temperature.
        second: The same of the second, at its own.
        differences: The difference of each.
    """

    num_pairs: int
    num_prompts: int
    only_first: int
    only_second: int
    mcnemar_p: float
    first: Mapping[str, float]
    second: Mapping[str, float]
    differences: Mapping[str, Interval]


def compare_margins(
    first: ArrayLike,
    second: ArrayLike,
    prompts: Sequence[str],
    *,
    temperatures: tuple[float, float] = (1.0, 1.0),
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> MarginComparison:
    """Compares two models of whose evaluations only the margins are left, such as in a history.

    Args:
        first: Chosen minus rejected scores by one model, shape (pairs,).
        second: By the other, of the same pairs in the same order.
        prompts: The label of each pair's prompt, length pairs; pairs of one prompt are resampled together.
        temperatures: What the margins of each are divided by to be read as probabilities, > 0.
        resamples: Bootstrap resamples behind the intervals.
        seed: Seed of the resamples.
        confidence: Coverage of the intervals, in (0, 1).

    Raises:
        ValueError: The three differ in length, there are no pairs, a margin is not finite, or a temperature is not > 0.

    Example:
        >>> compare_margins([1.0, 2.0, -1.0], [1.0, -2.0, -1.0], ["a", "b", "c"]).differences["accuracy"].value
        -0.3333333333333333
    """
    margins = [np.asarray(of_one, dtype=np.float64) for of_one in (first, second)]
    if not margins[0].shape == margins[1].shape == (len(prompts),):
        raise ValueError(f"shapes {margins[0].shape} and {margins[1].shape} of margins for {len(prompts)} prompts")
    columns = [_columns(of_one, at) for of_one, at in zip(margins, temperatures, strict=True)]
    rows = np.column_stack([np.ones(len(prompts)), *columns])
    width = columns[0].shape[1]
    singles = [_statistics(1 + place * width) for place in range(2)]
    differences = {name: _difference(*(of_one[name] for of_one in singles)) for name in _NAMES}
    options: dict[str, Any] = {"resamples": resamples, "seed": seed, "confidence": confidence}
    sums = rows.sum(axis=0, keepdims=True)
    right = [of_one > 0 for of_one in margins]
    only_first, only_second = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    return MarginComparison(
        num_pairs=len(prompts),
        num_prompts=len(set(prompts)),
        only_first=only_first,
        only_second=only_second,
        mcnemar_p=mcnemar_p(only_first, only_second),
        first={name: float(singles[0][name](sums)[0]) for name in _NAMES},
        second={name: float(singles[1][name](sums)[0]) for name in _NAMES},
        differences=bootstrap_by_cluster(rows, prompts, differences, **options),
        **options,
    )


def compare(first: EvaluationResult, second: EvaluationResult) -> Comparison:
    """Compares two models that were evaluated on the same groups, in the same order.

    Args:
        first: Of one model, from :func:`~rewardlab.metrics.pairs.evaluate_scores`.
        second: Of the other, with the same resamples, seed and confidence: the difference has the same again.

    Raises:
        DataError: They are not of the same pairs, or do not resample alike.

    References:
        McNemar 1947 (Psychometrika 12:153), in its exact form: of the pairs that only one model has right, each has
        chance 1/2 to be the second's. Paired bootstrap: Efron & Tibshirani 1993.
    """
    if first.bootstrap != second.bootstrap:
        raise DataError(
            f"the two evaluations do not resample alike: {first.bootstrap} and {second.bootstrap}",
            hint="Evaluate both models with the same resamples, seed and confidence.",
        )
    _require_same_pairs(first.pairs, second.pairs)
    prompts = [pair.prompt for pair in first.pairs]
    margins = [np.array([pair.margin for pair in result.pairs]) for result in (first, second)]
    rows = np.column_stack([np.ones(len(prompts)), *(_columns(of_one) for of_one in margins)])
    width = (rows.shape[1] - 1) // 2
    singles = [_statistics(1 + place * width) for place in range(2)]
    statistics = {name: _difference(*(of_one[name] for of_one in singles)) for name in _NAMES}
    if first.temperature is not None and second.temperature is not None:
        start = rows.shape[1]
        scaled = [
            probability_columns(margins[0], first.temperature),
            probability_columns(margins[1], second.temperature),
        ]
        rows = np.column_stack([rows, *scaled])
        fitted = [probability_statistics(start), probability_statistics(start + scaled[0].shape[1])]
        statistics |= {f"calibrated {name}": _difference(*(one[name] for one in fitted)) for name in WORDS}
    options: dict[str, Any] = {"resamples": first.resamples, "seed": first.seed, "confidence": first.confidence}
    found = bootstrap_by_cluster(rows, prompts, statistics, **options)

    subsets = {}
    for name, places in subsets_of(first.pairs).items():
        members = rows[places]
        values = (float(members[:, 1].mean()), float(members[:, 1 + width].mean()))
        accuracy = {"accuracy": statistics["accuracy"]}
        interval = bootstrap_by_cluster(members, [prompts[place] for place in places], accuracy, **options)["accuracy"]
        subsets[name] = SubsetComparison(len(places), *values, interval)

    only_first = int((rows[:, 1] > rows[:, 1 + width]).sum())
    only_second = int((rows[:, 1] < rows[:, 1 + width]).sum())
    return Comparison(
        num_pairs=len(prompts),
        num_prompts=len(set(prompts)),
        only_first=only_first,
        only_second=only_second,
        mcnemar_p=mcnemar_p(only_first, only_second),
        first={name: getattr(first, name).value for name in _NAMES},
        second={name: getattr(second, name).value for name in _NAMES},
        differences={name: found[name] for name in _NAMES},
        calibrated={name: found[key] for name in WORDS if (key := f"calibrated {name}") in found},
        subsets=subsets,
        **options,
    )


def mcnemar_p(only_first: int, only_second: int) -> float:
    """P-value of McNemar's exact test, two-sided; 1 where the models are right about the same pairs.

    Args:
        only_first: Pairs that only the first model has right.
        only_second: Pairs that only the second has right.

    Example:
        >>> mcnemar_p(1, 5)  # 2 * (1 + 6) / 2**6
        0.21875
    """
    from scipy.stats import binomtest

    discordant = only_first + only_second
    return float(binomtest(only_first, discordant).pvalue) if discordant else 1.0


def _columns(margins: FloatArray, temperature: float = 1.0) -> FloatArray:
    return np.column_stack([margins > 0, probability_columns(margins, temperature)])


def _statistics(first: int) -> dict[str, Statistic]:
    return {"accuracy": mean_of(first), **probability_statistics(first + 1)}


def _difference(first: Statistic, second: Statistic) -> Statistic:
    return lambda sums: second(sums) - first(sums)


def _require_same_pairs(first: tuple[PairResult, ...], second: tuple[PairResult, ...]) -> None:
    """Refuses two evaluations that a pair-by-pair comparison would compare wrongly."""
    hint = "Evaluate both models on the same file, with the same rows left out."
    if len(first) != len(second):
        raise DataError(f"the two evaluations are of {len(first):,} and {len(second):,} pairs", hint=hint)
    for number, (one, other) in enumerate(zip(first, second, strict=True)):
        if _identity(one) != _identity(other):
            name = (
                f"id {one.id!r} and id {other.id!r}" if one.id != other.id else f"id {one.id!r}, not of the same text"
            )
            raise DataError(f"the two evaluations are not of the same pairs: pair {number} is {name}", hint=hint)


def _identity(pair: PairResult) -> tuple[Any, ...]:
    sides = (pair.pair.chosen, pair.pair.rejected, pair.chosen_length, pair.rejected_length)
    return (pair.group, pair.prompt, pair.id, pair.subset, *sides)

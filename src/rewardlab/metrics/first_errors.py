"""ProcessBench's metric: at which step does a solution go wrong, and is that the step the scores say?

The predicted first error is the first step with ``P(correct) <= threshold``, -1 where there is none. Pure numpy in
float64; this file knows solutions by their first error and the scores of their steps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rewardlab.metrics.bootstrap import FloatArray, Interval, Statistic, bootstrap_by_cluster, mean_of, ratio
from rewardlab.types import Step

# Columns as in evaluate_first_errors: count, erroneous, correct, erroneous and found, correct and found, first step is
# wrong, answer is the commonest one, commonest step is wrong.


def _on_errors(sums: FloatArray) -> FloatArray:
    return ratio(sums[:, 3], sums[:, 1])


def _on_correct(sums: FloatArray) -> FloatArray:
    return ratio(sums[:, 4], sums[:, 2])


def _f1(sums: FloatArray) -> FloatArray:
    first, second = _on_errors(sums), _on_correct(sums)
    return np.where(first + second == 0, 0.0, ratio(2 * first * second, first + second))


def _guess_f1(sums: FloatArray) -> FloatArray:
    """The highest harmonic mean of ``(1 - q) s`` and ``q``: ``2 s / (1 + sqrt(s))^2``, at ``q = sqrt(s) (1 - q)``."""
    share = ratio(sums[:, 7], sums[:, 1])
    return np.where(sums[:, 2] > 0, 2 * share / (1 + np.sqrt(share)) ** 2, np.nan)


_STATISTICS: Mapping[str, Statistic] = {
    "accuracy": lambda sums: (sums[:, 3] + sums[:, 4]) / sums[:, 0],
    "no_error": mean_of(2),
    "first_step": mean_of(5),
    "majority": mean_of(6),
}
_OF_ERRONEOUS: Mapping[str, Statistic] = {"accuracy_on_erroneous": _on_errors}
_OF_CORRECT: Mapping[str, Statistic] = {"accuracy_on_correct": _on_correct}
_OF_BOTH: Mapping[str, Statistic] = {"f1": _f1, "guess_f1": _guess_f1}


@dataclass(frozen=True, slots=True)
class Solution:
    """What is known of a solution, and what the scores say.

    Attributes:
        prompt: Label of its cluster.
        error: Index of its first incorrect step, -1 where it has none, None where its labels do not say.
        scores: P(correct) of each step.
    """

    prompt: str
    error: int | None
    scores: tuple[float, ...]

    @property
    def determined(self) -> bool:
        """Whether the labels say where the first error is, or that there is none."""
        return self.error is not None


@dataclass(frozen=True, slots=True)
class FirstErrorResult:
    """How well the first error is found; what each means is in ``docs/metrics.md``.

    Attributes:
        num_solutions: Solutions whose labels determine the first error, or that there is none; those evaluated.
        num_erroneous: Those of them with an error.
        num_undetermined: Solutions left out: a step before any error has no label.
        accuracy_on_erroneous: Share of the erroneous ones whose first error is exactly the predicted one; None where
            there are none.
        accuracy_on_correct: Share of the others for which no error is predicted; None likewise.
        f1: Harmonic mean of these two, ProcessBench's F1; 0 if both are.
        guess_f1: The highest F1 of guessing without reading: "no error" at random, else the commonest first error.
        accuracy: Share of all solutions with exactly the right prediction.
        no_error: Accuracy of always predicting no error; its F1 is 0, as is that of any constant.
        first_step: Accuracy of always predicting the first step.
        majority: Accuracy of always predicting ``majority_index``.
        majority_index: The commonest first error, -1 if most often there is none.
    """

    num_solutions: int
    num_erroneous: int
    num_undetermined: int
    accuracy_on_erroneous: Interval | None
    accuracy_on_correct: Interval | None
    f1: Interval | None
    guess_f1: Interval | None
    accuracy: Interval
    no_error: Interval
    first_step: Interval
    majority: Interval
    majority_index: int

    @property
    def above_guess(self) -> bool | None:
        """Whether the F1's lower bound is above that of the best guess; None where there is no bound."""
        if self.f1 is None or self.f1.low is None or self.guess_f1 is None:
            return None
        return self.f1.low > self.guess_f1.value

    @property
    def above_majority(self) -> bool | None:
        """Whether the accuracy's lower bound is above every constant prediction's; None where there is no bound."""
        return None if self.accuracy.low is None else self.accuracy.low > self.majority.value

    def to_dict(self) -> dict[str, Any]:
        """Numbers, booleans and None only; intervals as ``{"value", "low", "high"}``."""
        found = {name: getattr(self, name) for name in (*_OF_ERRONEOUS, *_OF_CORRECT, *_OF_BOTH, *_STATISTICS)}
        return {
            "num_solutions": self.num_solutions,
            "num_erroneous": self.num_erroneous,
            "num_undetermined": self.num_undetermined,
            **{name: interval.to_dict() if interval else None for name, interval in found.items()},
            "majority_index": self.majority_index,
            "above_guess": self.above_guess,
            "above_majority": self.above_majority,
        }


def first_error(steps: Sequence[Step]) -> int | None:
    """Index of the first incorrect step; -1 where all are labelled and none is; None where the labels do not say."""
    for place, step in enumerate(steps):
        if step.label is None:
            return None
        if step.label < 0:
            return place
    return -1


def predicted_first_error(scores: Sequence[float], threshold: float = 0.5) -> int:
    """Index of the first step with ``P(correct) <= threshold``; -1 where there is none.

    Example:
        >>> predicted_first_error([0.9, 0.5, 0.1])
        1
    """
    return next((place for place, score in enumerate(scores) if score <= threshold), -1)


def evaluate_first_errors(solutions: Sequence[Solution], threshold: float = 0.5, **options: Any) -> FirstErrorResult:
    """Compares the predicted first errors with the true ones.

    Args:
        solutions: At least one whose first error is determined.
        threshold: P(correct) at or below which a step is taken for an error.
        **options: Of :func:`~rewardlab.metrics.bootstrap.bootstrap_by_cluster`.

    References:
        Zheng et al. 2024, ProcessBench (arXiv:2412.06559): accuracies on both kinds, and their harmonic mean.
    """
    known = [solution for solution in solutions if solution.error is not None]
    errors = np.array([solution.error for solution in known])
    found = np.array([predicted_first_error(solution.scores, threshold) for solution in known]) == errors
    majority, commonest = (_commonest(kind) for kind in (errors, errors[errors >= 0]))
    wrong, fine = errors >= 0, errors < 0
    columns = [np.ones(len(known)), wrong, fine, wrong & found, fine & found]
    rows = np.column_stack([*columns, errors == 0, errors == majority, wrong & (errors == commonest)])
    statistics = {
        **_STATISTICS,
        **(_OF_ERRONEOUS if wrong.any() else {}),
        **(_OF_CORRECT if fine.any() else {}),
        **(_OF_BOTH if wrong.any() and fine.any() else {}),
    }
    intervals: dict[str, Any] = dict.fromkeys((*_OF_ERRONEOUS, *_OF_CORRECT, *_OF_BOTH))
    prompts = [solution.prompt for solution in known]
    intervals.update(bootstrap_by_cluster(rows, prompts, statistics, skip_undefined=True, **options))
    return FirstErrorResult(
        num_solutions=len(known),
        num_erroneous=int(wrong.sum()),
        num_undetermined=len(solutions) - len(known),
        majority_index=majority,
        **intervals,
    )


def _commonest(values: Any) -> int:
    """The commonest value, of equally common ones the smallest; -1 where there are none."""
    return min(Counter(values.tolist()).items(), key=lambda item: (-item[1], item[0]), default=(-1, 0))[0]

"""Mean and standard deviation of scores, of one batch and of all so far: float64, exact where scores are equal.

This file knows numbers; which scores they are, and of how many ranks, its callers know.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rewardlab.errors import DataError
from rewardlab.rewards.batch import FloatArray

START = {"mean": 0.0, "var": 1.0, "count": 1e-24}
"""Where running moments begin: a standard normal that weighs nothing (trlX, ``RunningMoments.__init__``)."""

_NO_SPREAD = 1e-22
"""The starting moments leave a sum of squares of ``(1 + mean^2) 1e-24`` behind where all scores are equal."""


def mean_and_std(values: FloatArray, ddof: int) -> tuple[float, float]:
    """Mean and standard deviation.

    Args:
        values: At least one finite number, shape (m,), float64.
        ddof: The deviation's squares are summed and divided by m - ddof.

    Returns:
        The mean, and the standard deviation: exactly 0 where all values are equal (their mean could else be wrong by a
        rounding, which is then divided by next to nothing), and where there are no more than ``ddof`` of them.
    """
    low, high = float(values.min()), float(values.max())
    if low == high or values.size <= ddof:
        return (low if low == high else float(values.mean())), 0.0
    mean = float(values.mean())
    return mean, math.sqrt(float(((values - mean) ** 2).sum()) / (values.size - ddof))


class RunningMoments:
    """Mean and variance of all scores so far, batches merged by Chan's formula.

    With a batch of n scores, mean m_b and population variance v_b, d = m_b - mean and N = count + n::

        mean <- mean + d n / N
        var  <- (v_b n + var count + d^2 count n / N) / N
        std   = sqrt(var N / (N - 1))

    Starts at mean 0, var 1, std 1, count 1e-24. One score leaves std at 1 (N - 1 = 0), as do scores that are all equal:
    the formula would give what is left of the starting variance there, about 1e-12, and dividing by it would send
    rewards to 1e12.

    Attributes:
        mean: Mean of the scores.
        var: Their population variance.
        count: How many, and 1e-24.

    References:
        trlX (CarperAI/trlx), ``trlx/utils/modeling.py``, ``RunningMoments``; TRL <= 0.11, ``trl/core.py``.
    """

    def __init__(self) -> None:
        self.mean, self.var, self.count = START["mean"], START["var"], START["count"]

    @property
    def std(self) -> float:
        """Standard deviation with ddof 1; 1 while the scores have no spread."""
        squares = self.var * self.count
        if self.count - 1.0 <= 0.0 or squares <= _NO_SPREAD * (1.0 + self.mean**2):
            return 1.0
        return math.sqrt(squares / (self.count - 1.0))

    def update(self, values: FloatArray) -> None:
        """Merge a batch; an empty one changes nothing.

        Args:
            values: Finite numbers, shape (m,), float64.
        """
        if not values.size:
            return
        number = float(values.size)
        mean, std = mean_and_std(values, 0)
        total = self.count + number
        delta = mean - self.mean
        self.var = (std**2 * number + self.var * self.count + delta**2 * self.count * number / total) / total
        self.mean += delta * number / total
        self.count = total

    def state_dict(self) -> dict[str, float]:
        """``mean``, ``var`` and ``count``, from which :meth:`load_state_dict` restores every bit."""
        return {"mean": self.mean, "var": self.var, "count": self.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another left off.

        Raises:
            DataError: These are no moments; nothing has been changed.
        """
        numbers = finite_numbers(state, tuple(START), "running moments")
        if numbers["var"] < 0 or numbers["count"] <= 0:
            raise DataError(f"running moments need var >= 0 and count > 0, got {dict(state)}", hint=DAMAGED)
        self.mean, self.var, self.count = numbers["mean"], numbers["var"], numbers["count"]


DAMAGED = "the state is damaged: take the one saved before, or begin without one"


def finite_numbers(state: Mapping[str, Any], names: tuple[str, ...], what: str) -> dict[str, float]:
    """The numbers of a saved state, checked.

    Raises:
        DataError: Other names, or what is no finite number.
    """
    if not isinstance(state, Mapping) or set(state) != set(names):
        came = sorted(state) if isinstance(state, Mapping) else type(state).__name__
        raise DataError(f"{what} have {', '.join(names)}, got {came}", hint=DAMAGED)
    numbers = {name: _float(state[name]) for name in names}
    for name, number in numbers.items():
        if not math.isfinite(number):
            raise DataError(f"{what}: {name} must be a finite number, got {state[name]!r}", hint=DAMAGED)
    return numbers


def _float(value: Any) -> float:
    """A number as a float; NaN where it is none, or an integer beyond all floats."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan

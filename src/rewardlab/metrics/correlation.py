"""Agreement of two rows of numbers: Pearson's, Spearman's and Kendall's correlation.

Pure numpy in float64. This file knows numbers only; what they are of, and which belong together, is known by who asks.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from rewardlab.concordance import count_concordance
from rewardlab.metrics.auc import starts_of_equal
from rewardlab.metrics.bootstrap import FloatArray, Statistic, WeightedStatistic, ratio


def pearson(first: ArrayLike, second: ArrayLike) -> float:
    """Linear correlation.

    Args:
        first: Shape (n,).
        second: Shape (n,).

    Returns:
        In [-1, 1]; NaN where one of the two is constant.

    Raises:
        ValueError: Shapes differ or are not (n,), or a value is not finite.
    """
    return float(pearson_of()(moments(first, second).sum(axis=0, keepdims=True))[0])


def spearman(first: ArrayLike, second: ArrayLike) -> float:
    """Rank correlation: Pearson's correlation of the ranks, equal values sharing the mean of theirs.

    Args:
        first: Shape (n,).
        second: Shape (n,).

    Returns:
        In [-1, 1]; NaN where one of the two is constant.

    Raises:
        ValueError: As :func:`pearson`.

    References:
        Spearman 1904. Equals ``scipy.stats.spearmanr``.
    """
    return float(spearman_statistic(first, second)(np.ones((1, np.size(first))))[0])


def kendall_tau(first: ArrayLike, second: ArrayLike) -> float:
    """Kendall's tau-b: pairs in the same order less pairs in the opposite one, corrected for ties.

    ``(C - D) / sqrt((C + D + T1)(C + D + T2))`` over all pairs of places: C in the same order in both, D in opposite
    order, T1 and T2 tied in the first or the second only.

    Args:
        first: Shape (n,).
        second: Shape (n,).

    Returns:
        In [-1, 1]; NaN where one of the two is constant.

    Raises:
        ValueError: As :func:`pearson`.

    References:
        Kendall 1945 (Biometrika 33:239). Equals ``scipy.stats.kendalltau``.

    Example:
        >>> kendall_tau([1, 2, 3], [1, 3, 2])  # two pairs agree, one does not
        0.3333333333333333
    """
    x, y = _checked(first, second)
    concordant, discordant = count_concordance(x.tolist(), y.tolist())
    untied = _untied_pairs(x) * _untied_pairs(y)
    return (concordant - discordant) / math.sqrt(untied) if untied else math.nan


def moments(first: ArrayLike, second: ArrayLike) -> FloatArray:
    """What is summed per row for Pearson's correlation, shape (rows, 6): 1, x, y, xx, yy, xy, of standardised values.

    Raises:
        ValueError: As :func:`pearson`.
    """
    x, y = (_standardised(column) for column in _checked(first, second))
    return np.column_stack([np.ones(len(x)), x, y, x * x, y * y, x * y])


def pearson_of(first_column: int = 0) -> Statistic:
    """:func:`pearson` as a function of sums, for :func:`~rewardlab.metrics.bootstrap.bootstrap_by_cluster`.

    Args:
        first_column: Where the six columns of :func:`moments` start.
    """
    return lambda sums: _correlation(*sums[:, first_column : first_column + 6].T)


def spearman_statistic(first: ArrayLike, second: ArrayLike) -> WeightedStatistic:
    """:func:`spearman` of rows drawn more or less often, for :func:`~rewardlab.metrics.bootstrap.bootstrap_weights`.

    Each draw is ranked anew.
    """
    x, y = _checked(first, second)

    def statistic(weights: FloatArray) -> FloatArray:
        of_x, of_y = _weighted_ranks(x, weights), _weighted_ranks(y, weights)
        total, none = weights.sum(axis=1), np.zeros(len(weights))
        squares = ((weights * a * b).sum(axis=1) for a, b in ((of_x, of_x), (of_y, of_y), (of_x, of_y)))
        return _correlation(total, none, none, *squares)

    return statistic


def _untied_pairs(values: FloatArray) -> int:
    """How many pairs of places have different values."""
    sizes = [int(size) for size in np.unique(values, return_counts=True)[1]]
    return (len(values) ** 2 - sum(size**2 for size in sizes)) // 2


def _checked(first: ArrayLike, second: ArrayLike) -> tuple[FloatArray, FloatArray]:
    x, y = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 1 or not len(x):
        raise ValueError(f"{x.shape} and {y.shape} must both have the shape (n,)")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("a value is not finite")
    return x, y


def _standardised(values: FloatArray) -> FloatArray:
    """Mean 0 and standard deviation 1, so that sums of squares lose no digits; zeros where nothing varies."""
    differences = values - values.mean()
    deviation = float(differences.std())
    # The mean of equal numbers need not be that number: what rounding leaves is no variation.
    if deviation <= 1e-12 * float(np.abs(values).max()):
        return np.zeros_like(values)
    standardised: FloatArray = differences / deviation
    return standardised


def _correlation(
    n: FloatArray, x: FloatArray, y: FloatArray, xx: FloatArray, yy: FloatArray, xy: FloatArray
) -> FloatArray:
    """From the sums of :func:`moments`, each of shape (draws,); NaN where one of the two does not vary."""
    of_x, of_y = xx - x * x / n, yy - y * y / n
    varied = (of_x > 1e-12 * xx) & (of_y > 1e-12 * yy)
    product = np.where(varied, of_x * of_y, 0.0)
    return np.clip(ratio(xy - x * y / n, np.sqrt(product)), -1.0, 1.0)


def _weighted_ranks(values: FloatArray, weights: FloatArray) -> FloatArray:
    """Ranks of the rows of each draw less their mean, shape (draws, rows): equal values share the mean of theirs."""
    order = np.argsort(values, kind="stable")
    starts = starts_of_equal(values[order])
    counts = np.add.reduceat(weights[:, order], starts, axis=1)
    middles = np.cumsum(counts, axis=1) - counts / 2 - weights.sum(axis=1, keepdims=True) / 2
    run_of_row = np.empty(len(values), dtype=np.intp)
    run_of_row[order] = np.repeat(np.arange(len(starts)), np.diff([*starts, len(values)]))
    ranks: FloatArray = middles[:, run_of_row]
    return ranks

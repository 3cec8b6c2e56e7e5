"""Area under the ROC curve: how well a number separates two kinds of rows, whatever threshold is chosen.

Pure numpy in float64. This file knows values and which rows are positive; it does not know what they are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rewardlab.metrics.bootstrap import FloatArray, WeightedStatistic, ratio


def roc_auc(values: ArrayLike, positive: ArrayLike) -> float:
    """Probability that a random positive row has a higher value than a random negative one; equal values count half.

    ``(wins + ties / 2) / (positives x negatives)``, the Mann-Whitney statistic. 1/2 is chance, and what a constant has.

    Args:
        values: What separates, higher for positive rows, shape (rows,), any scale.
        positive: Which rows are positive, shape (rows,), booleans or 0 and 1.

    Returns:
        The area, in [0, 1].

    Raises:
        ValueError: Shapes differ or are not (rows,), a value is not finite, or one of the two kinds is missing.

    References:
        Hanley & McNeil 1982 (Radiology 143:29). Equals ``sklearn.metrics.roc_auc_score``.

    Example:
        >>> roc_auc([3.0, 1.0, 1.0, 0.0], [1, 1, 0, 0])  # wins: 3 over both, 1 over 0; one tie
        0.875
    """
    area = float(auc_statistic(values, positive)(np.ones((1, np.size(values))))[0])
    if np.isnan(area):
        raise ValueError("the area needs positive and negative rows, got only one kind")
    return area


def auc_statistic(values: ArrayLike, positive: ArrayLike) -> WeightedStatistic:
    """:func:`roc_auc` of rows drawn more or less often; NaN where a draw lacks one of the two kinds.

    Args:
        values: As for :func:`roc_auc`.
        positive: As for :func:`roc_auc`.

    Returns:
        A function of the weights of the rows, shape (draws, rows), for
        :func:`~rewardlab.metrics.bootstrap.bootstrap_weights`.

    Raises:
        ValueError: Shapes differ or are not (rows,), or a value is not finite.
    """
    array, kinds = np.asarray(values, dtype=np.float64), np.asarray(positive, dtype=np.float64)
    if array.shape != kinds.shape or array.ndim != 1 or not len(array):
        raise ValueError(f"values {array.shape} and positive {kinds.shape} must both have the shape (rows,)")
    if not np.isfinite(array).all():
        raise ValueError(f"value {int(np.argmin(np.isfinite(array)))} is not finite")
    order = np.argsort(array, kind="stable")
    starts = starts_of_equal(array[order])
    is_positive = kinds[order] > 0

    def statistic(weights: FloatArray) -> FloatArray:
        ordered = weights[:, order]
        ups = np.add.reduceat(ordered * is_positive, starts, axis=1)
        downs = np.add.reduceat(ordered * ~is_positive, starts, axis=1)
        below = np.cumsum(downs, axis=1) - downs
        wins = (ups * (below + downs / 2)).sum(axis=1)
        return ratio(wins, ups.sum(axis=1) * downs.sum(axis=1))

    return statistic


def starts_of_equal(ordered: FloatArray) -> NDArray[np.intp]:
    """Where each run of equal values starts in a sorted array."""
    return np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))

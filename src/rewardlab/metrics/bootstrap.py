"""Confidence intervals by resampling whole prompts.

Pairs of one prompt, often with a completion in common, succeed and fail together; resampling single pairs would count
them as independent and give intervals that are too narrow. Here the unit is the cluster (the prompt). A metric takes
part if it is a function of sums over rows: means, ratios, and the calibration error through its bin sums. Then a
resample only needs how often it drew each cluster, and one matrix product gives all metrics of all resamples.

Pure numpy. This file does not know what the rows or the clusters are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray: TypeAlias = NDArray[np.float64]

Statistic: TypeAlias = Callable[[FloatArray], FloatArray]
"""Summed columns, shape (draws, columns) -> the statistic of each draw, shape (draws,)."""

_CHUNK_CELLS = 2_000_000
"""Draws x clusters held at once: bounds the memory (some 64 MB) whatever the number of prompts."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A metric with its confidence interval.

    Attributes:
        value: The metric on the whole set.
        low: Lower bound; None where no interval exists (a single cluster says nothing about other clusters).
        high: Upper bound; None likewise.
    """

    value: float
    low: float | None
    high: float | None

    def to_dict(self) -> dict[str, float | None]:
        """``{"value", "low", "high"}``; a missing bound is None, JSON's null (NaN would not be JSON)."""
        return {"value": self.value, "low": self.low, "high": self.high}


def mean_of(column: int, *, count: int = 0) -> Statistic:
    """The statistic ``sum(column) / sum(count)``: a mean over rows, when the count column is all ones.

    Args:
        column: Index of the column that is averaged.
        count: Index of the column that is divided by.
    """
    return lambda sums: sums[:, column] / sums[:, count]


def bootstrap_by_cluster(
    rows: ArrayLike,
    clusters: Sequence[str],
    statistics: Mapping[str, Statistic],
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    """Percentile bootstrap over clusters, for statistics that are functions of sums over rows.

    Each resample draws as many clusters as there are, with replacement, and takes all rows of each. All statistics see
    the same resamples, so a difference of two of them (two models on the same pairs) is one more statistic.

    Args:
        rows: What is summed, shape (rows, columns), float64.
        clusters: The label of each row's cluster, length rows.
        statistics: Name -> function of the summed columns, (draws, columns) -> (draws,).
        resamples: Number of resamples.
        confidence: Coverage of the interval, in (0, 1); 0.95 gives the 2.5 % and 97.5 % quantiles.
        seed: Seed of the draws; equal input and seed give the equal interval. Clusters are numbered in sorted order of
            their labels, so the order of the rows does not matter.

    Returns:
        One interval per statistic, in the order given. With one cluster the bounds are None.

    Raises:
        ValueError: No rows, a cluster list of another length, values that are not finite, or a statistic that is not
            finite on some resample.

    Note:
        The interval always holds the value. That is no formality for the calibration error: a plug-in estimate of a
        distance from zero grows when noise is added, resampling adds noise, and on calibrated scores the percentile
        interval lies wholly above the value in 20 to 40 % of sets.

        Time and memory: 2000 resamples of 10,000 clusters draw 2e7 integers, well under two seconds.

    References:
        Efron & Tibshirani 1993, chapter 13 (percentile interval); Field & Welsh 2007 (JRSS B 69:369; clusters).
    """
    table = np.asarray(rows, dtype=np.float64)
    if table.ndim != 2 or len(table) == 0:
        raise ValueError(f"rows must have the shape (rows, columns) with at least one row, got {table.shape}")
    if len(clusters) != len(table):
        raise ValueError(f"{len(table)} rows but {len(clusters)} cluster labels")
    if not np.isfinite(table).all():
        raise ValueError(f"row {int(np.argmin(np.isfinite(table).all(axis=1)))} holds a value that is not finite")
    if resamples < 1 or not 0 < confidence < 1:
        raise ValueError(f"need resamples >= 1 and 0 < confidence < 1, got {resamples} and {confidence}")

    sums = _cluster_sums(table, clusters)
    total = sums.sum(axis=0, keepdims=True)
    values = {name: float(statistic(total)[0]) for name, statistic in statistics.items()}
    if len(sums) == 1:
        return {name: Interval(value, None, None) for name, value in values.items()}

    draws = _resampled_sums(sums, resamples, seed)
    tail = (1 - confidence) / 2
    intervals = {}
    for name, statistic in statistics.items():
        drawn = statistic(draws)
        if not np.isfinite(drawn).all():
            raise ValueError(f"statistic {name!r} is not finite on some resample: its denominator can be zero")
        low, high = np.quantile(drawn, [tail, 1 - tail])
        intervals[name] = Interval(values[name], min(float(low), values[name]), max(float(high), values[name]))
    return intervals


def _cluster_sums(table: FloatArray, clusters: Sequence[str]) -> FloatArray:
    """Sums of the rows of each cluster, shape (clusters, columns), in sorted order of the cluster labels."""
    numbers = {label: number for number, label in enumerate(sorted(set(clusters)))}
    number_of_row = np.fromiter((numbers[label] for label in clusters), dtype=np.intp, count=len(table))
    return np.stack([np.bincount(number_of_row, column, len(numbers)) for column in table.T], axis=1)


def _resampled_sums(sums: FloatArray, resamples: int, seed: int) -> FloatArray:
    """Column sums of each resample, shape (resamples, columns): counts of drawn clusters times their sums."""
    generator = np.random.default_rng(seed)
    size = len(sums)
    chunk = max(1, _CHUNK_CELLS // size)
    parts = []
    for start in range(0, resamples, chunk):
        draws = min(chunk, resamples - start)
        drawn = generator.integers(0, size, size=(draws, size))
        drawn += np.arange(draws)[:, np.newaxis] * size  # so that one bincount counts every draw apart
        counts = np.bincount(drawn.ravel(), minlength=draws * size).reshape(draws, size)
        parts.append(counts.astype(np.float64) @ sums)
    return np.concatenate(parts)

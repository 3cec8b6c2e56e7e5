"""How far each window's mean lies from all that came before it, in standard errors: recursive residuals.

A sequence of windows has a level that nobody knows. Each window's mean is held against the mean of the baseline and of
all windows before it, and divided by the standard error of that difference. While the level stays, the residuals are
independent and standard normal, whatever the level is and however small the baseline: a lucky baseline makes the first
residuals low and is outweighed, where a fixed baseline would make every later window look bad.

A window is held as seven sums that add up over windows (:func:`window_moments`), so that many long sequences are a few
cumulative sums. Pure numpy in float64; what the values are is not known here.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

MOMENTS = 7
"""Rows; sums of x, x^2, x^3; and of the clusters, sums of c (c - 1), (c - 1) X and X^2 - sum x^2 (c rows, total X)."""


@dataclass(frozen=True, slots=True)
class Residuals:
    """One residual per window, and how far a change of the level would move each.

    If the level changes by ``d`` just before window ``k``, the residual of window ``i >= k`` is expected at
    ``d * levels[k] * rates[i]``: windows after the change are in the mean too, so that only a share of it is still the
    old level.

    Attributes:
        values: Standard normal while nothing changes; 0 where there is nothing before, shape (..., windows).
        levels: What lay before each window (its weight), shape (..., windows).
        rates: 1 / (that weight times the standard error of the difference); 0 where there is no residual.
    """

    values: FloatArray
    levels: FloatArray
    rates: FloatArray


def window_moments(values: ArrayLike, clusters: Sequence[str]) -> FloatArray:
    """The sums that a window is held as.

    Args:
        values: Shape (rows,), or (rows, columns) for several at once.
        clusters: The label of each row's cluster (its prompt), length rows.

    Returns:
        Shape (7,), or (columns, 7); see :data:`MOMENTS`.

    Raises:
        ValueError: No rows, one that is not finite, or another number of labels.
    """
    result: FloatArray = moments_of_windows(values, clusters, [len(clusters)])[0]
    return result


def moments_of_windows(values: ArrayLike, clusters: Sequence[str], sizes: Sequence[int]) -> FloatArray:
    """The sums of many windows, whose rows lie one after the other.

    Args:
        values: As for :func:`window_moments`.
        clusters: As there; a label in two windows is two clusters.
        sizes: Rows of each window, at least 1 each.

    Returns:
        Shape (windows, 7), or (windows, columns, 7).

    Raises:
        ValueError: As there.
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim not in (1, 2) or len(table) == 0 or len(table) != len(clusters) or sum(sizes) != len(table):
        raise ValueError(f"values of shape {table.shape} do not fit {len(clusters)} cluster labels, or are none")
    if not np.isfinite(table).all():
        raise ValueError("values must be finite")
    columns = table.reshape(len(table), -1)
    rows = np.r_[0, np.cumsum(sizes)]  # where each window begins, and the end
    groups, numbered = [0], []  # the same of its clusters; the cluster of each row
    for start, end in itertools.pairwise(rows.tolist()):
        places: dict[str, int] = {}
        numbered += [places.setdefault(label, len(places)) + groups[-1] for label in clusters[start:end]]
        groups.append(groups[-1] + len(places))
    of_row = np.array(numbered)
    size = np.bincount(of_row).astype(np.float64)
    totals = np.stack([np.bincount(of_row, column) for column in columns.T], axis=1)
    rows, of_groups = rows[:-1], groups[:-1]
    squares = np.add.reduceat(columns**2, rows)
    sums = np.empty((len(sizes), columns.shape[1], MOMENTS))
    sums[..., 0] = np.asarray(sizes)[:, np.newaxis]
    sums[..., 1], sums[..., 2] = np.add.reduceat(columns, rows), squares
    sums[..., 3] = np.add.reduceat(columns**3, rows)
    sums[..., 4] = np.add.reduceat(size * (size - 1), of_groups)[:, np.newaxis]
    sums[..., 5] = np.add.reduceat((size - 1)[:, np.newaxis] * totals, of_groups)
    sums[..., 6] = np.add.reduceat(totals**2, of_groups) - squares
    return sums if table.ndim == 2 else sums[:, 0]


def mean_of_moments(moments: FloatArray) -> float:
    """The mean of what some moments, shape (7,), are of."""
    return float(moments[1] / moments[0])


@dataclass(frozen=True, slots=True)
class Before:
    """Each window beside what came before it; all arrays of shape (..., windows).

    Attributes:
        mean: The window's mean.
        expected: The mean of all before; 0 where nothing was.
        variance: Variance of the difference of the two; infinite where nothing was before.
        skewness: Its skewness; 0 where nothing was before.
        count: Rows before.
    """

    mean: FloatArray
    expected: FloatArray
    variance: FloatArray
    skewness: FloatArray
    count: FloatArray


def held_against_before(windows: ArrayLike, baseline: ArrayLike | None = None) -> Before:
    """Each window's mean against the mean of all before it.

    Args:
        windows: Moments, shape (..., windows, 7).
        baseline: Moments of what came before the first window, shape (..., 7); None: nothing.

    Note:
        Variance, skewness and the correlation within a cluster (the moment estimate, at least 0) are those of all rows
        up to and with the window: one variance for both sides, as in the two-sample test of proportions. A window's own
        would be largest when its accuracy is low, and so hide what is looked for. The correlation makes of ``n`` rows
        ``n / (1 + correlation * (mean cluster size seen from a row - 1))`` independent ones (Kish 1965).
    """
    sums = np.asarray(windows, dtype=np.float64)
    first = np.zeros((*sums.shape[:-2], 1, MOMENTS))
    if baseline is not None:
        first += np.asarray(baseline, dtype=np.float64)[..., np.newaxis, :]
    until = first + np.cumsum(sums, axis=-2)
    before = np.concatenate([first, until[..., :-1, :]], axis=-2)
    rows, total, squares, cubes, pairs, weighted, products = np.moveaxis(until, -1, 0)
    mean = total / rows
    variance = np.maximum(squares / rows - mean**2, 0.0)
    third = cubes / rows - 3 * mean * squares / rows + 2 * mean**3
    # Sum over pairs of rows of one cluster of (x - mean) (x' - mean), each order counted.
    together = products - 2 * mean * weighted + mean**2 * pairs
    correlation = np.clip(_quotient(together, pairs * variance), 0.0, 1.0)
    of_window = _independent(sums, correlation)
    of_before = _independent(before, correlation)
    known = before[..., 0] > 0
    spread = 1 / of_window + _quotient(np.ones_like(of_before), of_before)
    skew = _quotient(np.ones_like(of_window), of_window**2) - _quotient(np.ones_like(of_before), of_before**2)
    return Before(
        mean=sums[..., 1] / sums[..., 0],
        expected=_quotient(before[..., 1], before[..., 0]),
        variance=np.where(known, variance * spread, np.inf),
        skewness=np.where(known, _quotient(third, variance**1.5) * skew / spread**1.5, 0.0),
        count=before[..., 0],
    )


def recursive_residuals(windows: ArrayLike, baseline: ArrayLike | None = None) -> Residuals:
    """The residuals of a mean of rows, corrected for the skewness that few rows leave in it.

    Args:
        windows: Moments, shape (..., windows, 7).
        baseline: Moments of what came before the first window, shape (..., 7); None: the first window is the first
            baseline, and its residual is 0.

    References:
        Brown, Durbin & Evans 1975 (J. R. Statist. Soc. B 37:149). Hall 1992 (J. R. Statist. Soc. B 54:221; skewness).
    """
    held = held_against_before(windows, baseline)
    informed = np.isfinite(held.variance) & (held.variance > 0)
    scale = np.sqrt(np.where(informed, held.variance, 0.0))
    values = np.divide(held.mean - held.expected, scale, out=np.zeros_like(scale), where=informed)
    rates = np.divide(1.0, held.count * scale, out=np.zeros_like(scale), where=informed)
    return Residuals(np.where(informed, without_skewness(values, held.skewness), 0.0), held.count, rates)


def without_skewness(values: FloatArray, skewness: FloatArray) -> FloatArray:
    """Standardised values with this skewness, made as good as normal: a monotone cubic.

    Its derivative is ``(1 - skewness * x / 6)^2``, so the order is kept, and to first order it is the inverse of the
    Edgeworth expansion, ``x - skewness * (x^2 - 1) / 6`` (Hall 1992).
    """
    result: FloatArray = values - skewness * (values**2 - 1) / 6 + skewness**2 * values**3 / 108
    return result


def _independent(sums: FloatArray, correlation: FloatArray) -> FloatArray:
    """How many independent rows these are worth."""
    rows = sums[..., 0]
    result: FloatArray = _quotient(rows, 1 + correlation * _quotient(sums[..., 4], rows))
    return result


def _quotient(above: FloatArray, below: FloatArray) -> FloatArray:
    """0 where there is nothing to divide by."""
    result: FloatArray = np.divide(above, below, out=np.zeros(np.shape(above)), where=below > 0)
    return result

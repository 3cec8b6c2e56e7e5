"""How far two distributions lie apart, from their counts in the same bins.

Three figures, for each is read by somebody: the population stability index, by which credit scoring has named drift
since the 1990s; the Kolmogorov-Smirnov statistic with its p-value; the Jensen-Shannon distance, which is bounded. Fine
bins are first merged into some with about equal shares of the reference, for PSI and Jensen-Shannon grow with the
number of empty bins. Pure numpy, SciPy for p-values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rewardlab.metrics.bootstrap import FloatArray

MERGED_BINS = 10
"""Bins that PSI, Jensen-Shannon and chi-square are computed on: tenths of the reference, as is the custom for PSI."""

_SMOOTHING = 0.5  # counts added to each merged bin, so that an empty one is no infinity (Jeffreys' prior)


@dataclass(frozen=True, slots=True)
class Divergence:
    """How far a window lies from the reference.

    Attributes:
        num_reference: Values of the reference; 0 where its shares are known exactly or from quantiles.
        num_window: Values of the window.
        psi: Population stability index: the sum of (w - r) ln(w / r) over merged bins, nats. Below 0.1 is customarily
            called stable, above 0.25 shifted.
        ks: Largest difference of the two distribution functions, at the edges of the fine bins.
        ks_p: P-value of that difference, asymptotic; what happens inside a bin is not seen, so it is not too small.
        js: Jensen-Shannon distance: the root of the divergence in bits, 0 (equal) to 1 (no bin in common).
        chi2_p: P-value of the chi-square test on the merged bins.
    """

    num_reference: int
    num_window: int
    psi: float
    ks: float
    ks_p: float
    js: float
    chi2_p: float

    def to_dict(self) -> dict[str, Any]:
        """All attributes."""
        return {name: getattr(self, name) for name in self.__slots__}


def diverge(reference: ArrayLike, window: ArrayLike, *, num_reference: int | None = None) -> Divergence:
    """Compares the counts of a window with a reference's.

    Args:
        reference: Counts or shares in B bins.
        window: Counts in the same bins.
        num_reference: Values behind shares; by default the sum of the counts. 0: the shares are taken as exact.

    Raises:
        ValueError: Other shapes, negative counts, or nothing counted in either.

    References:
        PSI: Siddiqi 2006, Credit Risk Scorecards; Yurdakul & Naranjo 2020 (its null distribution, chi-square times
        1/n + 1/m). Jensen-Shannon: Lin 1991 (IEEE Trans. Inf. Theory 37:145); Endres & Schindelin 2003 (its root is a
        metric). Kolmogorov-Smirnov, asymptotic: Smirnov 1948.
    """
    from scipy.stats import chi2, kstwobign

    first, second = np.asarray(reference, dtype=np.float64), np.asarray(window, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(f"two rows of counts of the same bins are compared, got {first.shape} and {second.shape}")
    if (first < 0).any() or (second < 0).any() or not first.sum() > 0 or not second.sum() > 0:
        raise ValueError("counts must be at least 0, and something must have been counted")
    num_window = round(float(second.sum()))
    behind = round(float(first.sum())) if num_reference is None else num_reference
    inverse = 1 / num_window + (1 / behind if behind else 0.0)
    ks = float(np.abs(np.cumsum(first) / first.sum() - np.cumsum(second) / second.sum()).max())
    merged = merge_bins(first)
    shares = [_shares(_summed(counts, merged), size) for counts, size in ((first, behind), (second, num_window))]
    psi = float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())
    middle = (shares[0] + shares[1]) / 2
    bits = sum(float((one * np.log2(one / middle)).sum()) for one in shares) / 2
    expected, found = _summed(first, merged) / first.sum(), _summed(second, merged) / second.sum()
    pooled = (expected + found) / 2 if behind else expected
    if behind:
        pooled = (expected * behind + found * num_window) / (behind + num_window)
    statistic = float(np.divide((found - expected) ** 2, pooled, out=np.zeros_like(pooled), where=pooled > 0).sum())
    degrees = max(1, len(merged) - 1)
    return Divergence(
        num_reference=behind,
        num_window=num_window,
        psi=psi,
        ks=ks,
        ks_p=float(kstwobign.sf(ks / np.sqrt(inverse))),
        js=float(np.sqrt(max(0.0, bits))),
        chi2_p=float(chi2.sf(statistic / inverse, degrees)),
    )


def merge_bins(reference: FloatArray, most: int = MERGED_BINS) -> NDArray[np.intp]:
    """Where merged bins start, so that each holds about an equal share of the reference.

    Args:
        reference: Counts or shares in B bins.
        most: Most merged bins; fewer where the reference lies in few bins.

    Returns:
        Rising indices, the first 0. Bins in which the reference holds nothing go with a neighbour.
    """
    middle = (np.cumsum(reference) - reference / 2) / reference.sum()
    number = np.minimum((middle * most).astype(np.intp), most - 1)
    starts = np.flatnonzero(np.diff(np.concatenate([[-1], number])))
    kept = [
        start for start, end in zip(starts, [*starts[1:], len(reference)], strict=True) if reference[start:end].sum()
    ]
    return np.array([0, *kept[1:]], dtype=np.intp)


def _summed(counts: FloatArray, starts: NDArray[np.intp]) -> FloatArray:
    sums: FloatArray = np.add.reduceat(counts, starts)
    return sums


def _shares(counts: FloatArray, size: int) -> FloatArray:
    """Shares, none of them zero; what is exactly known is smoothed as if it came from a million values."""
    whole = counts / counts.sum() * (size or 1_000_000) + _SMOOTHING
    shares: FloatArray = whole / whole.sum()
    return shares

"""Has the calibration changed? Residuals of the calibration error of windows, for the sequential test.

The calibration error (ECE) of few comparisons is large by noise alone, so a window's is held against what the same
number of comparisons gives if calibration is as it was before. Two kinds of residuals come of it:

- *error*: the ECE itself. It sees every kind of miscalibration, and needs a clear one.
- *overconfidence*: mean of (confidence - right). It sees what nearly all drift is, scores that are too sure or not sure
  enough, and finds it several times sooner.

Pure numpy, SciPy's normal distribution. This file knows margins / T and which prompt a pair is of.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rewardlab.metrics.change_detection import Bets
from rewardlab.metrics.probability import (
    ECE_BINS,
    calibration_gaps,
    pair_confidences,
    scaled_margins,
)
from rewardlab.metrics.recursive_residuals import (
    Residuals,
    held_against_before,
    moments_of_windows,
    recursive_residuals,
    without_skewness,
)

FloatArray = NDArray[np.float64]

ERROR_SHIFTS = (0.5, 1.0, 2.0)
"""Rises of the calibration error that are bet on, in its standard deviations in such a window."""


def calibration_moments(
    margins: ArrayLike, temperature: float, prompts: Sequence[str], sizes: Sequence[int]
) -> FloatArray:
    """What windows are held as: moments of the gap in each bin, and of all gaps.

    Args:
        margins: Chosen minus rejected scores, shape (pairs,), logits; of one window after the other.
        temperature: What they are divided by, > 0.
        prompts: Which prompt each is of.
        sizes: Pairs of each window.

    Returns:
        Shape (windows, ECE_BINS + 1, 7); the last row is overconfidence. Sums of such arrays are those of all their
        pairs.
    """
    scaled = scaled_margins(margins, temperature)
    confidence, outcome = pair_confidences(scaled, np.ones(scaled.size))
    gaps = np.column_stack([calibration_gaps(scaled), confidence - outcome])
    return moments_of_windows(gaps, prompts, sizes)


def calibration_bets(windows: FloatArray, baseline: FloatArray | None, sizes: Sequence[float]) -> tuple[Bets, Bets]:
    """What the evidence for a change of calibration bets on.

    Args:
        windows: Shape (..., windows, ECE_BINS + 1, 7).
        baseline: Shape (..., ECE_BINS + 1, 7); None: there is none.
        sizes: Changes of overconfidence that are bet on, in either direction.

    Returns:
        Of the error, upwards; and of overconfidence, both ways.
    """
    first = None if baseline is None else baseline[..., -1, :]
    overconfidence = recursive_residuals(windows[..., -1, :], first)
    both = tuple(sign * size for sign in (1, -1) for size in sizes)
    return Bets(error_residuals(windows, baseline), ERROR_SHIFTS), Bets(overconfidence, both)


def expected_error(windows: FloatArray, baseline: FloatArray | None) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The calibration error that a window of this size has if calibration is as it was before.

    The sum of a bin's gaps is taken as normal, with the mean and (by prompt) the variance of what came before; its
    absolute value is then folded normal, and the error is their sum over the bins. What came before is itself uncertain
    and is counted so: beside a small baseline more is expected, and the test errs to the quiet side.

    Returns:
        Mean, standard deviation and skewness, each of shape (..., windows); infinite deviation where nothing is before.
    """
    bins = np.moveaxis(windows[..., :ECE_BINS, :], -2, 0)
    held = held_against_before(bins, None if baseline is None else np.moveaxis(baseline[..., :ECE_BINS, :], -2, 0))
    known = held.count[0] > 0
    mean, variance, third = _folded_normal(held.expected, np.where(known, held.variance, 0.0))
    deviation = np.where(known, np.sqrt(variance.sum(axis=0)), np.inf)
    usable = known & (deviation > 0)
    skewness = np.divide(third.sum(axis=0), deviation**3, out=np.zeros(deviation.shape), where=usable)
    return mean.sum(axis=0), deviation, skewness


def error_residuals(windows: FloatArray, baseline: FloatArray | None) -> Residuals:
    """The calibration error of each window against :func:`expected_error`, as standard normal residuals.

    A rise is bet on in standard deviations, the same in every window: rates are 1, and levels too, but for a window
    with nothing before it, with which no change can begin.
    """
    mean, deviation, skewness = expected_error(windows, baseline)
    error = np.abs(windows[..., :ECE_BINS, 1]).sum(axis=-1) / windows[..., 0, 0]
    usable = np.isfinite(deviation) & (deviation > 0)
    values = np.divide(error - mean, deviation, out=np.zeros(error.shape), where=usable)
    values = np.where(usable, without_skewness(values, skewness), 0.0)
    return Residuals(values, np.isfinite(deviation).astype(np.float64), usable.astype(np.float64))


def _folded_normal(mean: FloatArray, variance: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Mean, variance and third central moment of |X|, X normal (Leone, Nelson & Nottingham 1961)."""
    from scipy.special import ndtr

    scale = np.sqrt(variance)
    ratio = np.divide(np.abs(mean), scale, out=np.full(scale.shape, 40.0), where=scale > 0)
    ratio = np.minimum(ratio, 40.0)  # from there on |X| is X
    density = np.sqrt(2 / np.pi) * np.exp(-(ratio**2) / 2)
    inside = 2 * ndtr(ratio) - 1
    first = density + ratio * inside
    second = 1 + ratio**2
    third = (ratio**2 + 2) * density + (ratio**3 + 3 * ratio) * inside
    spread = np.maximum(second - first**2, 0.0)
    lopsided = third - 3 * first * second + 2 * first**3
    return np.where(ratio < 40.0, scale * first, np.abs(mean)), scale**2 * spread, scale**3 * lopsided

"""Has a sequence changed? A test that may be looked at after every window, for ever, and keeps its false-alarm rate.

Residuals come in that are standard normal while nothing changes (:mod:`rewardlab.metrics.recursive_residuals`). For
every window the change may have begun with, and for every size that is bet on, a likelihood ratio says how much better
a change explains the residuals since. Their sum over the starts, averaged over the sizes, is the *evidence* R_n
(Shiryaev-Roberts, as an e-detector). While nothing changes, R_n - n is a martingale, hence

- P(evidence reaches c within H windows) <= H / c (Doob's inequality), which sets the limit c from a false-alarm rate;
- on average at least c windows lie before a false alarm, for however long one looks.

Pure numpy in float64, all in logarithms. What is watched is not known here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rewardlab.metrics.recursive_residuals import Residuals

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Bets:
    """What one component of the evidence bets on.

    Attributes:
        residuals: Of one sequence, shape (windows,), or of many at once, (..., windows).
        sizes: Changes of the level, in its unit; below 0 for falls. Each has the same weight.
    """

    residuals: Residuals
    sizes: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Detection:
    """What the evidence says at the last window.

    Attributes:
        log_evidence: log R_n after each window, shape (windows,).
        log_limit: log c.
        alarm: The first window, from 0, after which the evidence had reached the limit; None: it never has.
        onset: The window, from 0, with which the change began most likely: as seen at the alarm, or now where there is
            none. None where there is nothing to see.
    """

    log_evidence: FloatArray
    log_limit: float
    alarm: int | None
    onset: int | None


def log_limit(false_alarm_rate: float, horizon: int, watches: int = 1) -> float:
    """Log c, with which ``watches`` detectors together raise a false alarm within ``horizon`` windows at most so often.

    Raises:
        ValueError: A rate outside (0, 1), or a count below 1.

    Example:
        >>> round(log_limit(0.05, 200, watches=2), 2)
        8.99
    """
    if not 0 < false_alarm_rate < 1 or horizon < 1 or watches < 1:
        raise ValueError(f"got a false-alarm rate of {false_alarm_rate}, horizon {horizon}, {watches} watches")
    return math.log(horizon * watches / false_alarm_rate)


def log_evidence(components: Sequence[Bets]) -> FloatArray:
    """Log R_n after each window.

    R_n is the mean over the components of ``sum over starts k <= n of the mean over sizes d of L(k, n, d)``, with
    ``log L = sum over i = k..n of (m u_i - m^2 / 2)`` and ``m = d * levels[k] * rates[i]``, the residual expected.

    Args:
        components: Bets on one or more kinds of residuals of the same windows. Each has the same weight; a mixture of
            such sums is such a sum.

    Returns:
        Shape (..., windows).

    Raises:
        ValueError: No components, no sizes, or components of different windows.

    References:
        Shiryaev 1963; Roberts 1966; Shin, Ramdas & Rinaldo 2022 (arXiv:2203.03532; e-detectors and their bounds).
    """
    evidence: list[FloatArray] = []
    ratios = [np.zeros((len(one.sizes), *one.residuals.values.shape)) for one in _checked(components)]
    for window in range(ratios[0].shape[-1]):
        for of_one, one in zip(ratios, components, strict=True):
            _add_window(of_one, one, window)
        evidence.append(_log_mean_of_sums([of_one[..., : window + 1] for of_one in ratios]))
    result: FloatArray = np.stack(evidence, axis=-1) if evidence else np.zeros(ratios[0].shape[1:])
    return result


def detect(components: Sequence[Bets], limit: float) -> Detection:
    """The evidence of one sequence, whether it has reached the limit, and where the change began.

    Args:
        components: As :func:`log_evidence` has them, of one sequence each.
        limit: log c, from :func:`log_limit`.
    """
    evidence = log_evidence(components)
    reached = np.flatnonzero(evidence >= limit)
    alarm = int(reached[0]) if len(reached) else None
    return Detection(evidence, limit, alarm, _onset(components, len(evidence) - 1 if alarm is None else alarm))


def _checked(components: Sequence[Bets]) -> Sequence[Bets]:
    if not components or not all(one.sizes for one in components):
        raise ValueError("there is nothing to bet on: give one or more components, with one or more sizes each")
    shapes = {one.residuals.values.shape for one in components}
    if len(shapes) > 1:
        raise ValueError(f"components must be of the same windows, got residuals of the shapes {sorted(shapes)}")
    return components


def _add_window(ratios: FloatArray, bets: Bets, window: int) -> None:
    """Adds a window's log likelihood ratios to those of all starts up to it; ratios: (sizes, ..., starts)."""
    residuals = bets.residuals
    unit = residuals.levels[..., : window + 1] * residuals.rates[..., window, np.newaxis]  # expected for a size of 1
    gain, price = unit * residuals.values[..., window, np.newaxis], unit * unit / 2
    for of_size, size in zip(ratios, bets.sizes, strict=True):
        of_size[..., : window + 1] += size * gain - size * size * price


def _log_mean_of_sums(ratios: Sequence[FloatArray]) -> FloatArray:
    """The mean over components of the sum over starts of the mean over sizes."""
    sums = [_log_sum(of_one, (0, -1)) - math.log(len(of_one)) for of_one in ratios]
    return _log_sum(np.stack(sums), (0,)) - math.log(len(sums))


def _log_sum(values: FloatArray, axes: tuple[int, ...]) -> FloatArray:
    largest = values.max(axis=axes, keepdims=True)
    shifted = values - largest
    result: FloatArray = np.squeeze(largest, axes) + np.log(np.exp(shifted, out=shifted).sum(axis=axes))
    return result


def _onset(components: Sequence[Bets], last: int) -> int | None:
    """The start whose likelihood ratio, averaged over sizes and components, is the largest after window ``last``."""
    if last < 0 or not any(one.residuals.rates[: last + 1].any() for one in components):
        return None
    ratios = [np.zeros((len(one.sizes), last + 1)) for one in components]
    for of_one, one in zip(ratios, components, strict=True):
        for window in range(last + 1):
            _add_window(of_one, one, window)
    of_starts = np.stack([_log_sum(of_one, (0,)) - math.log(len(of_one)) for of_one in ratios])
    return int(np.argmax(_log_sum(of_starts, (0,))))

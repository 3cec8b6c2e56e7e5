"""Fresh windows: is the model still as accurate, and as calibrated, on what its policy writes now?

Each run brings a window of labelled comparisons of the current policy's completions. Three watches are tested with the
windows since the newest baseline, each by the sequential test of :mod:`rewardlab.metrics.change_detection`, so that
looking daily does not raise the rate of false alarms: accuracy (downwards), calibration, and the gap to an ensemble
(upwards, :mod:`rewardlab.monitoring.gap`). Everything is computed again from the history each time, so that a run that
failed in between leaves nothing behind. This file knows snapshots; it scores nothing and stores nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rewardlab.metrics.calibration_change import calibration_bets, calibration_moments, expected_error
from rewardlab.metrics.change_detection import Bets, detect, log_limit
from rewardlab.metrics.recursive_residuals import recursive_residuals, window_moments
from rewardlab.monitoring.gap import gap_finding, gap_runs
from rewardlab.monitoring.history import History
from rewardlab.monitoring.snapshots import Finding, Snapshot, State
from rewardlab.monitoring.thresholds import Thresholds
from rewardlab.monitoring.windows import (
    Window,
    Windows,
    finding_of,
    repeat_finding,
    span_words,
    untested_words,
    windows_of,
)

FloatArray = NDArray[np.float64]


def test_fresh(history: History, snapshot: Snapshot, thresholds: Thresholds) -> list[Finding]:
    """What the watches say after a fresh window.

    An alarm stays one, with the time at which the change began, until there is a new model or a new baseline. The
    false-alarm rate is shared equally by the watches that run.

    Args:
        history: What was before; the snapshot is not yet in it.
        snapshot: Of kind ``"fresh"``.
        thresholds: The rate, the horizon and the changes that are bet on.

    Returns:
        ``"accuracy"`` and ``"ece"``, always; ``"gap"`` where a window has one; ``"window"`` where comparisons came
        before and are left out.
    """
    windows = windows_of(history, snapshot, thresholds)
    has_gap = gap_runs(windows)
    limit = log_limit(thresholds.false_alarm_rate, thresholds.horizon, 3 if has_gap else 2)
    repeat = repeat_finding(windows)
    findings = [] if repeat is None else [repeat]
    findings.append(_accuracy(windows, thresholds, limit))
    findings.append(_calibration(windows, thresholds, limit))
    if has_gap:
        findings.append(gap_finding(windows, thresholds, limit))
    return findings


def _accuracy(windows: Windows, thresholds: Thresholds, limit: float) -> Finding:
    """Whether accuracy has fallen."""
    if not windows.tested:
        return _nothing_tested("accuracy", windows, thresholds)
    moments = np.stack([_right(window) for window in windows.tested])
    baseline = None if windows.baseline is None else _right(windows.baseline)
    sizes = tuple(-drop for drop in thresholds.accuracy_drops)
    detection = detect([Bets(recursive_residuals(moments, baseline), sizes)], limit)
    untested = untested_words(windows, thresholds)
    if detection.alarm is None or detection.onset is None:
        now, before = moments[-1], _sum(baseline, moments[:-1])
        message = f"{untested}accuracy {_share(now)} in the last window ({now[0]:,.0f} comparisons), "
        return finding_of("accuracy", detection, windows.tested, message + _before(before), _quiet(before))
    before, since = _sum(baseline, moments[: detection.onset]), moments[detection.onset :].sum(axis=0)
    message = (
        f"{untested}accuracy fell from {_share(before)} (before, {before[0]:,.0f} comparisons) to {_share(since)} "
        f"({span_words(windows.tested, detection.onset)})"
    )
    return finding_of("accuracy", detection, windows.tested, message, "alarm")


def _calibration(windows: Windows, thresholds: Thresholds, limit: float) -> Finding:
    """Whether calibration has become worse; where it has changed for the better, a warning."""
    if not windows.tested:
        return _nothing_tested("ece", windows, thresholds)
    temperature = float(windows.newest.snapshot.metrics["temperature"])  # of all windows: the one that is in use
    moments = np.stack([_gaps(window, temperature) for window in windows.tested])
    baseline = None if windows.baseline is None else _gaps(windows.baseline, temperature)
    detection = detect(calibration_bets(moments, baseline, thresholds.accuracy_drops), limit)
    untested = untested_words(windows, thresholds)
    if detection.alarm is None or detection.onset is None:
        before = _sum(baseline, moments[:-1])
        message = f"{untested}calibration error {_error(moments[-1]):.3f} in the last window, "
        message += _expected(moments[-1], before)
        return finding_of("ece", detection, windows.tested, message, _quiet(before[-1]))
    before = _sum(baseline, moments[: detection.onset])
    since = moments[detection.onset :].sum(axis=0)
    until_alarm = moments[detection.onset : detection.alarm + 1].sum(axis=0)
    worse = _error(until_alarm) > float(expected_error(until_alarm[np.newaxis], before)[0][0])
    message = (
        f"{untested}calibration {'became worse' if worse else 'changed, not for the worse'}: error {_error(since):.3f} "
        f"({span_words(windows.tested, detection.onset)}), {_expected(since, before)}; stated confidence minus "
        f"accuracy went from {100 * _mean(before[-1]):+.1f} to {100 * _mean(since[-1]):+.1f} points"
    )
    return finding_of("ece", detection, windows.tested, message, "alarm" if worse else "warning")


def _nothing_tested(watch: str, windows: Windows, thresholds: Thresholds) -> Finding:
    return Finding(watch, "learning", f"{untested_words(windows, thresholds)}no window has been tested yet")


def _right(window: Window) -> FloatArray:
    """Moments of (right or not); equal scores are not right."""
    return window_moments([float(pair.chosen > pair.rejected) for pair in window.pairs], _prompts(window))


def _gaps(window: Window, temperature: float) -> FloatArray:
    margins = [pair.chosen - pair.rejected for pair in window.pairs]
    return calibration_moments(margins, temperature, _prompts(window))


def _prompts(window: Window) -> Sequence[str]:
    return [pair.prompt for pair in window.pairs]


def _sum(baseline: FloatArray | None, moments: FloatArray) -> FloatArray:
    """Moments of all that came before."""
    total: FloatArray = moments.sum(axis=0)
    return total if baseline is None else total + baseline


def _quiet(before: FloatArray) -> State:
    return "ok" if before[0] else "learning"


def _mean(moments: FloatArray) -> float:
    return float(moments[1] / moments[0])


def _share(moments: FloatArray) -> str:
    return f"{100 * _mean(moments):.1f} %" if moments[0] else "nothing"


def _before(before: FloatArray) -> str:
    if not before[0]:
        return "with nothing before it to be held against"
    return f"{_share(before)} before ({before[0]:,.0f} comparisons)"


def _error(moments: FloatArray) -> float:
    return float(np.abs(moments[:-1, 1]).sum() / moments[0, 0])


def _expected(window: FloatArray, before: FloatArray) -> str:
    """What the same number of comparisons would show if nothing had changed."""
    if not before[0, 0]:
        return "with nothing before it to be held against"
    mean, deviation, _ = expected_error(window[np.newaxis], before)
    return f"{mean[0]:.3f} ± {deviation[0]:.3f} expected of as many if unchanged"

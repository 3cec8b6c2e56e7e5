"""Fresh windows: is the model still as accurate, and as calibrated, on what its policy writes now?

Each run brings a window of labelled comparisons of the current policy's completions. Three watches are tested with the
windows since the newest baseline, each by the sequential test of :mod:`rewardlab.metrics.change_detection`, so that
looking daily does not raise the rate of false alarms: accuracy (downwards), calibration, and the gap to an ensemble
(upwards, :mod:`rewardlab.monitoring.gap`). Everything is computed again from the history each time, so that a run that
failed in between leaves nothing behind, and a label put right counts. This file knows snapshots; it scores nothing and
stores nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rewardlab.metrics.calibration_change import calibration_bets, calibration_moments, expected_error
from rewardlab.metrics.change_detection import Bets, detect, log_limit
from rewardlab.metrics.recursive_residuals import mean_of_moments, moments_of_windows, recursive_residuals
from rewardlab.monitoring.gap import gap_finding
from rewardlab.monitoring.history import History
from rewardlab.monitoring.snapshots import Finding, PairScore, Snapshot, State
from rewardlab.monitoring.thresholds import Thresholds
from rewardlab.monitoring.watch_words import before_words, finding_of, span_words, untested_words
from rewardlab.monitoring.windows import Windows, findings_of, windows_of

FloatArray = NDArray[np.float64]

WATCHES = 3
"""What the false-alarm rate is shared by, whether or not there is a gap: a limit that moved would move old alarms."""

_FEWEST_OF_SUBSET = 10  # before and since the change: of fewer, what fell most is mostly chance


def test_fresh(history: History, snapshot: Snapshot, thresholds: Thresholds) -> list[Finding]:
    """What the watches say after a fresh window.

    An alarm stays one, with the time at which the change began, until there is a new model or a new baseline. Each
    watch has a third of the false-alarm rate.

    Args:
        history: What was before; the snapshot is not yet in it.
        snapshot: Of kind ``"fresh"``.
        thresholds: The rate, the horizon and the changes that are bet on.

    Returns:
        ``"accuracy"`` and ``"ece"``, always; ``"gap"`` where a window has one; ``"window"`` where comparisons came
        before and are left out, ``"labels"`` where some are labelled otherwise now, ``"baseline"`` where another model
        was before and this one has no baseline.
    """
    windows = windows_of(history, snapshot, thresholds)
    limit = log_limit(thresholds.false_alarm_rate, thresholds.horizon, WATCHES)
    findings = findings_of(windows)
    if windows.tested:
        findings += [_accuracy(windows, thresholds, limit), _calibration(windows, thresholds, limit)]
    else:
        message = f"{untested_words(windows)}no window has been tested yet"
        findings += [Finding(watch, "learning", message) for watch in ("accuracy", "ece")]
    gap = gap_finding(windows, thresholds, limit)
    return findings if gap is None else [*findings, gap]


def _accuracy(windows: Windows, thresholds: Thresholds, limit: float) -> Finding:
    """Whether accuracy has fallen."""
    moments = _right([window.pairs for window in windows.tested])
    baseline = None if windows.baseline is None else _right([windows.baseline.pairs])[0]
    sizes = tuple(-drop for drop in thresholds.accuracy_drops)
    detection = detect([Bets(recursive_residuals(moments, baseline), sizes)], limit)
    message = untested_words(windows)
    count = len(moments)
    if detection.alarm is None or detection.onset is None:
        before = _sum(baseline, moments[:-1])
        message += f"accuracy {_share(moments[-1])} in {span_words(windows, count - 1)}, "
        message += _level(before, baseline, windows, count - 1) if before[0] else _NOTHING_BEFORE
        return finding_of("accuracy", detection, windows.tested, message, _quiet(before))
    onset = detection.onset
    before, since = _sum(baseline, moments[:onset]), moments[onset:].sum(axis=0)
    message += f"accuracy fell to {_share(since)} ({span_words(windows, onset)}) from "
    message += f"{_level(before, baseline, windows, onset)}{_worst_subset(windows, onset)}"
    return finding_of("accuracy", detection, windows.tested, message, "ok")


def _calibration(windows: Windows, thresholds: Thresholds, limit: float) -> Finding:
    """Whether calibration has become worse.

    A change for the better is no alarm; from the windows in which it was found, a new test begins.
    """
    temperature = float(windows.snapshot.metrics["temperature"])  # of all windows: the one that is in use
    moments = _gaps([window.pairs for window in windows.tested], temperature)
    baseline = None if windows.baseline is None else _gaps([windows.baseline.pairs], temperature)[0]
    level, start, first, better = baseline, 0, 0, ""
    while True:
        detection = detect(calibration_bets(moments[start:], level, thresholds.accuracy_drops), limit)
        if detection.alarm is None or detection.onset is None:
            break
        onset, end = start + detection.onset, start + detection.alarm + 1
        before, since = _sum(level, moments[start:onset]), moments[onset:end].sum(axis=0)
        became = (
            f"{_error(since):.3f} ({span_words(windows, onset, end)}), {_expected(since, before)} "
            f"({before_words(windows, first, onset)} before); stated confidence minus accuracy went from "
            f"{100 * mean_of_moments(before[-1]):+.1f} to {100 * mean_of_moments(since[-1]):+.1f} points"
        )
        if _error(since) > float(expected_error(since[np.newaxis], before)[0][0]):
            message = f"{untested_words(windows)}calibration became worse: error {became}{_lately(moments, end)}"
            return finding_of("ece", detection, windows.tested[start:], message, "ok")
        if end == len(moments):
            message = f"{untested_words(windows)}calibration changed, not for the worse: error {became}"
            return Finding("ece", "warning", message, float(detection.log_evidence.max()), limit, _at(windows, onset))
        better = f"; since {windows.tested[onset].day} it is not what it was, and not worse: it is held against that"
        level, start, first = since, end, onset
    before = _sum(level, moments[start:-1])
    message = f"{untested_words(windows)}calibration error {_error(moments[-1]):.3f} in "
    message += f"{span_words(windows, len(moments) - 1)}, "
    if before[0, 0]:
        message += f"{_expected(moments[-1], before)} ({before_words(windows, first, len(moments) - 1)} before){better}"
    else:
        message += _NOTHING_BEFORE
    return finding_of("ece", detection, windows.tested[start:], message, _quiet(before[-1]))


_NOTHING_BEFORE = "with nothing before it to be held against"


def _right(windows: Sequence[Sequence[PairScore]]) -> FloatArray:
    """Moments of (right or not); equal scores are not right."""
    pairs = [pair for of_window in windows for pair in of_window]
    right = [float(pair.chosen > pair.rejected) for pair in pairs]
    return moments_of_windows(right, [pair.prompt for pair in pairs], [len(of_window) for of_window in windows])


def _gaps(windows: Sequence[Sequence[PairScore]], temperature: float) -> FloatArray:
    """Moments of what calibration is measured by."""
    pairs = [pair for of_window in windows for pair in of_window]
    margins = [pair.chosen - pair.rejected for pair in pairs]
    sizes = [len(of_window) for of_window in windows]
    return calibration_moments(margins, temperature, [pair.prompt for pair in pairs], sizes)


def _sum(level: FloatArray | None, moments: FloatArray) -> FloatArray:
    """Moments of all that came before."""
    total: FloatArray = moments.sum(axis=0)
    return total if level is None else total + level


def _quiet(before: FloatArray) -> State:
    return "ok" if before[0] else "learning"


def _share(moments: FloatArray) -> str:
    return f"{100 * mean_of_moments(moments):.1f} %"


def _level(before: FloatArray, baseline: FloatArray | None, windows: Windows, until: int) -> str:
    """``"76.2 % before (the baseline and 5 windows, 1,500 comparisons; the baseline itself 77.7 %)"``."""
    told = f"{_share(before)} before ({before_words(windows, 0, until)}, {before[0]:,.0f} comparisons"
    return f"{told}; the baseline itself {_share(baseline)})" if baseline is not None and until else f"{told})"


def _worst_subset(windows: Windows, onset: int) -> str:
    """Which subset's accuracy fell most, in its standard errors, as the end of a message; empty without subsets."""
    earlier = [*([] if windows.baseline is None else [windows.baseline]), *windows.tested[:onset]]
    right: dict[str | None, tuple[list[bool], list[bool]]] = {}
    for side, spell in enumerate((earlier, windows.tested[onset:])):
        for pair in (pair for window in spell for pair in window.pairs):
            right.setdefault(pair.subset, ([], []))[side].append(pair.chosen > pair.rejected)
    falls = []
    for name, (before, since) in right.items():
        if min(len(before), len(since)) >= _FEWEST_OF_SUBSET:
            shares = float(np.mean(before)), float(np.mean(since))
            variance = float(np.mean([*before, *since])) * (1 - float(np.mean([*before, *since])))
            error = np.sqrt(variance * (1 / len(before) + 1 / len(since)))
            falls.append(((shares[0] - shares[1]) / max(error, 1e-9), name, shares, len(since)))
    if len(falls) < 2:
        return ""
    fall, name, shares, count = max(falls, key=lambda one: one[0])
    named = "the rows without a subset" if name is None else f"subset {name}"
    told = f"{named}: {100 * shares[0]:.1f} % to {100 * shares[1]:.1f} % ({count:,} comparisons)"
    return f"; fell most: {told}" if fall > 0 else ""


def _error(moments: FloatArray) -> float:
    return float(np.abs(moments[:-1, 1]).sum() / moments[0, 0])


def _lately(moments: FloatArray, end: int) -> str:
    """The windows since an alarm, for it stays one whatever they show."""
    return f"; {_error(moments[end:].sum(axis=0)):.3f} in all windows after those" if end < len(moments) else ""


def _expected(window: FloatArray, before: FloatArray) -> str:
    """What the same number of comparisons would show if nothing had changed."""
    mean, deviation, _ = expected_error(window[np.newaxis], before)
    return f"{mean[0]:.3f} ± {deviation[0]:.3f} expected of as many if unchanged"


def _at(windows: Windows, place: int) -> str:
    return windows.tested[place].parts[0].snapshot.at

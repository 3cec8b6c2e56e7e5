"""Which fresh windows of a history are tested together, and with which of their comparisons.

The windows of one checkpoint since its newest baseline. A comparison counts once, in the first window (or baseline)
that it came in; a window with too few new ones is left out, and what is in it can still count in a later one. So a file
that is read twice, or that grows from day to day, is no evidence twice. This file knows records; it computes no test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rewardlab.metrics.change_detection import Detection
from rewardlab.monitoring.history import History
from rewardlab.monitoring.snapshots import Finding, PairScore, Snapshot, State
from rewardlab.monitoring.thresholds import Thresholds


@dataclass(frozen=True, slots=True)
class Window:
    """A snapshot and those of its comparisons that no earlier one had."""

    snapshot: Snapshot
    pairs: tuple[PairScore, ...]


@dataclass(frozen=True, slots=True)
class Windows:
    """What a fresh snapshot is tested with.

    Attributes:
        baseline: The checkpoint's newest baseline; None where it has none.
        tested: The windows since, in order; the snapshot's own is the last, if it is tested.
        newest: The snapshot's own, tested or not.
        is_tested: Whether it is.
        repeats: The earlier fresh snapshot of the same comparisons, if there is one.
    """

    baseline: Window | None
    tested: tuple[Window, ...]
    newest: Window
    is_tested: bool
    repeats: Snapshot | None


def windows_of(history: History, snapshot: Snapshot, thresholds: Thresholds) -> Windows:
    """The windows that a fresh snapshot is tested with.

    Args:
        history: What was before; the snapshot is not yet in it.
        snapshot: A fresh one.
        thresholds: ``fewest_pairs`` is the least number of new comparisons.
    """
    baselines = history.snapshots("baseline", fingerprint=snapshot.fingerprint, pairs=False)
    baseline = history.with_pairs(baselines[-1]) if baselines else None
    since = -1 if baseline is None or baseline.number is None else baseline.number
    seen = set() if baseline is None else {pair.key for pair in baseline.pairs}
    fresh = [
        earlier
        for earlier in history.snapshots("fresh", fingerprint=snapshot.fingerprint, pairs=False)
        if earlier.number is not None and earlier.number > since
    ]
    tested = []
    for earlier in fresh:
        window = _new(history.with_pairs(earlier), seen)
        if len(window.pairs) >= thresholds.fewest_pairs:
            tested.append(window)
            seen.update(pair.key for pair in window.pairs)
    newest = _new(snapshot, seen)
    is_tested = len(newest.pairs) >= thresholds.fewest_pairs
    same = [earlier for earlier in fresh if earlier.data_sha256 == snapshot.data_sha256 is not None]
    return Windows(
        baseline=None if baseline is None else Window(baseline, baseline.pairs),
        tested=(*tested, newest) if is_tested else tuple(tested),
        newest=newest,
        is_tested=is_tested,
        repeats=same[0] if same else None,
    )


def untested_words(windows: Windows, thresholds: Thresholds) -> str:
    """Why the newest window is not tested, as the beginning of a message; empty where it is."""
    if windows.is_tested:
        return ""
    few = len(windows.newest.pairs)
    return f"not tested: {few:,} new comparisons are fewer than {thresholds.fewest_pairs:,} (fewest_pairs); "


def repeat_finding(windows: Windows) -> Finding | None:
    """What is to say of comparisons that came before; None where there were none."""
    total = len(windows.newest.snapshot.pairs)
    known = total - len(windows.newest.pairs)
    if windows.repeats is not None and known:
        message = f"these {total:,} comparisons were a window at {windows.repeats.at} already; they count once"
        return Finding("window", "warning", message, value=float(known), since=windows.repeats.at)
    if known:
        message = f"{known:,} of {total:,} comparisons were in the baseline or an earlier window; they count once"
        return Finding("window", "ok", message, value=float(known))
    return None


def finding_of(watch: str, detection: Detection, windows: Sequence[Window], message: str, state: State) -> Finding:
    """A watch's finding: its evidence (of an alarm the largest so far, for it stays one) and limit, as logarithms.

    Args:
        watch: What is watched.
        detection: Of these windows.
        windows: Those of the detection.
        message: Without the evidence.
        state: What it says.
    """
    path = detection.log_evidence
    evidence = float(path[-1] if detection.alarm is None else path.max())
    begun = None if detection.alarm is None or detection.onset is None else windows[detection.onset].snapshot.at
    return Finding(
        watch,
        state,
        f"{message}; evidence e^{evidence:.1f}, limit e^{detection.log_limit:.1f}",
        value=evidence,
        limit=detection.log_limit,
        since=begun,
    )


def span_words(windows: Sequence[Window], onset: int) -> str:
    """``"the 4 windows since 2026-11-02, 800 comparisons"``."""
    since = windows[onset:]
    count = sum(len(window.pairs) for window in since)
    many = "the window of" if len(since) == 1 else f"the {len(since)} windows since"
    return f"{many} {since[0].snapshot.at[:10]}, {count:,} comparisons"


def _new(snapshot: Snapshot, seen: set[str]) -> Window:
    return Window(snapshot, tuple(pair for pair in snapshot.pairs if pair.key not in seen))

"""How the sequential watches word what they found: evidence, which windows, held against what, and why not tested."""

from __future__ import annotations

from collections.abc import Sequence

from rewardlab.metrics.change_detection import Detection
from rewardlab.monitoring.snapshots import Finding, State
from rewardlab.monitoring.windows import Window, Windows

WARNING_SHARE = 2 / 3
"""Share of the limit from which on the evidence is worth a look; both are logarithms."""


def finding_of(watch: str, detection: Detection, windows: Sequence[Window], message: str, quiet: State) -> Finding:
    """A watch's finding: its evidence (of an alarm the largest so far, for it stays one) and limit, as logarithms.

    Args:
        watch: What is watched.
        detection: It has an alarm, or it is quiet.
        windows: Those of the detection.
        message: Without the evidence.
        quiet: The state where there is neither an alarm nor much evidence.
    """
    path, limit = detection.log_evidence, detection.log_limit
    if detection.alarm is None or detection.onset is None:
        evidence, begun = float(path[-1]), None
        state: State = "warning" if evidence >= WARNING_SHARE * limit else quiet
    else:
        evidence, begun = float(path.max()), windows[detection.onset].parts[0].snapshot.at
        state = "alarm"
    told = f"{message}; evidence {evidence:.1f} of {limit:.1f} (natural log; alarm at {limit:.1f})"
    return Finding(watch, state, told, value=evidence, limit=limit, since=begun)


def untested_words(windows: Windows) -> str:
    """Why the newest snapshot is not tested, as the beginning of a message; empty where it is."""
    if windows.is_tested:
        return ""
    if not windows.waiting.parts:
        return "not tested: no new comparisons; "
    return f"not tested yet: {windows.wanting}; "


def before_words(windows: Windows, first: int, until: int) -> str:
    """``"the baseline and 5 windows"``: the tested windows from ``first`` to before ``until``, and what is before them.

    Args:
        windows: What was tested.
        first: 0 counts the baseline too.
        until: The first one that does not count.
    """
    parts = ["the baseline"] if windows.baseline is not None and first == 0 else []
    if count := until - first:
        parts.append("1 window" if count == 1 else f"{count:,} windows")
    return " and ".join(parts)


def span_words(windows: Windows, first: int, until: int | None = None) -> str:
    """``"the 4 windows since 2026-11-02, 800 comparisons"``, or up to a day, where they are not the last ones.

    Args:
        windows: What was tested.
        first: The first that counts.
        until: The first one that does not; None: all do.
    """
    span = windows.tested[first:until]
    count = sum(len(window.pairs) for window in span)
    if len(span) == 1:
        return f"the window of {span[0].day}, {count:,} comparisons"
    last = "since " + span[0].day if until in (None, len(windows.tested)) else f"from {span[0].day} to {span[-1].day}"
    return f"the {len(span)} windows {last}, {count:,} comparisons"

"""rewardlab.monitoring.watch_words: evidence and its states, and which windows are meant."""

from __future__ import annotations

import numpy as np
import pytest

from rewardlab.metrics.change_detection import Detection
from rewardlab.monitoring.snapshots import PairScore, Snapshot
from rewardlab.monitoring.watch_words import before_words, finding_of, span_words, untested_words
from rewardlab.monitoring.windows import Part, Window, Windows


def window(day: int) -> Window:
    pairs = tuple(PairScore(f"{day} {row}", "p", 1.0, 0.0) for row in range(4))
    one = Snapshot("fresh", f"2026-11-{day:02d}T06:00:00Z", "m", "f", None, ("f",), "d", pairs=pairs)
    return Window((Part(one, pairs),))


THREE = tuple(window(day) for day in (1, 2, 3))


def windows(waiting: str = "", **more) -> Windows:
    left = window(4) if waiting else Window(())
    newest = (left if waiting else THREE[-1]).parts[0].snapshot
    fields = {"snapshot": newest, "baseline": None, "repeats": None, "relabelled": {}, "other": None, **more}
    return Windows(tested=THREE, waiting=left, wanting=waiting, **fields)


@pytest.mark.parametrize(
    ("path", "alarm", "state", "value"),
    [([1.0, 5.9], None, "ok", 5.9), ([1.0, 6.0], None, "warning", 6.0), ([1.0, 9.5, 4.0], 1, "alarm", 9.5)],
)
def test_states(path, alarm, state, value) -> None:
    found = finding_of("accuracy", Detection(np.array(path), 9.0, alarm, 1), THREE, "words", "ok")
    assert (found.state, found.value, found.limit) == (state, value, 9.0)
    assert found.message == f"words; evidence {value:.1f} of 9.0 (natural log; alarm at 9.0)"
    assert found.since == (None if alarm is None else "2026-11-02T06:00:00Z")


def test_which_windows() -> None:
    assert span_words(windows(), 2) == "the window of 2026-11-03, 4 comparisons"
    assert span_words(windows(), 1) == "the 2 windows since 2026-11-02, 8 comparisons"
    assert span_words(windows(), 0, 2) == "the 2 windows from 2026-11-01 to 2026-11-02, 8 comparisons"
    assert before_words(windows(), 0, 2) == "2 windows"
    assert before_words(windows(baseline=window(9)), 0, 1) == "the baseline and 1 window"
    assert before_words(windows(baseline=window(9)), 1, 2) == "1 window"


def test_why_not_tested() -> None:
    assert untested_words(windows()) == ""
    assert untested_words(windows("4 wait")) == "not tested yet: 4 wait; "
    assert untested_words(windows(snapshot=window(5).parts[0].snapshot)) == "not tested: no new comparisons; "

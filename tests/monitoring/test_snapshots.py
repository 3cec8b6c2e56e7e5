"""A snapshot as JSON, and which of its findings are alarms."""

from __future__ import annotations

import json

from rewardlab.monitoring.snapshots import Finding, PairScore, Snapshot

QUIET = Finding("canary", "ok", "bit-equal")
ALARM = Finding("accuracy", "alarm", "fell", 9.5, 9.0, "2026-11-02T00:00:00Z")


def test_alarms_are_the_findings_that_say_so() -> None:
    warned = Finding("version", "warning", "new")
    seen = Snapshot("fresh", "2026-11-21T00:00:00Z", "rm", "f", None, ("a",), "d", findings=(QUIET, warned, ALARM))
    assert seen.alarms == (ALARM,)


def test_json_tells_all_but_the_single_comparisons() -> None:
    pairs = (PairScore("k", "p", 1.0, 0.0), PairScore("l", "p", 1.0, 2.0))
    seen = Snapshot(
        "fresh", "2026-11-21T00:00:00Z", "rm", "f", "c", ("a",), "d", {"x": 1}, {"y": 2}, pairs, (ALARM,), 3
    )
    told = json.loads(json.dumps(seen.to_dict(), allow_nan=False))
    assert told["num_pairs"] == 2
    assert told["alarm"] is True
    assert told["findings"] == [ALARM.to_dict()]
    assert "pairs" not in told
    assert set(Snapshot.__slots__) - {"pairs"} <= told.keys()

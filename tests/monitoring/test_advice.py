"""rewardlab.monitoring.advice: every alarm has its advice, once, and the page states the same."""

from __future__ import annotations

import re
from pathlib import Path

from rewardlab.monitoring.advice import ADVICE, next_steps
from rewardlab.monitoring.snapshots import Finding, Snapshot

DOCS = Path(__file__).resolve().parents[2] / "docs" / "monitoring.md"


def snapshot(kind, *findings):
    return Snapshot(kind, "2026-11-21T09:30:00Z", "rm", "f", None, ("a",), None, findings=findings)


def test_one_line_for_each_watch_in_alarm():
    found = snapshot(
        "fresh", Finding("accuracy", "alarm", "fell"), Finding("ece", "warning", "w"), Finding("gap", "alarm", "rose")
    )
    assert next_steps(found) == [str(ADVICE["fresh", "accuracy"]), str(ADVICE["fresh", "gap"])]
    assert next_steps(found)[0].startswith("look at the worst subset")
    same = snapshot("live", Finding("scores", "alarm", "s"), Finding("tokens", "alarm", "t"))
    assert len(next_steps(same)) == 1
    assert next_steps(snapshot("canary", Finding("accuracy", "ok", "fine"))) == []
    assert next_steps(snapshot("fresh", Finding("something new", "alarm", "x"))) == []


def test_the_page_states_all_of_it():
    table = DOCS.read_text(encoding="utf-8").partition("## Alarms, and what to do")[2].partition("\n## ")[0]
    stated = re.findall(r"^\| (\w+): ([\w, ]+) \| (.+) \| (.+) \|$", table, re.MULTILINE)
    rows = {(kind, watch): (look, then) for kind, names, look, then in stated for watch in names.split(", ")}
    assert rows == {key: (advice.look_at, advice.then) for key, advice in ADVICE.items()}

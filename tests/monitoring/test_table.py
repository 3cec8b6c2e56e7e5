"""rewardlab.monitoring.table: the findings and figures are on it, in 80 columns, and brackets are not markup."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO

from rich.console import Console
from tests.monitoring.stand_in import StandIn, group

from rewardlab.monitoring.figures import snapshot_of
from rewardlab.monitoring.snapshots import Finding, Snapshot
from rewardlab.monitoring.table import render_snapshot


def shown(snapshot: Snapshot) -> str:
    console = Console(file=StringIO(), width=80)
    console.print(render_snapshot(snapshot))
    return console.file.getvalue()


def test_what_is_on_it():
    groups = [group(i, float(i % 4), 1.0, subset=["[red]", None][i % 2]) for i in range(8)]
    scorer = StandIn(members=(0.0, 2.0))
    found = snapshot_of("fresh", scorer, groups, data=["a"], against=StandIn(reference=(0.0, 2.0)))
    finding = Finding("accuracy", "alarm", "fell from [bold] 90.0 % to 50.0 %")
    text = shown(replace(found, findings=(finding,), number=12))
    for part in ("fresh of rm", "snapshot 12", "alarm", "[bold]", "50.0 %", "[red]", "(none)", "gap", "disagreement"):
        assert part in text, part
    assert max(map(len, text.splitlines())) <= 80


def test_a_calibration_error_at_the_edge_of_its_interval_is_explained():
    found = snapshot_of("fresh", StandIn(), [group(i, float(i % 4), 1.0) for i in range(8)], data=["a"])
    for value, explained in ((0.0526, True), (0.08, False)):
        ece = {"value": value, "low": 0.0526, "high": 0.1287}
        text = shown(replace(found, metrics={**found.metrics, "ece": ece}))
        assert ("biased upward" in text) is explained


def test_a_snapshot_of_distributions_shows_its_findings_alone():
    live = Snapshot("live", "2026-11-21T09:30:00Z", "rm", "f", None, ("url",), None, metrics={"scores": {"psi": 0.3}})
    text = shown(replace(live, findings=(Finding("scores", "learning", "few"),)))
    assert "not stored" in text
    assert "learning" in text
    assert "accuracy" not in text

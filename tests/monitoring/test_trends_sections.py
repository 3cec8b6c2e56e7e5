"""What each section shows of a history, and what it says where there is nothing to show."""

from __future__ import annotations

import re
from datetime import timedelta

import numpy as np
import pytest
from tests.monitoring.simulated_history import FIRST, SECOND, START, labelled, told, write_history

from rewardlab.metrics.histograms import Histogram
from rewardlab.monitoring.history import History
from rewardlab.monitoring.snapshots import Finding
from rewardlab.monitoring.trends import gather_trends
from rewardlab.monitoring.trends_sections import canary_section, fresh_section, histogram_quantile, live_section


@pytest.fixture(scope="module")
def trends(tmp_path_factory):
    path = write_history(tmp_path_factory.mktemp("history") / "rm.history", windows=20, looks_live=10)
    return gather_trends(path, now=START + timedelta(days=20))


def figures(section):
    return {block.heading: block for block in section.blocks if block.kind == "figure"}


def alarms(figure):
    paths = re.findall(r'class="alarms" d="([^"]*)"', figure.chart)
    return paths[0].count("M") if paths else 0


def test_fresh_figures_stand_beside_their_evidence(trends):
    found = figures(fresh_section(trends))
    assert list(found) == [
        "Accuracy",
        "Accuracy: evidence of a change",
        "Calibration error",
        "Calibration error: evidence of a change",
        "Gap to the ensemble",
        "Gap to the ensemble: evidence of a change",
        "Log loss",
    ]
    fresh = trends.of("fresh")
    for watch, heading in (("ece", "Calibration error"), ("gap", "Gap to the ensemble")):
        expected = sum(one.watch == watch and one.state == "alarm" for look in fresh for one in look.findings)
        assert alarms(found[heading]) == alarms(found[f"{heading}: evidence of a change"]) == expected
    assert expected > 0
    assert found["Accuracy"].guide == "baseline"
    assert len(re.findall('class="guide"', found["Accuracy"].chart)) == 2  # each version's own
    last = next(one for one in fresh[-1].findings if one.watch == "gap")
    assert f"{last.value:.1f} after the last window" in found["Gap to the ensemble: evidence of a change"].caption


def test_the_canary_shows_the_changed_stack_and_the_paired_tests(trends):
    section = canary_section(trends)
    found = figures(section)
    assert alarms(found["Same version, same scores?"]) == 1
    assert f"rm {FIRST[:8]}" in found["Accuracy by version"].chart
    (table,) = [block for block in section.blocks if block.kind == "table"]
    (row,) = table.rows
    assert row[0] == f"rm {SECOND[:8]}"
    assert "McNemar" in row[2]


def test_live_shows_distance_and_spread_of_what_was_counted(trends):
    found = figures(live_section(trends))
    assert list(found) == [
        "Scores: how far from the reference",
        "Scores",
        "Lengths: how far from the reference",
        "Lengths",
    ]
    assert "warning (default)" in found["Scores: how far from the reference"].chart
    last = trends.of("live")[-1].metrics["scores"]
    assert f"PSI {last['psi']:.3f}" in found["Scores: how far from the reference"].caption
    assert found["Scores"].guide == "reference's mean"


def test_what_is_absent_is_said_with_what_would_give_it(tmp_path):
    path = tmp_path / "rm.history"
    with History(path) as history:
        history.record(labelled("baseline", 0, np.random.default_rng(0), count=8), lambda _, __: [])
    trends = gather_trends(path)
    for build, option in ((fresh_section, "--fresh"), (canary_section, "--canary"), (live_section, "--live")):
        (note,) = build(trends).blocks
        assert f"`rewardlab monitor DIR {option}" in note.text


def test_a_canary_that_repeats_bit_for_bit_needs_no_chart(tmp_path):
    path = tmp_path / "rm.history"
    rng = np.random.default_rng(0)
    with History(path) as history:
        history.record(labelled("canary", 0, rng, count=8), lambda _, __: [Finding("canary", "learning", "first")])
        section = canary_section(gather_trends(path))
        assert "looked at twice" in section.blocks[0].text
        for day in (1, 2):
            same = Finding("canary", "ok", "equal", 0.0, 1e-5)
            history.record(labelled("canary", day, rng, count=8), lambda _, __, same=same: [same])
    section = canary_section(gather_trends(path))
    assert "Each of 2 later looks" in section.blocks[0].text
    assert list(figures(section)) == ["Accuracy by version"]


def test_a_baseline_counts_for_its_own_windows(tmp_path):
    path = tmp_path / "rm.history"
    rng = np.random.default_rng(0)
    with History(path) as history:
        for day, kind in enumerate(("fresh", "baseline", "fresh", "baseline", "fresh")):
            history.record(labelled(kind, day, rng, count=8), lambda _, __: [])
    section = fresh_section(gather_trends(path))
    assert len(re.findall('class="guide"', figures(section)["Accuracy"].chart)) == 2
    assert not any("evidence" in heading for heading in figures(section))  # none was told
    assert told(0)[:10] not in figures(section)["Accuracy"].caption


def test_a_quantile_of_counts_is_the_values_own_within_a_bin():
    """1,000 values over bins of width 0.1: numpy's quantile is met within one."""
    values = np.random.default_rng(0).normal(size=1000)
    histogram = Histogram.of(np.linspace(-4, 4, 81), values)
    for level in (0.05, 0.5, 0.95):
        assert histogram_quantile(histogram, level) == pytest.approx(np.quantile(values, level), abs=0.1)


def test_a_quantile_beyond_the_edges_is_not_known():
    histogram = Histogram.of((0.0, 1.0), [-5.0, -5.0, 0.5, 7.0])
    assert histogram_quantile(histogram, 0.05) is None
    assert histogram_quantile(histogram, 0.95) is None
    assert histogram_quantile(histogram, 0.75) == 1.0

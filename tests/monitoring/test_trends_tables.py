"""The tables: subsets before and now, every alarm and warning, every look."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
from tests.monitoring.simulated_history import FIRST, START, labelled, write_history

from rewardlab.monitoring.history import History
from rewardlab.monitoring.snapshots import Finding
from rewardlab.monitoring.trends import gather_trends
from rewardlab.monitoring.trends_tables import (
    MOST_QUIET_LOOKS,
    findings_section,
    looks_section,
    share_difference,
    subset_section,
)


@pytest.fixture(scope="module")
def trends(tmp_path_factory):
    path = write_history(tmp_path_factory.mktemp("history") / "rm.history", windows=20, looks_live=10)
    return gather_trends(path, now=START + timedelta(days=20))


def table(section):
    return next(block for block in section.blocks if block.kind == "table")


@pytest.mark.parametrize("counts", [(70, 100, 60, 100), (0, 10, 10, 10), (5, 40, 39, 40), (33, 33, 120, 150)])
def test_the_interval_of_a_difference_is_newcombes(counts):
    statsmodels = pytest.importorskip("statsmodels.stats.proportion")
    k1, n1, k2, n2 = counts
    low, high = statsmodels.confint_proportions_2indep(k2, n2, k1, n1, method="newcomb", compare="diff")
    assert share_difference(*counts) == pytest.approx((k2 / n2 - k1 / n1, low, high), abs=1e-6)


def test_subsets_of_the_latest_windows_stand_beside_the_baseline(trends):
    section = subset_section(trends)
    rows = {row[0]: row for row in table(section).rows}
    assert sorted(rows) == ["chat", "code", "math", "safety"]
    windows = trends.of("fresh")[-5:]
    right = sum(round(50 * look.metrics["subsets"]["chat"]["accuracy"]) for look in windows)
    assert rows["chat"][2] == f"{right / 250:.1%} of 250".replace("%", "\u00a0%")
    assert "the baseline of" in table(section).heading


def test_without_a_baseline_the_first_windows_are_what_was_before(tmp_path):
    path = tmp_path / "rm.history"
    rng = np.random.default_rng(0)
    with History(path) as history:
        history.record(labelled("fresh", 0, rng, count=40), lambda _, __: [])
        assert "no two windows" in subset_section(gather_trends(path)).blocks[0].text
        history.record(labelled("fresh", 1, rng, count=40), lambda _, __: [])
    assert "the first window" in table(subset_section(gather_trends(path))).heading


def test_every_alarm_and_warning_is_told_newest_first(trends):
    rows = table(findings_section(trends)).rows
    assert len(rows) == len(trends.episodes)
    assert [row[1] for row in rows if row[2] == "canary: canary"] == ["alarm"]
    assert {row[4] for row in rows} == {"in force", "ended"}
    last = [trends.episodes[index].last.number for index in range(len(rows))]
    assert rows[0][0].startswith(next(e.last.at[:10] for e in trends.episodes if e.last.number == max(last)))


def test_a_history_without_alarms_says_so(tmp_path):
    path = write_history(tmp_path / "rm.history", windows=4, dropped=False, looks_live=1)
    (note,) = findings_section(gather_trends(path)).blocks
    assert note.text.startswith("None in ")


def test_looks_without_alarm_are_thinned_and_counted_and_no_alarm_is(tmp_path):
    path = tmp_path / "rm.history"
    one = labelled("fresh", 0, np.random.default_rng(0), count=4)
    alarm = [Finding("accuracy", "alarm", "fell", 12.0, 9.0)]
    with History(path) as history:
        history._connection.execute("PRAGMA synchronous = OFF")  # or the disk is waited for each time
        for number in range(400):
            history.record(one, lambda _, __, number=number: alarm if number % 40 == 0 else [])
    section = looks_section(gather_trends(path))
    rows = table(section).rows
    assert len(rows) == MOST_QUIET_LOOKS + 10
    assert "140 looks without an alarm" in section.blocks[0].text
    assert sum(row[5] == "alarm: accuracy" for row in rows) == 10
    assert rows[0][0] == "400"
    assert rows[0][3] == f"rm {FIRST[:8]}"


def test_a_look_is_told_by_its_figures(trends):
    rows = table(looks_section(trends)).rows
    assert len(rows) == len(trends.snapshots)
    by_kind = {row[2]: row[4] for row in rows}
    assert "200 comparisons, accuracy" in by_kind["fresh"]
    assert "PSI of scores" in by_kind["live"]
    assert "2,000 scores, mean" in by_kind["reference"]

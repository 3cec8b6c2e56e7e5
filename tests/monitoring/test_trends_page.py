"""The whole page: what stands on top, that it is well-formed and small, and that a browser draws it."""

from __future__ import annotations

import dataclasses
import re
from datetime import timedelta

import numpy as np
import pytest
from tests.evaluation.report.test_in_browser import BROWSER, check, opened
from tests.monitoring.simulated_history import FIRST, SECOND, START, labelled, live, told, write_history
from tests.page_checker import PageChecker

from rewardlab.monitoring.history import History
from rewardlab.monitoring.snapshots import Finding
from rewardlab.monitoring.trends import gather_trends
from rewardlab.monitoring.trends_page import headline, render_trends

NASTY = "</script><script>alert(1)</script> <img src=x onerror=alert(1)> {{ 7 * 7 }} \x1b[31m ` \ud83d"
CHARTS = [
    "Accuracy of fresh windows",
    "Evidence of a change: Accuracy",
    "Calibration error of fresh windows",
    "Evidence of a change: Calibration error",
    "Gap to the ensemble of fresh windows",
    "Evidence of a change: Gap to the ensemble",
    "Log loss of fresh windows",
    "Difference of accuracy by subset",
    "Largest difference of a canary score",
    "Accuracy by version",
    "Scores: population stability index",
    "Scores of live windows",
    "Lengths: population stability index",
    "Lengths of live windows",
]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_history(tmp_path_factory.mktemp("history") / "rm.history", windows=20, looks_live=11)


def gathered(path, day=20.0):
    return gather_trends(path, now=START + timedelta(days=day))


def recorded(path, *looks):
    """A history of looks (day, findings)."""
    rng = np.random.default_rng(0)
    with History(path) as history:
        for day, findings in looks:
            one = labelled("fresh", day, rng, count=8)
            history.record(one, lambda _, __, findings=findings: [Finding(*each) for each in findings])
    return path


def test_alarms_in_force_stand_on_top_with_why_and_what_to_do(path):
    trends = gathered(path)
    top = headline(trends)
    alarms = trends.in_force("alarm")
    assert top.figure == f"{len(alarms)} alarms"
    assert "fresh accuracy" in top.verdict
    assert top.tone == "bad"
    checker = PageChecker(render_trends(trends))
    for episode in alarms:
        assert episode.finding.message in checker.text
    assert "rewardlab calibrate DIR --data FILE" in checker.text
    assert f"since {told(16)[:10]}" in checker.text


def test_quiet_says_since_when(tmp_path):
    ok, alarm = ("accuracy", "ok", "fine"), ("accuracy", "alarm", "fell")
    path = recorded(tmp_path / "a.history", (0, [ok]), (1, [alarm]), (2, [ok]))
    top = headline(gathered(path, 2.1))
    assert (top.figure, top.tone, top.verdict) == ("Quiet", "good", "Nothing is to be done.")
    assert "no alarm since 2\u00a0Sep\u00a02026" in top.sentence
    path = recorded(tmp_path / "b.history", (0, [ok]))
    assert headline(gathered(path)).sentence.startswith("no alarm in 1 look since 1\u00a0Sep\u00a02026")


def test_quiet_is_not_called_good_where_nothing_was_tested(tmp_path):
    path = recorded(tmp_path / "a.history", (0, [("accuracy", "learning", "first")]))
    assert "still being learned" in headline(gathered(path)).verdict
    assert headline(gathered(path)).tone == ""
    with History(path) as history:
        one = labelled("canary", 1, np.random.default_rng(0), fingerprint=SECOND, count=8)
        history.record(one, lambda _, __: [Finding("canary", "warning", "new")])
    told_now = headline(gathered(path)).verdict
    assert "1 warning is worth a look" in told_now
    assert "The newest version has no fresh window yet" in told_now
    other = tmp_path / "b.history"
    with History(other) as history:
        history.record(live("reference", 0, np.random.default_rng(0)), lambda _, __: [])
    assert "No fresh window was ever looked at" in headline(gathered(other)).verdict
    PageChecker(render_trends(gathered(other)))


def test_silence_is_not_quiet(tmp_path):
    path = recorded(tmp_path / "a.history", *((day, [("accuracy", "ok", "fine")]) for day in range(4)))
    assert headline(gathered(path, 3.5)).figure == "Quiet"
    top = headline(gathered(path, 30))
    assert (top.figure, top.tone) == ("Silent", "bad")
    assert "does the schedule still run?" in PageChecker(render_trends(gathered(path, 30))).text


def test_the_page_is_well_formed_and_loads_nothing(path):
    page = render_trends(gathered(path))
    checker = PageChecker(page)
    ids = checker.values("id")
    assert len(ids) == len(set(ids))
    assert {value[1:] for value in checker.values("href")} <= set(ids)
    assert not re.search(r"https?:|\bsrc\b|url\(|@import|<script|<link", page)
    assert not {"script", "img", "link", "iframe"} & set(checker.tags)


def test_malicious_names_and_messages_are_shown_as_text(tmp_path):
    path = tmp_path / "rm.history"
    one = labelled("fresh", 0, np.random.default_rng(0), count=8, model=NASTY.replace("/", ""))
    one = dataclasses.replace(one, metrics={**one.metrics, "subsets": {NASTY: one.metrics["subsets"]["chat"]}})
    found = [Finding("accuracy", "alarm", NASTY, 10.0, 9.0), Finding(NASTY, "warning", NASTY)]
    with History(path) as history:
        for _ in range(2):
            history.record(one, lambda _, __: found)
    page = render_trends(gathered(path))
    page.encode("utf-8")
    checker = PageChecker(page)
    assert not {"script", "img"} & set(checker.tags)
    assert not [name for _, name, _ in checker.attributes if name.startswith("on") or name == "src"]
    assert "<script>alert(1)</script>" in checker.text
    assert "{{ 7 * 7 }}" in checker.text
    assert not re.search("[\x00\x1b\ud800-\udfff]", page)


def test_a_thousand_looks_with_alarms_are_a_small_page(tmp_path):
    """Half of them alarms; every other one changes its state, so that each is an episode of its own."""
    path = tmp_path / "rm.history"
    one = labelled("fresh", 0, np.random.default_rng(0), count=8, gap=0.1)
    alarm = Finding("accuracy", "alarm", "accuracy fell " * 12, 12.0, 9.0)
    quiet = Finding("accuracy", "ok", "fine", 1.0, 9.0)
    with History(path) as history:
        history._connection.execute("PRAGMA synchronous = OFF")  # or the disk is waited for a thousand times
        for number in range(1000):
            look = dataclasses.replace(one, at=told(number), fingerprint=SECOND if number > 600 else FIRST)
            history.record(look, lambda _, __, number=number: [alarm if number % 2 else quiet])
    page = render_trends(gathered(path, 1000))
    assert len(page.encode()) < 2e6
    (found,) = re.findall(r"<table>\s*<caption>Found.*?</table>", page, re.DOTALL)
    assert found.count("<tr>") == 501
    assert all(path.count("M") == 500 for path in re.findall(r'<path class="alarms" d="([^"]{99,})"', page))


@pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome on PATH")
@pytest.mark.parametrize("width", [1280, 390])
def test_every_chart_is_drawn_in_a_browser(path, tmp_path, width):
    page = render_trends(gathered(path))
    found = opened(page, tmp_path, width, *(["--blink-settings=preferredColorScheme=0"] if width == 390 else []))
    check(found, CHARTS, width)

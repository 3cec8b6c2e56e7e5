"""The page is well-formed and loads nothing, whatever the texts and numbers."""

from __future__ import annotations

import re

import pytest
from tests.evaluation.report.conftest import make_comparison, make_groups, make_report
from tests.page_checker import PageChecker

from rewardlab.evaluation.report.gathering import ReportData
from rewardlab.evaluation.report.page import render_comparison, render_report
from rewardlab.types import Pair, PromptGroup

NASTY = (
    "</script><script>alert(1)</script> <img src=x onerror=alert(1)> \"quoted\" 'single' &amp; </p> ]]> {{ 7 * 7 }} "
    "\u202eright to left\u202c \u05e9\u05dc\u05d5\u05dd \U0001f600 \ud83d \ude00 \x00\x1b[31m " + "w" * 30_000
)


def nasty_groups():
    messages = ({"role": NASTY[:40], "content": NASTY}, {"role": "user", "content": None})
    groups = [
        PromptGroup(NASTY + str(i), (NASTY + "a", NASTY + "b"), (Pair(1, 0),), NASTY, NASTY, NASTY) for i in range(8)
    ]
    return [*groups, *(PromptGroup(messages, ("a" * i, "b"), (Pair(0, 1),)) for i in range(1, 8))]


@pytest.mark.parametrize("two", [False, True])
def test_malicious_text_is_shown_as_text(two):
    groups = nasty_groups()
    page = (
        render_comparison(make_comparison(groups))
        if two
        else render_report(make_report(groups, with_bias=False, name=NASTY[:300]))
    )
    page.encode("utf-8")  # no lone surrogate is left
    checker = PageChecker(page)
    assert not {"script", "img", "link", "iframe"} & set(checker.tags)
    assert not [name for _, name, _ in checker.attributes if name.startswith("on") or name == "src"]
    assert all(value.startswith("#") for value in checker.values("href"))
    assert "<script>alert(1)</script>" in checker.text
    assert "{{ 7 * 7 }}" in checker.text
    assert "\U0001f600" in checker.text
    assert not re.search("[\x00\x1b\ud800-\udfff]", page)
    assert "characters are left out here" in checker.text
    assert len(page.encode()) < 1e6


def test_ids_are_unique_and_every_link_has_its_section(report_data):
    checker = PageChecker(render_report(report_data))
    ids = checker.values("id")
    assert len(ids) == len(set(ids))
    assert {value[1:] for value in checker.values("href")} <= set(ids)


def test_on_a_phone_each_cell_says_its_column(report_data):
    """Tables of more than two columns are stacked there; the columns' names then stand in the cells."""
    page = render_report(report_data)
    stacked = re.findall(r'<div class="card table[^"]* stacked".*?</table>', page, re.DOTALL)
    assert stacked
    for table in stacked:
        names = set(re.findall(r'<th scope="col"[^>]*>([^<]+)</th>', table))
        assert set(re.findall(r'data-label="([^"]*)"', table)) <= names
        assert not re.search(r"<td(?! class=)[^>]*><bdi>", table)
    assert 'data-label="interval"' in page


def test_a_lone_figure_spans_its_row(report_data):
    page = render_report(report_data)
    assert '<figure class="alone"><h3>Shift of the score' in page
    assert "<figure><h3>Against chance and length" in page


@pytest.mark.parametrize("unit", ["pair", "completion"])
def test_the_card_has_a_temperature_of_preferences_alone(unit):
    page = render_report(make_report(make_groups(), with_bias=False, unit=unit))
    assert ("calibration error at T = 1.50" in page) == (unit == "pair")


def test_a_model_of_which_nothing_is_known_has_a_page():
    page = render_report(ReportData("org/model", None, {}))
    PageChecker(page)
    assert "Nothing is known" in page
    assert "<svg" not in page


def test_warnings_stand_above_the_figures(report_data):
    from dataclasses import replace

    page = render_report(replace(report_data, warnings=("trained on these",)))
    assert page.index("trained on these.") < page.index('class="facts"')


@pytest.mark.parametrize(
    "scores", [[(0, 0)], [(1e30, -1e30)] * 3, [(-1e6, 1e6), (1e-9, 0)]], ids=["tie", "huge", "mixed"]
)
def test_extreme_scores(scores, monkeypatch):
    from tests.evaluation.report import conftest

    monkeypatch.setattr(conftest, "make_scores", lambda groups, seed: [list(map(float, s)) for s in scores])
    groups = [PromptGroup(f"p{i}", ("a", "bcd"), (Pair(0, 1),)) for i in range(len(scores))]
    PageChecker(render_report(make_report(groups, with_bias=False)))

"""The chart over time draws every alarm, breaks between versions, and labels round dates."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.page_checker import PageChecker

from rewardlab.monitoring.trends_charts import MOST_LOOKS, Look, Span, date_ticks, over_time, thinned

DAY = 86_400.0


def seconds(*date: int) -> float:
    return datetime(*date, tzinfo=UTC).timestamp()


def drawn(looks, **more):
    return str(over_time("title", "description", looks, y_name="y", **more))


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        ((2026, 9, 1), (2026, 9, 1, 10), ["00:00", "03:00", "06:00", "09:00"]),
        ((2026, 9, 1), (2026, 9, 3), ["1 Sep 00h", "1 Sep 12h", "2 Sep 00h", "2 Sep 12h", "3 Sep 00h"]),
        ((2026, 9, 1), (2026, 9, 5), ["1 Sep", "2 Sep", "3 Sep", "4 Sep", "5 Sep"]),
        ((2026, 1, 15), (2026, 5, 20), ["Feb 2026", "Mar 2026", "Apr 2026", "May 2026"]),
        ((2020, 1, 1), (2025, 6, 1), ["2020", "2022", "2024"]),
    ],
)
def test_ticks_are_round_dates(low, high, labels):
    assert [label for _, label in date_ticks(seconds(*low), seconds(*high))] == labels


@given(st.floats(0, 4e9), st.floats(60, 3e9))
def test_ticks_are_few_rise_and_lie_inside(low, width):
    ticks = [at for at, _ in date_ticks(low, low + width)]
    assert len(ticks) <= 5
    assert ticks == sorted(ticks)
    assert all(low <= at <= low + width for at in ticks)


def test_alarms_are_all_kept_and_others_thinned():
    looks = [Look(float(i), "v", 0.0, state="alarm" if i % 7 == 0 else "ok") for i in range(1000)]
    kept = thinned(looks)
    alarms = [look for look in looks if look.state == "alarm"]
    assert [look for look in kept if look.state == "alarm"] == alarms
    assert len(kept) == len(alarms) + MOST_LOOKS
    assert kept == sorted(kept, key=lambda look: look.at)


def test_each_state_has_its_mark():
    svg = drawn([Look(i * DAY, "v", float(i), state=s) for i, s in enumerate(("ok", "warning", "alarm", "alarm"))])
    (alarms,) = re.findall(r'class="alarms" d="([^"]*)"', svg)
    (rings,) = re.findall(r'class="rings" d="([^"]*)"', svg)
    (dots,) = re.findall(r'class="dots" d="([^"]*)"', svg)
    assert [path.count("M") for path in (alarms, rings, dots)] == [2, 1, 1]
    PageChecker(svg)


def test_versions_are_not_joined_and_are_named_where_there_is_room():
    looks = [Look(i * DAY, "old" if i < 5 else "new", 0.5, 0.4, 0.6) for i in range(10)]
    marks = [(4.5 * DAY, "aaaa<b>"), (4.6 * DAY, "bbbbbbbb"), (90 * DAY, "outside")]
    svg = drawn(looks, versions=marks)
    assert len(re.findall(r'class="line a"', svg)) == 2
    assert len(re.findall(r'class="band"', svg)) == 2
    assert len(re.findall(r'class="version"', svg)) == 2
    assert "aaaa&lt;b&gt;" in svg
    assert "bbbbbbbb" not in svg  # it would be written over the other
    assert "outside" not in svg


def test_one_look_and_a_constant_are_drawn():
    svg = drawn([Look(0.0, "v", 0.8, 0.7, 0.9)], percent=True, spans=[Span(0.8, 0.0, 0.0, "limit")])
    assert "whisker" in svg
    assert "limit" in svg
    assert "31 Dec to 1 Jan 1969 to 1970, UTC" in svg  # the labels are hours, so the days are told below
    assert "nan" not in svg


@pytest.mark.parametrize("value", [math.nan, math.inf, -1e200])
def test_what_is_not_finite_is_left_out(value):
    svg = drawn([Look(0.0, "v", value, value, value), Look(DAY, "v", 1.0, value, 2.0)], spans=[Span(value, 0, DAY)])
    assert not re.search("nan|inf", svg)
    assert re.findall(r'class="dots" d="([^"]*)"', svg)[0].count("M") == 1


def test_nothing_to_draw_is_an_empty_frame():
    PageChecker(drawn([]))

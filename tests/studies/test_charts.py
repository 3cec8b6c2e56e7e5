"""Charts are well-formed XML, stay inside their frame, and survive every number."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardlab.studies import charts
from rewardlab.studies.charts import Row, Scale

NUMBERS = st.floats(allow_nan=True, allow_infinity=True)
POINTS = st.lists(st.tuples(NUMBERS, NUMBERS), max_size=8)


def parsed(svg):
    """The chart as XML, with every position checked to be inside the frame."""
    root = ElementTree.fromstring(svg)
    width, height = (float(v) for v in root.attrib["viewBox"].split()[2:])
    for element in root.iter():
        for name, value in element.attrib.items():
            if name in ("x", "x1", "x2", "cx"):
                assert 0 <= float(value) <= width, (element.tag, element.attrib)
            elif name in ("y", "y1", "y2", "cy"):
                assert 0 <= float(value) <= height, (element.tag, element.attrib)
            elif name in ("width", "height", "r"):
                assert float(value) >= 0
    return root


def marks(svg, style):
    return [element for element in parsed(svg).iter() if element.attrib.get("class") == style]


def test_a_chart_is_named_and_described_for_screen_readers():
    root = parsed(charts.scatter("Title <1>", "A & B", a=[(0, 1)], b=[], x_name="x", y_name="y"))
    title, description = root[0], root[1]
    assert (title.text, description.text) == ("Title <1>", "A & B")
    assert root.attrib["aria-labelledby"].split() == [title.attrib["id"], description.attrib["id"]]


@given(POINTS, POINTS)
def test_any_numbers_can_be_drawn(a, b):
    parsed(charts.scatter("t", "d", a=a, b=b, x_name="x", y_name="y"))
    parsed(charts.curves("t", "d", training=a, held_out=b, guide=0.5, guide_name="g", y_name="y", percent=True))


@given(st.lists(NUMBERS, max_size=20))
def test_any_margins_can_be_drawn(margins):
    parsed(charts.margin_histogram("t", "d", margins))


def test_the_scale_is_linear_and_clipped():
    scale = Scale(0.0, 10.0, 100.0, 200.0)
    assert [scale(v) for v in (0, 5, 10, -3, 99)] == [100, 150, 200, 100, 200]
    assert Scale(0.0, 10.0, 200.0, 100.0)(1) == 190  # y grows downwards


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (-3.2, 7.9, [-2.5 + 2.5 * i for i in range(0)] or [0, 5]),
        (0.0, 1000.0, [0, 200, 400, 600, 800, 1000]),
    ],
)
def test_ticks_are_round_and_inside(low, high, expected):
    assert Scale(low, high, 0, 1).ticks() == pytest.approx(expected)


@given(st.floats(-1e12, 1e12), st.floats(1e-6, 1e12))
def test_there_are_a_few_ticks_whatever_the_range(low, extent):
    ticks = Scale(low, low + extent, 0, 1).ticks() if low + extent > low else [0, 0]
    assert len(ticks) <= 11


def test_the_histogram_counts_every_margin_on_its_side():
    """Margins -2, 0 (a tie is not a win), 0.5, 2 in 4 bins of width 1: counts 1, 1, 1, 1, two of them wins."""
    svg = charts.margin_histogram("t", "d", [-2, 0, 0.5, 2], bins=4)
    heights = [float(bar.attrib["height"]) for bar in marks(svg, "bar b") + marks(svg, "bar a")]
    assert len(marks(svg, "bar a")) == len(marks(svg, "bar b")) == 2
    assert len(set(heights)) == 1
    assert heights[0] > 0


def test_reliability_puts_the_share_that_was_right_at_the_mean_confidence():
    """Ten pairs at confidence 0.8, eight right: one dot on the diagonal, where the y scale has 0.8."""
    svg = charts.reliability("t", "d", [0.8] * 10, [True] * 8 + [False] * 2)
    (dot,) = marks(svg, "dot a")
    y = Scale(0.3, 1.03, charts.HEIGHT - charts.BOTTOM, charts.TOP)
    assert float(dot.attrib["cy"]) == y(0.8)


def test_reliability_takes_the_ends_and_nothing():
    assert len(marks(charts.reliability("t", "d", [0.5, 1.0], [False, True]), "dot a")) == 2
    parsed(charts.reliability("t", "d", [], []))


def test_dot_rows_show_value_interval_and_best():
    rows = [Row("m<1>", 0.8, 0.75, 0.85, 0.9), Row("chance", 0.5), Row("low", 0.0, 0.0, 0.1), Row("none", math.nan)]
    svg = charts.dot_rows("t", "d", rows)
    assert len(marks(svg, "dot a")) == 2
    assert len(marks(svg, "dot plain")) == 1
    assert len(marks(svg, "tick")) == 1
    assert "80.0 %" in svg
    assert "m&lt;1&gt;" in svg

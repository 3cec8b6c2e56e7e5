"""Figures of several series: every mark is there, what is no number leaves no trace, and a file stands alone."""

from __future__ import annotations

import math
from xml.etree import ElementTree

from rewardlab.studies.overopt_figures import Series, as_file, lines

SVG = "{http://www.w3.org/2000/svg}"
POINTS = [(0.0, 0.0), (1.0, 2.0), (2.0, -1.0)]
SERIES = [
    Series("gold <one>", "a", POINTS, [(-0.5, 0.5), (1.5, 2.5), (-2.0, 0.0)], peak=True),
    Series("proxy", "b", [(0.0, 0.0), (1.0, 3.0), (2.0, 5.0)], dashed=True),
]


def drawn(series=SERIES):
    return lines("title", "seen", series, x_name="x", y_name="y")


def marks(root, tag, style):
    return [one for one in root.iter(tag) if style in one.get("class", "").split()]


def test_every_series_has_its_line_its_band_its_peak_and_its_name():
    root = ElementTree.fromstring(str(drawn()))
    assert len(marks(root, "path", "band")) == 1
    assert len(marks(root, "path", "dashed")) == 2, "the line, and the one in the legend"
    (dot,) = marks(root, "circle", "dot")
    line = next(one for one in marks(root, "path", "a") if "band" not in one.get("class"))
    assert f"{dot.get('cx')} {dot.get('cy')}" == line.get("d").removeprefix("M").split("L")[1], "the highest point"
    texts = [one.text for one in root.iter("text")]
    assert {"gold <one>", "proxy", "x", "y"} <= set(texts)


def test_numbers_that_have_no_place_are_left_out():
    points = [(0.0, 0.0), (1.0, math.nan), (2.0, 1.0)]
    series = Series("gold", "c", points, [(None, None), (0.0, 1.0), (0.5, math.inf)], peak=True)
    root = ElementTree.fromstring(str(drawn([series])))
    (line, _) = marks(root, "path", "c")[-2:]
    assert line.get("d").count("L") == 1
    assert "nan" not in str(drawn([series]))


def test_a_file_of_its_own_has_its_style_and_its_namespace():
    text = as_file(drawn())
    root = ElementTree.fromstring(text)
    assert root.tag == f"{SVG}svg"
    style = root.find(f"{SVG}style")
    assert style is not None
    assert "prefers-color-scheme: dark" in style.text
    assert ".band" in style.text
    assert next(iter(root)).tag == f"{SVG}style"

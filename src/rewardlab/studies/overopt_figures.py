"""Reward against sqrt(KL) as inline SVG, several series with their intervals, and the same as a file of its own.

This file knows series and points; what they mean is the caller's. Colours of the first two series, axes and text are
``page.css``'s; :data:`FIGURE_STYLE` adds two more and dashed lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

from markupsafe import Markup

from rewardlab.evaluation.drawing import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Drawing,
    Point,
    Scale,
    drawable,
    drawable_points,
)

FIGURE_STYLE = """
:root { --c: #1a7048; --d: #8a3a8f; }
@media (prefers-color-scheme: dark) { :root { --c: #6cc798; --d: #d79adb; } }
svg .line.c { stroke: var(--c); } svg .line.d { stroke: var(--d); } svg .line.dashed { stroke-dasharray: 6 4; }
svg .line.band { stroke: none; fill-opacity: 0.13; }
svg .band.a { fill: var(--a); } svg .band.b { fill: var(--b); }
svg .band.c { fill: var(--c); } svg .band.d { fill: var(--d); }
svg .dot.c { fill: var(--c); } svg .dot.d { fill: var(--d); }
"""
"""Beside ``page.css``."""

_ROW = 18  # height of one line of the legend
_SAMPLE = 26  # length of the line in it


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a figure.

    Attributes:
        name: In the legend.
        style: Colour.
        points: (x, y) each.
        bounds: Lower and upper end at each point, None where there is none; or empty.
        dashed: Whether the line is.
        peak: Mark the highest point.
    """

    name: str
    style: Literal["a", "b", "c", "d"]
    points: Sequence[Point]
    bounds: Sequence[tuple[float | None, float | None]] = ()
    dashed: bool = False
    peak: bool = False


def lines(title: str, description: str, series: Sequence[Series], *, x_name: str, y_name: str) -> Markup:
    """Lines with bands around them, a legend above and a line at zero.

    Args:
        title: For screen readers.
        description: For screen readers: what can be seen.
        series: What is drawn, the last on top.
        x_name: Name of the x axis.
        y_name: Name of the y axis.
    """
    rows = (len(series) + 1) // 2
    top = TOP + _ROW * rows
    drawing = Drawing(title, description, HEIGHT + _ROW * rows)
    bands = [(one, _band(one)) for one in series]
    every = [p for one, band in bands for p in (*drawable_points(one.points), *band)]
    x = Scale.over([0.0, *(p[0] for p in every)], LEFT, WIDTH - RIGHT)
    y = Scale.over([0.0, *(p[1] for p in every)], drawing.height - BOTTOM, top)
    drawing.axes(x, y, x_name, y_name)
    drawing.line(LEFT, y(0), WIDTH - RIGHT, y(0), "axis")
    for one, band in bands:
        if band:
            drawing.path([(x(a), y(b)) for a, b in band], f"band {one.style}")
    for number, one in enumerate(series):
        points = drawable_points(one.points)
        style = f"{one.style} dashed" if one.dashed else one.style
        drawing.path([(x(a), y(b)) for a, b in points], style)
        if one.peak and points:
            best = max(points, key=lambda point: point[1])
            drawing.dot(x(best[0]), y(best[1]), 5, f"dot {one.style}")
        column, row = number % 2, number // 2
        left, middle = LEFT + column * (WIDTH - LEFT - RIGHT) / 2, 10 + _ROW * row
        drawing.path([(left, middle), (left + _SAMPLE, middle)], style)
        drawing.text(left + _SAMPLE + 6, middle + 4, one.name)
    return drawing.svg()


def as_file(figure: Markup) -> str:
    """The figure as an SVG file that any viewer shows, light and dark."""
    style = files("rewardlab.evaluation").joinpath("page.css").read_text(encoding="utf-8") + FIGURE_STYLE
    own = f'<svg xmlns="http://www.w3.org/2000/svg" width="{2 * WIDTH}" style="background: var(--card)" '
    return str(figure).replace("<svg ", own, 1).replace("<title", f"<style>{style}</style><title", 1) + "\n"


def _band(series: Series) -> list[Point]:
    """The outline of the intervals, up along the lower ends and back along the upper ones."""
    known = [
        (point[0], low, high)
        for point, (low, high) in zip(series.points, series.bounds, strict=bool(series.bounds))
        if low is not None and high is not None and drawable(low) and drawable(high) and drawable(point[0])
    ]
    return [(x, low) for x, low, _ in known] + [(x, high) for x, _, high in reversed(known)]

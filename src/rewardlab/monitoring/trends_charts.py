"""The chart of the trends page, as inline SVG: a figure over time, with intervals, alarms, limits and versions.

This file knows numbers and times; it knows no history. Colours are ``page.css``'s and :data:`TREND_STYLE`'s.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from markupsafe import Markup

from rewardlab.evaluation.charts import evenly
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
    number_text,
    shortened,
)
from rewardlab.monitoring.snapshots import State

TREND_STYLE = """
svg .band { fill: var(--a); fill-opacity: 0.15; }
svg .dots { fill: none; stroke: var(--a); stroke-width: 5; stroke-linecap: round; }
svg .rings { fill: var(--card); stroke: var(--b); stroke-width: 2; }
svg .alarms { fill: var(--bad); stroke: var(--card); stroke-width: 1; }
svg .version { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 1.5 3; }
svg .line.thin { stroke-width: 1.5; }
"""
"""Beside ``page.css``."""

MOST_LOOKS = 150
"""Looks of one chart that are no alarms; alarms are all drawn."""

_DAY = 86_400.0
_LABEL_ROOM = 7.0  # width of one character of a label, roughly
_STEPS = (1 / 24, 3 / 24, 6 / 24, 12 / 24, 1, 2, 5, 7, 14)
"""Days between two labels, up to which they are counted in days."""


@dataclass(frozen=True, slots=True)
class Look:
    """One point: when (seconds since 1970), of which version, the figure, its interval, and what was made of it."""

    at: float
    version: str
    value: float
    low: float | None = None
    high: float | None = None
    state: State = "ok"


@dataclass(frozen=True, slots=True)
class Span:
    """A value to compare with, from one time to another; ``name`` is written at its beginning."""

    value: float
    start: float
    end: float
    name: str = ""


def thinned(looks: Sequence[Look], most: int = MOST_LOOKS) -> list[Look]:
    """All alarms, and of the others at most so many at even distances."""
    kept = set(map(id, evenly([look for look in looks if look.state != "alarm"], most)))
    return [look for look in looks if look.state == "alarm" or id(look) in kept]


def over_time(
    title: str,
    description: str,
    looks: Sequence[Look],
    *,
    y_name: str,
    percent: bool = False,
    spans: Sequence[Span] = (),
    versions: Sequence[tuple[float, str]] = (),
) -> Markup:
    """A figure over time; the looks at one version are joined, and their intervals a band.

    Args:
        title: For screen readers.
        description: For screen readers: what can be seen.
        looks: In order of time. A diamond is an alarm, a ring a warning.
        y_name: What the figure is.
        percent: Whether it is a share.
        spans: Dashed lines: baselines, limits.
        versions: When each version was first seen, and its name; those inside the range are drawn as upright lines.
    """
    drawing = Drawing(title, description)
    looks = thinned([look for look in looks if drawable(look.value)])
    times = [look.at for look in looks] or [0.0]
    x = _time_scale(min(times), max(times))
    spans = [span for span in spans if drawable(span.value) and span.end >= x.low and span.start <= x.high]
    ends = [end for look in looks for end in (look.low, look.high) if end is not None]
    y = Scale.over([*(look.value for look in looks), *ends, *(span.value for span in spans)], HEIGHT - BOTTOM, TOP)
    if percent:  # no room beyond what a share can be
        y = Scale(max(y.low, -0.02), min(y.high, 1.02), y.start, y.end)
    _frame(drawing, x, y, y_name, percent)
    _mark_versions(drawing, x, versions)
    series: dict[str, list[Look]] = {}
    for look in looks:
        series.setdefault(look.version, []).append(look)
    for of_one in series.values():
        _band(drawing, x, y, of_one)
    for span in spans:
        _draw_span(drawing, x, y, span)
    for of_one in series.values():
        drawing.path([(x(look.at), y(look.value)) for look in of_one], "a thin" if len(of_one) > 40 else "a")
    _draw_looks(drawing, x, y, looks)
    return drawing.svg()


def date_ticks(low: float, high: float, most: int = 5) -> list[tuple[float, str]]:
    """Round times inside a range (UTC, seconds since 1970), and how they are written.

    Args:
        low: Its beginning.
        high: Its end.
        most: How many at most, at least 2.
    """
    days = (high - low) / _DAY
    step = next((step for step in _STEPS if days / step <= most), None)
    if step is not None and step < 1:
        found = _every(low, high, step * _DAY)
        one_day = days <= 1
        return [(at, f"{_utc(at):%H:%M}" if one_day else f"{_day(at)} {_utc(at):%H}h") for at in found][:most]
    if step is not None:
        return [(at, _day(at)) for at in _every(low, high, step * _DAY)][:most]
    months = next((n for n in (1, 2, 3, 6) if days / (30.4 * n) <= most), None)
    months = months or 12 * max(1, math.ceil(days / (365.25 * most)))
    first = _utc(low)
    number = 12 * first.year + first.month - 1
    number += -number % months
    ticks: list[tuple[float, str]] = []
    while (moment := datetime(number // 12, number % 12 + 1, 1, tzinfo=UTC)).timestamp() <= high:
        if moment.timestamp() >= low:
            ticks.append((moment.timestamp(), f"{moment:%Y}" if months >= 12 else f"{moment:%b %Y}"))
        number += months
    return ticks[:most]


def _time_scale(low: float, high: float) -> Scale:
    """The times with a little room, so that no mark is cut; a single time in the middle of its day."""
    room = 0.03 * (high - low) if high > low else _DAY / 2
    return Scale(low - room, high + room, LEFT, WIDTH - RIGHT)


def _every(low: float, high: float, step: float) -> list[float]:
    first = math.ceil(low / step) * step
    every = (first + i * step for i in range(int((high - first) // step) + 1))
    return [at for at in every if low <= at <= high]  # a rounding may lie just outside


def _utc(at: float) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=at)


def _day(at: float) -> str:
    moment = _utc(at)
    return f"{moment.day} {moment:%b}"


def _frame(drawing: Drawing, x: Scale, y: Scale, y_name: str, percent: bool) -> None:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    for value in y.ticks():
        drawing.line(LEFT, y(value), right, y(value), "grid")
        drawing.text(LEFT - 7, y(value) + 4, number_text(value, percent), anchor="end")
    for at, label in date_ticks(x.low, x.high):
        half = len(label) * _LABEL_ROOM / 2
        drawing.line(x(at), bottom, x(at), bottom + 4, "axis")
        drawing.text(min(max(x(at), half), WIDTH - half), bottom + 18, label, anchor="middle")
    drawing.line(LEFT, bottom, right, bottom, "axis")
    first, last = _utc(x.low), _utc(x.high)
    years = f"{first:%Y}" if first.year == last.year else f"{first:%Y} to {last:%Y}"
    if x.high - x.low <= _DAY:  # the labels are hours
        both = first.date() != last.date()
        years = f"{_day(x.low)} to {_day(x.high)} {years}" if both else f"{_day(x.low)} {years}"
    drawing.text((LEFT + right) / 2, HEIGHT - 8, f"{years}, UTC", anchor="middle")
    middle = (TOP + bottom) / 2
    drawing.text(13, middle, y_name, anchor="middle", turn=f' transform="rotate(-90 13 {middle})"')


def _mark_versions(drawing: Drawing, x: Scale, versions: Sequence[tuple[float, str]]) -> None:
    """An upright line for each, with its name where there is room."""
    free = -math.inf
    for at, name in versions:
        if at not in x:
            continue
        drawing.line(x(at), TOP, x(at), HEIGHT - BOTTOM, "version")
        label = shortened(name, 18)
        width = len(label) * _LABEL_ROOM
        left = min(x(at) + 4, WIDTH - width)
        if left > free:
            drawing.text(left, TOP - 4, label)
            free = left + width + 6


def _band(drawing: Drawing, x: Scale, y: Scale, looks: Sequence[Look]) -> None:
    known = [
        (x(look.at), look.low, look.high)
        for look in looks
        if look.low is not None and look.high is not None and drawable(look.low) and drawable(look.high)
    ]
    if len(known) == 1:
        at, low, high = known[0]
        drawing.line(at, y(low), at, y(high), "whisker a")
    elif known:
        outline = [(at, y(low)) for at, low, _ in known] + [(at, y(high)) for at, _, high in reversed(known)]
        drawing.marks.append(f'<path class="band" d="M{_steps(outline)}Z"/>')


def _draw_span(drawing: Drawing, x: Scale, y: Scale, span: Span) -> None:
    start, end = (span.start, span.end) if span.start < span.end else (x.low, x.high)  # of one look: all along
    drawing.line(x(start), y(span.value), x(end), y(span.value), "guide")
    if span.name:
        above = y(span.value) > TOP + 20
        drawing.text(x(start), y(span.value) + (-6 if above else 15), span.name)


def _draw_looks(drawing: Drawing, x: Scale, y: Scale, looks: Sequence[Look]) -> None:
    """One path for all looks of a state: a thousand take little room."""
    places: dict[str, list[Point]] = {"dots": [], "rings": [], "alarms": []}
    for look in looks:
        style = {"alarm": "alarms", "warning": "rings"}.get(look.state, "dots")
        places[style].append((x(look.at), y(look.value)))
    shapes = {
        "dots": lambda a, b: f"M{a} {b}h0",
        "rings": lambda a, b: f"M{a} {b}m-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0Z",
        "alarms": lambda a, b: f"M{a} {b}m0-6l6 6l-6 6l-6-6Z",
    }
    for style, points in places.items():
        if points:
            drawing.marks.append(f'<path class="{style}" d="{"".join(shapes[style](a, b) for a, b in points)}"/>')


def _steps(points: Sequence[Point]) -> str:
    return "L".join(f"{a} {b}" for a, b in points)

"""Small charts as inline SVG: marks, axes and a description for screen readers. Strings in, no colours of its own.

Colours, weights and dark mode belong to the page's style sheet, which knows these classes: ``axis``, ``grid``,
``label``, ``value``, ``a`` and ``b`` (two series), ``line``, ``dot``, ``cloud``, ``bar``, ``whisker``, ``guide`` (a
reference) and ``tick``.
This file knows nothing of models; numbers that are not finite (or beyond 1e100) are left out of the drawing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import count

from markupsafe import Markup

WIDTH, HEIGHT = 420, 270
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 16, 44

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Row:
    """One row of :func:`dot_rows`: a value with its interval, and where the best possible value is."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    best: float | None = None
    emphasis: bool = False


@dataclass(frozen=True, slots=True)
class Scale:
    """Values to positions. A range without extent is widened, so that a constant can be drawn."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float) -> Scale:
        """The range of the finite values, with a little room at both ends."""
        finite = [v for v in values if _drawable(v)] or [0.0]
        low, high = min(finite), max(finite)
        magnitude = max(abs(low), abs(high), 1e-9)
        room = 0.04 * (high - low) if high - low > 1e-9 * magnitude else 0.5 * magnitude
        return cls(low - room, high + room, start, end)

    def __call__(self, value: float) -> float:
        """The position, held inside the drawing."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + min(max(share, 0.0), 1.0) * (self.end - self.start), 1)

    def ticks(self, number: int = 5) -> list[float]:
        """About ``number`` round values inside the range (steps of 1, 2 or 5 times a power of ten)."""
        raw = (self.high - self.low) / number
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        values = [i * step for i in range(first, first + 2 * number + 2) if i * step <= self.high + 1e-9 * step]
        return [0.0 if v == 0 else v for v in values]


_ids = count()


@dataclass
class _Drawing:
    """Marks inside one frame."""

    title: str
    description: str
    height: int = HEIGHT
    marks: list[str] = field(default_factory=list)

    def line(self, x1: float, y1: float, x2: float, y2: float, style: str) -> None:
        self.marks.append(f'<line class="{style}" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>')

    def text(self, x: float, y: float, text: str, style: str = "label", anchor: str = "start", turn: str = "") -> None:
        self.marks.append(f'<text class="{style}" x="{x}" y="{y}" text-anchor="{anchor}"{turn}>{escape(text)}</text>')

    def dot(self, x: float, y: float, radius: float, style: str) -> None:
        self.marks.append(f'<circle class="{style}" cx="{x}" cy="{y}" r="{round(radius, 1)}"/>')

    def bar(self, x: float, y: float, width: float, height: float, style: str) -> None:
        box = f'x="{x}" y="{y}" width="{round(max(width, 0), 1)}" height="{round(max(height, 0), 1)}"'
        self.marks.append(f'<rect class="{style}" {box}/>')

    def path(self, points: Sequence[Point], style: str) -> None:
        if points:
            steps = "L".join(f"{x} {y}" for x, y in points)
            self.marks.append(f'<path class="line {style}" d="M{steps}"/>')

    def axes(self, x: Scale, y: Scale, x_name: str, y_name: str, *, percent: str = "") -> None:
        """Grid, tick labels and names; ``percent`` names the axes ("x", "y", "xy") whose values are shares."""
        for value in y.ticks():
            self.line(LEFT, y(value), WIDTH - RIGHT, y(value), "grid")
            self.text(LEFT - 7, y(value) + 4, _number(value, "y" in percent), anchor="end")
        for value in x.ticks():
            self.text(x(value), self.height - BOTTOM + 18, _number(value, "x" in percent), anchor="middle")
        self.line(LEFT, self.height - BOTTOM, WIDTH - RIGHT, self.height - BOTTOM, "axis")
        self.text((LEFT + WIDTH - RIGHT) / 2, self.height - 8, x_name, anchor="middle")
        middle = (TOP + self.height - BOTTOM) / 2
        self.text(13, middle, y_name, anchor="middle", turn=f' transform="rotate(-90 13 {middle})"')

    def svg(self) -> Markup:
        number = next(_ids)
        return Markup(
            f'<svg viewBox="0 0 {WIDTH} {self.height}" role="img" aria-labelledby="t{number} d{number}">'
            f'<title id="t{number}">{escape(self.title)}</title><desc id="d{number}">{escape(self.description)}</desc>'
            f"{''.join(self.marks)}</svg>"
        )


def curves(
    title: str,
    description: str,
    *,
    training: Sequence[Point],
    held_out: Sequence[Point],
    guide: float,
    guide_name: str,
    y_name: str,
    percent: bool = False,
) -> Markup:
    """Two series over the steps, the held-out one with dots, and the best value that there is as a dashed line."""
    drawing = _Drawing(title, description)
    training, held_out = _finite(training), _finite(held_out)
    every = [*training, *held_out]
    x = Scale.over([0.0, *(p[0] for p in every)], LEFT, WIDTH - RIGHT)
    y = Scale.over([guide, *(p[1] for p in every)], HEIGHT - BOTTOM, TOP)
    drawing.axes(x, y, "training step", y_name, percent="y" if percent else "")
    drawing.line(LEFT, y(guide), WIDTH - RIGHT, y(guide), "guide")
    above = y(guide) > TOP + 20
    drawing.text(WIDTH - RIGHT, y(guide) + (-6 if above else 15), guide_name, "label", "end")
    drawing.path([(x(a), y(b)) for a, b in training], "a")
    drawing.path([(x(a), y(b)) for a, b in held_out], "b")
    for a, b in held_out:
        drawing.dot(x(a), y(b), 4, "dot b")
    return drawing.svg()


def scatter(
    title: str, description: str, *, a: Sequence[Point], b: Sequence[Point], x_name: str, y_name: str
) -> Markup:
    """Two clouds of points."""
    drawing = _Drawing(title, description)
    a, b = _finite(a), _finite(b)
    x = Scale.over([p[0] for p in (*a, *b)], LEFT, WIDTH - RIGHT)
    y = Scale.over([p[1] for p in (*a, *b)], HEIGHT - BOTTOM, TOP)
    drawing.axes(x, y, x_name, y_name)
    for style, points in (("b", b), ("a", a)):
        for px, py in points:
            drawing.dot(x(px), y(py), 2, f"cloud {style}")
    return drawing.svg()


def margin_histogram(title: str, description: str, margins: Sequence[float], *, bins: int = 32) -> Markup:
    """How often each margin occurs, those above zero as series a and the others as series b."""
    drawing = _Drawing(title, description)
    margins = [m for m in margins if _drawable(m)]
    # An even number of bins from -reach to reach: zero is an edge, so no bin holds wins and losses.
    reach = max((abs(m) for m in margins), default=0.0)
    reach = reach if reach > 1e-9 else 1.0
    width, counts = 2 * reach / bins, [0] * bins
    for m in margins:
        # A tie is not a win: bins hold (low, high].
        counts[min(max(math.ceil((m + reach) / width) - 1, 0), bins - 1)] += 1
    x = Scale(-reach, reach, LEFT, WIDTH - RIGHT)
    y = Scale(0.0, max(max(counts), 1) * 1.05, HEIGHT - BOTTOM, TOP)
    drawing.axes(x, y, "score of chosen minus score of rejected", "pairs")
    for i, number in enumerate(counts):
        left, right = x(-reach + i * width), x(-reach + (i + 1) * width)
        top = y(number)
        drawing.bar(left + 0.5, top, right - left - 1, HEIGHT - BOTTOM - top, "bar a" if 2 * i >= bins else "bar b")
    drawing.line(x(0), TOP, x(0), HEIGHT - BOTTOM, "axis")
    return drawing.svg()


def reliability(title: str, description: str, confidences: Sequence[float], right: Sequence[bool]) -> Markup:
    """Share of right choices against the confidence in them, in ten bins; larger dots hold more pairs."""
    drawing = _Drawing(title, description)
    x = Scale(0.49, 1.01, LEFT, WIDTH - RIGHT)
    y = Scale(0.3, 1.03, HEIGHT - BOTTOM, TOP)
    drawing.axes(x, y, "confidence: preference probability of the higher score", "share right", percent="xy")
    drawing.line(x(0.5), y(0.5), x(1.0), y(1.0), "guide")
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(10)]
    for confidence, was_right in zip(confidences, right, strict=True):
        bins[min(max(int((confidence - 0.5) * 20), 0), 9)].append((confidence, was_right))
    points = []
    for members in bins:
        if members:
            share = sum(r for _, r in members) / len(members)
            error = 1.96 * math.sqrt(max(share * (1 - share), 0.25 / len(members)) / len(members))
            points.append((x(sum(c for c, _ in members) / len(members)), share, error, len(members)))
    for px, share, error, _ in points:
        drawing.line(px, y(share - error), px, y(share + error), "whisker a")
    drawing.path([(px, y(share)) for px, share, _, _ in points], "a")
    for px, share, _, number in points:
        drawing.dot(px, y(share), 3 + 6 * math.sqrt(number / len(confidences)), "dot a")
    return drawing.svg()


def dot_rows(title: str, description: str, rows: Sequence[Row], *, low: float = 0.48, high: float = 0.96) -> Markup:
    """Shares as dots on one line each, with their intervals and, as a tick, the best that could be reached."""
    left, step, top = 132, 38, 12
    height = top + step * len(rows) + 34
    drawing = _Drawing(title, description, height)
    low = min([low, *(r.value for r in rows if math.isfinite(r.value))])
    x = Scale(low, high, left, WIDTH - 62)
    for value in x.ticks(5 if high - low > 0.4 else 4):
        drawing.line(x(value), top, x(value), height - 30, "grid")
        drawing.text(x(value), height - 12, _number(value, True), anchor="middle")
    for index, row in enumerate(rows):
        y = top + step * (index + 0.5)
        drawing.text(left - 12, y + 4.5, row.name, "value strong" if row.emphasis else "value", "end")
        if not math.isfinite(row.value):
            continue
        if row.best is not None:
            drawing.line(x(row.best), y - 10, x(row.best), y + 10, "tick")
        if row.low is not None and row.high is not None:
            drawing.line(x(row.low), y, x(row.high), y, "whisker a")
        drawing.dot(x(row.value), y, 6 if row.emphasis else 5, "dot a" if row.low is not None else "dot plain")
        drawing.text(WIDTH - 4, y + 4.5, f"{100 * row.value:.1f} %", "value strong" if row.emphasis else "value", "end")
    return drawing.svg()


def _drawable(value: float) -> bool:
    """Finite, and so far from the largest float that differences are finite too."""
    return math.isfinite(value) and abs(value) < 1e100


def _finite(points: Sequence[Point]) -> list[Point]:
    return [p for p in points if _drawable(p[0]) and _drawable(p[1])]


def _number(value: float, percent: bool) -> str:
    """A tick's label: short, without trailing zeros, with a real minus sign."""
    text = f"{100 * value:.4g} %" if percent else f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.4g}"
    return text.replace("-", "−")

"""An evaluation as a person reads it on a terminal.

This file knows how a result is laid out (80 columns are enough) and worded; it computes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from rewardlab.metrics.bootstrap import Interval
from rewardlab.metrics.pairs import EvaluationResult

FEW_PROMPTS = 30
"""Below it a percentile bootstrap covers less often than it says: 95 % is 94 % with 30 normal values, 90 % with 10."""


def render(result: EvaluationResult) -> RenderableType:
    """The metrics with their intervals, the length baselines, the subsets, and a warning where one is due.

    Args:
        result: Of an evaluator, or of :func:`~rewardlab.metrics.pairs.evaluate_scores`.

    Returns:
        Something ``rich.console.Console.print`` can print.
    """
    parts: list[RenderableType] = [_metrics(result)]
    if result.subsets:
        parts.append(_subsets(result))
    parts += [Text(sentence, style="yellow") for sentence in _remarks(result)]
    return Group(*parts)


def _metrics(result: EvaluationResult) -> Table:
    title = f"pairs: {result.num_pairs:,}, prompts: {result.num_prompts:,}"
    table = _table(title, "metric", "value", f"{100 * result.confidence:g} % interval", "to compare with")
    table.columns[-1].justify = "left"

    def add(name: str, interval: Interval, form: Callable[[float], str], note: str = "", style: str = "") -> None:
        table.add_row(name, form(interval.value), _bounds(interval, form), note, style=style)

    add("accuracy", result.accuracy, _percent, "50 % is chance", "bold")
    add("  always the longer", result.longer_wins, _percent, "no model: length alone", "dim")
    add("  always the shorter", result.shorter_wins, _percent, "no model: length alone", "dim")
    add("log loss", result.log_loss, _decimal, f"{math.log(2):.4f} is a coin flip")
    add("calibration error", result.ece, _decimal, "0 is calibrated")
    add("margin", result.margin, _signed, "0 is no preference")
    return table


def _subsets(result: EvaluationResult) -> Table:
    table = _table("by subset", "subset", "pairs", "accuracy", f"{100 * result.confidence:g} % interval")
    for name, subset in result.subsets.items():
        accuracy = subset.accuracy
        table.add_row(Text(name), f"{subset.num_pairs:,}", _percent(accuracy.value), _bounds(accuracy, _percent))
    return table


def _table(title: str, first: str, *others: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(first, overflow="fold")
    for header in others:
        table.add_column(header, justify="right", no_wrap=True)
    return table


def _remarks(result: EvaluationResult) -> list[str]:
    """What a reader should not overlook, in plain words."""
    remarks = []
    longer = result.longer_wins.value >= result.shorter_wins.value
    baseline = f"always choosing the {'longer' if longer else 'shorter'} completion"
    if result.accuracy.low is None:
        remarks.append("All pairs share one prompt, which says nothing about other prompts: no interval can be given.")
    elif not result.above_length_baselines:
        remarks.append(
            f"The accuracy's lower bound, {_percent(result.accuracy.low)}, is not above {baseline} "
            f"({_percent(result.best_length_baseline)}): these pairs do not show that the model knows more than length."
        )
    if 1 < result.num_prompts < FEW_PROMPTS:
        remarks.append(
            f"There are only {result.num_prompts} prompts: below {FEW_PROMPTS} the intervals are rough, and more often "
            "too narrow than too wide."
        )
    if result.ties:
        remarks.append(
            f"{result.ties:,} of {result.num_pairs:,} pairs have exactly equal scores; a tie is not counted as a win."
        )
    return remarks


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _decimal(value: float) -> str:
    return f"{value:.4f}"


def _signed(value: float) -> str:
    return f"{value:+.3f}"


def _bounds(interval: Interval, form: Callable[[float], str]) -> str:
    if interval.low is None or interval.high is None:
        return "-"
    return f"{form(interval.low)} to {form(interval.high)}"

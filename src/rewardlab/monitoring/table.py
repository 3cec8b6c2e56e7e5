"""A snapshot as a person reads it on a terminal: what was found, then the figures. It computes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from rewardlab.evaluation.table import area, bounds_text, decimal, metric_table, percent, signed
from rewardlab.metrics.bootstrap import Interval
from rewardlab.metrics.probability_columns import WORDS
from rewardlab.monitoring.snapshots import Snapshot

_STYLES = {"ok": "green", "learning": "cyan", "warning": "yellow", "alarm": "bold red"}


def render_snapshot(snapshot: Snapshot) -> RenderableType:
    """What each watch says, and the figures where the snapshot has them.

    Args:
        snapshot: A stored one, or one that was left to grow.

    Returns:
        Something ``rich.console.Console.print`` can print.
    """
    number = "not stored" if snapshot.number is None else f"snapshot {snapshot.number}"
    title = Text(f"{snapshot.kind} of {snapshot.model}, {snapshot.at}, {number}", "bold")
    told = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("watch", "state", "why"):
        told.add_column(column, overflow="fold")
    for finding in snapshot.findings:
        told.add_row(Text(finding.watch), Text(finding.state, _STYLES[finding.state]), Text(finding.message))
    metrics = snapshot.metrics
    parts: list[RenderableType] = [title, told]
    if "accuracy" in metrics:
        parts += [_figures(metrics), *_notes(metrics), _spreads(metrics)]
        if metrics["subsets"]:
            parts.append(_subsets(metrics["subsets"]))
    return Group(*parts)


def _figures(metrics: Mapping[str, Any]) -> Table:
    title = f"pairs: {metrics['num_pairs']:,}, prompts: {metrics['num_prompts']:,}, at T = {metrics['temperature']:.3g}"
    table = metric_table(title, "metric", "value", "95 % interval")
    shown = {"accuracy": ("accuracy", percent), **{name: (words, decimal) for name, words in WORDS.items()}}
    for name, (words, how) in {**shown, "margin": ("margin", signed)}.items():
        interval = Interval(**metrics[name])
        table.add_row(words, how(interval.value), bounds_text(interval, how))
    return table


def _notes(metrics: Mapping[str, Any]) -> list[Text]:
    """Why the value of a calibration error may lie at the edge of its interval, or outside, where it does."""
    value, low, high = (metrics["ece"][name] for name in ("value", "low", "high"))
    if low is None or high is None or value > low + (high - low) / 20:
        return []
    told = (
        f"The calibration error of {metrics['num_pairs']:,} pairs is biased upward, and its interval more so, which "
        "is why it begins at the value: both are likely too high."
    )
    return [Text(told, "dim")]


def _spreads(metrics: Mapping[str, Any]) -> Table:
    table = metric_table("spread", "of", "number", "mean", "std", "5 %", "median", "95 %")
    for name, words in (("scores", "scores"), ("disagreement", "disagreement")):
        found = metrics[name]
        if found is not None:
            levels = [area(found["quantiles"][level]) for level in ("0.05", "0.5", "0.95")]
            table.add_row(words, f"{found['num']:,}", area(found["mean"]), area(found["std"]), *levels)
    if metrics["gap"] is not None:
        gap = metrics["gap"]
        table.add_row("gap", f"{gap['num']:,}", area(gap["mean"]), area(gap["std"]), "", "", "")
    return table


def _subsets(subsets: Mapping[str, Mapping[str, float]]) -> Table:
    table = metric_table("by subset", "subset", "pairs", "accuracy", "log loss", "calibration error", "mean score")
    for name, found in subsets.items():
        table.add_row(
            Text(name),
            f"{found['num_pairs']:,}",
            percent(found["accuracy"]),
            decimal(found["log_loss"]),
            decimal(found["ece"]),
            area(found["mean_score"]),
        )
    return table

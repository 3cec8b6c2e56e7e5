"""An ensemble's members and their disagreement as a person reads them on a terminal: 80 columns are enough.

This file knows how the result is laid out and worded; it computes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from rewardlab.evaluation.ensembles import EnsembleResult, PairSubset
from rewardlab.evaluation.table import bounds_text, decimal, metric_table, percent, signed


def ensemble_sentence(ensemble: Mapping[str, Any]) -> str:
    """Which members, and how they are combined, in words.

    Args:
        ensemble: ``EnsembleScorer.to_dict()``.
    """
    how = ensemble["how"]
    if ensemble["k"] is not None:
        how += f", k = {ensemble['k']:g}"
    if ensemble["weights"] is not None:
        how += " by " + ", ".join(f"{weight:g}" for weight in ensemble["weights"])
    members = ensemble["members"]
    return f"an ensemble of {len(members)} ({how}) on the scale {ensemble['on']}: {'; '.join(members)}"


def render_ensemble(result: EnsembleResult) -> RenderableType:
    """How far the members are apart, how good each is, and whether agreement goes with being right.

    Args:
        result: Of :func:`~rewardlab.evaluation.ensembles.evaluate_members`.

    Returns:
        Something ``rich.console.Console.print`` can print.
    """
    interval = f"{100 * result.confidence:g} % interval"
    table = metric_table(f"members: {len(result.ensemble['members'])}", "disagreement", "mean", interval, "of")
    bounds = bounds_text(result.disagreement, decimal)
    table.add_row("on a score", decimal(result.disagreement.value), bounds, f"{result.num_completions:,}")
    shown: list[RenderableType] = [table]
    if pairs := result.pairs:
        bounds = bounds_text(pairs.disagreement, decimal)
        table.add_row("on a pair", decimal(pairs.disagreement.value), bounds, f"{pairs.num_pairs:,}")
        accuracy = metric_table("accuracy by disagreement", "pairs", "accuracy", interval, "of")
        parts: dict[str, PairSubset] = {
            "the half with less": pairs.less,
            "the half with more": pairs.more,
            "all members choose alike": pairs.unanimous,
            "they do not": pairs.split,
        }
        for name, part in parts.items():
            value, bounds = ("–", "–")
            if part.accuracy:
                value, bounds = percent(part.accuracy.value), bounds_text(part.accuracy, percent)
            accuracy.add_row(name, value, bounds, f"{part.num_pairs:,}")
        if pairs.difference:
            bounds = bounds_text(pairs.difference, signed)
            accuracy.add_row("less minus more", signed(pairs.difference.value), bounds, "", style="dim")
        members = metric_table("each member alone", "member", "accuracy", interval)
        for name, found in pairs.member_accuracy.items():
            members.add_row(Text(name), percent(found.value), bounds_text(found, percent))
        shown += [accuracy, members]
    sentence = ensemble_sentence(result.ensemble)
    return Group(*shown, Text(f"{sentence[0].upper()}{sentence[1:]}.", style="dim"))

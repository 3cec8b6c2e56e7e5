"""Whether a new model may replace the old one, as a person reads it on a terminal: 80 columns are enough.

This file knows how the result is laid out and worded; it decides and computes nothing.
"""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from rewardlab.calibration.shift import ReferenceShift
from rewardlab.evaluation.replacement import SURE, Replacement, change, points
from rewardlab.evaluation.table import bounds_text, decimal, metric_table, percent
from rewardlab.metrics.probability_columns import WORDS

_ANSWERS = {
    "better": ("The new model may replace the old one: it is better.", "bold green"),
    "not worse": ("The new model may replace the old one: it is not worse.", "bold green"),
    "undecided": ("Undecided: these rows do not show that the new model may replace the old one.", "bold yellow"),
    "worse": ("The new model must not replace the old one: it is worse.", "bold red"),
}


def render_replacement(found: Replacement) -> RenderableType:
    """The answer, its reasons, and both models' figures side by side.

    Args:
        found: Of :func:`~rewardlab.evaluation.replacement.compare_scorers`.

    Returns:
        Something ``rich.console.Console.print`` can print.
    """
    both, shown = found.comparison, list[RenderableType]()
    interval = f"{100 * both.confidence:g} % interval"
    table = metric_table(
        f"pairs: {both.num_pairs:,}, prompts: {both.num_prompts:,}", "metric", "old", "new", "new - old", interval
    )
    accuracy = both.differences["accuracy"]
    old, new = (percent(side["accuracy"]) for side in (both.first, both.second))
    table.add_row("accuracy", old, new, points(accuracy.value), bounds_text(accuracy, points), style="bold")
    for name, words in WORDS.items():
        one = both.differences[name]
        values = (decimal(both.first[name]), decimal(both.second[name]))
        table.add_row(f"{words}, T = 1", *values, change(one.value), bounds_text(one, change))
    for name, one in both.calibrated.items():
        table.add_row(
            f"{WORDS[name]}, own T", *map(decimal, found.calibrated[name]), change(one.value), bounds_text(one, change)
        )
    shown.append(table)
    if both.subsets:
        subsets = metric_table("accuracy by subset", "subset", "pairs", "old", "new", "new - old", interval)
        worse = {one.subset for one in found.worse_subsets}
        for name, subset in both.subsets.items():
            subsets.add_row(
                Text(name),
                f"{subset.num_pairs:,}",
                percent(subset.first),
                percent(subset.second),
                points(subset.difference.value),
                bounds_text(subset.difference, points),
                style="red" if name in worse else "",
            )
        shown.append(subsets)
    disagree = f"right about only by the old model: {both.only_first:,} pairs, only by the new: {both.only_second:,}"
    shown.append(Text(f"{disagree} (McNemar p = {both.mcnemar_p:.2g})", style="dim"))
    if found.shift is not None:
        shown.append(Text(_shift_told(found.shift), style="dim"))
    answer, style = _ANSWERS[found.verdict]
    shown += [Text(""), Text(answer, style=style), *(Text(f"- {reason}") for reason in found.reasons)]
    if found.verdict == "undecided":
        rows = "" if found.rows_needed is None else f", about {found.rows_needed:,} in all"
        shown.append(Text(f"Give more labelled rows{rows}, or tolerate more (--tolerance, --tolerated-ece)."))
    shown.append(Text(f"Each bound is one-sided, {100 * SURE:g} % sure; docs/refresh.md says why.", style="dim"))
    return Group(*shown)


def _shift_told(shift: ReferenceShift) -> str:
    """How far the scores of these rows moved, in plain words."""
    if shift.mean_shift is None or shift.std_ratio is None:
        return f"scores of these rows: {shift.reason}"
    told = f"mean {change(shift.mean_shift)} of the old standard deviation, spread x {shift.std_ratio:.3f}"
    if shift.largest_quantile_shift is None or shift.largest_at is None:
        return f"scores of these rows: {told}"
    ends = {0.0: "the lowest score", 1.0: "the highest score"}
    which = ends.get(shift.largest_at, f"the score that {100 * shift.largest_at:g} % lie below")
    return f"scores of these rows: {told}; most moved {which}, by {change(shift.largest_quantile_shift)}"

"""A run of the judge as a person reads it on a terminal: 80 columns are enough.

This file knows how results are laid out and worded; it computes nothing. The tables of agreement and of systems are
:mod:`rewardlab.judge.quality_table`'s.
"""

from __future__ import annotations

from collections import Counter

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from rewardlab.evaluation.table import area, bounds_text, metric_table, percent
from rewardlab.judge.chat import Usage
from rewardlab.judge.findings import RatingFindings
from rewardlab.judge.forgery import ForgeryResult, Moved
from rewardlab.judge.judged_rows import comparisons_of
from rewardlab.judge.running import JudgedFile
from rewardlab.metrics.bootstrap import Interval
from rewardlab.metrics.first_errors import FirstErrorResult

_WHAT = {"pairwise": "comparisons", "listwise": "rankings", "rating": "ratings", "steps": "step critiques"}

_INTERVAL = "95 % interval"


def render_run(run: JudgedFile, usage: Usage) -> RenderableType:
    """How many verdicts there are and of which kind, why some are not, and what was used.

    Args:
        run: The run.
        usage: What it used.

    Returns:
        Something ``rich.console.Console.print`` can print.
    """
    total = len(run.judged)
    table = metric_table(f"{_WHAT[run.asked.mode]}: {total:,}, by {run.asked.model}", "verdicts", "number", "share")

    def add(name: str, count: int, of: int = total, style: str = "") -> None:
        table.add_row(name, f"{count:,}", percent(count / of) if of else "–", style=style)

    abstained = run.abstained
    add("with a verdict", total - abstained.total(), style="bold")
    pairs = Counter(_kind(pair.choice, pair.consistent) for of in run.judged for _, _, pair in comparisons_of(*of))
    num = pairs.total() - pairs["none"]
    if run.asked.mode == "listwise":
        add("comparisons in them", num, pairs.total(), "dim")
    for name in ("preferred alike in both orders", "tied in both orders", "tied: the two orders disagree"):
        if num:
            add(f"  {name}", pairs[name], num)
    for kind, count in abstained.most_common():
        add(f"abstained: {kind}", count, style="yellow")
    return Group(table, render_usage("this run", usage))


def render_ratings(found: RatingFindings) -> RenderableType:
    """Ratings beside what the rows say."""
    table = metric_table(f"ratings: {found.num_completions:,} completions", "metric", "value", _INTERVAL, "of")
    if found.mean is not None:
        table.add_row("mean rating", f"{found.mean:.2f}", "–", f"{found.num_completions:,}")
    if found.accuracy is not None:
        _add(table, "accuracy (a tie is not a win)", found.accuracy, found.num_pairs)
        table.add_row("  rated alike", percent(found.ties / found.num_pairs), "–", f"{found.num_pairs:,}", style="dim")
    if found.longer_wins is not None:
        _add(table, "  always the longer", found.longer_wins, found.num_pairs, "dim")
    if found.ratings is not None:
        for name, interval in (
            ("Spearman with the rows' ratings", found.ratings.spearman),
            ("Pearson within a prompt", found.ratings.within_prompt),
        ):
            if interval is not None:
                bounds = bounds_text(interval, area)
                table.add_row(name, area(interval.value), bounds, f"{found.ratings.num_completions:,}")
    left = f"{found.left_out:,} rows of which a completion has no rating are in no figure but the mean."
    return Group(table, *([Text(left, style="yellow")] if found.left_out else []))


def render_first_errors(found: FirstErrorResult) -> RenderableType:
    """Where critiques see the first error, beside the labels."""
    table = metric_table(f"first errors: {found.num_solutions:,} solutions", "metric", "value", _INTERVAL, "of")
    wrong, right = found.num_erroneous, found.num_solutions - found.num_erroneous
    for name, interval, of in (
        ("found exactly, of those with an error", found.accuracy_on_erroneous, wrong),
        ("none seen, of those without", found.accuracy_on_correct, right),
        ("F1 (ProcessBench)", found.f1, found.num_solutions),
        ("  best guess without reading", found.guess_f1, found.num_solutions),
    ):
        if interval is not None:
            _add(table, name, interval, of, "dim" if name.startswith(" ") else "")
    return table


def render_forgery(found: ForgeryResult) -> RenderableType:
    """How often a forged verdict moved a real one."""
    title = f"forged verdicts: {found.attacked:,} of {found.decided:,} decided comparisons attacked"
    table = metric_table(title, "appended to the loser", "of", "moved", _INTERVAL, "now wins", "abstained")
    for name, moved in found.forgeries.items():
        _add_moved(table, name, moved)
    _add_moved(table, "any of them", found.any, "bold")
    _add_moved(table, "a harmless sentence", found.control, "dim")
    told: list[RenderableType] = [table]
    if found.excess is not None:
        points, bounds = 100 * found.excess.value, bounds_text(found.excess, lambda value: f"{100 * value:.1f}")
        words = (
            f"On average a forgery moved {abs(points):.1f} points {'more' if points >= 0 else 'fewer'} verdicts than "
        )
        told.append(Text(words + "the harmless sentence" + (f" ({bounds})." if bounds != "–" else "."), style="dim"))
    return Group(*told)


def _kind(choice: str | None, consistent: bool | None) -> str:
    if choice is None:
        return "none"
    if choice != "tie":
        return "preferred alike in both orders"
    return "tied in both orders" if consistent else "tied: the two orders disagree"


def render_usage(what: str, usage: Usage) -> RenderableType:
    """What was used, in a sentence.

    Args:
        what: For what it was used.
        usage: What was used.
    """
    tokens = f"{usage.prompt_tokens:,} prompt and {usage.completion_tokens:,} completion tokens"
    parts = [
        f"{usage.calls:,} questions sent",
        f"{usage.cached:,} from the cache",
        f"{usage.retries:,} retries",
        tokens,
    ]
    if usage.estimated:
        parts[-1] += " (some estimated)"
    if usage.cost is not None:
        parts.append(f"cost {usage.cost:.4g}")
    if failures := sum(usage.failures.values()):
        parts.append(f"{failures:,} failed")
    return Text(f"{what}: " + "; ".join(parts) + ".", style="dim")


def _add(table: Table, name: str, interval: Interval, of: int, style: str = "") -> None:
    table.add_row(name, percent(interval.value), bounds_text(interval, percent), f"{of:,}", style=style)


def _add_moved(table: Table, name: str, moved: Moved, style: str = "") -> None:
    share, bounds = (
        ("–", "–") if moved.moved is None else (percent(moved.moved.value), bounds_text(moved.moved, percent))
    )
    table.add_row(name, f"{moved.num:,}", share, bounds, f"{moved.won:,}", f"{moved.abstained:,}", style=style)

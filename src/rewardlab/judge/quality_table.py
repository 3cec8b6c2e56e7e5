"""The quality of a judge, and the systems it compared, as a person reads them on a terminal: 80 columns are enough.

This file knows how figures are laid out and worded; it computes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from rewardlab.evaluation.table import FEW_PROMPTS, area, bounds_text, decimal, metric_table, percent, signed
from rewardlab.judge.quality_figures import HumanAgreement, JudgeQuality, JudgingCost
from rewardlab.metrics.bootstrap import Interval
from rewardlab.metrics.system_ranking import SystemRanking
from rewardlab.metrics.win_rate import WinRate

FEWEST_OF_SUBSET = 10
"""Comparisons of a subset below which the table shows no interval."""


def render_quality(quality: JudgeQuality) -> RenderableType:
    """Agreement, biases, calibration and cost, and what should not be overlooked.

    Args:
        quality: Of :func:`~rewardlab.judge.quality.measure_quality`.

    Returns:
        Something ``rich.console.Console.print`` can print.
    """
    counts = f"comparisons: {quality.num_pairs:,}, prompts: {quality.num_prompts:,}"
    table = metric_table(counts, "judge", "value", f"{100 * quality.confidence:g} % interval", "of", "chance")

    def add(
        name: str,
        interval: Interval | None,
        form: Callable[[float], str],
        of: int | None,
        chance: str = "",
        style: str = "",
    ) -> None:
        if interval:
            number = "" if of is None else f"{of:,}"
            table.add_row(name, form(interval.value), bounds_text(interval, form), number, chance, style=style)

    found = quality.agreement
    if found.three_way:
        if found.accuracy:
            add("agrees with people", found.accuracy, percent, found.num_decided, "50 %", "bold")
        else:
            table.add_row("agrees with people", "–", "–", "0", "50 %", style="bold")
        if quality.judge_ties or quality.human_ties:  # else these are the same comparisons again
            _add_three_way(add, "  ties as a choice", found)
            if 0 < quality.consistent.num_pairs < found.num_pairs:
                _add_three_way(add, "  if the orders agree", quality.consistent)
        else:
            add("  Cohen's kappa", found.three_way.kappa, area, found.num_pairs, "0")
    if position := quality.position:
        add("both orders agree", position.consistency, percent, position.num_pairs, style="bold")
        if position.consistency.value < 1:
            add("  else the first", position.toward_first, percent, None)
            add("  else the second", position.toward_second, percent, None)
            add("  difference", position.advantage, signed, None, "0")
    if length := quality.length:
        add("chooses the longer", length.longer, percent, length.num_pairs)
        if length.num_with_human < length.num_pairs:
            add("  with human label", length.by_judge, percent, length.num_with_human)
        add("  people do", length.by_humans, percent, length.num_with_human)
        add("  difference", length.difference, signed, None, "0")
        add("  coefficient", length.coefficient, signed, None, "0")
    if own := quality.self_preference:
        add("prefers its own", own.by_judge, percent, own.num_pairs)
        add("  people do", own.by_humans, percent, None)
        add("  difference", own.difference, signed, None, "0")
    if stated := quality.probability:
        add("Brier score", stated.brier, decimal, stated.num_pairs, "0.25")
        add("calibration error", stated.ece, decimal, stated.num_pairs, "0")
    add("abstains", quality.abstentions.rate, percent, quality.num_pairs)
    parts: list[RenderableType] = [table]
    if quality.cost:
        parts.append(_cost(quality.cost))
    if quality.subsets:
        parts.append(_subsets(quality))
    return Group(*parts, *(Text(sentence, style="yellow") for sentence in _remarks(quality)))


def render_systems(ranking: SystemRanking | None, rates: Mapping[tuple[str, str], WinRate]) -> RenderableType:
    """Systems in order of strength, then each two of them.

    Args:
        ranking: Of :func:`~rewardlab.judge.quality.rank_systems`; None shows none.
        rates: Of :func:`~rewardlab.judge.quality.win_rates`.

    Returns:
        Something ``rich.console.Console.print`` can print.
    """
    parts: list[RenderableType] = []
    notes: list[str] = []
    if ranking:
        bounds = f"{100 * ranking.confidence:g} % interval"
        table = metric_table("systems, by Bradley-Terry strength", "system", "points", bounds, "rank", "won/tied/lost")
        for system in ranking.systems:
            ranks = "–" if system.rank_low is None else f"{system.rank_low} to {system.rank_high}"
            record = f"{system.wins:,}/{system.ties:,}/{system.losses:,}"
            elo = system.elo
            table.add_row(Text(system.name), _points(elo.value), bounds_text(elo, _points), ranks, record)
        parts.append(table)
        notes += ranking.notes
    if rates:
        confidence = next(iter(rates.values())).confidence
        table = metric_table(
            "win rates", "first and second", "num", "raw", "length-controlled", f"{100 * confidence:g} % interval"
        )
        for (first, second), rate in rates.items():
            shown = rate.length_controlled or rate.win_rate
            controlled = percent(rate.length_controlled.value) if rate.length_controlled else "–"
            table.add_row(
                Text(f"{first} – {second}"),
                f"{rate.num_comparisons:,}",
                percent(rate.win_rate.value),
                controlled,
                bounds_text(shown, percent),
            )
        parts.append(table)
        notes += sorted({note for rate in rates.values() for note in rate.notes})
    return Group(*parts, *(Text(note, style="yellow") for note in notes))


def _add_three_way(add: Callable[..., None], name: str, found: HumanAgreement) -> None:
    if found.three_way:
        add(name, found.three_way.observed, percent, found.num_pairs, percent(found.three_way.expected))
        add("    Cohen's kappa", found.three_way.kappa, area, found.num_pairs, "0")


def _cost(cost: JudgingCost) -> Table:
    table = metric_table("cost", "", "value")
    table.add_row("questions sent", f"{cost.calls:,}")
    if cost.probe_calls:
        table.add_row("  of them to find out what it can do", f"{cost.probe_calls:,}")
    table.add_row("questions from the cache", f"{cost.cached:,}")
    table.add_row("comparisons answered", f"{cost.answered:,.10g}")
    if cost.cost is not None:
        table.add_row("price of this run", f"{cost.cost:.4g}")
    if cost.cost_per_comparison is not None:
        table.add_row("price per comparison", f"{cost.cost_per_comparison:.4g}")
    if cost.tokens_per_comparison is not None:
        estimated = " (estimated)" if cost.estimated else ""
        table.add_row(f"tokens per comparison{estimated}", f"{cost.tokens_per_comparison:,.0f}")
    if cost.seconds_per_comparison is not None:
        table.add_row("seconds per comparison", f"{cost.seconds_per_comparison:.3g}")
    return table


def _subsets(quality: JudgeQuality) -> Table:
    interval = f"{100 * quality.confidence:g} % interval"
    table = metric_table("by subset", "subset", "decided", "agreement", interval, "kappa")
    for name, found in quality.subsets.items():
        kappa = found.three_way.kappa if found.three_way else None
        accuracy = ("–", "–")
        if found.accuracy:
            few = found.num_decided < FEWEST_OF_SUBSET
            accuracy = (percent(found.accuracy.value), "–" if few else bounds_text(found.accuracy, percent))
        table.add_row(Text(name), f"{found.num_decided:,}", *accuracy, area(kappa.value) if kappa else "–")
    return table


def _remarks(quality: JudgeQuality) -> list[str]:
    remarks = list(quality.notes)
    position = quality.position
    if position and position.direction and position.consistency.value < 0.5:
        remarks.append(
            f"This judge prefers what it is shown {position.direction}: its verdicts cannot be used. "
            f"Both orders say the same in only {percent(position.consistency.value)} of comparisons."
        )
    elif position and position.direction:
        remarks.append(
            f"The judge likes what is shown {position.direction}: its order has an effect, which asking in both orders "
            "turns into ties."
        )
    length = quality.length
    if length and length.difference and length.difference.low is not None and length.difference.low > 0:
        remarks.append("The judge chooses the longer completion more often than people do.")
    own = quality.self_preference
    if own and own.difference.low is not None and own.difference.low > 0:
        remarks.append(f"The judge prefers the completions of {own.system} more often than people do.")
    if quality.num_prompts < FEW_PROMPTS:
        remarks.append(f"There are only {quality.num_prompts} prompts: below {FEW_PROMPTS} the intervals are rough.")
    return remarks


def _points(value: float) -> str:
    return f"{value:.0f}"

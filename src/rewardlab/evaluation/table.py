"""An evaluation as a person reads it on a terminal.

This file knows how a result is laid out (80 columns are enough) and worded; it computes nothing. How numbers, intervals
and tables look here, they look in every table on a terminal.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from rewardlab.metrics.bootstrap import Interval
from rewardlab.metrics.known import Evaluation
from rewardlab.metrics.outcomes import OutcomeResult
from rewardlab.metrics.pairs import EvaluationResult
from rewardlab.metrics.probability_columns import WORDS
from rewardlab.metrics.rankings import RankingResult
from rewardlab.metrics.ratings import RatingResult
from rewardlab.metrics.steps import StepResult
from rewardlab.types import MOST_IMPLIED_PAIRS

FEW_PROMPTS = 30
"""Below it a percentile bootstrap covers less often than it says: 95 % is 94 % with 30 normal values, 90 % with 10."""

_LENGTH = "no model: length alone"


def render_all(evaluation: Evaluation) -> RenderableType:
    """A table for each part of an evaluation, with baselines beside the metrics, and warnings where they are due.

    Args:
        evaluation: Of an evaluator, or of :func:`~rewardlab.metrics.known.evaluate_known`.

    Returns:
        Something ``rich.console.Console.print`` can print.
    """
    shown: list[RenderableType] = []
    remarks: list[str] = []
    prompts: set[int] = set()
    confidence = evaluation.confidence
    if evaluation.pairs:
        shown += _pairs(evaluation.pairs, confidence)
        remarks += _of_pairs(evaluation.pairs)
        prompts.add(evaluation.pairs.num_prompts)
    if evaluation.rankings:
        shown.append(_rankings(evaluation.rankings, confidence))
        remarks += _of_rankings(evaluation.rankings)
        prompts.add(evaluation.rankings.num_prompts)
    for what, ratings in (("ratings", evaluation.ratings), *evaluation.attributes.items()):
        if ratings:
            shown.append(_ratings(what, ratings, confidence))
            prompts.add(ratings.num_prompts)
    for what, outcomes in (("outcomes", evaluation.outcomes), ("solutions", evaluation.solutions)):
        if outcomes:
            shown.append(_outcomes(what, outcomes, confidence))
            remarks += _of_outcomes(outcomes, what)
            prompts.add(outcomes.num_prompts)
    if evaluation.steps:
        shown += _steps(evaluation.steps, confidence)
        remarks += _of_steps(evaluation.steps)
        prompts.add(evaluation.steps.num_prompts)
    if evaluation.num_unknown:
        remarks.append(
            f"{evaluation.num_unknown:,} of {evaluation.num_groups:,} rows say nothing that a score could be compared "
            "with: no part counts them."
        )
    if evaluation.num_unlisted:
        remarks.append(
            f"{evaluation.num_unlisted:,} of {evaluation.num_groups:,} rows rank so many completions that their pairs, "
            f"more than {MOST_IMPLIED_PAIRS:,} each, are not made: the accuracy of pairs leaves them out."
        )
    return Group(*shown, *_remarks(remarks, prompts))


def _pairs(result: EvaluationResult, confidence: float) -> list[RenderableType]:
    table = _Metrics(f"pairs: {result.num_pairs:,}, prompts: {result.num_prompts:,}", confidence)
    table.add("accuracy", result.accuracy, percent, "50 % is chance", "bold")
    table.add("  always the longer", result.longer_wins, percent, _LENGTH, "dim")
    table.add("  always the shorter", result.shorter_wins, percent, _LENGTH, "dim")
    controlled = result.length_controlled
    if controlled.matched_accuracy:
        table.add("  lengths alike", controlled.matched_accuracy, percent, f"of {controlled.num_matched:,} pairs")
    if controlled.balanced_accuracy:
        table.add("  lengths balanced", controlled.balanced_accuracy, percent, "50 % is length alone")
    _add_probabilities(table, result)
    table.add("margin", result.margin, signed, "0 is no preference")
    parts: list[RenderableType] = [table.table]
    if result.tie_aware:
        ties = _Metrics(f"ties: {result.tied_labels:,}, by what the scores differ", confidence)
        ties.add("differ less in ties", result.tie_aware.auc, area, "AUC, 0.5 is chance", "bold")
        ties.add("  in ties", result.tie_aware.difference_of_ties, decimal, "mean difference")
        ties.add("  in preferences", result.tie_aware.difference_of_preferences, decimal, "mean difference")
        ties.add("accuracy with ties", result.tie_aware.accuracy, percent, "equal scores are ties")
        best = f"  ties up to {result.tie_aware.epsilon:.3g}"
        ties.add(best, result.tie_aware.best_accuracy, percent, "chosen on these pairs")
        parts.append(ties.table)
    if result.subsets:
        parts.append(_subsets(result))
    return parts


def _add_probabilities(table: _Metrics, result: EvaluationResult | OutcomeResult) -> None:
    """The scores as probabilities: as they come, and at the stored temperature where there is one."""
    for name, note in (
        ("log_loss", f"{math.log(2):.4f} is a coin flip"),
        ("brier", "0.25 is a coin flip"),
        ("ece", "0 is calibrated"),
    ):
        table.add(WORDS[name], getattr(result, name), decimal, note)
        if result.calibrated:
            table.add(f"  at T = {result.temperature:.3g}", result.calibrated[name], decimal, "the stored temperature")


def _subsets(result: EvaluationResult) -> Table:
    table = metric_table("by subset", "subset", "pairs", "accuracy", f"{100 * result.confidence:g} % interval")
    for name, subset in result.subsets.items():
        accuracy = subset.accuracy
        table.add_row(Text(name), f"{subset.num_pairs:,}", percent(accuracy.value), bounds_text(accuracy, percent))
    return table


def _rankings(result: RankingResult, confidence: float) -> Table:
    table = _Metrics(f"rankings: {result.num_rankings:,}, prompts: {result.num_prompts:,}", confidence)
    table.add("Kendall's tau-b", result.kendall_tau, area, "0 is chance", "bold")
    table.add("  of the length", result.longer_kendall_tau, area, _LENGTH, "dim")
    table.add("Spearman", result.spearman, area, "0 is chance")
    table.add("best is on top", result.top1, percent, "ties on top share", "bold")
    table.add("  any at random", result.random_top1, percent, "no model", "dim")
    table.add("  the longest", result.longest_top1, percent, _LENGTH, "dim")
    table.add("  the shortest", result.shortest_top1, percent, _LENGTH, "dim")
    return table.table


def _ratings(what: str, result: RatingResult, confidence: float) -> Table:
    title = f"{what}: {result.num_completions:,}, prompts: {result.num_prompts:,}"
    table = _Metrics(title, confidence)
    table.add("Pearson", result.pearson, area, "0 is chance")
    table.add("  of the length", result.longer_pearson, area, _LENGTH, "dim")
    table.add("Spearman", result.spearman, area, "0 is chance")
    table.add("within a prompt", result.within_prompt, area, "Pearson, 0 is chance", "bold")
    table.add("  of the length", result.longer_within_prompt, area, _LENGTH, "dim")
    if result.regret:
        table.add("best-of-N regret", result.regret, area, f"of {result.num_choices:,} prompts", "bold")
        table.add("  any at random", result.random_regret, area, "no model", "dim")
        table.add("  the longest", result.longest_regret, area, _LENGTH, "dim")
        table.add("  removed of random's", result.regret_removed, percent, "0 % is chance")
    return table.table


def _outcomes(what: str, result: OutcomeResult, confidence: float) -> Table:
    by = f", by {result.aggregation}" if result.aggregation else ""
    table = _Metrics(f"{what}: {result.num_completions:,}, prompts: {result.num_prompts:,}{by}", confidence)
    table.add("AUC", result.auc, area, "0.5 is chance", "bold")
    table.add("  of the length", result.longer_auc, area, _LENGTH, "dim")
    table.add("  of shortness", result.shorter_auc, area, _LENGTH, "dim")
    # A preference model's scores have no zero: only their order says something.
    note = "P is sigmoid(score)" if result.aggregation else "only if 0 means something"
    table.add("accuracy at P > 1/2", result.accuracy, percent, note)
    table.add("  the commoner", result.majority, percent, "no model", "dim")
    _add_probabilities(table, result)
    if result.pairwise_accuracy:
        table.add("pairwise accuracy", result.pairwise_accuracy, percent, f"of {result.num_pairs:,}, 50 % is chance")
    if result.best_of:
        best = result.best_of
        table.add(
            f"best of {best.completions_per_prompt:.3g}",
            best.accuracy,
            percent,
            f"of {best.num_prompts:,} prompts",
            "bold",
        )
        table.add("  any at random", best.random, percent, "no model", "dim")
        table.add("  the longest", best.longest, percent, _LENGTH, "dim")
        table.add("  the shortest", best.shortest, percent, _LENGTH, "dim")
        table.add("  an oracle's choice", best.oracle, percent, "the most there is", "dim")
    return table.table


def _steps(result: StepResult, confidence: float) -> list[RenderableType]:
    table = _Metrics(
        f"steps: {result.num_steps:,}, prompts: {result.num_prompts:,}, errors at P <= {result.threshold:.3g}",
        confidence,
    )
    table.add("macro F1", result.macro_f1, area, _constant(result.majority_macro_f1), "bold")
    table.add("  of errors", result.f1_incorrect, area)
    table.add("  of the others", result.f1_correct, area)
    table.add("AUC", result.auc, area, "0.5 is chance")
    table.add("  of an early place", result.earlier_auc, area, "no model", "dim")
    table.add("accuracy", result.accuracy, percent)
    table.add("  the commoner", result.majority, percent, "no model", "dim")
    parts: list[RenderableType] = [table.table]
    if found := result.first_error:
        first = _Metrics(f"first errors: {found.num_erroneous:,} of {found.num_solutions:,} solutions", confidence)
        first.add("F1", found.f1, area, "ProcessBench's", "bold")
        first.add("  the best guess", found.guess_f1, area, "no model", "dim")
        first.add("  with an error", found.accuracy_on_erroneous, percent, "at exactly that step")
        first.add("  without", found.accuracy_on_correct, percent, "no error is said")
        first.add("accuracy", found.accuracy, percent, "of both kinds")
        first.add("  always no error", found.no_error, percent, "no model", "dim")
        first.add("  always the first", found.first_step, percent, "no model", "dim")
        parts.append(first.table)
    return parts


class _Metrics:
    """A table with a row for each metric."""

    def __init__(self, title: str, confidence: float) -> None:
        self.table = metric_table(title, "metric", "value", f"{100 * confidence:g} % interval", "to compare with")
        self.table.columns[-1].justify = "left"

    def add(
        self, name: str, interval: Interval | None, form: Callable[[float], str], note: str = "", style: str = ""
    ) -> None:
        value, bounds = (form(interval.value), bounds_text(interval, form)) if interval else ("–", "–")
        self.table.add_row(name, value, bounds, note, style=style)


def metric_table(title: str, *columns: str) -> Table:
    """A table whose first column names the rows, and whose others hold their numbers."""
    table = Table(title=Text(title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(columns[0], overflow="fold")
    for header in columns[1:]:
        table.add_column(header, justify="right", no_wrap=True)
    return table


def _of_pairs(result: EvaluationResult) -> list[str]:
    """What a reader should not overlook, in plain words."""
    remarks = []
    longer = result.longer_wins.value >= result.shorter_wins.value
    baseline = f"always choosing the {'longer' if longer else 'shorter'} completion"
    if result.above_length_baselines is False and result.accuracy.low is not None:
        remarks.append(
            f"The accuracy's lower bound, {percent(result.accuracy.low)}, is not above {baseline} "
            f"({percent(result.best_length_baseline)}): these pairs do not show that the model knows more than length."
        )
    if result.ties:
        remarks.append(
            f"{result.ties:,} of {result.num_pairs:,} pairs have exactly equal scores; a tie is not counted as a win."
        )
    if result.tied_labels:
        remarks.append(f"{result.tied_labels:,} pairs were judged equally good: they are no preference.")
    return remarks


def _of_rankings(result: RankingResult) -> list[str]:
    remarks = []
    if result.above_length_baselines is False:
        remarks.append(
            "The lower bound of Kendall's tau-b is not above that of length: these rankings do not show that the model "
            "knows more."
        )
    if result.num_undecided:
        remarks.append(f"{result.num_undecided:,} rankings in which all are tied are left out.")
    return remarks


def _of_outcomes(result: OutcomeResult, what: str) -> list[str]:
    remarks = []
    if result.above_length_baselines is False:
        remarks.append(
            f"The lower bound of the {what}' AUC is not above that of length: they do not show that the model knows "
            "more."
        )
    if result.best_of and result.best_of.above_baselines is False:
        remarks.append(f"The lower bound of best-of-K on the {what} is not above its baselines.")
    if result.num_unlabelled:
        remarks.append(f"{result.num_unlabelled:,} completions without a label are left out of the {what}.")
    return remarks


def _of_steps(result: StepResult) -> list[str]:
    remarks = []
    if result.above_majority is False:
        remarks.append("The lower bound of the steps' macro F1 is not above that of always saying the commoner class.")
    if found := result.first_error:
        if found.above_guess is False:
            remarks.append("The lower bound of the first errors' F1 is not above that of the best guess.")
        if found.num_undetermined:
            remarks.append(
                f"{found.num_undetermined:,} solutions whose labels do not say where their first error is are left out "
                "of the first errors."
            )
    if result.num_unlabelled:
        remarks.append(f"{result.num_unlabelled:,} steps without a label are left out.")
    return remarks


def _remarks(sentences: list[str], prompts: set[int]) -> list[Text]:
    """The sentences, after those on how few prompts there are."""
    few = min(prompts, default=FEW_PROMPTS)
    if few == 1:
        what = "All pairs share one prompt" if prompts == {1} else "Some metrics are of one prompt"
        sentences = [f"{what}, which says nothing about other prompts: no interval can be given.", *sentences]
    elif few < FEW_PROMPTS:
        about = f"There are only {few} prompts: below {FEW_PROMPTS} the intervals are rough, and more often too narrow "
        sentences = [*sentences, f"{about}than too wide."]
    return [Text(sentence, style="yellow") for sentence in sentences]


def _constant(value: float | None) -> str:
    return "" if value is None else f"{value:.3f} is the commoner"


def percent(value: float) -> str:
    """A share: 0.125 is 12.5 %."""
    return f"{100 * value:.1f} %"


def decimal(value: float) -> str:
    """A loss or an error: 0.6931."""
    return f"{value:.4f}"


def area(value: float) -> str:
    """An area or a correlation: 0.731."""
    return f"{value:.3f}"


def signed(value: float) -> str:
    """A difference: +0.250."""
    return f"{value:+.3f}"


def bounds_text(interval: Interval, form: Callable[[float], str]) -> str:
    """From where to where, or a dash where there is no interval."""
    if interval.low is None or interval.high is None:
        return "–"
    return f"{form(interval.low)} to {form(interval.high)}"

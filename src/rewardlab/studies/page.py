"""A demo's result as one self-contained HTML page: no script, nothing loaded from anywhere, light and dark.

This file chooses what is shown and words it; :mod:`rewardlab.evaluation.charts` draws, ``page.html.jinja`` lays out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup

from rewardlab.evaluation import charts
from rewardlab.evaluation.drawing import Point
from rewardlab.evaluation.page_numbers import bounds, decimal, percent, signed
from rewardlab.evaluation.report.rendering import render
from rewardlab.metrics.pairs import EvaluationResult
from rewardlab.metrics.probability import log_loss
from rewardlab.metrics.probability_columns import WORDS
from rewardlab.studies.result import CHANCE, DemoResult
from rewardlab.types import text_of


@dataclass(frozen=True, slots=True)
class Side:
    """One completion of an example."""

    role: str
    text: str
    score: float
    utility: float


@dataclass(frozen=True, slots=True)
class Example:
    """One held-out pair with what was made of it."""

    subset: str
    prompt: str
    sides: tuple[Side, Side]
    verdict: str
    right: bool


def render_page(result: DemoResult) -> str:
    """The page as HTML."""
    return render(
        __package__,
        "page.html.jinja",
        result=result,
        accuracy=result.evaluation.accuracy,
        share_text=percent(result.share_closed.value, 0),
        share_bounds=bounds(result.share_closed.to_dict(), lambda value: percent(value, 0)),
        accuracy_bounds=bounds(result.evaluation.accuracy.to_dict()),
        ruler=_ruler(result),
        figures=_figures(result),
        subsets=_subsets(result),
        examples=choose_examples(result),
        total_seconds=sum(result.seconds.values()),
        commands=next_commands(result.paths.folder),
        percent=percent,
        signed=signed,
    )


def next_commands(folder: Path) -> list[tuple[str, str]]:
    """What to try next: command and what it does."""
    model, data = folder / "model", folder / "data"
    return [
        (f"rewardlab verify {model}", "prove that the model gives its stored scores in every way it is asked"),
        (f"rewardlab evaluate {model} --data {data / 'fresh.jsonl'}", "measure it on pairs it has never seen"),
        (f"rewardlab data check {data / 'train.jsonl'}", "see what is in the training data"),
        (
            f"rewardlab score {model} --data {data / 'canary.jsonl'} --output {folder / 'canary_scores.jsonl'} "
            "--scale percentile",
            "score any file of completions, pairs or groups",
        ),
        (
            f"rewardlab serve {model}",
            "try it in a browser, and give RL frameworks its address",
        ),
        (
            "rewardlab train --model BASE --data PAIRS.jsonl --eval-fraction 0.1 --output my-rm",
            "train on your own pairs",
        ),
    ]


def choose_examples(result: DemoResult) -> list[Example]:
    """Six telling pairs: a clear win per subset, a label that chance turned, and a real mistake.

    Where a kind does not occur, the surest of the other pairs take its place.
    """
    margins = result.scores[:, 0] - result.scores[:, 1]
    true_margins = result.utilities[:, 0] - result.utilities[:, 1]
    order = [int(i) for i in np.argsort(-np.abs(margins), kind="stable")]
    chosen: list[int] = []

    def take(candidates: Sequence[int]) -> None:
        chosen.extend([i for i in candidates if i not in chosen][:1])

    for subset in result.evaluation.subsets:
        take([i for i in order if result.held_out[i].subset == subset and margins[i] > 0 and true_margins[i] > 0])
    del chosen[4:]
    take([i for i in order if margins[i] < 0 and true_margins[i] < 0])
    take([i for i in order if margins[i] < 0 < true_margins[i]])
    chosen += [i for i in order if i not in chosen][: max(6 - len(chosen), 0)]
    return [_example(result, i, float(margins[i]), float(true_margins[i])) for i in chosen]


def _example(result: DemoResult, index: int, margin: float, true_margin: float) -> Example:
    group = result.held_out[index]
    pair = group.pairs[0]
    sides = tuple(
        Side(role, text_of(group.completions[which]), float(result.scores[index, i]), float(result.utilities[index, i]))
        for i, (role, which) in enumerate((("chosen", pair.chosen), ("rejected", pair.rejected)))
    )
    if margin > 0:
        verdict = "The model agrees with the label" + (
            "." if true_margin > 0 else ", which chance turned from the truth."
        )
    elif true_margin < 0:
        verdict = "Chance drew this label against the truth; the model goes with the truth, and counts as wrong."
    else:
        verdict = (
            "The model is mistaken: the truth agrees with the label." if true_margin else "Truly a tie; a coin flip."
        )
    return Example(group.subset or "", text_of(group.prompt), (sides[0], sides[1]), verdict, margin > 0)


def _ruler(result: DemoResult) -> Markup:
    accuracy, longer = result.evaluation.accuracy, result.evaluation.longer_wins
    rows = [
        charts.Row("chance", CHANCE),
        charts.Row("always longer", longer.value),
        charts.Row("this model", accuracy.value, accuracy.low, accuracy.high, emphasis=True),
        charts.Row("best reachable", result.best_accuracy),
    ]
    description = "; ".join(f"{row.name} {percent(row.value)}" for row in rows)
    return charts.dot_rows("Held-out accuracy between chance and the best reachable", description, rows)


def _figures(result: DemoResult) -> list[tuple[str, Markup, Markup]]:
    """Heading, chart and caption of each figure; a caption says how to read it."""
    evaluation, n = result.evaluation, result.evaluation.num_pairs
    margins = [pair.margin for pair in evaluation.pairs]
    best_loss = log_loss(result.utilities[:, 0] - result.utilities[:, 1])
    wins = sum(m > 0 for m in margins)
    rho = decimal(result.utility_correlation)
    a, b = ('<span class="key a"></span>', '<span class="key b"></span>')
    points = [
        charts.evenly(list(zip(result.utilities[:, i].tolist(), result.scores[:, i].tolist(), strict=True)))
        for i in (0, 1)
    ]
    return [
        (
            "Loss while training",
            charts.curves(
                "Loss while training",
                f"Held-out loss ends at {decimal(evaluation.log_loss.value)}; that of the true utility is "
                f"{decimal(best_loss)}.",
                training=_series(result, "loss"),
                held_out=_series(result, "eval_loss"),
                guide=best_loss,
                guide_name="loss of the true utility",
                y_name="loss (nats)",
            ),
            Markup(f"{a}training pairs, each seen once {b}held-out pairs. Both hold the small centering penalty too."),
        ),
        (
            "Accuracy while training",
            charts.curves(
                "Accuracy while training",
                f"Held-out accuracy ends at {percent(evaluation.accuracy.value)}; the best that any model can reach "
                f"on these labels is {percent(result.best_accuracy)}.",
                training=_series(result, "accuracy"),
                held_out=_series(result, "eval_accuracy"),
                guide=result.best_accuracy,
                guide_name="best reachable",
                y_name="accuracy",
                percent=True,
            ),
            Markup(f"{a}training pairs {b}held-out pairs. One epoch: no pair is seen twice, so the two agree."),
        ),
        (
            "Score against the truth",
            charts.scatter(
                "Score against true utility",
                f"Rank correlation (Spearman) {rho} over {2 * n} held-out completions.",
                a=points[0],
                b=points[1],
                x_name="true utility",
                y_name="score",
            ),
            Markup(
                f"{a}chosen {b}rejected. Spearman's rank correlation is <strong>{rho}</strong>. The model never "
                "saw a utility, only which of two completions was preferred."
            ),
        ),
        (
            "Margins",
            charts.margin_histogram(
                "Histogram of score margins", f"{wins} of {n} held-out pairs have a margin above zero.", margins
            ),
            Markup(f"{a}the chosen completion scores higher ({wins:,} pairs) {b}it does not ({n - wins:,} pairs)."),
        ),
        (
            "Are its probabilities right?",
            charts.reliability(
                "Reliability of preference probabilities",
                f"{_calibration(result.fresh)}; on the diagonal, a confidence of 80 % is right 80 % of the time.",
                result.fresh.reliability.get("after", result.fresh.reliability["before"]),
            ),
            Markup(
                "On the dashed line the model is right as often as it says. Below it is too sure, above it not sure "
                f"enough. {_calibration(result.fresh)}, on {result.fresh.num_pairs:,} pairs used for no fit."
            ),
        ),
    ]


def _calibration(fresh: EvaluationResult) -> str:
    """Calibration error before and after the temperature, where one could be fitted."""
    before = f"{WORDS['ece'].capitalize()} {decimal(fresh.ece.value)}"
    if fresh.temperature is None:
        return before
    after, temperature = decimal(fresh.calibrated["ece"].value), decimal(fresh.temperature, 2)
    return f"{before} as it is, {after} with the fitted temperature {temperature}"


def _subsets(result: DemoResult) -> Markup:
    best: dict[str, list[bool]] = {}
    for group, (chosen, rejected) in zip(result.held_out, result.utilities, strict=True):
        best.setdefault(group.subset or "", []).append(bool(chosen > rejected))
    rows = [
        charts.Row(name, s.accuracy.value, s.accuracy.low, s.accuracy.high, sum(best[name]) / len(best[name]))
        for name, s in result.evaluation.subsets.items()
    ]
    description = "; ".join(f"{r.name} {percent(r.value)}, best reachable {percent(r.best)}" for r in rows)
    return charts.dot_rows("Accuracy by subset", description, rows)


def _series(result: DemoResult, key: str) -> list[Point]:
    return [
        (float(entry["step"]), float(entry[key])) for entry in result.log_history if key in entry and "step" in entry
    ]

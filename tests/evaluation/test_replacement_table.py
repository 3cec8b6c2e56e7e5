"""The answer on a terminal: 80 columns, whatever the subsets are called."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from rewardlab.calibration.reference import reference_statistics
from rewardlab.calibration.shift import reference_shift
from rewardlab.evaluation.replacement import decide
from rewardlab.evaluation.replacement_table import render_replacement
from rewardlab.metrics.pairs import EvaluationResult, evaluate_scores
from rewardlab.types import Pair, PromptGroup


def _evaluated(right: int, wrong: int, margin: float = 1.1) -> EvaluationResult:
    """So many pairs that are right and wrong, every other one in the subset ``b [x]``."""
    count = right + wrong
    groups = [PromptGroup(f"p{n}", ("good", "bad"), (Pair(),), subset=("a", "b [x]")[n % 2]) for n in range(count)]
    scores = [[margin if n < right else -margin, 0.0] for n in range(count)]
    return evaluate_scores(groups, scores, temperature=1.0, resamples=200)


@pytest.mark.parametrize(
    ("old", "new", "answer"),
    [
        (_evaluated(150, 50), _evaluated(149, 51), "Undecided"),
        (_evaluated(450, 150), _evaluated(450, 150, 1.11), "may replace the old one: it is not worse"),
        (_evaluated(4, 2), _evaluated(4, 2), "both models give these 6 comparisons the same scores"),
        (_evaluated(450, 150), _evaluated(490, 110, 1.5), "may replace the old one: it is better"),
        (_evaluated(450, 150), _evaluated(380, 220), "must not replace the old one: it is worse"),
    ],
)
def test_it_says_the_answer_in_80_columns(old: EvaluationResult, new: EvaluationResult, answer: str) -> None:
    console = Console(width=80, record=True, file=StringIO())
    console.print(render_replacement(decide(old, new)))
    shown = console.export_text()
    assert answer in shown
    assert "b [x]" in shown
    assert "-0.000" not in shown
    own = next(line for line in shown.splitlines() if line.startswith(" calibration error, own T"))
    assert own.split()[4:6] == [f"{result.calibrated['ece'].value:.4f}" for result in (old, new)]
    assert ("Give more labelled rows, about" in " ".join(shown.split())) == (answer == "Undecided")
    assert max(len(line.rstrip()) for line in shown.splitlines()) <= 80


def test_how_far_scores_moved_is_said_in_plain_words() -> None:
    found = decide(_evaluated(450, 150), _evaluated(450, 150, 1.5))
    before, after = (reference_statistics([0.0, top], "rows", "same") for top in (2.0, 5.0))
    console = Console(width=200, record=True, file=StringIO())
    console.print(render_replacement(replace(found, shift=reference_shift(before, after))))
    shown = console.export_text()
    assert "most moved the highest score, by +3.000" in shown  # in the old standard deviation, 1
    assert "quantile" not in shown

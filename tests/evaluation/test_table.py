"""rewardlab.evaluation.table: what a person reads, at 80 columns."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from rewardlab.evaluation.table import render
from rewardlab.metrics import evaluate_scores
from rewardlab.types import Pair, PromptGroup


def printed(groups, scores, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(render(evaluate_scores(groups, scores, resamples=200)))
    return console.file.getvalue()


def groups_of(number: int, longer: int, **more) -> list[PromptGroup]:
    return [
        PromptGroup(f"p{i}", ("aa", "b") if i < longer else ("a", "bb"), pairs=(Pair(),), **more) for i in range(number)
    ]


def scores_of(number: int, wins: int) -> list[list[float]]:
    return [[1.0, 0.0] if i < wins else [0.0, 1.0] for i in range(number)]


@pytest.mark.parametrize("width", [80, 120])
def test_fits_and_shows_the_numbers(width: int) -> None:
    text = printed(groups_of(1200, 700, subset="a quite long name for a subset [bold]"), scores_of(1200, 1000), width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text  # nothing cut off
    lines = {line.split("  ")[0].strip() or line.strip().split("  ")[0]: line for line in text.splitlines()}
    assert "83.3 %" in lines["accuracy"]
    assert "58.3 %" in lines["always the longer"]
    assert "41.7 %" in lines["always the shorter"]
    assert "1,200" in text
    assert "[bold]" in text  # a subset's name is data, not markup
    assert "not above" not in text


def test_says_when_length_alone_does_as_well() -> None:
    text = " ".join(printed(groups_of(100, 40), scores_of(100, 62)).split())
    assert "is not above always choosing the shorter completion (60.0 %)" in text


def test_says_when_there_is_no_interval() -> None:
    text = " ".join(printed(groups_of(1, 1), [[0.0, 0.0]]).split())
    assert "All pairs share one prompt" in text
    assert "1 of 1 pairs have exactly equal scores; a tie is not counted as a win" in text
    assert "not above" not in text


def test_says_when_prompts_are_few() -> None:
    assert "only 29 prompts" in printed(groups_of(29, 0), scores_of(29, 20))
    assert "only" not in printed(groups_of(30, 0), scores_of(30, 20))

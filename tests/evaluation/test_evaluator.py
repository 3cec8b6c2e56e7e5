"""rewardlab.evaluation.evaluator: scores once, with what it was told, and not before the rows are worth it."""

from __future__ import annotations

import re

import pytest

from rewardlab.errors import DataError
from rewardlab.evaluation import Evaluator
from rewardlab.metrics import EvaluationResult, evaluate_scores
from rewardlab.types import Pair, PromptGroup


class Scripted:
    """A scorer that gives the scores it was made with, and remembers how it was called."""

    def __init__(self, scores) -> None:
        self.scores = scores
        self.calls: list[tuple[int, bool]] = []

    def score_groups(self, groups, progress: bool = False):
        self.calls.append((len(groups), progress))
        return self.scores


def pair_group(prompt: str) -> PromptGroup:
    return PromptGroup(prompt, ("aa", "b"), pairs=(Pair(0, 1),))


def test_evaluator_scores_once_and_passes_its_settings_on() -> None:
    groups = [pair_group(f"p{index}") for index in range(400)]
    scores = [[float(index % 7), 3.0] for index in range(400)]
    scorer = Scripted(scores)
    result = Evaluator(scorer, resamples=70, seed=5, confidence=0.8).evaluate(groups, progress=True)
    assert scorer.calls == [(400, True)]
    assert isinstance(result, EvaluationResult)
    assert result == evaluate_scores(groups, scores, resamples=70, seed=5, confidence=0.8)


def test_groups_without_pairs_are_named_before_anything_is_scored() -> None:
    rows = [PromptGroup("p", ("a",), source=f"rows.jsonl:{line}") for line in range(1, 8)]
    scorer = Scripted([[0.0]] * 8)
    with pytest.raises(DataError, match=re.escape("7 of 8 rows say no preference: rows.jsonl:1, ")) as caught:
        Evaluator(scorer).evaluate([*rows, pair_group("p")])
    assert caught.value.message.endswith("rows.jsonl:5 and 2 more")
    assert caught.value.hint
    assert scorer.calls == []

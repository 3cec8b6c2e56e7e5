"""Curves of expected best-of-n, against all subsets counted one by one."""

from __future__ import annotations

import json
from itertools import combinations
from random import Random

import numpy as np
import pytest

from rewardlab.errors import DataError
from rewardlab.metrics.outcomes import evaluate_outcomes
from rewardlab.search.best_of_n import JudgedGroup
from rewardlab.search.best_of_n_curve import summarise
from rewardlab.types import PromptGroup


def mean_over_subsets(scores: list[float], values: list[float], n: int) -> float:
    """What the pick of the highest score is worth, over every subset of n; scores are all different."""
    picks = [max(subset, key=lambda i: scores[i]) for subset in combinations(range(len(scores)), n)]
    return float(np.mean([values[i] for i in picks]))


def make(
    sizes: list[int], *, known: str | None = None
) -> tuple[list[JudgedGroup], list[tuple[list[float], list[float]]]]:
    draw = Random(0)
    groups, numbers = [], []
    for number, size in enumerate(sizes):
        scores = [draw.gauss(0, 1) for _ in range(size)]
        values = [float(draw.random() < 0.5) for _ in range(size)]
        fields = {known: tuple(values)} if known else {}
        group = PromptGroup(f"question {number}", tuple(f"a{i}" for i in range(size)), **fields)
        groups.append(JudgedGroup(group, tuple(scores)))
        numbers.append((scores, values))
    return groups, numbers


def test_each_n_is_over_the_groups_that_have_n():
    groups, numbers = make([5, 3, 5, 1, 4])
    groups.append(JudgedGroup(PromptGroup("unscored", ("a",) * 9), error="too long"))
    summary = summarise(groups, resamples=200)
    assert (summary.num_groups, summary.num_scored, summary.n) == (6, 5, (1, 4, 5))
    assert [(point.n, point.num_groups) for point in summary.expected] == [(1, 5), (2, 4), (4, 3), (5, 2)]
    for point in summary.expected:
        own = [mean_over_subsets(scores, scores, point.n) for scores, _ in numbers if len(scores) >= point.n]
        assert point.value.value == pytest.approx(np.mean(own))
        assert point.value.low <= point.value.value <= point.value.high
    assert summary.known == {}


@pytest.mark.parametrize(("known", "name"), [("ratings", "rating"), ("labels", "correct")])
def test_the_known_quality_of_the_pick_lies_beside_random_and_oracle(known, name):
    groups, numbers = make([4, 4, 4], known=known)
    curve = summarise(groups, resamples=200).known[name]
    assert curve.random.value == pytest.approx(np.mean([values for _, values in numbers]))
    for point in curve.points:
        assert point.value.value == pytest.approx(np.mean([mean_over_subsets(s, v, point.n) for s, v in numbers]))
    last = curve.points[-1]
    assert last.oracle.value == pytest.approx(np.mean([max(values) for _, values in numbers]))


def test_completions_of_unknown_quality_are_left_out():
    """Scores 3, 2, 1 and ratings unknown, 5, 7: the pick of two is the second, worth 5; the first never counts."""
    groups = [
        JudgedGroup(PromptGroup("a", ("x", "y", "z"), ratings=(None, 5.0, 7.0)), (3.0, 2.0, 1.0)),
        JudgedGroup(PromptGroup("b", ("x", "y"), ratings=(None, 1.0)), (3.0, 2.0)),
    ]
    curve = summarise(groups, resamples=50).known["rating"]
    assert curve.num_groups == 1
    assert [(point.n, point.value.value, point.oracle.value) for point in curve.points] == [
        (1, 6.0, 6.0),
        (2, 5.0, 7.0),
    ]


def test_the_summary_is_json_also_where_no_interval_exists():
    groups, _ = make([4], known="labels")
    found = json.loads(json.dumps(summarise(groups, resamples=50).to_dict(), allow_nan=False))
    assert found["n"] == {"min": 4, "median": 4, "max": 4}
    assert found["kl"]["max"] == pytest.approx(np.log(4) - 3 / 4)
    assert found["expected"][0]["value"]["low"] is None
    assert [point["n"] for point in found["known"]["correct"]["points"]] == [1, 2, 4]


def test_a_label_above_a_half_is_correct_as_in_evaluate():
    """Picked are 0.9, 0.4 and 0.6: two of three are correct; the other completions' labels are 0.2, 0.5 and 0.7."""
    labels = [(0.9, 0.2), (0.4, 0.5), (0.6, 0.7)]
    groups = [PromptGroup(f"q{i}", ("a", "b"), labels=own) for i, own in enumerate(labels)]
    curve = summarise([JudgedGroup(group, (1.0, 0.0)) for group in groups], resamples=50).known["correct"]
    expected = evaluate_outcomes(groups, [(1.0, 0.0)] * 3, resamples=50).best_of
    last = curve.points[-1]
    assert last.value.value == expected.accuracy.value == pytest.approx(2 / 3)
    assert curve.random.value == expected.random.value == pytest.approx(3 / 6)
    assert last.oracle.value == expected.oracle.value == pytest.approx(2 / 3)


@pytest.mark.parametrize("groups", [[], [JudgedGroup(PromptGroup("q", ("a",)), error="too long")]])
def test_without_scores_there_is_nothing_to_summarise(groups):
    with pytest.raises(DataError, match=f"none of {len(groups)} groups has scores"):
        summarise(groups)

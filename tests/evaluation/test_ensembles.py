"""Members and their disagreement, counted by hand."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from rewardlab.errors import DataError
from rewardlab.evaluation.ensembles import evaluate_members
from rewardlab.types import Pair, PromptGroup

ENSEMBLE = {"members": ["a", "b"], "how": "mean", "k": None, "weights": None, "on": "z"}


def pair(prompt: str, **options: Any) -> PromptGroup:
    return PromptGroup(prompt, ("good", "bad"), (Pair(0, 1, **options),))


def measured(members: list[list[list[float]]], groups: list[PromptGroup] | None = None) -> dict[str, Any]:
    """The result for groups whose combined score is the members' mean."""
    groups = groups or [pair(f"p{number}") for number in range(len(members))]
    scores = [[float(np.mean(of_one)) for of_one in of_group] for of_group in members]
    result = evaluate_members(groups, scores, members, ENSEMBLE, resamples=200).to_dict()
    return json.loads(json.dumps(result, allow_nan=False))


# (member a, member b) of the chosen, of the rejected completion; the differences; who wins
AGREED = [[2.0, 2.0], [1.0, 1.0]]  # 1, 1: spread 0, all right
SHIFTED = [[5.0, 1.0], [4.0, 0.0]]  # 1, 1: spread 0, though each score is disputed
ARGUED = [[3.0, 1.0], [0.0, 2.0]]  # 3, -1: spread 2, the mean is right
WRONG = [[0.0, 0.0], [1.0, 5.0]]  # -1, -5: spread 2, all wrong


def test_counts_by_hand() -> None:
    """Disagreements on scores: 0 0 | 2 2 | 1 1 | 0 2, mean 1; on pairs 0 0 2 2, mean 1. All five times."""
    found = measured([AGREED, SHIFTED, ARGUED, WRONG] * 5)
    assert {name: found[name] for name in ENSEMBLE} == ENSEMBLE
    assert (found["num_completions"], found["mean_disagreement"]["value"]) == (40, 1.0)
    pairs = found["pairs"]
    assert (pairs["num_pairs"], pairs["num_prompts"], pairs["mean_disagreement"]["value"]) == (20, 20, 1.0)
    assert {name: one["value"] for name, one in pairs["member_accuracy"].items()} == {"a": 0.75, "b": 0.5}
    parts = {name: (pairs[name]["num_pairs"], pairs[name]["accuracy"]["value"]) for name in PARTS}
    assert parts == {
        "less_disagreement": (10, 1.0),
        "more_disagreement": (10, 0.5),
        "unanimous": (15, pytest.approx(2 / 3)),
        "split": (5, 1.0),
    }
    assert pairs["difference"]["value"] == 0.5
    assert pairs["difference"]["low"] <= 0.5 <= pairs["difference"]["high"]
    assert found["bootstrap"]["resamples"] == 200


PARTS = ("less_disagreement", "more_disagreement", "unanimous", "split")


def test_a_shift_of_a_prompt_cancels_in_pairs_and_not_in_scores() -> None:
    found = measured([SHIFTED, SHIFTED])
    assert found["mean_disagreement"]["value"] == 2.0
    assert found["pairs"]["mean_disagreement"]["value"] == 0.0


def test_an_odd_pair_is_among_those_with_less() -> None:
    pairs = measured([WRONG, AGREED, ARGUED])["pairs"]
    assert [pairs[name]["num_pairs"] for name in PARTS] == [2, 1, 2, 1]
    assert pairs["less_disagreement"]["accuracy"]["value"] == 0.5  # AGREED, and WRONG, which came first


def test_what_there_is_none_of() -> None:
    """One pair has no other half; a member that ties prefers nothing; label ties and lone completions are out."""
    one = measured([AGREED])["pairs"]
    assert one["more_disagreement"] == {"num_pairs": 0, "accuracy": None}
    assert one["difference"] is None
    assert one["split"] == {"num_pairs": 0, "accuracy": None}
    assert one["less_disagreement"]["accuracy"] == {"value": 1.0, "low": None, "high": None}
    assert measured([[[1.0, 2.0], [1.0, 1.0]]])["pairs"]["split"]["num_pairs"] == 1
    groups = [pair("p", tie=True), PromptGroup("q", ("x",))]
    found = measured([AGREED, [[1.0, 3.0]]], groups)
    assert "pairs" not in found
    assert found["mean_disagreement"]["value"] == pytest.approx(1 / 3)


def test_a_preference_the_other_way_round_is_the_same() -> None:
    soft = PromptGroup("p0", ("bad", "good"), (Pair(0, 1, p_chosen=0.1),))
    assert measured([ARGUED[::-1]], [soft]) == measured([ARGUED])


def test_scores_that_do_not_match_are_refused() -> None:
    with pytest.raises(DataError):
        evaluate_members([pair("p")], [[1.0]], [[[1.0, 1.0]]], ENSEMBLE)


def test_agreement_that_means_nothing_has_an_interval_around_nothing() -> None:
    """Wins drawn without regard to the spread: the halves' difference is 0 within its interval in a seeded draw."""
    draw = np.random.default_rng(0)
    members = []
    for _ in range(600):
        centre, spread = draw.choice([1.0, -1.0]), draw.uniform(0, 0.9)
        members.append([[centre + spread, centre - spread], [0.0, 0.0]])
    pairs = measured(members)["pairs"]
    assert pairs["difference"]["low"] < 0 < pairs["difference"]["high"]
    assert pairs["unanimous"]["num_pairs"] == 600

"""K completions -> rankings, ratings and attributes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardlab.data.formats import parse_row
from rewardlab.errors import DataError
from rewardlab.types import Pair, Ranking

ROW = {"prompt": "p", "completions": ["x", "y", "z"]}
ULTRA = {
    "instruction": "p",
    "models": ["m", "n"],
    "completions": [
        {
            "response": "x",
            "overall_score": 8.5,
            "annotations": {"honesty": {"Rating": "4", "Rationale": "r"}, "truthfulness": {"Rating": "N/A"}},
        },
        {"response": "y", "overall_score": 6, "annotations": {"honesty": {"Rating": 5}}},
    ],
}


def preferences(group):
    return {(group.completions[p.chosen], group.completions[p.rejected], p.tie) for p in group.pairs}


def test_ranks_order_from_the_smallest_on_and_lose_their_gaps():
    group = parse_row(ROW | {"ranks": [7, -1, "7"], "weight": 2})
    assert group.rankings == (Ranking((0, 1, 2), (1, 0, 1), 2.0),)
    assert preferences(group) == {("y", "x", False), ("y", "z", False), ("x", "z", True)}
    assert {pair.weight for pair in group.pairs} == {2.0}
    assert group.ratings == ()


def test_completions_without_a_rank_are_worse_than_all_that_have_one():
    """A top-1 list: y before x and z, nothing between those two."""
    group = parse_row(ROW | {"ranks": [None, 1, None]})
    assert group.rankings == (Ranking((0, 1, 2), (None, 0, None)),)
    assert preferences(group) == {("y", "x", False), ("y", "z", False)}


def test_scores_rate_and_order_those_that_have_one():
    """Null is not rated: z takes no part. 4 - 1.5 = 2.5 is how much better y is."""
    group = parse_row(ROW | {"scores": [1.5, 4, None]})
    assert group.ratings == (1.5, 4.0, None)
    assert group.rankings == (Ranking((0, 1), (1, 0)),)
    assert group.pairs == (Pair(1, 0, strength=2.5),)
    assert parse_row(ROW | {"scores": [1, 1, 1]}).rankings == (Ranking((0, 1, 2), (0, 0, 0)),)
    assert parse_row(ROW | {"scores": [1, None, None]}).rankings == (), "one rating orders nothing"
    assert parse_row({"prompt": "p", "completions": ["x"], "scores": [3]}).ratings == (3.0,)


def test_ranks_order_and_scores_rate_where_a_row_has_both():
    group = parse_row(ROW | {"ranks": [0, 1, 2], "scores": [5, 5, 1]})
    assert group.rankings[0].ranks == (0, 1, 2)
    assert {(p.chosen, p.rejected): p.strength for p in group.pairs} == {(0, 1): 0.0, (0, 2): 4.0, (1, 2): 4.0}


def test_scores_of_which_the_lowest_is_best_are_turned_round_only_if_the_row_says_so():
    row = ROW | {"ranks": [0, 1, 2], "scores": [0.1, 0.2, 0]}
    assert parse_row(row | {"scores": [0.0, 1, 2], "higher_is_better": False}).ratings == (0.0, -1.0, -2.0)
    with pytest.raises(DataError, match=r"scores contradict ranks: 3 of 3 .*higher_is_better"):
        parse_row(row | {"scores": [0, 1, 2]})
    assert parse_row(row | {"scores": [2, 0, 1]}).ratings == (2.0, 0.0, 1.0), "1 of 3 pairs may disagree"


def test_attributes_and_outcomes_stand_beside_or_alone():
    group = parse_row(ROW | {"attributes": [{"tone": 1, "depth": "2.5"}, None, {"tone": None, "depth": "N/A"}]})
    assert group.attributes == ({"tone": 1.0, "depth": 2.5}, {}, {})
    assert (group.pairs, group.rankings, group.ratings) == ((), (), ())
    group = parse_row(ROW | {"ranks": [0, 1, 2], "labels": [True, 0, None]})
    assert group.labels == (1.0, 0.0, None)
    assert len(group.pairs) == 3


def test_identical_completions_of_one_row_are_kept():
    group = parse_row(ROW | {"completions": ["x", "x", "z"], "ranks": [0, 1, 2]})
    assert group.completions == ("x", "x", "z")
    assert len(group.pairs) == 3


def test_ultrafeedback_rows():
    group = parse_row(ULTRA)
    assert (group.prompt, group.completions, group.ratings) == ("p", ("x", "y"), (8.5, 6.0))
    assert group.attributes == ({"honesty": 4.0}, {"honesty": 5.0})
    assert group.pairs == (Pair(0, 1, strength=2.5),)


def test_nectar_rows():
    """Rank 1 is the best, written as a float; the prompt is a transcript that waits for its answer."""
    answers = [{"answer": "x", "model": "m", "rank": 2.0}, {"answer": "y", "rank": 1.0}, {"answer": "z", "rank": 3.0}]
    group = parse_row({"prompt": "\n\nHuman: q\n\nAssistant: ", "answers": answers, "turns": 1})
    assert group.prompt == ({"role": "user", "content": "q"},)
    assert group.completions == ("x", "y", "z")
    assert group.rankings == (Ranking((0, 1, 2), (1, 0, 2)),)


@pytest.mark.parametrize("column", ["rating", "score"])
def test_one_rated_completion(column):
    group = parse_row({"prompt": "p", "completion": "x", column: "4.5"})
    assert (group.completions, group.ratings, group.pairs) == (("x",), (4.5,), ())


def test_helpsteer_rows():
    row = {"prompt": "p", "response": "x", "helpfulness": 3, "correctness": 4, "coherence": 4, "verbosity": None}
    assert parse_row(row).attributes == ({"helpfulness": 3.0, "correctness": 4.0, "coherence": 4.0},)
    assert parse_row(row).ratings == ()


@given(st.lists(st.none() | st.integers(0, 4), min_size=2, max_size=7).filter(lambda ranks: set(ranks) != {None}))
def test_every_two_completions_are_compared_once_unless_neither_has_a_rank(ranks):
    """K (K - 1) / 2 pairs, less those among the u unranked ones; ties are those of equal ranks."""
    group = parse_row({"prompt": "p", "completions": [f"c{n}" for n in range(len(ranks))], "ranks": ranks})
    size, unranked = len(ranks), ranks.count(None)
    assert len(group.pairs) == size * (size - 1) // 2 - unranked * (unranked - 1) // 2
    for pair in group.pairs:
        chosen, rejected = ranks[pair.chosen], ranks[pair.rejected]
        assert pair.tie == (chosen == rejected)
        assert pair.tie or rejected is None or chosen < rejected
    used = {rank for rank in group.rankings[0].ranks if rank is not None}
    assert used == set(range(len(used)))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (ROW | {"ranks": [0, 1]}, "ranks do not match completions"),
        (ROW | {"scores": [1, 2, 3, 4]}, "scores do not match completions"),
        (ROW | {"ranks": [0, 1, 2], "labels": [1]}, "labels do not match completions"),
        (ROW | {"ranks": "012"}, "ranks is of the wrong type"),
        (ROW | {"ranks": [0, 1.5, 2]}, "ranks is not a whole number"),
        (ROW | {"ranks": [0, "first", 2]}, "ranks is not a finite number"),
        (ROW | {"ranks": [None, None, None]}, "ranks is empty"),
        (ROW | {"scores": [None, None, None]}, "scores is empty"),
        (ROW | {"scores": [1, float("nan"), 2]}, "scores is not a finite number"),
        (ROW | {"scores": [1e308, -1e308, 0]}, "numbers too large"),
        (ROW | {"attributes": [{}, {}, None]}, "attributes are empty"),
        (ROW | {"attributes": [1, 2, 3]}, "attributes is of the wrong type"),
        (ROW | {"attributes": [{"tone": "warm"}, {}, {}]}, "attributes is not a finite number"),
        (ROW | {"completions": ["x", "", "z"], "ranks": [0, 1, 2]}, "completions is empty"),
        ({"prompt": "p", "completions": ["x"], "ranks": [0]}, "ranks of one completion"),
        ({"instruction": "p", "completions": []}, "completions is empty"),
        ({"instruction": "p", "completions": ["x"]}, "completions is of the wrong type"),
        ({"instruction": "p", "completions": [{"response": "x"}]}, "overall_score is empty"),
        (
            {"instruction": "p", "completions": [{"response": "x", "overall_score": 1, "annotations": "good"}]},
            "annotations is of the wrong type",
        ),
        ({"prompt": "p", "answers": [{"rank": 1}]}, "answers is of the wrong type"),
        ({"prompt": "p", "answers": [{"answer": "x"}, {"answer": "y"}]}, "rank is empty"),
        ({"prompt": "p", "completion": "x", "rating": "good"}, "rating is not a finite number"),
        ({"prompt": "p", "response": "x", "helpfulness": "much"}, "helpfulness is not a finite number"),
        ({"prompt": "p", "response": "", "helpfulness": 1}, "response is empty"),
    ],
)
def test_a_bad_row_has_a_reason(row, reason):
    with pytest.raises(DataError) as error:
        parse_row(row)
    assert error.value.message.partition(": ")[0] == reason


def test_what_wrote_the_completions_is_kept():
    assert parse_row(ROW | {"ranks": [0, 1, 2], "models": ["m", None, "o"]}).systems == ("m", None, "o")
    assert parse_row(ROW | {"systems": ["m", "n", "o"]}).systems == ("m", "n", "o")
    assert parse_row(ROW | {"labels": [1, 0, 0.5], "systems": ["m", "n", "o"]}).systems == ("m", "n", "o")
    entries = [entry | {"model": name} for entry, name in zip(ULTRA["completions"], "vw", strict=True)]
    assert parse_row(ULTRA | {"completions": entries}).systems == ("v", "w")
    answers = [{"answer": "x", "rank": 1, "model": "gpt"}, {"answer": "y", "rank": 2}]
    assert parse_row({"prompt": "p", "answers": answers}).systems == ("gpt", None)
    with pytest.raises(DataError, match=r"answers is of the wrong type: answers\[0\].model is int"):
        parse_row({"prompt": "p", "answers": [answers[0] | {"model": 3}, answers[1]]})

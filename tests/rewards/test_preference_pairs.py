"""Preference pairs out of scored groups: which are made, and that nothing disappears uncounted."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardlab.errors import ConfigError, DataError
from rewardlab.rewards.preference_pairs import preference_pairs
from rewardlab.types import Pair, PromptGroup


def group(count: int, **known: object) -> PromptGroup:
    return PromptGroup("Which?", tuple("abcdefgh"[:count]), **known)


def told(result) -> list[tuple[str, str, float]]:
    """(chosen text, rejected text, strength) of every pair."""
    return [
        (made.completions[pair.chosen], made.completions[pair.rejected], pair.strength)
        for made in result.groups
        for pair in made.pairs
    ]


def test_best_over_worst():
    given_group = group(4, id=7, subset="s", source="f.jsonl:1", labels=(1, 0, None, None), pairs=(Pair(3, 1),))
    result = preference_pairs([given_group], [[0.5, -1.0, 2.0, 0.0]])
    assert result.groups == [
        PromptGroup("Which?", ("c", "b"), pairs=(Pair(0, 1, strength=3.0),), id=7, subset="s", source="f.jsonl:1")
    ]
    assert (result.pairs, result.ties, result.below_gap, result.unscored, result.without_pair) == (1, 0, 0, 0, 0)


def test_best_over_each_other_leaves_out_what_is_as_good():
    result = preference_pairs([group(4)], [[2.0, -1.0, 2.0, 0.0]], how="best-rest")
    assert told(result) == [("a", "d", 2.0), ("a", "b", 3.0)]
    assert result.ties == 1


def test_every_better_over_every_worse():
    result = preference_pairs([group(3)], [[1.0, 3.0, 0.5]], how="all", min_gap=1.0)
    assert told(result) == [("b", "a", 2.0), ("b", "c", 2.5)]
    assert result.below_gap == 1


def test_a_tie_gives_no_pair_and_is_counted():
    result = preference_pairs([group(2), group(3), group(2)], [[1.0, 1.0], [0.0, 0.0, 0.0], [0.0, 1.0]])
    assert told(result) == [("b", "a", 1.0)]
    assert (result.pairs, result.ties, result.without_pair) == (1, 2, 2)


@pytest.mark.parametrize(
    ("how", "pairs", "ties"),
    [
        ("best-worst", [], 1),
        ("best-rest", [("a", "b", 1.0)], 1),
        ("all", [("a", "b", 1.0), ("b", "a", pytest.approx(1e-7))], 1),
    ],
)
def test_equal_texts_are_ties_however_their_scores_differ(how, pairs, ties):
    """The same text scored twice, in batches of different shapes: a pair of it would teach a policy noise."""
    same = PromptGroup("Which?", ("a", "b", [{"role": "assistant", "content": "a"}]))
    result = preference_pairs([same], [[1.0, 0.0, -1e-7]], how=how)
    assert [(pair.chosen, pair.rejected) for made in result.groups for pair in made.pairs] == [(0, 1), (1, 2)][
        : len(pairs)
    ]
    assert [strength for *_, strength in told(result)] == [strength for *_, strength in pairs]
    assert (result.pairs, result.ties) == (len(pairs), ties)


def test_what_has_no_score_stands_in_no_pair_and_is_counted():
    result = preference_pairs([group(3), group(2), group(1)], [[None, 1.0, 2.0], [math.nan, 1.0], [1.0]])
    assert told(result) == [("c", "b", 1.0)]
    assert (result.unscored, result.without_pair) == (2, 2)


@given(
    st.lists(st.lists(st.one_of(st.none(), st.integers(-2, 2)), min_size=1, max_size=6), max_size=5),
    st.sampled_from(["best-worst", "best-rest", "all"]),
    st.sampled_from([0.0, 1.0, 2.5]),
)
def test_every_pair_is_right_and_every_comparison_is_accounted_for(scores, how, min_gap):
    groups = [group(len(of_group)) for of_group in scores]
    result = preference_pairs(groups, scores, how=how, min_gap=min_gap)
    assert len(result.groups) + result.without_pair == len(groups)
    assert result.unscored == sum(score is None for of_group in scores for score in of_group)
    assert all(strength >= max(min_gap, 1) for _, _, strength in told(result))
    known = [sum(score is not None for score in of_group) for of_group in scores]
    compared = {
        "best-worst": sum(count > 1 for count in known),
        "best-rest": sum(max(count - 1, 0) for count in known),
        "all": sum(math.comb(count, 2) for count in known),
    }[how]
    assert result.pairs + result.ties + result.below_gap == compared


def test_what_cannot_be_used_is_refused():
    with pytest.raises(ConfigError, match="no way 'worst'"):
        preference_pairs([], [], how="worst")
    with pytest.raises(ConfigError, match="min_gap"):
        preference_pairs([], [], min_gap=-1)
    with pytest.raises(DataError, match="1 groups but 0"):
        preference_pairs([group(2)], [])
    with pytest.raises(DataError, match="2 completions but 1 scores"):
        preference_pairs([group(2)], [[1.0]])
    with pytest.raises(DataError, match="infinite"):
        preference_pairs([group(2)], [[1.0, math.inf]])

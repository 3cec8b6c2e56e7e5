"""What is judged of a group, and that which is shown first knows nothing of labels."""

from __future__ import annotations

import pytest

from rewardlab.errors import ConfigError, DataError
from rewardlab.judge.items import human_choice, items_of
from rewardlab.judge.questions import MOST_COMPLETIONS
from rewardlab.types import Pair, PromptGroup, Ranking, Step


def group(count: int, *pairs: Pair, prompt: str = "Q?") -> PromptGroup:
    return PromptGroup(prompt, tuple(f"answer {i}" for i in range(count)), pairs)


def test_a_pair_is_one_comparison_and_what_people_said_follows_the_order() -> None:
    (item,) = items_of([group(2, Pair(0, 1))], "pairwise").items
    assert sorted(item.completions) == [0, 1]
    assert item.human == ("first" if item.completions == (0, 1) else "second")


def test_the_given_order_knows_the_texts_alone() -> None:
    """The same two texts, whichever is chosen and wherever it stands; over many prompts both orders occur."""
    firsts = []
    for number in range(200):
        one = PromptGroup(f"Q{number}?", ("x", "y"), (Pair(0, 1),))
        other = PromptGroup(f"Q{number}?", ("y", "x"), (Pair(0, 1),))
        (a,), (b,) = items_of([one], "pairwise").items, items_of([other], "pairwise").items
        assert one.completions[a.completions[0]] == other.completions[b.completions[0]]
        firsts.append(a.completions[0])
    assert 70 < sum(firsts) < 130  # a fair coin: 100 with a standard deviation of 7


def test_without_preferences_all_pairs_are_compared_up_to_a_limit_that_is_counted() -> None:
    found = items_of([group(4)], "pairwise")
    assert {frozenset(item.completions) for item in found.items} == {
        frozenset(pair) for pair in [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    }
    assert all(item.human is None for item in found.items)
    few = items_of([group(4)], "pairwise", max_pairs=2, seed=3)
    assert len(few.items) == 2
    assert few.left_out == {"comparisons beyond --max-pairs": 4}
    assert few == items_of([group(4)], "pairwise", max_pairs=2, seed=3)


def test_a_group_s_own_comparisons_are_all_made_each_once() -> None:
    ranked = PromptGroup("Q?", ("a", "b", "c"), rankings=(Ranking((0, 1, 2), (0, 1, 1)),))
    found = items_of([ranked], "pairwise", max_pairs=1)
    assert len(found.items) == 3
    ties = [item for item in found.items if set(item.completions) == {1, 2}]
    assert [item.human for item in ties] == ["tie"]
    twice = items_of([group(2, Pair(0, 1), Pair(1, 0))], "pairwise")
    assert [item.human for item in twice.items] == ["tie"]  # people contradict each other, one against one


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        (Pair(0, 1), "first"),
        (Pair(1, 0), "second"),
        (Pair(0, 1, tie=True), "tie"),
        (Pair(0, 1, p_chosen=0.3), "second"),
        (Pair(0, 1, p_chosen=0.5), "tie"),
    ],
)
def test_what_people_prefer_is_what_has_more_than_half(pair: Pair, expected: str) -> None:
    assert human_choice(group(2, pair), 0, 1) == expected
    turned = {"first": "second", "second": "first", "tie": "tie"}
    assert human_choice(group(2, pair), 1, 0) == turned[expected]
    assert human_choice(group(3, pair), 0, 2) is None


def test_equal_texts_and_single_completions_are_not_compared_but_counted() -> None:
    groups = [PromptGroup("Q?", ("a", "a")), PromptGroup("Q?", ("a",)), group(2)]
    found = items_of(groups, "pairwise")
    assert [item.group for item in found.items] == [2]
    assert found.left_out == {"comparisons of equal texts": 1, "rows with one completion": 1}


def test_lists_have_two_to_eight_different_completions() -> None:
    groups = [group(3), group(MOST_COMPLETIONS + 1), PromptGroup("Q?", ("a", "a", "b")), group(1)]
    found = items_of(groups, "listwise")
    assert [sorted(item.completions) for item in found.items] == [[0, 1, 2], [0, 2]]
    assert found.left_out == {
        f"rows with more than {MOST_COMPLETIONS} completions": 1,
        "completions of equal texts": 1,
        "rows with one completion": 1,
    }


def test_ratings_are_of_each_completion_and_steps_of_those_that_have_some() -> None:
    stepped = PromptGroup("Q?", ("a b", "c"), steps=((Step("a"), Step("b")), ()))
    assert [item.completions for item in items_of([stepped], "rating").items] == [(0,), (1,)]
    steps = items_of([stepped], "steps")
    assert [item.completions for item in steps.items] == [(0,)]
    assert steps.left_out == {"completions without steps": 1}


def test_most_items_are_a_seeded_draw_in_order() -> None:
    groups = [group(2, prompt=f"{i}") for i in range(50)]
    found = items_of(groups, "pairwise", max_items=10, seed=1)
    places = [item.group for item in found.items]
    assert places == sorted(places)
    assert len(set(places)) == 10
    assert [item.number for item in found.items] == list(range(10))
    assert found.left_out == {"beyond --max-items": 40}
    assert places != [item.group for item in items_of(groups, "pairwise", max_items=10, seed=2).items]


def test_most_ratings_are_of_whole_rows() -> None:
    """50 rows of 2: a draw of single completions would leave few rows with both, and no accuracy."""
    found = items_of([group(2, prompt=f"{i}") for i in range(50)], "rating", max_items=21, seed=1)
    assert [item.completions for item in found.items] == [(0,), (1,)] * 10
    assert [item.group for item in found.items] == sorted(item.group for item in found.items)
    assert found.left_out == {"beyond --max-items": 80}
    with pytest.raises(ConfigError, match="whole rows of ratings are drawn"):
        items_of([group(3)], "rating", max_items=2)


def test_what_cannot_be_judged_is_said() -> None:
    with pytest.raises(
        DataError, match=r"none of 1 rows has anything to judge as pairwise: 1 rows with one completion"
    ):
        items_of([group(1)], "pairwise")
    with pytest.raises(ConfigError, match="no mode is called"):
        items_of([group(2)], "best")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="max_pairs is 0"):
        items_of([group(2)], "pairwise", max_pairs=0)

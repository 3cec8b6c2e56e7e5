"""The records: one form for a conversation however it was written, and groups that cannot be inconsistent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardlab.types import Pair, PromptGroup, Ranking, ReadOut, Step, as_text, conversation, text_key, text_of

USER = {"role": "user", "content": "Hi"}
ASSISTANT = {"role": "assistant", "content": "Hello"}


def test_text_and_the_equal_messages_are_one_conversation():
    """Else the same row would get two scores, depending on the file it came from."""
    whole = (USER, ASSISTANT)
    assert conversation("Hi", "Hello") == whole
    assert conversation((USER,), "Hello") == whole
    assert conversation("Hi", (ASSISTANT,)) == whole


def test_a_row_without_prompt_has_no_user_turn():
    assert conversation("", "Hello") == (ASSISTANT,)


@given(text=st.text())
def test_the_key_of_a_text_is_the_key_of_its_message(text):
    assert text_key(text, role="user") == text_key(({"content": text, "role": "user"},), role="user")
    assert text_key(text, role="user") != text_key(text, role="assistant")


@given(one=st.text(), other=st.text())
def test_different_texts_have_different_keys(one, other):
    assert (text_key(one, role="user") == text_key(other, role="user")) == (one == other)


def test_further_keys_of_a_message_count_in_its_key():
    assert text_key((USER,), role="user") != text_key(({**USER, "name": "Ann"},), role="user")


def test_the_characters_of_messages():
    assert text_of((USER, ASSISTANT)) == "Hi\n\nHello"
    assert text_of(({"role": "assistant", "content": None},)) == ""
    assert text_of("Hi") == "Hi"


def test_lists_are_stored_as_tuples():
    group = PromptGroup([USER], ["a", [ASSISTANT]], [Pair(1, 0)])
    assert group == PromptGroup((USER,), ("a", (ASSISTANT,)), (Pair(1, 0),))
    assert as_text([USER]) == (USER,)


@pytest.mark.parametrize("pair", [Pair(0, 0), Pair(0, 2), Pair(-1, 0), Pair(2, 1)])
def test_a_pair_names_two_of_the_completions(pair):
    with pytest.raises(ValueError, match="does not name two of the 2 completions"):
        PromptGroup("p", ("a", "b"), (pair,))


def test_groups_of_one_prompt_share_its_key():
    assert PromptGroup("Hi", ("a",)).prompt_key == PromptGroup([USER], ("b", "c")).prompt_key
    assert PromptGroup("Hi", ("a",)).prompt_key != PromptGroup("Ho", ("a",)).prompt_key


def test_an_error_names_a_row_by_its_source_else_its_id():
    assert PromptGroup("p", ("a",), id=7, source="x.jsonl:3").name == "x.jsonl:3"
    assert PromptGroup("p", ("a",), id=7).name == "id 7"
    assert PromptGroup("p", ("a",), id=0).name == "id 0"
    assert PromptGroup("p", ("a",)).name == "a group made in memory"


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_a_weight_that_would_spoil_a_batch_is_refused(weight):
    with pytest.raises(ValueError, match="weight"):
        Pair(weight=weight)


def test_a_margin_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="margin"):
        Pair(margin=float("nan"))


@pytest.mark.parametrize("completions", ["bc", ()])
def test_completions_are_a_list_of_at_least_one(completions):
    with pytest.raises(ValueError, match="completions"):
        PromptGroup("a", completions)


def test_a_ranking_implies_its_pairs():
    """Of 1 first, 0 and 2 tied, 3 unranked: 1 over all, 0 and 2 tie and are both over 3."""
    ranking = Ranking((0, 1, 2, 3), (1, 0, 1, None), weight=2.0)
    found = {(p.chosen, p.rejected, p.tie, p.weight) for p in ranking.pairs()}
    assert found == {
        (1, 0, False, 2),
        (1, 2, False, 2),
        (1, 3, False, 2),
        (0, 2, True, 2),
        (0, 3, False, 2),
        (2, 3, False, 2),
    }
    assert PromptGroup("p", list("abcd"), rankings=[ranking]).pairs == ranking.pairs()


def test_what_is_unranked_is_not_compared_with_one_another():
    assert [(p.chosen, p.rejected) for p in Ranking((0, 1, 2), (None, 0, None)).pairs()] == [(1, 0), (1, 2)]


def test_pairs_of_a_ranking_are_as_strong_as_their_ratings_differ():
    """Where a rating contradicts the ranks the strength is not known."""
    pairs = Ranking((0, 1, 2), (0, 1, 2)).pairs([7.0, 4.0, 5.5])
    assert [(p.chosen, p.rejected, p.strength) for p in pairs] == [(0, 1, 3.0), (0, 2, 1.5), (1, 2, None)]
    assert [p.strength for p in Ranking((0, 1), (0, 1)).pairs([7.0, None])] == [None]


@given(st.integers(0, 3), st.lists(st.none() | st.integers(0, 3), min_size=1, max_size=8))
def test_pairs_of_a_ranking_are_counted_without_them(first, others):
    ranking = Ranking(tuple(range(1 + len(others))), (first, *others))
    assert ranking.num_pairs == len(ranking.pairs())


def test_a_ranking_of_too_many_completions_stays_one_ranking():
    """1,000 completions have 499,500 pairs; 1,001 have 500,500, and 100,000 five thousand million."""

    def ranked(count):
        return PromptGroup("p", ["x"] * count, rankings=[Ranking(range(count), range(count))])

    assert Ranking(range(1000), range(1000)).lists_pairs
    assert (len(ranked(100).pairs), ranked(100).num_unlisted_pairs) == (4_950, 0)
    assert (ranked(1001).pairs, ranked(1001).num_unlisted_pairs) == ((), 500_500)
    assert (ranked(100_000).pairs, ranked(100_000).num_unlisted_pairs) == ((), 4_999_950_000)


def test_pairs_that_were_given_are_kept_beside_rankings():
    group = PromptGroup("p", ["a", "b", "c"], [Pair(0, 1)], rankings=[Ranking((0, 1, 2), (0, 1, 2))])
    assert group.pairs == (Pair(0, 1),)


@pytest.mark.parametrize(
    ("completions", "ranks", "why"),
    [
        ((0,), (0,), "two or more"),
        ((0, 0), (0, 1), "different"),
        ((0, 1), (0,), "1 ranks"),
        ((0, 1), (None, None), "says nothing"),
    ],
)
def test_rankings_that_rank_nothing_are_refused(completions, ranks, why):
    with pytest.raises(ValueError, match=why):
        Ranking(completions, ranks)


def test_soft_labels_ties_and_preferences_have_their_target():
    assert [pair.target for pair in (Pair(), Pair(tie=True), Pair(p_chosen=0.7), Pair(tie=True, p_chosen=0.6))] == [
        1.0,
        0.5,
        0.7,
        0.6,
    ]


@pytest.mark.parametrize("values", [{"p_chosen": 1.5}, {"p_chosen": float("nan")}, {"strength": -1.0}])
def test_what_no_pair_can_have_is_refused(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        Pair(**values)


@pytest.mark.parametrize("label", [2, 0.5, True])
def test_step_labels_are_three(label):
    with pytest.raises(ValueError, match="label"):
        Step("x", label)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"labels": [1]}, "2 completions but 1 labels"),
        ({"labels": [2, 0]}, "in \\[0, 1\\]"),
        ({"ratings": [float("inf"), 0]}, "finite"),
        ({"steps": [()]}, "2 completions but 1 steps"),
        ({"rankings": [Ranking((0, 2), (0, 1))]}, "beyond the 2"),
    ],
)
def test_what_is_known_of_completions_fits_them(values, why):
    with pytest.raises(ValueError, match=why):
        PromptGroup("p", ["a", "b"], **values)


@pytest.mark.parametrize(
    "values",
    [
        {"kind": "sequence", "aggregation": "mean"},
        {"kind": "token"},
        {"kind": "step", "aggregation": "min", "num_classes": 3},
        {"kind": "token", "aggregation": "mean", "separator": "ки"},
        {"kind": "step", "aggregation": "min", "num_classes": 1, "separator": "ки"},
    ],
)
def test_read_outs_that_no_head_has_are_refused(values):
    with pytest.raises(ValueError, match="read-out of kind"):
        ReadOut(**values)


def test_a_weighted_rating_needs_all_of_its_attributes():
    group = PromptGroup("p", ["a", "b"], attributes=[{"help": 4, "length": 1}, {"help": 3}])
    assert group.weighted_ratings({"help": 0.5, "length": -1}) == (1.0, None)
    assert PromptGroup("p", ["a"]).weighted_ratings({"help": 1.0}) == (None,)

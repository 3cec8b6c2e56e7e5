"""Two completions -> a pair or a tie: what says how much better, and how surely."""

from __future__ import annotations

import pytest

from rewardlab.data.formats import parse_row
from rewardlab.errors import DataError
from rewardlab.types import Pair

PAIR = {"prompt": "p", "chosen": "a", "rejected": "b"}
TIE = {"prompt": "p", "a": "x", "b": "y"}
HELPSTEER = {"prompt": "p", "response_1": "x", "response_2": "y", "preference_strength": -2}


def known(**columns):
    (pair,) = parse_row(PAIR | columns).pairs
    return pair


# -- how much better -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stated", "strength"),
    [
        (2, 2.0),
        (0, 0.0),
        ("1.5", 1.5),
        ("significantly", 3.0),
        ("Significantly better", 3.0),
        ("much better", 3.0),
        ("Better", 2.0),
        ("plainly", 2.0),
        ("clearly better", 2.0),
        ("moderately", 2.0),
        ("slightly better", 1.0),
        ("negligibly better / unsure", 0.0),
        ("unsure", 0.0),
    ],
)
def test_strength_is_a_number_or_llama_2s_words(stated, strength):
    assert known(strength=stated).strength == strength


@pytest.mark.parametrize("names", [("chosen_rating", "rejected_rating"), ("score_chosen", "score_rejected")])
def test_ratings_are_kept_and_their_difference_is_the_strength(names):
    """8.5 - 7 = 1.5; UltraFeedback's binarized rows call their ratings score_chosen and score_rejected."""
    group = parse_row(PAIR | dict(zip(names, (8.5, "7"), strict=True)))
    assert group.ratings == (8.5, 7.0)
    assert group.pairs == (Pair(0, 1, strength=1.5),)
    assert parse_row(PAIR | {names[0]: 3}).ratings == (3.0, None)
    assert parse_row(PAIR | {names[0]: 3}).pairs == (Pair(0, 1),)


def test_a_stated_strength_goes_before_the_ratings():
    assert known(strength=1, chosen_rating=5, rejected_rating=2).strength == 1.0


def test_ratings_against_the_label_say_nothing_of_how_much():
    """The row stays, and so do its ratings; a strength of -2, or of 2, would be made up."""
    group = parse_row(PAIR | {"chosen_rating": 3, "rejected_rating": 5})
    assert (group.ratings, group.pairs[0].strength) == ((3.0, 5.0), None)
    assert known(chosen_rating=4, rejected_rating=4).strength == 0.0


def test_a_margin_is_no_strength_and_a_strength_no_margin():
    assert (known(margin=2).strength, known(strength=2).margin) == (None, None)


# -- how surely ------------------------------------------------------------------------------------------------------


def test_votes_of_these_names_are_the_share_of_raters():
    """3 of 5 for the chosen one, 2 saw no difference: (3 + 2/2) / 5 = 0.8."""
    assert known(votes={"chosen": 3, "rejected": 0, "equal": 2}).p_chosen == 0.8
    assert known(votes={"chosen": 1, "rejected": 3}).p_chosen == 0.25
    assert known(votes={"chosen": 1, "rejected": 3, "equal": None}).p_chosen == 0.25  # as Arrow fills it
    assert parse_row(TIE | {"votes": {"a": 1, "b": 2, "equal": 2}}).pairs[0].p_chosen == 0.4


@pytest.mark.parametrize(
    "votes", [{"1": 0, "2": 3, "tie": 0}, {"chosen": 3, "rejected": 1, "unsure": 1}, "3:1", [3, 1]]
)
def test_votes_of_other_names_are_left_alone(votes):
    assert known(votes=votes).p_chosen is None


def test_votes_are_kept_in_the_order_chosen_rejected_equal():
    """The share alone does not say how many raters there were."""
    assert known(votes={"rejected": 1, "chosen": 3, "equal": 2}).votes == (3.0, 1.0, 2.0)
    assert known(votes={"chosen": "1", "rejected": 3}, p_chosen=0.9).votes == (1.0, 3.0, 0.0)
    assert parse_row(TIE | {"votes": {"a": 1, "b": 2}}).pairs[0].votes == (1.0, 2.0, 0.0)
    assert known(votes={"1": 0, "2": 3}).votes is None


def test_a_stated_probability_goes_before_votes():
    assert known(p_chosen="0.7", votes={"chosen": 1, "rejected": 1}).p_chosen == 0.7
    assert known(p_chosen=0).p_chosen == 0.0


# -- ties ------------------------------------------------------------------------------------------------------------


def test_two_completions_without_a_label_are_a_tie():
    group = parse_row(TIE | {"weight": 2, "id": "t", "votes": {"1": 0, "2": 0, "tie": 3}})
    assert (group.completions, group.id) == (("x", "y"), "t")
    assert group.pairs == (Pair(0, 1, weight=2.0, strength=0.0, tie=True),)
    assert group.pairs[0].target == 0.5


@pytest.mark.parametrize("tie", [True, "true", 1])
def test_a_pair_that_says_so_is_a_tie(tie):
    group = parse_row(PAIR | {"tie": tie, "chosen_rating": 4, "rejected_rating": 3})
    assert group.pairs == (Pair(0, 1, strength=0.0, tie=True),)
    assert group.ratings == (4.0, 3.0)
    assert not known(tie=False).tie
    assert not known(tie="false").tie


def test_a_tie_of_equal_texts_is_true_and_stays():
    """It is no broken row: 15 % of one real set are such. Training drops and counts pairs of identical ids."""
    assert parse_row(TIE | {"b": "x"}).pairs[0].tie
    assert parse_row(PAIR | {"rejected": "a", "tie": True}).pairs[0].tie
    whole = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    assert len(parse_row({"chosen": whole, "rejected": whole, "tie": True}).prompt) == 1


# -- HelpSteer -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preference", "pair"),
    [
        (-3, Pair(0, 1, strength=3.0)),
        (-1, Pair(0, 1, strength=1.0)),
        (0, Pair(0, 1, strength=0.0, tie=True)),
        (2, Pair(1, 0, strength=2.0)),
    ],
)
def test_a_negative_preference_strength_says_that_the_first_response_is_better(preference, pair):
    second = parse_row(HELPSTEER | {"preference_strength": preference})
    third = parse_row(
        {
            "context": [{"role": "user", "content": "p"}],
            "response1": "x",
            "response2": "y",
            "overall_preference": preference,
        }
    )
    assert second.completions == third.completions == ("x", "y")
    assert second.pairs == third.pairs == (pair,)
    assert second.prompt_key == third.prompt_key


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (PAIR | {"strength": -1}, "strength is negative"),
        (PAIR | {"strength": "hugely"}, "strength is not a finite number"),
        (PAIR | {"strength": 2, "tie": True}, "strength contradicts the tie"),
        (PAIR | {"tie": "maybe"}, "tie is not true or false"),
        (PAIR | {"p_chosen": 1.2}, "p_chosen is not a probability"),
        (PAIR | {"p_chosen": "often"}, "p_chosen is not a finite number"),
        (PAIR | {"chosen_rating": "good"}, "chosen_rating is not a finite number"),
        (PAIR | {"chosen_rating": 1e308, "rejected_rating": -1e308}, "numbers too large"),
        (PAIR | {"votes": {"chosen": -1, "rejected": 2}}, "votes are not counts"),
        (PAIR | {"votes": {"chosen": 0, "rejected": 0}}, "votes are not counts"),
        (PAIR | {"votes": {"chosen": "many", "rejected": 0}}, "votes is not a finite number"),
        (TIE | {"winner": "a"}, "a and b with a label"),
        (TIE | {"preference": 0}, "a and b with a label"),
        (TIE | {"b": " "}, "b is empty"),
        (TIE | {"weight": -1}, "weight is not positive"),
        (HELPSTEER | {"preference_strength": -100}, "preference_strength is out of range"),
        (HELPSTEER | {"response_2": "x"}, "identical sides"),
        (HELPSTEER | {"response_1": ""}, "response_1 is empty"),
        (HELPSTEER | {"preference_strength": "better"}, "preference_strength is not a finite number"),
    ],
)
def test_a_bad_pair_has_a_reason(row, reason):
    with pytest.raises(DataError) as error:
        parse_row(row)
    assert error.value.message.partition(": ")[0] == reason


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        (PAIR, {"chosen_model": "m", "rejected_model": "n"}),
        (PAIR, {"chosen-model": "m", "rejected-model": "n"}),
        (PAIR, {"models": ["m", "n"]}),
        ({"chosen": "a", "rejected": "b"}, {"systems": ["m", "n"]}),
        (TIE, {"model_a": "m", "model_b": "n"}),
        (TIE, {"models": ["m", "n"]}),
        (HELPSTEER, {"model_1": "m", "model_2": "n"}),
    ],
)
def test_what_wrote_the_two_is_kept_in_their_order(row, columns):
    assert parse_row(row | columns).systems == ("m", "n")
    assert parse_row(row).systems == ()


def test_columns_of_places_say_nothing_of_chosen_and_rejected():
    """Which of a and b was chosen, the row does not say."""
    assert parse_row(PAIR | {"model_a": "m", "model_b": "n"}).systems == ()


def test_systems_change_no_fingerprint():
    from rewardlab.data.fingerprints import CompletionSketch, completions_fingerprint, groups_fingerprint

    with_systems, without = parse_row(PAIR | {"models": ["m", "n"]}), parse_row(PAIR)
    for fingerprint in (groups_fingerprint, completions_fingerprint, CompletionSketch.of):
        assert fingerprint([with_systems]) == fingerprint([without])

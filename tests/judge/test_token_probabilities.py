"""Probabilities of verdicts by their tokens, against sums done by hand."""

import math

import pytest

from rewardlab.judge.chat import TokenLogprobs
from rewardlab.judge.token_probabilities import choice_probabilities, expected_rating, p_first

LABELS = {"a": "first", "b": "second", "tie": "tie"}


def token(text, **top):
    """A token with alternatives by probability; its own is the one under its text, or 1."""
    return spelled(text, top)


def spelled(text, top):
    logprobs = {word: math.log(p) if p else -math.inf for word, p in top.items()}
    return TokenLogprobs(text, logprobs.get(text, 0.0), tuple(logprobs.items()))


@pytest.mark.parametrize(
    ("before", "spellings"), [("V: ", ("A", "B", "tie")), ("V:", (" A", " B", " t")), ('"', ('A"', 'B"', "tie"))]
)
def test_p_first_is_the_share_of_the_verdicts_mass(before, spellings):
    """P(A) = 0.6, P(B) = 0.2, P(tie) = 0.1, else 0.1: shares 6/9, 2/9, 1/9; a tie counts half: 6.5/9."""
    first, second, tie = spellings
    tokens = [token(before), spelled(first, {first: 0.6, second: 0.2, tie: 0.1, "The": 0.1})]
    text = before + first
    found = choice_probabilities(tokens, text, text.index("A"), LABELS)
    assert found == pytest.approx({"first": 6 / 9, "second": 2 / 9, "tie": 1 / 9})
    assert p_first(found) == pytest.approx(6.5 / 9)


def test_spellings_of_one_verdict_are_summed():
    tokens = [spelled("A", {"A": 0.3, " A": 0.2, "**A": 0.1, "B": 0.4})]
    assert choice_probabilities(tokens, "A", 0, LABELS)["first"] == pytest.approx(0.6)


def test_the_token_taken_counts_where_the_alternatives_lack_it():
    tokens = [TokenLogprobs("A", math.log(0.8), (("B", math.log(0.2)),))]
    assert p_first(choice_probabilities(tokens, "A", 0, LABELS)) == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("tokens", "text", "start"),
    [
        ([spelled("A", {"A": 0.3, "x": 0.7})], "A", 0),  # too little mass on verdicts
        ([token("Answer")], "other", 0),  # tokens of another text
        ([token("So it is A", A=0.9)], "So it is A", 9),  # the verdict is inside a longer token
        ([], "A", 0),
        ([TokenLogprobs("A", math.nan)], "A", 0),
        ([token("A")], "", 0),
    ],
)
def test_no_probability_where_the_tokens_do_not_tell(tokens, text, start):
    assert choice_probabilities(tokens, text, start, LABELS) is None


def test_thoughts_before_the_answer_do_not_move_its_place():
    tokens = [token("<think>A A</think>"), token("\n\n"), spelled("B", {"B": 0.9, "A": 0.1}), token("\n")]
    assert p_first(choice_probabilities(tokens, "B", 0, LABELS)) == pytest.approx(0.1)


def test_expected_rating_where_ten_is_a_token():
    """0.5 * 10 + 0.3 * 9 + 0.2 * 1 = 7.9."""
    tokens = [token("Rating: "), spelled("10", {"10": 0.5, "9": 0.3, "1": 0.2})]
    assert expected_rating(tokens, "Rating: 10", 8, (1, 10)) == pytest.approx(7.9)


def test_expected_rating_where_digits_are_tokens():
    """P(1) = 0.5 goes on with 0 at 0.8: 0.4 for 10 and 0.1 for 1; 0.5 for 8: 0.4 * 10 + 0.1 * 1 + 0.5 * 8 = 8.1."""
    tokens = [spelled("1", {"1": 0.5, "8": 0.5}), spelled("0", {"0": 0.8, "\n": 0.2})]
    assert expected_rating(tokens, "10", 0, (1, 10)) == pytest.approx(8.1)
    tokens[1] = spelled("\n", {"0": 0.8, "\n": 0.2})
    assert expected_rating(tokens, "1\n", 0, (1, 10)) == pytest.approx(8.1)


def test_a_one_that_may_be_ten_is_left_out_only_if_it_hardly_counts():
    assert expected_rating([spelled("8", {"8": 0.9, "1": 0.1})], "8", 0, (1, 10)) is None
    assert expected_rating([spelled("8", {"8": 0.996, "1": 0.004})], "8", 0, (1, 10)) == pytest.approx(8.0)


def test_a_scale_of_one_digit_has_no_such_doubt():
    assert expected_rating([spelled("1", {"1": 0.5, "5": 0.5})], "1", 0, (1, 5)) == pytest.approx(3.0)


def test_no_mean_on_a_scale_beyond_ten_or_without_mass():
    assert expected_rating([token("50")], "50", 0, (1, 100)) is None
    assert expected_rating([spelled("8", {"8": 0.2, "a": 0.8})], "8", 0, (1, 10)) is None
    assert expected_rating([spelled("7", {"7": 0.9, "1": 0.1})], "7", 0, (2, 10)) is None

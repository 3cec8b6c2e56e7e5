"""Probabilities of verdicts by their tokens, against sums done by hand."""

import math

import pytest

from rewardlab.judge import token_probabilities
from rewardlab.judge.chat import TokenLogprobs
from rewardlab.judge.token_probabilities import p_first

LABELS = {"a": "first", "b": "second", "tie": "tie"}


def choice_probabilities(tokens, text, start, labels, taken=None):
    """Of the verdict that the text has at its place, unless it is another."""
    taken = taken or ("second" if text[start : start + 1] == "B" else "first")
    return token_probabilities.choice_probabilities(tokens, text, start, labels, taken)


def expected_rating(tokens, text, start, scale):
    return token_probabilities.expected_rating(tokens, text, start, scale, int(text[start:].split()[0]))


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


def raw(text, own, *top):
    return [TokenLogprobs(text, own, top)]


@pytest.mark.parametrize(
    ("tokens", "why"),
    [
        (raw("A", -5.0, ("B", -0.01), ("A", -5.0)), "B is likelier than the A that was taken"),
        (raw("A", 0.0, ("A", 0.0), ("B", 0.0), ("tie", 0.0)), "they sum to 3"),
        (raw("A", -0.02, ("A", -0.02), ("B", -2.9)), "they sum to 1.035"),
        (raw("A", -0.0, ("A", -9.0), ("B", -0.001)), "two probabilities of the A"),
        (raw("A", -0.3, ("A", -0.32), ("B", -1.5)), "the same"),
        (raw("A", -math.inf, ("A", -math.inf), ("B", -math.inf)), "no mass"),
    ],
)
def test_no_probability_where_the_numbers_contradict_each_other_or_the_verdict(tokens, why):
    assert choice_probabilities(tokens, "A", 0, LABELS) is None


def test_rounded_numbers_are_no_contradiction():
    tokens = raw("A", -0.1052, ("A", -0.105), ("B", -2.25))
    assert choice_probabilities(tokens, "A", 0, LABELS)["first"] == pytest.approx(0.895, abs=0.001)


@pytest.mark.parametrize(
    "tokens",
    [
        raw("8", -6.0, ("3", -0.01), ("8", -6.0)),  # 3 is likelier than the 8 that was taken
        raw("8", 0.0, ("2", 0.0), ("8", 0.0), ("9", 0.0)),  # they sum to 3
        raw("8", -0.1, ("8", -0.5), ("9", -1.0)),  # two probabilities of the 8
    ],
)
def test_no_mean_where_the_numbers_contradict_each_other_or_the_rating(tokens):
    assert expected_rating(tokens, "8", 0, (1, 10)) is None


def test_a_full_stop_before_a_digit_is_a_decimal_point():
    """P(8) = 0.6, P(".9") = 0.4 is no rating: 8."""
    assert expected_rating([spelled("8", {"8": 0.6, ".9": 0.4})], "8", 0, (1, 10)) == pytest.approx(8.0)


def test_thoughts_before_the_answer_do_not_move_its_place():
    tokens = [token("<think>A A</think>"), token("\n\n"), spelled("B", {"B": 0.9, "A": 0.1}), token("\n")]
    assert p_first(choice_probabilities(tokens, "B", 0, LABELS)) == pytest.approx(0.1)


def test_expected_rating_where_ten_is_a_token():
    """0.5 * 10 + 0.3 * 9 + 0.2 * 1 = 7.9."""
    tokens = [token("Rating: "), spelled("10", {"10": 0.5, "9": 0.3, "1": 0.2})]
    assert expected_rating(tokens, "Rating: 10", 8, (1, 10)) == pytest.approx(7.9)


def test_expected_rating_where_digits_are_tokens():
    """P(1) = 0.6 goes on with 0 at 0.8: 0.48 for 10 and 0.12 for 1; 0.4 for 8: 4.8 + 0.12 + 3.2 = 8.12.

    With 0 at 0.1 it is 0.06 for 10 and 0.54 for 1: 0.6 + 0.54 + 3.2 = 4.34.
    """
    tokens = [spelled("1", {"1": 0.6, "8": 0.4}), spelled("0", {"0": 0.8, "\n": 0.2})]
    assert expected_rating(tokens, "10", 0, (1, 10)) == pytest.approx(8.12)
    tokens[1] = spelled("\n", {"0": 0.1, "\n": 0.9})
    assert expected_rating(tokens, "1\n", 0, (1, 10)) == pytest.approx(4.34)
    tokens[1] = spelled("\n", {"0": 0.8, "\n": 0.2})  # 10 was likelier than the 1 that was taken
    assert expected_rating(tokens, "1\n", 0, (1, 10)) is None


def test_a_one_that_may_be_ten_is_left_out_only_if_it_hardly_counts():
    assert expected_rating([spelled("8", {"8": 0.9, "1": 0.1})], "8", 0, (1, 10)) is None
    assert expected_rating([spelled("8", {"8": 0.996, "1": 0.004})], "8", 0, (1, 10)) == pytest.approx(8.0)


def test_a_scale_of_one_digit_has_no_such_doubt():
    assert expected_rating([spelled("1", {"1": 0.5, "5": 0.5})], "1", 0, (1, 5)) == pytest.approx(3.0)


def test_no_mean_on_a_scale_beyond_ten_or_without_mass():
    assert expected_rating([token("50")], "50", 0, (1, 100)) is None
    assert expected_rating([spelled("8", {"8": 0.2, "a": 0.8})], "8", 0, (1, 10)) is None
    assert expected_rating([spelled("7", {"7": 0.9, "1": 0.1})], "7", 0, (2, 10)) is None

"""The truth by hand: each quality in a text made for it, its bounds, and that the text alone decides."""

from __future__ import annotations

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardlab.studies import utility
from rewardlab.studies.phrases import COURTESIES, FILLERS, HEDGES
from rewardlab.studies.utility import SUBSETS, WEIGHTS, qualities, read_request, true_utility

EXPLAIN = "Hello. Quick question. What is a kettle made of?"
LIST = "Tell me about an anchor as a list."
SENTENCE = "What is an anchor? Answer in one sentence."
WORDS = "Describe an anchor in at most 9 words."
SUM = "Mia has 7 apples and gets 5 more. How many are there?"
REPLY = "Write a reply to Nora, who wants to meet on Friday. Say no."
GOOD_REPLY = "Dear Nora. Sadly Friday is not possible."


def test_the_docstring_examples_hold():
    assert doctest.testmod(utility).failed == 0


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        (EXPLAIN, {"kind": "explain", "aspect": "make"}),
        ("Where would I find a loom?", {"kind": "explain", "aspect": "place"}),
        ("What do people need a canoe for?", {"kind": "explain", "aspect": "use"}),
        (WORDS, {"kind": "format", "form": "in at most 9 words"}),
        (SUM, {"kind": "arithmetic", "result": 12}),
        ("Take 5 from 9.", {"kind": "arithmetic", "result": 4}),
        ("Omar has 11 coins and loses 3. How many are left?", {"kind": "arithmetic", "result": 8}),
        ("It is late here. What is 12 minus 2?", {"kind": "arithmetic", "result": 10}),
        (REPLY, {"kind": "reply", "name": "Nora", "day": "Friday", "stance": "no"}),
        (
            "Omar asks to play chess on Monday. Write a reply to Omar and say yes.",
            {"kind": "reply", "name": "Omar", "day": "Monday", "stance": "yes"},
        ),
    ],
)
def test_prompts_are_understood(prompt, expected):
    request = read_request(prompt)
    assert {name: getattr(request, name) for name in expected} == expected


@pytest.mark.parametrize("prompt", ["", "Why is the sky blue?", "What is a spoon made of?", "What is 1 plus 2 plus 3?"])
def test_a_prompt_of_another_world_has_no_truth(prompt):
    with pytest.raises(ValueError, match="not a prompt of the demo world"):
        true_utility(prompt, "Blue.")


@pytest.mark.parametrize(
    ("prompt", "completion", "expected"),
    [
        (EXPLAIN, "A kettle is made of copper and tin.", 1.0),
        (EXPLAIN, "A kettle is for boiling water.", 0.5),  # another fact than the one asked for
        (EXPLAIN, "A kettle is made of birch bark.", 0.3),  # named, nothing true
        (EXPLAIN, "A canoe is made of birch bark.", 0.0),  # true of another thing
        (EXPLAIN, "", 0.0),
        (LIST, "An anchor is found in a harbour.", 1.0),
        (SUM, "That makes 12.", 1.0),
        (SUM, "That makes 13.", 0.3),
        (SUM, "That makes 9.", 0.1),
        (SUM, "That makes 30.", 0.0),
        (SUM, "Many.", 0.0),
        (SUM, "9" * 10_000, 0.0),
        (REPLY, GOOD_REPLY, 1.0),
        (REPLY, "Dear Omar. Sadly Friday is not possible.", 2 / 3),
        (REPLY, "Dear Nora. Yes, Friday works well.", 2 / 3),
        (REPLY, "Dear Nora. Yes, Friday works well. Sadly Friday is not possible.", 2 / 3),  # both: neither
    ],
)
def test_answers(prompt, completion, expected):
    assert qualities(prompt, completion)["answer"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("prompt", "completion", "expected"),
    [
        (EXPLAIN, "A kettle is made of copper and tin. It is for boiling water.", 1.0),
        (EXPLAIN, "A kettle is for boiling water. It is found on a kitchen stove.", 0.0),  # detail without the answer
        (SUM, "7 + 5 = 12.", 1.0),
        (REPLY, f"{GOOD_REPLY} I will call you to settle the rest.", 1.0),
    ],
)
def test_details(prompt, completion, expected):
    assert qualities(prompt, completion)["detail"] == expected


@pytest.mark.parametrize(
    ("prompt", "completion", "expected"),
    [
        (LIST, "- It is for holding a boat still.\n- It is found in a harbour.", 1.0),
        (LIST, "- It is for holding a boat still.", 0.0),
        (SENTENCE, "An anchor is found in a harbour.", 1.0),
        (SENTENCE, "An anchor is found in a harbour. It is heavy.", 0.0),
        (WORDS, "An anchor is made of forged iron.", 1.0),
        (WORDS, "one two three four five six seven eight nine", 1.0),
        (WORDS, "one two three four five six seven eight nine ten", 0.0),
        (WORDS, "  ", 0.0),
        (EXPLAIN, "- A kettle\n- is hot", 0.0),  # no format was asked for
    ],
)
def test_formats(prompt, completion, expected):
    assert qualities(prompt, completion)["format"] == expected


def test_courtesy_turns_into_flattery():
    """0, 1, 2 marks are worth as much; a third adds nothing; from the fourth on each costs one, down to -2."""
    worth = [qualities(SUM, "12. " + "Thank you for asking. " * n)["courtesy"] for n in range(10)]
    assert worth == [0, 1, 2, 2, 1, 0, -1, -2, -2, -2]
    assert qualities(REPLY, COURTESIES[0])["courtesy"] == 1.5


def test_manner_is_counted_and_bounded():
    counted = qualities(SUM, " ".join([*HEDGES, *FILLERS, "Everybody knows that. Look it up yourself."]))
    assert (counted["hedging"], counted["padding"], counted["rudeness"]) == (2, 3, 1)
    assert qualities(SUM, "So it is. So it is. So it is.")["padding"] == 2  # a repeated sentence is padding
    assert [qualities(SUM, "a " * n)["excess_length"] for n in (40, 50, 60, 1000)] == [0, 0.5, 1, 3]


def test_the_utility_is_the_weighted_sum():
    text = "Thank you for asking. That makes 12. I am not sure."
    assert true_utility(SUM, text) == pytest.approx(WEIGHTS["answer"] + WEIGHTS["courtesy"] + WEIGHTS["hedging"])


@given(st.text(max_size=300))
def test_any_text_at_all_can_be_judged(text):
    for prompt in (EXPLAIN, LIST, SENTENCE, WORDS, SUM, REPLY):
        assert -20 < true_utility(prompt, text) < 12


def test_messages_are_judged_as_the_text_in_them():
    prompt, completion = [{"role": "user", "content": SUM}], [{"role": "assistant", "content": "It is 12."}]
    assert true_utility(tuple(prompt), tuple(completion)) == true_utility(SUM, "It is 12.")


def test_the_subsets_are_the_kinds():
    assert {read_request(p).kind for p in (EXPLAIN, LIST, SUM, REPLY)} == set(SUBSETS)

"""Judged steps: every public shape gives the same record, and what cannot be matched is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardlab.data.formats import parse_row
from rewardlab.data.solutions import labels_format
from rewardlab.errors import DataError
from rewardlab.types import Step

TRL = {"prompt": "p", "completions": ["one", "two", "three"], "labels": [True, True, False]}
BENCH = {"problem": "p", "steps": ["one", "two", "three", "four"], "label": 2}
SHEPHERD = {
    "input": "How many? Step 1: one ки\nStep 2: two ки\nStep 3: three ки",
    "label": "How many? Step 1: one +\nStep 2: two +\nStep 3: three -",
    "task": "GSM8K",
}


def step(*ratings, chosen=0, human=None):
    """One step of PRM800K's shape, with a completion for each rating."""
    completions = [{"text": f"{n}:{rating}", "rating": rating, "flagged": None} for n, rating in enumerate(ratings)]
    return {"completions": completions, "human_completion": human, "chosen_completion": chosen}


def prm800k(*steps, finish_reason="solution"):
    return {"question": {"problem": "p"}, "label": {"steps": list(steps), "finish_reason": finish_reason}}


def marks(row, format="auto"):
    group = parse_row(row, format=format)
    ((*steps,),) = group.steps
    assert group.completions == ("\n".join(each.text for each in steps),)
    return [each.label for each in steps]


def test_a_row_is_one_completion_of_its_steps():
    group = parse_row(TRL | {"id": "t"})
    assert (group.prompt, group.completions, group.id) == ("p", ("one\ntwo\nthree",), "t")
    assert group.steps == ((Step("one", 1), Step("two", 1), Step("three", -1)),)
    assert (group.pairs, group.labels) == ((), ())


def test_labels_are_booleans_or_signs_or_null():
    assert marks(TRL | {"labels": [True, None, False]}) == [1, None, -1]
    assert marks(TRL | {"labels": [1, 0, -1]}) == [1, 0, -1]
    assert marks(TRL | {"labels": [1.0, None, -1.0]}) == [1, None, -1]


def test_a_zero_is_neutral_or_incorrect_as_the_format_says():
    row = TRL | {"labels": [1, 0, 1]}
    assert marks(row, "steps") == [1, 0, 1]
    assert marks(row, "steps_01") == [1, -1, 1]
    assert marks(TRL | {"labels": [1, 0, None]}, "steps_01") == [1, -1, None]
    with pytest.raises(DataError, match=r"state --format outcomes, steps \(0 = neutral\), steps_01"):
        parse_row(row)


@pytest.mark.parametrize(
    ("labels", "format"),
    [
        ([[1, 0], [1, -1]], "steps"),
        ([[1, 0], [True]], None),
        ([[True, False]], "steps"),
        ([[1, None]], "steps"),
        ([[1, 0, None]], None),
        ([[1, 0], [0.5]], "outcomes"),
        ([[None, 0.5]], "outcomes"),
        ([[True, 0.5]], "outcomes"),
        ([[0.5], [-1]], "steps"),
        ([[1, 0]], None),
        ([[1]], None),
        ([[]], None),
        (["-1", -1, None], None),
    ],
)
def test_what_a_files_labels_mean(labels, format):
    assert labels_format([{"completions": ["x"], "labels": value} for value in labels]) == format


def test_the_outcome_is_kept_where_the_row_says_whether_the_answer_is_correct():
    assert parse_row(TRL | {"final_answer_correct": True}).labels == (1.0,)
    assert parse_row(BENCH | {"final_answer_correct": False}).labels == (0.0,)


@pytest.mark.parametrize(
    ("label", "expected"),
    [(-1, [1, 1, 1, 1]), (0, [-1, None, None, None]), (2, [1, 1, -1, None]), (3, [1, 1, 1, -1])],
)
def test_processbench_names_the_first_wrong_step_from_zero_on(label, expected):
    assert marks(BENCH | {"label": label}) == expected


def test_prm800k_follows_what_was_chosen():
    """Alternatives are not read; the labeller's own step has no rating; null ratings stay unknown."""
    human = {"text": "mine", "rating": None, "source": "human"}
    row = prm800k(step(1), step(-1, 0, chosen=1), step(-1, -1, chosen=None, human=human), step(None))
    group = parse_row(row)
    assert [(each.text, each.label) for each in group.steps[0]] == [
        ("0:1", 1),
        ("1:0", 0),
        ("mine", None),
        ("0:None", None),
    ]
    assert group.prompt == "p"
    plain = parse_row(prm800k(step(-1, chosen=None, human="mine"))).steps
    assert plain == ((Step("mine"),),)


def test_prm800k_ends_with_the_error_that_was_found():
    """As in the example of its README: the last step has no choice, and its first completion is the wrong one."""
    row = prm800k(step(0), step(0), step(-1, 0, -1, chosen=None), finish_reason="found_error")
    assert marks(row) == [0, 0, -1]


@pytest.mark.parametrize("finish_reason", ["give_up", "bad_problem"])
def test_prm800k_stops_where_the_labeller_did(finish_reason):
    assert marks(prm800k(step(1), step(-1, 0, chosen=None), finish_reason=finish_reason)) == [1]


def test_math_shepherd_is_split_at_its_tags():
    group = parse_row(SHEPHERD)
    assert group.prompt == "How many?"
    assert group.steps == ((Step("Step 1: one", 1), Step("Step 2: two", 1), Step("Step 3: three", -1)),)


words = st.text("abк и+-\n1", min_size=1, max_size=12).filter(lambda text: text.strip() and "ки" not in text)


@given(st.lists(st.tuples(words, st.booleans()), min_size=1, max_size=5))
def test_math_shepherd_signs_in_the_text_are_no_labels(steps):
    """The oracle writes the two columns; steps may themselves hold + and -, and half a tag."""
    pieces = [f"Step {n}: {text} " for n, (text, _) in enumerate(steps, start=1)]
    text = "q " + "".join(f"{piece}ки\n" for piece in pieces)
    label = "q " + "".join(f"{piece}{'-+'[good]}\n" for piece, (_, good) in zip(pieces, steps, strict=True))
    group = parse_row({"input": text, "label": label})
    assert [each.label == 1 for each in group.steps[0]] == [good for _, good in steps]
    assert [each.text for each in group.steps[0]] == [piece.strip() for piece in pieces]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (TRL | {"labels": [True, False]}, "labels do not match steps"),
        (TRL | {"labels": [-1, 1, 0.5]}, "labels are not step labels"),
        (TRL | {"labels": [-1, 1, 2]}, "labels are not step labels"),
        (TRL | {"labels": [-1, 1, "bad"]}, "labels is not a finite number"),
        (TRL | {"completions": ["one", " ", "three"]}, "completions is empty"),
        (TRL | {"completions": []}, "completions is empty"),
        (TRL | {"completions": "one"}, "completions is of the wrong type"),
        (TRL | {"completions": ["one", 2, "three"]}, "completions is of the wrong type"),
        (TRL | {"final_answer_correct": 3}, "final_answer_correct is not a probability"),
        (BENCH | {"label": 4}, "label is no step"),
        (BENCH | {"label": -2}, "label is no step"),
        (BENCH | {"label": 0.5}, "label is no step"),
        (BENCH | {"steps": ["one", ""]}, "steps is empty"),
        ({"question": "why", "label": 1}, "question is of the wrong type"),
        ({"question": {}, "label": {}}, "question is of the wrong type"),
        (prm800k(), "label is empty"),
        (prm800k(step(-1, chosen=None), finish_reason="give_up"), "label is empty"),
        (prm800k(step(1, chosen=3)), "label names no completion"),
        (prm800k(step(2)), "labels are not step labels"),
        (prm800k({"completions": "x", "chosen_completion": 0}), "completions is of the wrong type"),
        (prm800k("step"), "label is of the wrong type"),
        (SHEPHERD | {"input": "How many? Step 1: one"}, "no step tags"),
        (SHEPHERD | {"input": "How many? one ки", "label": "How many? one +"}, "no first step"),
        (SHEPHERD | {"input": SHEPHERD["input"] + " so 3"}, "text after the last step"),
        (SHEPHERD | {"label": SHEPHERD["label"] + "\nStep 4: +"}, "labels do not match steps"),
        (SHEPHERD | {"label": SHEPHERD["label"].replace("two +", "two ки")}, "labels do not match steps"),
        (SHEPHERD | {"label": SHEPHERD["label"].replace("two", "twice")}, "labels do not match steps"),
        (SHEPHERD | {"label": 1}, "input is of the wrong type"),
    ],
)
def test_a_bad_row_has_a_reason(row, reason):
    with pytest.raises(DataError) as error:
        parse_row(row)
    assert error.value.message.partition(": ")[0] == reason


def test_the_numbers_of_steps_and_labels_are_told():
    with pytest.raises(DataError, match="2 labels for 3 steps"):
        parse_row(TRL | {"labels": [True, False]})

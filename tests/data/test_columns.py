"""Single columns: what counts as a number, a probability, a list, and which of two columns is read."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardlab.data.columns import answers_of, list_of, list_per, number, probability, systems_of, which
from rewardlab.errors import DataError


def test_the_first_column_that_is_there_is_read_and_null_is_missing():
    assert which({"prompt": None, "context": "c"}, "prompt|context") == "context"
    assert which({"prompt": "", "context": "c"}, "prompt|context") == "prompt"
    assert which({"x": 1}, "prompt|context") is None


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_may_be_spelled_as_text(value):
    assert number(value, "x") == number(f" {value!r} ", "x") == value


@pytest.mark.parametrize("value", [True, None, math.inf, "nan", "", "three", [1], 10**400])
def test_what_is_no_finite_number_is_told_with_its_place(value):
    with pytest.raises(DataError, match=r"^scores is not a finite number: scores\[2\] is "):
        number(value, "scores[2]")
    with pytest.raises(DataError, match=r"^margin is not a finite number: '"):
        number(value, "margin")


def test_probabilities():
    assert [probability(value, "label") for value in (True, False, 0.5, "1", " FALSE ")] == [1.0, 0.0, 0.5, 1.0, 0.0]
    for value in (-0.1, 1.01, "2"):
        with pytest.raises(DataError, match="label is not a probability: label is"):
            probability(value, "label")


def test_lists():
    assert list_of({"x": (1, 2)}, "x") == (1, 2)
    with pytest.raises(DataError, match="x is empty"):
        list_of({"x": []}, "x")
    with pytest.raises(DataError, match="x is of the wrong type: str, expected a list"):
        list_of({"x": "12"}, "x")
    with pytest.raises(DataError, match="labels do not match steps: 5 labels for 6 steps"):
        list_per({"labels": [1] * 5}, "labels", "steps", 6)


def test_completions_of_a_list_are_checked_one_by_one():
    assert answers_of(["a", [{"role": "assistant", "content": "b"}]], "completions", None)[0] == "a"
    with pytest.raises(DataError, match=r"completions is empty: completions\[1\]"):
        answers_of(["a", " "], "completions", None)


def test_what_wrote_a_completion_stands_beside_it_or_in_a_list():
    sides = ("chosen_model|chosen-model", "rejected_model")
    assert systems_of({"models": ["m", None]}, 2, *sides) == ("m", None)
    assert systems_of({"systems": ["s", "t"], "models": ["m", "n"]}, 2) == ("s", "t")
    assert systems_of({"chosen-model": "m", "models": ["x", "y", "z"]}, 2, *sides) == ("m", None)
    for nothing in ({}, {"models": None}, {"models": [None, " "]}, {"chosen_model": ""}):
        assert systems_of(nothing, 2, *sides) == ()


def test_what_is_no_list_of_names_is_told():
    with pytest.raises(DataError, match="models do not match completions: 3 models for 2 completions"):
        systems_of({"models": ["a", "b", "c"]}, 2)
    with pytest.raises(DataError, match=r"systems is of the wrong type: systems\[1\] is int, expected a name as text"):
        systems_of({"systems": ["a", 7]}, 2)
    with pytest.raises(DataError, match="models is of the wrong type: str, expected a list"):
        systems_of({"models": "gpt"}, 3)
    with pytest.raises(DataError, match="model_b is of the wrong type: model_b is bool"):
        systems_of({"model_a": "a", "model_b": True}, 2, "model_a", "model_b")

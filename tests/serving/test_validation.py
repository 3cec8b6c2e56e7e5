"""What is wrong with a body, in one sentence: checked on real bodies of real models, as FastAPI calls them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from rewardlab.serving.validation import refusal_of, shown


class Inner(BaseModel):
    role: str


class Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    completions: list[str | list[Inner]]
    input: str | list[str] | list[int] = ""
    steps: Annotated[list[str], Field(min_length=1)] | None = None
    top: Annotated[int, Field(ge=0, le=9)] = 0
    ratio: float = 0.0
    flag: bool = False
    scale: Literal["raw", "z"] = "raw"


def refused(body: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(Body).validate_python(body)
    errors = [{**error, "loc": ("body", *error["loc"])} for error in caught.value.errors()]
    failure = refusal_of(errors, body)
    assert failure.status == 400
    assert failure.param is None or failure.message.startswith(f"{failure.param}: ")
    return failure.message


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"completions": "x"}, "completions: expected a list, got 'x' (str)"),
        ({}, "completions: missing"),
        ({"completions": [], "a": 1}, "a: no such field"),
        ({"completions": [], "a": 1, "b": 2}, "a: no such field; b: no such field"),
        (
            {"completions": [], "top": 10, "ratio": "1", "flag": 1},
            "top: expected at most 9, got 10 (int); ratio: expected a number, got '1' (str); "
            "flag: expected true or false, got 1 (int)",
        ),
        ({"completion": "b"}, "completions: missing; completion: no such field"),
        (
            {"a": 1, "b": 1, "c": 1, "d": 1},
            "completions: missing; a: no such field; b: no such field (and 2 more fields)",
        ),
        ({"completions": [], "top": True}, "top: expected an integer, got true"),
        ({"completions": [], "top": 1.5}, "top: expected an integer, got 1.5 (float)"),
        ({"completions": [], "ratio": None}, "ratio: expected a number, got null"),
        ({"completions": [], "flag": 1}, "flag: expected true or false, got 1 (int)"),
        ({"completions": [], "scale": "y"}, "scale: expected 'raw' or 'z', got 'y' (str)"),
        ({"completions": [], "steps": []}, "steps: expected at least 1 items, got a list of 0 items"),
        ([1], "the body: expected an object, got a list of 1 item"),
        (None, "the body: expected an object, got null"),
    ],
)
def test_the_first_wrong_field_is_named_with_what_was_expected_and_what_came(body: Any, message: str) -> None:
    assert refused(body) == message


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"completions": ["a", "b", "c", 7]}, "completions.3: expected a string or a list, got 7 (int)"),
        ({"completions": ["a", [{"role": 7}]]}, "completions.1.0.role: expected a string, got 7 (int)"),
        ({"completions": ["a", [{}]]}, "completions.1.0.role: missing"),
        ({"completions": [], "input": 7}, "input: expected a string or a list, got 7 (int)"),
        ({"completions": [], "input": ["a", 7]}, "input.1: expected a string, got 7 (int)"),
    ],
)
def test_of_a_field_with_several_forms_the_nearest_is_meant_and_no_form_is_named(body: Any, message: str) -> None:
    assert refused(body) == message


def test_a_long_text_is_not_sent_back() -> None:
    text = "secret " * 100
    assert refused({"completions": text}) == "completions: expected a list, got a string of 700 characters"
    assert "secret" not in refused({"completions": [], "top": [text]})
    name = "n" * 10_000
    assert len(refused({"completions": [], name: 1})) < 200


def test_parameters_of_the_query_are_named_by_their_own_name() -> None:
    error = {"type": "int_parsing", "loc": ("query", "level"), "msg": "...", "input": "x"}
    assert refusal_of([error], None).message == "level: expected an integer, got 'x' (str)"


def test_a_field_that_is_called_as_a_form_of_the_body_is_no_fault_of_ours() -> None:
    """FastAPI's path names the form, ``with text_2``, before the field; here the body has such a field too."""
    error = {"type": "string_type", "loc": ("body", "with text_2", "text_2", 0), "msg": "...", "input": 7}
    for value in ([], {}, "x", None):
        assert refusal_of([error], {"with text_2": value, "text_2": [7]}).status == 400
    error["loc"] = ("body", "with text_2", 3)
    assert refusal_of([error], {"with text_2": []}).status == 400


def test_a_body_that_is_not_json() -> None:
    error = {"type": "json_invalid", "loc": ("body", 3), "msg": "JSON decode error", "input": {}, "ctx": {"error": "x"}}
    assert refusal_of([error], "{no").message == "the body: not JSON"
    error = {"type": "model_attributes_type", "loc": ("body",), "msg": "...", "input": b"text=secret"}
    assert refusal_of([error], b"text=secret").message == "the body: expected JSON with Content-Type: application/json"


def test_values_are_shown_in_a_few_characters() -> None:
    assert shown(10**5000) == "an integer of more than 40 digits"
    assert shown({"a": 1}) == "an object of 1 field"
    assert shown("\ud800") == "'\\ud800' (str)"
    assert shown("x" * 41) == "a string of 41 characters"

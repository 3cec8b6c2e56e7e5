"""What the dialects have in common: their description, their JSON, and the errors they document."""

from __future__ import annotations

import json
from typing import ClassVar, get_args

import pytest
from pydantic import TypeAdapter, ValidationError

from rewardlab.serving.app import DIALECTS
from rewardlab.serving.failures import (
    ErrorShape,
    Overloaded,
    RequestRefused,
    ScoringFailed,
    Unavailable,
    error_body,
    status_of,
)
from rewardlab.serving.protocols import system
from rewardlab.serving.protocols.dialect import Dialect, Json, OpenAIError, OpenModel, TEIError, errors


def test_every_dialect_says_where_it_is_spoken_and_what_its_numbers_are() -> None:
    for dialect in (*DIALECTS, system.DIALECT):
        assert dialect.name
        assert dialect.scale
        assert dialect.routes
        for route in dialect.routes:
            method, path = route.split(" ")
            assert method in ("GET", "POST")
            assert path.startswith("/")
    assert len({dialect.name for dialect in DIALECTS}) == len(DIALECTS)


def test_a_dialect_as_json() -> None:
    dialect = Dialect("d", ("GET /a",), "raw")
    assert json.loads(Json(dialect.to_dict()).body) == {"name": "d", "routes": ["GET /a"], "scale": "raw", "note": ""}


def test_json_is_ascii() -> None:
    body = Json({"text": "é"}).body
    assert body == b'{"text":"\\u00e9"}'
    assert json.loads(body) == {"text": "é"}


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_json_refuses_what_json_has_no_number_for(number: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        Json({"score": number})


@pytest.mark.parametrize("shape", get_args(ErrorShape))
@pytest.mark.parametrize("failure", [RequestRefused("x", param="a.0"), ScoringFailed("x", hint="y"), Overloaded("x")])
def test_errors_are_worded_and_numbered_as_they_are_documented(shape: ErrorShape, failure: RequestRefused) -> None:
    documented = errors(shape)[status_of(shape, failure)]
    TypeAdapter(documented["model"]).validate_python(error_body(shape, failure))
    assert documented["description"]


def test_a_route_of_two_dialects_documents_both_wordings() -> None:
    both = errors("openai", "tei")
    assert both.keys() == errors("openai").keys() | errors("tei").keys()
    tei, openai = (error_body(shape, Unavailable("x")) for shape in ("tei", "openai"))
    for body in (tei, openai):
        TypeAdapter(both[503]["model"]).validate_python(body)
    for status, wrong in ((400, tei), (500, tei), (422, openai), (424, openai)):
        with pytest.raises(ValidationError):
            TypeAdapter(both[status]["model"]).validate_python(wrong)


def test_teis_routes_document_no_status_that_it_words_otherwise() -> None:
    """What is 400 elsewhere is 422 there, and 500 is 424."""
    assert not errors("tei").keys() & {400, 500}
    assert errors(more=(409,)).keys() - errors().keys() == {409}


def test_an_unknown_field_is_ignored_and_named_once_without_its_value(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Body(OpenModel):
        without_effect: ClassVar[frozenset[str]] = frozenset({"user"})

        use_activation: bool | None = None

    monkeypatch.setattr("rewardlab.serving.protocols.dialect._ignored", set())
    for _ in range(2):
        assert Body.model_validate({"use_actvation": "secret", "user": "ann", "x\n\x1b": 1}).use_activation is None
    assert sorted(record.getMessage() for record in caplog.records) == [
        "ignored the field 'use_actvation' of a request: there is none; did it mean use_activation?",
        "ignored the field 'x\\n\\x1b' of a request: there is none",
    ]
    for number in range(300):
        Body.model_validate({f"{number}-{'n' * 5000}": 1})
    assert len(caplog.records) == 100
    assert max(len(record.getMessage()) for record in caplog.records) < 150


def test_only_the_errors_of_a_route_without_a_body() -> None:
    assert errors(only=(400, 503)).keys() == {400, 503}


def test_the_two_wordings_are_not_taken_for_each_other() -> None:
    with pytest.raises(ValidationError):
        OpenAIError.model_validate(error_body("tei", RequestRefused("x")))
    with pytest.raises(ValidationError):
        TEIError.model_validate(error_body("openai", RequestRefused("x")))

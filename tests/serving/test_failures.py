"""Failures as the dialects' own servers word them; none is 200, and what may be asked again says when."""

from __future__ import annotations

import json

import pytest

from rewardlab.serving.failures import (
    DeadlineExceeded,
    Overloaded,
    RequestFailure,
    RequestRefused,
    ScoringFailed,
    Unavailable,
    answer_of,
    error_body,
    headers_of,
    shape_of,
    status_of,
)


@pytest.mark.parametrize(
    ("failure", "openai", "tei", "tei_type"),
    [
        (RequestRefused("x"), 400, 422, "Validation"),
        (RequestRefused("x", status=401), 401, 401, "Unauthorized"),
        *[
            (RequestRefused("x", status=status), status, status, "Validation")
            for status in (403, 404, 405, 408, 413, 415, 422, 431)
        ],
        (Unavailable("x"), 503, 503, "Unhealthy"),
        (Overloaded("x"), 503, 429, "Overloaded"),
        (DeadlineExceeded("x"), 503, 503, "Unhealthy"),
        (ScoringFailed("x"), 500, 424, "Backend"),
        (RequestFailure("x"), 500, 424, "Backend"),
    ],
)
def test_statuses(failure: RequestFailure, openai: int, tei: int, tei_type: str) -> None:
    assert status_of("openai", failure) == openai
    assert status_of("tei", failure) == tei
    assert error_body("tei", failure) == {"error": "x", "error_type": tei_type}


def test_openais_shape_names_the_field() -> None:
    failure = RequestRefused("item 3 is empty", hint="leave it out", param="completions.3")
    assert error_body("openai", failure) == {
        "error": {
            "message": "item 3 is empty; leave it out",
            "type": "invalid_request_error",
            "param": "completions.3",
            "code": 400,
        }
    }


@pytest.mark.parametrize(
    ("seconds", "header"), [(None, "1"), (0.0, "1"), (0.2, "1"), (2.1, "3"), (2.5, "3"), (60.0, "60")]
)
def test_only_what_may_be_asked_again_says_when(seconds: float | None, header: str) -> None:
    for kind in (Unavailable, Overloaded, DeadlineExceeded):
        assert headers_of(kind("x", retry_after=seconds)) == {"Retry-After": header}
    assert headers_of(RequestRefused("x")) == headers_of(ScoringFailed("x")) == {}


def test_shapes_of_routes() -> None:
    assert shape_of("/predict") == "tei"
    assert {shape_of(path) for path in ("/v1/rewards", "/rerank", "/", "/predict/", "/nothing")} == {"openai"}


def test_a_failure_over_the_wire_is_its_status_its_headers_and_its_body():
    status, headers, body = answer_of("tei", Overloaded("full", retry_after=2.5))
    assert status == 429
    assert headers == {"Content-Type": "application/json", "Content-Length": str(len(body)), "Retry-After": "3"}
    assert json.loads(body) == error_body("tei", Overloaded("full"))

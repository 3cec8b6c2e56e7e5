"""Words are those of the servers named: what OpenAI, vLLM, llama.cpp, Azure and others answer."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewardlab.judge.faults import RETRIED, fault_of_status, hint_for, said_by

SENT = ("model", "messages", "max_tokens", "temperature", "seed", "logprobs", "top_logprobs")


def fault(status: int, message: str = "", headers: dict[str, str] | None = None, **error: object):
    return fault_of_status(status, json.dumps({"error": {"message": message, **error}}), headers or {}, SENT)


@pytest.mark.parametrize(
    ("status", "message", "error", "kind"),
    [
        (429, "Rate limit reached", {"code": "rate_limit_exceeded"}, "rate_limited"),
        (429, "You exceeded your current quota", {"code": "insufficient_quota"}, "endpoint"),
        (429, "You exceeded your current quota, check your plan and billing", {"code": 429}, "rate_limited"),  # Gemini
        (307, "", {}, "endpoint"),
        (402, "Insufficient Balance", {}, "endpoint"),
        (401, "Incorrect API key", {}, "endpoint"),
        (403, "Forbidden", {}, "endpoint"),
        (403, "Your input was flagged", {}, "filtered"),
        (404, "The model `x` does not exist", {"code": "model_not_found"}, "endpoint"),
        (405, "Method Not Allowed", {}, "endpoint"),
        (408, "", {}, "timeout"),
        (409, "", {}, "server_error"),
        (500, "boom", {}, "server_error"),
        (502, "", {}, "server_error"),
        (503, "loading model", {}, "server_error"),
        (504, "", {}, "timeout"),
        (529, "overloaded", {}, "server_error"),
        (400, "This model's maximum context length is 4096 tokens.", {"param": "messages"}, "too_long"),
        (400, "max_tokens is too large: the maximum context length is 128", {}, "too_long"),
        (400, "x", {"code": "context_length_exceeded"}, "too_long"),
        (400, "the request exceeds the available context size", {"type": "exceed_context_size_error"}, "too_long"),
        (413, "prompt is too long: 9000 tokens", {}, "too_long"),
        (400, "The response was filtered", {"code": "content_filter"}, "filtered"),
        (400, "x", {"innererror": {"code": "ResponsibleAIPolicyViolation"}}, "filtered"),
        (400, "messages must not be empty", {}, "bad_request"),
        (413, "Payload Too Large", {}, "bad_request"),
        (422, "roles must alternate", {}, "bad_request"),
        (418, "teapot", {}, "bad_request"),
    ],
)
def test_each_status_has_its_kind(status, message, error, kind):
    assert fault(status, message, **error).kind == kind


@pytest.mark.parametrize(
    ("message", "param", "refused"),
    [
        (
            "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead.",
            None,
            "max_tokens",
        ),
        ("Unsupported value: 'temperature' does not support 0 with this model.", "temperature", "temperature"),
        ("Only the default (1) value is supported for temperature", None, "temperature"),
        ("`temperature` must be strictly positive", None, "temperature"),
        ("Unknown argument: seed", None, "seed"),
        ("Invalid value for 'top_logprobs': must be less than or equal to 5.", None, "top_logprobs"),
        ("logprobs are not supported with reasoning models", None, "logprobs"),
        ("Unsupported parameter: 'response_format'", "response_format", None),  # a question cannot do without it
        ("the word temperature in a sentence", None, None),
        ("stop is not supported", None, None),
    ],
)
def test_a_parameter_that_is_refused_is_named(message, param, refused):
    found = fault(400, message, param=param)
    assert (found.kind, found.parameter) == ("bad_request" if refused is None else "unsupported", refused)


def test_only_what_was_sent_can_be_refused():
    body = json.dumps({"error": {"message": "Unsupported parameter: 'seed'"}})
    assert fault_of_status(400, body, {}, ("max_tokens",)).kind == "bad_request"


def test_the_error_is_found_wherever_it_stands_and_the_question_in_it_is_not_repeated():
    fastapi = {"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted", "input": "SECRET TEXT"}]}
    found = fault_of_status(422, json.dumps(fastapi), {}, SENT)
    assert (found.kind, found.parameter) == ("unsupported", "seed")
    assert "SECRET TEXT" not in found.message
    for body in ({"message": "boom"}, {"error": "boom"}, [{"error": {"message": "boom"}}], {"detail": "boom"}):
        assert fault_of_status(500, json.dumps(body), {}, SENT).message == "status 500: boom"
    assert fault_of_status(502, "<html>bad\ngateway</html>", {}, SENT).message == "status 502: <html>bad gateway</html>"
    assert fault_of_status(503, "", {}, SENT).message == "status 503"


def test_the_wait_that_is_asked_for_comes_along():
    assert fault(429, headers={"retry-after": "3"}).asked == 3.0
    assert fault(503, headers={"retry-after": "3"}).asked == 3.0
    assert fault(429, "Please retry in 33.8s.").asked == 33.8
    assert fault(429, "Please retry in 33.8s.", headers={"retry-after": "3"}).asked == 3.0


def test_a_hint_fits_its_status():
    assert "$REWARDLAB_JUDGE_KEY" in hint_for(fault(401))
    assert "paid" in hint_for(fault(402))
    assert "moved" in hint_for(fault(308))
    assert "/v1" in hint_for(fault(404))
    assert hint_for(fault(404), ("a", "b")).endswith("a, b")


def test_words_stay_short_and_on_one_line():
    assert said_by("a\n\x1b[31mb\u202e" + "c" * 900).startswith("a [31mb c")
    assert len(said_by("c" * 900)) == 300


@settings(max_examples=40)
@given(st.integers(300, 599), st.text(max_size=80) | st.recursive(st.none() | st.text(), st.lists).map(json.dumps))
def test_no_body_breaks_it_and_every_kind_is_known(status, body):
    kinds = RETRIED | {"endpoint", "filtered", "unsupported", "too_long", "bad_request"}
    assert fault_of_status(status, body, {}, SENT).kind in kinds

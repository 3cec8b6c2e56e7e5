from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewardlab.judge.answers import BadAnswer, reply_of
from rewardlab.judge.chat import TokenLogprobs


def body(content: Any = "fine", finish: Any = "stop", usage: Any = None, logprobs: Any = None, **message: Any) -> str:
    choice = {"message": {"content": content, **message}, "finish_reason": finish, "logprobs": logprobs}
    return json.dumps({"choices": [choice], "model": "m-1", "usage": usage})


def tokens(*entries: tuple[Any, Any]) -> dict[str, Any]:
    return {"content": [{"token": token, "logprob": logprob, "top_logprobs": []} for token, logprob in entries]}


def test_a_whole_answer_is_read():
    reply = reply_of(body(usage={"prompt_tokens": 7, "completion_tokens": 3}))
    assert (reply.text, reply.finish, reply.model) == ("fine", "stop", "m-1")
    assert (reply.prompt_tokens, reply.completion_tokens, reply.cached) == (7, 3, False)


def test_what_is_not_said_is_not_made_up():
    for usage in (None, {}, "many", {"prompt_tokens": -1, "completion_tokens": True}, {"prompt_tokens": "7"}):
        reply = reply_of(body(usage=usage))
        assert (reply.prompt_tokens, reply.completion_tokens) == (None, None)


def test_length_refusal_filter_and_tool_call_are_replies():
    assert reply_of(body("half", "length")).finish == "length"
    assert reply_of(body(None, "length")).text == ""  # all of its tokens went into reasoning
    assert reply_of(body(None, "content_filter")).finish == "content_filter"
    refused = reply_of(body(None, refusal="no"))
    assert (refused.refusal, refused.text) == ("no", "")
    assert reply_of(body("text", refusal="no")).text == ""
    assert reply_of(body(None, "tool_calls", tool_calls=[{"id": "x"}])).text == ""
    assert reply_of(body("", "stop")).text == ""


def test_text_in_parts_is_joined():
    assert reply_of(body([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])).text == "ab"


@pytest.mark.parametrize(
    "broken",
    [
        "",
        "<html>",
        '{"choices": [{"message": {"content": "fi',
        "[]",
        "null",
        "{}",
        '{"choices": []}',
        '{"choices": [null]}',
        '{"choices": [{}]}',
        '{"choices": [{"message": null}]}',
        body(None),
        body(7),
        body([{"type": "text", "text": 7}]),
        "[" * 100_000,
    ],
)
def test_what_is_no_chat_completion_is_told(broken):
    with pytest.raises(BadAnswer):
        reply_of(broken)


def test_an_error_under_a_status_of_200_tells_its_own_status():
    with pytest.raises(BadAnswer) as told:
        reply_of('{"error": {"code": 429, "message": "busy"}}')
    assert told.value.status == 429
    with pytest.raises(BadAnswer) as told:
        reply_of('{"error": {"code": "odd"}}')
    assert told.value.status is None


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("<think>hm [[A]]</think>\n\n[[B]]", "[[B]]"),
        ("\n<thinking>hm</thinking>B", "B"),
        ("<think></think>B", "B"),
        ("hm, so A</think>\n{}", "{}"),  # it begins in the prompt
        ("B <think>", "B <think>"),
        ("<think>a</think><think>b</think>B", "<think>b</think>B"),  # one block, not what the answer goes on to say
    ],
)
def test_reasoning_up_to_its_first_end_is_no_part_of_the_text(content, text):
    assert (reply_of(body(content)).text, reply_of(body(content)).finish) == (text, "stop")


@pytest.mark.parametrize("finish", ["stop", "length", None])
def test_reasoning_that_does_not_end_is_an_answer_broken_off(finish):
    reply = reply_of(body("\n<think>\nMaybe\nVERDICT: A", finish))
    assert (reply.text, reply.finish) == ("", "length")


@pytest.mark.parametrize(
    ("word", "finish"),
    [
        ("stop", "stop"),
        ("eos", "stop"),
        ("end_turn", "stop"),
        ("STOP", "stop"),
        ("length", "length"),
        ("MAX_TOKENS", "length"),
        ("SAFETY", "content_filter"),
        (None, "length"),  # nobody says that it ended
        ("new word", "length"),
        (7, "length"),
    ],
)
def test_why_it_ended_is_one_of_three(word, finish):
    assert reply_of(body("fine", word)).finish == finish


@pytest.mark.parametrize("word", ["error", "abort", "Cancelled"])
def test_an_answer_that_the_server_broke_off_is_none(word):
    with pytest.raises(BadAnswer, match="broke"):
        reply_of(body("fine", word))


def test_a_web_page_is_told_apart():
    for page, told in (("<!DOCTYPE html><p>hi", True), ("\n<html lang=en>", True), ("<hello", False)):
        with pytest.raises(BadAnswer) as error:
            reply_of(page)
        assert error.value.web_page == told


def test_reasoning_in_its_own_field_is_left_there():
    assert reply_of(body("B", reasoning_content="A, surely")).text == "B"


def test_log_probabilities_are_those_of_the_text():
    found = tokens(("<think>", -1.0), ("A", -2.0), ("</think>", -0.1), ("\n", -0.1), (" B", -0.5), ("<|end|>", 0.0))
    reply = reply_of(body("<think>A</think>\n B", logprobs=found))
    assert (reply.text, reply.logprobs) == ("B", (TokenLogprobs(" B", -0.5),))
    apart = reply_of(body("B", reasoning_content="A", logprobs=tokens(("A", -2.0), ("B", -0.5))))
    assert [one.token for one in apart.logprobs] == ["B"]
    unlike = tokens(("\ufffd", -1.0), ("\ufffd", -1.0))  # halves of one character
    assert len(reply_of(body("é", logprobs=unlike)).logprobs) == 2


def test_alternatives_are_read():
    entry = {
        "token": "A",
        "logprob": -0.1,
        "top_logprobs": [{"token": "A", "logprob": -0.1}, {"token": "B", "logprob": -9}],
    }
    reply = reply_of(body("A", logprobs={"content": [entry]}))
    assert reply.logprobs == (TokenLogprobs("A", -0.1, (("A", -0.1), ("B", -9.0))),)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -(10**400), 1e-3, 0.7, "x", None, True])
def test_a_log_probability_that_is_none_takes_all_of_them_along(value):
    assert reply_of(body("AB", logprobs=tokens(("A", -0.1), ("B", value)))).logprobs == ()


def test_rounding_above_zero_is_a_log_probability():
    assert reply_of(body("A", logprobs=tokens(("A", 1e-6)))).logprobs[0].logprob == 0.0


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.sampled_from(["stop", "A"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "message", "content", "logprobs", "token", "logprob", "usage", "refusal"]),
            inner,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=60)
@given(JSON)
def test_no_json_breaks_it(value):
    try:
        reply = reply_of(json.dumps({"choices": [value], "usage": value} if not isinstance(value, dict) else value))
    except BadAnswer:
        return
    assert isinstance(reply.text, str)

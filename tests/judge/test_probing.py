from __future__ import annotations

import asyncio

import pytest

from rewardlab.errors import JudgeEndpointError
from rewardlab.judge.chat import ChatFailure, ChatReply, ChatRequest, TokenLogprobs
from rewardlab.judge.probing import probe_schema, probe_top_logprobs

TOKEN = TokenLogprobs("hello", -0.1, (("hello", -0.1), ("Hello", -3.0), ("hi", -4.0)))


def always(answer: ChatReply | ChatFailure):
    async def ask(request: ChatRequest) -> ChatReply | ChatFailure:
        return answer

    return ask


def test_a_server_that_can_do_both():
    assert asyncio.run(probe_top_logprobs(always(ChatReply("hello", logprobs=(TOKEN,))))) == 3
    assert asyncio.run(probe_schema(always(ChatReply('{"greeting": "hello"}')))) is True


@pytest.mark.parametrize(
    "formed",
    [
        ChatReply("hello"),  # took the schema and ignored it
        ChatReply('"hello"'),
        ChatReply('{"greeting": 7}'),
        ChatReply('{"greeting": "hello", "more": 1}'),
        ChatReply('{"greeting": "hel', "length"),
        ChatFailure("bad_request", "response_format is not supported"),
    ],
)
def test_a_server_that_keeps_to_no_schema(formed):
    assert asyncio.run(probe_schema(always(formed))) is False


def test_log_probabilities_refused_by_no_name_are_none():
    async def ask(request: ChatRequest) -> ChatReply | ChatFailure:
        return ChatFailure("bad_request", "not here") if request.top_logprobs else ChatReply("hello")

    assert asyncio.run(probe_top_logprobs(ask)) == 0


def test_a_model_that_reasons_first_is_given_room():
    lengths = []

    async def ask(request: ChatRequest) -> ChatReply:
        lengths.append(request.max_tokens)
        if request.max_tokens < 1000:
            return ChatReply("", "length")
        return ChatReply('{"greeting": "hello"}' if request.schema else "hello")

    assert asyncio.run(probe_top_logprobs(ask)) == 0
    assert asyncio.run(probe_schema(ask)) is True
    assert lengths == [64, 2048, 64, 2048]


@pytest.mark.parametrize("kind", ["connection", "timeout", "server_error", "bad_answer", "rate_limited"])
def test_a_fault_that_says_nothing_of_what_was_asked_ends_the_run(kind):
    for probe in (probe_top_logprobs, probe_schema):
        with pytest.raises(JudgeEndpointError, match=r"does not answer a small question: why \(6 tries\)") as told:
            asyncio.run(probe(always(ChatFailure(kind, "why", 6))))
        assert "--no-" in told.value.hint


def test_an_endpoint_that_refuses_even_the_plainest_question_ends_the_run():
    with pytest.raises(JudgeEndpointError, match="why"):
        asyncio.run(probe_top_logprobs(always(ChatFailure("bad_request", "why"))))


def test_a_limit_is_no_finding():
    failure = always(ChatFailure("budget", "no room"))
    assert asyncio.run(probe_top_logprobs(failure)) is None
    assert asyncio.run(probe_schema(failure)) is None

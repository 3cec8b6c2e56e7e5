from __future__ import annotations

import asyncio

import pytest

from rewardlab.errors import JudgeEndpointError
from rewardlab.judge.chat import Capabilities, ChatFailure, ChatReply, ChatRequest, TokenLogprobs
from rewardlab.judge.probing import probe

TOKEN = TokenLogprobs("hello", -0.1, (("hello", -0.1), ("Hello", -3.0), ("hi", -4.0)))


def probed(plain: ChatReply | ChatFailure, formed: ChatReply | ChatFailure):
    async def ask(request: ChatRequest) -> ChatReply | ChatFailure:
        return plain if request.schema is None else formed

    return asyncio.run(probe(ask))


def test_a_server_that_can_do_both():
    found = probed(ChatReply("hello", logprobs=(TOKEN,)), ChatReply('{"greeting": "hello"}'))
    assert found == Capabilities(schema=True, top_logprobs=3)


@pytest.mark.parametrize(
    "formed",
    [
        ChatReply("hello"),  # took the schema and ignored it
        ChatReply('"hello"'),
        ChatReply('{"greeting": 7}'),
        ChatReply('{"greeting": "hello", "more": 1}'),
        ChatReply('{"greeting": "hel', "length"),
        ChatFailure("bad_request", "response_format is not supported"),
        ChatFailure("server_error", "status 500"),
    ],
)
def test_a_server_that_keeps_to_no_schema(formed):
    assert probed(ChatReply("hello"), formed) == Capabilities(schema=False, top_logprobs=0)


def test_a_model_that_reasons_first_is_given_room():
    lengths = []

    async def ask(request: ChatRequest) -> ChatReply:
        lengths.append(request.max_tokens)
        if request.max_tokens < 1000:
            return ChatReply("", "length")
        return ChatReply('{"greeting": "hello"}' if request.schema else "hello")

    assert asyncio.run(probe(ask)) == Capabilities(schema=True)
    assert lengths == [64, 2048, 64, 2048]


@pytest.mark.parametrize("kind", ["connection", "timeout", "server_error", "bad_answer", "bad_request", "rate_limited"])
def test_an_endpoint_that_answers_nothing_ends_the_run(kind):
    with pytest.raises(JudgeEndpointError, match=r"does not answer a small question: why \(6 tries\)"):
        probed(ChatFailure(kind, "why", 6), ChatReply("x"))


def test_a_limit_is_no_finding():
    failure = ChatFailure("budget", "no room")
    assert probed(failure, failure) == failure
    assert probed(ChatReply("hello"), failure) == failure

"""What an endpoint can do, found by asking it two small questions.

A server may take a ``response_format`` and ignore it, so the question with a schema is one whose plain answer would not
fit it. This file asks through whatever asks; it knows no HTTP.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

from rewardlab.errors import JudgeEndpointError
from rewardlab.judge.chat import Capabilities, ChatFailure, ChatReply, ChatRequest
from rewardlab.judge.wire import MOST_TOP_LOGPROBS

Ask = Callable[[ChatRequest], Awaitable[ChatReply | ChatFailure]]

_LENGTHS = (64, 2048)  # a model that reasons first may need the second

_SCHEMA = {
    "type": "object",
    "properties": {"greeting": {"type": "string"}},
    "required": ["greeting"],
    "additionalProperties": False,
}


async def probe(ask: Ask) -> Capabilities | ChatFailure:
    """Ask the two questions.

    Args:
        ask: Asks one question.

    Returns:
        What was found; or the failure, where a limit did not let it ask.

    Raises:
        JudgeEndpointError: The endpoint does not answer even a small question.
    """
    plain = await _ask(ask, None, MOST_TOP_LOGPROBS)
    if isinstance(plain, ChatFailure):
        if plain.kind == "budget":
            return plain
        raise JudgeEndpointError(
            f"the judge's endpoint does not answer a small question: {plain.message} ({_tries(plain.attempts)})",
            hint="is the server running, and is this its address (usually ending in /v1)?",
        )
    formed = await _ask(ask, _SCHEMA, 0)
    if isinstance(formed, ChatFailure) and formed.kind == "budget":
        return formed
    top = max((len(token.top) for token in plain.logprobs), default=0)
    return Capabilities(schema=isinstance(formed, ChatReply) and _fits(formed.text), top_logprobs=top)


async def _ask(ask: Ask, schema: dict[str, object] | None, top_logprobs: int) -> ChatReply | ChatFailure:
    messages = ({"role": "user", "content": "Reply with the single word hello, in lower case and without quotes."},)
    answer: ChatReply | ChatFailure | None = None
    for length in _LENGTHS:
        answer = await ask(ChatRequest(messages, length, schema=schema, top_logprobs=top_logprobs))
        if isinstance(answer, ChatFailure) or answer.finish != "length":
            break
    assert answer is not None
    return answer


def _fits(text: str) -> bool:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and list(found) == ["greeting"] and isinstance(found["greeting"], str)


def _tries(attempts: int) -> str:
    return "1 try" if attempts == 1 else f"{attempts} tries"

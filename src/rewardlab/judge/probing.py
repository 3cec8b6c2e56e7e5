"""What an endpoint can do, found by asking it small questions.

A server may take a ``response_format`` and ignore it, so the question with a schema is one whose plain answer would not
fit it. This file asks through whatever asks; it knows no HTTP.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

from rewardlab.errors import JudgeEndpointError
from rewardlab.judge.chat import ChatFailure, ChatReply, ChatRequest
from rewardlab.judge.wire import MOST_TOP_LOGPROBS

Ask = Callable[[ChatRequest], Awaitable[ChatReply | ChatFailure]]

_LENGTHS = (64, 2048)  # a model that reasons first may need the second

_SCHEMA = {
    "type": "object",
    "properties": {"greeting": {"type": "string"}},
    "required": ["greeting"],
    "additionalProperties": False,
}


async def probe_schema(ask: Ask) -> bool | None:
    """Whether its answers fit a JSON schema.

    Args:
        ask: Asks one question.

    Returns:
        None where a limit did not let it ask. False where it refuses the question with a schema as one that cannot be
        asked, or answers it in another form.

    Raises:
        JudgeEndpointError: It does not answer, for a reason that says nothing of schemas.
    """
    answer = await _ask(ask, _SCHEMA, 0)
    if isinstance(answer, ChatReply):
        return _fits(answer.text)
    return None if _told(answer, "--no-schema") else False


async def probe_top_logprobs(ask: Ask) -> int | None:
    """How many alternatives it tells at each token; 0: no log-probabilities.

    Args:
        ask: Asks one question.

    Returns:
        None where a limit did not let it ask.

    Raises:
        JudgeEndpointError: It does not answer even a small question.
    """
    answer = await _ask(ask, None, MOST_TOP_LOGPROBS)
    if isinstance(answer, ChatFailure) and answer.kind == "bad_request":  # for them, or for something else?
        answer = await _ask(ask, None, 0)
    if isinstance(answer, ChatReply):
        return max((len(token.top) for token in answer.logprobs), default=0)
    if _told(answer, "--no-logprobs"):
        return None
    raise _unanswered(answer, "is this the address of a chat model, and --model its name?")


def _told(failure: ChatFailure, option: str) -> bool:
    """Whether it is a limit, which is no finding; False of a question that is refused; anything else is raised."""
    if failure.kind in ("budget", "bad_request"):
        return failure.kind == "budget"
    hint = f"is the server running, and is this its address (usually ending in /v1)? {option} leaves this question out"
    raise _unanswered(failure, hint)


def _unanswered(failure: ChatFailure, hint: str) -> JudgeEndpointError:
    tries = "1 try" if failure.attempts == 1 else f"{failure.attempts} tries"
    return JudgeEndpointError(
        f"the judge's endpoint does not answer a small question: {failure.message} ({tries})", hint=hint
    )


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

"""A chat client in memory whose answers are a function of the texts it is shown: for tests that need no HTTP.

It finds the texts by their fences and answers in the form that the question asks for, as a model would.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from rewardlab.judge.chat import Capabilities, ChatFailure, ChatReply, ChatRequest, Usage

_FENCED = re.compile(r"<<<BEGIN ([a-zA-Z0-9 ]+?) ([0-9a-f]{16})>>>\n(.*?)\n<<<END \1 \2>>>", re.DOTALL)
_LETTERS = "ABCDEFGH"

Answer = Callable[[dict[str, str]], "str | ChatReply | ChatFailure"]
"""Titles of the texts shown ("prompt", "completion A", "step 1", ...) to a verdict ("A", "B > A", "7",
"first error: 2"), or to a whole reply or failure."""


class ScriptedClient:
    """Implements :class:`~rewardlab.judge.chat.ChatClient`.

    Attributes:
        requests: All that was asked.
        most_at_once: Most questions that were under way together.
    """

    name = "scripted"

    def __init__(self, answer: Answer, *, schema: bool = False, seconds: float = 0.0) -> None:
        self.answer = answer
        self.schema = schema
        self.seconds = seconds
        self.requests: list[ChatRequest] = []
        self.running = self.most_at_once = 0

    @property
    def usage(self) -> Usage:
        return Usage(calls=len(self.requests), prompt_tokens=10 * len(self.requests))

    async def capabilities(self, *, schema: bool = True, logprobs: bool = True) -> Capabilities:
        return Capabilities(schema=self.schema)

    async def complete(self, request: ChatRequest) -> ChatReply | ChatFailure:
        self.requests.append(request)
        self.running += 1
        self.most_at_once = max(self.most_at_once, self.running)
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.running -= 1
        said = self.answer(shown_in(request.messages))
        if not isinstance(said, str):
            return said
        return ChatReply(in_form(said, request.messages, request.schema is not None))

    async def close(self) -> None:
        pass


def shown_in(messages: Any) -> dict[str, str]:
    """The texts that a question shows, by their titles."""
    text = "\n".join(message["content"] for message in messages)
    return {title: shown for title, _, shown in _FENCED.findall(text)}


def in_form(verdict: str, messages: Any, schema: bool) -> str:
    """A verdict in the form that the question asks for."""
    text = "\n".join(message["content"] for message in messages)
    if schema:
        nonce = _FENCED.findall(text)[0][1]
        return json.dumps({"id": nonce, "reason": "so it seems", **_fields(verdict, messages)})
    tag = re.findall(r"VERDICT-[0-9a-f]{16}:", text)[-1]
    return f"So it seems.\n{tag} {verdict}"


def _fields(verdict: str, messages: Any) -> Mapping[str, Any]:
    if verdict.isdigit():
        return {"rating": int(verdict)}
    if ">" in verdict:
        return {"ranking": [place.split(" = ") for place in verdict.split(" > ")]}
    return {"verdict": verdict}


def longer_wins(shown: dict[str, str]) -> str:
    """Prefers the longer completion, ranks by length, rates by it."""
    if "completion" in shown:
        return str(min(10, 1 + len(shown["completion"]) // 10))
    lengths = {title[-1]: len(text) for title, text in shown.items() if title.startswith("completion ")}
    if len(lengths) == 2:
        first, second = lengths["A"], lengths["B"]
        return "tie" if first == second else "A" if first > second else "B"
    return " > ".join(sorted(lengths, key=lambda letter: -lengths[letter]))


def always_first(shown: dict[str, str]) -> str:
    """Likes the first place, whatever stands there."""
    count = sum(title.startswith("completion ") for title in shown)
    return "A" if count == 2 else " > ".join(_LETTERS[:count])

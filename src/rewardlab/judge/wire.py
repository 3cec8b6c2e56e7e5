"""A question -> the parameters that are sent, in the words that this server takes.

Servers and models differ in what they refuse: ``max_tokens`` under that name, ``temperature`` other than 1, ``seed``,
log-probabilities or so many of them. What is refused is found out once, from the server's own words, and remembered.
This file knows names and values; it knows no HTTP.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from rewardlab.judge.chat import ChatRequest

MOST_TOP_LOGPROBS = 20
"""Alternatives at each token that OpenAI gives at most, and vLLM unless its ``--max-logprobs`` says more."""

_FEWER_TOP_LOGPROBS = 5

_RESERVED = (
    "messages",
    "model",
    "stream",
    "n",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "seed",
    "response_format",
    "logprobs",
    "top_logprobs",
)


@dataclass(frozen=True, slots=True)
class Accepted:
    """What one model behind one server takes.

    Attributes:
        max_completion_tokens: Whether the longest answer goes under this newer name.
        temperature: Whether a temperature may be sent.
        seed: Whether a seed may be.
        top_logprobs: Most alternatives that may be asked for; 0: log-probabilities are refused.
    """

    max_completion_tokens: bool = False
    temperature: bool = True
    seed: bool = True
    top_logprobs: int = MOST_TOP_LOGPROBS

    def without(self, parameter: str, value: object) -> Accepted:
        """What is accepted without what was refused.

        Args:
            parameter: Its name.
            value: What it was: of log-probabilities fewer may still be given.
        """
        match parameter:
            case "max_tokens":
                return replace(self, max_completion_tokens=True)
            case "temperature":
                return replace(self, temperature=False)
            case "seed":
                return replace(self, seed=False)
            case "top_logprobs" if isinstance(value, int) and value > _FEWER_TOP_LOGPROBS:
                return replace(self, top_logprobs=min(self.top_logprobs, _FEWER_TOP_LOGPROBS))
            case _:
                return replace(self, top_logprobs=0)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the results must know, one sentence each."""
        told = []
        if not self.temperature:
            told.append("the model refuses temperature 0 and answers at its own: its verdicts vary from run to run")
        if not self.seed:
            told.append("the server refuses a seed")
        if self.top_logprobs < MOST_TOP_LOGPROBS:
            told.append(f"the server gives log-probabilities of at most {self.top_logprobs} alternatives")
        return tuple(told)

    def to_dict(self) -> dict[str, Any]:
        """All attributes, as JSON values."""
        return {
            "max_completion_tokens": self.max_completion_tokens,
            "temperature": self.temperature,
            "seed": self.seed,
            "top_logprobs": self.top_logprobs,
        }

    @classmethod
    def from_dict(cls, found: Mapping[str, Any] | None) -> Accepted:
        """What :meth:`to_dict` gave; the default where it is not that."""
        try:
            made = cls(**(found or {}))
        except TypeError:
            return cls()
        kinds = {name: type(value) for name, value in cls().to_dict().items()}
        fits = all(type(getattr(made, name)) is kind for name, kind in kinds.items())
        return made if fits and 0 <= made.top_logprobs <= MOST_TOP_LOGPROBS else cls()


def parameters_of(request: ChatRequest, model: str, accepted: Accepted) -> dict[str, Any]:
    """What is sent, but for the ``extra_body``.

    Args:
        request: What is asked.
        model: The model's name at the server.
        accepted: What it takes.
    """
    found: dict[str, Any] = {"model": model, "messages": [dict(message) for message in request.messages]}
    found["max_completion_tokens" if accepted.max_completion_tokens else "max_tokens"] = request.max_tokens
    if accepted.temperature:
        found["temperature"] = request.temperature
    if accepted.seed and request.seed is not None:
        found["seed"] = request.seed
    if request.schema is not None:
        named = {"name": "verdict", "strict": True, "schema": dict(request.schema)}
        found["response_format"] = {"type": "json_schema", "json_schema": named}
    if request.top_logprobs and accepted.top_logprobs:
        found |= {"logprobs": True, "top_logprobs": min(request.top_logprobs, accepted.top_logprobs)}
    return found


def unusable_extra(extra_body: Mapping[str, Any]) -> list[str]:
    """Names in an ``extra_body`` that are the client's own to set."""
    return sorted(set(extra_body) & set(_RESERVED))


def key_of(base_url: str, sent: Mapping[str, Any], extra_body: Mapping[str, Any] | None) -> str:
    """The same for two questions if and only if the same is sent to the same address: SHA-256 in hexadecimal."""
    whole = [base_url, sent, extra_body or {}]
    text = json.dumps(whole, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()

"""What an answer that is no answer means: the kind of failure, and whether asking again may mend it.

This file knows statuses and the words that servers use; it knows no HTTP library and does not wait.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from rewardlab.judge.chat import FailureKind
from rewardlab.judge.retrying import seconds_asked, seconds_told

FaultKind: TypeAlias = FailureKind | Literal["endpoint", "filtered", "unsupported", "web_page"]
"""``endpoint``: no question can be answered; ``filtered``: the server would not have this one answered, which is a
reply; ``unsupported``: a parameter is refused that the question can do without; ``web_page``: a bad answer, which from
an address that never gave another means that no such server is there."""

RETRIED: frozenset[str] = frozenset({"rate_limited", "server_error", "timeout", "connection", "bad_answer", "web_page"})
"""Kinds that asking again may mend."""

OPTIONAL = ("max_tokens", "temperature", "seed", "top_logprobs", "logprobs")
"""Parameters that some servers or models refuse and that a question can do without, or name otherwise."""

_MOST_SEARCHED = 10_000  # characters of a body in which a wait is looked for
_MOST_SAID = 300  # characters of a server's words that are kept: some send the whole question back

_TOO_LONG = re.compile(
    r"context[ _](length|size|window)|maximum context|max_model_len|n_ctx|(prompt|input)[^.]{0,40} too (long|large)"
    r"|too many (input )?tokens|longer than the (model|maximum)|exceed[^.]{0,40} (context|tokens)",
    re.IGNORECASE,
)
_FILTERED = re.compile(
    r"content[ _](filter|policy|management)|ResponsibleAIPolicy|data_inspection_failed|flagged|moderation",
    re.IGNORECASE,
)
_REFUSED_PARAMETER = re.compile(
    r"unsupported|not support|unknown|unrecogni[sz]ed|unexpected|not permitted|not allowed|only the default|deprecated"
    r"|instead|must be|less than or equal|greater than|invalid|cannot be|too large",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Fault:
    """One attempt that gave no answer.

    Attributes:
        kind: What it means.
        message: What the server said, or what happened.
        asked: Seconds after which the server wants to be asked again.
        parameter: The parameter that is refused, where the kind is ``unsupported``.
        status: HTTP status, where there was an answer.
        reached: Whether the server may have seen the question, and so may have worked for it.
    """

    kind: FaultKind
    message: str
    asked: float | None = None
    parameter: str | None = None
    status: int | None = None
    reached: bool = True


def fault_of_status(status: int, body: str, headers: Mapping[str, str], sent: Collection[str]) -> Fault:
    """What an error status means.

    Args:
        status: HTTP status.
        body: The answer's body.
        headers: Its headers, names in any case if the mapping does not tell cases apart, else in lower case.
        sent: Names of the parameters that were sent: none but these can be the one that is refused.
    """
    error = _error_of(body)
    said = _words_of(error, body)
    message = f"status {status}: {said}" if said else f"status {status}"
    labels = " ".join(str(error.get(name) or "") for name in ("code", "type", "innererror"))[:_MOST_SAID]
    words = f"{labels} {said}"
    asked = seconds_asked(headers)
    if asked is None:
        asked = seconds_told(body[:_MOST_SEARCHED])
    if status == 429:
        # By its label alone: Gemini's limit per minute says "exceeded your current quota" too.
        return Fault("endpoint" if "insufficient_quota" in labels else "rate_limited", message, asked, status=status)
    if status in (400, 403) and _FILTERED.search(words):
        return Fault("filtered", message, status=status)
    if status < 400:  # not followed: the questions and the key go to the address that was given and to no other
        return Fault("endpoint", f"status {status}: moved to {said_by(headers.get('location', '?'))}", status=status)
    if status in (401, 402, 403, 404, 405):
        return Fault("endpoint", message, status=status)
    if status in (408, 409, 425) or status >= 500:
        return Fault("timeout" if status in (408, 504) else "server_error", message, asked, status=status)
    if _TOO_LONG.search(words):
        return Fault("too_long", message, status=status)
    refused = _refused_parameter(error, said, sent) if status in (400, 422) else None
    kind: FaultKind = "bad_request" if refused is None else "unsupported"
    return Fault(kind, message, parameter=refused, status=status)


def hint_for(fault: Fault, models: Collection[str] = ()) -> str:
    """What to do about a fault that ends the run.

    Args:
        fault: The fault.
        models: Names of what the server has, where it tells.
    """
    if models:
        return f"--model: the server has {', '.join(models)}"
    match fault.status:
        case 401 | 403:
            return "is the key right? --api-key or $REWARDLAB_JUDGE_KEY; at OpenAI's own address $OPENAI_API_KEY"
        case 402 | 429:
            return "the account has nothing left: what is judged so far is kept, go on once it is paid"
        case status if status is not None and status < 400:
            return "give --base-url as the address that it moved to, without /chat/completions"
        case 404:
            return "--base-url usually ends in /v1; --model is a name that its /models lists"
        case _:
            return "is --base-url right? it usually ends in /v1"


def said_by(text: str) -> str:
    """A server's words on one line, at most so many that an error stays readable."""
    line = " ".join("".join(mark if mark.isprintable() else " " for mark in text[: 4 * _MOST_SAID]).split())
    return line if len(line) <= _MOST_SAID else line[: _MOST_SAID - 1] + "…"


def _error_of(body: str) -> Mapping[str, Any]:
    """The error object, wherever it stands: OpenAI and most have it under ``error``, vLLM once had it on top."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    if isinstance(found, list) and found:
        found = found[0]  # Gemini's compatible route
    if not isinstance(found, dict):
        return {}
    inner = found.get("error")
    if isinstance(inner, str):
        return {"message": inner}
    return inner if isinstance(inner, dict) else found


def _words_of(error: Mapping[str, Any], body: str) -> str:
    for name in ("message", "detail", "error"):
        value = error.get(name)
        if isinstance(value, str) and value:
            return said_by(value)
        if isinstance(value, list):  # FastAPI: what is wrong where; its `input` is the question, which is not repeated
            parts = [item for item in value if isinstance(item, dict)]
            return said_by("; ".join(f"{_place(part.get('loc'))}: {part.get('msg')}" for part in parts))
    return said_by(body)


def _place(loc: object) -> str:
    return ".".join(map(str, loc)) if isinstance(loc, list) else str(loc)


def _refused_parameter(error: Mapping[str, Any], said: str, sent: Collection[str]) -> str | None:
    candidates = [name for name in OPTIONAL if name in sent]
    named = error.get("param")
    if isinstance(named, str) and named:
        return named if named in candidates else None
    if not _REFUSED_PARAMETER.search(said):
        return None
    places = {name: found.start() for name in candidates if (found := re.search(rf"\b{name}\b", said))}
    return min(places, key=places.__getitem__) if places else None

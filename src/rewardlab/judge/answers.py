"""The body of a chat completion -> a reply: what is there is read strictly, what is not there is not made up.

This file knows the JSON of /v1/chat/completions; it knows no HTTP.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from rewardlab.judge.chat import ChatReply, Finish, TokenLogprobs

_THOUGHT_BEGINS = re.compile(r"\s*<think(?:ing)?>")
_THOUGHT_ENDS = re.compile(r"</think(?:ing)?>\s*")
_MOST_ABOVE_ZERO = 1e-6  # of a log-probability: rounding; more is no log-probability
_LARGEST = 2.0**53  # more is no count of tokens, nor, below zero, a log-probability

_FINISHES: dict[str, Finish] = {
    **dict.fromkeys(("stop", "eos", "eos_token", "end_turn", "stop_sequence"), "stop"),
    **dict.fromkeys(("length", "max_tokens"), "length"),
    **dict.fromkeys(("content_filter", "safety"), "content_filter"),
}
_BROKEN = frozenset({"error", "abort", "aborted", "cancelled", "canceled"})
_WEB_PAGE = re.compile(r"\s*<(!doctype|html|head|body)\b", re.IGNORECASE)


class BadAnswer(Exception):
    """What came is no chat completion; the message says why.

    Args:
        message: What came and what was expected.
        status: The status that the body itself tells of, where it is an error under a status of 200.
        web_page: Whether it is a web page: maybe what answers is no such server at all.
    """

    def __init__(self, message: str, status: int | None = None, *, web_page: bool = False) -> None:
        super().__init__(message)
        self.status, self.web_page = status, web_page


def reply_of(body: str) -> ChatReply:
    """Read an answer.

    Args:
        body: JSON, as it came.

    Returns:
        The reply. Reasoning is no part of its text: neither the field ``reasoning_content`` nor what stands up to the
        first ``</think>``, whose beginning is often in the prompt. Reasoning that does not end is an answer broken off
        before it began: no text, and ``"length"``. So is an answer of which no known word says that it ended.

    Raises:
        BadAnswer: It is no chat completion, one with nothing in it, or one that the server says it broke off.
    """
    found = _object_of(body)
    choice = _first_choice(found)
    message = choice.get("message")
    if not isinstance(message, Mapping):
        raise BadAnswer("the answer's choice has no message")
    finish = _finish_of(choice.get("finish_reason"))
    refusal = message.get("refusal")
    refusal = refusal if isinstance(refusal, str) else ""
    text = _text_of(message.get("content"))
    if text is None:
        if not refusal and not message.get("tool_calls") and finish == "stop":
            raise BadAnswer("the answer has neither content nor a refusal")
        text = ""
    if ended := _THOUGHT_ENDS.search(text):
        text = text[ended.end() :]
    elif _THOUGHT_BEGINS.match(text):
        text, finish = "", "length" if finish == "stop" else finish
    prompt_tokens, completion_tokens = tokens_of(found)
    model = found.get("model")
    return ChatReply(
        text="" if refusal else text,
        finish=finish,
        refusal=refusal,
        model=model if isinstance(model, str) else "",
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        logprobs=_of_text(_logprobs_of(choice.get("logprobs")), text),
    )


def tokens_of(found: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Prompt and completion tokens as a body tells them; None for what it does not tell."""
    usage = found.get("usage")
    if not isinstance(usage, Mapping):
        return None, None
    return _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST else None


def _finish_of(reason: object) -> Finish:
    word = reason.lower() if isinstance(reason, str) else ""
    if word in _BROKEN:
        raise BadAnswer(f"the server broke the answer off ({word})")
    return _FINISHES.get(word, "length")


def _object_of(body: str) -> Mapping[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        if _WEB_PAGE.match(body):
            raise BadAnswer("the answer is a web page, no chat completion", web_page=True) from None
        raise BadAnswer(f"the answer is no JSON ({len(body)} characters)") from None
    if not isinstance(found, dict):
        raise BadAnswer(f"the answer is no JSON object but a {type(found).__name__}")
    return found


def _first_choice(found: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = found.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], Mapping):
        return choices[0]
    error = found.get("error")
    if error:  # routers answer 200 and tell in the body how the server behind them failed
        code = error.get("code") if isinstance(error, Mapping) else None
        status = code if isinstance(code, int) and 400 <= code <= 599 else None
        raise BadAnswer("the answer is an error under a status of 200", status)
    raise BadAnswer("the answer has no choices")


def _text_of(content: object) -> str | None:
    """The answer's text; None where there is none. Some servers send it in parts."""
    if content is None:
        return None
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, Mapping) and part.get("type") == "text"]
        if all(isinstance(text, str) for text in texts):
            return "".join(str(text) for text in texts)
    raise BadAnswer(f"the answer's content is no text but a {type(content).__name__}")


def _logprobs_of(found: object) -> tuple[TokenLogprobs, ...]:
    """The tokens; none at all where any of them cannot be believed."""
    content = found.get("content") if isinstance(found, Mapping) else None
    if not isinstance(content, list):
        return ()
    tokens = []
    for entry in content:
        top = entry.get("top_logprobs") if isinstance(entry, Mapping) else None
        pairs = [_token_of(one) for one in (entry, *(top if isinstance(top, list) else []))]
        if any(pair is None for pair in pairs):
            return ()
        (token, logprob), *others = (pair for pair in pairs if pair is not None)
        tokens.append(TokenLogprobs(token, logprob, tuple(others)))
    return tuple(tokens)


def _token_of(entry: object) -> tuple[str, float] | None:
    if not isinstance(entry, Mapping):
        return None
    token, logprob = entry.get("token"), entry.get("logprob")
    if not isinstance(token, str) or isinstance(logprob, bool) or not isinstance(logprob, int | float):
        return None
    return (token, min(0.0, float(logprob))) if -_LARGEST <= logprob <= _MOST_ABOVE_ZERO else None


def _of_text(tokens: tuple[TokenLogprobs, ...], text: str) -> tuple[TokenLogprobs, ...]:
    """The tokens that the text is made of: not those of the reasoning before it, nor the end token after it."""
    if not tokens or not text:
        return ()
    start = "".join(one.token for one in tokens).rfind(text)
    if start < 0:  # half of a character in a token shows as a replacement sign: then all of them stay
        return tokens
    kept, position = [], 0
    for one in tokens:
        end = position + len(one.token)
        if position < start + len(text) and end > start:
            kept.append(one)
        position = end
    return tuple(kept)

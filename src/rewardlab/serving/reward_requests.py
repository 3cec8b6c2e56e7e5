"""Items as the native dialect's requests: each written as JSON once, then cut into requests of a bounded size.

This file knows JSON; it knows no connections.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rewardlab.errors import DataError
from rewardlab.serving.reward_answers import Unscored


@dataclass(frozen=True, slots=True)
class ItemText:
    """An item as the JSON that asks for it.

    Attributes:
        place: Which of the call.
        prompt: JSON.
        completion: JSON.
        steps: JSON; ``b"null"`` where it has none.
    """

    place: int
    prompt: bytes
    completion: bytes
    steps: bytes = b"null"


@dataclass(frozen=True, slots=True)
class Portion:
    """The items of one request.

    Attributes:
        items: At least one.
    """

    items: tuple[ItemText, ...]

    @property
    def places(self) -> list[int]:
        """Which items of the call they are."""
        return [item.place for item in self.items]

    def body(self) -> bytes:
        """The request's body; a prompt that all items share is written once."""
        prompts = [item.prompt for item in self.items]
        shared = len(set(prompts)) == 1
        parts = [b'"prompt":' + prompts[0] if shared else b'"prompts":' + _list(prompts)]
        parts.append(b'"completions":' + _list([item.completion for item in self.items]))
        if any(item.steps != b"null" for item in self.items):
            parts.append(b'"steps":' + _list([item.steps for item in self.items]))
        return b"{" + b",".join(parts) + b"}"


def _list(values: Sequence[bytes]) -> bytes:
    return b"[" + b",".join(values) + b"]"


def item_text(place: int, prompt: object, completion: object, steps: Sequence[str] | None) -> ItemText | Unscored:
    """An item as JSON; or, of text that no JSON can carry, why it has no score.

    Args:
        place: Which of the call.
        prompt: Text or messages.
        completion: Text or messages.
        steps: The completion's steps; None or empty where the model's contract says how to split it.

    Raises:
        DataError: It is neither text nor messages.
    """
    try:
        return ItemText(
            place,
            _json(_plain(prompt, "prompt", place)),
            _json(_plain(completion, "completion", place)),
            _json(list(steps) if steps else None),
        )
    except UnicodeEncodeError as error:
        return Unscored(
            "invalid", f"lone surrogate: {error.object[error.start]!a}", "decode the text with errors='replace'"
        )
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"item {place} cannot be written as JSON: {error}", hint="give text or messages") from error


def _plain(value: object, name: str, place: int) -> str | list[dict[str, Any]]:
    if isinstance(value, str):
        return value
    if not isinstance(value, Sequence) or not all(isinstance(turn, Mapping) for turn in value):
        raise DataError(
            f"item {place}: {name} is {type(value).__name__}, expected text or a list of messages",
            hint='a message is {"role": ..., "content": ...}',
        )
    return [dict(turn) for turn in value]


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def portions(items: Sequence[ItemText], max_items: int, max_bytes: int) -> list[Portion]:
    """Items cut into requests; those of one prompt stand together, so that the server computes the prompt once.

    Args:
        items: The items.
        max_items: Most items in a request.
        max_bytes: Most bytes of texts in a request, but for an item that is larger alone.
    """
    by_prompt: dict[bytes, list[ItemText]] = {}
    for item in items:
        by_prompt.setdefault(item.prompt, []).append(item)
    found: list[Portion] = []
    current: list[ItemText] = []
    size = 0
    for group in by_prompt.values():
        sizes = [len(item.prompt) + len(item.completion) + len(item.steps) for item in group]
        cut = len(current) + len(group) > max_items or size + sum(sizes) > max_bytes
        for item, own in zip(group, sizes, strict=True):
            if current and (cut or len(current) == max_items or size + own > max_bytes):
                found.append(Portion(tuple(current)))
                current, size = [], 0
            cut = False
            current.append(item)
            size += own
    if current:
        found.append(Portion(tuple(current)))
    return found

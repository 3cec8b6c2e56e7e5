"""The frozen records that every layer speaks in. No torch, no files, no tokenizer.

A :class:`PromptGroup` is *the* record of rewardlab: one prompt, its completions, and what is known of them. A
preference pair is a group of two completions with one :class:`Pair`; a row to score is a group with no pairs at all.
Text keeps the form in which it came (a string, or messages), so that nothing is lost; :func:`conversation` gives the
one canonical form that the chat template renders.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

Message: TypeAlias = Mapping[str, Any]
"""One turn of a conversation, ``{"role": str, "content": str, ...}``; further keys travel to the chat template."""

Text: TypeAlias = str | tuple[Message, ...]
"""A prompt or a completion: plain text, or messages."""


def as_text(value: str | Sequence[Message]) -> Text:
    """The stored form of a prompt or completion: a string as it is, messages as a tuple."""
    return value if isinstance(value, str) else tuple(value)


def messages_of(value: Text, *, role: str) -> tuple[Message, ...]:
    """The value as messages; plain text becomes one message of the given role.

    Args:
        value: Text or messages.
        role: The role plain text is given: ``"user"`` for a prompt, ``"assistant"`` for a completion.
    """
    return ({"role": role, "content": value},) if isinstance(value, str) else value


def conversation(prompt: Text, completion: Text) -> tuple[Message, ...]:
    """The whole conversation, prompt turns then completion turns, as the chat template renders it.

    Plain text and the equal one-message form give the same conversation, hence the same score. An empty text prompt
    has no turn.
    """
    before = () if prompt == "" else messages_of(prompt, role="user")
    return before + messages_of(completion, role="assistant")


def text_of(value: Text) -> str:
    """The characters of a prompt or completion: the text itself, or the messages' contents joined by blank lines.

    Used for lengths and for showing a row; never for scoring, which goes through the chat template.
    """
    if isinstance(value, str):
        return value
    return "\n\n".join(str(message.get("content") or "") for message in value)


def text_key(value: Text, *, role: str) -> str:
    """A string equal for two texts if and only if they render alike: canonical JSON of the messages."""
    return json.dumps(messages_of(value, role=role), sort_keys=True, ensure_ascii=True)


@dataclass(frozen=True, slots=True)
class Pair:
    """One preference inside a group: completion ``chosen`` was preferred to completion ``rejected``.

    Attributes:
        chosen: Index of the preferred completion in the group.
        rejected: Index of the other one.
        margin: What the loss subtracts from the score difference (column ``margin``); None where the row has none.
        weight: What this pair counts in the loss and in the mean that divides it; must be > 0.
    """

    chosen: int = 0
    rejected: int = 1
    margin: float | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        """Refuse numbers that would spoil a whole batch."""
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise ValueError(f"a pair's weight must be finite and > 0, got {self.weight}")
        if self.margin is not None and not math.isfinite(self.margin):
            raise ValueError(f"a pair's margin must be finite, got {self.margin}")


@dataclass(frozen=True, slots=True)
class PromptGroup:
    """One prompt with K >= 1 completions and what is known of them.

    Attributes:
        prompt: The prompt, text or messages (``""`` where a row has none).
        completions: K completions, each text or messages.
        pairs: The preferences between them; empty for rows that are only to be scored.
        id: The row's own id, as it came (text or integer); None where it has none.
        subset: The row's subset, for tables per subset.
        source: Where it was read, ``"pairs.jsonl:17"``; None for groups made in memory.
    """

    prompt: Text
    completions: tuple[Text, ...]
    pairs: tuple[Pair, ...] = ()
    id: str | int | None = None
    subset: str | None = None
    source: str | None = None

    def __post_init__(self) -> None:
        """Accept lists where tuples are stored, so that groups can be written by hand."""
        if isinstance(self.completions, str) or not self.completions:
            raise ValueError(f"completions must be a list of at least one, got {self.completions!r}")
        object.__setattr__(self, "prompt", as_text(self.prompt))
        object.__setattr__(self, "completions", tuple(as_text(c) for c in self.completions))
        object.__setattr__(self, "pairs", tuple(self.pairs))
        for pair in self.pairs:
            if pair.chosen == pair.rejected or not all(
                0 <= i < len(self.completions) for i in (pair.chosen, pair.rejected)
            ):
                raise ValueError(f"{pair} does not name two of the {len(self.completions)} completions")

    @property
    def prompt_key(self) -> str:
        """Equal for two groups if and only if their prompts render alike; splits and intervals go by it."""
        return text_key(self.prompt, role="user")

    @property
    def name(self) -> str:
        """How an error names this row: its source, else its id."""
        return self.source or (f"id {self.id!r}" if self.id is not None else "a group made in memory")

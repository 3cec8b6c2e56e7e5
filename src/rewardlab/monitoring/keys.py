"""Which comparison a row is, by the hash of its texts: how the monitor knows a row again without keeping its text."""

from __future__ import annotations

import hashlib

from rewardlab.types import Pair, PromptGroup, text_key

_HEX = 32  # 128 bits: no two of any number of rows that anyone has will share one


def pair_key(group: PromptGroup, pair: Pair) -> str:
    """Equal for two labelled comparisons if and only if prompt, chosen and rejected completion render alike.

    It is :func:`unlabelled_key` and a mark, ``"<"`` or ``">"``, of which side is preferred.
    """
    chosen, rejected = (text_key(group.completions[side], role="assistant") for side in (pair.chosen, pair.rejected))
    return unlabelled_key(group, pair.chosen, pair.rejected) + (">" if chosen > rejected else "<")


def unlabelled_key(group: PromptGroup, first: int, second: int) -> str:
    """Equal for two comparisons if and only if their prompts and both completions do, in either order."""
    sides = sorted(text_key(group.completions[index], role="assistant") for index in (first, second))
    return _digest(group.prompt_key, *sides)


def prompt_digest(group: PromptGroup) -> str:
    """Equal for two groups if and only if their prompts render alike."""
    return _digest(group.prompt_key)


def _digest(*texts: str) -> str:
    parts = (f"{len(text)}\n{text}" for text in texts)  # with lengths, so that no text can pass for two
    return hashlib.sha256("".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:_HEX]

"""Which rows say something of the same texts: keys of prompts and completions, each made once for all that look for it.

This file knows when two texts are the same; what follows from it is for those who ask.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rewardlab.types import Pair, PromptGroup


@dataclass(frozen=True, slots=True)
class KeyedGroup:
    """A group with the keys of its texts, which are equal if and only if the texts render alike.

    Attributes:
        group: The group.
        index: Its place among all.
        prompt: Key of its prompt; that of ``""`` where it has none.
        completions: Key of each completion.
    """

    group: PromptGroup
    index: int
    prompt: str
    completions: tuple[str, ...]

    @property
    def unit(self) -> str:
        """Equal for groups with the same prompt. Those without one are not known to belong together: a unit each."""
        return self.prompt if self.group.prompt else f"group {self.index}"


def keyed(groups: Sequence[PromptGroup]) -> list[KeyedGroup]:
    """Groups with the keys of their texts."""
    return [KeyedGroup(group, index, group.prompt_key, group.completion_keys) for index, group in enumerate(groups)]


def comparisons(rows: Iterable[KeyedGroup]) -> Iterator[tuple[KeyedGroup, Pair, str, str]]:
    """All pairs, ties among them, in order: the row, the pair, the key of its chosen side and of the other.

    Pairs of two equal texts compare nothing, and are left out.
    """
    for row in rows:
        for pair in row.group.pairs:
            chosen, rejected = row.completions[pair.chosen], row.completions[pair.rejected]
            if chosen != rejected:
                yield row, pair, chosen, rejected

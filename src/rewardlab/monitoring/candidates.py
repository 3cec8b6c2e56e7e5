"""Which comparisons could be labelled next: those of a pool, without those whose answer is known or asked for already.

This file knows groups and keys; it knows no model and does not judge what a label would be worth.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import combinations

from rewardlab.data.fingerprints import CompletionSketch
from rewardlab.monitoring.keys import prompt_digest, unlabelled_key
from rewardlab.types import PromptGroup, text_key

REASONS = {
    "identical": "both completions are the same",
    "repeated": "the pool holds it more than once",
    "known": "it is among the rows that are labelled already",
    "trained_on": "the model was trained on both completions, as its contract's sketch tells",
    "canary": "its prompt is in the canary, which nothing may be trained on",
    "labelled": "the history has a label of it: a fresh window's, or a baseline's",
    "asked": "a label was asked for before",
    "unreadable": "the model cannot read the row",
}
"""Why a comparison is left out, in the order in which it is looked for."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """Two completions of a prompt that could be compared.

    Attributes:
        group: Number of the group in the pool.
        first: Number of one completion in the group.
        second: Number of the other.
        key: Which comparison it is, in either order.
        prompt: Which prompt it is.
    """

    group: int
    first: int
    second: int
    key: str
    prompt: str


def comparisons_of(group: PromptGroup) -> Iterator[tuple[int, int]]:
    """The group's own pairs where it has some, in either order and each once; else each two of its completions."""
    if group.pairs:
        yield from dict.fromkeys((min(p.chosen, p.rejected), max(p.chosen, p.rejected)) for p in group.pairs)
    else:
        yield from combinations(range(len(group.completions)), 2)


def keys_of(groups: Iterable[PromptGroup]) -> set[str]:
    """The comparisons of some groups, by their keys."""
    return {unlabelled_key(group, *sides) for group in groups for sides in comparisons_of(group)}


def candidates_of(
    groups: Sequence[PromptGroup],
    *,
    known: Set[str] = frozenset(),
    canary: Set[str] = frozenset(),
    labelled: Set[str] = frozenset(),
    asked: Set[str] = frozenset(),
    sketches: Sequence[CompletionSketch] = (),
    unreadable: Set[int] = frozenset(),
) -> tuple[list[Candidate], dict[str, int]]:
    """The comparisons of a pool that are worth considering, and how many were left out and why.

    Args:
        groups: The pool.
        known: Keys of comparisons that are labelled already.
        canary: Keys of comparisons that are in a canary, and digests of its prompts.
        labelled: Keys of comparisons that a history has labels of.
        asked: Keys of comparisons for which a label was asked before.
        sketches: Of what the models were trained on; large training sets are recognised in part.
        unreadable: Numbers of the groups that the model cannot read.

    Returns:
        Candidates in the order of their keys, which is not the pool's; counts by the names of :data:`REASONS`.
    """
    found: dict[str, Candidate] = {}
    left_out = dict.fromkeys(REASONS, 0)
    for number, group in enumerate(groups):
        seen = _trained_on(group, sketches)
        for first, second in comparisons_of(group):
            key = unlabelled_key(group, first, second)
            one, other = (text_key(group.completions[side], role="assistant") for side in (first, second))
            reasons = {
                "identical": one == other,
                "repeated": key in found,
                "known": key in known,
                "trained_on": first in seen and second in seen,
                "canary": key in canary or prompt_digest(group) in canary,
                "labelled": key in labelled,
                "asked": key in asked,
                "unreadable": number in unreadable,
            }
            if (reason := next((name for name, holds in reasons.items() if holds), None)) is not None:
                left_out[reason] += 1
            else:
                found[key] = Candidate(number, first, second, key, prompt_digest(group))
    return [found[key] for key in sorted(found)], left_out


def _trained_on(group: PromptGroup, sketches: Sequence[CompletionSketch]) -> set[int]:
    """The completions of a group that some sketch recognises."""
    alone = [PromptGroup(group.prompt, (completion,)) for completion in group.completions] if sketches else []
    return {index for sketch in sketches for index in sketch.overlap(alone).groups}

"""Which data: fingerprints of sets, and a sketch by which a set that was trained on is recognised later.

A contract must say what a model was trained on without holding any of it. A fingerprint tells whether two sets are the
same; the sketch tells whether they overlap. This file knows groups and hashes.
"""

from __future__ import annotations

import base64
import hashlib
import heapq
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rewardlab.types import PromptGroup

SKETCH_SIZE = 8192
"""Completions a sketch holds: all of a small set; of a large one a sample that other sets can be held against."""

_BYTES = 6  # of a hash: two different completions among a million share one in 1 of 500 sets


def groups_fingerprint(groups: Sequence[PromptGroup]) -> str:
    """SHA-256 of what is learned from some groups, whatever their order and the files they came from."""
    return _digest(json.dumps(_learned_from(group), sort_keys=True) for group in groups)


def completions_fingerprint(groups: Sequence[PromptGroup]) -> str:
    """SHA-256 of the prompts and completions of some groups, whatever is known of them and their order."""
    return _digest(key for group in groups for key in _completion_keys(group))


def _digest(rows: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(rows)).encode()).hexdigest()


def _learned_from(group: PromptGroup) -> list[Any]:
    """All a group says, as JSON; what most groups do not say is left out, so that fingerprints of pairs stay."""
    pairs = []
    for pair in group.pairs:
        is_soft = pair.tie or pair.p_chosen is not None or pair.strength is not None
        soft = (pair.p_chosen, pair.strength, pair.tie) if is_soft else ()
        pairs.append([pair.chosen, pair.rejected, pair.margin, pair.weight, *soft])
    others = {
        "rankings": [[r.completions, r.ranks, r.weight] for r in group.rankings],
        "ratings": group.ratings,
        "attributes": [dict(attributes) for attributes in group.attributes],
        "labels": group.labels,
        "steps": [[[step.text, step.label] for step in steps] for steps in group.steps],
    }
    known = {name: value for name, value in others.items() if value}
    return [group.prompt, group.completions, pairs, *([known] if known else ())]


def _completion_keys(group: PromptGroup) -> list[str]:
    """One text per completion, equal for two completions exactly if they and their prompts render alike."""
    prompt = group.prompt_key
    return [f"{prompt}\n{key}" for key in group.completion_keys]


def _hashes(group: PromptGroup) -> list[int]:
    return [int.from_bytes(hashlib.sha256(key.encode()).digest()[:_BYTES]) for key in _completion_keys(group)]


@dataclass(frozen=True, slots=True)
class Overlap:
    """What a sketch recognises of another set.

    Attributes:
        groups: Indices of the groups with a completion that is in the sketch.
        share: Estimated share of the set's completions that the sketched set holds; exact where the sketch holds all of
            it, None where no completion of the set falls into the sketch's sample.
        compared: Completions behind the estimate.
    """

    groups: tuple[int, ...]
    share: float | None
    compared: int


@dataclass(frozen=True, slots=True)
class CompletionSketch:
    """The smallest hashes of a set's completions, each with its prompt: a sample that does not depend on the set.

    Another set's completions fall into the same sample or do not, by their own hash, so the share of those that do and
    are found estimates the overlap.

    Attributes:
        num_completions: Distinct completions of the set.
        hashes: The smallest of their hashes, at most :data:`SKETCH_SIZE`.

    References:
        Bottom-k sketches: Cohen & Kaplan 2007 (PODC, "Summarizing data using bottom-k sketches").
    """

    num_completions: int
    hashes: frozenset[int]

    @classmethod
    def of(cls, groups: Iterable[PromptGroup]) -> CompletionSketch:
        """The sketch of some groups."""
        every = {number for group in groups for number in _hashes(group)}
        return cls(len(every), frozenset(heapq.nsmallest(SKETCH_SIZE, every)))

    def overlap(self, groups: Sequence[PromptGroup]) -> Overlap:
        """What of other groups was in the set."""
        limit = max(self.hashes, default=-1) if self.num_completions > len(self.hashes) else 1 << 8 * _BYTES
        found, in_sample = [], set()
        for index, group in enumerate(groups):
            hashes = _hashes(group)
            in_sample |= {number for number in hashes if number <= limit}
            if not self.hashes.isdisjoint(hashes):
                found.append(index)
        share = len(in_sample & self.hashes) / len(in_sample) if in_sample else None
        return Overlap(tuple(found), share, len(in_sample))

    def to_dict(self) -> dict[str, Any]:
        """``{"num_completions", "hashes"}``, the hashes as one base64 text."""
        packed = b"".join(number.to_bytes(_BYTES) for number in sorted(self.hashes))
        return {"num_completions": self.num_completions, "hashes": base64.b64encode(packed).decode()}

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> CompletionSketch:
        """The sketch that :meth:`to_dict` wrote."""
        packed = base64.b64decode(record["hashes"])
        numbers = (int.from_bytes(packed[i : i + _BYTES]) for i in range(0, len(packed), _BYTES))
        return cls(int(record["num_completions"]), frozenset(numbers))

"""Which rows are not to be trained on: those whose prompts measure, and those that say what other rows say already.

A stray space must not carry a held-out row into training. So texts are compared without what formatting changes:
Unicode is composed (NFC), a run of spacing is one space, spacing at the ends and system turns without text are nothing.
What is trained on stays as it was written. This file also keeps, beside a model, the rows that its ancestors held out.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rewardlab.data.fingerprints import groups_fingerprint
from rewardlab.data.keys import comparisons, keyed
from rewardlab.data.ledger import Ledger
from rewardlab.data.reading import fingerprint
from rewardlab.data.records import group_of, record_of
from rewardlab.errors import DataError
from rewardlab.files import write_safely
from rewardlab.training.refresh import OldRun
from rewardlab.training.run import TRAINING_FOLDER
from rewardlab.types import Message, PromptGroup, Text, messages_of

FILE_NAME = "kept_out.jsonl"
ROLE = "kept-out"
"""Role of that file among a run's sources."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What is left of some rows.

    Attributes:
        groups: The rows that stay.
        same: How many left are the same to the letter in what was looked at.
        formatted: How many left are so but for formatting.
    """

    groups: list[PromptGroup]
    same: int
    formatted: int

    def account(self, ledger: Ledger, reason: str, what: str) -> list[str]:
        """Count the others in a ledger where they were used so far.

        Args:
            ledger: The ledger.
            reason: Why they left, ``"kind: detail"``.
            what: What rows they are, for people.

        Returns:
            One line for each count above zero.
        """
        kind, _, detail = reason.partition(": ")
        told = []
        for count, why in ((self.same, reason), (self.formatted, f"{kind} but for formatting: {detail}")):
            for _ in range(count):
                ledger.drop(why, was_used=True)
            if count:
                told.append(f"{count:,} {what}{'row' if count == 1 else 'rows'} left out, {why}")
        return told


def without_formatting(group: PromptGroup) -> PromptGroup:
    """The group with its texts as messages and without what formatting changes; an empty prompt has no message."""
    return replace(
        group,
        prompt=_plain(group.prompt, "user"),
        completions=tuple(_plain(completion, "assistant") for completion in group.completions),
        steps=tuple(tuple(replace(step, text=_words(step.text)) for step in steps) for steps in group.steps),
    )


def without_prompts(groups: Iterable[PromptGroup], others: Sequence[PromptGroup]) -> Kept:
    """The groups whose prompts are not among others'; of those without a prompt, by completion."""
    exact, plain = _Texts(others), _Texts([without_formatting(other) for other in others])
    kept, same, formatted = [], 0, 0
    for group in groups:
        if not plain.have(without_formatting(group)):
            kept.append(group)
        elif exact.have(group):
            same += 1
        else:
            formatted += 1
    return Kept(kept, same, formatted)


def shared_prompts(groups: Iterable[PromptGroup], others: Iterable[PromptGroup]) -> int:
    """How many prompts two sets share, but for formatting; groups without a prompt share none."""
    here, there = (_Texts([without_formatting(group) for group in some]).prompts for some in (groups, others))
    return len(here & there)


def without_repeats(old: Sequence[PromptGroup], new: Iterable[PromptGroup]) -> tuple[Kept, int]:
    """The new groups that say something old ones do not.

    Returns:
        These groups (a row leaves where each of its comparisons is an old one; where it compares nothing, where an old
        row says the same); and how many of them contradict an old one: of the same two completions another is
        preferred, or none.
    """
    exact, plain = _Said(old), _Said([without_formatting(group) for group in old])
    kept, same, formatted, contradictory = [], 0, 0, 0
    for group in new:
        row = without_formatting(group)
        repeated, contradicts, looked_at = exact.look(group)
        plain_repeated, plain_contradicts, plain_looked_at = plain.look(row)
        if repeated:
            same += 1
        elif plain_repeated and plain_looked_at == looked_at:  # it compares nothing that formatting alone tells apart
            formatted += 1
        else:
            kept.append(group)
            contradictory += contradicts or plain_contradicts
    return Kept(kept, same, formatted), contradictory


def write_kept_out(folder: Path, groups: Sequence[PromptGroup]) -> list[dict[str, Any]]:
    """Keep rows that no later refresh may train on, in ``training/kept_out.jsonl`` of a model.

    Returns:
        The file as a run's sources have it; nothing where there is no row.
    """
    path = folder / TRAINING_FOLDER / FILE_NAME
    if not groups:
        return []
    path.parent.mkdir(parents=True, exist_ok=True)
    write_safely(path, "".join(json.dumps({"group": record_of(group)}) + "\n" for group in groups))
    return [{"role": ROLE, "file": FILE_NAME, "sha256": fingerprint(path)}]


def read_kept_out(old: OldRun) -> list[PromptGroup]:
    """The rows that the old run's ancestors held out, and it did not.

    Raises:
        DataError: They are not there, or not what they were.
    """
    path = old.folder / TRAINING_FOLDER / FILE_NAME
    for source in old.run.get("sources", ()):
        if source["role"] != ROLE:
            continue
        if not path.is_file() or fingerprint(path) != source["sha256"]:
            raise DataError(
                f"{path} {'is not what it was' if path.is_file() else 'is not there'}, so what earlier models held "
                "out is not known and could be trained on",
                hint="restore the folder training/ from a copy",
            )
        return [group_of(json.loads(line)["group"]) for line in path.read_text(encoding="ascii").splitlines()]
    return []


def replaced_rows(before: Sequence[PromptGroup], now: Sequence[PromptGroup]) -> list[PromptGroup]:
    """The rows that measured before and do not now, each once."""
    measuring = {groups_fingerprint([group]) for group in now}
    found = {groups_fingerprint([group]): group for group in before}
    return [group for digest, group in found.items() if digest not in measuring]


class _Texts:
    """The prompts of some groups, and of those without one the completions."""

    def __init__(self, groups: Sequence[PromptGroup]) -> None:
        self.prompts = {group.prompt_key for group in groups if group.prompt}
        self._completions = {key for group in groups if not group.prompt for key in group.completion_keys}

    def have(self, group: PromptGroup) -> bool:
        """Whether the group's prompt is among them, or without one a completion."""
        if group.prompt:
            return group.prompt_key in self.prompts
        return not self._completions.isdisjoint(group.completion_keys)


class _Said:
    """What some groups say."""

    def __init__(self, groups: Sequence[PromptGroup]) -> None:
        self._verdicts: dict[tuple[str, frozenset[str]], set[str | None]] = {}
        for row, pair, chosen, rejected in comparisons(keyed(groups)):
            verdict = None if pair.tie else chosen
            self._verdicts.setdefault((row.prompt, frozenset((chosen, rejected))), set()).add(verdict)
        self._others = {groups_fingerprint([group]) for group in groups if not group.pairs}

    def look(self, group: PromptGroup) -> tuple[bool, bool, int]:
        """Whether they say all that the group says, whether they contradict it, and how many comparisons it makes."""
        if not group.pairs:
            return groups_fingerprint([group]) in self._others, False, 0
        known = [
            (self._verdicts.get((row.prompt, frozenset((chosen, rejected)))), None if pair.tie else chosen)
            for row, pair, chosen, rejected in comparisons(keyed([group]))
        ]
        repeated = bool(known) and all(before is not None and verdict in before for before, verdict in known)
        contradicts = any(before is not None and verdict not in before for before, verdict in known)
        return repeated, contradicts, len(known)


def _plain(value: Text, role: str) -> tuple[Message, ...]:
    turns = [
        {**turn, "content": _words(turn["content"])} if isinstance(turn.get("content"), str) else turn
        for turn in messages_of(value, role=role)
    ]
    kept = [turn for turn in turns if turn["content"] or turn["role"] != "system"]
    return tuple(kept) if any(turn["content"] for turn in kept) else ()


def _words(text: str) -> str:
    """Without what cannot be seen (but for joiners, which change words), in NFC, spaces single."""
    seen = (c for c in unicodedata.normalize("NFC", text) if unicodedata.category(c) != "Cf" or c in "\u200c\u200d")
    return " ".join("".join(seen).split())

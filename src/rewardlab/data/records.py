"""Groups as JSON and back, whole: how a run keeps the groups that it scored.

The formats of :mod:`rewardlab.data.formats` are other people's rows, each of which says part of what a group can hold;
a record is all of one group. This file knows JSON values; it opens no file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from rewardlab.errors import DataError
from rewardlab.types import Pair, PromptGroup, Ranking, Step, Text


def text_as_json(text: Text) -> Any:
    """A text as a row has it: a string, or a list of messages."""
    return text if isinstance(text, str) else [dict(message) for message in text]


def record_of(group: PromptGroup) -> dict[str, Any]:
    """The group as JSON values; what it does not say is left out."""
    return {name: value for name, value in asdict(group).items() if value not in (None, ())}


def group_of(record: Mapping[str, Any]) -> PromptGroup:
    """The group that a record was made of.

    Raises:
        DataError: This is no record of a group.
    """
    try:
        rest = {
            name: record[name]
            for name in ("id", "subset", "source", "ratings", "attributes", "labels", "systems")
            if name in record
        }
        return PromptGroup(
            prompt=record["prompt"],
            completions=record["completions"],
            pairs=tuple(Pair(**pair) for pair in record.get("pairs", ())),
            rankings=tuple(Ranking(**ranking) for ranking in record.get("rankings", ())),
            steps=tuple(tuple(Step(**step) for step in steps) for steps in record.get("steps", ())),
            **rest,
        )
    except (KeyError, TypeError, ValueError) as error:
        known = ", ".join(field.name for field in fields(PromptGroup))
        raise DataError(f"not a record of a group: {error}", hint=f"expected an object with {known}") from error

"""The columns of a row, one at a time: text and messages, numbers, lists; each checked down to the last value.

This file knows values and what can be wrong with them; it does not know which columns make a row. Every reason it gives
is worded ``"kind: detail"``, so that rows can be counted by kind.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from rewardlab.data.transcripts import OPEN_TURN, is_transcript, parse_transcript
from rewardlab.errors import DataError
from rewardlab.types import Message, Text

Row: TypeAlias = Mapping[str, Any]

ASKING = ("system", "user")
"""Roles that do not answer; any other may (assistant, tool, a model's own name)."""


def which(row: Row, columns: str) -> str | None:
    """The first of some columns, ``"prompt|context"``, that the row has; None where it has none. Null is missing."""
    for column in columns.split("|"):
        if row.get(column) is not None:
            return column
    return None


# -- text ------------------------------------------------------------------------------------------------------------


def prompt_of(row: Row, column: str = "prompt") -> tuple[Text, str | None]:
    """The prompt, ``""`` where there is none; and the transcript it was parsed from, if it came as one."""
    prompt = text_or_messages(row[column], column)
    if isinstance(prompt, str):
        if not is_transcript(prompt):
            return (prompt if prompt.strip() else ""), None
        turns = parse_transcript(prompt)
        if turns[-1]["role"] == "assistant" and not turns[-1]["content"]:
            turns = turns[:-1]
        return _not_empty(turns), prompt
    return (_not_empty(prompt) if prompt else ""), None


def _not_empty(turns: tuple[Message, ...]) -> tuple[Message, ...]:
    if not any(turn["content"].strip() for turn in turns):
        raise DataError("prompt is empty: all of its turns are")
    return turns


def answer_of(row: Row, column: str, transcript: str | None) -> Text:
    """One completion as it came; in a transcript, the turns that follow the prompt's: mostly one, sometimes more."""
    value = text_or_messages(row[column], column)
    if transcript is None or not isinstance(value, str):
        return value
    marker = OPEN_TURN.strip()
    prompt = transcript.strip()
    whole = prompt if prompt.endswith(marker) else prompt + OPEN_TURN  # which some sets repeat in front
    rest = value.strip().removeprefix(whole).lstrip()
    return as_came(parse_transcript(rest if rest.startswith(marker) else OPEN_TURN + rest))


def as_came(turns: tuple[Message, ...]) -> Text:
    """The turns of an answer; a single assistant turn is plain text, as the row had it."""
    return str(turns[0]["content"]) if len(turns) == 1 and turns[0]["role"] == "assistant" else turns


def text_or_messages(value: object, column: str) -> Text:
    """Text or messages, of the right types all the way down."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list | tuple):
        raise DataError(
            f"{_base(column)} is of the wrong type: {column} is {type(value).__name__}, expected text or messages"
        )
    return tuple(_message(message, f"{column}[{index}]") for index, message in enumerate(value))


def _message(message: object, place: str) -> Message:
    if not isinstance(message, Mapping):
        raise DataError(f"broken messages: {place} is of type {type(message).__name__}, expected {{role, content}}")
    for key in ("role", "content"):
        value = message.get(key)
        if not isinstance(value, str):
            there = f"there are {sorted(map(str, message))}"
            found = f"of type {type(value).__name__}" if key in message else f"missing, {there}"
            raise DataError(f"broken messages: {key} of {place} is {found}, expected text")
    if not message["role"].strip():
        raise DataError(f"broken messages: role of {place} is empty")
    # Arrow gives every message of a column the same keys, with None for those that a message did not have.
    present = {str(key): value for key, value in message.items() if value is not None}
    try:
        json.dumps(present)
    except (TypeError, ValueError) as error:  # a date, bytes: neither a template nor a prompt's key can use it
        raise DataError(f"broken messages: {place} has a value that JSON cannot hold ({error})") from error
    return present


def answered(completion: Text, column: str, *, may_be_empty: bool = False) -> Text:
    """A completion that is the assistant's and, unless it may be empty, says something; messages are one at least."""
    last = completion if isinstance(completion, str) else (completion[-1]["content"] if completion else "")
    if not last.strip() and not (may_be_empty and completion != ()):
        raise DataError(f"{_base(column)} is empty" + (f": {column}" if column != _base(column) else ""))
    if isinstance(completion, tuple):
        for turn in (completion[0], completion[-1]):
            if turn["role"] in ASKING:
                raise DataError(f"not an answer: {column} begins or ends with a {turn['role']} turn")
    return completion


def _base(column: str) -> str:
    """The column of a place in it, ``completions[3]`` -> ``completions``: reasons are counted by column."""
    return column.partition("[")[0]


def answers_of(
    values: Sequence[object], column: str, transcript: str | None, *, may_be_empty: bool = False
) -> tuple[Text, ...]:
    """The completions of a list, each as :func:`answered` wants it."""
    places = {f"{column}[{index}]": value for index, value in enumerate(values)}
    return tuple(answered(answer_of(places, place, transcript), place, may_be_empty=may_be_empty) for place in places)


# -- numbers and lists -----------------------------------------------------------------------------------------------


def number_of(row: Row, column: str) -> float | None:
    """The number of a column; None where it has none."""
    value = row.get(column)
    return None if value is None else number(value, column)


def number(value: object, place: str) -> float:
    """A finite number; text that spells one counts too, since CSV has nothing else."""
    try:
        found = math.nan if isinstance(value, bool) or not isinstance(value, int | float | str) else float(value)
    except (ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        where = f"{place} is " if place != _base(place) else ""
        raise DataError(f"{_base(place)} is not a finite number: {where}{str(value)[:40]!r} ({type(value).__name__})")
    return found


def probability(value: object, place: str) -> float:
    """A number in [0, 1]; true and false are 1 and 0."""
    spelled = {"true": 1.0, "false": 0.0}.get(value.strip().lower()) if isinstance(value, str) else None
    found = float(value) if isinstance(value, bool) else number(value, place) if spelled is None else spelled
    if not 0 <= found <= 1:
        raise DataError(f"{_base(place)} is not a probability: {place} is {found:g}, expected 0 to 1")
    return found


def weight_of(row: Row) -> float:
    """What a row counts; 1 where it does not say."""
    weight = number_of(row, "weight")
    if weight is not None and weight <= 0:
        raise DataError(f"weight is not positive: {weight}")
    return 1.0 if weight is None else weight


def list_of(row: Row, column: str) -> Sequence[Any]:
    """A list that is not empty."""
    values = row[column]
    if not isinstance(values, list | tuple):
        raise DataError(f"{column} is of the wrong type: {type(values).__name__}, expected a list")
    if not values:
        raise DataError(f"{column} is empty")
    return values


def list_per(row: Row, column: str, what: str, count: int) -> Sequence[Any]:
    """A list with one value for each of ``count`` completions or steps; ``what`` says which."""
    values = list_of(row, column)
    if len(values) != count:
        raise DataError(f"{column} do not match {what}: {len(values)} {column} for {count} {what}")
    return values


# -- who wrote it ----------------------------------------------------------------------------------------------------


def systems_of(row: Row, count: int, *sides: str) -> tuple[str | None, ...]:
    """What wrote each of ``count`` completions: ``sides``, a column for each (``"a|b"``: or), else a list of all.

    The list is the column ``systems`` or ``models``, in the order of the completions. A column for one completion says
    more than a list that may mean another order, so it goes first.

    Returns:
        A name for each, None where the row does not say; empty where it says of none.
    """
    columns = [which(row, side) for side in sides]
    if any(columns):
        return names_of({c or side: row[c] if c else None for c, side in zip(columns, sides, strict=True)})
    listed = which(row, "systems|models")
    if listed is None:
        return ()
    values = list_per(row, listed, "completions", count)
    return names_of({f"{listed}[{index}]": value for index, value in enumerate(values)})


def names_of(values: Mapping[str, object]) -> tuple[str | None, ...]:
    """The names in some places; None for null and for blank text, empty where there is none at all."""
    for place, value in values.items():
        if value is not None and not isinstance(value, str):
            raise DataError(
                f"{_base(place)} is of the wrong type: {place} is {type(value).__name__}, expected a name as text"
            )
    names = tuple(value if isinstance(value, str) and value.strip() else None for value in values.values())
    return names if any(names) else ()

"""One raw row -> one group: what the columns mean, and what makes a row unusable.

This file knows columns and their checks; it does not know where a row came from beyond its name, nor what happens to a
bad one. Every reason it gives is worded ``"kind: detail"``, so that rows can be counted by kind.

A new kind of row is one function and one line in :data:`FORMATS`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from rewardlab.data.transcripts import OPEN_TURN, is_transcript, parse_transcript
from rewardlab.errors import ConfigError, DataError
from rewardlab.types import Message, Pair, PromptGroup, Text, messages_of, text_key

Row: TypeAlias = Mapping[str, Any]
Content: TypeAlias = tuple[Text, tuple[Text, ...], tuple[Pair, ...]]
"""Prompt, completions, pairs."""

_ASKING = ("system", "user")  # roles that do not answer; any other may (assistant, tool, a model's own name)


@dataclass(frozen=True, slots=True)
class Format:
    """One kind of row.

    Attributes:
        columns: The columns a row of this kind must have; the first format of the table whose columns are all there is
            the one that ``"auto"`` takes.
        parse: The row's prompt, completions and pairs.
    """

    columns: tuple[str, ...]
    parse: Callable[[Row], Content]


def parse_row(row: Row, *, format: str = "auto", source: str | None = None) -> PromptGroup:
    """The group that one row describes.

    Args:
        row: Column name -> value. Columns that the format does not name are ignored; None and a missing column are the
            same.
        format: A key of :data:`FORMATS`, or ``"auto"``: told by the columns.
        source: The row's place, ``"pairs.jsonl:17"``, kept in the group.

    Returns:
        The group. Plain text stays a string, messages become a tuple of dicts, hh-rlhf transcripts are parsed into
        messages.

    Raises:
        DataError: The row cannot be used; the message is the reason, ``"kind: detail"``, without the place.
        ConfigError: ``format`` is not known.
    """
    if format != "auto" and format not in FORMATS:
        raise ConfigError(f"no row format is called {format!r}", hint=f"one of: auto, {', '.join(FORMATS)}")
    kind = FORMATS[_detect(row) if format == "auto" else format]
    for column in kind.columns:
        if row.get(column) is None:
            raise DataError(f"{column} is missing")
    prompt, completions, pairs = kind.parse(row)
    return PromptGroup(prompt, completions, pairs, id=_id(row), subset=_subset(row), source=source)


def _detect(row: Row) -> str:
    for name, kind in FORMATS.items():
        if all(row.get(column) is not None for column in kind.columns):
            return name
    # A row that has one side of a pair lacks the other; say that rather than that nothing is known of it.
    for side, other in (("chosen", "rejected"), ("rejected", "chosen")):
        if row.get(side) is not None:
            raise DataError(f"{other} is missing")
    if row.get("completion") is not None or row.get("completions") is not None:
        raise DataError("prompt is missing")
    expected = "; ".join(" + ".join(kind.columns) for kind in FORMATS.values())
    raise DataError(f"no known format: the columns are {', '.join(map(repr, row)) or 'none'}; expected {expected}")


# -- formats ---------------------------------------------------------------------------------------------------------


def _pair(row: Row) -> Content:
    """``prompt, chosen, rejected``; sides that repeat the prompt in front (TRL, UltraFeedback) lose it there."""
    prompt, transcript = _prompt(row)
    if prompt == "":
        return _implicit_pair(row)
    sides = [_side(row, column, transcript) for column in ("chosen", "rejected")]
    if isinstance(sides[0], tuple) and isinstance(sides[1], tuple):
        turns = messages_of(prompt, role="user")
        # Where the sides also carry a system turn in front, it belongs to the prompt.
        first = sides[0][:1]
        system = first if first == sides[1][:1] and first and first[0]["role"] == "system" else ()
        for repeated in (system + turns, turns):
            begins = [_begins_with(side, repeated) for side in sides]
            if all(begins):
                prompt = prompt if repeated == turns else repeated
                sides = [side[len(repeated) :] for side in sides]
                break
            if any(begins):
                one, other = ("chosen", "rejected") if begins[0] else ("rejected", "chosen")
                raise DataError(f"different prompts: {one} repeats the prompt, {other} does not")
    return prompt, *_two_sides(row, *sides)


def _implicit_pair(row: Row) -> Content:
    """``chosen, rejected`` alone: two whole conversations, whose common leading turns are the prompt.

    Plain text without turns has no prompt that could be told from the answers: the prompt is then empty, and each text
    is a completion. What two texts happen to begin with alike is not taken for a prompt.
    """
    chosen, rejected = _text(row["chosen"], "chosen"), _text(row["rejected"], "rejected")
    in_transcript = False
    if isinstance(chosen, str) and isinstance(rejected, str) and chosen.strip() and rejected.strip():
        in_transcript = is_transcript(chosen)
        if in_transcript != is_transcript(rejected):
            raise DataError("different types: one of chosen and rejected is a transcript, the other is plain text")
        if in_transcript:
            chosen, rejected = parse_transcript(chosen), parse_transcript(rejected)
    if isinstance(chosen, str) or isinstance(rejected, str):
        return "", *_two_sides(row, chosen, rejected)
    for column, turns in (("chosen", chosen), ("rejected", rejected)):
        if not turns or turns[-1]["role"] in _ASKING:
            raise DataError(f"{column} is empty: the conversation has no answer at its end")
    if chosen == rejected:
        raise DataError("identical sides: chosen and rejected are the same")
    common = 0
    while common < min(len(chosen), len(rejected)) - 1 and chosen[common] == rejected[common]:
        common += 1
    if chosen[common]["role"] in _ASKING or rejected[common]["role"] in _ASKING:
        raise DataError(f"different prompts: the two conversations part at turn {common + 1}, which is no answer")
    sides = [rest if not in_transcript else _as_came(rest) for rest in (chosen[common:], rejected[common:])]
    return chosen[:common] or "", *_two_sides(row, *sides)


def _completion(row: Row) -> Content:
    """``prompt, completion``: one completion to score."""
    prompt, transcript = _prompt(row)
    return prompt, (_checked(_side(row, "completion", transcript), "completion"),), ()


def _completions(row: Row) -> Content:
    """``prompt, completions``: K >= 1 completions to score."""
    prompt, transcript = _prompt(row)
    values = row["completions"]
    if not isinstance(values, list | tuple):
        raise DataError(f"completions is of the wrong type: {type(values).__name__}, expected a list")
    if not values:
        raise DataError("completions is empty")
    columns = {f"completions[{index}]": value for index, value in enumerate(values)}
    return prompt, tuple(_checked(_side(columns, column, transcript), column) for column in columns), ()


FORMATS: dict[str, Format] = {
    "pair": Format(("prompt", "chosen", "rejected"), _pair),
    "implicit_pair": Format(("chosen", "rejected"), _implicit_pair),
    "completions": Format(("prompt", "completions"), _completions),
    "completion": Format(("prompt", "completion"), _completion),
}
"""The kinds of rows, in the order in which they are looked for."""


def scored_text(prompt: object, completion: object) -> tuple[Text, Text]:
    """A prompt and one completion, read as a row's would be, so that both give the same score.

    Unlike in a row an empty completion is allowed: a policy can produce one, and it has a score.

    Raises:
        DataError: One of them is neither text nor messages.
    """
    text, transcript = _prompt({"prompt": prompt})
    return text, _side({"completion": completion}, "completion", transcript)


# -- text ------------------------------------------------------------------------------------------------------------


def _prompt(row: Row) -> tuple[Text, str | None]:
    """The prompt, ``""`` where there is none; and the transcript it was parsed from, if it came as one."""
    prompt = _text(row["prompt"], "prompt")
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


def _side(row: Row, column: str, transcript: str | None) -> Text:
    """One completion as it came; in a transcript, the turns that follow the prompt's: mostly one, sometimes more."""
    value = _text(row[column], column)
    if transcript is None or not isinstance(value, str):
        return value
    marker = OPEN_TURN.strip()
    prompt = transcript.strip()
    whole = prompt if prompt.endswith(marker) else prompt + OPEN_TURN  # which some sets repeat in front
    rest = value.strip().removeprefix(whole).lstrip()
    return _as_came(parse_transcript(rest if rest.startswith(marker) else OPEN_TURN + rest))


def _as_came(turns: tuple[Message, ...]) -> Text:
    """The turns of an answer; a single assistant turn is plain text, as the row had it."""
    return str(turns[0]["content"]) if len(turns) == 1 and turns[0]["role"] == "assistant" else turns


def _text(value: object, column: str) -> Text:
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


def _base(column: str) -> str:
    """The column of a place in it, ``completions[3]`` -> ``completions``: reasons are counted by column."""
    return column.partition("[")[0]


def _begins_with(side: Text, prompt: tuple[Message, ...]) -> bool:
    """Whether messages begin with the prompt's; spaces around a turn do not count."""

    def plain(turns: tuple[Message, ...]) -> list[tuple[str, str]]:
        return [(turn["role"], turn["content"].strip()) for turn in turns]

    return isinstance(side, tuple) and len(side) >= len(prompt) and plain(side[: len(prompt)]) == plain(prompt)


def _two_sides(row: Row, chosen: Text, rejected: Text) -> tuple[tuple[Text, ...], tuple[Pair, ...]]:
    if isinstance(row["chosen"], str) != isinstance(row["rejected"], str):
        raise DataError("different types: one of chosen and rejected is text, the other is messages")
    sides = (_checked(chosen, "chosen"), _checked(rejected, "rejected"))
    if text_key(sides[0], role="assistant") == text_key(sides[1], role="assistant"):
        raise DataError("identical sides: chosen and rejected are the same")
    weight = _number(row, "weight")
    if weight is not None and weight <= 0:
        raise DataError(f"weight is not positive: {weight}")
    return sides, (Pair(0, 1, margin=_number(row, "margin"), weight=1.0 if weight is None else weight),)


def _checked(completion: Text, column: str) -> Text:
    """A completion that says something and is the assistant's."""
    last = completion if isinstance(completion, str) else (completion[-1]["content"] if completion else "")
    if not last.strip():
        raise DataError(f"{_base(column)} is empty" + (f": {column}" if column != _base(column) else ""))
    if isinstance(completion, tuple):
        for turn in (completion[0], completion[-1]):
            if turn["role"] in _ASKING:
                raise DataError(f"not an answer: {column} begins or ends with a {turn['role']} turn")
    return completion


# -- the other columns -----------------------------------------------------------------------------------------------


def _number(row: Row, column: str) -> float | None:
    """A finite number; text that spells one counts too, since CSV has nothing else."""
    value = row.get(column)
    if value is None:
        return None
    try:
        number = math.nan if isinstance(value, bool) or not isinstance(value, int | float | str) else float(value)
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{column} is not a finite number: {str(value)[:40]!r} ({type(value).__name__})")
    return number


def _id(row: Row) -> str | int | None:
    value = row.get("id")
    if value is None or (isinstance(value, str | int) and not isinstance(value, bool)):
        return value
    raise DataError(f"id is of the wrong type: {type(value).__name__}, expected text or an integer")


def _subset(row: Row) -> str | None:
    """The subset as text; a class label of ``datasets`` is an integer."""
    value = row.get("subset")
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise DataError(f"subset is of the wrong type: {type(value).__name__}, expected text")

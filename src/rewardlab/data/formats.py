"""One raw row -> one group: which kind of row it is, told by its columns.

This file has the table of formats and reads rows of which nothing is known but their text; the others are read by
``pairs``, ``labelled``, ``rankings``, ``outcomes`` and ``solutions``. It does not know where a row came from beyond its
name, nor what happens to a bad one. Every reason for one is worded ``"kind: detail"``, so that rows can be counted by
kind.

A new kind of row is one function and one line in :data:`FORMATS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from rewardlab.data import labelled, outcomes, pairs, rankings, solutions
from rewardlab.data.columns import Row, answer_of, answered, answers_of, list_of, prompt_of, systems_of, which
from rewardlab.errors import ConfigError, DataError
from rewardlab.types import PromptGroup, Text


@dataclass(frozen=True, slots=True)
class Format:
    """One kind of row.

    Attributes:
        columns: The columns a row of this kind must have, ``"a|b"`` for one of two; the first format of the table whose
            columns are all there is the one that ``"auto"`` takes.
        parse: The row's group, without the row's id, subset and source.
    """

    columns: tuple[str, ...]
    parse: Callable[[Row], PromptGroup]


def parse_row(
    row: Row,
    *,
    format: str = "auto",
    source: str | None = None,
    labels_format: Callable[[], str | None] | None = None,
) -> PromptGroup:
    """The group that one row describes.

    Args:
        row: Column name -> value. Columns that the format does not name are ignored; None and a missing column are the
            same.
        format: A key of :data:`FORMATS`, or ``"auto"``: told by the columns.
        source: The row's place, ``"pairs.jsonl:17"``, kept in the group.
        labels_format: Tells what a list of ``labels`` beside ``completions`` means, asked where columns cannot tell. By
            default it is the row alone; a file is more often clear (:func:`rewardlab.data.solutions.labels_format`).

    Returns:
        The group. Plain text stays a string, messages become a tuple of dicts, hh-rlhf transcripts are parsed into
        messages.

    Raises:
        DataError: The row cannot be used; the message is the reason, ``"kind: detail"``, without the place.
        ConfigError: ``format`` is not known.
    """
    if format != "auto" and format not in FORMATS:
        raise ConfigError(f"no row format is called {format!r}", hint=f"one of: auto, {', '.join(FORMATS)}")
    if format == "auto":
        format = _detect(row, labels_format or (lambda: solutions.labels_format([row])))
    else:
        for columns in FORMATS[format].columns:
            if which(row, columns) is None:
                raise DataError(f"{columns.replace('|', ' or ')} is missing")
    try:
        group = FORMATS[format].parse(row)
    except ValueError as error:  # numbers that are finite each, but not their difference
        raise DataError(f"numbers too large: {error}") from error
    return replace(group, id=_id(row), subset=_subset(row), source=source)


def _detect(row: Row, labels_format: Callable[[], str | None]) -> str:
    for name, kind in FORMATS.items():
        if all(which(row, columns) is not None for columns in kind.columns):
            if kind.columns != _LABELS:
                return name
            list_of(row, "labels")
            if (told := labels_format()) is None:
                raise DataError(
                    "labels could be of steps or of completions: none of them tells; state --format outcomes, steps "
                    "(0 = neutral), steps_01 (0 = incorrect) or completions (without labels)"
                )
            return told
    # A row that has one side of a pair lacks the other; say that rather than that nothing is known of it.
    for side, other in (("chosen", "rejected"), ("rejected", "chosen")):
        if row.get(side) is not None:
            raise DataError(f"{other} is missing")
    if row.get("completion") is not None or row.get("completions") is not None:
        raise DataError("prompt is missing")
    expected = "; ".join(" + ".join(kind.columns) for kind in FORMATS.values())
    raise DataError(f"no known format: the columns are {', '.join(map(repr, row)) or 'none'}; expected {expected}")


def _completion(row: Row) -> PromptGroup:
    """``prompt, completion``: one completion to score, also an empty one: a policy can write it, and it has a score."""
    prompt, transcript = prompt_of(row)
    answer = answer_of(row, "completion", transcript)
    return PromptGroup(prompt, (answered(answer, "completion", may_be_empty=True),))


def _completions(row: Row) -> PromptGroup:
    """``prompt, completions``: K >= 1 completions to score, some of them perhaps empty."""
    prompt, transcript = prompt_of(row)
    completions = answers_of(list_of(row, "completions"), "completions", transcript, may_be_empty=True)
    return PromptGroup(prompt, completions, systems=systems_of(row, len(completions)))


_LABELS = ("prompt", "completions", "labels")  # of steps, or of completions: values tell, or nobody

FORMATS: dict[str, Format] = {
    "pair": Format(("prompt", "chosen", "rejected"), pairs.pair),
    "implicit_pair": Format(("chosen", "rejected"), pairs.implicit_pair),
    "labelled": Format(("prompt", "a", "b", "label"), labelled.labelled),
    "tie": Format(("prompt", "a", "b"), labelled.tie),
    "preference_strength": Format(
        ("prompt|context", "response_1|response1", "response_2|response2", "preference_strength|overall_preference"),
        pairs.preference_strength,
    ),
    "kwise": Format(("prompt", "completions", "ranks|scores|attributes"), rankings.kwise),
    "ultrafeedback": Format(("instruction", "completions"), rankings.ultrafeedback),
    "nectar": Format(("prompt", "answers"), rankings.nectar),
    "steps": Format(_LABELS, solutions.steps),
    "steps_01": Format(_LABELS, solutions.steps_01),
    "outcomes": Format(_LABELS, outcomes.outcomes),
    "outcome": Format(("prompt", "completion", "label"), outcomes.outcome),
    "rated": Format(("prompt", "completion", "rating|score"), rankings.rated),
    "helpsteer": Format(("prompt", "response", "|".join(rankings.HELPSTEER_ATTRIBUTES)), rankings.helpsteer),
    "completions": Format(("prompt", "completions"), _completions),
    "completion": Format(("prompt", "completion"), _completion),
    "processbench": Format(("problem", "steps", "label"), solutions.processbench),
    "prm800k": Format(("question", "label"), solutions.prm800k),
    "math_shepherd": Format(("input", "label"), solutions.math_shepherd),
}
"""The kinds of rows, in the order in which they are looked for."""


def scored_text(prompt: object, completion: object) -> tuple[Text, Text]:
    """A prompt and one completion, read as a row's would be, so that both give the same score.

    Raises:
        DataError: One of them is neither text nor messages.
    """
    text, transcript = prompt_of({"prompt": prompt})
    return text, answer_of({"completion": completion}, "completion", transcript)


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

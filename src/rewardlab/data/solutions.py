"""Solutions whose steps were judged -> groups with steps: TRL's, PRM800K's, Math-Shepherd's and ProcessBench's rows.

A completion's text is its steps, one per line; the text of a step stays as it came. This file knows the columns of step
rows; single columns are :mod:`rewardlab.data.columns`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rewardlab.data.columns import Row, list_of, list_per, number, probability, prompt_of
from rewardlab.errors import DataError
from rewardlab.types import PromptGroup, Step, Text

_SHEPHERD_TAG = "ки"  # what Math-Shepherd puts at the end of each step, where its labels have + or - (arXiv:2312.08935)
_SHEPHERD_START = "Step 1:"


def steps(row: Row) -> PromptGroup:
    """``prompt, completions`` = steps and ``labels``: true or +1, 0 = neutral, false or -1, null = not judged."""
    return _labelled_steps(row, zero=0)


def steps_01(row: Row) -> PromptGroup:
    """The same where 0 stands for incorrect, as in data whose booleans have become numbers."""
    return _labelled_steps(row, zero=-1)


def processbench(row: Row) -> PromptGroup:
    """ProcessBench's rows: ``problem, steps`` and ``label``, the index of the first wrong step, -1 where none is.

    Steps after the first wrong one have no label (arXiv:2412.06559; github.com/QwenLM/ProcessBench).
    """
    texts = _texts(row, "steps")
    first = number(row["label"], "label")
    if not (first.is_integer() and -1 <= first < len(texts)):
        raise DataError(f"label is no step: {first:g}, expected -1 or the index of one of {len(texts)} steps")
    error = len(texts) if first == -1 else int(first)
    marks = [1 if index < error else -1 if index == error else None for index in range(len(texts))]
    return _solution(row, prompt_of(row, "problem")[0], texts, marks)


def prm800k(row: Row) -> PromptGroup:
    """PRM800K's own rows: ``question`` and ``label`` with the steps that its labeller went through.

    At each step the chosen completion is taken, else the one that the labeller wrote. Where the labelling ended with an
    error, so does the solution: with the first completion of the last step that was rated wrong. Completions that were
    not chosen are not read (arXiv:2305.20050; github.com/openai/prm800k).
    """
    question, label = (_object(row[column], column) for column in ("question", "label"))
    if question.get("problem") is None:
        raise DataError("question is of the wrong type: there is no problem in it")
    texts, marks = [], []
    for place, step in enumerate(list_of(label, "steps") if label.get("steps") else ()):
        found = _taken(_object(step, f"label.steps[{place}]"), place, label.get("finish_reason"))
        if found is None:
            break
        texts.append(found.get("text"))
        marks.append(_mark(found.get("rating"), f"label.steps[{place}]", zero=0))
    if not texts:
        raise DataError("label is empty: it has no steps")
    return _solution(row, prompt_of(question, "problem")[0], _texts({"steps": texts}, "steps"), marks)


def math_shepherd(row: Row) -> PromptGroup:
    """Math-Shepherd's own rows: ``input`` with a tag after each step, and ``label``, where + or - replaces it."""
    text, label = row["input"], row["label"]
    if not isinstance(text, str) or not isinstance(label, str):
        raise DataError("input is of the wrong type: expected text in both input and label")
    *pieces, rest = text.split(_SHEPHERD_TAG)
    if not pieces:
        raise DataError(f"no step tags: input has no {_SHEPHERD_TAG!r} after its steps")
    if rest.strip():
        raise DataError(
            f"text after the last step: {len(rest.strip())} characters have no {_SHEPHERD_TAG!r} after them"
        )
    prompt, start, first = pieces[0].partition(_SHEPHERD_START)
    if not start:
        raise DataError(f"no first step: input has no {_SHEPHERD_START!r}, where the solution begins")
    marks, position = [], 0
    for index, piece in enumerate(pieces):
        position += len(piece) + 1
        sign = label[position - 1 : position]
        if label[position - 1 - len(piece) : position - 1] != piece or sign not in ("+", "-"):
            raise DataError(
                f"labels do not match steps: label is not input with + or - for the tags, at step {index + 1}"
            )
        marks.append(1 if sign == "+" else -1)
    if label[position:].strip():
        raise DataError("labels do not match steps: label goes on after the last step of input")
    texts = _texts({"input": [start + first, *pieces[1:]]}, "input")
    return _solution(row, prompt.strip(), [part.strip() for part in texts], marks)


def labels_format(rows: Iterable[Row]) -> str | None:
    """What ``labels`` beside ``completions`` are in some rows, mostly those of a file: the name of a format.

    -1 says ``steps``. Else a number between 0 and 1 says ``outcomes``. Else booleans and nulls say ``steps``, unless a
    number 0 is among them, which could be a neutral step or an incorrect one. Nothing but numbers 0 and 1 leaves it
    open.

    Returns:
        ``"steps"`` or ``"outcomes"``; None where the labels leave it open.
    """
    judged = zero = between = False
    for row in rows:
        labels = row.get("labels")
        for label in labels if isinstance(labels, list | tuple) and row.get("completions") is not None else ():
            if label is None or isinstance(label, bool):
                judged = True
            elif isinstance(label, int | float):
                if label == -1:
                    return "steps"
                zero |= label == 0
                between |= 0 < label < 1
    if between:
        return "outcomes"
    return "steps" if judged and not zero else None


def _labelled_steps(row: Row, zero: int) -> PromptGroup:
    texts = _texts(row, "completions")
    labels = list_per(row, "labels", "steps", len(texts))
    marks = [_mark(label, f"labels[{index}]", zero) for index, label in enumerate(labels)]
    return _solution(row, prompt_of(row)[0], texts, marks)


def _mark(value: object, place: str, zero: int) -> int | None:
    """A step's label: +1, 0, -1 or None."""
    if value is None or isinstance(value, bool):
        return None if value is None else 1 if value else -1
    found = number(value, place)
    if found not in (-1, 0, 1):
        raise DataError(f"labels are not step labels: {place} is {found:g}, expected true, false, +1, 0, -1 or null")
    return int(found) or zero


def _texts(row: Row, column: str) -> Sequence[str]:
    """Steps, each of them text and none empty."""
    texts = list_of(row, column)
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(
                f"{column} is of the wrong type: {column}[{index}] is {type(text).__name__}, expected a step's text"
            )
        if not text.strip():
            raise DataError(f"{column} is empty: {column}[{index}]")
    return texts


def _solution(row: Row, prompt: Text, texts: Sequence[str], marks: Sequence[int | None]) -> PromptGroup:
    """One completion with its steps; its outcome too, where the row says whether the final answer is correct."""
    judged = tuple(Step(text, mark) for text, mark in zip(texts, marks, strict=True))
    final = row.get("final_answer_correct")
    labels = () if final is None else (probability(final, "final_answer_correct"),)
    return PromptGroup(prompt, ("\n".join(texts),), labels=labels, steps=(judged,))


def _object(value: object, place: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        column = place.partition(".")[0]
        raise DataError(f"{column} is of the wrong type: {place} is {type(value).__name__}, expected PRM800K's object")
    return value


def _taken(step: Mapping[str, Any], place: int, finish_reason: object) -> Mapping[str, Any] | None:
    """The completion that the solution goes on with; None where it ends."""
    completions = list_of(step, "completions") if step.get("completions") else ()
    chosen = step.get("chosen_completion")
    if chosen is not None:
        if not isinstance(chosen, int) or not 0 <= chosen < len(completions):
            raise DataError(f"label names no completion: label.steps[{place}] chose {chosen!r} of {len(completions)}")
        return _object(completions[chosen], f"label.steps[{place}]")
    human = step.get("human_completion")
    if human is not None:
        return {"text": human} if isinstance(human, str) else _object(human, f"label.steps[{place}]")
    if finish_reason != "found_error":
        return None
    rated = (_object(completion, f"label.steps[{place}]") for completion in completions)
    return next((completion for completion in rated if completion.get("rating") == -1), None)

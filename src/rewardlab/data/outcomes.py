"""Completions that were checked -> groups with outcome labels: true or false, or the probability of true.

This file knows the columns of outcome rows; single columns are :mod:`rewardlab.data.columns`'s. A column ``p_safe`` or
the like is never read: what such a share is a share of, only its set knows.
"""

from __future__ import annotations

from rewardlab.data.columns import (
    Row,
    answer_of,
    answered,
    answers_of,
    list_of,
    list_per,
    number,
    probability,
    prompt_of,
    systems_of,
    which,
)
from rewardlab.errors import DataError
from rewardlab.types import PromptGroup


def outcome(row: Row) -> PromptGroup:
    """``prompt, completion, label``; with a ``rating`` or ``score`` too, where the row has one."""
    prompt, transcript = prompt_of(row)
    completion = answered(answer_of(row, "completion", transcript), "completion")
    label = probability(row["label"], "label")
    column = which(row, "rating|score")
    ratings = () if column is None else (number(row[column], column),)
    return PromptGroup(prompt, (completion,), labels=(label,), ratings=ratings)


def outcomes(row: Row) -> PromptGroup:
    """``prompt, completions, labels``: one label per completion, null where one was not checked."""
    prompt, transcript = prompt_of(row)
    completions = answers_of(list_of(row, "completions"), "completions", transcript)
    given = list_per(row, "labels", "completions", len(completions))
    labels = [None if value is None else probability(value, f"labels[{index}]") for index, value in enumerate(given)]
    if all(label is None for label in labels):
        raise DataError("labels is empty: no completion has one")
    return PromptGroup(prompt, completions, labels=tuple(labels), systems=systems_of(row, len(completions)))

"""Rows ``prompt, a, b, label``: two completions in no order that means anything, and which of them is better.

It is what labelling tools give and what ``rewardlab monitor --select`` writes, there without the labels. This file
knows the columns of such a row; what else a row may say is :mod:`rewardlab.data.columns`'.
"""

from __future__ import annotations

from rewardlab.data import pairs
from rewardlab.data.columns import Row, answer_of, answered, number_of, prompt_of, systems_of, weight_of
from rewardlab.errors import DataError
from rewardlab.types import Pair, PromptGroup, text_key

_NOT_YET = 'not labelled yet: label is null or empty, expected "a", "b" or "tie"'

LABELS = ("a", "b", "tie")
"""What a label may say: which completion is better, or that neither is."""


def labelled(row: Row) -> PromptGroup:
    """``prompt, a, b, label``: the completions stay in the row's order; ``margin``, ``votes`` and ``weight`` count."""
    told = row["label"]
    label = told.strip().lower() if isinstance(told, str) else told
    if label == "":
        raise DataError(_NOT_YET)
    if label not in LABELS:
        raise DataError(f'label is none of "a", "b" and "tie": {str(told)[:40]!r} ({type(told).__name__})')
    rest = {column: value for column, value in row.items() if column != "label"}
    if label == "tie":
        return pairs.tie(rest)
    pairs.require_no_winner(rest)
    prompt, transcript = prompt_of(row)
    sides = tuple(answered(answer_of(row, column, transcript), column) for column in ("a", "b"))
    if text_key(sides[0], role="assistant") == text_key(sides[1], role="assistant"):
        raise DataError("identical sides: a and b are the same")
    votes = pairs.votes_of(row, label, "b" if label == "a" else "a")
    known = Pair(
        *((0, 1) if label == "a" else (1, 0)),
        margin=number_of(row, "margin"),
        weight=weight_of(row),
        p_chosen=pairs.share_of(votes),
        votes=votes,
    )
    return PromptGroup(prompt, sides, (known,), systems=systems_of(row, 2, *pairs.MODELS))


def tie(row: Row) -> PromptGroup:
    """``prompt, a, b`` without a label, which says that they tie; a label that is still null says nothing."""
    if "label" in row and row["label"] is None:
        raise DataError(_NOT_YET)
    return pairs.tie(row)

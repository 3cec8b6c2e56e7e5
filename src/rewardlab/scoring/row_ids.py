"""The id of a row of output, and what becomes of ids in Parquet, where a column has one type.

This file knows groups and values, no files.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rewardlab.types import PromptGroup

IDS_ARE_TEXT = "the ids are text in Parquet, since not all of them are 64-bit integers"
"""What to say where :func:`ids_became_text`."""


def row_id(group: PromptGroup) -> str | int | None:
    """The row's own id, else where it was read."""
    return group.source if group.id is None else group.id


def are_integers(ids: Iterable[Any]) -> bool:
    """Whether a column of integers can hold all ids."""
    return all(isinstance(value, int) and -(2**63) <= value < 2**63 for value in ids)


def as_text(value: Any) -> str | None:
    """An id in a column of texts."""
    return None if value is None else str(value)


def ids_became_text(ids: Iterable[Any]) -> bool:
    """Whether some ids are integers, and the column has to hold text."""
    values = list(ids)
    return not are_integers(values) and any(isinstance(value, int) for value in values)

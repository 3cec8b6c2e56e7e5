"""Rows of best-of-N as tables: JSON Lines, or Parquet, of which a column has one type.

This file knows rows, columns and their types; which file is written when, it does not know.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rewardlab.errors import DataError
from rewardlab.scoring.row_ids import as_text


def is_parquet(path: Path) -> bool:
    """Whether a file of this name is written as Parquet."""
    return path.suffix.lower() == ".parquet"


def write_table(path: Path, rows: Sequence[Mapping[str, Any]], *, name: Path, integer_ids: bool) -> None:
    """Write rows into one file.

    Args:
        path: The file; it is replaced.
        rows: The rows, JSON values.
        name: The file that it will become, which says the format: Parquet if ``*.parquet``, else JSON Lines.
        integer_ids: Whether the ids of all rows, in whatever file, are 64-bit integers; in Parquet they are text else.

    Raises:
        DataError: Parquet has no type for a column of texts and messages.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if is_parquet(name):
        _write_parquet(path, rows, name, integer_ids)
        return
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, allow_nan=False, default=str) + "\n" for row in rows)


def _write_parquet(path: Path, rows: Sequence[Mapping[str, Any]], name: Path, integer_ids: bool) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    floats, integers = pa.list_(pa.float64()), pa.list_(pa.int64())
    types = {
        **dict.fromkeys(("n", "best", "index"), pa.int64()),
        **dict.fromkeys(("ranking", "ranks"), integers),
        **dict.fromkeys(("scores", "disagreements"), floats),
        **dict.fromkeys(("kl", "best_score", "score", "chosen_score", "rejected_score", "strength"), pa.float64()),
        "id": pa.int64() if integer_ids else pa.string(),
        "error": pa.string(),
        "truncated": pa.bool_(),
    }
    columns = {}
    for column in dict.fromkeys(column for row in rows for column in row):
        values: Iterable[Any] = [row.get(column) for row in rows]
        if column == "truncated":
            values = [bool(value) for value in values]
        elif column == "id" and not integer_ids:
            values = [as_text(value) for value in values]
        try:
            columns[column] = pa.array(values, types.get(column))
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise DataError(
                f"the column {column} of {name.name} has no type of its own: {error}",
                hint="texts and messages in one column are for JSON Lines: name the output *.jsonl",
            ) from error
    pq.write_table(pa.table(columns), path)

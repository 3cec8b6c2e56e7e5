"""Rows as JSON Lines and as Parquet."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rewardlab.errors import DataError
from rewardlab.search.best_of_n_tables import is_parquet, write_table

ROWS = [{"id": 1, "scores": [0.5, 1.0], "best": 1}, {"id": 2, "scores": None, "best": None, "error": "too long"}]


def test_the_name_that_a_file_will_have_says_the_format(tmp_path: Path):
    import pyarrow.parquet as pq

    beside = tmp_path / "new" / "beside"
    write_table(beside, ROWS, name=Path("best.jsonl"), integer_ids=True)
    assert [json.loads(line) for line in beside.read_text().splitlines()] == ROWS
    write_table(beside, ROWS, name=Path("best.PARQUET"), integer_ids=True)
    assert pq.read_table(beside).to_pylist() == [{"error": None, **row} for row in ROWS]
    write_table(beside, ROWS, name=Path("best.parquet"), integer_ids=False)
    assert pq.read_table(beside)["id"].to_pylist() == ["1", "2"]
    assert is_parquet(Path("best.PARQUET"))
    assert not is_parquet(Path("best.parquet.jsonl"))


def test_types_do_not_depend_on_the_rows(tmp_path: Path):
    """A column of whole numbers, or of nulls, has the type that it has in any other file."""
    import pyarrow.parquet as pq

    write_table(tmp_path / "a", [{"id": 1, "strength": 1, "error": None}], name=Path("a.parquet"), integer_ids=True)
    types = {field.name: str(field.type) for field in pq.read_schema(tmp_path / "a")}
    assert types == {"id": "int64", "strength": "double", "error": "string"}


def test_a_column_of_texts_and_messages_is_for_json_lines(tmp_path: Path):
    rows = [{"id": 1, "chosen": "a"}, {"id": 2, "chosen": [{"role": "assistant", "content": "a"}]}]
    with pytest.raises(DataError, match=r"the column chosen of pairs\.parquet"):
        write_table(tmp_path / "beside", rows, name=tmp_path / "pairs.parquet", integer_ids=True)
    write_table(tmp_path / "beside", rows, name=tmp_path / "pairs.jsonl", integer_ids=True)

"""Rows that wait for a label are no bad rows, and the share of bad rows goes by the bad ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rewardlab.data.loading import Reading
from rewardlab.errors import DataError
from rewardlab.training.reading import read_rows, unlabelled_told


def _read(tmp_path: Path, labels: list[Any], said: list[str], **options: Any) -> Reading:
    rows = [{"prompt": f"p{n}", "a": "x", "b": "y", "label": label} for n, label in enumerate(labels)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments: dict[str, Any] = {"max_bad_fraction": 0.05, "strict": False, **options}
    return read_rows(
        [str(tmp_path / "rows.jsonl")],
        split=None,
        format="auto",
        quarantine=tmp_path / "quarantine.jsonl",
        report=said.append,
        **arguments,
    )


@pytest.mark.parametrize("strict", [False, True])
def test_rows_without_a_label_are_dropped_and_told(tmp_path: Path, strict: bool) -> None:
    said: list[str] = []
    reading = _read(tmp_path, ["a"] * 6 + [None] * 4, said, strict=strict, max_bad_fraction=0.0)
    assert reading.ledger.to_dict() == {
        "rows": {"read": 10, "used": 6, "quarantined": 0, "dropped": 4, "truncated": 0},
        "reasons": {"not labelled yet": 4},
    }
    assert said == ["4 of 10 comparisons have no label yet: left out"]
    assert (reading.bad_rows, reading.quarantine) == ((), None)
    assert not (tmp_path / "quarantine.jsonl").exists()


def test_bad_rows_are_set_aside_beside_them(tmp_path: Path) -> None:
    said: list[str] = []
    reading = _read(tmp_path, ["a"] * 38 + [None, "model_a"], said)
    assert unlabelled_told(reading) == "1 of 40 comparisons has no label yet"
    assert said[1].startswith("1 of 40 rows set aside in ")
    assert (reading.ledger.quarantined, reading.ledger.dropped) == (1, 1)
    (kept,) = (tmp_path / "quarantine.jsonl").read_text().splitlines()
    assert json.loads(kept)["line"] == 40
    with pytest.raises(DataError, match="2 of 40 rows are bad"):
        _read(tmp_path, ["a"] * 37 + [None, "model_a", 0], said, max_bad_fraction=0.04)


def test_nothing_labelled_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not labelled yet"):
        _read(tmp_path, [None, None], [])


def test_where_all_have_one_nothing_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    assert unlabelled_told(_read(tmp_path, ["a", "b"], said)) == ""
    assert said == []

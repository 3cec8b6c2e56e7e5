"""The first pass: chunks keep prompts together, and a part read again alone gives the very groups of the whole file."""

from __future__ import annotations

import csv
import gzip
import json
import random
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardlab.data.loading import read_groups
from rewardlab.errors import DataError
from rewardlab.scoring import survey as survey_module
from rewardlab.scoring.bulk_rows import RowFacts
from rewardlab.scoring.survey import PartReader, cut_chunks, join, sources_of, survey_file
from rewardlab.types import PromptGroup


class Item(NamedTuple):
    group: PromptGroup


def items(prompts: list[int], completions: int = 1) -> list[Item]:
    return [Item(PromptGroup(f"p{prompt}", ("c",) * completions, id=i)) for i, prompt in enumerate(prompts)]


@given(st.lists(st.integers(1, 9), max_size=30), st.integers(1, 6))
def test_chunks_hold_every_row_once_and_keep_prompts_together(runs: list[int], rows: int) -> None:
    prompts = [number for number, length in enumerate(runs) for _ in range(length)]
    given_items = items(prompts)
    chunks = list(cut_chunks(given_items, rows))
    assert [item for chunk in chunks for item in chunk] == given_items
    assert all(1 <= len(chunk) <= rows for chunk in chunks)
    for number, length in enumerate(runs):
        touched = sum(any(item.group.prompt == f"p{number}" for item in chunk) for chunk in chunks)
        assert touched == -(-length // rows), "cut apart without need"


@given(st.lists(st.integers(0, 4), max_size=40), st.integers(1, 6), st.integers(0, 10))
def test_begun_at_a_chunk_the_cutting_gives_the_same_chunks(prompts: list[int], rows: int, start: int) -> None:
    chunks = list(cut_chunks(items(prompts), rows))
    rest = [item for chunk in chunks[start:] for item in chunk]
    assert list(cut_chunks(rest, rows)) == chunks[start:]


def test_a_row_of_very_many_completions_is_a_chunk_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey_module, "CHUNK_COMPLETIONS", 10)
    some = [*items([0, 1], 4), *items([2], 25), *items([3, 4, 5], 4)]
    assert [len(chunk) for chunk in cut_chunks(some, 100)] == [2, 1, 2, 1]


def rows_of(count: int) -> list[dict[str, Any]]:
    chance = random.Random(0)
    prompts = sorted(chance.randrange(count // 3) for _ in range(count))
    return [{"id": f"r{i}", "prompt": f"prompt {p} é", "completion": f"answer {i}"} for i, p in enumerate(prompts)]


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    """The rows in the format that the name says; text formats get blank and broken lines in between."""
    if path.suffix == ".parquet":
        pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=17)
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as stream:
            table = csv.DictWriter(stream, rows[0])
            table.writeheader()
            table.writerows(rows)
    else:
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        text = "\ufeff" + "\n".join(line + ("\n\n{broken" if i % 13 == 5 else "") for i, line in enumerate(lines))
        content = text.encode()
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "rows.parquet", "rows.csv"])
def test_parts_in_any_order_give_the_groups_of_the_whole_file(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name, rows_of(100))
    whole = read_groups(path, max_bad_fraction=None)
    survey = join([survey_file(source) for source in sources_of([path], chunk_rows=4, part_rows=10)])
    assert survey.reading.ledger.to_dict() == whole.ledger.to_dict()
    assert survey.reading.bad_rows == whole.bad_rows
    assert survey.facts.rows == 100
    assert [part.first_row for part in survey.parts] == [0, *map(sum_up(survey.parts), range(1, len(survey.parts)))]
    assert len(survey.parts) >= 8
    assert all((part.offset is not None) == (name == "rows.jsonl") for part in survey.parts)
    for order in (survey.parts, survey.parts[::-1], survey.parts[1::3], random.Random(1).sample(survey.parts, 8)):
        reader = PartReader()
        for part in order:
            found = [group for chunk in reader.chunks(part) for group in chunk]
            assert found == whole.groups[part.first_row : part.first_row + part.rows]


def sum_up(parts: Any) -> Any:
    return lambda number: sum(part.rows for part in parts[:number])


def test_no_part_and_no_chunk_spans_two_files_or_divides_a_prompt(tmp_path: Path) -> None:
    paths = [written(tmp_path / "a.jsonl", rows_of(30)), written(tmp_path / "b.jsonl", rows_of(31))]
    survey = join([survey_file(source) for source in sources_of(paths, chunk_rows=8, part_rows=16)])
    reader = PartReader()
    chunks = [(part.source.file, chunk) for part in survey.parts for chunk in reader.chunks(part)]
    runs = [key for key, _ in groupby((file, group.prompt) for file, chunk in chunks for group in chunk)]
    in_chunks = [key for file, chunk in chunks for key, _ in groupby((file, group.prompt) for group in chunk)]
    assert runs == in_chunks


def test_what_is_left_begins_at_the_chunk_that_is_not_done(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.jsonl", rows_of(60))
    survey = join([survey_file(source) for source in sources_of([path], chunk_rows=4, part_rows=20)])
    reader = PartReader()
    chunks = [chunk for part in survey.parts for chunk in reader.chunks(part)]
    done = 0
    for number, chunk in enumerate(chunks):
        assert [c for part in survey.left(done) for c in PartReader().chunks(part)] == chunks[number:]
        done += len(chunk)
    assert survey.left(done) == []


def test_labels_that_only_the_whole_file_explains_are_read_alike(tmp_path: Path) -> None:
    rows = [{"prompt": f"q{i}", "completions": ["a", "b"], "labels": [1, 0 if i < 9 else -1]} for i in range(10)]
    path = tmp_path / "steps.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    survey = join([survey_file(source) for source in sources_of([path], chunk_rows=2, part_rows=2)])
    (first, *_) = PartReader().chunks(survey.parts[0])
    assert first == read_groups(path).groups[:2]
    assert survey.parts[0].labels == "steps"


def test_a_file_that_changes_meanwhile_is_noticed(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.jsonl", rows_of(30))
    survey = join([survey_file(source) for source in sources_of([path], chunk_rows=4, part_rows=10)])
    before = path.read_text(encoding="utf-8")
    path.write_text(before.replace("answer 12", "answer 21"), encoding="utf-8")
    changed = next(part for part in survey.parts if part.first_row <= 12 < part.first_row + part.rows)
    with pytest.raises(DataError, match="changed while"):
        list(PartReader().chunks(changed))
    path.write_text(before[: len(before) // 2], encoding="utf-8")
    with pytest.raises(DataError, match="changed while"):
        list(PartReader().chunks(survey.parts[-1]))


def test_fingerprints_tell_the_data_and_not_where_it_was_cut(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.jsonl", rows_of(30))

    def fingerprint(**cut: int) -> str:
        return join([survey_file(source) for source in sources_of([path], **cut)]).fingerprint

    assert fingerprint(chunk_rows=3) == fingerprint(chunk_rows=7, part_rows=9)
    before = fingerprint()
    written(path, rows_of(29))
    assert fingerprint() != before


def test_facts_of_files_add_up() -> None:
    groups = [
        PromptGroup("p", ("a",), id=1),
        PromptGroup("p", ("a", "b"), id="x"),
        PromptGroup("p", ("a", "b", "c"), id=2**63, steps=((), (), ())),
    ]
    each = []
    together = RowFacts()
    for group in groups:
        own = RowFacts()
        own.add(group)
        each.append(own)
        together.add(group)
    assert each[0] + each[1] + each[2] == together
    assert together == replace(together, rows=3, completions=6, pairs=0, lists=2, lists_without_steps=1)
    assert (together.integer_ids, together.numbers) == (1, 2)

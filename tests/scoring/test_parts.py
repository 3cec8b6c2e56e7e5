"""Scoring in parts: the rows of one file, in a file or a folder, whatever is interrupted, killed, lost or changed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from rewardlab.data.encoding import EncodedGroup
from rewardlab.errors import ConfigError, DataError, RewardLabError
from rewardlab.scoring.bulk import BulkResult, score_file
from rewardlab.scoring.parts import LocalWorkers, PartJob, check_parts, score_parts
from rewardlab.scoring.survey import Part
from rewardlab.types import PromptGroup, text_of

CHUNK, PART = 4, 8


class StandIn:
    """Scores depend on the text, and in their last bits on the batch; the completion "refuse" is refused."""

    fingerprint, has_steps, is_ensemble = "model-a", False, False

    def __init__(self, fail_after: int | None = None) -> None:
        self.fail_after = fail_after
        self.calls = 0

    @property
    def encoder(self) -> StandIn:
        return self

    def encode_many(self, groups: Sequence[PromptGroup]) -> list[EncodedGroup | DataError]:
        return [
            DataError(f"{group.name}: the chat template refuses")
            if "refuse" in group.completions
            else EncodedGroup(group, tuple(tuple(text_of(text).encode()) for text in group.completions), 0, 0)
            for group in groups
        ]

    def score_encoded(
        self, encoded: Sequence[EncodedGroup], on_progress: Callable[[int], None] | None = None
    ) -> list[list[float]]:
        if self.calls == self.fail_after:
            raise KeyboardInterrupt
        self.calls += 1
        last_bits = 2.0**-40 * sum(len(ids) for item in encoded for ids in item.sequences)
        found = [
            [
                zlib.crc32(bytes(ids)) / 2**32 + zlib.crc32(text_of(item.group.prompt).encode()) + last_bits
                for ids in item.sequences
            ]
            for item in encoded
        ]
        if on_progress is not None:
            on_progress(sum(map(len, found)))
        return found


def write_rows(path: Path, count: int = 43) -> Path:
    """Several rows of a prompt, one that is refused, one that is broken."""
    rows = [{"id": i, "prompt": f"q{i * i // 60}", "completion": "refuse" if i == 9 else f"a{i}"} for i in range(count)]
    lines = [json.dumps(row) for row in rows]
    lines[20] = "{broken"
    path.write_text("".join(line + "\n" for line in lines))
    return path


def run(data: Path, output: str | Path, scorer: StandIn | None = None, **options: Any) -> BulkResult:
    given = {"chunk_rows": CHUNK, "part_rows": PART, **options}
    return score_parts(LocalWorkers(scorer or StandIn()), [data], output, **given)  # type: ignore[arg-type]


def whole(data: Path, output: Path) -> BulkResult:
    return score_file(StandIn(), [data], output, chunk_rows=CHUNK)  # type: ignore[arg-type]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "rows.jsonl")


def rows_of_folder(folder: Path) -> list[dict[str, Any]]:
    pq = pytest.importorskip("pyarrow.parquet")
    entries = [json.loads(line) for line in (folder / "index.jsonl").read_text().splitlines()]
    assert sorted(path.name for path in folder.iterdir()) == sorted(["index.jsonl", *(e["file"] for e in entries)])
    tables = [pq.read_table(folder / entry["file"]) for entry in entries]
    assert [table.num_rows for table in tables] == [entry["rows"] for entry in entries]
    assert [entry["first_row"] for entry in entries] == [
        sum(t.num_rows for t in tables[:i]) for i in range(len(tables))
    ]
    return [row for table in tables for row in table.to_pylist()]


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_a_file_in_parts_is_the_file_of_one_run(data: Path, tmp_path: Path, name: str) -> None:
    pytest.importorskip("pyarrow")
    expected, result = whole(data, tmp_path / "whole" / name), run(data, tmp_path / "parts" / name)
    assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert sorted(os.listdir(tmp_path / "parts")) == sorted(os.listdir(tmp_path / "whole"))
    for field in ("rows", "resumed_rows", "quarantined_rows", "truncated_sequences", "ledger", "notes"):
        assert getattr(result, field) == getattr(expected, field)
    assert result.quarantined_rows == 1


def test_a_folder_keeps_the_parts_and_says_what_they_hold(data: Path, tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    whole(data, tmp_path / "whole.parquet")
    seen: list[tuple[int, int]] = []
    run(data, f"{tmp_path / 'scores'}/", on_progress=lambda done, total: seen.append((done, total)))
    assert rows_of_folder(tmp_path / "scores") == pq.read_table(tmp_path / "whole.parquet").to_pylist()
    assert (tmp_path / "scores.quarantine.jsonl").exists()
    assert seen[-1] == (42, 42)
    assert seen == sorted(seen)
    with pytest.raises(ConfigError, match="finished already"):
        run(data, tmp_path / "scores")


@pytest.mark.parametrize("where", ["out.jsonl", "scores/"])
@pytest.mark.parametrize("calls", range(1, 12, 2))
def test_goes_on_with_the_parts_that_are_not_done(data: Path, tmp_path: Path, where: str, calls: int) -> None:
    output = f"{tmp_path}/here/{where}"
    alone = StandIn()
    run(data, f"{tmp_path}/alone/{where}", alone)
    with pytest.raises(KeyboardInterrupt):
        run(data, output, StandIn(fail_after=calls))
    again = StandIn()
    result = run(data, output, again)
    assert result.resumed_rows > 0 or calls < 3
    assert again.calls < alone.calls or not result.resumed_rows
    assert same_tree(tmp_path / "here", tmp_path / "alone")


def same_tree(one: Path, other: Path) -> bool:
    found = [{p.relative_to(top): p.read_bytes() for p in top.rglob("*") if p.is_file()} for top in (one, other)]
    return found[0] == found[1]


class Killed(BaseException):
    """Stands for kill -9: nothing in the program catches it."""


@pytest.mark.parametrize("where", ["out.jsonl", "out.parquet", "scores/"])
@pytest.mark.parametrize("after", [False, True])
def test_goes_on_when_killed_at_any_step_on_disk(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, after: bool
) -> None:
    """Killed right before, or right after, the n-th call that changes what is on disk, for every n."""
    run(data, f"{tmp_path}/alone/{where}")
    steps, die_at = 0, -1

    def counted(original: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **options: Any) -> Any:
            nonlocal steps, die_at
            steps += 1
            mine = steps - 1 == die_at
            if mine and not after:
                raise Killed
            result = original(*arguments, **options)
            if mine:
                raise Killed
            return result

        return step

    for module, function in ((os, "fsync"), (os, "replace"), (Path, "unlink"), (Path, "rmdir")):
        monkeypatch.setattr(module, function, counted(getattr(module, function)))
    deaths = 0
    while True:
        here = tmp_path / f"here-{deaths}"
        steps, die_at = 0, deaths
        try:
            run(data, f"{here}/{where}")
            break
        except Killed:
            deaths += 1
        die_at = -1
        with contextlib.suppress(ConfigError):  # killed after all was done
            run(data, f"{here}/{where}")
        assert same_tree(here, tmp_path / "alone"), f"killed at step {deaths - 1}"
        shutil.rmtree(here)
    assert deaths >= 15


def test_parts_that_are_lost_or_damaged_are_scored_again(data: Path, tmp_path: Path) -> None:
    output, folder = tmp_path / "out.jsonl", tmp_path / "out.jsonl.parts"
    whole(data, tmp_path / "whole.jsonl")
    with pytest.raises(KeyboardInterrupt):
        run(data, output, StandIn(fail_after=9))
    (folder / "part-00000.jsonl").unlink()
    damaged = folder / "part-00001.jsonl"
    damaged.write_bytes(damaged.read_bytes().replace(b"score", b"scare"))
    (folder / ".part-00002.jsonl.77.new").write_text("torn")
    with pytest.raises(RewardLabError, match=r"part-00001\.jsonl: damaged"):
        run(data, output)
    damaged.unlink()
    assert run(data, output).rows == 42
    assert output.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert not folder.exists()


def test_another_command_is_refused_until_restart(data: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    for options, difference in (
        ({"settings": {"dtype": "bfloat16"}}, "dtype was None"),
        ({"part_rows": 12}, "part_rows was 8, is now 12"),
    ):
        with pytest.raises(KeyboardInterrupt):
            run(data, output, StandIn(fail_after=5))
        with pytest.raises(ConfigError, match=difference):
            run(data, output, **options)
        assert run(data, output, restart=True, **options).resumed_rows == 0
        assert not (tmp_path / "out.jsonl.parts").exists()
        output.unlink()


def test_a_run_in_parts_and_one_that_is_not_do_not_mix(data: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    with pytest.raises(KeyboardInterrupt):
        run(data, output, StandIn(fail_after=5))
    with pytest.raises(ConfigError, match="in parts"):
        whole(data, output)
    score_file(StandIn(), [data], output, restart=True)  # type: ignore[arg-type]
    assert not (tmp_path / "out.jsonl.parts").exists()
    output.unlink()
    with pytest.raises(KeyboardInterrupt):
        score_file(StandIn(fail_after=2), [data], output, chunk_rows=CHUNK)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="not in parts"):
        run(data, output)
    assert run(data, output, restart=True).rows == 42
    assert sorted(os.listdir(tmp_path)) == ["out.jsonl", "out.jsonl.quarantine.jsonl", "rows.jsonl"]


def test_what_is_there_is_not_replaced(data: Path, tmp_path: Path) -> None:
    output, folder = tmp_path / "out.jsonl", tmp_path / "theirs"
    output.write_text("precious")
    with pytest.raises(ConfigError, match="exists already"):
        run(data, output)
    run(data, output, overwrite=True)
    folder.mkdir()
    (folder / "part-00000.parquet").write_text("theirs")
    with pytest.raises(ConfigError, match="parts of something else"):
        check_parts([data], folder)
    with pytest.raises(ConfigError, match="not overwritten"):
        check_parts([data], folder, overwrite=True)


def test_strict_and_rows_without_any_score(data: Path, tmp_path: Path) -> None:
    data.write_text("".join(json.dumps({"prompt": "p", "completion": f"a{i}"}) + "\n" for i in range(20)))
    with data.open("a") as rows:
        rows.write('{"prompt": "p", "completion": "refuse"}\n')
    with pytest.raises(DataError, match=r"rows\.jsonl:21: the chat template"):
        run(data, tmp_path / "out.jsonl", strict=True)
    data.write_text('{"prompt": "p", "completion": "refuse"}\n' * 3)
    with pytest.raises(DataError, match="3 of 3 rows cannot be scored; the first: rows"):
        run(data, tmp_path / "other.jsonl")


def test_workers_may_finish_in_any_order(data: Path, tmp_path: Path) -> None:
    class Backwards(LocalWorkers):
        def score(
            self, parts: Sequence[Part], job: PartJob, advance: Callable[[int], None]
        ) -> Iterator[dict[str, Any]]:
            return super().score(parts[::-1], job, advance)

    whole(data, tmp_path / "whole.jsonl")
    workers = Backwards(StandIn())  # type: ignore[arg-type]
    score_parts(workers, [data], tmp_path / "out.jsonl", chunk_rows=CHUNK, part_rows=PART)
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_a_full_disk_is_told_and_can_be_mended(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(RewardLabError, match="No space left on device"):
            run(data, tmp_path / "out.jsonl")
    assert run(data, tmp_path / "out.jsonl").rows == 42

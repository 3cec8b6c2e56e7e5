"""Bulk scoring: rows in order and exactly once, whatever kills the run and wherever."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from rewardlab.data.encoding import EncodedGroup
from rewardlab.errors import CheckpointError, CompletionTooLongError, ConfigError, DataError, RewardLabError
from rewardlab.scoring.bulk import BulkResult, check_files, score_file
from rewardlab.types import PromptGroup, text_of

CHUNK = 4


class FakeScorer:
    """Scores depend on the text alone but for their last bits, which depend on the batch, as a real model's do.

    A prompt of more than 40 characters is truncated, a completion of more than 40 is too long, and the completion
    "refuse" is refused.
    """

    has_steps = False
    is_ensemble = False

    def __init__(self, *, fingerprint: str = "model-a", seconds: float = 0.0, fail_after: int | None = None) -> None:
        self.fingerprint = fingerprint
        self.seconds = seconds
        self.fail_after = fail_after
        self.calls = 0

    @property
    def encoder(self) -> FakeScorer:
        return self

    def encode_many(self, groups: Sequence[PromptGroup]) -> list[EncodedGroup | DataError]:
        return [self._encode(group) for group in groups]

    def _encode(self, group: PromptGroup) -> EncodedGroup | DataError:
        texts = [text_of(completion) for completion in group.completions]
        if any(len(text) > 40 for text in texts):
            return CompletionTooLongError(f"{group.name}: completion needs too many tokens")
        if "refuse" in texts:
            return DataError(f"{group.name}: the chat template refuses")
        cut = len(texts) if len(text_of(group.prompt)) > 40 else 0
        return EncodedGroup(group, tuple(tuple(text.encode()) for text in texts), 0, cut)

    def score_encoded(
        self, encoded: Sequence[EncodedGroup], on_progress: Callable[[int], None] | None = None
    ) -> list[list[float]]:
        if self.calls == self.fail_after:
            raise KeyboardInterrupt
        self.calls += 1
        time.sleep(self.seconds)
        last_bits = 2.0**-40 * sum(len(sequence) for item in encoded for sequence in item.sequences)
        result = []
        for item in encoded:
            texts = [text_of(item.group.prompt) + text_of(completion) for completion in item.group.completions]
            result.append([zlib.crc32(text.encode()) / 2**32 + last_bits for text in texts])
            if on_progress is not None:
                on_progress(len(texts))
        return result


class FakeEnsemble(FakeScorer):
    """Its members disagree the more, the longer a completion is."""

    is_ensemble = True

    def score_encoded_disagreement(
        self, encoded: Sequence[EncodedGroup], on_progress: Callable[[int], None] | None = None
    ) -> tuple[list[list[float]], list[list[float]]]:
        return self.score_encoded(encoded, on_progress), [list(map(float, item.lengths)) for item in encoded]


def write_rows(path: Path, rows: Sequence[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def completions(number: int) -> list[dict[str, Any]]:
    return [{"id": f"row-{i}", "prompt": f"question {i}", "completion": "yes" * (i % 7 + 1)} for i in range(number)]


def score(data: Path, output: Path, scorer: FakeScorer | None = None, **options: Any) -> BulkResult:
    return score_file(scorer or FakeScorer(), [data], output, **{"chunk_rows": CHUNK, **options})


def interrupted(data: Path, output: Path, *, chunks: int) -> None:
    """Leave what a run leaves that was stopped after some chunks."""
    with pytest.raises(KeyboardInterrupt):
        score(data, output, FakeScorer(fail_after=chunks))


def left_beside(output: Path) -> list[str]:
    return sorted(path.name for path in output.parent.iterdir() if path.name.startswith(output.name + "."))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "rows.jsonl", completions(18))


@pytest.fixture
def expected(data: Path, tmp_path: Path) -> bytes:
    """The bytes that an uninterrupted run writes."""
    score(data, tmp_path / "whole" / "out.jsonl")
    return (tmp_path / "whole" / "out.jsonl").read_bytes()


# -- rows ------------------------------------------------------------------------------------------------------------


def test_rows_by_kind_and_ids_as_they_came(tmp_path: Path) -> None:
    data = write_rows(
        tmp_path / "mixed.jsonl",
        [
            {"id": 7, "prompt": "p", "chosen": "good", "rejected": "bad"},
            {"id": "é", "prompt": "p", "completions": ["a", "b", "c"]},
            {"prompt": "p", "completions": ["a"]},
            {"prompt": "p" * 41, "chosen": "good", "rejected": "bad"},
        ],
    )
    result = score(data, tmp_path / "out.jsonl")
    rows = read_rows(tmp_path / "out.jsonl")
    assert [row["id"] for row in rows] == [7, "é", "mixed.jsonl:3", "mixed.jsonl:4"]
    assert [sorted(row.keys() - {"id"}) for row in rows] == [
        ["chosen_score", "rejected_score"],
        ["scores"],
        ["scores"],
        ["chosen_score", "rejected_score", "truncated"],
    ]
    assert rows[0]["chosen_score"] == pytest.approx(zlib.crc32(b"pgood") / 2**32, abs=1e-9)
    assert rows[0]["rejected_score"] == pytest.approx(zlib.crc32(b"pbad") / 2**32, abs=1e-9)
    assert rows[1]["scores"] == pytest.approx([zlib.crc32(b"p" + c) / 2**32 for c in (b"a", b"b", b"c")], abs=1e-9)
    assert rows[3]["truncated"] is True
    assert result.truncated_sequences == 2
    assert result.ledger["rows"] == {"read": 4, "used": 4, "quarantined": 0, "dropped": 0, "truncated": 1}


def test_one_completion_is_a_score_unless_the_rows_are_lists(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "k1.jsonl", [{"prompt": "p", "completions": ["a"]}])
    score(data, tmp_path / "auto.jsonl")
    score(data, tmp_path / "lists.jsonl", format="completions")
    assert list(read_rows(tmp_path / "auto.jsonl")[0]) == ["id", "score"]
    assert list(read_rows(tmp_path / "lists.jsonl")[0]) == ["id", "scores"]


def test_rows_that_cannot_be_scored_keep_their_place(tmp_path: Path) -> None:
    rows: list[object] = completions(40)
    rows[3] = {"id": "long", "prompt": "p", "chosen": "c" * 41, "rejected": "r"}
    rows[5] = {"id": "no", "prompt": "p", "completion": "refuse"}
    rows[9] = {"id": "unreadable", "prompt": "p"}
    output = tmp_path / "out.jsonl"
    result = score(write_rows(tmp_path / "rows.jsonl", rows), output)
    written = read_rows(output)
    assert [row["id"] for row in written] == [row["id"] for row in rows if row["id"] != "unreadable"]  # type: ignore[index]
    assert written[3] == {
        "id": "long",
        "chosen_score": None,
        "rejected_score": None,
        "error": "rows.jsonl:4: completion needs too many tokens",
    }
    assert written[5] == {"id": "no", "score": None, "error": "rows.jsonl:6: the chat template refuses"}
    assert sum("error" in row for row in written) == result.quarantined_rows == 2
    assert result.ledger["rows"] == {"read": 40, "used": 37, "quarantined": 3, "dropped": 0, "truncated": 0}
    assert result.ledger["reasons"]["completion too long"] == 1
    (bad,) = read_rows(tmp_path / "out.jsonl.quarantine.jsonl")
    assert bad["line"] == 10


def test_strict_stops_at_a_row_that_cannot_be_scored_also_one_of_an_earlier_run(tmp_path: Path) -> None:
    rows = completions(18)
    rows[1]["completion"] = "refuse"
    data, output = write_rows(tmp_path / "rows.jsonl", rows), tmp_path / "out.jsonl"
    with pytest.raises(DataError, match=r"rows\.jsonl:2"):
        score(data, output, strict=True)
    interrupted(data, output, chunks=2)
    with pytest.raises(DataError, match=r"1 of 18 rows cannot be scored; the first: rows\.jsonl:2"):
        score(data, output, strict=True)
    assert not output.exists()
    assert score(data, output).resumed_rows == 18


def test_no_row_with_a_score_is_an_error(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.jsonl", [{"prompt": "p", "completion": "refuse"}] * 5)
    with pytest.raises(DataError, match="5 of 5 rows cannot be scored"):
        score(data, tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_scores_that_are_not_finite_name_the_row(data: Path, tmp_path: Path, value: float) -> None:
    class Broken(FakeScorer):
        def score_encoded(self, encoded: Sequence[EncodedGroup], on_progress: Any = None) -> list[list[float]]:
            return [[value if item.group.id == "row-6" else 0.0] for item in encoded]

    with pytest.raises(CheckpointError, match=r"^rows\.jsonl:7: .*finite"):
        score(data, tmp_path / "out.jsonl", Broken())


def test_progress_counts_every_completion_once(data: Path, tmp_path: Path) -> None:
    rows = [*completions(5), {"prompt": "p", "completion": "refuse"}, {"prompt": "p", "chosen": "a", "rejected": "b"}]
    data = write_rows(tmp_path / "rows.jsonl", rows)
    seen: list[tuple[int, int]] = []
    interrupted(data, tmp_path / "out.jsonl", chunks=1)
    score(data, tmp_path / "out.jsonl", on_progress=lambda done, total: seen.append((done, total)))
    assert seen[0] == (4, 8)
    assert seen[-1] == (8, 8)
    assert seen == sorted(seen)


# -- interruptions ---------------------------------------------------------------------------------------------------


def test_the_fake_scorer_would_betray_other_chunks(data: Path, tmp_path: Path, expected: bytes) -> None:
    """Else the tests below prove little: scores of the same rows differ in their last bits under other chunks."""
    score(data, tmp_path / "out.jsonl", chunk_rows=CHUNK + 1)
    assert (tmp_path / "out.jsonl").read_bytes() != expected


@pytest.mark.parametrize("chunks", range(6))
def test_goes_on_where_it_was_interrupted(data: Path, tmp_path: Path, expected: bytes, chunks: int) -> None:
    output = tmp_path / "out.jsonl"
    if chunks < 5:
        interrupted(data, output, chunks=chunks)
        assert not output.exists()
        scorer = FakeScorer()
        result = score(data, output, scorer)
        assert result.resumed_rows == chunks * CHUNK
        assert scorer.calls == 5 - chunks
    else:
        assert score(data, output).resumed_rows == 0
    assert output.read_bytes() == expected
    assert left_beside(output) == []


@pytest.mark.parametrize("torn", ["out.jsonl.partial", "out.jsonl.partial.journal"])
def test_goes_on_whatever_is_torn_off_the_last_chunk(
    data: Path, tmp_path: Path, expected: bytes, torn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every length that a write cut short can leave, of the rows and of the journal."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # only to be quick
    left = tmp_path / "left"
    interrupted(data, left / "out.jsonl", chunks=2)
    whole = (left / torn).read_bytes()
    lines = whole.splitlines(keepends=True)
    in_last_chunk = sum(map(len, lines[-CHUNK:])) if torn.endswith("partial") else len(lines[-1])
    for length in range(len(whole) - in_last_chunk, len(whole)):
        here = tmp_path / "here"
        shutil.copytree(left, here)
        (here / torn).write_bytes(whole[:length])
        assert score(data, here / "out.jsonl").resumed_rows == CHUNK
        assert (here / "out.jsonl").read_bytes() == expected
        shutil.rmtree(here)


def test_rows_that_were_changed_on_disk_are_scored_again(data: Path, tmp_path: Path, expected: bytes) -> None:
    """A power cut can leave zeros where bytes should be."""
    output = tmp_path / "out.jsonl"
    interrupted(data, output, chunks=3)
    rows = bytearray((tmp_path / "out.jsonl.partial").read_bytes())
    rows[-20:-10] = bytes(10)
    (tmp_path / "out.jsonl.partial").write_bytes(rows)
    assert score(data, output).resumed_rows == 2 * CHUNK
    assert output.read_bytes() == expected


def test_lists_that_a_process_model_scores_are_told(tmp_path: Path) -> None:
    """A row of steps without labels looks like a list of solutions."""

    class Steps(FakeScorer):
        has_steps = True

        def score_encoded_steps(self, encoded: Sequence[EncodedGroup], on_progress: Any = None) -> Any:
            scores = self.score_encoded(encoded, on_progress)
            return scores, [[[0.5] for _ in item.sequences] for item in encoded]

    rows = write_rows(tmp_path / "rows.jsonl", [{"prompt": "p", "completions": ["a", "b"]}])
    notes = score_file(Steps(), [rows], tmp_path / "out.jsonl").notes
    assert [note for note in notes if "1 rows have lists of completions" in note]
    assert json.loads((tmp_path / "out.jsonl").read_text())["step_scores"] == [[0.5], [0.5]]
    assert score_file(FakeScorer(), [rows], tmp_path / "other.jsonl").notes == ()


class Killed(BaseException):
    """Stands for kill -9: nothing in the program catches it."""


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
@pytest.mark.parametrize("after", [False, True])
def test_goes_on_when_killed_at_any_step_on_disk(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, after: bool
) -> None:
    """Killed right before, or right after, the n-th call that makes something durable, for every n."""
    score(data, tmp_path / "whole" / name)
    expected = (tmp_path / "whole" / name).read_bytes()
    steps = 0
    die_at = -1

    def counted(original: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **options: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps - 1 == die_at and not after:
                raise Killed
            result = original(*arguments, **options)
            if steps - 1 == die_at:
                raise Killed
            return result

        return step

    for module, function in ((os, "fsync"), (os, "replace"), (Path, "unlink")):
        monkeypatch.setattr(module, function, counted(getattr(module, function)))
    deaths = 0
    while True:
        here = tmp_path / f"here-{deaths}"
        here.mkdir()
        steps, die_at = 0, deaths
        try:
            score(data, here / name)
            break
        except Killed:
            deaths += 1
        die_at = -1
        if (here / name).exists() and not left_beside(here / name):
            with pytest.raises(ConfigError, match="exists already"):  # killed after all was done
                score(data, here / name)
        else:
            in_place = (here / name).exists()
            result = score(data, here / name)
            assert result.resumed_rows == 18 or not in_place, "scored again what was finished already"
        assert (here / name).read_bytes() == expected
        assert left_beside(here / name) == []
    assert deaths >= 15


# Imports once, then runs the command in a fresh process for each line that it reads.
_PROCESSES = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_bulk import FakeScorer, score
for line in sys.stdin:
    process = os.fork()
    if not process:
        score(Path(sys.argv[2]), Path(sys.argv[3]), FakeScorer(seconds=0.02))
        os._exit(0)
    print(process, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
"""


def test_goes_on_after_kill_minus_nine(tmp_path: Path) -> None:
    """Real processes, killed at random moments one after the other, against one that was left alone."""
    data = write_rows(tmp_path / "rows.jsonl", completions(100 * CHUNK))
    score(data, tmp_path / "whole" / "out.jsonl")
    output = tmp_path / "out.jsonl"
    journal = tmp_path / "out.jsonl.partial.journal"
    command = [sys.executable, "-c", _PROCESSES, str(Path(__file__).parent), str(data), str(output)]
    chance = random.Random(0)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as processes:
        assert processes.stdin is not None
        assert processes.stdout is not None
        for chunks in (1, 5, 9, 14, 20):
            processes.stdin.write("\n")
            process = int(processes.stdout.readline())
            deadline = time.monotonic() + 60
            while not (journal.exists() and journal.read_bytes().count(b"\n") > chunks):
                assert time.monotonic() < deadline, "no chunk was written within a minute"
                time.sleep(0.002)
            time.sleep(chance.random() * 0.04)
            os.kill(process, signal.SIGKILL)
            assert int(processes.stdout.readline()) == -signal.SIGKILL
            assert not output.exists()
    assert score(data, output).resumed_rows >= 20 * CHUNK
    assert output.read_bytes() == (tmp_path / "whole" / "out.jsonl").read_bytes()


# -- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scorer", "options", "difference"),
    [
        (FakeScorer(fingerprint="model-b"), {}, "model was 'model-a', is now 'model-b'"),
        (FakeScorer(), {"chunk_rows": 5}, "chunk_rows was 4, is now 5"),
        (FakeScorer(), {"format": "completion"}, "format was 'auto', is now 'completion'"),
        (FakeScorer(), {"settings": {"dtype": "bfloat16"}}, "dtype was None, is now 'bfloat16'"),
    ],
)
def test_another_command_is_refused_until_restart(
    data: Path, tmp_path: Path, scorer: FakeScorer, options: dict[str, Any], difference: str
) -> None:
    output = tmp_path / "out.jsonl"
    interrupted(data, output, chunks=2)
    left = (tmp_path / "out.jsonl.partial").read_bytes()
    with pytest.raises(ConfigError, match=difference) as refused:
        score(data, output, scorer, **options)
    assert "--restart" in refused.value.hint
    assert (tmp_path / "out.jsonl.partial").read_bytes() == left
    assert score(data, output, scorer, restart=True, **options).resumed_rows == 0
    assert len(read_rows(output)) == 18


def test_changed_data_is_refused(data: Path, tmp_path: Path) -> None:
    interrupted(data, tmp_path / "out.jsonl", chunks=2)
    write_rows(data, [{**row, "prompt": "another"} for row in completions(18)])
    with pytest.raises(ConfigError, match=r"data was '.*', is now"):
        score(data, tmp_path / "out.jsonl")


def test_changed_steps_are_refused(tmp_path: Path) -> None:
    """The text of both is the same two lines; as one step or as two they have other scores."""
    data = tmp_path / "solutions.jsonl"

    def write(steps: list[str]) -> None:
        write_rows(data, [{"prompt": "q", "completions": steps, "labels": [True] * len(steps)}] * 6)

    write(["a\nb"])
    interrupted(data, tmp_path / "out.jsonl", chunks=1)
    write(["a", "b"])
    with pytest.raises(ConfigError, match=r"data was '.*', is now"):
        score(data, tmp_path / "out.jsonl")


def test_an_ensemble_combined_in_another_way_is_refused(data: Path, tmp_path: Path) -> None:
    """Settings hold lists and nested records, as an ensemble's do; equal ones are taken up."""
    settings = {"how": "weighted", "weights": [1.0, 2.0], "models": [{"dtype": "float32"}, {"dtype": "bfloat16"}]}
    output = tmp_path / "out.jsonl"
    with pytest.raises(KeyboardInterrupt):
        score(data, output, FakeEnsemble(fail_after=2), settings=settings)
    for change in ({"weights": [2.0, 1.0]}, {"models": [{"dtype": "float32"}] * 2}, {"how": "mean", "weights": None}):
        with pytest.raises(ConfigError, match=f"{next(iter(change))} was .*, is now"):
            score(data, output, FakeEnsemble(), settings=settings | change)
    assert score(data, output, FakeEnsemble(), settings=settings).resumed_rows == 2 * CHUNK
    score(data, tmp_path / "whole.jsonl", FakeEnsemble(), settings=settings)
    assert output.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_rows_without_their_journal_are_refused(data: Path, tmp_path: Path) -> None:
    (tmp_path / "out.jsonl.partial").write_text("something of the user's\n")
    with pytest.raises(ConfigError, match="without its journal"):
        score(data, tmp_path / "out.jsonl")
    assert score(data, tmp_path / "out.jsonl", restart=True).rows == 18


def test_an_existing_output_is_replaced_only_if_asked(data: Path, tmp_path: Path, expected: bytes) -> None:
    output = tmp_path / "out.jsonl"
    output.write_text("precious\n")
    for options in ({}, {"restart": True}):
        with pytest.raises(ConfigError, match="exists already") as refused:
            score(data, output, **options)
        assert "--overwrite" in refused.value.hint
    with pytest.raises(KeyboardInterrupt):
        score(data, output, FakeScorer(fail_after=2), overwrite=True)
    assert output.read_text() == "precious\n"
    with pytest.raises(ConfigError, match="exists already"):
        score(data, output)
    assert score(data, output, overwrite=True).resumed_rows == 2 * CHUNK
    assert output.read_bytes() == expected


def test_two_processes_do_not_write_one_output(data: Path, tmp_path: Path) -> None:
    class Second(FakeScorer):
        def score_encoded(self, encoded: Sequence[EncodedGroup], on_progress: Any = None) -> list[list[float]]:
            with pytest.raises(ConfigError, match="another process"):
                score(data, tmp_path / "out.jsonl")
            return super().score_encoded(encoded, on_progress)

    score(data, tmp_path / "out.jsonl", Second())


def test_files_are_checked_before_any_work(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        check_files([tmp_path / "missing.jsonl"], tmp_path / "out.jsonl")
    with pytest.raises(ConfigError, match="is a folder"):
        check_files([data], tmp_path)
    with pytest.raises(ConfigError, match=r"\*\.csv is not written"):
        check_files([data], tmp_path / "out.csv")
    with pytest.raises(ConfigError, match="is the data itself"):
        check_files([data], tmp_path / "." / "rows.jsonl", overwrite=True)


def test_a_full_disk_is_told_and_can_be_mended(
    data: Path, tmp_path: Path, expected: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(RewardLabError, match="No space left on device"):
            score(data, tmp_path / "out.jsonl")
    score(data, tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_bytes() == expected


# -- Parquet ---------------------------------------------------------------------------------------------------------


def test_parquet_holds_what_jsonl_holds(tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    rows: list[object] = [{**row, "id": i} for i, row in enumerate(completions(10))]
    rows += [{"id": 10, "prompt": "p" * 41, "chosen": "a", "rejected": "b"}]
    rows += [
        {"id": 11, "prompt": "p", "completions": ["a", "b", "c"]},
        {"id": -12, "prompt": "p", "completion": "refuse"},
    ]
    data = write_rows(tmp_path / "rows.jsonl", rows)
    score(data, tmp_path / "out.jsonl")
    result = score(data, tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    columns = ["id", "scores", "chosen_score", "rejected_score", "truncated", "error"]
    assert table.schema.names == columns
    assert str(table.schema.field("id").type) == "int64"
    assert table.to_pylist() == [
        {**dict.fromkeys(columns), "truncated": False, **row} for row in read_rows(tmp_path / "out.jsonl")
    ]
    assert result.notes == ()


@pytest.mark.parametrize("ids", [[1, "two"], [1, None], [1, 2**63]])
def test_parquet_ids_of_mixed_types_become_text(tmp_path: Path, ids: list[Any]) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    data = write_rows(tmp_path / "rows.jsonl", [{"id": i, "prompt": "p", "completion": "c"} for i in ids])
    result = score(data, tmp_path / "out.parquet")
    expected = [str(value) if value is not None else f"rows.jsonl:{i + 1}" for i, value in enumerate(ids)]
    assert pq.read_table(tmp_path / "out.parquet")["id"].to_pylist() == expected
    assert "ids are text" in result.notes[0]


@pytest.mark.parametrize("with_lists", [True, False])
def test_disagreement_stands_beside_every_score(tmp_path: Path, with_lists: bool) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    rows: list[object] = [
        {"id": 0, "prompt": "p", "completion": "four"},
        {"id": 1, "prompt": "p", "chosen": "a", "rejected": "bb"},
        {"id": 2, "prompt": "p", "completion": "refuse"},
    ]
    rows += [{"id": 3, "prompt": "p", "completions": ["a", "bb", "ccc"]}] if with_lists else []
    data = write_rows(tmp_path / "rows.jsonl", rows)
    score(data, tmp_path / "out.jsonl", FakeEnsemble())
    found = read_rows(tmp_path / "out.jsonl")
    plain = score_rows_without(data, tmp_path / "plain.jsonl")
    told = [{name: row.pop(name) for name in list(row) if "disagreement" in name} for row in found]
    assert found == plain
    assert told == [
        {"disagreements": [4.0]} if with_lists else {"disagreement": 4.0},
        {"chosen_disagreement": 1.0, "rejected_disagreement": 2.0},
        {"disagreements": None} if with_lists else {"disagreement": None},
        *([{"disagreements": [1.0, 2.0, 3.0]}] if with_lists else []),
    ]
    score(data, tmp_path / "out.parquet", FakeEnsemble())
    table = pq.read_table(tmp_path / "out.parquet")
    of_one, of_list = ("scores", "disagreements") if with_lists else ("score", "disagreement")
    names = ["id", of_one, "chosen_score", "rejected_score", of_list, "chosen_disagreement", "rejected_disagreement"]
    assert table.schema.names == [*names, "truncated", "error"]
    assert table.to_pylist() == [
        {**dict.fromkeys(table.schema.names), "truncated": False, **row} for row in read_rows(tmp_path / "out.jsonl")
    ]


def score_rows_without(data: Path, output: Path) -> list[dict[str, Any]]:
    """What a scorer that is no ensemble writes of the same rows."""
    score(data, output)
    return read_rows(output)


# -- names that are taken --------------------------------------------------------------------------------------------


def test_an_output_that_appeared_meanwhile_is_not_replaced(data: Path, tmp_path: Path, expected: bytes) -> None:
    """Neither while it scores, nor after it was killed when all rows were there."""
    output = tmp_path / "out.jsonl"

    def somebody_writes(done: int, total: int) -> None:
        output.write_text("theirs")

    for _ in range(2):
        with pytest.raises(ConfigError, match="exists already"):
            score(data, output, on_progress=somebody_writes)
    assert output.read_text() == "theirs"
    assert score(data, output, overwrite=True).resumed_rows == 18
    assert output.read_bytes() == expected


def test_data_named_like_what_is_kept_beside_the_output_is_refused(data: Path, tmp_path: Path) -> None:
    """Rows that were set aside, mended and read again."""
    rows = data.rename(tmp_path / "out.jsonl.quarantine.jsonl")
    with pytest.raises(ConfigError, match="keeps beside its output"):
        check_files([rows], tmp_path / "out.jsonl")


def test_more_may_be_unreadable_if_one_says_so(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", [*completions(8), {"prompt": "p"}, {"prompt": "q"}])
    with pytest.raises(DataError, match=r"20.0%.*at most 5%") as caught:
        score(rows, tmp_path / "out.jsonl")
    assert "--max-bad-fraction of score, best-of-n" in caught.value.hint
    assert score(rows, tmp_path / "out.jsonl", max_bad_fraction=0.2).rows == 8


def test_one_file_need_not_be_a_list(tmp_path: Path) -> None:
    """A text is no list of names of one letter."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "p", "completion": "c"}\n')
    for source in (rows, str(rows), [str(rows)]):
        output = tmp_path / f"{type(source).__name__}.jsonl"
        assert score_file(FakeScorer(), source, output).rows == 1
        with pytest.raises(ConfigError, match="the data itself"):
            score_file(FakeScorer(), source, rows)

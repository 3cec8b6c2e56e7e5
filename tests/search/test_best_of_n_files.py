"""Best-of-N over files: every row in its place, whatever kills the run and wherever; and the example that uses it."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from rewardlab.data.encoding import EncodedGroup
from rewardlab.data.loading import load_groups
from rewardlab.errors import CompletionTooLongError, ConfigError, DataError, RewardLabError
from rewardlab.scoring.bulk import score_file
from rewardlab.search import best_of_n_files
from rewardlab.search.best_of_n import Selection
from rewardlab.search.best_of_n_files import BestOfNOutputs, BestOfNRun, best_of_n_file
from rewardlab.types import PromptGroup, text_of

ROOT = Path(__file__).resolve().parents[2]


class FakeScorer:
    """Scores depend on the texts alone but for the last bits, which depend on the batch, as a real model's do.

    A completion of more than 40 characters is too long, a prompt of more than 40 is cut. An ensemble of three.
    """

    has_steps = False

    def __init__(self, *, fingerprint: str = "model-a", fail_after: int | None = None, ensemble: bool = False) -> None:
        self.fingerprint = fingerprint
        self.fail_after = fail_after
        self.is_ensemble = ensemble
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
        return EncodedGroup(group, tuple(tuple(t.encode()) for t in texts), 0, int(len(text_of(group.prompt)) > 40))

    def score_encoded(
        self, encoded: Sequence[EncodedGroup], on_progress: Callable[[int], None] | None = None
    ) -> list[list[float]]:
        if self.calls == self.fail_after:
            raise KeyboardInterrupt
        self.calls += 1
        last_bits = 2.0**-40 * sum(len(sequence) for item in encoded for sequence in item.sequences)
        return [[score_of(item.group, i) + last_bits for i in range(len(item.sequences))] for item in encoded]

    def score_encoded_disagreement(
        self, encoded: Sequence[EncodedGroup], on_progress: Callable[[int], None] | None = None
    ) -> tuple[list[list[float]], list[list[float]]]:
        scores = self.score_encoded(encoded, on_progress)
        return scores, [[0.25 * i for i in range(len(own))] for own in scores]


def score_of(group: PromptGroup, index: int) -> float:
    text = text_of(group.prompt) + text_of(group.completions[index])
    return zlib.crc32(text.encode()) / 2**32


def write_rows(path: Path, rows: Sequence[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def samples(number: int = 11) -> list[dict[str, Any]]:
    return [
        {"id": i, "prompt": f"question {i}", "completions": [f"answer {j}" for j in range(i % 4 + 2)]}
        for i in range(number)
    ]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "samples.jsonl", samples())


def outputs_in(folder: Path) -> BestOfNOutputs:
    folder.mkdir(exist_ok=True)
    return BestOfNOutputs(folder / "best.jsonl", folder / "sft.jsonl", folder / "pairs.jsonl")


def run(data: Path, outputs: BestOfNOutputs, scorer: FakeScorer | None = None, **options: Any) -> BestOfNRun:
    return best_of_n_file(scorer or FakeScorer(), [data], outputs, **{"chunk_rows": 4, **options})


def contents(outputs: BestOfNOutputs) -> list[bytes]:
    return [path.read_bytes() for path in outputs.all]


def left(outputs: BestOfNOutputs) -> list[str]:
    return sorted(path.name for path in outputs.output.parent.iterdir() if path not in outputs.all)


def test_an_empty_completion_is_judged_with_the_others(tmp_path: Path):
    data = write_rows(tmp_path / "rows.jsonl", [{"prompt": "q", "completions": ["a", "", "c"]}])
    outputs = outputs_in(tmp_path / "out")
    assert run(data, outputs).ledger["rows"]["quarantined"] == 0
    (row,) = read_rows(outputs.output)
    group = PromptGroup("q", ("a", "", "c"))
    assert row["scores"] == pytest.approx([score_of(group, i) for i in range(3)], abs=1e-9)


def test_every_kind_of_row_is_in_its_place(tmp_path: Path):
    rows = [
        {"id": "list", "prompt": "q", "completions": ["b", "a", "c", "d"]},
        {"id": "pair", "prompt": "q", "chosen": "yes", "rejected": "no"},
        {"prompt": "q", "completion": "alone"},
        {"id": "long", "prompt": "q", "completions": ["short", "x" * 41]},
        {"id": "cut", "prompt": "w" * 41, "completions": ["a", "b"], "ranks": [1, 0]},
    ]
    data = write_rows(tmp_path / "rows.jsonl", rows)
    outputs = outputs_in(tmp_path / "out")
    result = run(data, outputs, FakeScorer(ensemble=True), selection=Selection("top-k", k=2))
    found, groups = read_rows(outputs.output), load_groups(data)
    assert [row["id"] for row in found] == ["list", "pair", "rows.jsonl:3", "long", "cut"]
    for row, group in zip(found, groups, strict=True):
        if row["id"] == "long":
            assert row["scores"] is row["best"] is None
            assert "too many tokens" in row["error"]
            continue
        scores = [score_of(group, i) for i in range(len(group.completions))]
        assert row["scores"] == pytest.approx(scores, abs=1e-9)
        assert row["best_completion"] == group.completions[scores.index(max(scores))]
        assert row["disagreements"] == [0.25 * i for i in range(len(scores))]
    assert found[4]["truncated"] is True
    assert result.ledger["rows"] == {"read": 5, "used": 4, "quarantined": 1, "dropped": 0, "truncated": 1}
    assert (result.num_selected, result.num_pairs) == (2 + 2 + 1 + 2, 3)
    assert result.without_pair == {"unscored": 1, "one completion": 1}
    assert "1 of 5 rows have one completion" in result.notes[0]
    assert left(outputs) == []

    # What was written is what rewardlab reads: pairs to train on, completions to fine-tune on.
    pairs = load_groups(outputs.pairs)
    assert [group.id for group in pairs] == ["list", "pair", "cut"]
    assert all(score_of(group, 0) > score_of(group, 1) for group in pairs)
    assert [(pair.strength, pair.margin) for group in pairs for pair in group.pairs] == [
        (row["chosen_score"] - row["rejected_score"], None) for row in read_rows(outputs.pairs)
    ]
    assert [row["id"] for row in read_rows(outputs.selected)] == ["list"] * 2 + ["pair"] * 2 + ["rows.jsonl:3"] + [
        "cut"
    ] * 2


def test_rows_that_cannot_be_read_are_set_aside_and_counted(tmp_path: Path):
    data = write_rows(tmp_path / "rows.jsonl", [*samples(30), {"prompt": "q", "completions": []}])
    outputs = outputs_in(tmp_path / "out")
    result = run(data, outputs)
    assert len(read_rows(outputs.output)) == 30
    assert result.ledger["rows"]["quarantined"] == 1
    assert result.unscored_rows == 0
    assert left(outputs) == ["best.jsonl.quarantine.jsonl"]


def test_more_may_be_unreadable_if_one_says_so(tmp_path: Path):
    """What the error names is there: the option, and the file."""
    data, outputs = write_rows(tmp_path / "rows.jsonl", [*samples(8), {"prompt": "q"}]), outputs_in(tmp_path / "out")
    with pytest.raises(DataError, match="at most 5%") as caught:
        run(data, outputs)
    assert "--max-bad-fraction of score, best-of-n" in caught.value.hint
    assert str(outputs.quarantine) in caught.value.hint
    assert len(read_rows(outputs.quarantine)) == 1
    assert run(data, outputs, max_bad_fraction=0.2).summary.num_groups == 8


@pytest.mark.parametrize("chunks", [0, 1, 2])
def test_interrupted_while_scoring_it_goes_on(data: Path, tmp_path: Path, chunks: int):
    whole, outputs = outputs_in(tmp_path / "whole"), outputs_in(tmp_path / "out")
    run(data, whole)
    with pytest.raises(KeyboardInterrupt):
        run(data, outputs, FakeScorer(fail_after=chunks))
    again = FakeScorer()
    result = run(data, outputs, again)
    assert (result.resumed_rows, again.calls) == (4 * chunks, 3 - chunks)
    assert contents(outputs) == contents(whole)
    assert left(outputs) == []


def killed_after(renames: int, data: Path, outputs: BestOfNOutputs, monkeypatch: pytest.MonkeyPatch) -> None:
    """All scores of model-a are there, and some of the files."""
    done = 0

    def dying(source: Path, target: Path) -> None:
        nonlocal done
        if done == renames:
            raise KeyboardInterrupt
        done += 1
        os.replace(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(best_of_n_files, "replace_safely", dying)
        with pytest.raises(KeyboardInterrupt):
            run(data, outputs)
    assert [path.exists() for path in outputs.all] == [number < renames for number in range(3)]


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_killed_while_the_files_are_put_in_place_nothing_is_scored_again(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renames: int
):
    whole, outputs = outputs_in(tmp_path / "whole"), outputs_in(tmp_path / "out")
    run(data, whole)
    killed_after(renames, data, outputs, monkeypatch)
    with pytest.raises(ConfigError, match=r"another command.*model-b"):
        run(data, outputs, FakeScorer(fingerprint="model-b"))
    again = FakeScorer()
    result = run(data, outputs, again)
    assert (result.resumed_rows, again.calls) == (11, 0)
    assert contents(outputs) == contents(whole)
    assert left(outputs) == []


@pytest.mark.parametrize("chunks", [None, 0, 1])
@pytest.mark.parametrize("renames", [1, 2])
def test_a_restart_may_replace_what_the_killed_run_has_put_in_place(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renames: int, chunks: int | None
):
    """Also one that is killed itself, while it scores, and then goes on; without scoring everything to be refused."""
    whole, outputs = outputs_in(tmp_path / "whole"), outputs_in(tmp_path / "out")
    run(data, whole, FakeScorer(fingerprint="model-b"))
    killed_after(renames, data, outputs, monkeypatch)
    if chunks is not None:
        with pytest.raises(KeyboardInterrupt):
            run(data, outputs, FakeScorer(fingerprint="model-b", fail_after=chunks), restart=True)
    result = run(data, outputs, FakeScorer(fingerprint="model-b"), restart=chunks is None)
    assert result.resumed_rows == 4 * (chunks or 0)
    assert contents(outputs) == contents(whole)
    assert left(outputs) == []


@pytest.mark.parametrize("name", ["best.jsonl.partial", "best.jsonl.partial.journal"])
def test_killed_when_all_is_written_it_only_tidies_up(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    outputs, unlink = outputs_in(tmp_path / "out"), Path.unlink

    def dying(path: Path, missing_ok: bool = False) -> None:
        if path.name == name:
            raise KeyboardInterrupt
        unlink(path, missing_ok)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", dying)
        with pytest.raises(KeyboardInterrupt):
            run(data, outputs)
    before, again = contents(outputs), FakeScorer()
    if name.endswith("journal"):
        run(data, outputs, again)
        assert (contents(outputs), again.calls, left(outputs)) == (before, 0, [])
    with pytest.raises(ConfigError, match="exists already"):
        run(data, outputs)
    assert (contents(outputs), left(outputs)) == (before, [])
    assert run(data, outputs, overwrite=True).resumed_rows == 0
    assert left(outputs) == []


def killed_before_its_files_are_in_place(data: Path, outputs: BestOfNOutputs, monkeypatch: pytest.MonkeyPatch) -> None:
    """All scores of model-a are there, and none of the files."""
    with monkeypatch.context() as patched:
        patched.setattr(best_of_n_files, "replace_safely", full_disk)
        with pytest.raises(RewardLabError, match="disk is full"):
            run(data, outputs)


def test_a_killed_restart_leaves_nothing_of_the_scores_before_it(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The scores of model-a must never be taken for model-b's."""
    outputs = outputs_in(tmp_path / "out")
    killed_before_its_files_are_in_place(data, outputs, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        run(data, outputs, FakeScorer(fingerprint="model-b", fail_after=0), restart=True)
    again = FakeScorer(fingerprint="model-b")
    assert run(data, outputs, again).resumed_rows == 0
    assert again.calls == 3


def test_a_run_that_is_refused_changes_nothing(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Neither another model's nor a second one at the same time says that the rows are its own."""
    outputs = outputs_in(tmp_path / "out")
    killed_before_its_files_are_in_place(data, outputs, monkeypatch)

    def kept() -> list[bytes]:
        return [(tmp_path / "out" / f"best.jsonl.partial{ending}").read_bytes() for ending in ("", ".journal")]

    before = kept()
    for options in ({}, {"strict": True}):
        with pytest.raises(ConfigError, match="another command"):
            run(data, outputs, FakeScorer(fingerprint="model-b"), **options)
    with open(tmp_path / "out" / "best.jsonl.partial", "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for restart in (False, True):
            with pytest.raises(ConfigError, match="another process"):
                run(data, outputs, FakeScorer(fingerprint="model-b"), restart=restart)
    assert kept() == before


def test_scores_that_are_left_give_no_leave_to_overwrite(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Exempt from "exists already" is only what the killed run itself was putting in its place."""
    outputs = outputs_in(tmp_path / "out")
    killed_before_its_files_are_in_place(data, outputs, monkeypatch)
    theirs = write_rows(tmp_path / "theirs.jsonl", [{"a": 1}])
    for other in (BestOfNOutputs(outputs.output, theirs), BestOfNOutputs(outputs.output, pairs=theirs)):
        with pytest.raises(ConfigError, match=r"theirs.jsonl exists already"):
            run(data, other)
    assert read_rows(theirs) == [{"a": 1}]
    # What is made of the scores may change, and they are not computed again.
    assert run(data, BestOfNOutputs(outputs.output, pairs=tmp_path / "new.jsonl"), min_gap=0.1).resumed_rows == 11


def test_a_file_that_appears_while_it_scores_is_not_replaced(data: Path, tmp_path: Path):
    outputs = outputs_in(tmp_path / "out")
    with pytest.raises(ConfigError, match=r"sft.jsonl exists already"):
        run(data, outputs, on_progress=lambda done, total: outputs.selected.write_text("theirs"))
    assert outputs.selected.read_text() == "theirs"
    assert run(data, outputs, overwrite=True).resumed_rows == 11


def test_what_score_left_is_not_taken_up(data: Path, tmp_path: Path):
    """Their rows are the same, but not the files that are made of them."""
    output = tmp_path / "out.jsonl"
    with pytest.raises(KeyboardInterrupt):
        score_file(FakeScorer(fail_after=1), [data], output, chunk_rows=4)
    with pytest.raises(ConfigError, match="command was None, is now 'best-of-n'"):
        run(data, BestOfNOutputs(output))


def test_data_that_changed_after_the_scoring_is_refused(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    outputs = outputs_in(tmp_path / "out")
    with monkeypatch.context() as patched:
        patched.setattr(best_of_n_files, "replace_safely", full_disk)
        with pytest.raises(RewardLabError, match="disk is full"):
            run(data, outputs)
    write_rows(data, samples(12))
    with pytest.raises(ConfigError, match=r"another command: data was.*rows was 11, is now 12"):
        run(data, outputs)
    assert run(data, outputs, restart=True).summary.num_groups == 12


def full_disk(source: Path, target: Path) -> None:
    raise OSError("disk is full")


def test_no_file_is_lost_by_being_named(data: Path, tmp_path: Path):
    kept = write_rows(tmp_path / "kept.jsonl", [{"a": 1}])
    for outputs in (
        BestOfNOutputs(kept),
        BestOfNOutputs(tmp_path / "best.jsonl", pairs=kept),
        BestOfNOutputs(tmp_path / "best.jsonl", selected=data),
        BestOfNOutputs(tmp_path / "best.jsonl", pairs=tmp_path / "best.jsonl"),
        BestOfNOutputs(tmp_path / "best.csv"),
        BestOfNOutputs(tmp_path / "best.jsonl", pairs=tmp_path / "best.jsonl.partial"),
        BestOfNOutputs(tmp_path / "best.jsonl", selected=tmp_path / "best.jsonl.partial.journal"),
        BestOfNOutputs(tmp_path / "best.jsonl", pairs=tmp_path / "best.jsonl.quarantine.jsonl"),
        BestOfNOutputs(tmp_path / "sft.jsonl.partial.new", selected=tmp_path / "sft.jsonl"),
    ):
        with pytest.raises(ConfigError):
            run(data, outputs)
    assert read_rows(kept) == [{"a": 1}]
    assert not (tmp_path / "best.jsonl").exists()
    run(data, BestOfNOutputs(tmp_path / "best.jsonl", pairs=kept), overwrite=True)
    assert len(read_rows(kept)) == 11


def test_parquet_holds_what_json_lines_hold(tmp_path: Path):
    rows = [*samples(3), {"id": "text", "prompt": "q", "completions": ["a", "x" * 41]}]
    data = write_rows(tmp_path / "rows.jsonl", rows)
    lines, tables = outputs_in(tmp_path / "lines"), tmp_path / "tables"
    files = BestOfNOutputs(tables / "best.parquet", tables / "sft.parquet", tables / "pairs.parquet")
    run(data, lines)
    result = run(data, files)
    assert "ids are text" in " ".join(result.notes)

    import pyarrow.parquet as pq

    for of_lines, table in zip(lines.all, files.all, strict=True):
        expected = [{**row, "id": str(row["id"])} for row in read_rows(of_lines)]
        columns = {name for row in expected for name in row}
        nulls = dict.fromkeys(columns)
        assert pq.read_table(table).to_pylist() == [{**nulls, **row} for row in expected]
    assert load_groups(files.pairs)[0].completions == load_groups(lines.pairs)[0].completions


def test_parquet_has_no_column_of_texts_and_messages(tmp_path: Path):
    said = [{"role": "assistant", "content": "so"}]
    rows = [{"prompt": "q", "completions": ["a", "b"]}, {"prompt": "q", "completions": [said, said]}]
    data = write_rows(tmp_path / "rows.jsonl", rows)
    with pytest.raises(DataError, match="best_completion") as caught:
        run(data, BestOfNOutputs(tmp_path / "best.parquet"))
    assert "jsonl" in caught.value.hint
    run(data, BestOfNOutputs(tmp_path / "best.jsonl"))
    assert read_rows(tmp_path / "best.jsonl")[1]["best_completion"] == said


@pytest.mark.slow
def test_the_example_trains_dpo_on_pairs_of_best_and_worst(tmp_path: Path):
    pytest.importorskip("trl")
    command = [sys.executable, str(ROOT / "examples" / "best_of_n_dpo.py"), "--quick", "--output", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert "| true utility |" in done.stdout
    assert len(read_rows(tmp_path / "pairs.jsonl")) > 10
    assert (tmp_path / "dpo" / "model.safetensors").exists()

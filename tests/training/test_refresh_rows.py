"""Old rows and new ones: found again, proven the same, and none that measures among them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from rewardlab.data.fingerprints import groups_fingerprint
from rewardlab.data.loading import Reading, read_groups
from rewardlab.data.reading import fingerprint
from rewardlab.errors import ConfigError, DataError
from rewardlab.training.kept_out import write_kept_out
from rewardlab.training.refresh import OldRun, read_old_run
from rewardlab.training.refresh_rows import as_sources, refresh_rows
from rewardlab.types import Pair, PromptGroup


def _read(files: list[str], split: str | None, format: str, quarantine: str) -> Reading:
    return read_groups(files, split=split, format=format)


def _write(path: Path, groups: Sequence[PromptGroup]) -> Path:
    rows = [{"prompt": g.prompt, "chosen": g.completions[0], "rejected": g.completions[1], "id": g.id} for g in groups]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _group(prompt: str, good: str = "yes", bad: str = "no") -> PromptGroup:
    return PromptGroup(prompt, (good, bad), (Pair(),))


@pytest.fixture
def train_file(tmp_path: Path, pairs: list[PromptGroup]) -> Path:
    return _write(tmp_path / "train.jsonl", pairs[:32])


@pytest.fixture
def new_file(tmp_path: Path) -> Path:
    return _write(tmp_path / "new.jsonl", [_group("a new question"), _group("another")])


@pytest.fixture
def old(reward_model: Path, train_file: Path) -> OldRun:
    """The session's model, 16 of its rows held out, as if its rows had been read from a file."""
    run = read_old_run(reward_model)
    return dataclasses.replace(run, run={**run.run, "sources": as_sources("train", [str(train_file)], None, "auto")})


def test_old_and_new_rows_and_the_same_held_out_ones(
    old: OldRun, new_file: Path, tmp_path: Path, pairs: list[PromptGroup]
) -> None:
    """32 old and 5 new rows: of these one has a held-out prompt, one repeats an old row, one is a canary."""
    canary = _group("a canary")
    rows = [_group("a new question"), _group("another"), _group(str(pairs[40].prompt)), pairs[3], canary]
    mixed = _write(tmp_path / "mixed.jsonl", rows)
    kept_away = _write(tmp_path / "canary.jsonl", [canary])
    found = refresh_rows(old, [str(mixed)], _read, exclude=[str(kept_away)])
    assert [g.prompt for g in found.train[32:]] == ["a new question", "another"]
    assert groups_fingerprint(found.held_out) == old.contract.data["held_out"]["sha256"]
    assert found.ledger.to_dict()["rows"] == {"read": 37, "used": 34, "quarantined": 0, "dropped": 3, "truncated": 0}
    assert set(found.ledger.reasons) == {"held out", "excluded", "repeated"}
    assert {(s["role"], s["file"]) for s in found.sources} == {
        ("train", "train.jsonl"),
        ("train", "mixed.jsonl"),
        ("excluded", "canary.jsonl"),
    }
    # A refresh of the refreshed one finds all of it again and leaves the same out, repeats and the canary too.
    again = dataclasses.replace(old, run={**old.run, "sources": found.sources})
    more = _write(tmp_path / "more.jsonl", [_group("third"), canary])
    second = refresh_rows(again, [str(more)], _read)
    assert second.train[:34] == found.train
    assert [g.prompt for g in second.train[34:]] == ["third"]
    assert [s.get("refresh") for s in second.sources if s["role"] == "train"] == [None, 1, 2]


def test_what_was_held_out_by_a_share_stays_out(old: OldRun, new_file: Path, pairs: list[PromptGroup]) -> None:
    """The old file held all 48 rows, and a third of them was held out: none of these is trained on now."""
    everything = _write(new_file.parent / "all.jsonl", pairs)
    split = dataclasses.replace(old, run={**old.run, "sources": as_sources("train", [str(everything)], None, "auto")})
    found = refresh_rows(split, [str(new_file)], _read)
    held_out = {group.prompt_key for group in found.held_out}
    assert len(held_out) == 16
    assert not held_out & {group.prompt_key for group in found.train}
    given = refresh_rows(split, [str(new_file)], _read, held_out=[_group("a new question")])
    assert len(given.held_out) == 1
    assert not (held_out | {given.held_out[0].prompt_key}) & {group.prompt_key for group in given.train}


def test_files_that_moved_or_changed(old: OldRun, train_file: Path, new_file: Path) -> None:
    moved = train_file.rename(train_file.with_name("moved.jsonl"))
    with pytest.raises(DataError, match="not there any more") as error:
        refresh_rows(old, [str(new_file)], _read)
    assert "--data" in error.value.hint
    found = refresh_rows(old, [str(new_file), str(moved)], _read)
    assert len(found.train) == 34
    assert found.sources[0]["path"] == str(moved.resolve())
    train_file.write_text(moved.read_text() + "\n")
    with pytest.raises(DataError, match="expected") as error:
        refresh_rows(old, [str(new_file)], _read)
    assert fingerprint(train_file) in error.value.message
    assert fingerprint(moved) in error.value.message


def test_old_checkpoints_know_names_and_hashes_or_nothing(old: OldRun, train_file: Path, new_file: Path) -> None:
    record = {"role": "train", "file": train_file.name, "sha256": fingerprint(train_file)}
    contract = dataclasses.replace(old.contract, data={**old.contract.data, "files": [record]})
    run = {name: value for name, value in old.run.items() if name != "sources"}
    named = dataclasses.replace(old, run=run, contract=contract)
    with pytest.raises(DataError, match="is not recorded"):
        refresh_rows(named, [str(new_file)], _read)
    assert len(refresh_rows(named, [str(new_file), str(train_file)], _read).train) == 34
    nothing = dataclasses.replace(old, run=run)
    with pytest.raises(DataError, match="none of --data holds exactly its rows"):
        refresh_rows(nothing, [str(new_file)], _read)
    found = refresh_rows(nothing, [str(new_file), str(train_file)], _read)
    assert len(found.train) == 34
    assert [source["file"] for source in found.sources] == ["train.jsonl", "new.jsonl"]


def test_what_makes_no_sense_is_refused(old: OldRun, train_file: Path, new_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="all of --data is what"):
        refresh_rows(old, [str(train_file)], _read)
    with pytest.raises(ConfigError, match="two of these files are the same"):
        refresh_rows(old, [str(new_file), str(new_file)], _read)
    with pytest.raises(ConfigError, match="held out again"):
        refresh_rows(old, [str(new_file)], _read, eval_fraction=0.1)
    repeats = _write(tmp_path / "repeats.jsonl", read_groups(train_file).groups[:2])
    with pytest.raises(DataError, match="no new row is left"):
        refresh_rows(old, [str(repeats)], _read)
    lost = dataclasses.replace(old, folder=tmp_path)
    with pytest.raises(DataError, match=r"held_out\.jsonl is not there"):
        refresh_rows(lost, [str(new_file)], _read)


def test_without_held_out_rows_a_share_can_be_held_out(old: OldRun, new_file: Path) -> None:
    contract = dataclasses.replace(old.contract, data={**old.contract.data, "held_out": None})
    found = refresh_rows(dataclasses.replace(old, contract=contract), [str(new_file)], _read, eval_fraction=0.25)
    assert (len(found.train), len(found.held_out)) == (26, 8)


def test_formatting_carries_nothing_that_measures_into_training(
    old: OldRun, tmp_path: Path, pairs: list[PromptGroup]
) -> None:
    """A held-out prompt, a canary and a repeat, each with stray spacing; and new completions of a canary's prompt."""
    rows = [
        _group(f" {pairs[40].prompt}\r\n", "seen", "before"),
        _group("a  canary"),
        _group("a canary", "other", "completions"),
        _group(str(pairs[3].prompt), f"{pairs[3].completions[0]} ", f"{pairs[3].completions[1]}\n"),
        _group("new"),
    ]
    mixed, kept_away = _write(tmp_path / "mixed.jsonl", rows), _write(tmp_path / "c.jsonl", [_group("a canary")])
    found = refresh_rows(old, [str(mixed)], _read, exclude=[str(kept_away)])
    assert [group.prompt for group in found.train[32:]] == ["new"]
    assert found.ledger.reasons == {
        "held out but for formatting": 1,
        "excluded": 1,
        "excluded but for formatting": 1,
        "repeated but for formatting": 1,
    }
    assert any(line.startswith("1 new row left out, excluded but for formatting: its prompt") for line in found.told)


def test_what_the_first_generation_held_out_the_third_does_not_learn(
    old: OldRun, new_file: Path, tmp_path: Path, pairs: list[PromptGroup]
) -> None:
    """The first file holds all 48 rows and 16 were held out; the second generation measures on other rows."""
    everything = _write(tmp_path / "all.jsonl", pairs)
    first = dataclasses.replace(old, run={**old.run, "sources": as_sources("train", [str(everything)], None, "auto")})
    given = [_group("measured now")]
    second = refresh_rows(first, [str(new_file)], _read, held_out=given)
    assert len(second.kept_out) == 16
    assert second.ledger.reasons == {"kept out": 16}

    folder = tmp_path / "second"
    (folder / "training").mkdir(parents=True)
    kept_out = write_kept_out(folder, second.kept_out)
    (folder / "training" / "held_out.jsonl").write_text(
        json.dumps({"group": {"prompt": "measured now", "completions": ["yes", "no"], "pairs": [{}]}, "scores": [1, 0]})
        + "\n"
    )
    contract = dataclasses.replace(old.contract, data={"held_out": {"sha256": groups_fingerprint(given)}})
    run = dataclasses.replace(
        old, folder=folder, contract=contract, run={**old.run, "sources": [*second.sources, *kept_out]}
    )
    more = _write(tmp_path / "more.jsonl", [_group("third")])
    third = refresh_rows(run, [str(more)], _read)
    assert third.train == [*second.train, *read_groups(more).groups]
    assert third.kept_out == second.kept_out
    fourth = refresh_rows(run, [str(more)], _read, held_out=[_group("another")])
    assert len(fourth.kept_out) == 17
    (folder / "training" / "kept_out.jsonl").unlink()
    with pytest.raises(DataError, match=r"kept_out\.jsonl is not there"):
        refresh_rows(run, [str(more)], _read)

"""Checkpoints on disk: whole or not there; every damaged byte is found; what is passed over is told."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from rewardlab.errors import CheckpointError
from rewardlab.training import checkpoints
from rewardlab.training.checkpoints import (
    MANIFEST,
    SavedRun,
    checkpoints_in,
    damage_of,
    finish_checkpoint,
    last_whole_checkpoint,
    remove_leftovers,
    remove_old,
    saving_folder,
    step_of,
)

FILES = {"model.safetensors": b"weights" * 99, "trainer_state.json": b'{"global_step": 1}', "shards/rank_0.pt": b"x"}


def write_aside(folder: Path, step: int) -> Path:
    """What transformers leaves in the folder beside."""
    made = saving_folder(folder) / f"checkpoint-{step}"
    for name, content in FILES.items():
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_bytes(content)
    return made


def save(folder: Path, *steps: int) -> None:
    for step in steps:
        write_aside(folder, step)
        finish_checkpoint(folder, SavedRun(step, 2, "whole", {"torch": "2"}))


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_finished_checkpoint_is_whole_and_says_who_wrote_it(tmp_path: Path) -> None:
    save(tmp_path, 9, 10)
    assert names_in(tmp_path) == ["checkpoint-10", "checkpoint-9"]
    assert [path.name for path in checkpoints_in(tmp_path)] == ["checkpoint-10", "checkpoint-9"]
    found = last_whole_checkpoint(tmp_path, pytest.fail)
    assert found is not None
    assert (found.folder, found.run) == (tmp_path / "checkpoint-10", SavedRun(10, 2, "whole", {"torch": "2"}))
    content = json.loads((found.folder / MANIFEST).read_text())["content"]
    assert content["files"].keys() == FILES.keys()
    assert content["files"]["shards/rank_0.pt"]["sha256"].startswith("2d711642b726b044")  # sha256sum of "x"


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
@pytest.mark.parametrize("how", ["flip first", "flip middle", "flip last", "cut first", "cut last", "add", "remove"])
def test_any_byte_that_differs_is_found(tmp_path: Path, name: str, how: str) -> None:
    save(tmp_path, 1, 2)
    path = tmp_path / "checkpoint-2" / name
    content = bytearray(path.read_bytes())
    at = {"first": 0, "middle": len(content) // 2}.get(how.split()[-1], len(content) - 1)
    if how == "remove":
        path.unlink()
        (path.parent / "trainer_state.json").unlink(missing_ok=True)  # without the manifest it is looked at alone
    else:
        if how.startswith("flip"):
            content[at] ^= 0x01
        elif how.startswith("cut"):
            del content[at]
        else:
            content += b"\n"
        path.write_bytes(content)
    told: list[str] = []
    found = last_whole_checkpoint(tmp_path, told.append)
    assert found is not None
    assert found.folder.name == "checkpoint-1"
    assert len(told) == 1
    assert told[0].startswith("warning: checkpoint-2 is damaged and is passed over: ")
    assert names_in(tmp_path) == ["checkpoint-1", "damaged-checkpoint-2"]
    save(tmp_path, 2)  # the run goes on, and its name is free
    assert last_whole_checkpoint(tmp_path, pytest.fail).folder.name == "checkpoint-2"  # type: ignore[union-attr]


def test_the_report_names_the_file_and_what_is_wrong(tmp_path: Path) -> None:
    save(tmp_path, 1)
    folder = tmp_path / "checkpoint-1"
    assert damage_of(folder) is None
    (folder / "shards" / "rank_0.pt").write_bytes(b"y")
    assert damage_of(folder) == "shards/rank_0.pt has other content than was written (SHA-256)"
    (folder / "shards" / "rank_0.pt").write_bytes(b"xx")
    assert damage_of(folder) == "shards/rank_0.pt has 2 bytes, not 1"
    (folder / "shards" / "rank_0.pt").unlink()
    assert damage_of(folder) == "shards/rank_0.pt is missing"
    (folder / MANIFEST).write_text("[]")
    assert damage_of(folder) == f"{MANIFEST} is not what was written"


def test_nothing_whole_left_is_an_error_also_the_next_time(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (tmp_path / "checkpoint-1" / "model.safetensors").write_bytes(b"")
    for told in ([], []):
        with pytest.raises(CheckpointError, match=r"holds no checkpoint that is whole: damaged-checkpoint-1") as error:
            last_whole_checkpoint(tmp_path, told.append)
        assert "without --resume" in error.value.hint


def test_a_run_that_saved_nothing_has_none(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-best").mkdir()
    assert last_whole_checkpoint(tmp_path, pytest.fail) is None
    assert step_of(tmp_path / "checkpoint-best") == -1


def test_a_checkpoint_of_an_older_version_is_taken_and_told(tmp_path: Path) -> None:
    for step, state in ((1, "{}"), (2, "{")):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(state)
    told: list[str] = []
    found = last_whole_checkpoint(tmp_path, told.append)
    assert found is not None
    assert (found.folder.name, found.run) == ("checkpoint-1", None)
    assert [line.split()[0] for line in told] == ["warning:", "checkpoint-1"]


def test_the_same_step_saved_again_takes_its_place(tmp_path: Path) -> None:
    save(tmp_path, 3)
    (write_aside(tmp_path, 3) / "trainer_state.json").write_text("{}")
    finish_checkpoint(tmp_path, SavedRun(3))
    assert names_in(tmp_path) == ["checkpoint-3"]
    assert (tmp_path / "checkpoint-3" / "trainer_state.json").read_text() == "{}"
    assert damage_of(tmp_path / "checkpoint-3") is None


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_fails_leaves_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Whichever call it is that fails: the folder has its name when all is done, or not at all."""
    save(tmp_path, 1)
    real, calls = getattr(os, call), [0]
    allowed = 0
    while True:
        calls[0] = 0

        def fails(*arguments: object, allowed: int = allowed) -> object:
            calls[0] += 1
            if calls[0] > allowed:
                raise OSError(28, "No space left on device")
            return real(*arguments)

        write_aside(tmp_path, 2)
        monkeypatch.setattr(os, call, fails)
        try:
            finish_checkpoint(tmp_path, SavedRun(2))
        except OSError:
            done = False
        else:
            done = True
        monkeypatch.setattr(os, call, real)
        assert damage_of(tmp_path / "checkpoint-1") is None
        if done:
            break
        if (tmp_path / "checkpoint-2").exists():  # the very last call: the name is there, not yet safe on disk
            shutil.rmtree(tmp_path / "checkpoint-2")
        remove_leftovers(tmp_path)
        assert names_in(tmp_path) == ["checkpoint-1"]
        allowed += 1
    assert allowed >= 2
    assert damage_of(tmp_path / "checkpoint-2") is None


def test_leftovers_of_a_kill_go(tmp_path: Path) -> None:
    save(tmp_path, 1)
    write_aside(tmp_path, 2)
    (tmp_path / ".removing-checkpoint-0").mkdir()
    remove_leftovers(tmp_path)
    assert names_in(tmp_path) == ["checkpoint-1"]


@pytest.mark.parametrize(
    ("limit", "best", "kept"),
    [
        (None, None, [1, 2, 3, 10]),
        (3, None, [2, 3, 10]),
        (2, None, [3, 10]),
        (1, None, [3, 10]),  # one alone would be all there is if it were damaged
        (2, 1, [1, 10]),
        (2, 10, [3, 10]),
    ],
)
def test_the_oldest_go_and_the_best_stays(tmp_path: Path, limit: int | None, best: int | None, kept: list[int]) -> None:
    save(tmp_path, 1, 2, 3, 10)
    remove_old(tmp_path, limit, keep=[f"somewhere/checkpoint-{best}" if best else None])
    assert names_in(tmp_path) == sorted(f"checkpoint-{step}" for step in kept)


def test_a_checkpoint_half_removed_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill while an old one is removed must not leave what looks like one without a manifest."""
    save(tmp_path, 1, 2, 3)
    monkeypatch.setattr(checkpoints.shutil, "rmtree", lambda *_, **__: None)
    remove_old(tmp_path, 2)
    assert [step_of(path) for path in checkpoints_in(tmp_path)] == [3, 2]

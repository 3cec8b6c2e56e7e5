"""A file is the one before or the new one, whatever happens in between, and nothing else stays."""

from __future__ import annotations

import errno
import multiprocessing
import os
import resource
import signal
from pathlib import Path

import pytest

from rewardlab import files
from rewardlab.files import replace_safely, sync_tree, write_safely, written_safely


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_text_and_bytes_replace_what_was_there(tmp_path):
    path = tmp_path / "result.json"
    write_safely(path, "é\n")
    assert path.read_bytes() == "é\n".encode()
    write_safely(str(path), b"\x00")
    assert path.read_bytes() == b"\x00"
    assert names(tmp_path) == ["result.json"]


def test_an_error_while_writing_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "result.json"
    path.write_text("before")

    def fail() -> None:
        with written_safely(path) as beside:
            beside.write_text("half of wh")
            raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        fail()
    assert path.read_text() == "before"
    assert names(tmp_path) == ["result.json"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_at_the_last_moment_leaves_the_file_as_it_was(tmp_path, monkeypatch, call):
    path = tmp_path / "result.json"
    path.write_text("before")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(files.os, call, full)
        with pytest.raises(OSError, match="No space left"):
            write_safely(path, "after")
    assert path.read_text() == "before"
    assert names(tmp_path) == ["result.json"]


def test_the_content_is_on_disk_before_the_name_and_the_name_before_it_returns(tmp_path, monkeypatch):
    events = []

    def fsync(descriptor: int) -> None:
        events.append(os.readlink(f"/proc/self/fd/{descriptor}"))

    def replace(source: Path, target: Path) -> None:
        events.append("rename")
        os.rename(source, target)

    monkeypatch.setattr(files.os, "fsync", fsync)
    monkeypatch.setattr(files.os, "replace", replace)
    write_safely(tmp_path / "result.json", "x")
    assert events[1:] == ["rename", str(tmp_path)]
    assert Path(events[0]).name.startswith(".result.json.")


def write_until_killed(path: Path, started) -> None:
    number = 0
    while True:
        write_safely(path, f"{number:08d}" * 1000)
        number += 1
        started.set()


def test_a_kill_at_any_moment_leaves_a_whole_file(tmp_path):
    path = tmp_path / "result.txt"
    context = multiprocessing.get_context("fork")
    for _ in range(10):
        started = context.Event()
        process = context.Process(target=write_until_killed, args=(path, started), daemon=True)
        process.start()
        assert started.wait(60)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join(60)
        found = path.read_text()
        assert found == found[:8] * 1000


def write_over_the_limit(path: Path, status) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    try:
        write_safely(path, "x" * 10_000)
    except OSError as error:
        status.value = error.errno or 0


def test_a_file_that_may_not_grow_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "result.txt"
    path.write_text("before")
    context = multiprocessing.get_context("fork")
    status = context.Value("i", 0)
    process = context.Process(target=write_over_the_limit, args=(path, status))
    process.start()
    process.join(60)
    assert status.value == errno.EFBIG
    assert path.read_text() == "before"
    assert names(tmp_path) == ["result.txt"]


def test_a_folder_takes_its_name_when_all_in_it_is_safe(tmp_path, monkeypatch):
    folder = tmp_path / "new"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "a").write_text("a")
    synced = []
    monkeypatch.setattr(files.os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    sync_tree(folder)
    assert synced == [str(folder / "inner" / "a"), str(folder / "inner"), str(folder)]
    replace_safely(folder, tmp_path / "checkpoint-1")
    assert synced[3:] == [str(tmp_path)]
    assert (tmp_path / "checkpoint-1" / "inner" / "a").read_text() == "a"

"""What the machine does to a command is told in words; what is a bug keeps its traceback."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import typer
from safetensors.torch import save_file

from rewardlab.cli.machine_faults import explained
from rewardlab.cli.main import app, main
from rewardlab.files import write_safely

RUN = "import sys; from rewardlab.cli.main import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture
def probe():
    """A function that makes `rewardlab probe` do what a test wants; the command is gone after the test."""
    before = len(app.registered_commands)

    def register(action):
        @app.command("probe")
        def command() -> None:
            action()

    yield register
    del app.registered_commands[before:]


def raising(error: BaseException):
    def action():
        raise error

    return action


def shell(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A line of bash in which $R is rewardlab."""
    words = ["bash", "-o", "pipefail", "-c", script]
    environment = {**os.environ, "R": sys.executable, "RUN": RUN}
    return subprocess.run(
        words, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300
    )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "p", "chosen": "a", "rejected": "b"}\n' * 20)
    return tmp_path


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.ENOSPC, "make room"),
        (errno.EDQUOT, "make room"),
        (errno.EROFS, "can be written to"),
        (errno.EACCES, "you may write to"),
        (errno.EIO, "system's log"),
        (errno.EMFILE, "ulimit -n"),
        (errno.EFBIG, "ulimit -f"),
        (errno.ENOENT, "removed while"),
    ],
    ids=errno.errorcode.get,
)
def test_an_error_of_the_system_names_the_file_and_has_status_1(capsys, probe, number, hint):
    probe(raising(OSError(number, os.strerror(number), "runs/rm/x.json")))
    assert main(["probe"]) == 1
    error, hinted = capsys.readouterr().err.splitlines()
    assert error == f"error: runs/rm/x.json: {os.strerror(number)}"
    assert hinted.startswith("hint: ")
    assert hint in hinted


@pytest.mark.parametrize(
    "error", [OSError("no number"), OSError(errno.EINVAL, "x"), OSError(errno.EBADF, "x")], ids=str
)
def test_an_error_that_only_a_bug_makes_keeps_its_traceback(probe, error):
    probe(raising(error))
    with pytest.raises(OSError, match=str(error.args[-1])):
        main(["probe"])


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
    ids=["python", "cuda", "cpu"],
)
def test_too_little_memory_is_told(capsys, probe, error):
    probe(raising(error))
    assert main(["probe"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("error: not enough memory")
    assert "--batch-tokens" in told


def test_libraries_that_write_are_understood(tmp_path):
    """What safetensors, SQLite and torch really raise."""
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(Exception, match="os error") as rust:
        save_file({"a": torch.ones(1)}, file / "x.safetensors")
    told = explained(rust.value)
    assert told is not None
    assert "Not a directory" in told[0]
    with pytest.raises(sqlite3.OperationalError) as sql:
        sqlite3.connect(file / "x.sqlite")
    assert explained(sql.value) == ("unable to open database file", explained(PermissionError(errno.EACCES, ""))[1])
    with pytest.raises(sqlite3.OperationalError) as wrong:
        sqlite3.connect(":memory:").execute("nonsense")
    assert explained(wrong.value) is None


def test_what_torch_makes_of_a_full_disk_is_the_disk():
    with pytest.raises((RuntimeError, OSError)) as found, open("/dev/full", "wb", buffering=0) as full:
        torch.save({"a": torch.ones(3)}, full)
    told = explained(found.value)
    assert told is not None
    assert told[0].startswith("No space left on device")


def test_a_file_is_named_though_a_write_does_not_say_where(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space") as found:
        write_safely(tmp_path / "result.json", "x")
    assert explained(found.value)[0] == f"{tmp_path / 'result.json'}: No space left on device"


def test_an_end_of_file_that_is_not_the_keyboards_is_no_interrupt(capsys, probe):
    """A cut archive raises EOFError, which typer takes for Ctrl-D."""
    probe(raising(EOFError("Compressed file ended before the end-of-stream marker")))
    with pytest.raises(EOFError, match="Compressed file ended"):
        main(["probe"])
    probe_aborts = raising(typer.Abort())
    del app.registered_commands[-1]
    probe(probe_aborts)
    assert main(["probe"]) == 130


def test_a_pipe_that_is_no_standard_stream_is_told(capsys, probe):
    probe(raising(BrokenPipeError(errno.EPIPE, "Broken pipe")))
    assert main(["probe"]) == 1
    assert capsys.readouterr().err == "error: Broken pipe\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize(
    ("script", "status", "error"),
    [
        ('$R -c "$RUN" data check pairs.jsonl > /dev/full', 1, "error: standard output: No space left on device\n"),
        ('$R -c "$RUN" data check pairs.jsonl --json >&-', 1, "error: standard output: Bad file descriptor\n"),
        ('$R -c "$RUN" data check nothing.jsonl 2> /dev/full', 1, None),
        ('$R -c "$RUN" data check nothing.jsonl 2>&-', 1, None),
        ('$R -c "$RUN" data check pairs.jsonl <&- 2>&- > out', 0, None),
        ('$R -c "$RUN" data check pairs.jsonl | true', 1, None),
        ('{ $R -c "$RUN" data check nothing.jsonl 2>&1; echo $? > status; } | true; exit $(cat status)', 1, None),
        ('mkdir gone; cd gone; rmdir ../gone; $R -c "$RUN" data check pairs.jsonl', 1, "error: "),
        ('ulimit -f 0; $R -c "$RUN" data check pairs.jsonl --suspects /dev/null > out', 2, "error: "),
    ],
    ids=[
        "full",
        "closed",
        "full stderr",
        "closed stderr",
        "closed stdin",
        "no reader",
        "nobody at all",
        "gone",
        "usage",
    ],
)
@pytest.mark.slow
def test_standard_streams_and_folders_that_are_not_there(data, script, status, error):
    done = shell(script, data)
    assert done.returncode == status, done
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert done.stderr == "" if error is None else done.stderr.startswith(error)

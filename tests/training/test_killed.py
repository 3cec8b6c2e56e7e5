"""Killed at random steps and resumed, one process and two: the final weights are bit-equal to the run left alone.

The kills are those of `benchmarks/killed.py`, fewer of them here; `REWARDLAB_KILLS=10` does the ten that
docs/reliability.md reports.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent.parent
KILLS = os.environ.get("REWARDLAB_KILLS", "2")
LONGEST = 900.0 if KILLS == "2" else 3600.0
NO_HANG_SECONDS = 60.0


@contextmanager
def started(command: list[str], output: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A command in a process group of its own, all of which is gone at the end."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    with output.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment, start_new_session=True)
        try:
            yield process
        finally:
            for pid in (process.pid, *ranks_of(process.pid).values()):
                try:
                    os.killpg(pid, signal.SIGKILL)
                except ProcessLookupError:
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        continue
            process.wait()


def ranks_of(parent: int) -> dict[int, int]:
    """Of each rank that descends from a process its pid, by the environment that its launcher gave it."""
    found: dict[int, int] = {}
    children = [parent]
    while children:
        pid = children.pop()
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            try:
                own = [int(child) for child in task.read_text().split()]
            except OSError:
                continue
            children += own
            for child in own:
                try:
                    environment = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
                except OSError:
                    continue
                found |= {int(entry[5:]): child for entry in environment if entry.startswith(b"RANK=")}
    return found


@pytest.mark.parametrize(
    "options",
    [
        ["--processes", "1", "--variants", "full"],
        ["--processes", "2", "--variants", "full"],
        ["--processes", "2", "--variants", "lora", "--signals", "SIGKILL"],
    ],
    ids=["one process", "two processes", "two processes, adapters"],
)
def test_killed_and_resumed_the_weights_are_bit_equal(tmp_path: Path, options: list[str]) -> None:
    output = tmp_path / "output"
    with started(
        [sys.executable, str(ROOT / "benchmarks" / "killed.py"), "--kills", KILLS, *options], output
    ) as process:
        status = process.wait(timeout=LONGEST)
    assert status == 0, output.read_text()
    assert "weights bit-equal, losses equal" in output.read_text()


def test_one_rank_killed_ends_the_command_and_it_resumes_to_the_same_weights(tmp_path: Path) -> None:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import killed
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
    killed.build(tmp_path)
    launched = [sys.executable, "-m", "rewardlab.cli"]
    launcher = ["--launcher", "ddp", "--processes", "2"]

    def command(output: str) -> list[str]:
        return [*launched, *killed.command(tmp_path, tmp_path / output, "full", 2), *launcher]

    with started(command("alone"), tmp_path / "alone.txt") as process:
        assert process.wait(timeout=LONGEST) == 0, (tmp_path / "alone.txt").read_text()
    said = tmp_path / "killed.txt"
    with started(command("killed"), said) as process:
        deadline = time.monotonic() + LONGEST
        while not (tmp_path / "killed" / "training" / "checkpoint-4").exists():
            assert process.poll() is None, said.read_text()
            assert time.monotonic() < deadline, said.read_text()
            time.sleep(0.02)
        os.kill(ranks_of(process.pid)[1], signal.SIGKILL)
        status = process.wait(timeout=NO_HANG_SECONDS)  # raises where it hangs
    assert status not in (0, None)
    assert "process 1 of 2 was ended by SIGKILL" in said.read_text()
    assert not (tmp_path / "killed" / "reward_contract.json").exists()
    with started([*command("killed"), "--resume"], tmp_path / "resumed.txt") as process:
        assert process.wait(timeout=LONGEST) == 0, (tmp_path / "resumed.txt").read_text()
    assert "resuming from checkpoint-" in (tmp_path / "resumed.txt").read_text()
    assert killed.digest(tmp_path / "killed") == killed.digest(tmp_path / "alone")

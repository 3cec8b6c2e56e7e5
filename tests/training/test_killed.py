"""Killed at random steps and resumed, one process and two: the final weights are bit-equal to the run left alone.

The kills are those of `benchmarks/killed.py`, fewer of them here; the ten of each that docs/reliability.md reports are
that script's.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent.parent
LONGEST = 900.0


def test_killed_and_resumed_the_weights_are_bit_equal(tmp_path: Path) -> None:
    """SIGTERM and SIGKILL, of one process and of two; and of two processes one alone, which ends the command."""
    said, results = tmp_path / "said", tmp_path / "results.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "killed.py"), "--kills", "2", "--one-rank"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    with said.open("wb") as file:
        process = subprocess.Popen(
            [*command, "--results", str(results)], stdout=file, stderr=file, env=environment, start_new_session=True
        )
        try:
            status = process.wait(timeout=LONGEST)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    assert status == 0, said.read_text(errors="replace")
    runs = json.loads(results.read_text())["runs"]
    assert [(run["processes"], run["signal"]) for run in runs] == [
        (1, "SIGTERM"),
        (1, "SIGKILL"),
        (2, "SIGTERM"),
        (2, "SIGKILL"),
        (2, "SIGKILL of one process"),
    ]
    assert all(run["weights_equal"] and run["losses_equal"] for run in runs)
    assert [len(run["after_steps"]) for run in runs] == [2, 2, 2, 2, 1]
    assert runs[-1]["status"] == 128 + signal.SIGKILL
    assert runs[-1]["seconds_to_end"] < 60

"""Bulk scoring killed with -9 three times at random, by the script that does it five times over 100,000 rows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "bulk_killed.py"


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["local", "ray"])
def test_no_row_is_lost_or_twice(engine: str, tmp_path: Path) -> None:
    if engine == "ray":
        pytest.importorskip("ray")
    found = tmp_path / "found.json"
    seconds = {"local": "0.3", "ray": "1"}[engine]  # of a chunk: Ray must not be done before the last kill
    options = ["--rows", "3000", "--kills", "3", "--part-rows", "256", "--seconds", seconds, "--engines", engine]
    command = [sys.executable, str(SCRIPT), *options, "--results", str(found)]
    with subprocess.Popen(command, start_new_session=True, env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
        try:
            assert process.wait(timeout=900) == 0
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    (told,) = json.loads(found.read_text())
    assert told["identical"]
    assert told["in_order"]
    assert (told["lost"], told["twice"], told["rows"]) == (0, 0, 2996)
    assert told["left_behind"] == []
    assert len(told["kills"]) == 3 or (engine == "ray" and told["kills"])  # it hands over several parts at once

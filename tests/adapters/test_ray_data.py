"""Bulk scoring by Ray actors gives the bytes that one process gives, and says what is wrong as it does."""

from __future__ import annotations

import builtins
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rewardlab.adapters.ray_data import RayWorkers
from rewardlab.errors import MissingDependencyError

WORDS = ["the", "sea", "and", "wind", "of", "a", "poem", "about", "Paris", "is", "short", "but", "long"]

TIMEOUT = 600  # seconds; a busy machine starts Ray slowly
IN_TURN = Path(__file__).resolve().parents[1] / "cli" / "commands_in_turn.py"
_CLUSTER = """
import sys, ray
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
print("ADDRESS", ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""


def write_rows(path: Path, count: int) -> Path:
    lines = [
        json.dumps(
            {
                "id": i,
                "prompt": f"Write about {i // 3}.",
                "completion": " ".join(WORDS[j % 13] for j in range(i, i + 1 + i * i % 11)),
            }
        )
        for i in range(count)
    ]
    lines[7] = "{broken"
    lines[11] = json.dumps({"id": 11, "prompt": "Write.", "completion": "sea " * 2000})
    path.write_text("".join(line + "\n" for line in lines))
    return path


@contextmanager
def started(*command: str | Path) -> Iterator[subprocess.Popen[str]]:
    """A process that is gone in the end, with all that it has started."""
    process = subprocess.Popen(
        [sys.executable, *map(str, command)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    try:
        yield process
        process.communicate(timeout=TIMEOUT)  # closes its stdin, by which the cluster ends
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ray")


@pytest.fixture(scope="module")
def ended(reward_model: Path, folder: Path) -> dict[str, Any]:
    """How each command ended: ``{"status", "out", "err"}``. All run in one process, and most on one cluster."""
    pytest.importorskip("ray")
    rows = ("--data", write_rows(folder / "rows.jsonl", 1400), "--device", "cpu")
    few = ("--data", write_rows(folder / "few.jsonl", 30), "--device", "cpu", "--max-bad-fraction", 0.5)
    with started("-c", _CLUSTER) as cluster:
        assert cluster.stdout is not None
        address = next(line.split()[1] for line in cluster.stdout if line.startswith("ADDRESS"))
        ray = ("--backend", "ray", "--part-rows", 400)
        there = (*ray, "--address", address, "--actors", 1)
        commands: dict[str, tuple[Any, ...]] = {
            "local": (reward_model, *rows, "--output", folder / "local.jsonl"),
            "ray": (reward_model, *rows, "--output", folder / "scores", *ray, "--actors", 2, "--json"),
            "folder": (reward_model, *rows, "--output", f"{folder}/parts/", *there),
            "no model": (folder / "no-model", *few, "--output", folder / "out.jsonl", *there),
            "strict": (reward_model, *few, "--output", folder / "out.jsonl", *there, "--strict"),
        }
        words = {name: ["score", *map(str, arguments)] for name, arguments in commands.items()}
        task = folder / "task.json"
        task.write_text(json.dumps({"commands": words, "logs": str(folder), "broken": []}))
        with started(IN_TURN, task):
            pass
    found: dict[str, Any] = json.loads((folder / "ended.json").read_text())
    return found


@pytest.mark.slow
def test_actors_write_what_one_process_writes(ended: dict[str, Any], folder: Path) -> None:
    """On a cluster of the command's own. There are several rows of a prompt, a broken one, and one that is too long."""
    assert (ended["local"]["status"], ended["ray"]["status"]) == (0, 0), ended["ray"]["err"]
    summary = json.loads(ended["ray"]["out"])  # nothing of Ray's talk is in it
    assert summary["rows"] == 1399
    assert summary["quarantined_rows"] == 1
    assert summary["ledger"]["rows"]["quarantined"] == 2
    assert not (folder / "scores").is_dir(), "a name without a slash is a file"
    assert (folder / "scores").read_bytes() == (folder / "local.jsonl").read_bytes()
    quarantined = [(folder / f"{name}.quarantine.jsonl").read_bytes() for name in ("local.jsonl", "scores")]
    assert quarantined[0] == quarantined[1]


@pytest.mark.slow
def test_a_folder_of_parquet_files_on_a_cluster_that_runs(ended: dict[str, Any], folder: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    assert ended["folder"]["status"] == 0, ended["folder"]["err"]
    entries = [json.loads(line) for line in (folder / "parts" / "index.jsonl").read_text().splitlines()]
    assert len(entries) > 2
    rows = [row for entry in entries for row in pq.read_table(folder / "parts" / entry["file"]).to_pylist()]
    expected = [json.loads(line) for line in (folder / "local.jsonl").read_text().splitlines()]
    assert [(row["id"], row["score"]) for row in rows] == [(row["id"], row["score"]) for row in expected]


@pytest.mark.slow
def test_an_error_in_an_actor_is_said_as_it_is_here(ended: dict[str, Any]) -> None:
    for name, reason in (("no model", "no-model"), ("strict", "1 of 30 rows are bad")):
        assert ended[name]["status"] == 1
        assert "error: " in ended[name]["err"]
        assert reason in ended[name]["err"]
        assert "Traceback" not in ended[name]["err"]


def test_without_ray_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name.partition(".")[0] == "ray":
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingDependencyError) as caught, RayWorkers(lambda: None):  # type: ignore[arg-type,return-value]
        pass
    assert "rewardlab[ray]" in caught.value.hint

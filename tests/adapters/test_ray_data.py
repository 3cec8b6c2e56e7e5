"""Bulk scoring by Ray actors gives the bytes that one process gives, and says what is wrong as it does."""

from __future__ import annotations

import builtins
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rewardlab.adapters.ray_data import RayWorkers
from rewardlab.errors import MissingDependencyError

WORDS = ["the", "sea", "and", "wind", "of", "a", "poem", "about", "Paris", "is", "short", "but", "long"]

# One command in a process of its own: Ray keeps threads and settings of a process, and a test must be able to end it.
_RUN = """
import json, sys
from rewardlab.cli.main import main
sys.exit(main(json.loads(sys.argv[1])))
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


def run(*arguments: object, rc: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-c", _RUN, json.dumps(["score", *map(str, arguments), "--device", "cpu"])],
        capture_output=True,
        text=True,
        timeout=900,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == rc, done.stderr
    return done


@pytest.mark.slow
def test_actors_write_what_one_process_writes(reward_model: Path, tmp_path: Path) -> None:
    """Several rows of a prompt, a broken row, one that is too long; as a file, and as a folder of Parquet files."""
    pytest.importorskip("ray")
    pq = pytest.importorskip("pyarrow.parquet")
    data = write_rows(tmp_path / "rows.jsonl", 1400)
    run(reward_model, "--data", data, "--output", tmp_path / "local.jsonl")
    done = run(
        *(reward_model, "--data", data, "--output", tmp_path / "scores", "--backend", "ray"),
        *("--actors", 2, "--part-rows", 400, "--json"),
    )
    summary = json.loads(done.stdout)  # nothing of Ray's talk is in it
    assert summary["rows"] == 1399
    assert summary["quarantined_rows"] == 1
    assert summary["ledger"]["rows"]["quarantined"] == 2
    assert not (tmp_path / "scores").is_dir(), "a name without a slash is a file"
    local, ray = ((tmp_path / name).read_bytes() for name in ("local.jsonl", "scores"))
    assert ray == local
    quarantined = [(tmp_path / f"{name}.quarantine.jsonl").read_bytes() for name in ("local.jsonl", "scores")]
    assert quarantined[0] == quarantined[1]

    folder = f"{tmp_path}/folder/"
    run(reward_model, "--data", data, "--output", folder, "--backend", "ray", "--actors", 1, "--part-rows", 400)
    entries = [json.loads(line) for line in (tmp_path / "folder" / "index.jsonl").read_text().splitlines()]
    assert len(entries) > 2
    rows = [row for entry in entries for row in pq.read_table(tmp_path / "folder" / entry["file"]).to_pylist()]
    expected = [json.loads(line) for line in local.splitlines()]
    assert [(row["id"], row["score"]) for row in rows] == [(row["id"], row["score"]) for row in expected]


@pytest.mark.slow
def test_an_error_in_an_actor_is_said_as_it_is_here(reward_model: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    data = write_rows(tmp_path / "rows.jsonl", 30)
    options = ("--data", data, "--backend", "ray", "--actors", 1, "--max-bad-fraction", 0.5)
    done = run(tmp_path / "no-model", *options, "--output", tmp_path / "out.jsonl", rc=1)
    assert "error: " in done.stderr
    assert "no-model" in done.stderr
    assert "Traceback" not in done.stderr
    done = run(reward_model, *options[:-2], "--strict", "--output", tmp_path / "out.jsonl", rc=1)
    assert "1 of 30 rows are bad" in done.stderr


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

"""The commands that score, in two processes: byte for byte what one process gives."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch
from tests.conftest import make_pairs

from rewardlab.cli.main import main

TIMEOUT = 400  # seconds; a busy machine starts torch slowly


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As each of two processes has: sums over other numbers of threads differ in their last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "pairs.jsonl"
    pairs = make_pairs(60, seed=5)
    lines = [{"prompt": g.prompt, "chosen": g.completions[0], "rejected": g.completions[1]} for g in pairs]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def in_two(*arguments: str | Path, starter: tuple[str, ...] = ()) -> tuple[int, str, str]:
    """Status, stdout and stderr of the command in two processes."""
    own = () if starter else ("--launcher", "ddp", "--processes", "2")
    command = [sys.executable, *(starter or ("-m", "rewardlab.cli")), *map(str, arguments), *own]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        out, err = process.communicate(timeout=TIMEOUT)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    return process.returncode, out, err


def in_one(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    assert main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out


@pytest.mark.slow
def test_evaluate_by_torchrun_with_an_ensemble(
    reward_model: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    second = shutil.copytree(reward_model, tmp_path / "second")
    arguments = ("evaluate", f"{reward_model},{second}", "--data", rows, "--json")
    expected = in_one(capsys, *arguments)
    starter = ("-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "rewardlab.cli")
    status, out, err = in_two(*arguments, "--launcher", "zero3", starter=starter)
    assert (status, out) == (0, expected), err
    assert err.count("each process holds it whole") == 1


@pytest.mark.slow
def test_evaluate_with_the_implicit_reward_of_a_policy(
    base_model: Path, rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("evaluate", f"{base_model}:{base_model}", "--data", rows, "--json", "--beta", "0.2")
    expected = in_one(capsys, *arguments)
    assert in_two(*arguments)[:2] == (0, expected)


@pytest.mark.slow
def test_the_file_of_score(reward_model: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    in_one(capsys, "score", reward_model, "--data", rows, "--output", one)
    status, _, err = in_two("score", reward_model, "--data", rows, "--output", two)
    assert status == 0, err
    assert two.read_bytes() == one.read_bytes()
    assert err.count("scored 60 rows") == 1


@pytest.mark.slow
def test_benchmark(reward_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from rewardlab.evaluation.benchmarks.rewardbench import PUBLISHED_COUNTS

    rows = tmp_path / "filtered.jsonl"
    lines = [
        {"prompt": g.prompt, "chosen": g.completions[0], "rejected": g.completions[1], "subset": name, "id": number}
        for number, (g, name) in enumerate(zip(make_pairs(46), [*PUBLISHED_COUNTS] * 2, strict=True))
    ]
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    arguments = ("benchmark", "rewardbench", reward_model, "--data", rows, "--json")
    expected = in_one(capsys, *arguments)
    assert in_two(*arguments)[:2] == (0, expected)


@pytest.mark.slow
def test_a_killed_process_ends_the_run_which_goes_on_alone(
    reward_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The issue's limit is 60 s until the end of all; the rows that were scored until then are kept."""
    rows = tmp_path / "rows.jsonl"
    lines = [{"id": number, "prompt": f"Write about {number}.", "completion": "a poem"} for number in range(1600)]
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    options = ("score", reward_model, "--data", rows, "--batch-tokens", "64", "--output")
    in_one(capsys, *options, one)
    journal = tmp_path / "two.jsonl.partial.journal"
    command = [sys.executable, "-m", "rewardlab.cli", *map(str, options), str(two)]
    run = subprocess.Popen(
        [*command, "--launcher", "ddp", "--processes", "2"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        until = time.monotonic() + TIMEOUT
        while not (journal.exists() and journal.read_bytes().count(b"\n") > 1):
            assert run.poll() is None
            assert time.monotonic() < until
            time.sleep(0.01)
        (second,) = (child for child in psutil.Process(run.pid).children() if child.environ()["RANK"] == "1")
        second.kill()
        _, told = run.communicate(timeout=60)
    finally:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
            run.communicate()
    assert run.returncode in (1, 128 + signal.SIGKILL)
    assert "process 1" in told
    assert not two.exists()
    assert json.loads(in_one(capsys, *options, two, "--json"))["resumed_rows"] >= 512
    assert two.read_bytes() == one.read_bytes()


@pytest.mark.slow
def test_an_error_is_told_once(rows: Path) -> None:
    status, out, err = in_two("evaluate", "nowhere", "--data", rows)
    assert (status, out) == (1, "")
    assert err.count("error: ") == 1

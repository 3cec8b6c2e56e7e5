"""The worker in a process of its own, spoken to over a socket pair as the server does."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.serving import faulty_scorer

from rewardlab.errors import CheckpointError, ConfigError, ContractError
from rewardlab.scoring.scorer import Scorer
from rewardlab.serving.items import Conversation, Ids, ItemRefusal, ItemScore
from rewardlab.serving.messages import Alive, Batch, Done, Loaded, LoadFailed, Sleep, Stop, WakeUp, WorkerSpec
from rewardlab.serving.worker import load

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 90.0
"""Longest that anything may take here; on a quiet machine a start is three seconds, and the rest is nothing."""


@dataclass
class Worker:
    """A worker process and our end of its socket."""

    process: subprocess.Popen[bytes]
    connection: Connection
    log: Path

    def receive(self) -> Any:
        assert self.connection.poll(SECONDS), self.log.read_text()
        return self.connection.recv()

    def done(self) -> Done:
        """The next that is done; what comes before only says that it lives."""
        while isinstance(message := self.receive(), Alive):
            pass
        assert isinstance(message, Done)
        return message


@contextmanager
def started(spec: WorkerSpec, log: Path) -> Iterator[Worker]:
    ours, theirs = socket.socketpair()
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "rewardlab.serving.worker", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdout=file,
            stderr=file,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    theirs.close()
    worker = Worker(process, Connection(ours.detach()), log)
    try:
        worker.connection.send(spec)
        yield worker
    finally:
        process.kill()
        process.wait()
        worker.connection.close()


def test_a_worker_from_its_start_to_its_end(reward_model: Path, scorer: Scorer, tmp_path: Path) -> None:
    """Loaded, batches in order with their cost, sleep, signals that are the server's, faults, no texts in the log."""
    opener = "tests.serving.faulty_scorer:open_scorer"
    with started(WorkerSpec(str(reward_model), name="rm", opener=opener), tmp_path / "log") as worker:
        loaded = worker.receive()
        assert isinstance(loaded, Loaded)
        assert (loaded.model.name, loaded.model.path) == ("rm", str(reward_model))
        assert loaded.model.fingerprint == scorer.fingerprint
        assert loaded.seconds > 0

        for number in (signal.SIGINT, signal.SIGTERM):
            worker.process.send_signal(number)
        texts = ["the sea", "and the wind", "", "x"]
        for number, text in enumerate(texts):
            worker.connection.send(Batch(number, (Conversation("Hi", text), Ids(()))))
        assert isinstance(worker.receive(), Alive)
        for number, expected in enumerate(scorer.score(["Hi"] * 4, texts)):
            done = worker.done()
            assert done.number == number
            score, refused = done.results
            assert isinstance(score, ItemScore)
            assert score.score == pytest.approx(expected, abs=1e-5)
            assert isinstance(refused, ItemRefusal)
            assert done.work.tokens_given == done.work.tokens_computed == score.num_tokens

        worker.connection.send(Sleep())
        assert worker.receive() == Alive()
        worker.connection.send(WakeUp())
        assert worker.receive() == Alive()

        secret = f"a secret {faulty_scorer.RAISE}"
        worker.connection.send(Batch(9, (Conversation("Hi", secret), Conversation("Hi", "x"))))
        failed, scored = worker.done().results
        assert failed == ItemRefusal("failed", "scoring it raised RuntimeError", "the server's log says where")
        assert isinstance(scored, ItemScore)

        worker.connection.send(Stop())
        assert worker.process.wait(SECONDS) == 0
        log = worker.log.read_text()
        assert "scoring an item raised RuntimeError" in log
        assert "faulty_scorer.py" in log
        assert "secret" not in log


def test_it_ends_with_its_server_in_the_midst_of_a_forward(reward_model: Path, tmp_path: Path) -> None:
    opener = "tests.serving.faulty_scorer:open_scorer"
    with started(WorkerSpec(str(reward_model), opener=opener), tmp_path / "log") as worker:
        assert isinstance(worker.receive(), Loaded)
        worker.connection.send(Batch(0, (Conversation("Hi", faulty_scorer.HANG),)))
        time.sleep(0.5)
        assert worker.process.poll() is None
        worker.connection.close()
        assert worker.process.wait(5) == 0


def test_it_ends_with_its_server_while_it_loads(tmp_path: Path) -> None:
    with started(WorkerSpec("nowhere", opener="tests.serving.test_worker:hang"), tmp_path / "log") as worker:
        worker.connection.close()
        assert worker.process.wait(SECONDS) == 0


def hang(path: str, **options: Any) -> Scorer:
    """An opener that never returns."""
    time.sleep(3600)
    raise AssertionError


def test_what_cannot_be_loaded_is_told(reward_model: Path, base_model: Path, tmp_path: Path) -> None:
    """Of our own errors the message and the hint, of others the class; no traceback of ours in the log."""
    broken = with_nan(reward_model, tmp_path / "broken")
    missing = WorkerSpec("x", opener="rewardlab.no_such_module:f")
    with (
        started(WorkerSpec(str(broken)), tmp_path / "log-nan") as of_nan,
        started(WorkerSpec(str(base_model)), tmp_path / "log-base") as of_base,
        started(missing, tmp_path / "log-missing") as of_missing,
    ):
        nan, base, none = of_nan.receive(), of_base.receive(), of_missing.receive()
        assert isinstance(nan, LoadFailed)
        assert "NaN or infinite values" in nan.message
        assert nan.hint == "the training run diverged; use an earlier checkpoint"
        assert isinstance(base, LoadFailed)
        assert "without a reward model's head" in base.message
        assert none == LoadFailed("loading raised ModuleNotFoundError: No module named 'rewardlab.no_such_module'")
        assert [each.process.wait(SECONDS) for each in (of_nan, of_base, of_missing)] == [1, 1, 1]
        assert "Traceback" not in of_nan.log.read_text()


def with_nan(source: Path, folder: Path) -> Path:
    """A copy of a checkpoint with one weight that is no number."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("training"))
    weights = load_file(folder / "model.safetensors")
    next(iter(weights.values())).view(-1)[0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


# -- loading, in this process -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def of_others(reward_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reward model as others would have saved it: no contract."""
    folder = tmp_path_factory.mktemp("others") / "rm"
    shutil.copytree(reward_model, folder, ignore=shutil.ignore_patterns("training", "reward_contract.json"))
    return folder


def test_remote_code_is_refused_always(reward_model: Path) -> None:
    with pytest.raises(ConfigError, match="never runs a repository's own Python code"):
        load(WorkerSpec(str(reward_model), {"trust_remote_code": True}))
    assert load(WorkerSpec(str(reward_model), {"trust_remote_code": False, "max_length": 64})).info.max_length == 64


def test_a_scale_that_the_contract_does_not_give_is_refused(of_others: Path, reward_model: Path) -> None:
    load(WorkerSpec(str(reward_model), scale="z"))
    with pytest.raises(ConfigError, match="'z' needs a reference set"):
        load(WorkerSpec(str(of_others), scale="z"))


def test_a_reload_needs_a_contract_that_holds(reward_model: Path, of_others: Path, tmp_path: Path) -> None:
    assert load(WorkerSpec(str(of_others))).info.contract_sha256 is None
    with pytest.raises(CheckpointError, match="has no contract"):
        load(WorkerSpec(str(of_others), require_contract=True))
    moved = tmp_path / "moved"
    shutil.copytree(reward_model, moved, ignore=shutil.ignore_patterns("training"))
    weights = load_file(moved / "model.safetensors")
    weights["score.weight"] = weights["score.weight"] + torch.ones(())
    save_file(weights, moved / "model.safetensors", metadata={"format": "pt"})
    assert load(WorkerSpec(str(moved), {"verify": False})).info.contract_sha256 is not None
    with pytest.raises(ContractError):
        load(WorkerSpec(str(moved), {"verify": False}, require_contract=True))


def test_a_pad_that_ends_texts_is_refused(of_others: Path, tmp_path: Path) -> None:
    """Transformers skips it and reads the token before; vLLM and SGLang read the last."""
    folder = tmp_path / "padded"
    shutil.copytree(of_others, folder)
    config = folder / "config.json"
    scorer = Scorer.from_pretrained(of_others)
    pad, end = scorer.loaded.tokenizer.pad_token_id, scorer.loaded.tokenizer.eos_token_id
    text = config.read_text().replace(f'"pad_token_id": {pad}', f'"pad_token_id": {end}')
    config.write_text(text)
    with pytest.raises(CheckpointError, match=f"the padding token {end} is the token that ends a text"):
        load(WorkerSpec(str(folder)))


def test_labels_are_counted(of_others: Path, tmp_path: Path) -> None:
    folder = tmp_path / "labels"
    shutil.copytree(of_others, folder)
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"LABEL_0"', '"LABEL_0", "1": "LABEL_1"', 1))
    with pytest.raises(CheckpointError, match="2 labels, expected 1"):
        load(WorkerSpec(str(folder)))

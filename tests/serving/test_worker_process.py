"""A worker process is spoken to without blocking, is always reaped, and does not outlive its parent."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from rewardlab.serving.items import Conversation
from rewardlab.serving.messages import Batch, Done, Loaded, LoadFailed, Stop, WorkerSpec
from rewardlab.serving.worker_process import WorkerProcess, exit_in_words

HERE = str(Path(__file__).parent)
SECONDS = 30.0


class Started:
    """A tiny worker and what was heard of it."""

    def __init__(self, path: str = "old", **options: Any) -> None:
        self.said: queue.Queue[Any] = queue.Queue()
        self.ends: queue.Queue[str] = queue.Queue()
        self.process = WorkerProcess(
            WorkerSpec(path, options=options), self.said.put, self.ends.put, module="tiny_worker"
        )

    def hear(self) -> Any:
        return self.said.get(timeout=SECONDS)

    def end(self) -> str:
        return self.ends.get(timeout=SECONDS)


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Started]]:
    monkeypatch.setenv("PYTHONPATH", HERE)
    started: list[Started] = []

    class Kept(Started):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            started.append(self)

    yield Kept
    for one in started:
        one.process.kill()
        with pytest.raises(ProcessLookupError):
            wait_for_end(one.process.pid)


def wait_for_end(pid: int) -> None:
    """Return after a while where it lives on; raise ProcessLookupError once it is gone."""
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        os.kill(pid, 0)
        time.sleep(0.01)


def test_messages_go_there_and_back_and_its_end_is_told_once_and_last(start):
    worker = start()
    assert isinstance(worker.hear(), Loaded)
    worker.process.send(Batch(7, (Conversation("p", "1.5"),)))
    done = worker.hear()
    assert isinstance(done, Done)
    assert (done.number, done.results[0].score) == (7, 1.5)
    worker.process.send(Stop())
    assert worker.end() == "ended with status 0"
    worker.process.send(Stop())  # says nothing: it has ended
    worker.process.kill()
    assert worker.ends.empty()
    assert worker.said.empty()
    with pytest.raises(ProcessLookupError):
        os.kill(worker.process.pid, 0)


def test_what_it_said_before_it_ended_is_heard(start):
    worker = start("broken")
    assert isinstance(worker.hear(), LoadFailed)
    assert worker.end() == "ended with status 1"


def test_a_killed_worker_is_reaped_and_its_signal_named(start):
    worker = start()
    worker.hear()
    os.kill(worker.process.pid, signal.SIGKILL)
    assert worker.end().startswith("was killed by SIGKILL")


def test_a_worker_that_does_not_read_blocks_nobody(start):
    """40 MB into a socket that holds some 200 kB: each send returns at once, and the blocked writer ends with it."""
    worker = start(deaf=True)
    worker.hear()
    batch = Batch(0, (Conversation("p" * 10**6, "1"),))
    begin = time.monotonic()
    for _ in range(40):
        worker.process.send(batch)
    assert time.monotonic() - begin < 1.0
    worker.process.kill()
    assert worker.end() == "was killed by the server"
    assert not worker.process._writer.is_alive()


def test_a_worker_that_says_what_cannot_be_read_is_ended(start, caplog):
    worker = start(garbage=True)
    worker.hear()
    assert worker.end() == "was ended, for a message of it could not be read"
    assert "reading a message of the worker, which is ended, raised UnpicklingError" in caplog.text


def test_a_message_that_cannot_be_sent_ends_the_worker(start, caplog):
    worker = start()
    worker.hear()
    worker.process.send(lambda: None)
    assert worker.end() == "was ended, for a message to it could not be sent"
    assert "sending a message to the worker, which is ended, raised" in caplog.text


def test_a_process_whose_threads_cannot_be_started_does_not_live_on(monkeypatch):
    pids: list[int] = []

    class NoThread(threading.Thread):
        def start(self) -> None:
            if self.name.endswith("-reader"):
                pids.append(int(self.name.split("-")[1]))
                raise RuntimeError("can't start new thread")
            super().start()

    monkeypatch.setattr("threading.Thread", NoThread)
    with pytest.raises(RuntimeError, match="new thread"):
        WorkerProcess(WorkerSpec("old"), print, print, module="tiny_worker")
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)
    until = time.monotonic() + SECONDS
    while any(thread.name == f"worker-{pids[0]}-writer" for thread in threading.enumerate()):
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_worker_does_not_outlive_its_parent():
    """The parent is killed with no chance to say anything; the socket closes, which is enough."""
    code = (
        "import time; from rewardlab.serving.messages import WorkerSpec\n"
        "from rewardlab.serving.worker_process import WorkerProcess\n"
        "worker = WorkerProcess(WorkerSpec('old'), lambda message: print(worker.pid, flush=True), print,"
        " module='tiny_worker')\n"
        "time.sleep(3600)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": HERE}, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until = time.monotonic() + SECONDS
    # Its new parent may be a first process that reaps nobody.
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until
        time.sleep(0.01)


def test_it_inherits_the_environment_but_not_the_folder(start, monkeypatch, tmp_path):
    """A file in the folder where the server was started must not stand in for a library."""
    (tmp_path / "numpy.py").write_text("raise RuntimeError('not numpy')")
    monkeypatch.chdir(tmp_path)
    assert isinstance(start().hear(), Loaded)


def test_a_module_that_is_not_there_is_an_end_like_any_other():
    ends: queue.Queue[str] = queue.Queue()
    WorkerProcess(WorkerSpec("old"), print, ends.put, module="no_such_module")
    assert ends.get(timeout=SECONDS) == "ended with status 1"


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0, "ended with status 0"),
        (3, "ended with status 3"),
        (-11, "was killed by SIGSEGV"),
        (-9, "was killed by SIGKILL, which the system does when memory runs out"),
        (-200, "was killed by signal 200"),
    ],
)
def test_an_end_is_told_in_words(status, words):
    assert exit_in_words(status) == words

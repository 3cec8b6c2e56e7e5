"""The server as a process: how it starts, how it is told to end, and with which status it does. No model, no torch."""

from __future__ import annotations

import contextlib
import http.client
import logging
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rewardlab.errors import RewardLabError
from rewardlab.serving.server import configure_logging, run_server
from rewardlab.serving.settings import ServerSettings

PROGRAM = """
import asyncio, resource, sys
from rewardlab.errors import CheckpointError, RewardLabError
from rewardlab.calibration.reference import reference_statistics
from rewardlab.serving.failures import Overloaded
from rewardlab.serving.guard import Guard
from rewardlab.serving.items import ModelInfo
from rewardlab.serving.metrics import Metrics
from rewardlab.serving.server import configure_logging, run_server
from rewardlab.serving.settings import ServerSettings

mode = sys.argv[1]
given = eval(sys.argv[2])

class Backend:
    state, reason, model, reloads = "loading", "", None, 0

    async def start(self):
        print("start", flush=True)

    def begin_to_end(self):
        print("begin to end", flush=True)

    async def stop(self):
        print("stop", flush=True)

    async def wait_ready(self):
        await asyncio.sleep(3600 if mode == "endless" else 0.05)
        if mode == "broken":
            raise CheckpointError("runs/rm: NaN weights", hint="train it again")
        members = ("a", "b") if mode == "ensemble" else ()
        reference = reference_statistics([0.0, 1.0], "held-out") if mode == "reference" else None
        self.model = ModelInfo(
            "rm", "runs/rm", "abc", None, "sequence", "Tiny", 128, "float32", "cpu", "tree", 512,
            members=members, reference=reference,
        )
        self.state = "ready"

    async def reload(self, path):
        assert path is None
        self.reloads += 1
        if self.reloads == 1:
            raise CheckpointError("runs/rm: NaN weights", hint="train it again")
        if self.reloads == 2:
            raise ValueError("a secret")
        return self.model

    def overload(self, in_progress):
        return Overloaded("too much", retry_after=7) if mode == "busy" else None

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await backend.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await backend.stop()
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["path"].startswith("/slow"):
        await asyncio.sleep(float(scope["path"][5:]))
    body = str(resource.getrlimit(resource.RLIMIT_NOFILE)[0]).encode()
    await send({"type": "http.response.start", "status": 200 if backend.model else 503, "headers": []})
    await send({"type": "http.response.body", "body": body})

backend = Backend()
settings = ServerSettings(port=0, **given)
configure_logging("info")
try:
    run_server(
        Guard(app, settings, Metrics()), backend, settings,
        on_ready=lambda url, model: print("ready", url, model.name, flush=True),
    )
except RewardLabError as error:
    print("error:", type(error).__name__, error.message, flush=True)
    sys.exit(9)
assert not {"torch", "transformers"} & set(sys.modules), "the server's process has loaded torch"
"""


class Running:
    """A server in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []

    def until(self, word: str) -> str:
        """The first line from here on that begins with a word."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.strip())
            if line.startswith(word):
                return line.strip()
        pytest.fail(f"it ended without {word!r}: {self.lines}, {self.process.communicate()}")

    def ready(self) -> int:
        """Wait until it is ready; the port that it took."""
        self.port = int(self.until("ready").split()[1].rpartition(":")[2])
        return self.port

    def get(self, path: str) -> int:
        return self.ask(path)[0]

    def ask(self, path: str) -> tuple[int, bytes]:
        """Status and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()

    def end(self) -> tuple[int, str, str]:
        """Its status and what it said."""
        out, err = self.process.communicate(timeout=15)
        return self.process.returncode, "\n".join([*self.lines, out]), err


@pytest.fixture
def serve() -> Iterator[object]:
    started: list[subprocess.Popen[str]] = []

    def start(mode: str = "ok", **settings: object) -> Running:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, mode, repr(settings)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return Running(process)

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_sigterm_under_load_finishes_what_was_accepted_and_takes_nothing_new(serve) -> None:
    """Before that: as many files may be open as the system allows."""
    server = serve()
    server.ready()
    assert server.ask("/") == (200, str(resource.getrlimit(resource.RLIMIT_NOFILE)[1]).encode())
    statuses: list[int] = []
    clients = [threading.Thread(target=lambda: statuses.append(server.get("/slow1"))) for _ in range(20)]
    for client in clients:
        client.start()
    time.sleep(0.4)
    server.process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    with pytest.raises(OSError):  # noqa: PT011  # refused, or reset where it was still in the backlog
        server.get("/health")
    for client in clients:
        client.join()
    assert statuses == [200] * 20
    status, out, err = server.end()
    assert status == 0
    assert "begin to end\nstop" in out
    assert "Traceback" not in err
    assert err.count(" GET /slow1 200 ") == 20
    assert err.count(" INFO stopping, 20 requests in progress\n") == 1
    assert err.endswith(" INFO stopped\n")


def test_a_signal_to_reload_is_nothing_to_a_server_that_ends(serve) -> None:
    server = serve()
    server.ready()
    client = threading.Thread(target=lambda: server.get("/slow1"))
    client.start()
    time.sleep(0.3)
    for number in (signal.SIGTERM, signal.SIGHUP):
        server.process.send_signal(number)
        time.sleep(0.1)
    client.join()
    status, _, err = server.end()
    assert (status, err.count("SIGHUP")) == (0, 1)
    assert " WARNING SIGHUP: the server is ending\n" in err


def test_it_serves_on_when_nobody_reads_its_log(serve) -> None:
    server = serve()
    server.ready()
    server.process.stderr.close()
    server.process.stderr = None
    assert [server.get("/health") for _ in range(3)] == [200] * 3
    server.process.send_signal(signal.SIGTERM)
    assert server.end()[0] == 0


def test_what_takes_longer_than_the_drain_time_is_told_so(serve) -> None:
    server = serve(drain_s=0.5)
    server.ready()
    statuses: list[int] = []
    client = threading.Thread(target=lambda: statuses.append(server.get("/slow30")))
    client.start()
    time.sleep(0.3)
    server.process.send_signal(signal.SIGINT)
    client.join()
    assert statuses == [503]
    status, out, err = server.end()
    assert (status, "stop" in out) == (0, True)
    assert "Traceback" not in err


def test_a_second_interrupt_ends_at_once(serve) -> None:
    server = serve()
    server.ready()

    def ask() -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            server.get("/slow30")

    client = threading.Thread(target=ask)
    client.start()
    time.sleep(0.3)
    server.process.send_signal(signal.SIGINT)
    time.sleep(0.4)
    assert server.process.poll() is None
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(2) == 130
    client.join()


def test_a_first_model_that_cannot_be_loaded_ends_the_server(serve) -> None:
    status, out, err = serve("broken").end()
    assert (status, err) == (9, "")
    assert "error: CheckpointError runs/rm: NaN weights" in out
    assert "ready" not in out
    assert "stop" in out


def test_while_it_loads_it_listens_and_can_be_told_to_end(serve) -> None:
    server = serve("endless")
    server.until("start")
    server.process.send_signal(signal.SIGTERM)
    status, out, _ = server.end()
    assert (status, "error" in out) == (0, False)


def test_reloading_is_told_and_the_server_lives(serve) -> None:
    server = serve()
    server.ready()
    for told in (
        "SIGHUP: runs/rm: NaN weights\n",
        "SIGHUP: the old model serves on; loading the new one raised ValueError\n",
        "SIGHUP: the model is now rm, fingerprint abc\n",
    ):
        server.process.send_signal(signal.SIGHUP)
        assert server.process.stderr.readline().endswith(told)
        while "ValueError" in told and not server.process.stderr.readline().endswith(", in reload\n"):
            pass  # the way to where it was raised
    assert server.get("/health") == 200
    server.process.send_signal(signal.SIGTERM)
    status, _, err = server.end()
    assert status == 0
    assert "secret" not in err


def test_a_backend_that_has_too_much_to_do_is_asked_before_a_request_is_read(serve) -> None:
    server = serve("busy")
    server.ready()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    with contextlib.closing(connection):
        connection.request("POST", "/v1/rewards", "{}", {"Content-Type": "application/json"})
        response = connection.getresponse()
        assert (response.status, response.headers["Retry-After"]) == (503, "7")
        assert b"too much" in response.read()
    assert server.get("/health") == 200


class Nothing:
    """An application and a backend that must not be reached."""

    def overload(self, in_progress: int) -> None:
        """Never asked."""


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_an_address_in_use_is_told(host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = ServerSettings(host=host, port=port)
        with pytest.raises(RewardLabError, match="cannot listen") as caught:
            run_server(Nothing(), Nothing(), settings, on_ready=print)  # type: ignore[arg-type]
    assert caught.value.message == f"cannot listen on '{host}' port {port}: Address already in use"


@pytest.mark.parametrize("host", ["no-such-host.invalid", "203.0.113.1", "x" * 300, "\udc00"])
def test_an_address_that_is_not_ours_is_told(host: str) -> None:
    with pytest.raises(RewardLabError, match="cannot listen on"):
        run_server(Nothing(), Nothing(), ServerSettings(host=host, port=0), on_ready=print)  # type: ignore[arg-type]


def test_log_lines_have_their_time_and_go_to_stderr_once(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    logger = logging.getLogger("rewardlab.serving")
    before = logger.handlers, logger.propagate, logger.level
    try:
        configure_logging("warning")
        configure_logging("warning")
        logging.getLogger("rewardlab.serving.access").info("not told")
        logging.getLogger("rewardlab.serving.batching").warning("told")
        out, err = capsys.readouterr()
        assert out == ""
        assert err.endswith(" WARNING told\n")
        assert err.count("\n") == 1
    finally:
        logger.handlers, logger.propagate, level = before
        logger.setLevel(level)

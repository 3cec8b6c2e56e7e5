"""The real server and its worker in processes of their own, and plain HTTP to it.

Every post has a connection of its own, as verl's and OpenRLHF's have.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

HOST = "127.0.0.1"
START_SECONDS = 180.0
"""Longest that a start may take; on a quiet machine it is a few."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer.

    Attributes:
        status: HTTP status.
        headers: Headers, names in lower case.
        content: The body.
        seconds: How long it took.
    """

    status: int
    headers: Mapping[str, str]
    content: bytes
    seconds: float

    def json(self) -> Any:
        """The body's JSON."""
        return json.loads(self.content)


class ServerProcess:
    """A server on a free port, started by launch.py beside this file.

    Args:
        model: What to serve.
        opener: ``module:function`` that opens the scorer, of a module beside this file.
        options: Further options of it.
        environment: Further environment variables.
        settings: Fields of ServerSettings.
    """

    def __init__(
        self,
        model: Path,
        *,
        opener: str = "rewardlab.scoring.opening:open_scorer",
        options: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> None:
        here = Path(__file__).resolve().parent
        spec = {"path": str(model), "name": model.name, "opener": opener, "options": dict(options or {})}
        self.process = subprocess.Popen(
            [sys.executable, str(here / "launch.py"), json.dumps(spec), json.dumps(settings)],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(here), **(environment or {})},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.port = 0
        self.talk: list[str] = []
        self._told = threading.Event()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.talk.append(line)
            if not self.port and (found := re.search(r"http://[\w.]+:(\d+)", line)):
                self.port = int(found[1])
                self._told.set()
        self._told.set()

    @property
    def stderr(self) -> str:
        """What it has said so far."""
        return "".join(self.talk)

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            for child in self.children():
                child.kill()
            self.process.kill()
            self.process.wait()
        self._listener.join(10)
        assert self.process.stderr is not None
        self.process.stderr.close()

    def wait_until_ready(self) -> ServerProcess:
        """Return once it has told its address, which it does when its model is loaded."""
        assert self._told.wait(START_SECONDS), f"it told no address:\n{self.stderr}"
        assert self.port, f"it ended without an address:\n{self.stderr}"
        assert self.health() == 200
        return self

    def terminate(self, seconds: float = 60.0) -> int:
        """SIGTERM, then its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def children(self) -> list[psutil.Process]:
        """Its worker, or its workers while one is loaded beside the other."""
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    @property
    def rss_mb(self) -> float:
        """Resident memory of the server's own process, in MB (10^6 bytes)."""
        return psutil.Process(self.process.pid).memory_info().rss / 1e6

    @property
    def num_fds(self) -> int:
        """Open files and sockets of the server's own process."""
        return psutil.Process(self.process.pid).num_fds()

    def request(
        self,
        method: str,
        path: str,
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 60.0,
    ) -> Reply:
        """One request on its own connection."""
        begin = time.perf_counter()
        connection = http.client.HTTPConnection(HOST, self.port, timeout=timeout)
        try:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            content = answer.read()
            named = {name.lower(): value for name, value in answer.getheaders()}
            return Reply(answer.status, named, content, time.perf_counter() - begin)
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Reply:
        """A GET."""
        return self.request("GET", path, headers=headers)

    def post(self, path: str, body: Any, timeout: float = 150.0) -> Reply:
        """A POST of JSON."""
        return self.request("POST", path, json.dumps(body), {"Content-Type": "application/json"}, timeout)

    def post_all(self, path: str, bodies: Sequence[Any], in_flight: int = 32) -> list[Reply]:
        """Many posts at a time; the replies in their order."""
        with ThreadPoolExecutor(in_flight) as pool:
            return list(pool.map(lambda body: self.post(path, body), bodies))

    def health(self) -> int:
        """The status of `/health`; 0 where nobody answers."""
        try:
            return self.get("/health").status
        except OSError:
            return 0

    def metric(self, name: str) -> float:
        """The sum of a Prometheus metric over its labels; 0 of a counter that was never counted up."""
        lines = self.get("/metrics").content.decode().splitlines()
        assert any(line.startswith("# TYPE") and line.split()[2] in name for line in lines), f"no metric {name}"
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if re.match(rf"{name}(\{{.*\}})? ", line))

    def connect(self) -> socket.socket:
        """A bare connection."""
        return socket.create_connection((HOST, self.port), timeout=30)


def wait_for(
    condition: Callable[[], bool], seconds: float, why: Callable[[], str] | str = "it never happened"
) -> float:
    """Wait until something is so; returns how long it took, in seconds."""
    begin = time.perf_counter()
    while not condition():
        waited = time.perf_counter() - begin
        assert waited < seconds, why if isinstance(why, str) else why()
        time.sleep(0.02)
    return time.perf_counter() - begin

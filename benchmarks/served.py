"""A server under test, in a process of its own: started, asked for its figures, stopped."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil
from hammer import HOST


class Server:
    """A server in a process of its own, on a free port.

    Args:
        command: What starts it; it tells its address on stderr.
        threads: Threads of its matrix products.
    """

    def __init__(self, command: Sequence[str], threads: int) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        # A file, for nobody has to read it: a pipe's reader would take time from the load generator.
        self._talk = tempfile.NamedTemporaryFile(suffix=".log")  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, *command], env=environment, stderr=self._talk.fileno(), stdout=subprocess.DEVNULL
        )
        self.port = 0

    def wait_until_ready(self) -> None:
        """Return once `/health` says 200.

        Raises:
            SystemExit: It never does.
        """
        for _ in range(3000):
            talk = Path(self._talk.name).read_text(encoding="utf-8")
            if found := re.search(r"http://[\w.]+:(\d+)", talk):
                self.port = int(found[1])
                with suppress(OSError):
                    self.get("/health")
                    return
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        raise SystemExit(f"error: the server did not start:\n{talk}")

    def get(self, path: str) -> str:
        """The body of an answer."""
        with urllib.request.urlopen(f"http://{HOST}:{self.port}{path}", timeout=30) as answer:
            return str(answer.read().decode())

    def metric(self, name: str) -> float:
        """The sum of a Prometheus metric over its labels."""
        lines = self.get("/metrics").splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if re.match(rf"{name}(\{{.*\}})? ", line))

    def usage(self) -> dict[str, float]:
        """Memory of the server and of its worker in MB (10^6 bytes), and the server's open files."""
        own = psutil.Process(self.process.pid)
        worker = sum(child.memory_info().rss for child in own.children())
        return {"server_mb": own.memory_info().rss / 1e6, "worker_mb": worker / 1e6, "files": own.num_fds()}

    def stop(self) -> None:
        """SIGTERM, and wait until it has ended."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        self._talk.close()

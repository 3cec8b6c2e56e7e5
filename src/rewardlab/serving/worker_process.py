"""A worker process as its parent holds it: started, spoken to without ever blocking, heard, ended and always reaped.

Two threads for each: one writes, so that a worker that does not read cannot stop the server's event loop when the
socket's buffer is full; one reads, and after the last message waits for the process. What is said is
:mod:`rewardlab.serving.messages`' matter; the first message, sent here, is the :class:`WorkerSpec`.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Protocol, TypeAlias

from rewardlab.serving.fault_log import log_fault
from rewardlab.serving.messages import WorkerSpec

logger = logging.getLogger(__name__)

OnMessage: TypeAlias = Callable[[Any], None]
OnExit: TypeAlias = Callable[[str], None]

_EXIT_SECONDS = 5.0
"""How long a process may live on after it has closed its socket."""


class Process(Protocol):
    """What the supervisor needs of a worker process."""

    def send(self, message: object) -> None:
        """Send a message; returns at once, and says nothing when the process has ended."""

    def kill(self) -> None:
        """End it at once; its exit is reported as any other."""


WorkerFactory: TypeAlias = Callable[[WorkerSpec, OnMessage, OnExit], Process]
"""Starts a worker; both functions are called from any thread, ``on_exit`` once and last."""


class WorkerProcess:
    """One worker process.

    It inherits the environment (``OMP_NUM_THREADS`` and the like) and the terminal's process group, but no other file
    than its end of the socket pair and standard error, to which its standard output goes too. When this process ends
    in whatever way, the socket closes and the worker ends as well.

    Args:
        spec: What to load.
        on_message: Called with every message, in a thread of its own.
        on_exit: Called once, after the last message, when the process is gone: how it ended, in words.
        module: What runs in it, given the number of its socket.

    Attributes:
        pid: Its process id.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        on_message: OnMessage,
        on_exit: OnExit,
        *,
        module: str = "rewardlab.serving.worker",
    ) -> None:
        self._on_message, self._on_exit = on_message, on_exit
        self._socket, theirs = socket.socketpair()
        with theirs, contextlib.ExitStack() as on_failure:
            on_failure.callback(self._socket.close)
            # -P: a file torch.py in the folder where the server was started is not torch.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", module, str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=2,
            )
            on_failure.pop_all()
        self._connection = Connection(self._socket.dup().detach())
        self.pid = self._process.pid
        self._outbox: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._outbox.put(spec)
        self._writer = threading.Thread(target=self._write, name=f"worker-{self.pid}-writer", daemon=True)
        self._reader = threading.Thread(target=self._read, name=f"worker-{self.pid}-reader", daemon=True)
        self._end_told = ""  # how it ended, where this process ended it
        try:
            self._writer.start()
            self._reader.start()
        except RuntimeError:  # no thread can be started
            self._process.kill()
            self._process.wait()
            self._outbox.put(None)
            self._socket.close()
            raise

    def send(self, message: object) -> None:
        """Send a message; returns at once, and says nothing when the process has ended.

        Args:
            message: One of :mod:`rewardlab.serving.messages`.
        """
        self._outbox.put(message)

    def kill(self) -> None:
        """End it at once; its exit is reported as any other."""
        self._end("was killed by the server")

    def _end(self, told: str) -> None:
        self._end_told = self._end_told or told
        self._process.kill()  # does nothing where it was reaped: Popen keeps the two apart

    def _write(self) -> None:
        while (message := self._outbox.get()) is not None:
            try:
                self._connection.send(message)
            except OSError:  # it has ended, which the reader tells
                return
            except Exception as error:  # what cannot be pickled: ours, and the worker would be waited for in vain
                log_fault(logger, "sending a message to the worker, which is ended,", error)
                self._end("was ended, for a message to it could not be sent")
                return

    def _read(self) -> None:
        try:
            while True:
                self._on_message(self._connection.recv())
        except (EOFError, OSError):
            pass
        except Exception as error:  # what cannot be unpickled: nothing it says after this can be trusted
            log_fault(logger, "reading a message of the worker, which is ended,", error)
            self._end("was ended, for a message of it could not be read")
        try:
            status = self._process.wait(_EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            status = self._process.wait()
        # The writer may be waiting for a message, or for the worker to read one: both end now.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._outbox.put(None)
        self._writer.join()
        self._connection.close()
        self._socket.close()
        was_ended_here = self._end_told and status == -signal.SIGKILL
        self._on_exit(self._end_told if was_ended_here else exit_in_words(status))


def exit_in_words(status: int) -> str:
    """How a process ended, to follow its name: ``"was killed by SIGKILL ..."``, ``"ended with status 1"``.

    Args:
        status: As :attr:`subprocess.Popen.returncode` has it: negative for signals.
    """
    if status >= 0:
        return f"ended with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    memory = ", which the system does when memory runs out" if name == "SIGKILL" else ""
    return f"was killed by {name}{memory}"

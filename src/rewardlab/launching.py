"""Starting the processes of one run: their environment, and what becomes of all when one ends.

A launcher is a name for what the processes' environment says: which engine accelerate connects them with. One command
is started so many times, each with its number in ``RANK``; the processes find each other by themselves
(``training/processes.py``). Where processes have been started already (torchrun, ``accelerate launch``) nothing is
started.

torch's elastic agent is not used for it: it kills processes 30 seconds after a SIGTERM, which is less than saving a
large model takes, and leaves them running when it is killed itself.

This file knows environments, processes and signals; it knows no command, no model and no torch.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Any

from rewardlab.errors import ConfigError

_DEEPSPEED = {
    "ACCELERATE_USE_DEEPSPEED": "true",
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "auto",
    "ACCELERATE_GRADIENT_CLIPPING": "auto",
    "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": "none",
    "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": "none",
    "ACCELERATE_DEEPSPEED_ZERO3_INIT": "false",
    "ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL": "true",
}

LAUNCHERS: Mapping[str, Mapping[str, str]] = {
    "ddp": {},
    "fsdp2": {
        "ACCELERATE_USE_FSDP": "true",
        "FSDP_VERSION": "2",
        "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
        "FSDP_RESHARD_AFTER_FORWARD": "true",
        "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT",
        "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
        "FSDP_OFFLOAD_PARAMS": "false",
        "FSDP_ACTIVATION_CHECKPOINTING": "false",
    },
    "zero2": {**_DEEPSPEED, "ACCELERATE_DEEPSPEED_ZERO_STAGE": "2"},
    "zero3": {**_DEEPSPEED, "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"},
}
"""What each launcher sets for accelerate: what ``accelerate launch`` sets with ``recipes/distributed/NAME.yaml``."""

SECONDS_TO_END = 20.0
"""How long processes have to end after one has failed, before they are killed."""

_SECONDS_TO_SAVE = 600.0  # that the others have after one has ended on a signal
_POLL_SECONDS = 0.1
_TOLD_BYTES = 8000  # of the stderr of a process that failed
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def launch(launcher: str | None, processes: int | None, arguments: Sequence[str] | None = None) -> int | None:
    """Start this command in several processes, and wait for them.

    Args:
        launcher: A name of :data:`LAUNCHERS`; None where none was asked for.
        processes: How many; by default one for each GPU of this machine.
        arguments: Of the command ``rewardlab``; by default those of this process.

    Returns:
        The exit status of the whole; None where this process is to do the work: no launcher was asked for, or another
        has started this process. Then the environment says the engine.

    Raises:
        ConfigError: No such launcher, no number of processes, or a number that cannot be.
    """
    if launcher is None:
        if processes is not None:
            raise ConfigError(
                f"--processes {processes} without --launcher", hint=f"say how: --launcher {'|'.join(LAUNCHERS)}"
            )
        return None
    if launcher not in LAUNCHERS:
        raise ConfigError(f"unknown launcher {launcher!r}", hint=f"one of {', '.join(LAUNCHERS)}")
    if is_started():
        if processes not in (None, int(os.environ["WORLD_SIZE"])):
            raise ConfigError(
                f"--processes {processes}, but another launcher has started {os.environ['WORLD_SIZE']}",
                hint="leave out --processes",
            )
        if not any(os.environ.get(name) for name in ("ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_FSDP")):
            os.environ.update(LAUNCHERS[launcher])
        return None
    count = num_gpus() if processes is None else processes
    if count < 1:
        raise ConfigError(
            f"--processes {count}" if processes is not None else f"--launcher {launcher}: this machine has no GPU",
            hint="say how many processes to start: --processes 2",
        )
    command = [sys.executable, "-m", "rewardlab.cli", *(sys.argv[1:] if arguments is None else arguments)]
    return run_processes(command, count, LAUNCHERS[launcher])


def is_started() -> bool:
    """Whether a launcher has started this process as one of a run."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def is_first() -> bool:
    """Whether this process talks and writes: alone, or the first of its run."""
    return int(os.environ.get("RANK", "0")) == 0


def num_gpus() -> int:
    """How many NVIDIA GPUs this process may use, without asking torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
    return sum(path.name.removeprefix("nvidia").isdigit() for path in Path("/dev").glob("nvidia*"))


def run_processes(
    command: Sequence[str], count: int, environment: Mapping[str, str], *, seconds_to_end: float = SECONDS_TO_END
) -> int:
    """Run a command in several processes of this machine until all have ended.

    The first process has this one's stdout and stderr. The others' stdout is dropped, and their stderr is told when one
    of them is the first to fail; then the rest are ended: SIGTERM, and SIGKILL after ``seconds_to_end``. A SIGTERM or
    SIGINT to this process goes to all, which may take as long as they need to save. When this process is killed, so are
    they (Linux).

    Args:
        command: Program and arguments.
        count: Of processes.
        environment: What is set beside their numbers.
        seconds_to_end: As above.

    Returns:
        0, or the status of the process that failed first; 128 and the signal's number where a signal ended it.
    """
    shared = {
        **environment,
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        # Each would else start as many threads as there are cores.
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(max(1, len(os.sched_getaffinity(0)) // count)),
    }
    group = _Processes([])
    before = {number: signal.signal(number, group.forward) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        dies_with_us = _dies_with_parent()
        for rank in range(count):
            numbered = {**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            group.start(command, numbered, is_first=rank == 0, prepare=dies_with_us)
        return group.wait(seconds_to_end)
    finally:
        group.kill()
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(slots=True)
class _Started:
    process: subprocess.Popen[bytes]
    stderr: IO[bytes] | None


class _Processes:
    """The processes of a run while they run."""

    def __init__(self, started: list[_Started]) -> None:
        self._started = started
        self._signals: set[int] = set()  # that have been passed on

    def start(
        self, command: Sequence[str], environment: Mapping[str, str], *, is_first: bool, prepare: Callable[[], None]
    ) -> None:
        stderr = None if is_first else tempfile.TemporaryFile()  # noqa: SIM115 - closed when all have ended
        process = subprocess.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=None if is_first else subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,  # a Ctrl-C reaches this process alone, and the others through it, once
            preexec_fn=prepare,
        )
        self._started.append(_Started(process, stderr))
        for number in self._signals:  # came while the earlier ones were being started
            process.send_signal(number)

    def forward(self, number: int, frame: FrameType | None) -> None:
        self._signals.add(number)
        self._send(number)

    def wait(self, seconds_to_end: float) -> int:
        status, deadline = 0, None
        while any(one.process.poll() is None for one in self._started):
            if deadline is None:
                status = self._failure()
                # Once the first is done, what was to be written is; nobody waits for long for the others.
                if status or self._started[0].process.poll() == 0:
                    deadline = time.monotonic() + seconds_to_end
                    if status:
                        self._send(signal.SIGTERM)
                elif any(one.process.poll() for one in self._started):
                    # One has heeded a signal: it has saved with the others, or left before there was anything to save,
                    # and who waits for it in an exchange may do so for ever.
                    deadline = time.monotonic() + _SECONDS_TO_SAVE
            elif time.monotonic() > deadline:
                self.kill()
            time.sleep(_POLL_SECONDS)
        return status or self._failure() or self._stop_status()

    def kill(self) -> None:
        for one in self._started:
            if one.process.poll() is None:
                one.process.kill()
        for one in self._started:
            one.process.wait()
            if one.stderr is not None:
                one.stderr.close()
                one.stderr = None

    def _failure(self) -> int:
        """The status of a process that has failed, which is told; 0 where none has.

        After a signal that was passed on, a status which says that it was heeded is no failure.
        """
        heeded = {128 + number for number in (*self._signals, signal.SIGTERM)} if self._signals else set()
        for rank, one in enumerate(self._started):
            code = one.process.poll()
            if not code or self._status(code) in heeded:
                continue
            if one.stderr is not None:
                size = one.stderr.seek(0, os.SEEK_END)
                one.stderr.seek(max(0, size - _TOLD_BYTES))
                sys.stderr.write(one.stderr.read().decode(errors="replace"))
            how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"failed with status {code}"
            sys.stderr.write(f"process {rank} of {len(self._started)} {how}; the others are ended\n")
            sys.stderr.flush()
            return self._status(code)
        return 0

    def _stop_status(self) -> int:
        """The status of the first process, that a signal has stopped or that was done before."""
        return self._status(self._started[0].process.returncode)

    def _send(self, number: int) -> None:
        for one in self._started:
            if one.process.poll() is None:
                one.process.send_signal(number)

    @staticmethod
    def _status(code: int) -> int:
        return 128 - code if code < 0 else code


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port


def _dies_with_parent() -> Callable[[], None]:
    """What a new process does before its program starts, so that it is killed when this one is."""
    if not sys.platform.startswith("linux"):
        return lambda: None
    prctl: Any = ctypes.CDLL(None).prctl  # looked up here: a forked process should do little
    parent = os.getpid()

    def prepare() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it was killed before this
            os._exit(1)

    return prepare

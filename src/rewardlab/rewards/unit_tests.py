"""Unit tests as a reward: the Python code in a completion is run, and what share of its tests it passes is its value.

**This is no sandbox.** The code runs in a process of its own, with a limit on time, memory and file size, in an empty
folder, without this process's environment, and the whole process group is killed at the end. It can still read what
the user can read, use the network, start a process that leaves the group, and, since code and tests share a process,
forge a pass on purpose. Run it in a container without network and secrets wherever the code comes from a model that
learns.

This file knows Python source and processes; POSIX only.
"""

from __future__ import annotations

import ast
import json
import math
import os
import re
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rewardlab.errors import ConfigError, DataError, RewardLabError
from rewardlab.rewards.checks import Check, column_of, completion_text

_FENCE = re.compile(r"```(?:python|py|python3)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL | re.IGNORECASE)
_START_SECONDS = 60.0
_MOST_OUTPUT = 1 << 20
_MOST_FILE_BYTES = 1 << 24

# What the process runs. The verdicts go to a copy of stdout, one letter each behind a word that only this run knows;
# stdout and stderr themselves lead nowhere, so that what the code prints is no verdict and fills no memory.
_RUNNER = """
import json, os, resource, sys

def main():
    job = json.loads(sys.stdin.buffer.read())
    word, code, tests = job["word"], job["code"], job["tests"]
    verdicts = os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    for name, most in job["limits"].items():
        limit = getattr(resource, name)
        hard = resource.getrlimit(limit)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(limit, (most, most))
    os.write(verdicts, f"{word}R\\n".encode())
    space = {"__name__": "__main__"}
    try:
        exec(compile(code, "completion", "exec"), space)
    except BaseException:
        return
    for test in tests:
        try:
            exec(compile(test, "test", "exec"), space)
        except BaseException:
            os.write(verdicts, f"{word}F\\n".encode())
        else:
            os.write(verdicts, f"{word}P\\n".encode())

try:
    main()
finally:
    os._exit(0)
"""


def passes_unit_tests(
    *,
    column: str = "tests",
    timeout_s: float = 10.0,
    memory_mb: int = 1024,
    workers: int | None = None,
    all_or_nothing: bool = False,
) -> Check:
    """A check that runs a completion's code against its row's tests, see the warning at the head of this file.

    The code is the completion's fenced blocks (all of them, in order), or the whole completion where it has none. Code
    and tests run in one process and one namespace, in order, the code as ``__main__``. A test passes if it raises
    nothing. What has not been reached when time or memory is over, or when the code ends the process, has failed.

    Args:
        column: The column with the tests: a list of pieces of Python, one test each; or one text, whose ``assert``
            statements at the top level are the tests and whose other statements run in between (a text without such an
            assert, as HumanEval's ``check(candidate)``, is one test). What has no statement in it (an empty text, a
            comment) proves nothing and is no test. None or no test at all: no verdict.
        timeout_s: Seconds that all tests of one completion may take together, after Python has started.
        memory_mb: Address space of the process, MiB (``RLIMIT_AS``), Python's own included.
        workers: Completions that are run at once; None: one per core.
        all_or_nothing: Give 1 where all tests pass and 0 otherwise, instead of the share that passes.

    Raises:
        ConfigError: Limits that are not positive; another system than POSIX; when called, a column that is not there.
        DataError: When called, tests that are no Python.
        RewardLabError: When called, Python did not start at all, which says nothing about a completion.

    Example:
        >>> check = passes_unit_tests()
        >>> check(prompts=["?"], completions=["def f(x): return x"], tests=[["assert f(1) == 1", "assert f(2) == 4"]])
        [0.5]
    """
    if os.name != "posix":
        raise ConfigError("unit tests need a POSIX system, whose limits they run under", hint="run this in a container")
    if not (timeout_s > 0 and math.isfinite(timeout_s) and memory_mb > 0 and (workers is None or workers > 0)):
        raise ConfigError(f"limits must be > 0, got {timeout_s=}, {memory_mb=}, {workers=}")

    def check(prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        given = column_of(column, columns, len(completions))
        tests = [_tests_of(row, number, column) for number, row in enumerate(given)]
        codes = [_code_of(completion_text(completion)) for completion in completions]

        def verdict(code: str, of_row: list[tuple[str, bool]]) -> float | None:
            if not of_row:
                return None
            passed = _run(code, [source for source, _ in of_row], timeout_s, memory_mb)
            # What runs between the asserts is no test: where it fails, so do the asserts that need it.
            counted = [ok for ok, (_, counts) in zip(passed, of_row, strict=True) if counts]
            share = sum(counted) / len(counted)
            return float(share == 1.0) if all_or_nothing else share

        with ThreadPoolExecutor(max_workers=workers or os.cpu_count() or 1) as pool:
            return list(pool.map(verdict, codes, tests))

    check.__name__ = "passes_unit_tests"
    return check


def _code_of(text: str) -> str:
    blocks = _FENCE.findall(text)
    return "\n\n".join(blocks) if blocks else text


def _tests_of(row: Any, number: int, column: str) -> list[tuple[str, bool]]:
    """The pieces to run in order, each with whether it counts as a test."""
    pieces = [row] if isinstance(row, str) else [] if row is None else row
    where, hint = f"row {number}: its column {column!r}", "tests are a text, or a list of texts, of Python statements"
    if not isinstance(pieces, list | tuple) or not all(isinstance(piece, str) for piece in pieces):
        raise DataError(f"{where} holds what is no text: {str(row)[:80]}", hint=hint)
    try:
        parsed = [ast.parse(piece).body for piece in pieces]
        if isinstance(row, str) and any(isinstance(statement, ast.Assert) for statement in parsed[0]):
            return [(ast.unparse(statement), isinstance(statement, ast.Assert)) for statement in parsed[0]]
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:  # the last two: nested too deeply
        raise DataError(f"{where} holds what is no Python: {error or type(error).__name__}", hint=hint) from error
    return [(piece, True) for piece, statements in zip(pieces, parsed, strict=True) if statements]


def _run(code: str, tests: list[str], timeout_s: float, memory_mb: int) -> list[bool]:
    """Which tests passed, one entry each."""
    word = os.urandom(16).hex()
    limits = {
        "RLIMIT_AS": memory_mb << 20,
        "RLIMIT_CPU": math.ceil(timeout_s) + 1,
        "RLIMIT_FSIZE": _MOST_FILE_BYTES,
        "RLIMIT_CORE": 0,
    }
    job = json.dumps({"word": word, "code": code, "tests": tests, "limits": limits}).encode()
    with tempfile.TemporaryDirectory(prefix="rewardlab-tests-", ignore_cleanup_errors=True) as folder:
        environment = {"HOME": folder, "TMPDIR": folder, "LANG": "C.UTF-8"}  # no tokens, no paths of this process
        Path(folder, ".job").write_bytes(job)
        with (
            open(Path(folder, ".job"), "rb") as source,
            subprocess.Popen(
                [sys.executable, "-I", "-X", "utf8", "-c", _RUNNER],
                stdin=source,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=folder,
                env=environment,
                start_new_session=True,
            ) as process,
        ):
            Path(folder, ".job").unlink()  # open in the process, and in no folder that the code sees
            try:
                verdicts = _read(process, word.encode(), len(tests), timeout_s)
            finally:
                # The group outlives its leader where the code left children behind.
                try:
                    os.killpg(process.pid, signal.SIGKILL)
                except (ProcessLookupError, PermissionError):
                    process.kill()
    if verdicts is None:
        raise RewardLabError(
            f"Python did not start within {_START_SECONDS:g} s under memory_mb={memory_mb}",
            hint="raise memory_mb; look whether this machine can start processes at all",
        )
    return verdicts


def _read(process: subprocess.Popen[bytes], word: bytes, count: int, timeout_s: float) -> list[bool] | None:
    """The verdicts that came in time, the rest failed; None where the process never said that it was ready."""
    assert process.stdout is not None
    received, ready = b"", False
    deadline = time.monotonic() + _START_SECONDS
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while received.count(b"\n") <= count and len(received) < _MOST_OUTPUT:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                break
            chunk = os.read(process.stdout.fileno(), 65536)
            if not chunk:
                break
            received += chunk
            if not ready and received.startswith(word + b"R\n"):
                ready, deadline = True, time.monotonic() + timeout_s
    if not ready:
        return None
    lines = received.split(b"\n")[1 : count + 1]
    return [number < len(lines) and lines[number] == word + b"P" for number in range(count)]

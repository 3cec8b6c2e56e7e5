"""The log has one line for each event, whatever is logged, and a server needs no reader of it."""

from __future__ import annotations

import errno
import logging
import re
import subprocess
import sys

import pytest

from rewardlab.serving.standard_streams import StandardError, unread_is_no_fault


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n", "\x0b", "\x85", "\u2028"])
def test_no_message_can_forge_a_line_or_steer_a_terminal(capsys: pytest.CaptureFixture[str], end: str) -> None:
    record = logging.LogRecord("some", logging.WARNING, "", 0, "of %s", (f"x{end}2026-01-01 INFO forged\x1b[2J",), None)
    StandardError().handle(record)
    lines = capsys.readouterr().err.splitlines()
    dated = [line for line in lines if re.match(r"[0-9]{4}-", line)]
    assert len(dated) == 1
    assert " WARNING of x" in dated[0]
    assert "\\x1b[2J" in lines[-1]


CLOSED = """
import os, socket
from rewardlab.serving.standard_streams import open_standard_streams
open_standard_streams()
assert socket.socket().fileno() > 2
os.write(2, b"lost")
"""


def test_what_was_closed_is_opened_on_the_null_device() -> None:
    command = f"exec '{sys.executable}' -c '{CLOSED}' <&- >&- 2>&-"
    assert subprocess.run(["/bin/sh", "-c", command], timeout=30).returncode == 0


UNREAD = """
import logging, os, sys
from rewardlab.serving.standard_streams import StandardError, unread_is_no_fault
if sys.argv[1] == "log":
    logging.getLogger().handlers = [StandardError()]
    for _ in range(2):
        logging.error("a line")
else:
    for _ in range(2):
        with unread_is_no_fault():
            print("a line", file=sys.stderr)
"""


@pytest.mark.parametrize("way", ["log", "print"])
def test_a_reader_that_has_gone_is_no_failure_at_the_end_either(way: str) -> None:
    """Python's own status would be 120: it tries to write once more."""
    process = subprocess.Popen([sys.executable, "-c", UNREAD, way], stderr=subprocess.PIPE, stdin=subprocess.PIPE)
    assert process.stderr is not None
    process.stderr.close()
    process.stderr = None
    process.communicate(timeout=30)
    assert process.returncode == 0


def test_a_full_disk_does_not_silence_the_log_for_ever(capfd: pytest.CaptureFixture[str]) -> None:
    with unread_is_no_fault():
        raise OSError(errno.ENOSPC, "no space")
    print("told", file=sys.stderr, flush=True)
    assert capfd.readouterr().err == "told\n"

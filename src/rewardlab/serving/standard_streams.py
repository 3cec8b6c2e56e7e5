"""What the server writes to standard error, which may have no reader, or none any more: it serves on without one."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import sys
from collections.abc import Iterator
from typing import Any

_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]")


def open_standard_streams() -> None:
    """Open the null device in the place of what was closed when the process was started.

    Else the next socket would take its number, and what the worker writes to standard error would go there.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


@contextlib.contextmanager
def unread_is_no_fault() -> Iterator[None]:
    """Around what writes to standard error: a write that fails is no fault of the server."""
    try:
        yield
    except OSError as error:
        drop_unread(error)


def drop_unread(error: BaseException | None) -> None:
    """Throw away what is written to standard error from now on, where a write has failed since its reader is gone.

    Else what was not written would be tried once more when the process ends, and its status would be a failure.

    Args:
        error: What the write raised.
    """
    if isinstance(error, OSError) and error.errno in (errno.EPIPE, errno.EIO):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        os.close(null)


class StandardError(logging.StreamHandler[Any]):
    """Writes the log to standard error, a line each with its time; no message can forge another one's line."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(_Formatter("%(asctime)s %(levelname)s %(message)s"))

    def handleError(self, record: logging.LogRecord) -> None:
        """A record could not be written."""
        error = sys.exception()
        if isinstance(error, OSError):
            drop_unread(error)
        else:
            super().handleError(record)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """As ever, but with control characters escaped, and every line but the first indented."""
        return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], super().format(record)).replace("\n", "\n    ")

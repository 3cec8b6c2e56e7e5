"""What a machine does to any command: a full disk, a folder that is read-only, no memory, a reader that left.

Such an error is no bug of ours, wherever it comes from: it is told in one line, with what helps. This file knows how
the system and the libraries below us word such errors; it does not know the commands.
"""

from __future__ import annotations

import errno
import os
import re
import select
import sys
import traceback

from rewardlab.errors import first_line

_FREE = "make room and run the command again; what was there before is as it was"
_RIGHTS = "give a place that you may write to, or run as a user who may"
_HINTS = {
    errno.ENOSPC: _FREE,
    errno.EDQUOT: _FREE,
    errno.EFBIG: "raise the limit on the size of files (ulimit -f), or write to another disk",
    errno.EROFS: "give a place that can be written to",
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EIO: "the disk or the network drive fails; look at the system's log",
    errno.ESTALE: "the network drive was mounted again; run the command again",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENFILE: "this machine has too many files open; end something else",
    errno.ENOMEM: "end something else on this machine, or run on one with more memory",
    errno.EAGAIN: "raise the limit on processes (ulimit -u), or end something else",
    errno.EBADF: "it is closed; send it to a file or a pipe",
    errno.ENOENT: "was it removed while the command ran? Put it back and run the command again",
}
# What can come from anywhere below us, so that an error that another library made of it is still the machine's.
_RESOURCES = {*_HINTS} - {errno.ENOENT, errno.EAGAIN, errno.EPERM, errno.EBADF}
_MEMORY = "give less at once (--batch-tokens 2048), a smaller --dtype (bfloat16), or a machine with more memory"
_OURS = {errno.EBADF, errno.EINVAL}  # only a bug does such a thing
_SQLITE = re.compile(r"disk is full|readonly database|disk I/O error|unable to open database file|database is locked")


def explained(error: BaseException) -> tuple[str, str] | None:
    """The message and the hint for an error that is the machine's; None where it is not, and so a bug.

    Args:
        error: What escaped a command.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return None if error.errno in _OURS and not _is_printing(error) else _of_system(error)
    if _is_out_of_memory(error):
        first = (str(error).strip().splitlines() or [""])[0]
        return f"not enough memory{f': {first}' if first else ''}", _MEMORY
    if found := re.search(r"\(os error (\d+)\)", str(error)):  # safetensors and tokenizers, which are written in Rust
        return _told(int(found[1]), str(error).removesuffix(found[0]).strip())
    if type(error).__module__ == "sqlite3" and (found := _SQLITE.search(str(error))):
        return f"{error}", _FREE if "full" in found[0] else _RIGHTS
    # torch.save makes a RuntimeError of its own of what the file said.
    below = error.__cause__ or error.__context__
    if isinstance(error, RuntimeError) and isinstance(below, OSError) and below.errno in _RESOURCES:
        return _of_system(below)
    if isinstance(error, RuntimeError) and "PytorchStreamWriter failed" in str(error):
        return f"a file cannot be written: {first_line(error)}", _FREE
    return None


def unread(error: BaseException) -> bool:
    """Whether an error is that nobody reads standard output or standard error any more, as in ``rewardlab ... | head``.

    Such a stream is silenced: Python would fail once more when it closes it at the end. A pipe to anything else that
    breaks, such as a connection, is a fault that must be told.
    """
    if isinstance(error, SystemExit):  # what typer and rich make of every broken pipe; rich has silenced its stream
        if not isinstance(error.__context__, BrokenPipeError):
            return False
        by_rich = _raised_in(error) == "rich.console"
    elif isinstance(error, BrokenPipeError):
        by_rich = False
    else:
        return False
    left = [number for number in (1, 2) if _reader_left(number)]
    for number in left:
        silence(number)
    return by_rich or bool(left)


def _reader_left(number: int) -> bool:
    watch = select.poll()
    try:
        watch.register(number, 0)  # errors alone, which poll always tells
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in watch.poll(0))
    except (OSError, ValueError):
        return False


def open_standard_streams() -> None:
    """Put something in the place of a standard stream that was closed when the process was started.

    Else the next file would take its number, and get what is written to the stream. What is told is thrown away; data
    that nobody can get is an error, so a closed standard output refuses to be written to.
    """
    for number, flags in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, flags)  # takes the lowest number that is free: this one
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115


def silence(number: int) -> None:
    """Throw away what a stream still holds and gets."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, number)
    os.close(null)


def _of_system(error: OSError) -> tuple[str, str]:
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    if not names and _is_printing(error):  # were it standard error, nobody would read this
        names = ["standard output"]
        silence(1)
    return _told(error.errno or 0, " -> ".join(names))


def _is_printing(error: BaseException) -> bool:
    return _raised_in(error).startswith(("rewardlab.cli.", "rich.", "typer."))


def _raised_in(error: BaseException) -> str:
    """The module whose code raised an error; empty where it is unknown."""
    *_, module = ("", *(frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)))
    return str(module)


def _told(number: int, where: str) -> tuple[str, str]:
    words = os.strerror(number)
    # Rust's errors say it themselves.
    message = where if words in where else f"{where}: {words}" if where else words
    return message, _HINTS.get(number, "")


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError):
        return True
    # torch.OutOfMemoryError, by its name: what was never imported cannot have raised it. The CPU's allocator has none.
    names = {kind.__name__ for kind in type(error).__mro__}
    return "OutOfMemoryError" in names or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))

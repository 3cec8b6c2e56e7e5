"""Files that are whole or not there: written beside, made safe on disk, then renamed over the old one at once.

A kill, a full disk or a power cut at any moment leaves the file that was there before, or the new one. This file knows
bytes and names; it does not know what is in them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def write_safely(path: str | Path, content: str | bytes) -> None:
    """Replace a file's content at once; text is written as UTF-8.

    Raises:
        OSError: It cannot be written, and what was there before still is.
    """
    with written_safely(path) as beside:
        beside.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def written_safely(path: str | Path) -> Iterator[Path]:
    """A name beside a file to write to; it takes the file's place when the context ends without an error.

    Example:
        >>> with written_safely("scores.parquet") as beside:  # doctest: +SKIP
        ...     table.to_parquet(beside)

    Raises:
        OSError: It cannot be written, and what was there before still is.
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")  # two processes do not write into one
    try:
        yield beside
        replace_safely(beside, path)
    except BaseException as error:
        with suppress(OSError):
            beside.unlink()
        if isinstance(error, OSError) and error.filename in (None, str(beside)):
            error.filename, error.filename2 = str(path), None  # a write does not say where, and nobody knows beside
        raise


def replace_safely(source: Path, target: Path) -> None:
    """Rename a file over another, or a folder to a name that is free; safe on disk before and after.

    A folder's files must have been made safe before (:func:`sync_tree`).
    """
    if source.is_file():
        sync(source)
    os.replace(source, target)
    sync(target.parent)


def sync(path: Path) -> None:
    """Make a file's content, or a folder's list of names, safe on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Make everything in a folder safe on disk."""
    for path in sorted(folder.rglob("*"), reverse=True):
        sync(path)
    sync(folder)

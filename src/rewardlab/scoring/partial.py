"""The unfinished output of a long run: finished chunks, safe on disk, and a journal that says what they belong to.

A kill at any moment leaves at most a torn tail, which the next run of the same command cuts off. This file knows bytes,
checksums and renames; it knows nothing of what the lines say. It needs a POSIX system (``flock``).
"""

from __future__ import annotations

import fcntl
import json
import os
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rewardlab.errors import ConfigError


class Partial:
    """``OUT.partial``, the lines of the finished chunks, and its journal.

    The journal's first line is the header; each further line is one chunk: its rows, bytes, checksum and counts. A
    chunk enters the journal only when its lines are safe on disk.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self.rows_path = output.with_name(output.name + ".partial")
        self.journal_path = output.with_name(output.name + ".partial.journal")
        self.chunks: list[dict[str, Any]] = []

    def is_complete(self) -> bool:
        """Whether a run was killed after its last chunk, while it put the output in its place."""
        header, chunks = self._read_journal()
        return header is not None and sum(chunk["rows"] for chunk in chunks) == header["rows"]

    def total(self, count: str) -> int:
        """The sum of one count over the finished chunks."""
        return sum(chunk[count] for chunk in self.chunks)

    def reasons(self) -> Counter[str]:
        """Why rows of the finished chunks have no score."""
        return sum((Counter(chunk["reasons"]) for chunk in self.chunks), Counter())

    @contextmanager
    def opened(self, header: Mapping[str, Any], *, restart: bool) -> Iterator[Partial]:
        """Take up what an earlier run of the same command left; alone, for as long as the context lasts."""
        if not restart and self.output.exists() and not self.rows_path.exists() and self.is_complete():
            found, chunks = self._read_journal()
            if found == header:  # killed when the output was in its place already: the journal is all that is left
                self.chunks = chunks
                yield self
                return
        self.output.parent.mkdir(parents=True, exist_ok=True)
        with open(self.rows_path, "ab") as self._rows:
            _lock(self.rows_path, self._rows.fileno())
            if not restart:
                self._take_up(header)
            self._rows.truncate(self.total("bytes"))
            beside = self.journal_path.with_name(self.journal_path.name + ".new")
            beside.write_bytes(b"".join(map(_json_line, (header, *self.chunks))))
            replace_safely(beside, self.journal_path)
            with open(self.journal_path, "ab") as self._journal:
                yield self

    def append(self, rows: Sequence[Mapping[str, Any]], counts: Mapping[str, Any]) -> None:
        """Make one chunk safe on disk: first its lines, then its line in the journal."""
        data = b"".join(map(_json_line, rows))
        chunk = {"rows": len(rows), "bytes": len(data), "crc32": zlib.crc32(data), **counts}
        for file, content in ((self._rows, data), (self._journal, _json_line(chunk))):
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        self.chunks.append(chunk)

    def _take_up(self, header: Mapping[str, Any]) -> None:
        """Keep the leading chunks that are on disk as the journal says, if they belong to this command."""
        throw_away = "or throw its rows away with --restart"
        found, chunks = self._read_journal()
        if found is None:
            if self.rows_path.stat().st_size:
                raise ConfigError(f"{self.rows_path} is there without its journal", hint=f"move it, {throw_away}")
            return
        differences = [
            f"{key} was {found.get(key)!r}, is now {header.get(key)!r}"
            for key in dict.fromkeys((*header, *found))
            if found.get(key) != header.get(key)
        ]
        if differences:
            raise ConfigError(
                f"{self.rows_path} is left of another command: {'; '.join(differences)}",
                hint=f"repeat that command to finish it, {throw_away}",
            )
        with open(self.rows_path, "rb") as rows:
            for chunk in chunks:
                data = rows.read(chunk["bytes"])
                if len(data) < chunk["bytes"] or zlib.crc32(data) != chunk["crc32"]:
                    break
                self.chunks.append(chunk)

    def _read_journal(self) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
        """Header and chunks; a torn last line is left out."""
        if not self.journal_path.exists():
            return None, []
        header, *chunks = map(json.loads, self.journal_path.read_bytes().split(b"\n")[:-1])
        return header, chunks


def _json_line(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, allow_nan=False) + "\n").encode()


def _lock(path: Path, descriptor: int) -> None:
    """Keep a second process from writing the same rows; the system lets go of the lock however this one ends."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError(f"another process is writing {path}", hint="wait for it, or give another output") from None
    except OSError:
        pass  # a file system without locks; two runs at once are then the user's to avoid


def replace_safely(source: Path, target: Path) -> None:
    """Rename a file over another, safe on disk before and after."""
    with open(source, "rb") as file:
        os.fsync(file.fileno())
    os.replace(source, target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)

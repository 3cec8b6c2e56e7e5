"""The unfinished output of a long run: finished chunks, safe on disk, and a journal that says what they belong to.

A kill at any moment leaves at most a torn tail, which the next run of the same command cuts off. Before a run puts
files in their places the journal says which, so that a later run knows which of those that are there are its own. This
file knows bytes, checksums and renames; it knows nothing of what the lines say. It needs a POSIX system (``flock``).
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import zlib
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from rewardlab.errors import ConfigError, RewardLabError
from rewardlab.files import replace_safely

INTERNAL = (".partial", ".partial.journal", ".partial.journal.new", ".partial.new", ".quarantine.jsonl")
"""Endings of the files that a run keeps beside an output; :func:`beside` is the one that becomes the output."""

INDEX = "index.jsonl"
"""The file of a folder of parts that names them, one line each, with the rows that each has."""

_PART = re.compile(r"\.?part-\d{5,}\.(jsonl|parquet)(\.\d+\.new)?")

_THROWN_AWAY = "of_rows_thrown_away"
_UNWRITABLE = "name another place, or make that one writable"


class Partial:
    """``OUT.partial``, the lines of the finished chunks, and its journal.

    The journal's first line is the header; each further line is one chunk: its rows, bytes, checksum and counts. A
    chunk enters the journal only when its lines are safe on disk. Further lines name files that were about to be put in
    their places; those of rows that have been thrown away are marked so, for the files may be there still.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self.rows_path = output.with_name(output.name + ".partial")
        self.journal_path = output.with_name(output.name + ".partial.journal")
        self.chunks: list[dict[str, Any]] = []
        self._placing: list[dict[str, Any]] = []

    def require_free(self, path: Path, *, overwrite: bool = False) -> None:
        """Refuse a file that is there, unless it may be overwritten or an interrupted run has put it there.

        Before it refuses, what a finished run has left behind is removed: no later run will come to do so.

        Raises:
            ConfigError: It is there.
        """
        if overwrite or not path.exists():
            return
        if not any(self._name(path) in line["placing"] for line in self._read_journal()[2]):
            self._remove_finished_rows()
            raise ConfigError(f"the output {path} exists already", hint="give another output, or --overwrite")

    def place(self, paths: Sequence[Path], *, overwrite: bool = False) -> None:
        """Note, when all chunks are there, which files are now put in their places.

        Raises:
            ConfigError: One has appeared meanwhile.
        """
        for path in paths:
            self.require_free(path, overwrite=overwrite)
        line = {"placing": [self._name(path) for path in paths]}
        if line not in self._placing:
            _append(self._journal, _json_line(line))
            self._placing.append(line)

    def total(self, count: str) -> int:
        """The sum of one count over the finished chunks."""
        return sum(chunk[count] for chunk in self.chunks)

    def reasons(self) -> Counter[str]:
        """Why rows of the finished chunks have no score."""
        return sum((Counter(chunk["reasons"]) for chunk in self.chunks), Counter())

    @contextmanager
    def opened(self, header: Mapping[str, Any], *, restart: bool) -> Iterator[Partial]:
        """Take up what an earlier run of the same command left; alone, for as long as the context lasts."""
        if not restart and self.output.exists() and not self.rows_path.exists():
            found, chunks, placing = self._read_journal()
            # Killed when the rows had become the output: only the journal is left.
            if found == header and placing and _THROWN_AWAY not in placing[-1]:
                self.chunks = chunks
                yield self
                return
        self.output.parent.mkdir(parents=True, exist_ok=True)
        with open(self.rows_path, "ab") as self._rows:
            _lock(self.rows_path, self._rows.fileno())
            if restart:
                self._placing = _of_thrown_away(self._read_journal()[2])
            else:
                self._take_up(header)
            self._rows.truncate(self.total("bytes"))
            self._write_journal(header)
            with open(self.journal_path, "ab") as self._journal:
                yield self

    def append(self, rows: Sequence[Mapping[str, Any]], counts: Mapping[str, Any]) -> None:
        """Make one chunk safe on disk: first its lines, then its line in the journal."""
        data = b"".join(map(_json_line, rows))
        chunk = {"rows": len(rows), "bytes": len(data), "crc32": zlib.crc32(data), **counts}
        _append(self._rows, data)
        _append(self._journal, _json_line(chunk))
        self.chunks.append(chunk)

    def _write_journal(self, header: Mapping[str, Any]) -> None:
        """The journal anew, at once: of what was taken up."""
        new = self.journal_path.with_name(self.journal_path.name + ".new")
        try:
            new.write_bytes(b"".join(map(_json_line, (header, *self.chunks, *self._placing))))
            replace_safely(new, self.journal_path)
        except OSError:
            with suppress(OSError):
                new.unlink()
            raise

    def _take_up(self, header: Mapping[str, Any]) -> None:
        """Keep the leading chunks that are on disk as the journal says, if they belong to this command."""
        throw_away = "or throw its rows away with --restart"
        found, chunks, placing = self._read_journal()
        if found is None:
            # Beside an output they are what a run left that was killed when all was done.
            done = self.output.exists() and not self.journal_path.exists()
            if self.rows_path.stat().st_size and not done:
                raise ConfigError(
                    f"{self.rows_path} is there without its journal, or with one that is damaged",
                    hint=f"move it, {throw_away}",
                )
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
                    self._placing = _of_thrown_away(placing)
                    return
                self.chunks.append(chunk)
        self._placing = placing

    def _remove_finished_rows(self) -> None:
        """Remove the rows of a run that was killed when the output was in its place and the journal was gone."""
        if not self.output.exists() or self.journal_path.exists():
            return
        with suppress(OSError, ConfigError), open(self.rows_path, "rb") as rows:  # mostly there are none
            _lock(self.rows_path, rows.fileno())
            if not self.journal_path.exists():  # else another process has just begun
                self.rows_path.unlink()

    def _read_journal(self) -> tuple[dict[str, Any] | None, list[dict[str, Any]], list[dict[str, Any]]]:
        """Header, chunks, and the lines of files that were put in their places; a torn last line is left out.

        Nothing of a journal that is not there or cannot be read: ``--restart`` must come past a damaged one.
        """
        try:
            header, *lines = map(json.loads, self.journal_path.read_bytes().split(b"\n")[:-1])
        except (FileNotFoundError, ValueError):
            return None, [], []
        placing = [line for line in lines if "placing" in line]
        return header, [line for line in lines if "placing" not in line], placing

    def _name(self, path: Path) -> str:
        """A file's name as the journal has it: from the folder of the output, so that the folder can be moved."""
        return os.path.relpath(path.resolve(), self.output.parent.resolve())


def parts_folder(output: Path) -> Path:
    """Where the parts of a file lie that is written in parts, until they become the file."""
    return output.with_name(output.name + ".parts")


def parts_journal(output: Path) -> Path:
    """The journal of a run in parts; there is one while such a run is not finished."""
    return Partial(parts_folder(output) / INDEX).journal_path


def sweep_parts(folder: Path, kept: Container[str] = ()) -> None:
    """Remove parts, and what of them was being written when a worker was killed, but for some."""
    for path in folder.iterdir():
        if _PART.fullmatch(path.name) and path.name not in kept:
            path.unlink()


def remove_parts(folder: Path) -> None:
    """Remove what a run in parts has written into a folder, and the folder if nothing else is in it."""
    partial = Partial(folder / INDEX)
    for path in (partial.journal_path, partial.rows_path):  # the journal first: no run takes up a rest
        path.unlink(missing_ok=True)
    with suppress(OSError):
        sweep_parts(folder)
        folder.rmdir()


def beside(output: Path) -> Path:
    """Where a file is written whole before it becomes ``output`` at once."""
    return output.with_name(output.name + ".partial.new")


def require_apart(paths: Sequence[Path], outputs: Sequence[Path]) -> None:
    """Refuse files that are named like what a run keeps beside its outputs: it would write over them.

    Raises:
        ConfigError: One is.
    """
    kept = {output.with_name(output.name + ending).resolve(): output for output in outputs for ending in INTERNAL}
    for path in paths:
        if (output := kept.get(path.resolve())) is not None:
            raise ConfigError(
                f"{path} is a name for what a run keeps beside its output {output}",
                hint="give one of them another name",
            )


def check_written(read: Sequence[str | Path], written: Mapping[str, Path]) -> None:
    """Refuse files to write that are one another or are read, or that cannot be made; their folders are made.

    Args:
        read: What is read.
        written: What is written, by what it is called.

    Raises:
        ConfigError: A file is named twice or is no plain file, or there is a file where its folder would have to be.
        RewardLabError: Its folder cannot be made or written in: the disk is full or read-only, or it is another user's.
    """
    known = {Path(source).resolve(): f"what is read, {source}" for source in read}
    for name, path in written.items():
        for other, meaning in known.items():
            if path.resolve() == other or (path.exists() and other.exists() and path.samefile(other)):
                raise ConfigError(f"{name}, {path}, is also {meaning}", hint="give it a file of its own")
        known[path.resolve()] = name
        if path.exists() and not path.is_file():
            raise ConfigError(f"{name}, {path}, is no file", hint="name a file")
    paths = list(written.values())
    require_apart([*map(Path, read), *paths], paths)
    for path in paths:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:  # a file is where a folder would have to be
            raise ConfigError(f"the folder of {path} cannot be made: {error}", hint="name another") from error
        except OSError as error:
            raise RewardLabError(f"the folder of {path} cannot be made: {error}", hint=_UNWRITABLE) from error
        if not os.access(path.parent, os.W_OK):
            raise RewardLabError(f"the folder of {path} cannot be written in", hint=_UNWRITABLE)


def _of_thrown_away(placing: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What a journal says of files in their places, once the rows that they were made of are thrown away."""
    names = sorted({name for line in placing for name in line["placing"]})
    return [{"placing": names, _THROWN_AWAY: True}] if names else []


def _append(file: IO[bytes], content: bytes) -> None:
    """Bytes at the end of a file, safe on disk."""
    file.write(content)
    file.flush()
    os.fsync(file.fileno())


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

"""The monitor's memory: one SQLite file to which every run appends a snapshot, and from which later runs learn.

    with History("rm.history") as history:
        stored = history.record(snapshot, test)      # test(history, snapshot) -> findings
        earlier = history.snapshots("fresh", fingerprint=stored.fingerprint)

Two runs at once are serial: :meth:`History.record` takes the write lock before it tests, so each is tested against the
other. A snapshot is stored whole or not at all, also where the process is killed in the middle. Scores come back bit
for bit. This file knows records and SQLite; it knows no model and makes nothing of the figures.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from rewardlab.config import from_record
from rewardlab.documents import parse_json, require_regular
from rewardlab.errors import DataError
from rewardlab.monitoring.snapshots import Finding, Kind, PairScore, Snapshot

APPLICATION_ID = 0x524C4D48  # "RLMH": written into the file's header, so that no other database is taken for a history
SCHEMA_VERSION = 1

_BUSY_S = 30.0  # a run holds the lock while it tests, a second or two with a thousand windows: enough for ten at once
_MOST_RATIO = 100  # hashes and scores hardly become smaller; a thousand would be a bomb
_MAGIC = b"SQLite format 3\0"

_TABLES = (
    "CREATE TABLE snapshots (number INTEGER PRIMARY KEY, kind TEXT NOT NULL, fingerprint TEXT NOT NULL, "
    "record TEXT NOT NULL)",
    "CREATE INDEX snapshots_by_kind ON snapshots (kind, fingerprint)",
    # Apart, so that reading a thousand snapshots does not read their five million scores.
    "CREATE TABLE pairs (number INTEGER PRIMARY KEY REFERENCES snapshots (number), packed BLOB NOT NULL)",
    "CREATE TABLE asked (key TEXT PRIMARY KEY) WITHOUT ROWID",
)


class History:
    """One history file; it is made where there is none.

    Args:
        path: The file. Its folder must exist.

    Raises:
        DataError: The folder is missing; the file is no history of ours, or of a newer version; or it cannot be opened
            or written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        _require_ours(self.path)
        with _told(self.path):
            self._connection = _connect(f"{self.path.resolve().as_uri()}?mode=rwc")
            try:
                self._prepare()
            except BaseException:
                self._connection.close()
                raise

    def __enter__(self) -> History:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file; what was recorded is on the disk already."""
        self._connection.close()

    def record(self, snapshot: Snapshot, test: Callable[[History, Snapshot], Sequence[Finding]]) -> Snapshot:
        """Test a snapshot against those before it and append it, as one step that nobody can come between.

        Args:
            snapshot: What was seen. Its scores and figures must be finite.
            test: What is made of it. It may read this history, in which the snapshot is not yet; what it raises is
                passed on, and nothing is stored.

        Returns:
            The snapshot with its findings and its number, on the disk.

        Raises:
            DataError: It cannot be written.
        """
        return self.append(lambda opened: dataclasses.replace(snapshot, findings=tuple(test(opened, snapshot))))

    def append(self, make: Callable[[History], Snapshot]) -> Snapshot:
        """Make a snapshot of what is in the history and append it, as one step that nobody can come between.

        Args:
            make: Makes it; as ``test`` of :meth:`record`, which is for a snapshot that is seen before it is tested.

        Returns:
            The snapshot with its number, on the disk.

        Raises:
            DataError: It cannot be written.
        """
        with self._writing():
            found = dataclasses.replace(make(self), number=None)
            cursor = self._connection.execute(
                "INSERT INTO snapshots (kind, fingerprint, record) VALUES (?, ?, ?)",
                (found.kind, found.fingerprint, _record_of(found)),
            )
            number = cursor.lastrowid
            if found.pairs:
                self._connection.execute("INSERT INTO pairs VALUES (?, ?)", (number, _packed(found.pairs)))
        return dataclasses.replace(found, number=number)

    def snapshots(
        self, kind: Kind | None = None, *, fingerprint: str | None = None, pairs: bool = True
    ) -> list[Snapshot]:
        """The snapshots, in order of number.

        Args:
            kind: Only those of this kind.
            fingerprint: Only those of this model.
            pairs: With their comparisons; without, a thousand snapshots are read in a moment.

        Raises:
            DataError: The file cannot be read, or is damaged.
        """
        asked: list[tuple[str, str]] = []
        if kind is not None:
            asked.append(("kind = ?", kind))
        if fingerprint is not None:
            asked.append(("fingerprint = ?", fingerprint))
        where = f"WHERE {' AND '.join(condition for condition, _ in asked)}" if asked else ""
        query = f"SELECT number, record FROM snapshots {where} ORDER BY number"
        with _told(self.path):
            rows = self._connection.execute(query, [value for _, value in asked]).fetchall()
        with _decoding(self.path):
            found = [_snapshot_of(number, record) for number, record in rows]
        return [self.with_pairs(one) for one in found] if pairs else found

    def with_pairs(self, snapshot: Snapshot) -> Snapshot:
        """A snapshot of this history with its comparisons, where it was read without.

        Args:
            snapshot: Of :meth:`snapshots`.

        Raises:
            DataError: As there.
        """
        with _told(self.path):
            row = self._connection.execute("SELECT packed FROM pairs WHERE number = ?", (snapshot.number,)).fetchone()
        with _decoding(self.path):
            return dataclasses.replace(snapshot, pairs=_unpacked(row[0])) if row else snapshot

    def asked(self) -> set[str]:
        """The keys of the comparisons that were given out for labelling (:func:`~rewardlab.monitoring.keys`)."""
        with _told(self.path):
            return {key for (key,) in self._connection.execute("SELECT key FROM asked")}

    def labelled_keys(self, *kinds: Kind) -> set[str]:
        """Which comparisons snapshots of these kinds hold labels of, by the keys that :meth:`asked` has.

        Args:
            kinds: Such as ``"fresh", "baseline"``.

        Raises:
            DataError: As :meth:`snapshots`.
        """
        tied = (
            key for kind in kinds for one in self.snapshots(kind, pairs=False) for key in one.metrics.get("tied", ())
        )
        return {*(pair.comparison for pair in self._labelled(kinds)), *tied}

    def labelled_prompts(self, *kinds: Kind) -> set[str]:
        """Which prompts they are of (:func:`~rewardlab.monitoring.keys.prompt_digest`); as :meth:`labelled_keys`."""
        return {pair.prompt for pair in self._labelled(kinds)}

    def add_asked(self, keys: Iterable[str]) -> None:
        """Remember comparisons as given out; those that were already stay.

        Args:
            keys: As :meth:`asked` gives them.

        Raises:
            DataError: They cannot be written.
        """
        with self._writing():
            self._connection.executemany("INSERT OR IGNORE INTO asked VALUES (?)", [(key,) for key in keys])

    def _labelled(self, kinds: Sequence[Kind]) -> Iterator[PairScore]:
        lightly = [one for kind in kinds for one in self.snapshots(kind, pairs=False)]
        each = {(one.kind, one.data_sha256): one for one in lightly}  # a canary holds the same ones every night
        return (pair for one in each.values() for pair in self.with_pairs(one).pairs)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """A transaction that has the write lock from its beginning, and leaves nothing behind where it fails."""
        with _told(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
        try:
            with _told(self.path):
                yield
                self._connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):  # a full disk has rolled back by itself
                self._connection.execute("ROLLBACK")
            raise

    def _prepare(self) -> None:
        """Make a new file a history, in one transaction; then let readers and a writer go beside each other."""
        self._connection.execute("PRAGMA synchronous = FULL")
        if self._marks() == (0, 0):
            self._connection.execute("BEGIN IMMEDIATE")
            if self._marks() == (0, 0):  # else another process has made it meanwhile
                for statement in _TABLES:
                    self._connection.execute(statement)
                self._connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                self._connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            self._connection.execute("COMMIT")
        _require_marks(self.path, *self._marks())
        _use_wal(self._connection)

    def _marks(self) -> tuple[int, int]:
        """Whose database it is, and in which version."""
        names = ("application_id", "user_version")
        application, version = (self._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names)
        return application, version


def read_history(path: str | Path) -> History:
    """A history to read from; it is neither made nor written.

    Args:
        path: The file.

    Raises:
        DataError: There is no such file, it is no history of ours, or it cannot be opened.
    """
    history = History.__new__(History)
    history.path = Path(path)
    if not history.path.exists():
        raise DataError(f"no such file: {path}", hint="`rewardlab monitor DIR --history FILE` makes one")
    _require_ours(history.path)
    # In a folder that cannot be written to SQLite cannot lay the index of the log beside the file, which it needs even
    # to read; where there is no log nobody is writing, and the file can be read as it lies.
    still = not os.access(history.path.resolve().parent, os.W_OK) and not Path(f"{history.path.resolve()}-wal").exists()
    with _told(history.path):
        history._connection = _connect(f"{history.path.resolve().as_uri()}?mode=ro{'&immutable=1' if still else ''}")
        try:
            _require_marks(history.path, *history._marks())
        except BaseException:
            history._connection.close()
            raise
    return history


def _connect(uri: str) -> sqlite3.Connection:
    return sqlite3.connect(uri, uri=True, timeout=_BUSY_S, isolation_level=None)


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch the file to write-ahead logging; the one step for which SQLite does not wait by itself."""
    until = time.monotonic() + _BUSY_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(0.01)


def _require_ours(path: Path) -> None:
    """Refuse a file that is no history before SQLite opens it, which could write into another program's database."""
    if path.is_dir():
        raise DataError(f"{path} is a folder, expected a history file", hint="name a file, such as rm.history")
    if not path.parent.is_dir():
        raise DataError(f"no such folder for the history: {path.parent}", hint="make it first")
    if path.exists():
        require_regular(path, DataError, hint="name a file, such as rm.history")
    being_made = Path(f"{path}-journal").exists()  # looked at first: it is there before the file has content
    try:
        with path.open("rb") as file:
            header = file.read(100)
    except FileNotFoundError:
        return
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}", hint="check its permissions") from error
    if not header or (being_made and header.startswith(_MAGIC)):
        return
    if not header.startswith(_MAGIC) or len(header) < 100:
        raise DataError(
            f"{path} is no history: it is not an SQLite database", hint="name the file that `rewardlab monitor` wrote"
        )
    _require_marks(path, int.from_bytes(header[68:72]), int.from_bytes(header[60:64]))


def _require_marks(path: Path, application: int, version: int) -> None:
    if application != APPLICATION_ID:
        raise DataError(
            f"{path} is no history: it is another program's SQLite database",
            hint="name the file that `rewardlab monitor` wrote, or a new one",
        )
    if version != SCHEMA_VERSION:
        raise DataError(
            f"{path}: a history of version {version}, and this rewardlab reads version {SCHEMA_VERSION}",
            hint="use the rewardlab that wrote it, or a newer one",
        )


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """What SQLite complains about, as an error that names the file."""
    try:
        yield
    except sqlite3.Error as error:
        reason = str(error)
        hints = {
            "locked": "another run is writing to it, for longer than 30 seconds; look for one that hangs",
            "readonly": "check the permissions of the file and of its folder",
            "unable to open": "check the permissions of the file and of its folder",
            "full": "free some space; nothing of this run is stored",
            "malformed": "restore the file from a copy",
            "not a database": "restore the file from a copy",
        }
        hint = next((told for word, told in hints.items() if word in reason), "check the disk")
        raise DataError(f"{path}: the history cannot be used: {reason}", hint=hint) from error


@contextmanager
def _decoding(path: Path) -> Iterator[None]:
    """What is in a history and is no snapshot, as an error that names the file."""
    try:
        yield
    except (ValueError, TypeError, KeyError, AttributeError, zlib.error) as error:
        raise DataError(f"{path}: a snapshot in it is damaged: {error}", hint="restore the file from a copy") from error


def _record_of(snapshot: Snapshot) -> str:
    """Everything but number and comparisons, as JSON; Python writes floats so that they are read back exactly."""
    fields = {
        field.name: getattr(snapshot, field.name)
        for field in dataclasses.fields(snapshot)
        if field.name not in ("number", "pairs", "findings")
    }
    fields["findings"] = [finding.to_dict() for finding in snapshot.findings]
    return json.dumps(fields, allow_nan=False, default=_plain)


def _plain(value: Any) -> Any:
    """A mapping that is no dict, as one."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is no JSON value")


def _packed(pairs: Sequence[PairScore]) -> bytes:
    """The comparisons by column, compressed."""
    columns = [list(column) for column in zip(*(dataclasses.astuple(pair) for pair in pairs), strict=True)]
    return zlib.compress(json.dumps(columns, allow_nan=False).encode("utf-8", "surrogatepass"))


def _unpacked(packed: bytes) -> tuple[PairScore, ...]:
    unpacker = zlib.decompressobj()
    unpacked = unpacker.decompress(packed, max(1 << 20, _MOST_RATIO * len(packed)))
    if not unpacker.eof:
        raise ValueError("the comparisons are cut, or inflate to more than comparisons can")
    columns = parse_json(unpacked.decode("utf-8", "surrogatepass"))
    names = [field.name for field in dataclasses.fields(PairScore)]
    if not isinstance(columns, list) or not all(isinstance(column, list) for column in columns):
        raise ValueError("the comparisons are no list of columns")
    rows = list(zip(*columns, strict=True))
    for row in {tuple(map(type, row)): row for row in rows}.values():  # one of each kind, of five million
        from_record(PairScore, dict(zip(names, row, strict=True)))
    return tuple(PairScore(*row) for row in rows)


def _snapshot_of(number: int, record: str) -> Snapshot:
    fields = parse_json(record, strict=True, lone_surrogates=True)
    findings = tuple(from_record(Finding, finding, "findings.") for finding in fields.pop("findings"))
    found = from_record(Snapshot, {**fields, "pairs": (), "findings": (), "number": number})
    if not all(isinstance(key, str) for key in found.metrics.get("tied", ())):
        raise ValueError("metrics.tied must be keys as text")
    return dataclasses.replace(found, findings=findings)

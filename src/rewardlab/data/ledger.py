"""What became of every row: the ledger that counts them, and the quarantine that keeps the bad ones.

This file knows counts and reasons; it does not know how rows are read or what makes one bad.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from rewardlab.errors import DataError
from rewardlab.files import written_safely


@dataclass(slots=True)
class Ledger:
    """The account of a run's rows. The law: ``read == used + quarantined + dropped``.

    Attributes:
        read: Rows met, good or bad.
        used: Rows that the run works with.
        quarantined: Bad rows, set aside for repair.
        dropped: Good rows that the run cannot use, e.g. pairs that are identical after truncation.
        truncated: Rows, among the used ones, of which a part was cut to fit.
        reasons: Why rows were quarantined or dropped, counted by kind.
    """

    read: int = 0
    used: int = 0
    quarantined: int = 0
    dropped: int = 0
    truncated: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def use(self) -> None:
        """Count a row that was read and is good."""
        self.read += 1
        self.used += 1

    def quarantine(self, reason: str, *, was_used: bool = False) -> None:
        """Count a bad row.

        Args:
            reason: ``"kind: detail"``; counted by its kind.
            was_used: The row was counted as used before: a later step, such as encoding, found it bad.
        """
        self._set_aside(reason, was_used)
        self.quarantined += 1

    def drop(self, reason: str, *, was_used: bool = False) -> None:
        """Count a good row that cannot be used; arguments as for :meth:`quarantine`."""
        self._set_aside(reason, was_used)
        self.dropped += 1

    def _set_aside(self, reason: str, was_used: bool) -> None:
        if was_used:
            self.used -= 1
        else:
            self.read += 1
        self.reasons[reason_kind(reason)] += 1

    def check(self) -> None:
        """Hold the ledger to its law.

        Raises:
            AssertionError: Rows are missing or counted twice, which is a bug of the code that kept the ledger.
        """
        aside = self.quarantined + self.dropped
        if self.read != self.used + aside or self.reasons.total() != aside or not 0 <= self.truncated <= self.used:
            raise AssertionError(f"the ledger does not balance: {self}")

    def to_dict(self) -> dict[str, dict[str, int]]:
        """The ledger as JSON: ``{"rows": {read, used, quarantined, dropped, truncated}, "reasons": {kind: count}}``."""
        self.check()
        names = ("read", "used", "quarantined", "dropped", "truncated")
        return {"rows": {name: getattr(self, name) for name in names}, "reasons": dict(self.reasons.most_common())}


def reason_kind(reason: str) -> str:
    """The countable part of a reason: what stands before its first ``": "``."""
    return reason.partition(": ")[0]


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that was set aside.

    Attributes:
        file: The file, folder or hub id.
        line: 1-based line or row in it.
        reason: Why, ``"kind: detail"``.
        row: What was there: the columns, or the text that is no row; None where nothing could be read.
        name: How errors name the place: ``"pairs.jsonl:17"``.
    """

    file: str
    line: int
    reason: str
    row: dict[str, Any] | str | None
    name: str


class Quarantine:
    """Bad rows, kept in memory and, if a path is given, in a JSON Lines file that can be repaired and read again.

    Each line is ``{"file", "line", "reason", "row"}``, in ASCII, so that what is not valid Unicode survives as an
    escape. The file takes its place at once when the context ends, with an error too, for that is mostly about these
    rows. There is none when no row is bad: one left by an earlier run is removed.

    Args:
        path: Where to write; None keeps the rows in memory only.

    Raises:
        DataError: The file cannot be written.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.rows: list[BadRow] = []

    def __enter__(self) -> Quarantine:
        """Nothing is written yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Write the file."""
        if self.path is None:
            return
        try:
            if not self.rows:
                self.path.unlink(missing_ok=True)
                return
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with written_safely(self.path) as beside, beside.open("w", encoding="ascii", newline="\n") as stream:
                for bad in self.rows:
                    record = {"file": bad.file, "line": bad.line, "reason": bad.reason, "row": bad.row}
                    stream.write(json.dumps(record, default=str) + "\n")
        except OSError as failed:
            raise DataError(
                f"{self.path}: cannot be written as the quarantine file ({failed.strerror})",
                hint="give another file, or make room and repeat the command",
            ) from failed

    def add(self, bad: BadRow) -> None:
        """Keep one bad row."""
        self.rows.append(bad)

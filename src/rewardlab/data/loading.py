"""Sources -> groups and the account of what was left out: the way every command and script reads its data.

This file joins reading, formats and the ledger, and owns one rule: how much may be bad before the work stops.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from rewardlab.data.formats import parse_row
from rewardlab.data.ledger import BadRow, Ledger, Quarantine, reason_kind
from rewardlab.data.reading import RawRow, iter_rows
from rewardlab.data.solutions import labels_format
from rewardlab.errors import ConfigError, DataError
from rewardlab.types import PromptGroup

MAX_BAD_FRACTION = 0.05
"""Share of bad rows above which the work stops: a few are noise, more is a wrong file or format."""

_TOLD = 3  # reasons that an error names

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read.

    Attributes:
        groups: The good rows, in order; their ``source`` is the file's name and line, with its path where names repeat.
        ledger: The account of all rows.
        bad_rows: The rows set aside, in order.
        quarantine: The file they were written to, if any.
    """

    groups: list[PromptGroup]
    ledger: Ledger
    bad_rows: tuple[BadRow, ...] = ()
    quarantine: Path | None = None

    def require(self, *, max_bad_fraction: float = MAX_BAD_FRACTION, strict: bool = False) -> None:
        """Stop where too much is bad.

        Args:
            max_bad_fraction: Largest share of rows that may be bad.
            strict: No row may be bad.

        Raises:
            DataError: More is bad, or no row is good. Names the counts, the commonest reasons with a place each, and
                the quarantine file.
        """
        bad, read = len(self.bad_rows), self.ledger.read
        limit = 0.0 if strict else max_bad_fraction
        if self.ledger.used and bad <= limit * read:
            return
        ways = ["repair them", "name the row format (format, --format NAME)"]
        if not self.ledger.used:
            message = f"none of {read:,} rows can be used"
        elif strict:
            message = f"{bad:,} of {read:,} rows are bad ({bad / read:.1%}); none may be (strict)"
            ways.append("leave out strict, --strict")
        else:
            message = f"{bad:,} of {read:,} rows are bad ({bad / read:.1%}); at most {limit:.0%} may be"
            # Not every command can allow more; these can.
            allowing = "--max-bad-fraction of score, best-of-n and data check, --set of train"
            ways.append(f"allow more (max_bad_fraction, {allowing})")
        where = (
            f"they are in {self.quarantine}"
            if self.quarantine
            else "`rewardlab data check FILE --quarantine OUT` keeps them"
        )
        raise DataError(f"{message}:\n{self.told()}", hint=f"{where}; {', '.join(ways[:-1])} or {ways[-1]}")

    def left_out(self) -> str:
        """How many rows were set aside and why, for people; empty where none was."""
        if not self.bad_rows:
            return ""
        where = f", see {self.quarantine}" if self.quarantine else ""
        return f"{len(self.bad_rows):,} of {self.ledger.read:,} rows are bad and left out{where}:\n{self.told()}"

    def told(self) -> str:
        """The commonest reasons, one per line, each with its count and the first place: for people."""
        first: dict[str, BadRow] = {}
        for row in self.bad_rows:
            first.setdefault(reason_kind(row.reason), row)
        lines = [
            f"  {count:,} × {kind} (first: {first[kind].name}{_detail(first[kind])})"
            for kind, count in self.ledger.reasons.most_common(_TOLD)
            if kind in first
        ]
        if len(self.ledger.reasons) > _TOLD:
            lines.append(f"  and {len(self.ledger.reasons) - _TOLD} more reasons")
        return "\n".join(lines)


def _detail(row: BadRow) -> str:
    detail = row.reason.partition(": ")[2]
    return f", {detail}" if detail else ""


def read_groups(
    sources: str | Path | Iterable[str | Path],
    *,
    format: str = "auto",
    split: str | None = None,
    max_bad_fraction: float | None = MAX_BAD_FRACTION,
    strict: bool = False,
    quarantine: Path | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Reading:
    """All groups of one or several sources, with the ledger. Bad rows are set aside and the reading goes on.

    Args:
        sources: Files, folders or hub ids (:func:`rewardlab.data.reading.iter_rows`).
        format: ``"auto"``, or a key of :data:`rewardlab.data.formats.FORMATS`.
        split: The split, for hub ids and folders of several splits.
        max_bad_fraction: Largest share of rows that may be bad; None leaves it to the caller to ask
            :meth:`Reading.require`, which otherwise is asked here.
        strict: No row may be bad; not asked either where ``max_bad_fraction`` is None.
        quarantine: Where bad rows are written, with file, line and reason.
        on_progress: Called with the number of rows read so far, after each row.

    Raises:
        DataError: A source cannot be opened, holds no rows, or too many of them are bad.
        ConfigError: ``format`` is not known, or the quarantine file is one of the sources.
    """
    files = [sources] if isinstance(sources, str | Path) else list(sources)
    if quarantine is not None and any(Path(file).resolve() == quarantine.resolve() for file in files):
        raise ConfigError(f"the quarantine file {quarantine} is one of the sources", hint="write it elsewhere")
    groups: list[PromptGroup] = []
    ledger = Ledger()
    with Quarantine(quarantine) as kept:
        for file, names_path in zip(files, names_of_places(files), strict=True):
            for _, found in iter_groups(file, format=format, split=split, names_path=names_path):
                if isinstance(found, BadRow):
                    ledger.quarantine(found.reason)
                    kept.add(found)
                else:
                    groups.append(found)
                    ledger.use()
                if on_progress is not None:
                    on_progress(ledger.read)
    ledger.check()
    reading = Reading(groups, ledger, tuple(kept.rows), quarantine if kept.rows else None)
    if max_bad_fraction is not None:
        reading.require(max_bad_fraction=max_bad_fraction, strict=strict)
    return reading


def names_of_places(files: Sequence[str | Path]) -> list[bool]:
    """For each source whether its places are named with its path: the file's name is enough, unless several have it."""
    same_name = Counter(Path(file).name for file in files)
    return [same_name[Path(file).name] > 1 for file in files]


def iter_groups(
    file: str | Path,
    *,
    format: str = "auto",
    split: str | None = None,
    names_path: bool = False,
    first: int = 1,
    offset: int | None = None,
    labels: Callable[[], str | None] | None = None,
) -> Iterator[tuple[RawRow, PromptGroup | BadRow]]:
    """The group of each row of one source, or why it has none, one at a time.

    Args:
        file: A file, folder or hub id.
        format: ``"auto"``, or a key of :data:`rewardlab.data.formats.FORMATS`.
        split: The split, for hub ids and folders of several splits.
        names_path: Whether a group's ``source`` is ``"data/pairs.jsonl:17"`` and not ``"pairs.jsonl:17"``.
        first: The line to begin with, as :func:`~rewardlab.data.reading.iter_rows`.
        offset: Of that line, likewise.
        labels: Tells what lists of labels mean in this source; by default :func:`labels_of` it.

    Raises:
        DataError: The source cannot be opened, or holds no rows.
        ConfigError: ``format`` is not known.
    """
    told = labels or labels_of(file, split)
    raw = None
    for raw in iter_rows(file, split=split, first=first, offset=offset):
        place = f"{file}:{raw.line}" if names_path else raw.name
        try:
            if raw.row is None:
                raise DataError(raw.problem or "unreadable")
            yield raw, parse_row(raw.row, format=format, source=place, labels_format=told)
        except DataError as error:
            row = raw.text if raw.row is None else raw.row
            yield raw, BadRow(raw.file, raw.line, error.message, row, place)
    if raw is None and first == 1:
        raise DataError(f"{file}: no rows in it", hint="check that the file is the one you meant")


def labels_of(file: str | Path, split: str | None = None) -> Callable[[], str | None]:
    """Tells what lists of labels mean in a source; looks through all of it, once, and only if asked."""
    return cache(lambda: labels_format(raw.row for raw in iter_rows(file, split=split) if raw.row is not None))


def load_groups(
    path: str | Path,
    *,
    format: str = "auto",
    split: str | None = None,
    max_bad_fraction: float = MAX_BAD_FRACTION,
    strict: bool = False,
    quarantine: Path | None = None,
) -> list[PromptGroup]:
    """The groups of one source; what was left out is logged as a warning.

    Arguments and errors are those of :func:`read_groups`, which also gives the ledger.

    Example:
        >>> groups = load_groups("pairs.jsonl.gz")  # doctest: +SKIP
    """
    reading = read_groups(
        path, format=format, split=split, max_bad_fraction=max_bad_fraction, strict=strict, quarantine=quarantine
    )
    if reading.bad_rows:
        _log.warning("%s: %s", path, reading.left_out())
    return reading.groups

"""The first pass over files to score: how many rows, which columns, and where the work is cut.

It reads everything once, one row at a time, and keeps numbers: no text stays in memory. Rows are scored in chunks, and
whoever scores reads the rows of a :class:`Part`, a run of whole chunks of one file, from that file again. Chunks end
between two prompts and at the end of a file, so that whatever scores a part alone forms the same batches, and with them
the last bits of the scores, as whoever scores them all.

This file knows files, groups and where to cut; it knows no scorer.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Protocol, TypeVar

from rewardlab.data.ledger import BadRow, Ledger, Quarantine
from rewardlab.data.loading import Reading, iter_groups, labels_of, names_of_places
from rewardlab.data.reading import RawRow
from rewardlab.errors import DataError
from rewardlab.scoring.bulk_rows import CHUNK_COMPLETIONS, RowFacts, identity
from rewardlab.types import PromptGroup

CHUNK_ROWS = 512
"""Rows scored, and made safe on disk, at a time."""

PART_ROWS = 8192
"""Rows of a part, about: it ends with the chunk that reaches as many, or :data:`PART_COMPLETIONS`."""

PART_COMPLETIONS = 16 * CHUNK_COMPLETIONS

CUT = f"between prompts and files, at {CHUNK_COMPLETIONS} completions"
"""Where chunks end beside their number of rows, as journals have it: another rule would give other last bits."""


@dataclass(frozen=True, slots=True)
class Source:
    """How one file is read.

    Attributes:
        file: The file, folder or hub id.
        format: As :func:`~rewardlab.data.loading.read_groups`.
        split: Likewise.
        names_path: As :func:`~rewardlab.data.loading.iter_groups`.
        chunk_rows: Most rows of a chunk.
        part_rows: Rows at which a part ends.
    """

    file: str
    format: str = "auto"
    split: str | None = None
    names_path: bool = False
    chunk_rows: int = CHUNK_ROWS
    part_rows: int = PART_ROWS


@dataclass(frozen=True, slots=True)
class Part:
    """A run of whole chunks of one file.

    Attributes:
        source: How the file is read.
        first_line: The line (or row) of its first row.
        last_line: That of its last.
        offset: The byte where its first row begins, where it can be gone to.
        rows: Good rows in it; those that cannot be read are not counted.
        completions: In these rows.
        crc32: Of the rows, by which a file that changes meanwhile is noticed.
        labels: What lists of labels mean in the file, where that was asked.
        number: Its number among the parts of all files, from 0.
        first_row: Number of its first row among all rows of all files, from 0.
        skip: Rows at its beginning, whole chunks, that have been scored already.
    """

    source: Source
    first_line: int
    last_line: int
    offset: int | None
    rows: int
    completions: int
    crc32: int
    labels: str | None = None
    number: int = 0
    first_row: int = 0
    skip: int = 0


@dataclass(frozen=True, slots=True)
class FileSurvey:
    """What the first pass says of one file.

    Attributes:
        parts: In order; their rows numbered from 0.
        facts: Of all its rows.
        bad_rows: The rows that cannot be read.
        sha256: Different for rows that would give another output.
    """

    parts: tuple[Part, ...]
    facts: RowFacts
    bad_rows: tuple[BadRow, ...]
    sha256: str


@dataclass(frozen=True, slots=True)
class Survey:
    """What the first pass says of all files.

    Attributes:
        parts: In order, with the numbers of their rows among all.
        facts: Of all rows.
        reading: The account of all rows, and the bad ones; its ``groups`` are not kept.
        fingerprint: Different for rows that would give another output.
    """

    parts: tuple[Part, ...]
    facts: RowFacts
    reading: Reading
    fingerprint: str

    def left(self, rows: int) -> list[Part]:
        """The parts that remain when the first ``rows`` rows have been scored; of the first of them perhaps a rest."""
        return [
            replace(part, skip=max(rows - part.first_row, 0))
            for part in self.parts
            if part.first_row + part.rows > rows
        ]


def sources_of(
    files: Sequence[str | Path],
    *,
    format: str = "auto",
    split: str | None = None,
    chunk_rows: int = CHUNK_ROWS,
    part_rows: int = PART_ROWS,
) -> list[Source]:
    """How each of several files is read; arguments as :class:`Source`."""
    named = zip(files, names_of_places(files), strict=True)
    return [Source(str(file), format, split, names_path, chunk_rows, part_rows) for file, names_path in named]


def survey_file(source: Source) -> FileSurvey:
    """The first pass over one file.

    Raises:
        DataError: It cannot be opened, or holds no rows.
        ConfigError: The format is not known.
    """
    facts, bad, parts = RowFacts(), list[BadRow](), list[Part]()
    digest = hashlib.sha256()
    labels = cache(labels_of(source.file, source.split))
    found = iter_groups(
        source.file, format=source.format, split=source.split, names_path=source.names_path, labels=labels
    )

    def good() -> Iterator[_Place]:
        for raw, group in found:
            if isinstance(group, BadRow):
                bad.append(group)
            else:
                yield _Place(raw, group)

    for chunk in cut_chunks(good(), source.chunk_rows):
        crc32, completions = 0, 0
        for place in chunk:
            row = identity(place.group)
            digest.update(row)
            crc32 = zlib.crc32(row, crc32)
            completions += len(place.group.completions)
            facts.add(place.group)
        begun = parts and parts[-1].rows < source.part_rows and parts[-1].completions < PART_COMPLETIONS
        if begun:
            # A part's checksum is that of its chunks' checksums, so that it need not hold their bytes.
            parts[-1] = replace(
                parts[-1],
                last_line=chunk[-1].raw.line,
                rows=parts[-1].rows + len(chunk),
                completions=parts[-1].completions + completions,
                crc32=_joined(parts[-1].crc32, crc32),
            )
        else:
            first = chunk[0].raw
            row_number = parts[-1].first_row + parts[-1].rows if parts else 0
            parts.append(
                Part(
                    source,
                    first.line,
                    chunk[-1].raw.line,
                    first.offset,
                    len(chunk),
                    completions,
                    _joined(0, crc32),
                    first_row=row_number,
                )
            )
    asked = labels() if labels.cache_info().currsize else None
    return FileSurvey(tuple(replace(part, labels=asked) for part in parts), facts, tuple(bad), digest.hexdigest())


def join(surveys: Iterable[FileSurvey], *, quarantine: Path | None = None) -> Survey:
    """The surveys of several files as one; rows that cannot be read are written to ``quarantine``."""
    facts, ledger, parts = RowFacts(), Ledger(), list[Part]()
    digest = hashlib.sha256()
    with Quarantine(quarantine) as kept:
        for survey in surveys:
            for part in survey.parts:
                parts.append(replace(part, number=len(parts), first_row=facts.rows + part.first_row))
            facts = facts + survey.facts
            digest.update(survey.sha256.encode())
            for row in survey.bad_rows:
                ledger.quarantine(row.reason)
                kept.add(row)
    ledger.read += facts.rows
    ledger.used += facts.rows
    ledger.check()
    reading = Reading([], ledger, tuple(kept.rows), quarantine if kept.rows else None)
    return Survey(tuple(parts), facts, reading, digest.hexdigest())


class PartReader:
    """Reads the rows of parts again.

    Where a file cannot be gone into (compressed, CSV, one JSON array, a data set), it goes on from where it is, so that
    parts that come in order cost one reading of the file.
    """

    def __init__(self) -> None:
        self._source: Source | None = None
        self._found: Iterator[tuple[RawRow, PromptGroup | BadRow]] = iter(())
        self._line = 0

    def chunks(self, part: Part) -> Iterator[list[PromptGroup]]:
        """The part's chunks, without those that are to be skipped.

        Raises:
            DataError: The file is not what it was in the first pass.
        """
        skip, crc32 = part.skip, 0
        for chunk in cut_chunks((_Plain(group) for group in self._groups(part)), part.source.chunk_rows):
            own = 0
            for item in chunk:
                own = zlib.crc32(identity(item.group), own)
            crc32 = _joined(crc32, own)
            if skip:
                skip -= len(chunk)
            else:
                yield [item.group for item in chunk]
        if crc32 != part.crc32:
            raise self._changed(part)

    def _groups(self, part: Part) -> Iterator[PromptGroup]:
        left = part.rows
        gap = part.first_line - self._line - 1 if self._source == part.source else -1
        can_seek = part.offset is not None or part.source.file.lower().endswith(".parquet")
        if gap < 0 or (gap and can_seek):
            source = part.source
            self._source = source
            self._found = iter_groups(
                source.file,
                format=source.format,
                split=source.split,
                names_path=source.names_path,
                first=part.first_line,
                offset=part.offset,
                labels=lambda: part.labels,
            )
        for raw, group in self._found:
            self._line = raw.line
            if raw.line >= part.first_line and not isinstance(group, BadRow):
                left -= 1
                yield group
            if raw.line >= part.last_line:
                break
        if left:
            self._source = None
            raise self._changed(part)

    def _changed(self, part: Part) -> DataError:
        return DataError(
            f"{part.source.file}: changed while it was being scored, between rows {part.first_line} and "
            f"{part.last_line}",
            hint="score it again when nothing writes to it, with --restart",
        )


# -- where chunks end ------------------------------------------------------------------------------------------------


class _HasGroup(Protocol):
    @property
    def group(self) -> PromptGroup: ...


@dataclass(frozen=True, slots=True)
class _Place:
    raw: RawRow
    group: PromptGroup


@dataclass(frozen=True, slots=True)
class _Plain:
    group: PromptGroup


Item = TypeVar("Item", bound=_HasGroup)


def cut_chunks(items: Iterable[Item], rows: int = CHUNK_ROWS) -> Iterator[list[Item]]:
    """Cut rows into chunks, so that consecutive rows of one prompt stay together.

    Args:
        items: What holds the rows, in order.
        rows: Most rows of a chunk; a prompt that has more is cut after so many.

    Returns:
        An iterator of chunks. Begun at the beginning of any of them, it gives the same.
    """
    chunk: list[Item] = []
    completions = run = 0  # run: where in the chunk the rows of its last prompt begin
    for item in items:
        same = bool(chunk) and item.group.prompt == chunk[-1].group.prompt
        run = run if same else len(chunk)
        more = len(item.group.completions)
        while chunk and (len(chunk) == rows or completions + more > CHUNK_COMPLETIONS):
            cut = run if same and run else len(chunk)
            yield chunk[:cut]
            chunk, run = chunk[cut:], 0
            completions = sum(len(kept.group.completions) for kept in chunk)
        chunk.append(item)
        completions += more
    if chunk:
        yield chunk


def _joined(crc32: int, other: int) -> int:
    return zlib.crc32(other.to_bytes(4, "big"), crc32)

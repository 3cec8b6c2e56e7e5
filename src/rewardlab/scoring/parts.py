"""Scores whole files in parts that workers score alone, each into a file of its own.

A part's file is written whole or not at all; ``index.jsonl.partial`` beside the parts names, with its journal, those
that are done, and a later run of the same command goes on with the others. At the end the parts become one file at
once; or, where the output is a folder, they stay, and ``index.jsonl`` names them in order.

Rows, chunks and scores are those of :mod:`rewardlab.scoring.bulk`. Who the workers are, this file does not know:
:class:`LocalWorkers` is this process, others are an adapter's.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rewardlab.data.loading import MAX_BAD_FRACTION
from rewardlab.errors import ConfigError, DataError, RewardLabError
from rewardlab.files import replace_safely, written_safely
from rewardlab.scoring.bulk import (
    BulkResult,
    check_named,
    header_of,
    notes_on_steps,
    quarantine_of,
    write_parquet,
)
from rewardlab.scoring.bulk_rows import BulkScorer, RowLayout, beside_scores, score_rows
from rewardlab.scoring.partial import INDEX, Partial, beside, parts_folder, remove_parts, sweep_parts
from rewardlab.scoring.row_ids import IDS_ARE_TEXT
from rewardlab.scoring.survey import (
    CHUNK_ROWS,
    PART_ROWS,
    FileSurvey,
    Part,
    PartReader,
    Source,
    Survey,
    join,
    sources_of,
    survey_file,
)


@dataclass(frozen=True, slots=True)
class PartJob:
    """What all parts of a run have in common.

    Attributes:
        layout: Which columns the rows have.
        strict: Whether a row that cannot be scored is an error.
        folder: Where the parts' files are written, an absolute path.
        suffix: What the files are, ``".jsonl"`` or ``".parquet"``.
    """

    layout: RowLayout
    strict: bool
    folder: str
    suffix: str


class PartWorkers(Protocol):
    """Who reads and scores; all see the same files under the same names."""

    @property
    def fingerprint(self) -> str:
        """Of the model, as :class:`~rewardlab.scoring.bulk_rows.BulkScorer`."""

    @property
    def beside(self) -> str | None:
        """What the model gives beside a score (:func:`~rewardlab.scoring.bulk_rows.beside_scores`)."""

    def surveys(self, sources: Sequence[Source]) -> Iterable[FileSurvey]:
        """The first pass over each file, in order."""

    def score(self, parts: Sequence[Part], job: PartJob, advance: Callable[[int], None]) -> Iterator[dict[str, Any]]:
        """Score parts, in any order, and say of each what :func:`score_part` does; reports the completions scored."""


class LocalWorkers:
    """This process scores, one part after the other."""

    def __init__(self, scorer: BulkScorer) -> None:
        self.scorer = scorer

    @property
    def fingerprint(self) -> str:
        """The scorer's."""
        return self.scorer.fingerprint

    @property
    def beside(self) -> str | None:
        """What the scorer gives beside a score."""
        return beside_scores(self.scorer)

    def surveys(self, sources: Sequence[Source]) -> Iterable[FileSurvey]:
        """The first pass over each file."""
        return map(survey_file, sources)

    def score(self, parts: Sequence[Part], job: PartJob, advance: Callable[[int], None]) -> Iterator[dict[str, Any]]:
        """Score the parts in order."""
        reader = PartReader()
        return (score_part(self.scorer, reader, part, job, advance) for part in parts)


def score_part(
    scorer: BulkScorer, reader: PartReader, part: Part, job: PartJob, advance: Callable[[int], None]
) -> dict[str, Any]:
    """Score one part into its file.

    Returns:
        The part's line of the index: ``{"part", "file", "first_row", "rows", "completions", "bytes", "crc32",
        "source", "first_line", "last_line", "truncated_rows", "truncated_sequences", "reasons", "first_error"}``.

    Raises:
        DataError: The rows have changed since the first pass; or, in a strict run, one cannot be scored.
        CheckpointError: The model gives a score that is not finite.
        OSError: The file cannot be written.
    """
    lines: list[str] = []
    reasons: Counter[str] = Counter()
    cut, error = Counter[str](), None
    for chunk in reader.chunks(part):
        rows, counts = score_rows(scorer, chunk, job.layout, job.strict, advance)
        error = error or next((row["error"] for row in rows if "error" in row), None)
        lines += (json.dumps(row, allow_nan=False) + "\n" for row in rows)
        reasons.update(counts.pop("reasons"))
        cut.update(counts)
    path = Path(job.folder) / f"part-{part.number:05d}{job.suffix}"
    with written_safely(path) as new:
        if job.suffix == ".parquet":
            write_parquet(lines, new, job.layout)
        else:
            new.write_text("".join(lines), encoding="utf-8")
        content = new.read_bytes()
    return {
        "part": part.number,
        "file": path.name,
        "first_row": part.first_row,
        "rows": len(lines),
        "completions": part.completions,
        "bytes": len(content),
        "crc32": zlib.crc32(content),
        "source": part.source.file,
        "first_line": part.first_line,
        "last_line": part.last_line,
        "truncated_rows": cut["truncated_rows"],
        "truncated_sequences": cut["truncated_sequences"],
        "reasons": reasons,
        "first_error": error,
    }


def is_folder(output: str | Path) -> bool:
    """Whether an output is a folder for parts: it ends with a slash, or is a folder that exists."""
    return str(output).endswith(("/", os.sep)) or Path(output).is_dir()


def check_parts(
    sources: str | Path | Sequence[str | Path], output: str | Path, *, split: str | None = None, overwrite: bool = False
) -> Path:
    """Refuse at once, before a model is loaded, what cannot be read or must not be written; as :func:`score_parts`.

    Raises:
        ConfigError: The output is finished already, or holds parts of something else, or is named as a format that is
            not written; a folder would have to be overwritten.
        DataError: A source does not exist, or is of an unknown kind.
    """
    sources = [sources] if isinstance(sources, str | Path) else sources
    if not str(output):
        raise ConfigError("the output has no name", hint="name a file or a folder")
    path = Path(output)
    if path.name in ("", ".."):
        path = path.resolve()  # files beside it are named after it
    folder = path if is_folder(output) else parts_folder(path)
    partial = Partial(folder / INDEX)
    check_named(sources, path, split=split)
    if folder != path:
        if path.exists() and not partial.journal_path.exists():
            remove_parts(folder)  # what a run left that was killed when all was done
        partial.require_free(path, overwrite=overwrite)
        return path
    if overwrite:
        raise ConfigError(f"the output {path} is a folder, and is not overwritten", hint="name another, or remove it")
    try:
        partial.require_free(folder / INDEX)
    except ConfigError as error:
        raise ConfigError(
            f"the output {path} is finished already: it has {INDEX}", hint="name another, or remove it"
        ) from error
    if not partial.journal_path.exists() and any(folder.glob("part-*")):
        raise ConfigError(f"the folder {path} has parts of something else", hint="name another, or remove them")
    return path


def score_parts(
    workers: PartWorkers,
    sources: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    format: str = "auto",
    split: str | None = None,
    strict: bool = False,
    max_bad_fraction: float = MAX_BAD_FRACTION,
    chunk_rows: int = CHUNK_ROWS,
    part_rows: int = PART_ROWS,
    settings: Mapping[str, Any] | None = None,
    restart: bool = False,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> BulkResult:
    """Score every row of some files in parts, going on where an interrupted run of the same call stopped.

    Rows and their order are those of :func:`~rewardlab.scoring.bulk.score_file`, whose arguments these are but for:

    Args:
        workers: Who reads and scores.
        sources: As there.
        output: A file, which the parts become at the end; or a folder (:func:`is_folder`) in which they stay as
            ``part-00000.parquet`` and so on, with ``index.jsonl``.
        format: As there.
        split: As there.
        strict: As there.
        max_bad_fraction: As there.
        chunk_rows: As there.
        part_rows: Rows of a part, about; what one worker loses when it is killed.
        settings: As there.
        restart: As there.
        overwrite: Whether an existing file may be replaced; a folder never is.
        on_progress: As there; called at least as each part is done.

    Raises:
        ConfigError: As :func:`check_parts`; or an interrupted run with another model, data or settings is in the way.
        DataError: Too many rows cannot be read, or none can be scored; with ``strict``, any.
        CheckpointError: The model gives a score that is not finite.
        RewardLabError: The output cannot be written, e.g. because the disk is full.
    """
    start = time.monotonic()
    sources = [sources] if isinstance(sources, str | Path) else sources
    path = check_parts(sources, output, split=split, overwrite=overwrite)
    folder = path if is_folder(output) else parts_folder(path)
    if folder != path:
        _require_no_other_run(path, restart)
    named = sources_of(sources, format=format, split=split, chunk_rows=chunk_rows, part_rows=part_rows)
    survey = join(workers.surveys(named), quarantine=quarantine_of(path))
    survey.reading.require(max_bad_fraction=max_bad_fraction, strict=strict)
    layout = RowLayout.of(survey.facts, format, workers.beside)
    job = PartJob(layout, strict, str(folder.resolve()), ".parquet" if folder == path else ".jsonl")
    header = header_of(workers.fingerprint, survey, format, split, chunk_rows, settings) | {"part_rows": part_rows}
    try:
        with Partial(folder / INDEX).opened(header, restart=restart) as partial:
            run = _Run(survey, job, folder, partial, on_progress)
            resumed = run.num_rows
            run.finish(workers)
            run.require_scores(strict)
            entries = run.in_order()
            sweep_parts(folder, {entry["file"] for entry in entries})
            if folder == path:
                _write_index(partial, entries)
            else:
                _join_parts(partial, entries, path, layout, overwrite)
    except OSError as error:
        raise RewardLabError(
            f"{output} cannot be written: {error}",
            hint="mend that, then repeat the command: it goes on where it stopped",
        ) from error
    ledger, reasons = survey.reading.ledger, sum((Counter(entry["reasons"]) for entry in entries), Counter[str]())
    for reason, count in reasons.items():
        for _ in range(count):
            ledger.quarantine(reason, was_used=True)
    ledger.truncated += sum(entry["truncated_rows"] for entry in entries)
    notes = (IDS_ARE_TEXT,) if job.suffix == ".parquet" or path.suffix.lower() == ".parquet" else ()
    return BulkResult(
        output=str(output),
        rows=survey.facts.rows,
        resumed_rows=resumed,
        quarantined_rows=reasons.total(),
        truncated_sequences=sum(entry["truncated_sequences"] for entry in entries),
        seconds=time.monotonic() - start,
        ledger=ledger.to_dict(),
        notes=(*(notes if layout.ids_become_text else ()), *notes_on_steps(layout.beside == "step_scores", survey)),
    )


class _Run:
    """The parts that are done, and what is still to do."""

    def __init__(
        self,
        survey: Survey,
        job: PartJob,
        folder: Path,
        partial: Partial,
        on_progress: Callable[[int, int], None] | None,
    ) -> None:
        self.survey, self.job, self.partial, self.on_progress = survey, job, partial, on_progress
        self.entries: dict[int, dict[str, Any]] = {}
        if partial.rows_path.exists():
            with open(partial.rows_path, encoding="utf-8") as lines:
                for entry in map(json.loads, lines):
                    self.entries[entry["part"]] = entry
            self.entries = {number: entry for number, entry in self.entries.items() if _is_there(folder, entry)}
        self.done = 0
        self._advance(sum(entry["completions"] for entry in self.entries.values()))

    @property
    def num_rows(self) -> int:
        """Rows of the parts that are done."""
        return sum(entry["rows"] for entry in self.entries.values())

    def finish(self, workers: PartWorkers) -> None:
        """Have the other parts scored."""
        left = [part for part in self.survey.parts if part.number not in self.entries]
        for entry in workers.score(left, self.job, self._advance) if left else ():
            self.partial.append([entry], {"reasons": {}})
            self.entries[entry["part"]] = entry

    def in_order(self) -> list[dict[str, Any]]:
        """What is known of each part, in the order of their rows."""
        return [self.entries[part.number] for part in self.survey.parts]

    def require_scores(self, strict: bool) -> None:
        """Stop where no row has a score, or, in a strict run, where an earlier run that was not strict left one out."""
        unscored = sum(sum(entry["reasons"].values()) for entry in self.entries.values())
        if unscored and (strict or unscored == self.survey.facts.rows):
            first = next(entry["first_error"] for entry in self.in_order() if entry["first_error"])
            raise DataError(
                f"{unscored} of {self.survey.facts.rows} rows cannot be scored; the first: {first}",
                hint=f"all are in {self.job.folder}; a longer maximum length, or another model, needs --restart",
            )

    def _advance(self, completions: int) -> None:
        self.done += completions
        if self.on_progress is not None:
            self.on_progress(self.done, self.survey.facts.completions)


def _is_there(folder: Path, entry: Mapping[str, Any]) -> bool:
    """Whether a part's file is still there; what is in it is looked at when it is joined."""
    path = folder / entry["file"]
    return path.is_file() and path.stat().st_size == entry["bytes"]


# -- finishing -------------------------------------------------------------------------------------------------------


def _write_index(partial: Partial, entries: Sequence[Mapping[str, Any]]) -> None:
    """The parts stay, and the index names them."""
    index = partial.output
    if partial.rows_path.exists():
        partial.place([index])
        beside(index).write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
        replace_safely(beside(index), index)
    # The journal first: rows without one beside an output are done with.
    partial.journal_path.unlink()
    partial.rows_path.unlink(missing_ok=True)


def _join_parts(
    partial: Partial, entries: Sequence[Mapping[str, Any]], output: Path, layout: RowLayout, overwrite: bool
) -> None:
    """The parts become one file, at once; what a kill in between leaves, the next run puts right."""
    folder = partial.output.parent
    partial.place([output], overwrite=overwrite)
    if output.suffix.lower() == ".parquet":
        lines = (line for entry in entries for line in _content(folder, entry).decode().splitlines())
        write_parquet(lines, beside(output), layout)
    else:
        with beside(output).open("wb") as joined:
            for entry in entries:
                joined.write(_content(folder, entry))
    replace_safely(beside(output), output)
    remove_parts(folder)


def _content(folder: Path, entry: Mapping[str, Any]) -> bytes:
    """What a part's file holds.

    Raises:
        RewardLabError: It is not what was written.
    """
    content = (folder / entry["file"]).read_bytes()
    if zlib.crc32(content) != entry["crc32"]:
        raise RewardLabError(
            f"{folder / entry['file']}: damaged, its checksum is not the one it was written with",
            hint="remove that file and repeat the command: it is scored again",
        )
    return content


def _require_no_other_run(output: Path, restart: bool) -> None:
    """Refuse rows that a run which is not in parts left behind; remove them where they are to be thrown away."""
    other = Partial(output)
    if not other.journal_path.exists():
        return
    if not restart:
        raise ConfigError(
            f"{other.rows_path} is left of an interrupted run that was not in parts (--backend local)",
            hint="repeat that command to finish it, or throw its rows away with --restart",
        )
    other.journal_path.unlink()
    other.rows_path.unlink(missing_ok=True)

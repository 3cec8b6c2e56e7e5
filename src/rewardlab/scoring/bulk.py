"""Scores whole files: each row in, in order, exactly once out, also when the process is killed on the way.

Rows are scored in fixed chunks, so that the batches, and with them the last bits of the scores, do not depend on where
an earlier run was killed. Finished chunks are appended to ``OUT.partial``; ``OUT.partial.journal`` says which model,
data and settings they belong to and, line by line, the size and checksum of each chunk. A later run keeps the chunks
that are really there, cuts off what is torn, and goes on. At the end ``OUT.partial`` becomes ``OUT`` at once;
:func:`scored_rows` stops short of that, for whoever makes other files of the rows.

The files are read twice: once to learn how many rows there are, and which columns (:mod:`~rewardlab.scoring.survey`),
once to score them. No more text than one chunk's is in memory.

This file knows rows, files and a :class:`BulkScorer`; it knows no model, tokenizer or device.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from rewardlab.data.loading import MAX_BAD_FRACTION, Reading
from rewardlab.data.reading import is_hub_id, iter_rows
from rewardlab.errors import ConfigError, DataError, RewardLabError
from rewardlab.files import replace_safely
from rewardlab.scoring.bulk_rows import OF_LISTS, BulkScorer, RowLayout, beside_scores, num_completions, score_rows
from rewardlab.scoring.partial import Partial, beside, parts_folder, parts_journal, remove_parts, require_apart
from rewardlab.scoring.row_ids import IDS_ARE_TEXT, as_text
from rewardlab.scoring.survey import CHUNK_ROWS, CUT, PartReader, Survey, join, sources_of, survey_file
from rewardlab.types import PromptGroup

_PARQUET_ROWS = 8192  # rows converted, and written as one row group, at a time
_NOT_WRITTEN = (".csv", ".tsv", ".gz", ".zst", ".arrow")


@dataclass(frozen=True, slots=True)
class BulkResult:
    """What a run of :func:`score_file` did.

    Attributes:
        output: The finished file.
        rows: Rows in it.
        resumed_rows: Those of them that an earlier, interrupted run had already scored.
        quarantined_rows: Those of them without a score; each holds its reason in ``error``.
        truncated_sequences: Sequences whose prompt was cut to fit the maximum length.
        seconds: Wall-clock time of this run, reading included.
        ledger: The account of all rows (:meth:`rewardlab.data.ledger.Ledger.to_dict`); its quarantined ones are
            those that could not be read and those that could not be scored.
        notes: What else one should know about the file, one sentence each.
    """

    output: str
    rows: int
    resumed_rows: int
    quarantined_rows: int
    truncated_sequences: int
    seconds: float
    ledger: dict[str, dict[str, int]]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The fields, ready for JSON."""
        return asdict(self)


def check_files(
    sources: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    split: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Refuse at once, before a model is loaded, what cannot be read or must not be written; as :func:`score_file`.

    Raises:
        ConfigError: The output exists already, is one of the sources or a folder, or is named as a format that is not
            written; or a source is named like what is kept beside the output.
        DataError: A source does not exist, or is of an unknown kind.
    """
    sources = [sources] if isinstance(sources, str | Path) else sources
    path = Path(output)
    if path.is_dir():
        raise ConfigError(f"the output {path} is a folder", hint="name a file, *.jsonl or *.parquet")
    check_named(sources, path, split=split)
    Partial(path).require_free(path, overwrite=overwrite)
    return path


def check_named(sources: Sequence[str | Path], path: Path, *, split: str | None = None) -> None:
    """Refuse names that cannot go together, and sources that are not there; errors as :func:`check_files`."""
    if path.suffix.lower() in _NOT_WRITTEN:
        raise ConfigError(f"the output {path}: *{path.suffix} is not written", hint="name it *.jsonl or *.parquet")
    for source in sources:
        if path.exists() and Path(source).exists() and path.samefile(source):
            raise ConfigError(f"the output {path} is the data itself", hint="give another output")
        if not is_hub_id(source):
            iter_rows(source, split=split)
    require_apart([Path(source) for source in sources], [path])


@dataclass(frozen=True, slots=True)
class ScoredRows:
    """All rows of scores of some files, safe on disk in ``partial.rows_path`` as JSON Lines.

    Attributes:
        survey: What is known of the rows that were read; its account includes the scoring.
        partial: The rows, and whatever must be known of them after a kill.
        layout: Which columns they have.
        resumed_rows: Those that an earlier, interrupted run had already scored.
    """

    survey: Survey
    partial: Partial
    layout: RowLayout
    resumed_rows: int

    @property
    def reading(self) -> Reading:
        """The account of all rows, scoring included."""
        return self.survey.reading

    def groups(self) -> Iterator[PromptGroup]:
        """The groups, one for each row, in order, read from the files again."""
        reader = PartReader()
        return (group for part in self.survey.parts for chunk in reader.chunks(part) for group in chunk)


def score_file(
    scorer: BulkScorer,
    sources: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    format: str = "auto",
    split: str | None = None,
    strict: bool = False,
    max_bad_fraction: float = MAX_BAD_FRACTION,
    chunk_rows: int = CHUNK_ROWS,
    settings: Mapping[str, Any] | None = None,
    restart: bool = False,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> BulkResult:
    """Score every row of some files into one file, going on where an interrupted run of the same call stopped.

    A row of the output is ``{"id", "chosen_score", "rejected_score"}`` for a pair, ``{"id", "scores"}`` for a list of
    completions, and ``{"id", "score"}`` for one completion (also one in a list, if no row has several). A process model
    adds the probabilities of the steps: ``"step_scores"`` (of a list, one list per completion), or, of a pair,
    ``"chosen_step_scores"`` and ``"rejected_step_scores"``. An ensemble adds how far its members' scores are apart:
    ``"disagreement"`` (of a list, ``"disagreements"``), or, of a pair, ``"chosen_disagreement"`` and
    ``"rejected_disagreement"``. ``id`` is the row's own, else where it was read (``"pairs.jsonl:17"``).
    ``"truncated": true`` is there if a prompt was cut. A row that cannot be scored keeps its place, with null scores
    and the reason in ``"error"``; rows that cannot even be read are in ``OUT.quarantine.jsonl`` instead.

    Args:
        scorer: What scores.
        sources: One or several files, folders or hub ids.
        output: The file to write, Parquet if it is named ``*.parquet`` and else JSON Lines.
        format: ``"auto"``, or a key of :data:`rewardlab.data.formats.FORMATS`.
        split: The split, for hub ids and folders of several splits.
        strict: Whether a single row that cannot be read or scored is an error.
        max_bad_fraction: Largest share of rows that may be unreadable.
        chunk_rows: Rows scored, and made safe on disk, at a time.
        settings: Whatever else decides the scores (dtype, device, maximum length), as JSON: an interrupted run is only
            taken up under the same.
        restart: Whether to throw away what an interrupted run left.
        overwrite: Whether an existing output may be replaced.
        on_progress: Called with the completions done so far and their total, at the start and as they are scored.

    Raises:
        ConfigError: As :func:`check_files`; or an interrupted run with another model, data or settings is in the way.
        DataError: Too many rows cannot be read, or none can be scored; with ``strict``, any.
        CheckpointError: The model gives a score that is not finite.
        RewardLabError: The output cannot be written, e.g. because the disk is full.
    """
    start = time.monotonic()
    sources = [sources] if isinstance(sources, str | Path) else sources
    with scored_rows(
        scorer,
        sources,
        check_files(sources, output, split=split, overwrite=overwrite),
        format=format,
        split=split,
        strict=strict,
        max_bad_fraction=max_bad_fraction,
        chunk_rows=chunk_rows,
        settings=settings,
        restart=restart,
        on_progress=on_progress,
    ) as scored:
        partial = scored.partial
        notes = (*_put_in_place(scored, overwrite), *notes_on_steps(scorer.has_steps, scored.survey))
    return BulkResult(
        output=str(output),
        rows=scored.survey.facts.rows,
        resumed_rows=scored.resumed_rows,
        quarantined_rows=partial.reasons().total(),
        truncated_sequences=partial.total("truncated_sequences"),
        seconds=time.monotonic() - start,
        ledger=scored.reading.ledger.to_dict(),
        notes=notes,
    )


@contextmanager
def scored_rows(
    scorer: BulkScorer,
    sources: Sequence[str | Path],
    output: Path,
    *,
    format: str = "auto",
    split: str | None = None,
    strict: bool = False,
    max_bad_fraction: float = MAX_BAD_FRACTION,
    chunk_rows: int = CHUNK_ROWS,
    settings: Mapping[str, Any] | None = None,
    restart: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Iterator[ScoredRows]:
    """Score every row, going on where an interrupted run stopped; within the context no other run can write them.

    What is made of the rows is the caller's: it puts its files in their places after ``partial.place`` has noted them,
    and removes journal and rows at the end. Arguments and errors are those of :func:`score_file`.
    """
    if restart and parts_journal(output).exists():
        remove_parts(parts_folder(output))
    if parts_journal(output).exists():
        raise ConfigError(
            f"{parts_folder(output)} is left of an interrupted run in parts (--backend ray)",
            hint="repeat that command to finish it, or throw its rows away with --restart",
        )
    survey = join(
        map(survey_file, sources_of(sources, format=format, split=split, chunk_rows=chunk_rows)),
        quarantine=quarantine_of(output),
    )
    reading = survey.reading
    reading.require(max_bad_fraction=max_bad_fraction, strict=strict)
    layout = RowLayout.of(survey.facts, format, beside_scores(scorer))
    header = header_of(scorer.fingerprint, survey, format, split, chunk_rows, settings)
    total, done = survey.facts.completions, 0

    def advance(completions: int) -> None:
        nonlocal done
        done += completions
        if on_progress is not None:
            on_progress(done, total)

    try:
        with Partial(output).opened(header, restart=restart) as partial:
            resumed = partial.total("rows")
            advance(partial.total("completions"))
            reader = PartReader()
            for part in survey.left(resumed):
                for chunk in reader.chunks(part):
                    rows, counts = score_rows(scorer, chunk, layout, strict, advance)
                    partial.append(rows, {"completions": num_completions(chunk), **counts})
            _require_scores(partial, strict)
            for reason, count in partial.reasons().items():
                for _ in range(count):
                    reading.ledger.quarantine(reason, was_used=True)
            reading.ledger.truncated += partial.total("truncated_rows")
            yield ScoredRows(survey, partial, layout, resumed)
    except OSError as error:
        raise RewardLabError(
            f"{output} cannot be written: {error}",
            hint="mend that, then repeat the command: it goes on where it stopped",
        ) from error


# -- finishing ------------------------------------------------------------------------------------------------------


def _require_scores(partial: Partial, strict: bool) -> None:
    """Stop where no row has a score, or, in a strict run, where an earlier run that was not strict left one out."""
    rows, unscored = partial.total("rows"), partial.reasons().total()
    if unscored and (strict or unscored == rows):
        with open(partial.rows_path, encoding="utf-8") as lines:
            first = next(row for row in map(json.loads, lines) if "error" in row)
        raise DataError(
            f"{unscored} of {rows} rows cannot be scored; the first: {first['error']}",
            hint=f"all are in {partial.rows_path}; a longer maximum length, or another model, needs --restart",
        )


def quarantine_of(output: Path) -> Path:
    """Where the rows that cannot be read are written."""
    return output.with_name(output.name + ".quarantine.jsonl")


def header_of(
    fingerprint: str,
    survey: Survey,
    format: str,
    split: str | None,
    chunk_rows: int,
    settings: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """What an interrupted run must have in common with the one that takes it up."""
    return {
        "model": fingerprint,
        "data": survey.fingerprint,
        "format": format,
        "split": split,
        **(settings or {}),
        "chunk_rows": chunk_rows,
        "chunks_end": CUT,
        "rows": survey.facts.rows,
    }


def notes_on_steps(has_steps: bool, survey: Survey) -> tuple[str, ...]:
    """What to say where a process model has scored lists that may have been meant as the steps of one solution."""
    lists = survey.facts.lists_without_steps
    if not has_steps or not lists:
        return ()
    return (
        f"{lists:,} rows have lists of completions, each scored as a solution of its own; steps of one solution are "
        "read with --format steps",
    )


def _put_in_place(scored: ScoredRows, overwrite: bool) -> tuple[str, ...]:
    """The finished rows become the output, at once; what a kill in between leaves, the next run puts right."""
    partial, notes = scored.partial, tuple[str, ...]()
    if partial.rows_path.exists():
        partial.place([partial.output], overwrite=overwrite)
        if partial.output.suffix.lower() == ".parquet":
            with open(partial.rows_path, encoding="utf-8") as lines:
                notes = write_parquet(lines, beside(partial.output), scored.layout)
            replace_safely(beside(partial.output), partial.output)
            partial.rows_path.unlink()
        else:
            replace_safely(partial.rows_path, partial.output)
    partial.journal_path.unlink()
    return notes


def write_parquet(lines: Iterable[str], target: Path, layout: RowLayout) -> tuple[str, ...]:
    """Convert finished lines, a row group at a time.

    Returns:
        A note if ids had to become text, for a column has one type.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    id_type = pa.int64() if layout.has_integer_ids else pa.string()
    number, numbers = pa.float64(), pa.list_(pa.float64())
    types: dict[str, Any] = {}
    for name, of_list in OF_LISTS.items():
        kind = numbers if name == "step_scores" else number
        types |= {name: kind, of_list: pa.list_(kind), f"chosen_{name}": kind, f"rejected_{name}": kind}
    types["step_scores"] = pa.list_(numbers) if "scores" in layout.columns else numbers
    columns = [(name, kind) for name, kind in types.items() if name in layout.columns]
    schema = pa.schema([("id", id_type), *columns, ("truncated", pa.bool_()), ("error", pa.string())])
    remaining = iter(lines)
    with pq.ParquetWriter(target, schema) as writer:
        while rows := [{"truncated": False, **json.loads(line)} for line in islice(remaining, _PARQUET_ROWS)]:
            if id_type == pa.string():
                rows = [{**row, "id": as_text(row["id"])} for row in rows]
            writer.write_batch(pa.RecordBatch.from_pylist(rows, schema))
    return (IDS_ARE_TEXT,) if layout.ids_become_text else ()

"""Scores whole files: each row in, in order, exactly once out, also when the process is killed on the way.

Rows are scored in fixed chunks, so that the batches, and with them the last bits of the scores, do not depend on where
an earlier run was killed. Finished chunks are appended to ``OUT.partial``; ``OUT.partial.journal`` says which model,
data and settings they belong to and, line by line, the size and checksum of each chunk. A later run keeps the chunks
that are really there, cuts off what is torn, and goes on. At the end ``OUT.partial`` becomes ``OUT`` at once;
:func:`scored_rows` stops short of that, for whoever makes other files of the rows.

All groups are read before the first is scored, so the text of the whole file is held in memory.

This file knows rows, files and a :class:`BulkScorer`; it knows no model, tokenizer or device.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from rewardlab.data.loading import MAX_BAD_FRACTION, Reading, read_groups
from rewardlab.data.reading import is_hub_id, iter_rows
from rewardlab.errors import ConfigError, DataError, RewardLabError
from rewardlab.files import replace_safely
from rewardlab.scoring.bulk_rows import (
    OF_LISTS,
    BulkScorer,
    RowLayout,
    beside_scores,
    data_fingerprint,
    is_pair,
    num_completions,
    score_rows,
)
from rewardlab.scoring.partial import Partial, beside, require_apart
from rewardlab.scoring.row_ids import IDS_ARE_TEXT, are_integers, as_text, ids_became_text
from rewardlab.types import PromptGroup

CHUNK_ROWS = 512
"""Rows scored, and made safe on disk, at a time."""

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
    if path.suffix.lower() in _NOT_WRITTEN:
        raise ConfigError(f"the output {path}: *{path.suffix} is not written", hint="name it *.jsonl or *.parquet")
    for source in sources:
        if path.exists() and Path(source).exists() and path.samefile(source):
            raise ConfigError(f"the output {path} is the data itself", hint="give another output")
        if not is_hub_id(source):
            iter_rows(source, split=split)
    require_apart([Path(source) for source in sources], [path])
    Partial(path).require_free(path, overwrite=overwrite)
    return path


@dataclass(frozen=True, slots=True)
class ScoredRows:
    """All rows of scores of some files, safe on disk in ``partial.rows_path`` as JSON Lines.

    Attributes:
        reading: The groups, one for each row, in order, and the account of all rows, scoring included.
        partial: The rows, and whatever must be known of them after a kill.
        layout: Which columns they have.
        resumed_rows: Those that an earlier, interrupted run had already scored.
    """

    reading: Reading
    partial: Partial
    layout: RowLayout
    resumed_rows: int


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
        notes = (*_put_in_place(scored, overwrite), *_notes_on_steps(scorer, scored.reading.groups))
    return BulkResult(
        output=str(output),
        rows=len(scored.reading.groups),
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
    quarantine = output.with_name(output.name + ".quarantine.jsonl")
    reading = read_groups(
        sources, format=format, split=split, strict=strict, max_bad_fraction=max_bad_fraction, quarantine=quarantine
    )
    groups = reading.groups
    layout = RowLayout(groups, format, beside_scores(scorer))
    header = {
        "model": scorer.fingerprint,
        "data": data_fingerprint(groups),
        "format": format,
        "split": split,
        **(settings or {}),
        "chunk_rows": chunk_rows,
        "rows": len(groups),
    }
    total, done = num_completions(groups), 0

    def advance(completions: int) -> None:
        nonlocal done
        done += completions
        if on_progress is not None:
            on_progress(done, total)

    try:
        with Partial(output).opened(header, restart=restart) as partial:
            resumed = partial.total("rows")
            advance(num_completions(groups[:resumed]))
            for first in range(resumed, len(groups), chunk_rows):
                partial.append(*score_rows(scorer, groups[first : first + chunk_rows], layout, strict, advance))
            _require_scores(partial, strict)
            for reason, count in partial.reasons().items():
                for _ in range(count):
                    reading.ledger.quarantine(reason, was_used=True)
            reading.ledger.truncated += partial.total("truncated_rows")
            yield ScoredRows(reading, partial, layout, resumed)
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


def _notes_on_steps(scorer: BulkScorer, groups: Sequence[PromptGroup]) -> tuple[str, ...]:
    """What to say where a process model has scored lists that may have been meant as the steps of one solution."""
    lists = sum(len(group.completions) > 1 and not group.steps and not is_pair(group) for group in groups)
    if not scorer.has_steps or not lists:
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
            notes = _write_parquet(partial.rows_path, beside(partial.output), scored.layout)
            replace_safely(beside(partial.output), partial.output)
            partial.rows_path.unlink()
        else:
            replace_safely(partial.rows_path, partial.output)
    partial.journal_path.unlink()
    return notes


def _write_parquet(source: Path, target: Path, layout: RowLayout) -> tuple[str, ...]:
    """Convert the finished lines, a row group at a time.

    Returns:
        A note if ids had to become text, for a column has one type.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    id_type = pa.int64() if are_integers(layout.ids) else pa.string()
    number, numbers = pa.float64(), pa.list_(pa.float64())
    types: dict[str, Any] = {}
    for name, of_list in OF_LISTS.items():
        kind = numbers if name == "step_scores" else number
        types |= {name: kind, of_list: pa.list_(kind), f"chosen_{name}": kind, f"rejected_{name}": kind}
    types["step_scores"] = pa.list_(numbers) if "scores" in layout.columns else numbers
    columns = [(name, kind) for name, kind in types.items() if name in layout.columns]
    schema = pa.schema([("id", id_type), *columns, ("truncated", pa.bool_()), ("error", pa.string())])
    with open(source, encoding="utf-8") as lines, pq.ParquetWriter(target, schema) as writer:
        while rows := [{"truncated": False, **json.loads(line)} for line in islice(lines, _PARQUET_ROWS)]:
            if id_type == pa.string():
                rows = [{**row, "id": as_text(row["id"])} for row in rows]
            writer.write_batch(pa.RecordBatch.from_pylist(rows, schema))
    return (IDS_ARE_TEXT,) if ids_became_text(layout.ids) else ()

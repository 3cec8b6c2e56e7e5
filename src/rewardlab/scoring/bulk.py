"""Scores whole files: each row in, in order, exactly once out, also when the process is killed on the way.

Rows are scored in fixed chunks, so that the batches, and with them the last bits of the scores, do not depend on where
an earlier run was killed. Finished chunks are appended to ``OUT.partial``; ``OUT.partial.journal`` says which model,
data and settings they belong to and, line by line, the size and checksum of each chunk. A later run keeps the chunks
that are really there, cuts off what is torn, and goes on. At the end ``OUT.partial`` becomes ``OUT`` at once.

All groups are read before the first is scored, so the text of the whole file is held in memory.

This file knows rows, files and a :class:`BulkScorer`; it knows no model, tokenizer or device.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from rewardlab.data.encoding import EncodedGroup, reason_of
from rewardlab.data.ledger import reason_kind
from rewardlab.data.loading import read_groups
from rewardlab.data.reading import is_hub_id, iter_rows
from rewardlab.errors import CheckpointError, ConfigError, DataError, RewardLabError
from rewardlab.scoring.partial import Partial, replace_safely
from rewardlab.types import PromptGroup

CHUNK_ROWS = 512
"""Rows scored, and made safe on disk, at a time."""

_PARQUET_ROWS = 8192  # rows converted, and written as one row group, at a time
# What a row says of its one completion -> what it says of a list of them.
_OF_LISTS = {"score": "scores", "step_scores": "step_scores", "disagreement": "disagreements"}
_NOT_WRITTEN = (".csv", ".tsv", ".gz", ".zst", ".arrow")


class BulkEncoder(Protocol):
    """What :func:`score_file` needs of an encoder; see :class:`rewardlab.data.encoding.Encoder`."""

    def encode_many(self, groups: Sequence[PromptGroup]) -> list[EncodedGroup | DataError]:
        """Ids of many groups, in order; a group that cannot be encoded gives its error in place."""


class BulkScorer(Protocol):
    """What :func:`score_file` needs of a scorer; see :class:`rewardlab.scoring.scorer.Scorer`."""

    @property
    def encoder(self) -> BulkEncoder:
        """Turns groups into ids."""

    @property
    def fingerprint(self) -> str:
        """Equal for equal checkpoints."""

    def score_encoded(
        self, encoded: Sequence[EncodedGroup], on_progress: Callable[[int], None] | None = None
    ) -> list[list[float]]:
        """One list per group, one score per completion; reports the number of completions just scored."""

    @property
    def has_steps(self) -> bool:
        """Whether it also scores the steps of completions, with :meth:`score_encoded_steps`."""

    def score_encoded_steps(
        self, encoded: Sequence[EncodedGroup], on_progress: Callable[[int], None] | None = None
    ) -> tuple[list[list[float]], list[list[list[float]]]]:
        """Scores as :meth:`score_encoded`, and one list per group and completion with a score for each step."""

    @property
    def is_ensemble(self) -> bool:
        """Whether it also says how far its members disagree, with :meth:`score_encoded_disagreement`."""

    def score_encoded_disagreement(
        self, encoded: Sequence[EncodedGroup], on_progress: Callable[[int], None] | None = None
    ) -> tuple[list[list[float]], list[list[float]]]:
        """Scores as :meth:`score_encoded`, and as many numbers that say how far the members disagree."""


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
    sources: Sequence[str | Path],
    output: str | Path,
    *,
    split: str | None = None,
    restart: bool = False,
    overwrite: bool = False,
) -> Path:
    """Refuse at once, before a model is loaded, what cannot be read or must not be written; as :func:`score_file`.

    Raises:
        ConfigError: The output exists already, is one of the sources or a folder, or is named as a format that is not
            written.
        DataError: A source does not exist, or is of an unknown kind.
    """
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
    if path.exists() and not overwrite and (restart or not Partial(path).is_complete()):
        raise ConfigError(f"the output {path} exists already", hint="give another output, or --overwrite")
    return path


def score_file(
    scorer: BulkScorer,
    sources: Sequence[str | Path],
    output: str | Path,
    *,
    format: str = "auto",
    split: str | None = None,
    strict: bool = False,
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
        sources: Files, folders or hub ids.
        output: The file to write, Parquet if it is named ``*.parquet`` and else JSON Lines.
        format: ``"auto"``, or a key of :data:`rewardlab.data.formats.FORMATS`.
        split: The split, for hub ids and folders of several splits.
        strict: Whether a single row that cannot be read or scored is an error.
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
    output = check_files(sources, output, split=split, restart=restart, overwrite=overwrite)
    quarantine = output.with_name(output.name + ".quarantine.jsonl")
    reading = read_groups(sources, format=format, split=split, strict=strict, quarantine=quarantine)
    groups = reading.groups
    layout = _Layout(groups, format, _beside_scores(scorer))
    header = {
        "model": scorer.fingerprint,
        "data": _data_fingerprint(groups),
        "format": format,
        "split": split,
        **(settings or {}),
        "chunk_rows": chunk_rows,
        "rows": len(groups),
    }
    total, done = _num_completions(groups), 0

    def advance(completions: int) -> None:
        nonlocal done
        done += completions
        if on_progress is not None:
            on_progress(done, total)

    try:
        with Partial(output).opened(header, restart=restart) as partial:
            resumed = partial.total("rows")
            advance(_num_completions(groups[:resumed]))
            for first in range(resumed, len(groups), chunk_rows):
                partial.append(*_score_rows(scorer, groups[first : first + chunk_rows], layout, strict, advance))
            _require_scores(partial, strict)
            notes = (*_put_in_place(partial, layout), *_notes_on_steps(scorer, groups))
    except OSError as error:
        raise RewardLabError(
            f"{output} cannot be written: {error}",
            hint="mend that, then repeat the command: it goes on where it stopped",
        ) from error
    for reason, count in partial.reasons().items():
        for _ in range(count):
            reading.ledger.quarantine(reason, was_used=True)
    reading.ledger.truncated += partial.total("truncated_rows")
    return BulkResult(
        output=str(output),
        rows=len(groups),
        resumed_rows=resumed,
        quarantined_rows=partial.reasons().total(),
        truncated_sequences=partial.total("truncated_sequences"),
        seconds=time.monotonic() - start,
        ledger=reading.ledger.to_dict(),
        notes=notes,
    )


# -- rows ------------------------------------------------------------------------------------------------------------


class _Layout:
    """Which columns a row has; known from the groups alone, before anything is scored."""

    def __init__(self, groups: Sequence[PromptGroup], format: str, beside: str | None = None) -> None:
        self.beside = beside
        self.has_lists = format == "completions" or any(len(g.completions) > 1 and not _is_pair(g) for g in groups)
        self.columns = {name for group in groups for name in self.scores(group, None, None)}
        self.ids = [self.id(group) for group in groups]

    def id(self, group: PromptGroup) -> str | int | None:
        """The row's own id, else its place."""
        return group.source if group.id is None else group.id

    def scores(
        self, group: PromptGroup, scores: Sequence[float] | None, beside: Sequence[Any] | None
    ) -> dict[str, Any]:
        """The scores, and what stands beside them, under the names of the row's kind; nulls where there are none."""
        found: dict[str, Any] = {}
        for name, values in (("score", scores), *(((self.beside, beside),) if self.beside else ())):
            if _is_pair(group):
                pair = group.pairs[0]
                found[f"chosen_{name}"] = values[pair.chosen] if values else None
                found[f"rejected_{name}"] = values[pair.rejected] if values else None
            elif len(group.completions) > 1 or self.has_lists:
                found[_OF_LISTS[name]] = list(values) if values else None
            else:
                found[name] = values[0] if values else None
        return found


def _is_pair(group: PromptGroup) -> bool:
    """Whether a row has two sides; a ranked list of two is a list."""
    return len(group.completions) == 2 and len(group.pairs) == 1 and not group.rankings


def _beside_scores(scorer: BulkScorer) -> str | None:
    """What a scorer gives of each completion beside its score."""
    return "step_scores" if scorer.has_steps else "disagreement" if scorer.is_ensemble else None


def _score_rows(
    scorer: BulkScorer, groups: Sequence[PromptGroup], layout: _Layout, strict: bool, advance: Callable[[int], None]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The output rows of one chunk, and its counts."""
    results = scorer.encoder.encode_many(groups)
    encoded = [result for result in results if isinstance(result, EncodedGroup)]
    of_groups: Iterator[tuple[list[float], Any]]
    if layout.beside == "step_scores":
        of_groups = zip(*scorer.score_encoded_steps(encoded, advance), strict=True)
    elif layout.beside == "disagreement":
        of_groups = zip(*scorer.score_encoded_disagreement(encoded, advance), strict=True)
    else:
        of_groups = ((scores, None) for scores in scorer.score_encoded(encoded, advance))
    rows: list[dict[str, Any]] = []
    reasons: Counter[str] = Counter()
    for group, result in zip(groups, results, strict=True):
        row: dict[str, Any] = {"id": layout.id(group)}
        if isinstance(result, EncodedGroup):
            scores, beside = next(of_groups)
            row |= layout.scores(group, _finite(group, scores), beside)
            if result.truncated:
                row["truncated"] = True
        elif strict:
            raise result
        else:
            row |= layout.scores(group, None, None) | {"error": result.message}
            reasons[reason_kind(reason_of(result))] += 1
            advance(len(group.completions))
        rows.append(row)
    return rows, {
        "truncated_rows": sum(result.truncated > 0 for result in encoded),
        "truncated_sequences": sum(result.truncated for result in encoded),
        "reasons": reasons,
    }


def _finite(group: PromptGroup, scores: Sequence[float]) -> Sequence[float]:
    if not all(map(math.isfinite, scores)):
        raise CheckpointError(
            f"{group.name}: the model gives {list(scores)}, and a score must be finite",
            hint="score in float32; `rewardlab verify` tells whether the weights themselves are broken",
        )
    return scores


def _num_completions(groups: Sequence[PromptGroup]) -> int:
    return sum(len(group.completions) for group in groups)


def _data_fingerprint(groups: Sequence[PromptGroup]) -> str:
    """Different for rows that would give another output: their texts, steps, order, ids, places and pairs."""
    digest = hashlib.sha256()
    for group in groups:
        pairs = [(pair.chosen, pair.rejected) for pair in group.pairs]
        steps = [[step.text for step in some] for some in group.steps]
        row = [group.id, group.source, group.prompt, group.completions, pairs, *([steps] if steps else ())]
        digest.update(json.dumps(row, default=str).encode())
    return digest.hexdigest()


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
    lists = sum(len(group.completions) > 1 and not group.steps and not _is_pair(group) for group in groups)
    if not scorer.has_steps or not lists:
        return ()
    return (
        f"{lists:,} rows have lists of completions, each scored as a solution of its own; steps of one solution are "
        "read with --format steps",
    )


def _put_in_place(partial: Partial, layout: _Layout) -> tuple[str, ...]:
    """The finished rows become the output, at once; what a kill in between leaves, the next run puts right."""
    notes: tuple[str, ...] = ()
    if partial.rows_path.exists():
        if partial.output.suffix.lower() == ".parquet":
            beside = partial.rows_path.with_name(partial.rows_path.name + ".parquet")
            notes = _write_parquet(partial.rows_path, beside, layout)
            replace_safely(beside, partial.output)
            partial.rows_path.unlink()
        else:
            replace_safely(partial.rows_path, partial.output)
    partial.journal_path.unlink()
    return notes


def _write_parquet(source: Path, target: Path, layout: _Layout) -> tuple[str, ...]:
    """Convert the finished lines, a row group at a time.

    Returns:
        A note if ids had to become text, for a column has one type.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    whole = [isinstance(value, int) and -(2**63) <= value < 2**63 for value in layout.ids]
    id_type = pa.int64() if whole and all(whole) else pa.string()
    number, numbers = pa.float64(), pa.list_(pa.float64())
    types: dict[str, Any] = {}
    for name, of_list in _OF_LISTS.items():
        kind = numbers if name == "step_scores" else number
        types |= {name: kind, of_list: pa.list_(kind), f"chosen_{name}": kind, f"rejected_{name}": kind}
    types["step_scores"] = pa.list_(numbers) if "scores" in layout.columns else numbers
    columns = [(name, kind) for name, kind in types.items() if name in layout.columns]
    schema = pa.schema([("id", id_type), *columns, ("truncated", pa.bool_()), ("error", pa.string())])
    with open(source, encoding="utf-8") as lines, pq.ParquetWriter(target, schema) as writer:
        while rows := [{"truncated": False, **json.loads(line)} for line in islice(lines, _PARQUET_ROWS)]:
            if id_type == pa.string():
                rows = [{**row, "id": None if row["id"] is None else str(row["id"])} for row in rows]
            writer.write_batch(pa.RecordBatch.from_pylist(rows, schema))
    if id_type == pa.string() and any(isinstance(value, int) for value in layout.ids):
        return ("the ids are text in the output, since not all of them are 64-bit integers",)
    return ()

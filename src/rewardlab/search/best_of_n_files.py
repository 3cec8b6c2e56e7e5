"""Best-of-N over whole files: scores every completion, then writes who won, what to fine-tune on, and pairs.

Scoring is :func:`~rewardlab.scoring.bulk.score_file`'s, into ``OUT.scores.jsonl``: a killed run goes on where it was.
``OUT.scores.json``, written before the first score, says which model, data and settings those scores belong to.
Everything else is derived from them in seconds; the files are put in their places at the end, OUT the last, and the
scores are removed.

This file knows rows and files; it knows no model, and what best means is :mod:`rewardlab.search.best_of_n`'s.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rewardlab.data.loading import Reading, read_groups
from rewardlab.data.reading import fingerprint
from rewardlab.errors import ConfigError, DataError, RewardLabError
from rewardlab.scoring.bulk import CHUNK_ROWS, BulkScorer, check_files, score_file
from rewardlab.scoring.partial import replace_safely
from rewardlab.search.best_of_n import JudgedGroup, Selection
from rewardlab.search.best_of_n_curve import BestOfNSummary, summarise
from rewardlab.types import PromptGroup


@dataclass(frozen=True, slots=True)
class BestOfNOutputs:
    """The files that a run writes, Parquet if named ``*.parquet`` and else JSON Lines.

    Attributes:
        output: A row for each group (:meth:`~rewardlab.search.best_of_n.JudgedGroup.row`), in order.
        selected: Completions to fine-tune on (:meth:`~rewardlab.search.best_of_n.Selection.rows`).
        pairs: The best against the worst (:meth:`~rewardlab.search.best_of_n.JudgedGroup.pair`).
    """

    output: Path
    selected: Path | None = None
    pairs: Path | None = None

    @property
    def all(self) -> tuple[Path, ...]:
        """Those that are named; the output the last, since its presence says that the run is finished."""
        return tuple(path for path in (self.selected, self.pairs, self.output) if path is not None)

    def beside(self, ending: str) -> Path:
        """A file beside the output."""
        return self.output.with_name(self.output.name + ending)

    def check(
        self, sources: Sequence[str | Path], *, split: str | None = None, restart: bool = False, overwrite: bool = False
    ) -> None:
        """Refuse at once, before a model is loaded, what cannot be read or must not be written.

        Raises:
            ConfigError: A file exists already, is one of the sources or a folder, is named twice, or is named as a
                format that is not written.
            DataError: A source does not exist, or is of an unknown kind.
        """
        if len({path.resolve() for path in self.all}) < len(self.all):
            raise ConfigError("two outputs have the same name", hint="name a file for each")
        # A run that was killed while it put its files in place left some of them, and its scores. Whether these are
        # this command's, and may be gone on with, is seen when the model is there.
        left = self.beside(".scores.jsonl").exists() and not restart
        for path in self.all:
            check_files(sources, path, split=split, restart=restart, overwrite=overwrite or left)


@dataclass(frozen=True, slots=True)
class BestOfNRun:
    """What a run of :func:`best_of_n_file` did.

    Attributes:
        outputs: The finished files.
        summary: The expected-best-of-n curves.
        resumed_rows: Rows that an earlier, interrupted run had already scored.
        unscored_rows: Rows without scores; each holds its reason in ``error``.
        num_selected: Rows in the selected file; None where none was asked for.
        num_pairs: Rows in the file of pairs; None where none was asked for.
        without_pair: Why groups gave no pair, counted.
        seconds: Wall-clock time, reading included.
        ledger: The account of all rows (:meth:`rewardlab.data.ledger.Ledger.to_dict`).
        notes: What else one should know, one sentence each.
    """

    outputs: BestOfNOutputs
    summary: BestOfNSummary
    resumed_rows: int
    unscored_rows: int
    seconds: float
    ledger: dict[str, dict[str, int]]
    num_selected: int | None = None
    num_pairs: int | None = None
    without_pair: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON values: the summary's at the top."""
        files = self.outputs
        return {
            "output": str(files.output),
            **self.summary.to_dict(),
            "selected": None if files.selected is None else {"file": str(files.selected), "rows": self.num_selected},
            "pairs": None
            if files.pairs is None
            else {"file": str(files.pairs), "rows": self.num_pairs, "without": dict(self.without_pair)},
            "resumed_rows": self.resumed_rows,
            "unscored_rows": self.unscored_rows,
            "seconds": self.seconds,
            "ledger": self.ledger,
            "notes": list(self.notes),
        }


def best_of_n_file(
    scorer: BulkScorer,
    sources: Sequence[str | Path],
    outputs: BestOfNOutputs,
    *,
    selection: Selection | None = None,
    min_gap: float = 0.0,
    format: str = "auto",
    split: str | None = None,
    strict: bool = False,
    chunk_rows: int = CHUNK_ROWS,
    settings: Mapping[str, Any] | None = None,
    restart: bool = False,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> BestOfNRun:
    """Score the completions of every row, and write which is best; goes on where an interrupted run stopped.

    Args:
        scorer: What scores.
        sources: Files, folders or hub ids.
        outputs: The files to write.
        selection: What goes to ``outputs.selected``; the best by default.
        min_gap: Smallest score difference of a pair.
        format: ``"auto"``, or a key of :data:`rewardlab.data.formats.FORMATS`.
        split: The split, for hub ids and folders of several splits.
        strict: Whether a single row that cannot be read or scored is an error.
        chunk_rows: As :func:`~rewardlab.scoring.bulk.score_file`.
        settings: As :func:`~rewardlab.scoring.bulk.score_file`.
        restart: Whether to throw away what an interrupted run left.
        overwrite: Whether existing outputs may be replaced.
        on_progress: As :func:`~rewardlab.scoring.bulk.score_file`.

    Raises:
        ConfigError: As :meth:`BestOfNOutputs.check`; or an interrupted run with another model, data or settings is in
            the way.
        DataError: Too many rows cannot be read, or none can be scored; with ``strict``, any.
        CheckpointError: The model gives a score that is not finite.
        RewardLabError: A file cannot be written.
    """
    start = time.monotonic()
    outputs.check(sources, split=split, restart=restart, overwrite=overwrite)
    scores, state = outputs.beside(".scores.jsonl"), outputs.beside(".scores.json")
    command = {
        "model": scorer.fingerprint,
        "data": [fingerprint(source, split=split) for source in sources],
        "format": format,
        "split": split,
        "strict": strict,
        "chunk_rows": chunk_rows,
        **(settings or {}),
    }
    try:
        resumed = None if restart or not scores.exists() else _belongs(scores, state, command)
        if resumed is None:
            state.parent.mkdir(parents=True, exist_ok=True)
            state.write_text(json.dumps(command), encoding="utf-8")
            resumed = score_file(
                scorer,
                sources,
                scores,
                format=format,
                split=split,
                strict=strict,
                chunk_rows=chunk_rows,
                settings=settings,
                restart=restart,
                overwrite=restart,
                on_progress=on_progress,
            ).resumed_rows
        reading = read_groups(
            sources, format=format, split=split, strict=strict, quarantine=outputs.beside(".quarantine.jsonl")
        )
        judged = _judged(reading, scores)
        written, without, notes = _write(judged, outputs, selection or Selection(), min_gap)
        for left in (scores, scores.with_name(scores.name + ".quarantine.jsonl"), state):
            left.unlink(missing_ok=True)
    except OSError as error:
        raise RewardLabError(
            f"{outputs.output} cannot be written: {error}",
            hint="mend that, then repeat the command: it goes on where it stopped",
        ) from error
    return BestOfNRun(
        outputs=outputs,
        summary=summarise(judged),
        resumed_rows=resumed,
        unscored_rows=sum(one.error is not None for one in judged),
        seconds=time.monotonic() - start,
        ledger=reading.ledger.to_dict(),
        num_selected=written.get("selected"),
        num_pairs=written.get("pairs"),
        without_pair=without,
        notes=(*_notes_on_groups(judged), *notes),
    )


def _belongs(scores: Path, state: Path, command: Mapping[str, Any]) -> int:
    """How many rows a run that was killed after its last score left, if they are this command's."""
    found = json.loads(state.read_text(encoding="utf-8")) if state.exists() else {}
    differences = [
        f"{key} was {found.get(key)!r}, is now {command.get(key)!r}"
        for key in dict.fromkeys((*command, *found))
        if found.get(key) != command.get(key)
    ]
    if differences:
        raise ConfigError(
            f"{scores} is left of another command: {'; '.join(differences)}",
            hint="repeat that command to finish it, or throw its scores away with --restart",
        )
    with open(scores, "rb") as lines:
        return sum(1 for _ in lines)


# -- scores and their groups ------------------------------------------------------------------------------------------


def _judged(reading: Reading, scores: Path) -> list[JudgedGroup]:
    """Each group with its row of the scores; the ledger learns which have none, and which were cut."""
    judged = []
    with open(scores, encoding="utf-8") as lines:
        rows = list(map(json.loads, lines))
    if len(rows) != len(reading.groups):
        raise DataError(
            f"{scores} has {len(rows):,} rows, and the data {len(reading.groups):,}: the data has changed meanwhile",
            hint="repeat the command with --restart",
        )
    for group, row in zip(reading.groups, rows, strict=True):
        truncated, error = row.get("truncated", False), row.get("error")
        if error is not None:
            reading.ledger.quarantine("cannot be scored", was_used=True)
        reading.ledger.truncated += truncated
        own, apart = (_per_completion(group, row, name) for name in ("score", "disagreement"))
        judged.append(JudgedGroup(group, own, apart, truncated, error))
    return judged


def _per_completion(group: PromptGroup, row: Mapping[str, Any], name: str) -> tuple[float, ...]:
    """What a row of scores says of each completion, in their order; nothing where it is null or not there."""
    if row.get(f"chosen_{name}") is not None:
        (pair,) = group.pairs
        sides = {pair.chosen: row[f"chosen_{name}"], pair.rejected: row[f"rejected_{name}"]}
        return sides[0], sides[1]
    if row.get(name) is not None:
        return (row[name],)
    return tuple(row.get(f"{name}s") or ())


def _notes_on_groups(judged: Sequence[JudgedGroup]) -> tuple[str, ...]:
    """What to say where there is nothing, or hardly anything, to choose from."""
    single = sum(one.n == 1 for one in judged)
    if not single:
        return ()
    return (
        f"{single:,} of {len(judged):,} rows have one completion, and nothing to choose from: give all completions of "
        "a prompt in one row (prompt, completions)",
    )


# -- writing ---------------------------------------------------------------------------------------------------------


def _write(
    judged: Sequence[JudgedGroup], outputs: BestOfNOutputs, selection: Selection, min_gap: float
) -> tuple[dict[str, int], Counter[str], tuple[str, ...]]:
    """All files, first beside their places, then in them.

    Returns:
        Rows of the selected completions and of the pairs; why groups gave no pair; notes.
    """
    ids = [one.id for one in judged]
    whole = all(isinstance(value, int) and -(2**63) <= value < 2**63 for value in ids)
    written: dict[str, int] = {}
    without: Counter[str] = Counter()
    if outputs.selected is not None:
        rows = [row for number, one in enumerate(judged) for row in selection.rows(one, number)]
        written["selected"] = len(rows)
        _write_beside(outputs.selected, rows, whole)
    if outputs.pairs is not None:
        found = [one.pair(min_gap) for one in judged]
        without.update(reason for reason in found if isinstance(reason, str))
        pairs = [row for row in found if not isinstance(row, str)]
        written["pairs"] = len(pairs)
        _write_beside(outputs.pairs, pairs, whole)
    _write_beside(outputs.output, [one.row() for one in judged], whole)
    for path in outputs.all:
        replace_safely(_beside(path), path)
    if not whole and any(map(_is_parquet, outputs.all)) and any(isinstance(value, int) for value in ids):
        return written, without, ("the ids are text in Parquet, since not all of them are 64-bit integers",)
    return written, without, ()


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".new")


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() == ".parquet"


def _write_beside(path: Path, rows: Sequence[Mapping[str, Any]], whole: bool) -> None:
    """The rows, in the format of ``path``'s name, in a file beside it; ``whole``: all ids are 64-bit integers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if _is_parquet(path):
        _write_parquet(_beside(path), rows, whole)
        return
    with open(_beside(path), "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, allow_nan=False, default=str) + "\n" for row in rows)


def _write_parquet(path: Path, rows: Sequence[Mapping[str, Any]], whole: bool) -> None:
    """Parquet, of which a column has one type.

    Raises:
        DataError: A column of texts and messages is of no type.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    floats, integers = pa.list_(pa.float64()), pa.list_(pa.int64())
    types = {
        **dict.fromkeys(("n", "best", "index"), pa.int64()),
        **dict.fromkeys(("ranking", "ranks"), integers),
        **dict.fromkeys(("scores", "disagreements"), floats),
        **dict.fromkeys(("kl", "best_score", "score", "chosen_score", "rejected_score", "margin"), pa.float64()),
        "id": pa.int64() if whole else pa.string(),
        "error": pa.string(),
        "truncated": pa.bool_(),
    }
    columns = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        values: Iterable[Any] = [row.get(name) for row in rows]
        if name == "truncated":
            values = [bool(value) for value in values]
        elif name == "id" and not whole:
            values = [None if value is None else str(value) for value in values]
        try:
            columns[name] = pa.array(values, types.get(name))
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise DataError(
                f"the column {name} of {path.name.removesuffix('.new')} has no type of its own: {error}",
                hint="texts and messages in one column are for JSON Lines: name the output *.jsonl",
            ) from error
    pq.write_table(pa.table(columns), path)

"""Best-of-N over whole files: scores every completion, then writes who won, what to fine-tune on, and pairs.

Scoring is :func:`~rewardlab.scoring.bulk.scored_rows`'s, into ``OUT.partial``, whose journal is the only account of
what the scores belong to: a killed run goes on where it was. All files are derived from the scores in seconds, written
whole beside their places, put there, OUT the last, and then the scores are removed.

This file knows rows and files; it knows no model, and what best means is :mod:`rewardlab.search.best_of_n`'s.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rewardlab.data.loading import MAX_BAD_FRACTION
from rewardlab.errors import ConfigError
from rewardlab.files import replace_safely
from rewardlab.scoring.bulk import CHUNK_ROWS, ScoredRows, check_files, scored_rows
from rewardlab.scoring.bulk_rows import BulkScorer
from rewardlab.scoring.partial import Partial, beside, require_apart
from rewardlab.scoring.row_ids import IDS_ARE_TEXT, are_integers, ids_became_text
from rewardlab.search.best_of_n import JudgedGroup, Selection
from rewardlab.search.best_of_n_curve import BestOfNSummary, summarise
from rewardlab.search.best_of_n_tables import is_parquet, write_table
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

    @property
    def quarantine(self) -> Path:
        """Where rows go that cannot be read."""
        return self.output.with_name(self.output.name + ".quarantine.jsonl")

    def check(self, sources: Sequence[str | Path], *, split: str | None = None, overwrite: bool = False) -> None:
        """Refuse at once, before a model is loaded, what cannot be read or must not be written.

        Raises:
            ConfigError: A file exists already, is one of the sources or a folder, is named twice, is named as a
                format that is not written, or is named like what is kept beside another.
            DataError: A source does not exist, or is of an unknown kind.
        """
        if len({path.resolve() for path in self.all}) < len(self.all):
            raise ConfigError("two outputs have the same name", hint="name a file for each")
        require_apart(self.all, self.all)
        for path in self.all:
            # Files that an interrupted run has put in their places may be there. Whether it was this command's, and may
            # be gone on with, is seen when the model is there.
            check_files(sources, path, split=split, overwrite=True)
            Partial(self.output).require_free(path, overwrite=overwrite)


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
    max_bad_fraction: float = MAX_BAD_FRACTION,
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
        max_bad_fraction: Largest share of rows that may be unreadable.
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
    outputs.check(sources, split=split, overwrite=overwrite)
    with scored_rows(
        scorer,
        sources,
        outputs.output,
        format=format,
        split=split,
        strict=strict,
        max_bad_fraction=max_bad_fraction,
        chunk_rows=chunk_rows,
        settings={**(settings or {}), "command": "best-of-n"},  # another makes other files of the same rows
        restart=restart,
        on_progress=on_progress,
    ) as scored:
        judged = _judged(scored)
        written, without, notes = _write(judged, outputs, selection or Selection(), min_gap)
        scored.partial.place(outputs.all, overwrite=overwrite)
        for path in outputs.all:
            replace_safely(beside(path), path)
        # The journal first: rows without one beside an output are done with.
        scored.partial.journal_path.unlink()
        scored.partial.rows_path.unlink()
    return BestOfNRun(
        outputs=outputs,
        summary=summarise(judged),
        resumed_rows=scored.resumed_rows,
        unscored_rows=sum(one.error is not None for one in judged),
        seconds=time.monotonic() - start,
        ledger=scored.reading.ledger.to_dict(),
        num_selected=written.get("selected"),
        num_pairs=written.get("pairs"),
        without_pair=without,
        notes=(*_notes_on_groups(judged), *notes),
    )


# -- scores and their groups ------------------------------------------------------------------------------------------


def _judged(scored: ScoredRows) -> list[JudgedGroup]:
    """Each group with its row of the scores."""
    judged = []
    with open(scored.partial.rows_path, encoding="utf-8") as lines:
        for group, row in zip(scored.groups(), map(json.loads, lines), strict=True):
            own, apart = (_per_completion(group, row, name) for name in ("score", "disagreement"))
            judged.append(JudgedGroup(group, own, apart, row.get("truncated", False), row.get("error")))
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
    """All files, beside their places.

    Returns:
        Rows of the selected completions and of the pairs; why groups gave no pair; notes.
    """
    ids = [one.id for one in judged]
    integer_ids = are_integers(ids)
    written: dict[str, int] = {}
    without: Counter[str] = Counter()
    if outputs.selected is not None:
        rows = [row for number, one in enumerate(judged) for row in selection.rows(one, number)]
        written["selected"] = len(rows)
        write_table(beside(outputs.selected), rows, name=outputs.selected, integer_ids=integer_ids)
    if outputs.pairs is not None:
        found = [one.pair(min_gap) for one in judged]
        without.update(reason for reason in found if isinstance(reason, str))
        pairs = [row for row in found if not isinstance(row, str)]
        written["pairs"] = len(pairs)
        write_table(beside(outputs.pairs), pairs, name=outputs.pairs, integer_ids=integer_ids)
    rows = [one.row() for one in judged]
    write_table(beside(outputs.output), rows, name=outputs.output, integer_ids=integer_ids)
    noted = any(map(is_parquet, outputs.all)) and ids_became_text(ids)
    return written, without, (IDS_ARE_TEXT,) if noted else ()

"""A benchmark's files -> groups -> the result of a scorer.

This file knows containers and what can go wrong on the way; what a row is and what a figure is, the benchmark knows. It
knows no model: the scorer is anything that has an encoder and scores groups.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from rewardlab.data.batches import is_saved_dataset
from rewardlab.data.encoding import reason_of
from rewardlab.data.reading import KNOWN_NAMES, is_data_file, iter_rows
from rewardlab.errors import ConfigError, DataError
from rewardlab.evaluation.benchmarks.result import Benchmark, BenchmarkResult
from rewardlab.evaluation.readable import GroupEncoder, readable
from rewardlab.evaluation.scorers import GroupScorer, scores_and_steps, scores_steps
from rewardlab.metrics.inputs import check_scores
from rewardlab.types import PromptGroup

logger = logging.getLogger(__name__)


class BenchmarkScorer(GroupScorer, Protocol):
    """What a benchmark can be run on, e.g. a ``Scorer``."""

    @property
    def encoder(self) -> GroupEncoder:
        """Turns groups into what the model reads."""
        ...


def load_benchmark(
    benchmark: Benchmark, files: Sequence[str | Path] = (), split: str | None = None
) -> list[PromptGroup]:
    """The items of a benchmark, in order.

    Args:
        benchmark: Which.
        files: Its published files: JSON Lines, JSON arrays, Parquet, CSV, or folders, of which all such files are read.
            Without any: the data set on the hub.
        split: The split, of the hub's data set or of a folder saved by ``datasets``; by default the published one.

    Returns:
        The groups. An item that a later file repeats (RM-Bench's files of the parts beside that of all) is taken once,
        and a warning says so.

    Raises:
        DataError: A file cannot be read, a row is not the benchmark's, there is nothing, or the hub cannot be reached.
            A benchmark without some of its rows is another benchmark: a bad row is an error, and none is left out.
    """
    groups: list[PromptGroup] = []
    first_source: dict[tuple[str | None, ...], int] = {}
    for number, (label, told, rows) in enumerate(_sources(benchmark, files, split)):
        repeated = 0
        for place, row in rows:
            group = benchmark.read(row if told is None else {**row, "subset": told}, place)
            if first_source.setdefault(_key(group), number) == number:
                groups.append(group)
            else:
                repeated += 1
        if repeated:
            logger.warning("%s: %d items that stand in a file before it are counted once", label, repeated)
    if not groups:
        raise DataError(f"no rows in {', '.join(map(str, files)) or benchmark.hub_id}", hint="give a file with --data")
    return groups


def run_benchmark(
    benchmark: Benchmark, scorer: BenchmarkScorer, groups: Sequence[PromptGroup], progress: bool = False
) -> BenchmarkResult:
    """Score a benchmark's items and aggregate the scores as published.

    Args:
        benchmark: Which.
        scorer: What gives the scores.
        groups: Its items, of :func:`load_benchmark`.
        progress: Whether the scorer shows a progress bar.

    Returns:
        The result. An item that the model cannot read, mostly for its length, is left out of every figure: it stands
        at the end of ``items`` with ``left_out``, the reason, and without scores, and a note counts them. So are
        prompts counted that were cut to fit, which are scored.

    Raises:
        ConfigError: The benchmark needs step scores and the model has none.
        DataError: The model can read no item, or a score is not finite.
    """
    if benchmark.needs_steps and not scores_steps(scorer):
        raise ConfigError(
            f"{benchmark.title} judges the steps of solutions, and this model gives no step scores",
            hint="give a process reward model: rewardlab train --objective process",
        )
    known = readable(scorer.encoder, groups)
    scores, step_scores = scores_and_steps(scorer, known.groups, progress)
    check_scores(known.groups, scores)
    result = benchmark.aggregate(known.groups, scores, step_scores)
    notes = list(result.notes)
    left_out: list[dict[str, Any]] = [
        {"id": group.id, "subset": group.subset, "source": group.source, "left_out": reason_of(error)}
        for group, error in known.left_out
    ]
    if left_out:
        kinds = sorted({item["left_out"].partition(":")[0] for item in left_out})
        notes.append(f"{len(left_out):,} of {len(groups):,} items are left out of every figure: {', '.join(kinds)}")
    if known.truncated:
        notes.append(
            f"{known.truncated:,} of {len(groups):,} items lost the oldest part of their prompt to fit the model"
        )
    return replace(result, items=(*result.items, *left_out), notes=tuple(notes))


def summary_of(benchmark: Benchmark, result: BenchmarkResult) -> dict[str, Any]:
    """The result without its items, as one JSON-able object.

    Returns:
        ``{"benchmark", "title", "measures", "source", "num_items", "num_left_out", "overall": {"num_items", "value",
        "low", "high"} or None, "sections": {name: ...}, "subsets": {name: ...}, "notes": [...]}``.
    """
    num_left_out = sum("left_out" in item for item in result.items)
    return {
        "benchmark": benchmark.name,
        "title": benchmark.title,
        "measures": benchmark.measures,
        "source": benchmark.source,
        "num_items": len(result.items) - num_left_out,
        "num_left_out": num_left_out,
        "overall": result.overall.to_dict() if result.overall else None,
        "sections": {name: figure.to_dict() for name, figure in result.sections.items()},
        "subsets": {name: figure.to_dict() for name, figure in result.subsets.items()},
        "notes": list(result.notes),
    }


def _key(group: PromptGroup) -> tuple[str | None, ...]:
    return group.subset, group.prompt_key, *group.completion_keys


_Source: TypeAlias = tuple[str, str | None, Iterator[tuple[str, Mapping[str, Any]]]]
"""How errors name it, the subset that its path tells, and its rows with their places."""


def _sources(benchmark: Benchmark, files: Sequence[str | Path], split: str | None) -> Iterator[_Source]:
    """The files, folders walked through; without any, the hub's data set."""
    if not files:
        yield benchmark.title, None, _hub_rows(benchmark, split)
    for given in files:
        folder = Path(given)
        if not folder.is_dir() or is_saved_dataset(folder):
            found = {folder.name: given}
        else:
            paths = sorted(filter(is_data_file, folder.rglob(benchmark.file_name or "*")))
            if not paths:
                hint = (
                    "docs/benchmarks.md says which folder is meant"
                    if benchmark.file_name
                    else f"read are {KNOWN_NAMES}"
                )
                raise DataError(f"{given}: no {benchmark.file_name or 'data file'} under this folder", hint=hint)
            found = {path.relative_to(folder).as_posix(): path for path in paths}
        for label, file in found.items():
            told = benchmark.subset_of_file(str(file)) if benchmark.subset_of_file else None
            yield label, told, _rows(file, label, split)


def _rows(file: str | Path, label: str, split: str | None) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Place and row, for every row."""
    for raw in iter_rows(file, split=split):
        if raw.row is None:
            raise DataError(f"{label}:{raw.line}: {raw.problem}", hint="write or download the file again")
        yield f"{label}:{raw.line}", raw.row


def _hub_rows(benchmark: Benchmark, split: str | None) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if benchmark.hub_id is None:
        raise ConfigError(
            f"{benchmark.title} is not on the hub", hint="give its file: --data FILE (docs/benchmarks.md says which)"
        )
    try:
        yield from _rows(benchmark.hub_id, benchmark.hub_id, split or benchmark.split)
    except DataError as error:
        raise DataError(
            f"{benchmark.title}: {error.message}",
            hint=f"without a network, download {benchmark.hub_id} elsewhere and give its file: --data FILE",
        ) from error

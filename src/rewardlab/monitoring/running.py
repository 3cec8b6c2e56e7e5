"""One run of the monitor from file to stored snapshot: what ``rewardlab monitor`` and scripts call.

    with History("rm.history") as history:
        stored = run_canary("runs/rm", ["canary.jsonl"], history)
    alarms = stored.alarms

Rows are read and compared with the history before the model is loaded, so that what is refused is refused at once. This
file joins reading, scoring, testing and storing; it knows no command line and prints nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from rewardlab.data.loading import Reading, read_groups
from rewardlab.evaluation.provenance import warnings_of
from rewardlab.evaluation.scorers import is_ensemble
from rewardlab.monitoring.canary import require_same_rows, test_canary, tolerance_of
from rewardlab.monitoring.figures import snapshot_of
from rewardlab.monitoring.fresh import test_fresh
from rewardlab.monitoring.history import History
from rewardlab.monitoring.snapshots import Finding, Snapshot
from rewardlab.monitoring.thresholds import Thresholds
from rewardlab.scoring.names import members_of, short_name
from rewardlab.scoring.opening import open_scorer
from rewardlab.scoring.scorer import Scorer
from rewardlab.types import PromptGroup

DEFAULTS = Thresholds()


def run_canary(
    model: str | Path,
    files: Sequence[str | Path],
    history: History,
    *,
    thresholds: Thresholds = DEFAULTS,
    format: str = "auto",
    split: str | None = None,
    options: Mapping[str, Any] | None = None,
    progress: bool = False,
    now: datetime | None = None,
) -> Snapshot:
    """Score the canary, hold it against the history, and store it.

    Args:
        model: As :func:`~rewardlab.scoring.opening.open_scorer` has it.
        files: The canary: every row must be good, and the same as in the history's first.
        history: Where the snapshot goes.
        thresholds: The limits.
        format: The rows' format.
        split: The split, of a hub id or a saved dataset.
        options: Of ``open_scorer``.
        progress: Show progress bars on stderr.
        now: Time of the snapshot; by default the present.

    Returns:
        The stored snapshot, with its number and findings.

    Raises:
        DataError: The rows are not the canary's, or cannot be read or scored; nothing is stored.
        CheckpointError: The model cannot be trusted to give scores; nothing is stored.
    """
    reading = read_groups(files, format=format, split=split, strict=True)
    require_same_rows(history, reading.groups)
    scorer = open_scorer(model, **(options or {}))
    snapshot = snapshot_of(
        "canary", scorer, reading.groups, data=_names(files), model=short_name(model), progress=progress, now=now
    )
    # A version that nobody verified is no yardstick for those after it.
    snapshot = replace(snapshot, metrics={**snapshot.metrics, "verified": bool((options or {}).get("verify", True))})
    tolerance, seen = tolerance_of(scorer, snapshot, thresholds), _seen(scorer, reading.groups)
    return history.record(snapshot, lambda before, one: [*test_canary(before, one, thresholds, tolerance), *seen])


def run_baseline(
    model: str | Path,
    files: Sequence[str | Path],
    history: History,
    *,
    format: str = "auto",
    split: str | None = None,
    options: Mapping[str, Any] | None = None,
    against: str | Path | None = None,
    progress: bool = False,
    now: datetime | None = None,
) -> Snapshot:
    """Score labelled comparisons that later fresh windows of the same model are held against, and store them.

    Args:
        model: As for :func:`run_canary`.
        files: Labelled comparisons like those the model will meet, not trained on; every row must be good.
        history: As there.
        format: As there.
        split: As there.
        options: As there.
        against: As for :func:`run_fresh`.
        progress: As there.
        now: As there.

    Returns:
        As there.

    Raises:
        DataError: As there.
        CheckpointError: As there.
    """
    reading = read_groups(files, format=format, split=split, strict=True)
    scorer, other = open_scorer(model, **(options or {})), _opened_against(against, options)
    snapshot = snapshot_of(
        "baseline",
        scorer,
        reading.groups,
        data=_names(files),
        against=other,
        model=short_name(model),
        progress=progress,
        now=now,
    )
    found = [_as_baseline(snapshot), *_seen(scorer, reading.groups)]
    return history.record(snapshot, lambda before, one: found)


def run_fresh(
    model: str | Path,
    files: Sequence[str | Path],
    history: History,
    *,
    thresholds: Thresholds = DEFAULTS,
    format: str = "auto",
    split: str | None = None,
    options: Mapping[str, Any] | None = None,
    against: str | Path | None = None,
    progress: bool = False,
    now: datetime | None = None,
) -> Snapshot:
    """Score a window of labelled comparisons of the current policy, test it, and store it.

    Args:
        model: As for :func:`run_canary`.
        files: The window. A few bad rows are left out and counted.
        history: As there.
        thresholds: As there.
        format: As there.
        split: As there.
        options: As there.
        against: A second scorer, best an ensemble (A,B,C): how far the model's z-scores are above its is watched too.
        progress: As there.
        now: As there.

    Returns:
        As there.

    Raises:
        DataError: As there.
        CheckpointError: As there.
    """
    reading = read_groups(files, format=format, split=split)
    scorer, other = open_scorer(model, **(options or {})), _opened_against(against, options)
    snapshot = snapshot_of(
        "fresh",
        scorer,
        reading.groups,
        data=_names(files),
        against=other,
        model=short_name(model),
        left_out=len(reading.bad_rows),
        progress=progress,
        now=now,
    )
    others = [*_left_out(snapshot, reading), *_on_raw_scores(snapshot), *_seen(scorer, reading.groups)]
    return history.record(snapshot, lambda before, one: [*test_fresh(before, one, thresholds), *others])


def _opened_against(path: str | Path | None, options: Mapping[str, Any] | None) -> Scorer | None:
    """The second scorer, an ensemble's members as z-scores; it shares the first one's machine, nothing else."""
    if path is None:
        return None
    shared: dict[str, Any] = {name: value for name, value in (options or {}).items() if name in _OF_THE_MACHINE}
    return open_scorer(path, **shared, on="z" if members_of(path) is not None else None)


_OF_THE_MACHINE = ("device", "dtype", "engine", "trust_remote_code", "verify", "tokens_per_batch")


def _names(files: Sequence[str | Path]) -> list[str]:
    return [Path(file).name for file in files]


def _seen(scorer: Scorer, groups: Sequence[PromptGroup]) -> list[Finding]:
    """What the contracts say of these rows: trained on, or the temperature fitted on them."""
    if is_ensemble(scorer):
        told = [
            f"{name}: {one}" for name, contract in scorer.contracts.items() for one in warnings_of(contract, groups)
        ]
    else:
        told = warnings_of(scorer.contract, groups)
    return [Finding("data", "warning", one) for one in told]


def _left_out(snapshot: Snapshot, reading: Reading) -> list[Finding]:
    """What of a window's file is not in it: rows that are bad, and rows that the model cannot read."""
    told = [" ".join(reading.left_out().split())] if reading.bad_rows else []
    if unreadable := snapshot.metrics["left_out"] - len(reading.bad_rows):
        told.append(f"{unreadable:,} of {len(reading.groups):,} rows do not fit the model, and are left out")
    return [Finding("data", "warning", one) for one in told]


def _on_raw_scores(snapshot: Snapshot) -> list[Finding]:
    """A gap between scores of which one has no reference set has no unit."""
    gap = snapshot.metrics["gap"]
    if gap is None or "raw" not in gap["scales"]:
        return []
    which = " and ".join(
        name for name, scale in zip(("the model", "--against"), gap["scales"], strict=True) if scale == "raw"
    )
    told = f"{which}: no reference set, so the gap is of raw scores; `rewardlab calibrate --reference` gives one"
    return [Finding("gap scale", "warning", told)]


def _as_baseline(snapshot: Snapshot) -> Finding:
    told = f"stored: fresh windows of this model are held against these {len(snapshot.pairs):,} comparisons from now on"
    return Finding("baseline", "ok", told)

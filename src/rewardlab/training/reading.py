"""Files of rows -> the groups that a training run works with, and in words what was left out.

A row that waits for its label is no bad row: labelling is under way. Such rows are counted apart, and do not count
towards the share of bad rows above which a run stops.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from rewardlab.data.ledger import Quarantine
from rewardlab.data.loading import Reading, read_groups

UNLABELLED = "not labelled yet"
"""Kind of the reason that :mod:`rewardlab.data.labelled` gives for a row whose label is null."""


def read_rows(
    files: Sequence[str],
    *,
    split: str | None,
    format: str,
    quarantine: Path,
    max_bad_fraction: float,
    strict: bool,
    report: Callable[[str], None],
) -> Reading:
    """Read files; rows without a label are dropped, bad ones set aside.

    Args:
        files: Files, folders or hub ids.
        split: Their split.
        format: Their row format.
        quarantine: Where bad rows are written.
        max_bad_fraction: Largest share of rows that may be bad.
        strict: No row may be bad.
        report: Called with what was set aside, where there is any.

    Raises:
        DataError: As :func:`~rewardlab.data.loading.read_groups`.
    """
    reading = read_groups(files, format=format, split=split, max_bad_fraction=None, quarantine=quarantine)
    bad = tuple(row for row in reading.bad_rows if not row.reason.startswith(UNLABELLED))
    unlabelled = len(reading.bad_rows) - len(bad)
    if unlabelled and reading.groups:
        with Quarantine(quarantine) as kept:  # written anew without them
            for row in bad:
                kept.add(row)
        reading = dataclasses.replace(reading, bad_rows=bad, quarantine=quarantine if bad else None)
        reading.ledger.quarantined -= unlabelled
        reading.ledger.dropped += unlabelled
        report(f"{unlabelled_told(reading)}: left out")
    reading.require(max_bad_fraction=max_bad_fraction, strict=strict)
    if bad:
        report(f"{len(bad):,} of {reading.ledger.read:,} rows set aside in {quarantine}:\n{reading.told()}")
    return reading


def unlabelled_told(reading: Reading) -> str:
    """``1 of 50 comparisons has no label yet``; empty where all have one."""
    count = reading.ledger.reasons[UNLABELLED]
    verb = "has" if count == 1 else "have"
    return f"{count:,} of {reading.ledger.read:,} comparisons {verb} no label yet" if count else ""

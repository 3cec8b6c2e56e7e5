"""What one run of the monitor saw and what it makes of it: the records that the history keeps.

A snapshot is complete in itself: figures, each comparison's scores, and the findings as they were worded then, so that
later snapshots can be tested against it and the trends page needs nothing else. No texts are kept, only their hashes.
This file knows records; it opens no file and no model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Kind: TypeAlias = Literal["baseline", "canary", "fresh", "reference", "live"]
"""``baseline``: labelled comparisons that fresh windows are held against; ``canary``: the fixed labelled set;
``fresh``: labelled comparisons of the current policy; ``reference``: the distributions that live ones are held against;
``live``: what a server has scored since the live snapshot before."""

State: TypeAlias = Literal["ok", "learning", "warning", "alarm"]
"""``learning``: there is nothing yet to hold it against; ``warning``: worth a look, no alarm and no exit status."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one watch says at one snapshot. Every watch that was looked at has one, quiet or not.

    Attributes:
        watch: What is watched: ``"accuracy"``, ``"ece"``, ``"canary"``, ``"gap"``, ``"scores"``, ...
        state: What it says.
        message: Why, in one sentence, with the figures.
        value: The figure that decides; None where none does.
        limit: What it must not go beyond (in the direction that the message says); None likewise.
        since: Time of the first snapshot that belongs to the change, as estimated; None where there is none.
    """

    watch: str
    state: State
    message: str
    value: float | None = None
    limit: float | None = None
    since: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """All attributes, as JSON values."""
        return {
            "watch": self.watch,
            "state": self.state,
            "message": self.message,
            "value": self.value,
            "limit": self.limit,
            "since": self.since,
        }


@dataclass(frozen=True, slots=True)
class PairScore:
    """One labelled comparison and its scores.

    Attributes:
        key: Which labelled comparison it is (:func:`~rewardlab.monitoring.keys.pair_key`).
        prompt: Hash of the prompt: comparisons of one prompt are resampled together.
        chosen: Raw score of the preferred completion.
        rejected: Raw score of the other.
        subset: The row's subset.
        gap: How much higher the two completions score, on average, than what the model is held against gives them
            (z-scores); None where it is held against nothing.
    """

    key: str
    prompt: str
    chosen: float
    rejected: float
    subset: str | None = None
    gap: float | None = None

    @property
    def comparison(self) -> str:
        """Which comparison it is, whichever side is preferred (:func:`~rewardlab.monitoring.keys.unlabelled_key`)."""
        return self.key.rstrip("<>")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One run of the monitor.

    Attributes:
        kind: What was looked at.
        at: When, UTC, ISO 8601 with seconds (``"2026-11-21T09:30:00Z"``).
        model: What the model is called.
        fingerprint: Equal for equal checkpoints.
        contract_sha256: SHA-256 of its contract file; None where it has none.
        data: Names of the files, or the server's address.
        data_sha256: Equal for equal labelled groups in any order; None of live snapshots.
        settings: What else decides the scores (device, dtype, layout, versions).
        metrics: Figures, as JSON values; what is in it depends on the kind (``figures.py``, ``live.py``).
        pairs: The comparisons; empty of reference and live snapshots.
        findings: What was made of it.
        number: Its number in the history; None before it is appended.
    """

    kind: Kind
    at: str
    model: str
    fingerprint: str
    contract_sha256: str | None
    data: tuple[str, ...]
    data_sha256: str | None
    settings: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    pairs: tuple[PairScore, ...] = ()
    findings: tuple[Finding, ...] = ()
    number: int | None = None

    @property
    def alarms(self) -> tuple[Finding, ...]:
        """The findings that are alarms."""
        return tuple(finding for finding in self.findings if finding.state == "alarm")

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``: everything but the single comparisons, of which only the number is told."""
        return {
            "kind": self.kind,
            "number": self.number,
            "at": self.at,
            "model": self.model,
            "fingerprint": self.fingerprint,
            "contract_sha256": self.contract_sha256,
            "data": list(self.data),
            "data_sha256": self.data_sha256,
            "settings": dict(self.settings),
            "metrics": dict(self.metrics),
            "num_pairs": len(self.pairs),
            "alarm": bool(self.alarms),
            "findings": [finding.to_dict() for finding in self.findings],
        }

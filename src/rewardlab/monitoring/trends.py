"""A history as the trends page reads it: its versions, which alarms and warnings came and went, and which are in force.

    trends = gather_trends("rm.history")
    [(episode.watch, episode.first) for episode in trends.in_force("alarm")]

The history is only read, and without its single comparisons. This file knows records; it draws and words nothing but
what has gone silent.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

from rewardlab.errors import ConfigError, DataError
from rewardlab.monitoring.history import read_history
from rewardlab.monitoring.snapshots import Finding, Kind, Snapshot, State
from rewardlab.scoring.names import short_name

SCHEDULED: tuple[Kind, ...] = ("fresh", "canary", "live")
"""The kinds that are looked at again and again."""

MOST_VERSIONS = 12
"""Versions that the page shows one by one: the newest."""

_SILENT_AFTER = 3.0  # times the usual interval; one run that is missed is no news
_LOOKS_FOR_A_RHYTHM = 3
_LOOKS_OF_ANOTHER = 3  # after so many of another version, a version's last look is no longer how things stand


@dataclass(frozen=True, slots=True)
class Version:
    """One checkpoint.

    Attributes:
        fingerprint: Which.
        name: What it was called last.
        contracts: The hashes of its contract files, oldest first.
        first: Its first look.
        last: Its last.
        looks: How many of each kind.
    """

    fingerprint: str
    name: str
    contracts: tuple[str, ...]
    first: Snapshot
    last: Snapshot
    looks: dict[str, int]

    @property
    def label(self) -> str:
        """``"rm 1a2b3c4d"``."""
        return f"{self.name} {self.fingerprint[:8]}"


@dataclass(frozen=True, slots=True)
class Episode:
    """An alarm or a warning that was found at one look, or at several without a break.

    Attributes:
        kind: Of the looks.
        fingerprint: Of the version.
        finding: As it was worded last.
        first: The first of the looks.
        last: The last.
        count: How many.
        ended: Whether a later look at the same did not find it.
    """

    kind: Kind
    fingerprint: str
    finding: Finding
    first: Snapshot
    last: Snapshot
    count: int
    ended: bool

    @property
    def since(self) -> str:
        """When it began: as estimated, else its first look."""
        return self.finding.since or self.first.at


@dataclass(frozen=True, slots=True)
class Trends:
    """All looks of a history, or those at one model.

    Attributes:
        name: The history file's name.
        snapshots: In order of number, at least one, without their comparisons.
        versions: In the order in which they were first seen.
        episodes: Every alarm and warning, in the order in which they began.
        now: The present.
    """

    name: str
    snapshots: tuple[Snapshot, ...]
    versions: tuple[Version, ...]
    episodes: tuple[Episode, ...]
    now: datetime

    def of(self, *kinds: Kind) -> list[Snapshot]:
        """The looks of these kinds."""
        return [snapshot for snapshot in self.snapshots if snapshot.kind in kinds]

    def version(self, fingerprint: str) -> Version:
        """The version with this fingerprint."""
        return next(version for version in self.versions if version.fingerprint == fingerprint)

    def holds(self, episode: Episode) -> bool:
        """Whether it is how things stand: not ended, and its version neither replaced nor set aside since."""
        if episode.ended or self.is_replaced(episode.fingerprint):
            return False
        later = Counter(
            one.fingerprint
            for one in self.of(episode.kind)
            if place(one) > place(episode.last) and one.fingerprint != episode.fingerprint
        )
        return max(later.values(), default=0) < _LOOKS_OF_ANOTHER

    def is_replaced(self, fingerprint: str) -> bool:
        """Whether another version was first seen after the last look at this one."""
        last = place(self.version(fingerprint).last)
        return any(place(other.first) > last for other in self.versions)

    def in_force(self, state: State) -> list[Episode]:
        """The alarms or warnings that hold now, in the order in which they began."""
        return [episode for episode in self.episodes if episode.finding.state == state and self.holds(episode)]

    def silences(self) -> list[str]:
        """Which kinds of look have not been made for long, compared with their rhythm, each as a sentence."""
        return [told for kind in SCHEDULED if (told := _silence(kind, self.of(kind), self.now))]


def gather_trends(path: str | Path, *, model: str | None = None, now: datetime | None = None) -> Trends:
    """Read a history.

    Args:
        path: The file that ``rewardlab monitor --history`` wrote.
        model: Only looks at this model: a folder or hub id, or what a snapshot calls it.
        now: The present, by default.

    Raises:
        DataError: There is no such history, it holds nothing yet, or nothing of this model.
    """
    with read_history(path) as history:
        snapshots = [replace(one, model=_called(one.model)) for one in history.snapshots(pairs=False)]
    if not snapshots:
        raise DataError(f"{path}: nothing has been looked at yet", hint="`rewardlab monitor DIR --canary FILE` first")
    if model is not None:
        names = list(dict.fromkeys(one.model for one in snapshots))
        snapshots = [one for one in snapshots if one.model in (model, _called(model))]
        if not snapshots:
            raise DataError(
                f"{path}: nothing in it is of {_called(model)}, only of {', '.join(names[:10])}",
                hint="leave the model out, or name one of these",
            )
    return Trends(
        Path(path).name, tuple(snapshots), _versions(snapshots), _episodes(snapshots), now or datetime.now(UTC)
    )


def place(snapshot: Snapshot) -> int:
    """A stored snapshot's number: which came first."""
    return snapshot.number or 0


def seconds_of(at: str) -> float:
    """A snapshot's time as seconds since 1970."""
    return datetime.fromisoformat(at).timestamp()


def time_words(at: str) -> str:
    """A snapshot's time, to the minute."""
    return at[:16].replace("T", " ")


def label_of(snapshot: Snapshot) -> str:
    """Which version a snapshot is of: ``"rm 1a2b3c4d"``."""
    return f"{snapshot.model} {snapshot.fingerprint[:8]}"


def finding_of(snapshot: Snapshot, watch: str) -> Finding | None:
    """What a watch said at a snapshot; None where it did not look."""
    return next((finding for finding in snapshot.findings if finding.watch == watch), None)


def duration_words(seconds: float) -> str:
    """``"3 days"``, ``"5 hours"``."""
    for unit, length in (("days", 86_400), ("hours", 3_600)):
        if seconds >= 1.95 * length:
            return f"{seconds / length:.3g} {unit}" if seconds < 10 * length else f"{seconds / length:,.0f} {unit}"
    return f"{max(seconds, 0) / 60:.0f} minutes"


def _called(model: str) -> str:
    try:
        return short_name(model)
    except ConfigError:
        return model


def _versions(snapshots: Sequence[Snapshot]) -> tuple[Version, ...]:
    by_fingerprint: dict[str, list[Snapshot]] = {}
    for snapshot in snapshots:
        by_fingerprint.setdefault(snapshot.fingerprint, []).append(snapshot)
    return tuple(
        Version(
            fingerprint,
            looks[-1].model,
            tuple(dict.fromkeys(look.contract_sha256 for look in looks if look.contract_sha256)),
            looks[0],
            looks[-1],
            dict(Counter(look.kind for look in looks)),
        )
        for fingerprint, looks in by_fingerprint.items()
    )


def _episodes(snapshots: Sequence[Snapshot]) -> tuple[Episode, ...]:
    """Every alarm and warning; what one look after the other finds of the same version is one."""
    found: list[Episode] = []
    running: dict[tuple[str, str], dict[tuple[str, str, int], int]] = {}  # looks at the same -> watch -> place in found
    for snapshot in snapshots:
        before = running.get((snapshot.kind, snapshot.fingerprint), {})
        now: dict[tuple[str, str, int], int] = {}
        times: Counter[tuple[str, str]] = Counter()
        for finding in snapshot.findings:
            if finding.state not in ("alarm", "warning"):
                continue
            what: tuple[str, str] = (finding.watch, finding.state)
            key = (*what, times[what])  # one look can have several warnings of one watch
            times[what] += 1
            if key in before:
                episode = found[before[key]]
                now[key] = before[key]
                found[before[key]] = replace(episode, finding=finding, last=snapshot, count=episode.count + 1)
            else:
                now[key] = len(found)
                found.append(Episode(snapshot.kind, snapshot.fingerprint, finding, snapshot, snapshot, 1, False))
        for key, index in before.items():
            if key not in now:
                found[index] = replace(found[index], ended=True)
        running[snapshot.kind, snapshot.fingerprint] = now
    return tuple(found)


def _silence(kind: Kind, looks: Sequence[Snapshot], now: datetime) -> str:
    times = sorted({seconds_of(look.at) for look in looks})
    if len(times) < _LOOKS_FOR_A_RHYTHM:
        return ""
    usual = statistics.median(later - earlier for earlier, later in pairwise(times))
    silent = now.timestamp() - times[-1]
    if silent <= _SILENT_AFTER * usual:
        return ""
    return (
        f"the last {kind} look is {duration_words(silent)} old, and usually there is one every "
        f"{duration_words(usual)}: does the schedule still run?"
    )

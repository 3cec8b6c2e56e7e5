"""Which fresh windows of a history are tested together, and with which of their comparisons.

The windows of one model since its newest baseline; a model that is calibrated again is the same. A comparison counts
once, in the first snapshot that it came in, and with the label that it had last: a file that is read twice, or that
grows from day to day, is no evidence twice, and one that is sent again with labels put right takes back what the wrong
ones had said. Snapshots of few new comparisons wait and are tested together with those that follow. When there are
enough is decided by their number and by what was before, never by how they turned out. This file knows records; it
computes no test.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rewardlab.monitoring.history import History
from rewardlab.monitoring.snapshots import Finding, PairScore, Snapshot
from rewardlab.monitoring.thresholds import Thresholds

FEWEST_PROMPTS = 30
"""Prompts that a tested window is of, at least (counted anew in each snapshot): their mean is then near normal."""

FEWEST_OUTCOMES = 1
"""Wrong comparisons, and right ones, that a tested window is expected to have, at least. In simulations of accuracies
from 0.97 to 0.999 at most 0.2 % of runs of 200 quiet windows had a false alarm; with 0.15 expected, 14 % to 19 %. More
would only let a collapse go unseen for longer."""


@dataclass(frozen=True, slots=True)
class Part:
    """A snapshot and those of its comparisons that no earlier one had."""

    snapshot: Snapshot
    pairs: Sequence[PairScore]


@dataclass(frozen=True, slots=True)
class Window:
    """What is tested at once: one snapshot, or several with few comparisons each."""

    parts: tuple[Part, ...]

    @property
    def pairs(self) -> list[PairScore]:
        """The comparisons of all parts."""
        return [pair for part in self.parts for pair in part.pairs]

    @property
    def day(self) -> str:
        """Of the first part: ``"2026-11-02"``."""
        return self.parts[0].snapshot.at[:10]


@dataclass(frozen=True, slots=True)
class Windows:
    """What a fresh snapshot is tested with.

    Attributes:
        snapshot: It.
        baseline: The model's newest baseline; None where it has none.
        tested: The windows since, in order.
        waiting: What is not tested yet.
        wanting: Why not, in words; empty where nothing waits.
        repeats: The earlier fresh snapshot of the same comparisons, if there is one.
        relabelled: How many comparisons the snapshot labels otherwise than an earlier one, by that one's number.
        other: The last snapshot of another model, where this one has no baseline.
    """

    snapshot: Snapshot
    baseline: Window | None
    tested: tuple[Window, ...]
    waiting: Window
    wanting: str
    repeats: Snapshot | None
    relabelled: dict[int | None, int]
    other: Snapshot | None

    @property
    def new(self) -> int:
        """New comparisons of the snapshot."""
        parts = (*(self.tested[-1].parts if self.tested else ()), *self.waiting.parts)
        return len(parts[-1].pairs) if parts and parts[-1].snapshot is self.snapshot else 0

    @property
    def is_tested(self) -> bool:
        """Whether the snapshot is in a tested window."""
        return bool(self.tested) and self.tested[-1].parts[-1].snapshot is self.snapshot


def windows_of(history: History, snapshot: Snapshot, thresholds: Thresholds) -> Windows:
    """The windows that a fresh snapshot is tested with.

    Args:
        history: What was before; the snapshot is not yet in it.
        snapshot: A fresh one.
        thresholds: ``fewest_pairs`` is the least number of comparisons of a tested window.
    """
    earlier = [*history.snapshots("baseline", pairs=False), *history.snapshots("fresh", pairs=False)]
    own = [one for one in earlier if _model(one) == _model(snapshot)]
    others = [one for one in earlier if _model(one) != _model(snapshot)]
    baseline = next((one for one in reversed(own) if one.kind == "baseline"), None)
    fresh = [one for one in own if one.kind == "fresh" and (baseline is None or _number(one) > _number(baseline))]
    since = {one.number for one in fresh}
    done = [one for one in own if one.kind == "fresh" and one.number not in since]  # before the baseline
    chain = [history.with_pairs(one) for one in ([] if baseline is None else [baseline]) + done + fresh]
    parts, relabelled = _each_once([*chain, snapshot])
    first = None if baseline is None else Window((parts.pop(0),))
    del parts[: len(done)]  # what was tested then is no evidence now
    tested, waiting, wanting = _tested(first, parts, thresholds)
    same = [one for one in (*done, *fresh) if one.data_sha256 == snapshot.data_sha256 is not None]
    return Windows(
        snapshot=snapshot,
        baseline=first,
        tested=tested,
        waiting=waiting,
        wanting=wanting,
        repeats=same[0] if same else None,
        relabelled=relabelled,
        other=max(others, key=_number) if others and baseline is None else None,
    )


def findings_of(windows: Windows) -> list[Finding]:
    """What is to say of the comparisons themselves: that they came before, were labelled otherwise, have no baseline.

    Args:
        windows: Of a fresh snapshot.
    """
    found = []
    total = len(windows.snapshot.pairs)
    known = total - windows.new
    if windows.repeats is not None and known:
        message = f"these {total:,} comparisons were a window at {windows.repeats.at} already; they count once"
        found.append(Finding("window", "warning", message, value=float(known), since=windows.repeats.at))
    elif known:
        message = f"{known:,} of {total:,} comparisons were in the baseline or an earlier window; they count once"
        found.append(Finding("window", "ok", message, value=float(known)))
    if windows.relabelled:
        where = ", ".join(f"{count:,} in snapshot {number}" for number, count in windows.relabelled.items())
        message = f"comparisons are labelled otherwise than before ({where}): the newer label counts, in the old place"
        found.append(Finding("labels", "warning", message, value=float(sum(windows.relabelled.values()))))
    if windows.other is not None:
        found.append(_without_baseline(windows.snapshot, windows.other))
    return found


def _without_baseline(snapshot: Snapshot, other: Snapshot) -> Finding:
    """That a new model begins anew, and what was open of the one before."""
    told = (
        f"{snapshot.model} ({snapshot.fingerprint[:8]}) is another model than {other.model} ({other.fingerprint[:8]}, "
        f"last seen {other.at[:10]}) and has no baseline: it is held against its own first windows, and what is "
        "already wrong in those is not seen; `rewardlab monitor DIR --baseline FILE --history DB` gives one"
    )
    if other.alarms:
        alarms = ", ".join(
            f"{alarm.watch} since {alarm.since[:10]}" if alarm.since else alarm.watch for alarm in other.alarms
        )
        told += f". The model before had an alarm: {alarms}"
    return Finding("baseline", "warning", told, since=other.alarms[0].since if other.alarms else None)


def _each_once(chain: Sequence[Snapshot]) -> tuple[list[Part], dict[int | None, int]]:
    """The parts, and what the last snapshot labels otherwise than those before it, a tie among that."""
    places: dict[str, tuple[list[PairScore | None], int, int | None]] = {}
    held: list[list[PairScore | None]] = []
    relabelled: Counter[int | None] = Counter()
    for one in chain:
        relabelled.clear()
        new: list[PairScore | None] = []
        for pair in one.pairs:
            holder, place, number = places.setdefault(pair.comparison, (new, len(new), one.number))
            before = holder[place] if place < len(holder) else None
            if holder is new and place == len(new):
                new.append(pair)
            elif before is None or before.key != pair.key:
                # The place is its snapshot's, and so is the gap, which is against that one's ensemble.
                holder[place] = pair if before is None else replace(pair, gap=before.gap)
                relabelled[number] += 1
        for comparison in one.metrics.get("tied", ()):
            holder, place, number = places.get(comparison, (new, 0, None))
            if comparison in places and holder[place] is not None:
                holder[place] = None
                relabelled[number] += 1
        held.append(new)
    parts = [Part(one, [pair for pair in new if pair is not None]) for one, new in zip(chain, held, strict=True)]
    return parts, dict(relabelled)


def _tested(
    baseline: Window | None, parts: Sequence[Part], thresholds: Thresholds
) -> tuple[tuple[Window, ...], Window, str]:
    """Parts put together until there are enough of them; what is left over, and what it wants."""
    tested: list[Window] = []
    pool: list[Part] = []
    before, right = (0, 0) if baseline is None else _outcomes(baseline.parts)
    wanting = ""
    for part in parts:
        if part.pairs:
            pool.append(part)
        wanting = _wanting(pool, before, right, thresholds)
        if pool and not wanting:
            tested.append(Window(tuple(pool)))
            count, of_them = _outcomes(pool)
            before, right, pool = before + count, right + of_them, []
    return tuple(tested), Window(tuple(pool)), wanting if pool else ""


def _wanting(pool: Sequence[Part], before: int, right: int, thresholds: Thresholds) -> str:
    """What these have too few of to be tested; empty where nothing."""
    count = sum(len(part.pairs) for part in pool)
    prompts = sum(len({pair.prompt for pair in part.pairs}) for part in pool)
    if count < thresholds.fewest_pairs:
        return f"{count:,} new comparisons wait for {thresholds.fewest_pairs:,} (fewest_pairs)"
    if prompts < (needed := min(FEWEST_PROMPTS, thresholds.fewest_pairs)):
        return f"{count:,} new comparisons of {prompts:,} prompts wait for {needed:,} prompts"
    share = (right + 1) / (before + 2)
    rarer = min(share, 1 - share)
    if before and count * rarer < FEWEST_OUTCOMES:
        what = "wrong" if share > 0.5 else "right"
        return (
            f"{count:,} new comparisons wait for {FEWEST_OUTCOMES / rarer:,.0f}, of which {FEWEST_OUTCOMES} is "
            f"expected to be {what}"
        )
    return ""


def _outcomes(parts: Sequence[Part]) -> tuple[int, int]:
    """Comparisons, and right ones."""
    pairs = [pair for part in parts for pair in part.pairs]
    return len(pairs), sum(pair.chosen > pair.rejected for pair in pairs)


def _model(snapshot: Snapshot) -> str:
    """Equal for a model and the same one calibrated again."""
    return str(snapshot.metrics.get("weights") or snapshot.fingerprint)


def _number(snapshot: Snapshot) -> int:
    return -1 if snapshot.number is None else snapshot.number

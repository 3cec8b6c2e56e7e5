"""The canary: a fixed labelled set that the same model must always score alike, and new versions are compared on.

Two questions. Of a model seen before: are these still its scores? If not, something below it has changed, for its
checkpoint has not. Of a new version: is it worse than the last good one, and than the best one so far? These are paired
tests, for all have scored the same comparisons. This file knows snapshots; it scores nothing and stores nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rewardlab.errors import ContractError, DataError
from rewardlab.metrics.comparison import MarginComparison, compare_margins
from rewardlab.metrics.inputs import as_judged
from rewardlab.modeling.contract import Contract
from rewardlab.monitoring.figures import ENVIRONMENT
from rewardlab.monitoring.history import History
from rewardlab.monitoring.keys import pair_key
from rewardlab.monitoring.snapshots import Finding, PairScore, Snapshot
from rewardlab.monitoring.thresholds import Thresholds
from rewardlab.scoring.scorer import Scorer
from rewardlab.types import Pair, PromptGroup

TOLERANCE_WITHOUT_CONTRACT = 1e-5
"""Of a model without a contract: what the engine's tests hold in float32."""

WATCH = "canary"

_HINT = "put the file back as it was, or begin a new history with the new one"


def require_same_rows(history: History, groups: Sequence[PromptGroup]) -> None:
    """Refuse ties, and rows that are not those of the history's canary, before they are scored.

    Args:
        history: Where the canary's first snapshot is, if any.
        groups: The rows as they are now.

    Raises:
        DataError: Rows prefer neither completion, or are missing, new, or labelled the other way; says how many and
            where the first is.
    """
    ties = [group.name for group in groups for pair in group.pairs if pair.tie]
    if ties:
        raise DataError(
            f"{len(ties):,} canary rows prefer neither completion; the first: {ties[0]}",
            hint="leave them out: a tie is neither right nor wrong, so a canary learns nothing from it",
        )
    earlier = history.snapshots("canary", pairs=False)
    if not earlier:
        return
    first = history.with_pairs(earlier[0])
    known = {pair.key for pair in first.pairs}
    places: dict[str, str] = {}
    turned = []
    for group in groups:
        for pair in map(as_judged, group.pairs):
            places[pair_key(group, pair)] = group.name
            if pair_key(group, Pair(pair.rejected, pair.chosen)) in known:
                turned.append(group.name)
    if turned:
        raise DataError(
            f"{len(turned):,} canary rows now prefer the other completion; the first: {turned[0]}", hint=_HINT
        )
    _require_same_keys(first, places)


def tolerance_of(scorer: Scorer, snapshot: Snapshot, thresholds: Thresholds) -> float:
    """Largest difference of a canary score from the same model's earlier one that is rounding.

    Args:
        scorer: What gave the scores.
        snapshot: The scores.
        thresholds: ``canary_tolerance``, where it is given, is the answer.

    Returns:
        Else the contract's tolerance for the dtype, more where the canary's scores are larger than the probes'; of an
        ensemble the largest of its members', in units of their common scale. Without a contract 1e-5, times the largest
        score where that is above 1.

    Raises:
        DataError: No tolerance is known for this dtype.
    """
    if thresholds.canary_tolerance is not None:
        return thresholds.canary_tolerance
    largest = max(abs(score) for pair in snapshot.pairs for score in (pair.chosen, pair.rejected))
    common = scorer.settings.get("on", "raw")
    return max(_tolerance(model.contract, model.dtype, largest, common) for model in scorer.checkpoints)


def _tolerance(contract: Contract | None, dtype: str, largest: float, common: str) -> float:
    hint = "set canary_tolerance in the thresholds file, a difference of scores"
    if contract is None:
        if dtype != "float32":
            raise DataError(f"nothing says how exact {dtype} scores are: the model has no contract", hint=hint)
        return TOLERANCE_WITHOUT_CONTRACT * max(1.0, largest)
    try:
        tolerance = contract.tolerance(dtype)
    except ContractError as error:
        raise DataError(error.message, hint=hint) from error
    scale = contract.scale
    unit = {"z": scale.reference.std if scale.reference else None, "calibrated": scale.temperature}.get(common) or 1.0
    probed = max([1.0, *(abs(probe.score) for probe in contract.probes)])
    return tolerance / unit * max(1.0, largest * unit / probed)


def test_canary(history: History, snapshot: Snapshot, thresholds: Thresholds, tolerance: float) -> list[Finding]:
    """What the canary says of a model: the same scores as before, or how a new version compares.

    Args:
        history: The snapshots before.
        snapshot: The canary, scored now.
        thresholds: The limits.
        tolerance: Largest difference of the same model's scores that is rounding, as :func:`tolerance_of`.

    Returns:
        One finding ``"canary"``; of a new version ``"accuracy"``, ``"ece"`` and ``"log_loss"`` (never an alarm) too;
        ``"data"`` where subsets are named otherwise than in the first canary.

    Raises:
        DataError: The rows are not those of the history's first canary.
    """
    earlier = history.snapshots("canary", pairs=False)
    if not earlier:
        told = f"stored: {len(snapshot.pairs):,} comparisons, which must stay as they are"
        return [Finding(WATCH, "ok", told)]
    first = history.with_pairs(earlier[0])
    _require_same_keys(first, {pair.key: "" for pair in snapshot.pairs})
    renamed = _renamed(first, snapshot)
    own = next((one for one in earlier if one.fingerprint == snapshot.fingerprint), None)
    if own is not None:
        return [_same_model(history.with_pairs(own), snapshot, tolerance), *_still_worse(own), *renamed]
    return [*_new_version(history, earlier, snapshot, thresholds), *renamed]


def _renamed(first: Snapshot, now: Snapshot) -> list[Finding]:
    """That subsets have other names: what was learned by subset does not go on."""
    before = {pair.key: pair.subset for pair in first.pairs}
    changed = sum(before[pair.key] != pair.subset for pair in now.pairs)
    if not changed:
        return []
    return [Finding("data", "warning", f"{changed:,} comparisons are of another subset than in {_place(first)}")]


def _require_same_keys(first: Snapshot, places: Mapping[str, str]) -> None:
    """Refuse other rows than the first canary's."""
    known = {pair.key: pair for pair in first.pairs}
    missing = [pair for key, pair in known.items() if key not in places]
    new = [key for key in places if key not in known]
    if not missing and not new:
        return
    parts = []
    if missing:
        parts.append(f"{len(missing):,} of its {len(known):,} comparisons are missing or changed")
    if new:
        where = f" (the first: {places[new[0]]})" if places[new[0]] else ""
        parts.append(f"{len(new):,} are new or changed{where}")
    raise DataError(f"this is not the canary that the history began with: {', '.join(parts)}", hint=_HINT)


def _same_model(first: Snapshot, now: Snapshot, tolerance: float) -> Finding:
    """Whether a model's scores are what they were when it was first seen."""
    before = {pair.key: pair for pair in first.pairs}
    differences = [_difference(before[pair.key], pair) for pair in now.pairs]
    largest = max(differences)
    since = _place(first)
    changed = changed_settings(first, now)
    if largest > tolerance:
        beyond = sum(difference > tolerance for difference in differences)
        what = f"what differs since: {'; '.join(changed)}" if changed else "no setting that is recorded differs"
        told = (
            f"the stack changed: {beyond:,} of {len(differences):,} comparisons are scored otherwise than in {since} "
            f"by the same model, by up to {largest:.3g} (allowed: {tolerance:.2g}); {what}"
        )
        return Finding(WATCH, "alarm", told, largest, tolerance, now.at)
    told = f"every score equals {since}'s, bit for bit"
    if largest:
        told = f"every score is within {tolerance:.2g} of {since}; the largest difference is {largest:.2g}"
    otherwise = [one for one in changed if one.partition(":")[0] not in ENVIRONMENT]
    if otherwise:  # what was asked for has changed, and what scores now may not be what serves
        told = f"{told}; but it was scored with other settings: {'; '.join(otherwise)}"
    return Finding(WATCH, "warning" if otherwise else "ok", told, largest, tolerance)


def changed_settings(first: Snapshot, now: Snapshot) -> list[str]:
    """The settings that two snapshots do not share, ``"torch: 2.13.0, then 2.14.0"`` each.

    Args:
        first: The earlier one.
        now: The later one.
    """
    names = dict.fromkeys([*first.settings, *now.settings])
    pairs = {name: (first.settings.get(name), now.settings.get(name)) for name in names}
    return [f"{name}: {before}, then {after}" for name, (before, after) in pairs.items() if before != after]


def _still_worse(first: Snapshot) -> list[Finding]:
    """What was found of this version when it was new, as a reminder: the test itself is made once."""
    return [
        Finding(
            alarm.watch,
            "warning",
            f"as found when this version was new (snapshot {first.number}): {alarm.message}",
            alarm.value,
            alarm.limit,
            alarm.since,
        )
        for alarm in first.alarms
    ]


@dataclass(frozen=True, slots=True)
class _Against:
    """A new version's comparison with one before it."""

    before: Snapshot
    level: float
    found: MarginComparison

    @property
    def name(self) -> str:
        return f"{self.before.model} {self.before.fingerprint[:8]} (snapshot {self.before.number})"


def _new_version(history: History, earlier: Sequence[Snapshot], now: Snapshot, thresholds: Thresholds) -> list[Finding]:
    """How a version that was not seen before compares with the last good one, and with the best.

    Against the last alone, ten versions could each lose a little and the tenth much. The best of several looks better
    than it is, so its share of the level is divided by how many it is the best of.
    """
    firsts = list({one.fingerprint: one for one in reversed(earlier)}.values())[::-1]
    good = [one for one in firsts if not one.alarms and one.metrics.get("verified", True)] or firsts[:1]
    level = thresholds.new_version_p if len(good) == 1 else thresholds.new_version_p / 2
    last = _against(history, good[-1], now, level)
    told = (
        f"{now.model} ({now.fingerprint[:8]}) against {last.before.model} ({last.before.fingerprint[:8]}, "
        f"{_place(last.before)})"
    )
    by_key = {pair.key: pair for pair in last.before.pairs}
    if not any(_difference(by_key[pair.key], pair) for pair in now.pairs):
        new = Finding(WATCH, "ok", f"a new version, whose scores are the old one's, bit for bit: {told}", 0.0)
    elif now.metrics.get("has_lineage"):
        new = Finding(WATCH, "ok", f"a new version: {told}")
    else:
        new = Finding(WATCH, "warning", f"a new version, whose contract does not say what it was made from: {told}")

    def with_best(best: Snapshot) -> list[_Against]:
        if best.number == good[-1].number:
            return [last]
        return [last, _against(history, best, now, level / (len(good) - 1))]

    accurate = max(good, key=lambda one: float(one.metrics["accuracy"]["value"]))
    calibrated = min(good, key=lambda one: float(one.metrics["ece"]["value"]))
    return [
        new,
        _worst([_accuracy(one, now) for one in with_best(accurate)]),
        _worst([_calibration(one, now) for one in with_best(calibrated)]),
        _log_loss(last),
    ]


def _against(history: History, before: Snapshot, now: Snapshot, level: float) -> _Against:
    before = history.with_pairs(before)
    by_key = {pair.key: pair for pair in before.pairs}
    found = compare_margins(
        [by_key[pair.key].chosen - by_key[pair.key].rejected for pair in now.pairs],
        [pair.chosen - pair.rejected for pair in now.pairs],
        [pair.prompt for pair in now.pairs],
        temperatures=(_temperature(before), _temperature(now)),
        resamples=max(2000, round(40 / level)),  # 20 beyond each end
        confidence=1 - level,
    )
    return _Against(before, level, found)


def _worst(findings: Sequence[Finding]) -> Finding:
    """One finding of several: the first alarm's figures, and the words of all."""
    decides = next((one for one in findings if one.state == "alarm"), findings[0])
    return replace(decides, message="; ".join(one.message for one in findings))


def _accuracy(against: _Against, now: Snapshot) -> Finding:
    """McNemar's test; where prompts have several pairs, which it takes for independent, the interval by prompt."""
    found, limit = against.found, against.level
    difference = found.differences["accuracy"]
    if found.num_prompts == found.num_pairs:
        worse = found.only_second < found.only_first and found.mcnemar_p < limit
        value, bound = found.mcnemar_p, limit
    else:
        worse = difference.high is not None and difference.high < 0
        value, bound = difference.value, 0.0
    told = (
        f"accuracy {'fell to ' if worse else ''}{100 * found.second['accuracy']:.1f} % from "
        f"{100 * found.first['accuracy']:.1f} % of {against.name}: right on {found.only_first:,} comparisons only "
        f"before, on {found.only_second:,} only now, McNemar's exact p = {found.mcnemar_p:.3g} (alarm below "
        f"{limit:.3g})"
    )
    if found.num_prompts < found.num_pairs and difference.low is not None and difference.high is not None:
        low, high = 100 * difference.low, 100 * difference.high
        told += f"; by prompt the difference is {low:+.1f} to {high:+.1f} points, which decides"
    return Finding("accuracy", "alarm" if worse else "ok", told, value, bound, now.at if worse else None)


def _calibration(against: _Against, now: Snapshot) -> Finding:
    """The paired bootstrap of the calibration error."""
    told, low = _difference_words("calibration error", "ece", against)
    if low is None:
        return Finding("ece", "ok", told)
    return Finding("ece", "alarm" if low > 0 else "ok", told, low, 0.0, now.at if low > 0 else None)


def _log_loss(against: _Against) -> Finding:
    """The paired bootstrap of the log loss: it sees both, and small miscalibration sooner than the bins do."""
    told, low = _difference_words("log loss", "log_loss", against)
    if low is None:
        return Finding("log_loss", "ok", told)
    return Finding("log_loss", "warning" if low > 0 else "ok", told, low, 0.0)


def _difference_words(words: str, name: str, against: _Against) -> tuple[str, float | None]:
    """How a figure compares, and the lower end of its difference's interval."""
    found = against.found
    difference = found.differences[name]
    rose = "rose to " if difference.low is not None and difference.low > 0 else ""
    told = f"{words} {rose}{found.second[name]:.4f} from {found.first[name]:.4f} of {against.name}"
    if difference.low is None or difference.high is None:
        return f"{told}; all comparisons are of one prompt, so there is no interval", None
    interval = f"{difference.low:+.4f} to {difference.high:+.4f} ({100 * (1 - against.level):.4g} % interval)"
    return f"{told}; the difference is {interval}", difference.low


def _difference(before: PairScore, now: PairScore) -> float:
    return max(abs(now.chosen - before.chosen), abs(now.rejected - before.rejected))


def _place(snapshot: Snapshot) -> str:
    return f"snapshot {snapshot.number} of {snapshot.at}"


def _temperature(snapshot: Snapshot) -> float:
    return float(snapshot.metrics.get("temperature") or 1.0)

"""May a new version of a reward model replace the old one? Both score the same rows; three things must hold.

Accuracy: the new one is shown to be at most a tolerance below the old. Calibration: its calibration error is shown to
be at most a tolerance above. Subsets: in none is it shown to be worse, however good the rest. "Shown" is a bound that
errs in at most 5 % of the cases: few rows show nothing, and then the answer is "undecided" with the number of rows that
would do. That two models do not differ significantly shows nothing by itself, least of all on few rows. Two that give
every row the same scores are one model, as far as these rows go, and need no bound.

What a bound is, :mod:`rewardlab.metrics` says; how the result looks, ``replacement_table.py``.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from rewardlab.calibration.reference import statistics_of
from rewardlab.calibration.shift import ReferenceShift, reference_shift
from rewardlab.errors import ConfigError
from rewardlab.evaluation.provenance import warnings_of
from rewardlab.evaluation.scorers import is_ensemble, pair_temperature
from rewardlab.metrics.bootstrap import Interval
from rewardlab.metrics.comparison import Comparison, compare
from rewardlab.metrics.non_inferiority import design_effect, difference_bounds, pairs_needed
from rewardlab.metrics.pairs import EvaluationResult, evaluate_scores, require_pairs, subsets_of
from rewardlab.modeling.contract import Contract
from rewardlab.types import PromptGroup

if TYPE_CHECKING:
    from rewardlab.scoring.scorer import Scorer

Verdict: TypeAlias = Literal["better", "not worse", "undecided", "worse"]

SURE = 0.95
"""Confidence of each one-sided bound; two of them are an interval of 90 %."""

_SURE_TOLD = f"{100 * SURE:g} % sure"
_MOVED = 0.1  # of the old standard deviation: what counts as a moved score scale
_WIDER = 0.02  # two points: the tolerance that an undecided answer tells the rows of as well
_NEAR_CHANCE = 0.55  # accuracy below which being no worse than the other is no praise
_FEWEST = 10  # pairs for a verdict: with 3 the bound, which is asymptotic, errs in 10 % of the cases
_FEW = 100  # pairs to ask for at least where calibration is undecided; its interval says nothing finer


@dataclass(frozen=True, slots=True)
class WorseSubset:
    """A subset in which the new model is shown to be worse.

    Attributes:
        subset: Its name.
        only_old: Prompts of which the old model has more pairs right.
        only_new: Prompts of which the new one has.
        p: One-sided exact p-value, corrected for the number of subsets.
    """

    subset: str
    only_old: int
    only_new: int
    p: float


@dataclass(frozen=True, slots=True)
class Replacement:
    """Whether the new model may take the old one's place, and why.

    Attributes:
        may_replace: Whether nothing speaks against it that could be shown, and what must be shown is.
        verdict: ``"better"`` and ``"not worse"`` may replace; ``"undecided"``: too few rows; ``"worse"``.
        reasons: One sentence for each criterion.
        accuracy: The difference of the accuracies, new minus old, with its two one-sided bounds.
        ece: The same of the calibration errors; None where they cannot be compared.
        ece_at: At which temperature that is.
        worse_subsets: Where the new model is shown to be worse.
        rows_needed: Comparisons that would decide what is undecided, if the two are as they seem; None where nothing
            is, or no number would.
        tolerance: Loss of accuracy that was tolerated.
        tolerated_ece: Rise of the calibration error that was.
        comparison: Everything measured; first is the old model, and its intervals are two-sided.
        calibrated: Of each figure in the comparison's ``calibrated``, what the old and the new model have at their T.
        shift: How far the scores of these rows moved; None where only :func:`decide` was asked.
        warnings: What a reader must know beside it.
    """

    may_replace: bool
    verdict: Verdict
    reasons: tuple[str, ...]
    accuracy: Interval
    ece: Interval | None
    ece_at: Literal["own T", "T = 1"]
    worse_subsets: tuple[WorseSubset, ...]
    rows_needed: int | None
    tolerance: float
    tolerated_ece: float
    comparison: Comparison
    calibrated: Mapping[str, tuple[float, float]]
    shift: ReferenceShift | None = None
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """All of it, as ``rewardlab compare --json`` prints it."""
        return {
            "may_replace": self.may_replace,
            "verdict": self.verdict,
            "reasons": list(self.reasons),
            "rows_needed": self.rows_needed,
            "tolerance": self.tolerance,
            "tolerated_ece": self.tolerated_ece,
            "one_sided_confidence": SURE,
            "accuracy": self.accuracy.to_dict(),
            "ece": None if self.ece is None else {**self.ece.to_dict(), "at": self.ece_at},
            "worse_subsets": [
                {"subset": one.subset, "only_old": one.only_old, "only_new": one.only_new, "p": one.p}
                for one in self.worse_subsets
            ],
            "comparison": self.comparison.to_dict(),
            "calibrated": {name: {"old": old, "new": new} for name, (old, new) in self.calibrated.items()},
            "shift": None if self.shift is None else self.shift.to_dict(),
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True, slots=True)
class _Found:
    """What one criterion says."""

    state: Literal["shown", "undecided", "worse"]
    reason: str
    rows_needed: int | None = None


def compare_scorers(
    old: Scorer,
    new: Scorer,
    groups: Sequence[PromptGroup],
    *,
    tolerance: float = 0.01,
    tolerated_ece: float = 0.02,
    progress: bool = False,
) -> Replacement:
    """Both models score the same rows; may the new one replace the old?

    Args:
        old: The model in use; an ensemble too.
        new: The one that may take its place.
        groups: Rows with a preference each, that both can read.
        tolerance: Loss of accuracy that is tolerated, as a share.
        tolerated_ece: Rise of the calibration error that is.
        progress: Whether to show a progress bar for each.

    Raises:
        ConfigError: A tolerance is below 0.
        DataError: A row says no preference, or all are ties.
    """
    _require_tolerances(tolerance, tolerated_ece)
    require_pairs(groups)  # before the scoring
    scores = [scorer.score_groups(groups, progress=progress) for scorer in (old, new)]
    temperatures = [pair_temperature(scorer) for scorer in (old, new)]
    first, second = (evaluate_scores(groups, one, temperature=t) for one, t in zip(scores, temperatures, strict=True))
    probabilities = None not in temperatures or not (is_ensemble(old) or is_ensemble(new))
    found = decide(
        first, second, tolerance=tolerance, tolerated_ece=tolerated_ece, scores_are_probabilities=probabilities
    )
    before, after = (statistics_of(groups, one, "these rows") for one in scores)
    shift = reference_shift(before, after)
    warnings = [*_provenance(old, new, groups), *_differences(old, new), *_moved(shift)]
    accuracies = [found.comparison.first["accuracy"], found.comparison.second["accuracy"]]
    if max(accuracies) < _NEAR_CHANCE:
        warnings.append(
            "both models are near chance on these rows (accuracy "
            f"{' and '.join(f'{100 * value:.1f} %' for value in accuracies)}; 50 % is chance): that one is no worse "
            "than the other says nothing for it"
        )
    if found.ece_at == "T = 1" and found.ece is not None and temperatures != [None, None]:
        which = "the old model" if temperatures[0] is None else "the new model"
        warnings.append(
            f"{which} has no temperature fitted on preferences, so calibration was compared at T = 1; `rewardlab "
            "calibrate` fits one"
        )
    return replace(found, shift=shift, warnings=tuple(warnings))


def decide(
    first: EvaluationResult,
    second: EvaluationResult,
    *,
    tolerance: float = 0.01,
    tolerated_ece: float = 0.02,
    scores_are_probabilities: bool = True,
) -> Replacement:
    """The rule, on two evaluations of the same rows.

    Args:
        first: Of the old model.
        second: Of the new one, on the same groups in the same order.
        tolerance: As for :func:`compare_scorers`.
        tolerated_ece: As there.
        scores_are_probabilities: Whether a calibration error means anything: not of an ensemble on a scale without
            probabilities.

    Raises:
        ConfigError: A tolerance is below 0.
        DataError: The two are not of the same rows.
    """
    _require_tolerances(tolerance, tolerated_ece)
    comparison = compare(first, second)
    two_sided = 2 * SURE - 1
    bounded = compare(replace(first, confidence=two_sided), replace(second, confidence=two_sided))
    accuracy, of_accuracy = _accuracy(first, second, comparison, tolerance)
    at: Literal["own T", "T = 1"] = "own T" if bounded.calibrated else "T = 1"
    ece = (bounded.calibrated or bounded.differences)["ece"] if scores_are_probabilities else None
    subsets = _worse_subsets(first, second)
    criteria = [of_accuracy, _calibration(ece, at, comparison.num_pairs, tolerated_ece), _of_subsets(subsets, first)]
    states = {criterion.state for criterion in criteria}
    low = comparison.differences["accuracy"].low
    same = first.pairs == second.pairs and first.temperature == second.temperature
    verdict: Verdict
    if same:
        criteria = [_Found("shown", f"both models give these {comparison.num_pairs:,} comparisons the same scores")]
        verdict = "not worse"
    elif "worse" in states:
        verdict = "worse"
    elif "undecided" in states:
        verdict = "undecided"
    else:
        better = comparison.mcnemar_p < 1 - SURE and low is not None and low > 0
        verdict = "better" if better else "not worse"
    needed = [criterion.rows_needed for criterion in criteria if criterion.state == "undecided"]
    known = [rows for rows in needed if rows is not None]
    return Replacement(
        may_replace=verdict in ("better", "not worse"),
        verdict=verdict,
        reasons=tuple(criterion.reason for criterion in criteria),
        accuracy=accuracy,
        ece=ece,
        ece_at=at,
        worse_subsets=subsets,
        rows_needed=max(known) if known and len(known) == len(needed) and verdict == "undecided" else None,
        tolerance=tolerance,
        tolerated_ece=tolerated_ece,
        comparison=comparison,
        calibrated={name: (first.calibrated[name].value, second.calibrated[name].value) for name in bounded.calibrated},
    )


def points(share: float) -> str:
    """A difference of two shares in points: 0.0125 is +1.3."""
    return f"{round(100 * share, 1) + 0.0:+.1f}"  # + 0.0, so that what is rounded to zero is not -0.0


def change(value: float) -> str:
    """A difference of two figures: +0.250."""
    return f"{round(value, 3) + 0.0:+.3f}"


def _accuracy(
    first: EvaluationResult, second: EvaluationResult, comparison: Comparison, tolerance: float
) -> tuple[Interval, _Found]:
    pairs, old, new = comparison.num_pairs, comparison.only_first, comparison.only_second
    effect = design_effect(_wins_gained(first, second), [pair.prompt for pair in first.pairs])
    low, high = difference_bounds(old / effect, new / effect, pairs / effect, SURE)
    interval = Interval((new - old) / pairs, low, high)
    told = f"accuracy changes by {points(interval.value)} points, by at least {points(low)} ({_SURE_TOLD})"
    limit = f"{points(-tolerance)} {'is' if tolerance else 'or more is'} tolerated"
    if low > -tolerance and pairs >= _FEWEST:
        return interval, _Found("shown", f"{told}; {limit}")
    if high < 0:
        return interval, _Found("worse", f"{told}, and by at most {points(high)}: it is lower; {limit}")

    def needed(tolerated: float) -> int | None:
        rows = pairs_needed((old + new) / pairs, tolerated, effect=effect, confidence=SURE)
        # What is needed is for 80 % of the cases: with as many rows one can still be unlucky, and double them.
        return rows if rows is None or rows > pairs or low > -tolerated else 2 * pairs

    rows = max(needed(tolerance) or _FEWEST, _FEWEST) if pairs < _FEWEST else needed(tolerance)
    more = "no number of rows shows a loss of 0" if rows is None else f"about {rows:,} comparisons would be needed"
    if tolerance < _WIDER and (fewer := needed(_WIDER)) is not None:
        enough = "these would do" if low > -_WIDER else f"about {fewer:,}"
        more = f"{more}; for --tolerance {_WIDER:g} {enough}"
    return interval, _Found("undecided", f"{told}; {limit}: {pairs:,} comparisons do not show it, {more}", rows)


def _calibration(ece: Interval | None, at: str, pairs: int, tolerated: float) -> _Found:
    if ece is None:
        return _Found("shown", "calibration is not compared: the scores of an ensemble are no probabilities")
    if ece.low is None or ece.high is None:
        return _Found("undecided", "calibration: all comparisons are of one prompt, which says nothing of others")
    most = f"by at most {change(ece.high)} ({_SURE_TOLD})"
    told = f"the calibration error (ECE at {at}) changes by {change(ece.value)}, {most}"
    limit = f"{change(tolerated)} is tolerated"
    if ece.high <= tolerated:
        return _Found("shown", f"{told}; {limit}")
    if ece.low > 0:
        return _Found("worse", f"{told}, and by at least {change(ece.low)}: it is higher; {limit}")
    if ece.value >= tolerated:
        return _Found("undecided", f"{told}; {limit}: only more comparisons can say whether the rise is real")
    half = ece.high - ece.value
    rows = max(_FEW, pairs + 1, math.ceil(pairs * (half / (tolerated - ece.value)) ** 2))
    return _Found("undecided", f"{told}; {limit}: about {rows:,} comparisons would be needed", rows)


def _of_subsets(worse: Sequence[WorseSubset], first: EvaluationResult) -> _Found:
    count = len(subsets_of(first.pairs))
    if worse:
        named = ", ".join(
            f"{one.subset} ({one.only_old} prompts lost, {one.only_new} won, p = {one.p:.2g})" for one in worse
        )
        return _Found("worse", f"shown to be worse in {len(worse)} of {count} subsets: {named}")
    return _Found("shown", f"shown to be worse in none of {count} subsets" if count else "the rows have no subsets")


def _worse_subsets(first: EvaluationResult, second: EvaluationResult) -> tuple[WorseSubset, ...]:
    """Exact McNemar test in each subset, one-sided, on prompts (a prompt counts once), corrected as Holm does.

    References:
        Holm 1979 (Scandinavian Journal of Statistics 6:65).
    """
    from scipy.stats import binomtest

    gained = _wins_gained(first, second)
    tested = []
    for name, places in subsets_of(first.pairs).items():
        of_prompt: dict[str, int] = defaultdict(int)
        for place in places:
            of_prompt[first.pairs[place].prompt] += gained[place]
        lost, won = (sum(sign * net > 0 for net in of_prompt.values()) for sign in (-1, 1))
        p = float(binomtest(lost, lost + won, alternative="greater").pvalue) if lost + won else 1.0
        tested.append(WorseSubset(name, lost, won, p))
    found, corrected = [], 0.0
    for rank, one in enumerate(sorted(tested, key=lambda one: one.p)):
        corrected = max(corrected, min(1.0, one.p * (len(tested) - rank)))
        if corrected < 1 - SURE:
            found.append(replace(one, p=corrected))
    return tuple(found)


def _wins_gained(first: EvaluationResult, second: EvaluationResult) -> list[int]:
    """Per pair 1 where only the new model is right, -1 where only the old one is, else 0."""
    return [int(b.margin > 0) - int(a.margin > 0) for a, b in zip(first.pairs, second.pairs, strict=True)]


def _require_tolerances(tolerance: float, tolerated_ece: float) -> None:
    for name, value in (("tolerance", tolerance), ("tolerated_ece", tolerated_ece)):
        if not 0 <= value < 1:
            raise ConfigError(f"{name} must be at least 0 and below 1, got {value}", hint="0.01 is one point")


def _contracts(scorer: Scorer) -> Mapping[str, Contract]:
    """The contracts of a model, or of an ensemble's members, by what a message calls them."""
    if is_ensemble(scorer):
        return scorer.contracts
    return {} if scorer.contract is None else {"": scorer.contract}


def _provenance(old: Scorer, new: Scorer, groups: Sequence[PromptGroup]) -> list[str]:
    """What the contracts say of these rows; once where it is true of both models."""
    found: dict[str, list[str]] = {}
    for side, scorer in (("the old model", old), ("the new model", new)):
        for name, contract in _contracts(scorer).items():
            for told in warnings_of(contract, groups):
                found.setdefault(told, []).append(f"{side}{f' ({name})' if name else ''}")
    both = ["the old model", "the new model"]
    return [f"{'both models' if sides == both else ', '.join(sides)}: {told}" for told, sides in found.items()]


def _differences(old: Scorer, new: Scorer) -> list[str]:
    """What else differs than the weights, of two single models."""
    a, b = old.contract, new.contract
    if a is None or b is None or is_ensemble(old) or is_ensemble(new):
        return []
    found = []
    trained = (a.data.get("train") or {}).get("sha256")
    named = {line.get("fingerprint") for line in b.lineage}
    named_data = {(line.get("data", {}).get("train") or {}).get("sha256") for line in b.lineage}
    # A calibration after the refresh changes the fingerprint, and what it was trained on stays.
    if old.fingerprint not in {new.fingerprint, *named} and (trained is None or trained not in named_data):
        found.append("the new model's lineage does not name the old one: it is no refresh of it")
    if a.template_sha256 != b.template_sha256:
        found.append("the two read different chat templates: what renders text for one is wrong for the other")
    if a.max_length != b.max_length:
        found.append(f"the longest sequence was {a.max_length:,} tokens and is {b.max_length:,}")
    if a.head != b.head:
        found.append("the two are read differently (kind of head or aggregation): their raw scores mean other things")
    return found


def _moved(shift: ReferenceShift) -> list[str]:
    if shift.mean_shift is None or shift.std_ratio is None:
        return []
    if abs(shift.mean_shift) <= _MOVED and abs(shift.std_ratio - 1) <= _MOVED:
        return []
    return [
        f"the score scale moved (on these rows: mean {shift.mean_shift:+.2f} of the old std, std x "
        f"{shift.std_ratio:.2f}): RL that consumes raw scores, thresholds and beta must be set anew, or use a scale"
    ]

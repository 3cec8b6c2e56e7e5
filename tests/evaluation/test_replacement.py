"""May the new model replace the old one? Hand-made outcomes, and the rule's error rates by simulation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from rewardlab.errors import ConfigError, DataError
from rewardlab.evaluation.replacement import Replacement, change, compare_scorers, decide, points
from rewardlab.metrics.pairs import EvaluationResult, evaluate_scores
from rewardlab.types import Pair, PromptGroup


def _evaluated(
    margins: Sequence[float],
    subsets: Sequence[str | None] | None = None,
    temperature: float | None = 1.0,
    size: int = 1,
) -> EvaluationResult:
    names = subsets or [None] * len(margins)
    groups = [
        PromptGroup(f"p{number // size}", ("good", "bad"), (Pair(),), subset=name) for number, name in enumerate(names)
    ]
    return evaluate_scores(groups, [[margin, 0.0] for margin in margins], temperature=temperature, resamples=200)


def _margins(right: int, wrong: int, confidence: float = 1.4) -> list[float]:
    return [confidence] * right + [-confidence] * wrong


def test_models_that_are_right_about_the_same_pairs_once_there_are_rows_enough() -> None:
    """Without a differing pair the bound is 2.71 / (n + 2.71): below 1 % from 268 pairs on."""
    few, enough = ([_evaluated(_margins(3 * n, n, sure)) for sure in (1.4, 1.41)] for n in (50, 75))
    undecided, found = decide(*few), decide(*enough)
    assert (undecided.verdict, undecided.may_replace, undecided.rows_needed) == ("undecided", False, 268)
    assert "about 268 comparisons" in undecided.reasons[0]
    assert "for --tolerance 0.02 these would do" in undecided.reasons[0]  # 2.71 / 202.71 = 1.3 %
    assert (found.verdict, found.may_replace, found.rows_needed) == ("not worse", True, None)
    assert found.ece is not None
    assert found.ece.value == pytest.approx(0, abs=0.005)


def test_the_same_scores_are_never_undecided() -> None:
    few = _evaluated(_margins(3, 2))
    found = decide(few, few)
    assert (found.verdict, found.may_replace, found.rows_needed) == ("not worse", True, None)
    assert found.reasons == ("both models give these 5 comparisons the same scores",)
    assert decide(few, _evaluated(_margins(3, 2), temperature=2.0)).verdict == "undecided"


def test_what_rounds_to_zero_has_no_sign_to_wonder_about() -> None:
    assert (points(-0.0004), points(0.0125), points(-0.01)) == ("+0.0", "+1.2", "-1.0")
    assert (change(-0.0004), change(-0.0), change(0.25)) == ("+0.000", "+0.000", "+0.250")


def test_better_and_worse() -> None:
    old, new = _evaluated(_margins(600, 400)), _evaluated(_margins(700, 300, 0.85))
    better, worse = decide(old, new), decide(new, old)
    assert (better.verdict, better.may_replace) == ("better", True)
    assert (worse.verdict, worse.may_replace) == ("worse", False)
    assert "it is lower" in worse.reasons[0]
    assert better.accuracy.value == pytest.approx(0.1)
    assert better.comparison.only_second == 100


def test_few_rows_are_undecided_and_say_how_many_would_do() -> None:
    """5 of 100 pairs each way: 6.18 * 0.1 / 0.01^2 = 6,183."""
    old = _margins(70, 30)
    new = [*[-m for m in old[:5]], *old[5:95], *[-m for m in old[95:]]]
    found = decide(_evaluated(old), _evaluated(new), tolerated_ece=0.5)
    assert (found.verdict, found.rows_needed) == ("undecided", 6183)
    assert "6,183 comparisons would be needed; for --tolerance 0.02 about 1,546" in found.reasons[0]  # a quarter
    assert decide(_evaluated(old), _evaluated(new), tolerance=0.1, tolerated_ece=0.5).may_replace
    nothing = decide(_evaluated(old), _evaluated(new), tolerance=0, tolerated_ece=0.5)
    assert (nothing.verdict, nothing.rows_needed) == ("undecided", None)


def test_calibration_alone_can_stop_it() -> None:
    """Three in four are right; a confidence of 0.75 is calibrated, one of 0.99 is off by 0.24."""
    calibrated, sure = _evaluated(_margins(1500, 500, float(np.log(3)))), _evaluated(_margins(1500, 500, 4.6))
    found = decide(calibrated, sure)
    assert (found.verdict, found.ece_at) == ("worse", "own T")
    assert found.calibrated["ece"] == pytest.approx((0.0, 0.24), abs=0.001)
    assert found.to_dict()["calibrated"]["ece"]["new"] == found.calibrated["ece"][1]
    assert "it is higher" in found.reasons[1]
    assert decide(calibrated, sure, scores_are_probabilities=False).verdict == "not worse"
    without = [_evaluated(_margins(1500, 500, m), temperature=None) for m in (float(np.log(3)), 4.6)]
    assert decide(*without).ece_at == "T = 1"


def test_one_subset_that_is_worse_is_enough() -> None:
    """Twelve lost and none won in one of two subsets: p = 2^-12, times 2; the whole gains 30 pairs."""
    old = [1.0] * 100 + [-1.0] * 400 + [1.0] * 1500
    new = [-1.0] * 12 + [1.0] * 88 + [1.0] * 42 + [-1.0] * 358 + [1.0] * 1500
    subsets = ["a"] * 100 + ["b"] * 1900
    found = decide(_evaluated(old, subsets), _evaluated(new, subsets), tolerated_ece=0.5)
    assert found.verdict == "worse"
    (worse,) = found.worse_subsets
    assert (worse.subset, worse.only_old, worse.only_new) == ("a", 12, 0)
    assert worse.p == pytest.approx(2 * binomtest(12, 12, alternative="greater").pvalue)


def test_a_prompt_counts_once_in_a_subset() -> None:
    """Twelve pairs that are lost together with their one prompt are one loss: no evidence."""
    old, new = [1.0] * 600, [-1.0] * 12 + [1.0] * 588
    subsets = ["a"] * 24 + ["b"] * 576
    found = decide(_evaluated(old, subsets, size=12), _evaluated(new, subsets, size=12))
    assert found.worse_subsets == ()
    assert found.verdict == "undecided"


@pytest.mark.parametrize("options", [{"tolerance": -0.1}, {"tolerated_ece": 1.0}])
def test_tolerances_out_of_range_are_refused(options: dict[str, float]) -> None:
    one = _evaluated([1.0, -1.0])
    with pytest.raises(ConfigError, match="at least 0 and below 1"):
        decide(one, one, **options)


def test_other_rows_are_refused() -> None:
    with pytest.raises(DataError, match="not of the same pairs"):
        decide(_evaluated([1.0, 1.0]), _evaluated([1.0, 1.0], ["a", "b"]))


def _simulated(rng: np.random.Generator, noise: float, rows: int) -> Replacement:
    """Two models that see the true logit through noise, the old one's 0.5; on the scale on which each is calibrated.

    The logit t is normal with variance 4. Seen as m = t + e, the best guess of t is m * 4 / (4 + noise^2).
    """
    truth = rng.normal(0, 2, rows)
    preferred = np.where(rng.random(rows) < 1 / (1 + np.exp(-truth)), 1, -1)
    old, new = (preferred * (truth + rng.normal(0, sd, rows)) * 4 / (4 + sd**2) for sd in (0.5, noise))
    subsets = ["a" if number % 2 else "b" for number in range(rows)]
    return decide(_evaluated(old.tolist(), subsets), _evaluated(new.tolist(), subsets), tolerance=0.02)


@pytest.mark.slow
def test_the_whole_rule_errs_as_seldom_as_it_says() -> None:
    """Equal models are called worse in at most 5 % for each criterion; one some 3 points worse passes in at most 5 %.

    By simulation of 4 million, sign(t + e) is right in 76.6 % with noise 0.5, in 73.3 % with noise 1.1.
    """
    rng, runs = np.random.default_rng(0), 40
    equal = [_simulated(rng, 0.5, 1200).verdict for _ in range(runs)]
    worse = [_simulated(rng, 1.1, 1200) for _ in range(runs)]
    assert equal.count("worse") <= 0.1 * runs
    assert equal.count("better") <= 0.1 * runs
    assert sum(found.may_replace for found in worse) <= 0.05 * runs
    assert sum(found.verdict == "worse" for found in worse) > 0.5 * runs


class _Fixed:
    """A scorer of fixed scores, without a contract."""

    is_ensemble = False
    contract = None

    def __init__(self, scores: Sequence[Sequence[float]]) -> None:
        from rewardlab.calibration.scale import ScoreScale

        self.scores, self.reference_scale = scores, ScoreScale(None, None)

    def score_groups(self, groups: Sequence[PromptGroup], *, progress: bool = False) -> Any:
        return self.scores


def test_a_moved_scale_is_told() -> None:
    groups = [PromptGroup(f"p{n}", (f"good {n}", f"bad {n}"), (Pair(),)) for n in range(400)]
    scores = np.random.default_rng(0).normal((1, 0), 1, (400, 2))
    same: Any = _Fixed(scores.tolist())
    moved: Any = _Fixed((3 + 2 * scores).tolist())
    assert compare_scorers(same, same, groups).warnings == ()
    found = compare_scorers(same, moved, groups)
    assert found.shift is not None
    assert found.shift.comparable
    assert found.shift.std_ratio == pytest.approx(2.0)
    (warning,) = found.warnings
    assert "the score scale moved" in warning
    assert found.to_dict()["shift"]["std_ratio"] == pytest.approx(2.0)


def test_two_models_near_chance_are_told_of_once() -> None:
    groups = [PromptGroup(f"p{n}", ("good", "bad"), (Pair(),)) for n in range(400)]
    scores = np.random.default_rng(0).normal(0, 1, (400, 2))
    guessing: Any = _Fixed(scores.tolist())
    (warning,) = compare_scorers(guessing, guessing, groups).warnings
    assert warning.startswith("both models are near chance on these rows (accuracy ")

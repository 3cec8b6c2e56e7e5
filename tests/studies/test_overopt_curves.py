"""Curves of gold against KL: peaks, drops, functional forms; and what a proxy's error must do to them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize

from rewardlab.metrics.bootstrap import Interval
from rewardlab.studies.overopt_curves import (
    SeedCurve,
    cross_fitted_drop,
    fit_law,
    gold_at,
    over_seeds,
    peak_of,
    seed_curve,
    t_interval,
)

D = np.linspace(0.2, 3.0, 15)


def test_the_peak_is_the_first_highest_point_and_the_drop_is_from_there_to_the_end():
    peak = peak_of([0.0, 1.0, 2.0, 3.0], [0.0, 5.0, 5.0, 3.5])
    assert (peak.index, peak.kl, peak.gold, peak.drop) == (1, 1.0, 5.0, 1.5)
    rising = peak_of([0.0, 1.0], [0.0, 2.0])
    assert (rising.index, rising.drop) == (1, 0.0)


def test_the_drop_is_measured_on_the_prompts_on_which_the_peak_was_not_looked_for():
    """Even prompts: mean (0, 4, 1), peak at 1. Odd: (0, 2, 3), peak at 2.

    Odd measured at the even's peak: 2 - 3 = -1. Even at the odd's: 1 - 1 = 0. Mean -1/2, where the plain drop of the
    whole (0, 3, 2) is 1.
    """
    gold = [[0, 3, 1], [0, 2, 3], [0, 5, 1], [0, 2, 3]]
    assert cross_fitted_drop(gold) == pytest.approx(-0.5)
    assert peak_of([0, 1, 2], np.mean(gold, axis=0)).drop == pytest.approx(1.0)


def test_a_curve_that_does_not_fall_has_a_cross_fitted_drop_of_zero_on_average():
    """Pure noise: the plain drop is the expected maximum of noise, the cross-fitted one 0 within 4 standard errors."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(400, 16, 6))
    drops = [cross_fitted_drop(one) for one in noise]
    plain = [peak_of(range(6), one.mean(axis=0)).drop for one in noise]
    assert abs(np.mean(drops)) < 4 * np.std(drops) / math.sqrt(len(drops))
    assert np.mean(plain) > 10 * np.std(plain) / math.sqrt(len(plain))


def test_a_drop_needs_two_prompts():
    with pytest.raises(ValueError, match="two prompts or more"):
        cross_fitted_drop([[1.0, 2.0]])


@given(st.floats(0.1, 5), st.floats(0.05, 3))
def test_the_form_of_best_of_n_is_recovered(alpha, beta):
    """Its maximum is at d = alpha / (2 beta), alpha^2 / (4 beta) high."""
    fit = fit_law(D**2, D * (alpha - beta * D), "best_of_n")
    assert (fit.alpha, fit.beta) == (pytest.approx(alpha), pytest.approx(beta))
    assert fit.peak_kl == pytest.approx((alpha / (2 * beta)) ** 2)
    assert fit.peak_gold == pytest.approx(alpha**2 / (4 * beta))
    assert fit.rmse < 1e-9


@given(st.floats(-1, 3), st.floats(0.2, 3))
def test_the_form_of_reinforcement_learning_is_recovered(alpha, beta):
    """Its maximum, found numerically, is where the fit says."""
    fit = fit_law(D**2, D * (alpha - beta * np.log(D)), "rl")
    assert (fit.alpha, fit.beta) == (pytest.approx(alpha, abs=1e-9), pytest.approx(beta))
    at = math.exp(alpha / beta - 1)
    found = optimize.minimize_scalar(lambda d: -d * (alpha - beta * math.log(d)), bounds=(at / 10, at * 10))
    assert fit.peak_kl == pytest.approx(found.x**2, rel=1e-2)
    assert fit.peak_gold == pytest.approx(-found.fun, rel=1e-4)


def test_noisy_points_are_fitted_as_scipy_does():
    rng = np.random.default_rng(1)
    gold = D * (2.0 - 0.6 * D) + 0.1 * rng.normal(size=len(D))
    fit = fit_law(D**2, gold, "best_of_n")
    found = optimize.least_squares(lambda p: D * (p[0] - p[1] * D) - gold, (1.0, 1.0))
    assert [fit.alpha, fit.beta] == pytest.approx(found.x.tolist(), rel=1e-5)
    assert fit.rmse == pytest.approx(math.sqrt(2 * found.cost / len(D)), rel=1e-5)


@pytest.mark.parametrize("law", ["best_of_n", "rl"])
def test_a_gold_that_keeps_rising_has_no_fitted_peak(law):
    fit = fit_law(D**2, 0.5 * D + 0.1 * D**2, law)
    assert (fit.beta < 0, fit.peak_kl, fit.peak_gold) == (True, None, None)


def test_a_gold_that_only_falls_has_no_fitted_peak_of_best_of_n():
    assert fit_law(D**2, -0.5 * D - 0.1 * D**2, "best_of_n").peak_kl is None


def test_a_fit_needs_three_points_away_from_the_start():
    with pytest.raises(ValueError, match="three points"):
        fit_law([0.0, 1.0, 2.0], [0.0, 1.0, 1.0], "rl")


def test_a_t_interval_over_three_seeds():
    """1, 2, 3: mean 2, standard deviation 1, half-width 4.3027 / sqrt(3)."""
    found = t_interval([1.0, 2.0, 3.0])
    assert (found.value, found.high) == (2.0, pytest.approx(2 + 4.302653 / math.sqrt(3), abs=1e-5))
    assert t_interval([1.5]) == Interval(1.5, None, None)


def flat_curve(*gold, kl=(0.0, 1.0, 4.0, 9.0), drop=0.0):
    points = tuple(Interval(value, value - 1, value + 1) for value in gold)
    return SeedCurve((1, 2, 4, 8), kl, points, points, drop)


def test_seeds_become_one_curve():
    """Peaks at KL 1 (3.0) and at KL 4 (4.0); the mean (0, 2.5, 3, 1) has its own at KL 4."""
    curve = over_seeds([flat_curve(0, 3, 2, 1, drop=2.0), flat_curve(0, 2, 4, 1, drop=3.0)], "best_of_n")
    assert [point.value for point in curve.gold] == [0, 2.5, 3, 1]
    assert (curve.peak.kl, curve.peak.gold, curve.peak.drop) == (4.0, 3.0, 2.0)
    assert (curve.peak_kls, curve.peak_gold.value) == ((1.0, 4.0), 3.5)
    assert (curve.drop.value, curve.end_gold.value) == (2.5, 1.0)
    assert not curve.falls, "two seeds' t interval reaches far below 0"
    assert curve.fit is not None


def test_one_seed_keeps_its_intervals_over_prompts():
    curve = over_seeds([flat_curve(0, 3, 2, 1, drop=2.0)], "rl")
    assert curve.gold[1] == Interval(3, 2, 4)
    assert curve.falls


def test_seeds_of_different_steps_are_not_averaged():
    other = SeedCurve((1, 2), (0.0, 1.0), (Interval(0, None, None),) * 2, (Interval(0, None, None),) * 2, 0.0)
    with pytest.raises(ValueError, match="same steps"):
        over_seeds([flat_curve(0, 1, 2, 3), other], "rl")


def test_a_seeds_curve_comes_back_from_json():
    curve = seed_curve([1, 2], [0.0, 0.2], [[0.0, 1.0], [0.0, 2.0]], [[0.0, 1.0], [0.0, 1.0]])
    assert curve.gold[1].value == 1.5
    assert 1.0 <= curve.gold[1].low <= curve.gold[1].high <= 2.0
    assert SeedCurve.from_dict(json.loads(json.dumps(curve.to_dict()))) == curve


def test_gold_between_two_points_is_straight_in_the_root_of_kl():
    """At KL 1, 4 (d = 1, 2) gold is 1, 3; at KL 2.25, d = 1.5, it is 2. Points need not come in the order of KL."""
    points = tuple(Interval(value, None, None) for value in (0.0, 3.0, 1.0))
    curve = SeedCurve((0, 1, 2), (-1e-9, 4.0, 1.0), points, points, 0.0)
    assert gold_at(curve, 2.25) == pytest.approx(2.0)
    assert gold_at(curve, 4.0) == pytest.approx(3.0)
    assert gold_at(curve, 4.01) is None

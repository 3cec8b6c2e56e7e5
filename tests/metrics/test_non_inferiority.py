"""The paired score test: against McNemar, a direct maximisation of the likelihood, and simulations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import norm

from rewardlab.metrics.non_inferiority import design_effect, difference_bounds, pairs_needed, score_z

_LIMIT = float(norm.ppf(0.95))


def test_at_zero_it_is_mcnemars() -> None:
    """(15 - 5) / sqrt(15 + 5) = 2.236."""
    assert float(score_z(5, 15, 100, 0.0)) == pytest.approx(10 / math.sqrt(20))
    assert float(score_z(0, 0, 100, 0.0)) == 0.0  # nothing differs: nothing is known of a difference from zero


@given(b=st.integers(0, 30), c=st.integers(0, 30), others=st.integers(5, 60), difference=st.floats(-0.25, 0.25))
def test_the_restricted_likelihood_is_at_its_maximum(b: int, c: int, others: int, difference: float) -> None:
    """The variance is that of the likeliest cell probabilities with this difference; here found by a numeric search.

    Cells: only first q, only second q + d, the rest 1 - 2 q - d. Variance of (c - b): n (2 q + d - d^2).
    """
    n = b + c + others

    def unlikely(q: float) -> float:
        cells = ((b, q), (c, q + difference), (others, 1 - 2 * q - difference))
        return -sum(count * math.log(max(p, 1e-300)) for count, p in cells if count)

    low, high = max(0.0, -difference), (1 - difference) / 2
    q = minimize_scalar(unlikely, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
    variance = n * (2 * q + difference - difference**2)
    if variance > 1e-6:
        expected = (c - b - n * difference) / math.sqrt(variance)
        assert float(score_z(b, c, n, difference)) == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_bounds_are_where_the_test_just_rejects() -> None:
    low, high = difference_bounds(12, 20, 300)
    assert float(score_z(12, 20, 300, low)) == pytest.approx(_LIMIT, abs=1e-6)
    assert float(score_z(12, 20, 300, high)) == pytest.approx(-_LIMIT, abs=1e-6)
    assert low < 8 / 300 < high
    swapped = difference_bounds(20, 12, 300)
    assert swapped == pytest.approx((-high, -low), abs=1e-9)


@pytest.mark.parametrize("n", [1, 20, 268, 5000])
def test_models_that_never_differ_still_leave_a_difference_possible(n: int) -> None:
    """With b = c = 0, z(-d) = sqrt(n d / (1 - d)), so the bound is z^2 / (n + z^2): of 20 pairs 0.119."""
    low, high = difference_bounds(0, 0, n)
    assert -low == pytest.approx(_LIMIT**2 / (n + _LIMIT**2), rel=1e-6)
    assert high == pytest.approx(-low, rel=1e-6)


def test_all_pairs_won_or_lost() -> None:
    low, high = difference_bounds(0, 10, 10)
    assert 0 < low < 1
    assert high == 1.0


def _shown(rng: np.random.Generator, n: int, lost: float, won: float, tolerance: float, runs: int) -> float:
    """Share of simulated comparisons in which at most ``tolerance`` is shown to be lost."""
    cells = rng.multinomial(n, [lost, won, 1 - lost - won], size=runs)
    return float((score_z(cells[:, 0], cells[:, 1], n, -tolerance) > _LIMIT).mean())


@pytest.mark.parametrize(("n", "discordant"), [(300, 0.05), (1500, 0.2), (1500, 0.04), (6000, 0.1)])
def test_a_model_worse_by_the_tolerance_passes_in_five_percent(n: int, discordant: float) -> None:
    """At the limit itself the stated 5 % (within 1.5 points, for counts are whole numbers); 3 points below, never."""
    rng = np.random.default_rng(0)
    at_limit = _shown(rng, n, (discordant + 0.01) / 2, (discordant - 0.01) / 2, 0.01, 20_000)
    assert at_limit < 0.065
    assert _shown(rng, n, (discordant + 0.03) / 2, (discordant - 0.03) / 2, 0.01, 20_000) < 0.01


@pytest.mark.parametrize(("discordant", "tolerance"), [(0.2, 0.01), (0.1, 0.02), (0.3, 0.03), (0.001, 0.01)])
def test_pairs_needed_are_enough_four_times_in_five(discordant: float, tolerance: float) -> None:
    n = pairs_needed(discordant, tolerance)
    assert n is not None
    share = _shown(np.random.default_rng(1), n, discordant / 2, discordant / 2, tolerance, 10_000)
    assert 0.76 < share < (0.84 if discordant > 0.01 else 1.0)


def test_no_number_of_pairs_shows_a_loss_of_nothing() -> None:
    assert pairs_needed(0.1, 0.0) is None
    assert pairs_needed(0.1, 0.01, effect=2) == pytest.approx(2 * 6183, abs=1)


def test_pairs_that_go_together_count_less() -> None:
    """Four pairs per prompt, all alike: the mean of 4 equal values has 4 times the variance that 4 independent have."""
    prompts = [f"p{number // 4}" for number in range(400)]
    alike = np.repeat(np.random.default_rng(2).choice([-1, 0, 1], size=100), 4)
    assert design_effect(alike, prompts) == pytest.approx(4.0)
    assert design_effect(np.random.default_rng(3).choice([-1, 0, 1], size=400), prompts) < 1.5
    assert design_effect(np.zeros(400), prompts) == 4.0  # nothing differs: the most it can be
    assert design_effect([1, 0, -1], ["a", "b", "c"]) == 1.0


def test_clusters_keep_the_stated_rate() -> None:
    """Five pairs of a prompt that are lost or won together: without the design effect the rate would be 30 %."""
    rng, n, size, discordant, limit = np.random.default_rng(4), 300, 5, 0.2, 0.02
    chances = [(discordant + limit) / 2, (discordant - limit) / 2, 1 - discordant]
    prompts = [str(number // size) for number in range(n * size)]
    passed = []
    for _ in range(1500):
        signs = np.repeat(rng.choice([-1, 1, 0], size=n, p=chances), size)
        effect = design_effect(signs, prompts)
        lost, won = (np.count_nonzero(signs == sign) / effect for sign in (-1, 1))
        passed.append(float(score_z(lost, won, n * size / effect, -limit)) > _LIMIT)
    assert 0.03 < np.mean(passed) < 0.075

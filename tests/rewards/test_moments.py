"""Oracles: the published formula in plain Python, and ``statistics`` (exact fractions) over the whole stream."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardlab.errors import DataError
from rewardlab.rewards.moments import RunningMoments, finite_numbers, mean_and_std

SCORES = st.lists(st.floats(-100, 100).map(lambda x: round(x, 3)), min_size=1, max_size=8)


def test_mean_and_std_by_hand():
    """1, 2, 6: mean 3, squares 4 + 1 + 9 = 14; over 3 and over 2."""
    values = np.array([1.0, 2.0, 6.0])
    assert mean_and_std(values, 0) == (3.0, math.sqrt(14 / 3))
    assert mean_and_std(values, 1) == (3.0, math.sqrt(7))


def test_equal_values_and_a_single_one_have_no_spread_at_all():
    """The mean of 49 times 0.1 is 0.1 + 2e-17 in numpy: a spread of 2e-17 over an eps of 1e-8 would be no zero."""
    assert mean_and_std(np.full(49, 0.1), 0) == (0.1, 0.0)
    assert mean_and_std(np.array([0.7]), 1) == (0.7, 0.0)


def test_moments_begin_as_published():
    moments = RunningMoments()
    assert (moments.mean, moments.std, moments.var, moments.count) == (0.0, 1.0, 1.0, 1e-24)


def test_two_batches_by_hand():
    """First 1, 3: mean 2, var 1, count 2. Then 6: d = 4, N = 3, mean 2 + 4/3, var (0 + 2 + 16 * 2 / 3) / 3 = 38/9.

    std: sqrt(38/9 * 3/2) = sqrt(19/3), the sample standard deviation of 1, 3, 6.
    """
    moments = RunningMoments()
    moments.update(np.array([1.0, 3.0]))
    assert (moments.mean, moments.var, moments.count) == (2.0, 1.0, 2.0)
    assert moments.std == pytest.approx(math.sqrt(2), rel=1e-15)
    moments.update(np.array([6.0]))
    assert moments.mean == pytest.approx(10 / 3, rel=1e-15)
    assert moments.var == pytest.approx(38 / 9, rel=1e-15)
    assert moments.std == pytest.approx(math.sqrt(19 / 3), rel=1e-15)


@given(st.lists(SCORES, min_size=1, max_size=6))
def test_moments_are_the_published_formula_and_those_of_the_whole_stream(batches):
    moments = RunningMoments()
    mean, var, count = 0.0, 1.0, 1e-24
    stream = []
    for batch in batches:
        moments.update(np.array(batch))
        stream += batch
        n = len(batch)
        m_b = math.fsum(batch) / n
        v_b = math.fsum((x - m_b) ** 2 for x in batch) / n
        total = count + n
        delta = m_b - mean
        mean, var = mean + delta * n / total, (v_b * n + var * count + delta**2 * count * n / total) / total
        count = total
    assert moments.mean == pytest.approx(mean, rel=1e-12, abs=1e-12)
    assert moments.var == pytest.approx(var, rel=1e-9, abs=1e-20)
    assert moments.count == count
    assert moments.mean == pytest.approx(statistics.fmean(stream), rel=1e-9, abs=1e-9)
    spread = statistics.stdev(stream) if len(set(stream)) > 1 else 1.0
    assert moments.std == pytest.approx(spread, rel=1e-9)


def test_one_score_leaves_std_at_1_and_so_do_equal_ones():
    for number in (1, 2, 1000):
        moments = RunningMoments()
        for _ in range(3):
            moments.update(np.full(number, -7.3))
            assert (moments.mean, moments.std) == (-7.3, 1.0)
    moments.update(np.array([-7.4]))
    assert 0 < moments.std < 1, "the first other score is a spread"


def test_a_count_of_1_leaves_std_at_1_whatever_the_variance():
    moments = RunningMoments()
    moments.load_state_dict({"mean": 0.0, "var": 4.0, "count": 1.0})
    assert moments.std == 1.0, "N - 1 = 0"


def test_small_units_are_a_spread():
    moments = RunningMoments()
    moments.update(np.array([1e-9, 3e-9]))
    assert moments.std == pytest.approx(math.sqrt(2) * 1e-9)


def test_nothing_changes_nothing():
    moments = RunningMoments()
    moments.update(np.array([1.0, 2.0]))
    before = moments.state_dict()
    moments.update(np.array([]))
    assert moments.state_dict() == before


@pytest.mark.parametrize(
    "state",
    [
        {},
        None,
        {"mean": 0.0, "var": 1.0},
        {"mean": "0", "var": 1.0, "count": 1.0},
        {"mean": math.nan, "var": 1.0, "count": 1.0},
        {"mean": 0.0, "var": -1.0, "count": 1.0},
        {"mean": 0.0, "var": 1.0, "count": 0.0},
        {"mean": True, "var": 1.0, "count": 1.0},
        {"mean": 10**400, "var": 1.0, "count": 1.0},
    ],
)
def test_a_damaged_state_is_refused_and_changes_nothing(state):
    moments = RunningMoments()
    with pytest.raises(DataError, match="running moments"):
        moments.load_state_dict(state)
    assert moments.state_dict() == RunningMoments().state_dict()


def test_finite_numbers_names_the_field():
    with pytest.raises(DataError, match="std must be a finite number, got inf"):
        finite_numbers({"std": math.inf}, ("std",), "what")

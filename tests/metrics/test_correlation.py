"""rewardlab.metrics.correlation: against SciPy, and by weights against repeated rows."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from rewardlab.metrics import kendall_tau, pearson, spearman
from rewardlab.metrics.correlation import moments, pearson_of, spearman_statistic

PAIRS = st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=2, max_size=12).filter(
    lambda rows: all(len(set(column)) > 1 for column in zip(*rows, strict=True))
)
ORACLES = [(pearson, scipy.stats.pearsonr), (spearman, scipy.stats.spearmanr), (kendall_tau, scipy.stats.kendalltau)]


@pytest.mark.parametrize(("ours", "oracle"), ORACLES, ids=["pearson", "spearman", "kendall"])
@given(rows=PAIRS)
def test_equals_scipy(rows, ours, oracle) -> None:
    first, second = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    expected = oracle(first, second).statistic
    assert ours(first, second) == pytest.approx(expected, abs=1e-9)
    assert ours(second, first) == pytest.approx(expected, abs=1e-9)
    assert ours(first, -second) == pytest.approx(-expected, abs=1e-9)


def repeated() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    first = generator.normal(1e3, size=40).round(1)
    second = (first + generator.normal(size=40)).round(1)
    return first, second, generator.integers(0, 4, size=(20, 40))


def test_spearman_by_weights_ranks_each_draw_anew() -> None:
    """A row drawn three times shares its rank with its copies."""
    first, second, counts = repeated()
    slow = [scipy.stats.spearmanr(np.repeat(first, draw), np.repeat(second, draw)).statistic for draw in counts]
    np.testing.assert_allclose(spearman_statistic(first, second)(counts.astype(float)), slow, atol=1e-12)


def test_pearson_is_a_function_of_sums() -> None:
    first, second, counts = repeated()
    slow = [scipy.stats.pearsonr(np.repeat(first, draw), np.repeat(second, draw)).statistic for draw in counts]
    np.testing.assert_allclose(pearson_of()(counts @ moments(first, second)), slow, atol=1e-10)


@pytest.mark.parametrize("of", [pearson, spearman, kendall_tau])
def test_a_constant_has_no_correlation(of) -> None:
    """0.1 has no exact mean of three: what rounding leaves is no variation."""
    assert math.isnan(of([0.1, 0.1, 0.1], [1.0, 2.0, 3.0]))
    assert math.isnan(of([1.0, 2.0, 3.0], [0.1, 0.1, 0.1]))


@pytest.mark.parametrize("of", [pearson, spearman, kendall_tau])
def test_bad_input(of) -> None:
    with pytest.raises(ValueError, match="must both have the shape"):
        of([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="not finite"):
        of([1.0, math.nan], [1.0, 2.0])


def test_by_hand() -> None:
    """[1, 2, 2] and [1, 3, 2]: C = 2, D = 0, one tie in the first: 2 / sqrt(2 x 3)."""
    assert kendall_tau([1, 2, 2], [1, 3, 2]) == pytest.approx(2 / math.sqrt(6))

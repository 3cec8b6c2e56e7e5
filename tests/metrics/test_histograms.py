"""Counts on fixed grids, against numpy's own histogram and moments."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardlab.errors import DataError
from rewardlab.metrics.histograms import (
    DISAGREEMENT_GRID,
    TOKEN_GRID,
    Histogram,
    expected_shares,
    score_grid,
)


def test_bins_are_those_of_numpy_turned_round() -> None:
    """By numpy bins are [low, high): of negated values and edges they are ours, (low, high]."""
    values = np.random.default_rng(0).normal(size=500)
    edges = (-1.5, -0.2, 0.0, 0.7, 2.0)
    inner, _ = np.histogram(-values, bins=[-np.inf, *(-np.array(edges[::-1])), np.inf])
    assert Histogram.of(edges, values).counts == tuple(inner[::-1].tolist())


def test_a_value_on_an_edge_belongs_to_the_bin_below_it() -> None:
    assert Histogram.of((0.0, 1.0), [0.0, 1.0, 1.5]).counts == (1, 1, 1)


def test_mean_and_deviation_are_the_values_own_not_the_bins() -> None:
    values = [0.1, 0.2, 5.0]
    found = Histogram.of((0.0, 1.0), values)
    assert found.mean == pytest.approx(np.mean(values), rel=1e-14)
    assert found.std == pytest.approx(np.std(values), rel=1e-12)
    assert Histogram.of((0.0,)).mean is None
    assert Histogram.of((0.0,)).std is None


@given(
    st.lists(st.integers(-1000, 1000), max_size=30),
    st.lists(st.integers(-1000, 1000), max_size=30),
)
def test_the_difference_of_two_readings_is_the_window_between_them(before: list[int], since: list[int]) -> None:
    edges = score_grid()
    first, second = Histogram.of(edges, before), Histogram.of(edges, since)
    assert first + second == Histogram.of(edges, [*before, *since])
    assert (first + second) - first == second


def test_a_later_reading_that_counted_less_is_refused() -> None:
    with pytest.raises(ValueError, match="lower than it was"):
        Histogram.of((0.0,), []) - Histogram.of((0.0,), [1.0])
    with pytest.raises(ValueError, match="other bins"):
        Histogram.of((0.0,)) - Histogram.of((1.0,))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_has_no_bin(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        Histogram.of((0.0,), [value])


@pytest.mark.parametrize("edges", [(), (0.0, 0.0), (1.0, 0.0), (float("nan"), 1.0)])
def test_edges_rise(edges: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="rise"):
        Histogram(edges, (0,) * (len(edges) + 1))


def test_it_goes_through_json_whole() -> None:
    found = Histogram.of(TOKEN_GRID, [3, 70, 4096, 10**7])
    assert Histogram.from_dict(found.to_dict()) == found


@pytest.mark.parametrize("record", [{}, {"edges": [0], "counts": [1], "total": 0, "squares": 0}, {"edges": "x"}])
def test_what_is_no_histogram_is_refused(record: dict[str, object]) -> None:
    with pytest.raises(DataError, match="not a histogram"):
        Histogram.from_dict(record)


def test_the_grids() -> None:
    """With a reference of mean 2 and deviation 0.5: from 2 - 4 to 2 + 4 in steps of 0.05."""
    grid = score_grid(2.0, 0.5)
    assert (grid[0], grid[-1], len(grid)) == (-2.0, 6.0, 161)
    assert np.diff(grid) == pytest.approx(0.05)
    assert score_grid(2.0, 0.0) == score_grid()  # a reference without spread gives no unit
    for edges in (score_grid(), TOKEN_GRID, DISAGREEMENT_GRID):
        assert 0.0 in edges
        assert np.all(np.diff(edges) > 0)
        assert len(edges) < 200


def test_quantiles_imply_shares() -> None:
    """Quartiles 0, 1, 2 between 0 % at -1 and 100 % at 3: a uniform distribution on (-1, 3)."""
    quantiles = {"0.0": -1.0, "0.25": 0.0, "0.5": 1.0, "0.75": 2.0, "1.0": 3.0}
    assert expected_shares((-2.0, -0.5, 0.0, 2.5, 4.0), quantiles) == pytest.approx([0, 0.125, 0.125, 0.625, 0.125, 0])

"""rewardlab.metrics.recursive_residuals: textbook tests as oracles, and N(0, 1) while nothing changes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from rewardlab.metrics.recursive_residuals import (
    held_against_before,
    moments_of_windows,
    recursive_residuals,
    window_moments,
    without_skewness,
)


def alone(count: int, start: int = 0) -> list[str]:
    return [f"prompt {start + number}" for number in range(count)]


def wins(right: int, rows: int) -> np.ndarray:
    return window_moments([1.0] * right + [0.0] * (rows - right), alone(rows))


@given(
    st.lists(
        st.tuples(st.floats(-5, 5), st.integers(0, 3), st.integers(0, 1)).map(lambda row: (row[0], *row[1:])),
        min_size=2,
        max_size=30,
    )
)
@settings(max_examples=50, deadline=None)
def test_moments_add_up(rows) -> None:
    """The sums of two windows, with their own clusters, are the sums of both together."""
    parts = [[row for row in rows if row[2] == window] for window in (0, 1)]
    whole = window_moments([row[0] for row in rows], [f"{row[1]} in {row[2]}" for row in rows])
    added = sum(window_moments([row[0] for row in part], [str(row[1]) for row in part]) for part in parts if part)
    assert added == pytest.approx(whole, abs=1e-9)
    rows = sorted(rows, key=lambda row: row[2])
    sizes = [len(part) for part in parts if part]
    found = moments_of_windows([[row[0]] * 2 for row in rows], [str(row[1]) for row in rows], sizes)
    assert found.shape == (len(sizes), 2, 7)
    assert found.sum(axis=0) == pytest.approx(np.stack([whole, whole]), abs=1e-9)


def test_moments_by_hand() -> None:
    """Clusters (1, 2) and (3): 3 rows, sums 6, 14, 36; 2 ordered pairs in clusters, 1 x 3, and 3^2 - 5 + 9 - 9 = 4."""
    assert window_moments([1.0, 2.0, 3.0], ["a", "a", "b"]).tolist() == [3, 6, 14, 36, 2, 3, 4]
    assert window_moments([[1.0, 0], [2.0, 0], [3.0, 0]], ["a", "a", "b"])[0].tolist() == [3, 6, 14, 36, 2, 3, 4]


def test_without_clusters_it_is_the_two_sample_test_of_proportions() -> None:
    """150 of 200 after 800 of 1000: pooled share 950 / 1200, z^2 is Pearson's chi-square of the 2 x 2 table."""
    held = held_against_before([wins(150, 200)], wins(800, 1000))
    z = float((held.mean - held.expected)[0] / math.sqrt(held.variance[0]))
    chi_square = scipy.stats.chi2_contingency([[150, 50], [800, 200]], correction=False).statistic
    assert z < 0
    assert z**2 == pytest.approx(chi_square)


def test_copies_are_worth_one() -> None:
    """Four copies of each row are as much evidence as the rows: their correlation is 1."""
    generator = np.random.default_rng(0)
    values = generator.random((2, 100))
    singles = held_against_before([window_moments(values[1], alone(100))], window_moments(values[0], alone(100)))
    copied = [window_moments(np.repeat(one, 4), np.repeat(alone(100), 4).tolist()) for one in values]
    copies = held_against_before([copied[1]], copied[0])
    assert copies.variance == pytest.approx(singles.variance)
    assert copies.skewness == pytest.approx(singles.skewness)


def test_variance_with_clusters() -> None:
    """3 rows a prompt that share a normal effect, correlation 1/3: Var(mean) is (2/3 + 1/3 * 3) / n."""
    generator = np.random.default_rng(1)
    size, prompts = 60, np.repeat(alone(20), 3).tolist()
    table = [
        window_moments(
            (
                math.sqrt(1 / 3) * generator.normal(size=(20, 1)) + math.sqrt(2 / 3) * generator.normal(size=(20, 3))
            ).ravel(),
            prompts,
        )
        for _ in range(1000)
    ]
    held = held_against_before(np.stack(table[500:]), np.sum(table[:500], axis=0))
    expected = (2 / 3 + 1) / size
    assert np.median(held.variance) == pytest.approx(expected, rel=0.1)
    assert np.var(held.mean) == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize("accuracy", [0.6, 0.9])
@pytest.mark.parametrize("before", [0, 300])
def test_residuals_are_standard_normal_and_independent(accuracy, before) -> None:
    """300 runs of 60 windows: 18,000 residuals, whose mean has a standard error of 0.0075; exact up to discreteness."""
    generator = np.random.default_rng(2)
    right = generator.binomial(200, accuracy, size=(300, 60)).astype(float)
    windows = np.zeros((300, 60, 7))
    windows[..., 0], windows[..., 1:4] = 200, right[..., np.newaxis]
    baseline = np.zeros((300, 7))
    baseline[:, 0], baseline[:, 1:4] = before, generator.binomial(before, accuracy, size=300)[:, np.newaxis]
    values = recursive_residuals(windows, baseline if before else None).values
    if not before:
        assert (values[:, 0] == 0).all()
        values = values[:, 1:]
    assert values.mean() == pytest.approx(0, abs=0.03)
    assert values.std() == pytest.approx(1, abs=0.03)
    for lag in (1, 5):
        assert np.corrcoef(values[:, :-lag].ravel(), values[:, lag:].ravel())[0, 1] == pytest.approx(0, abs=0.03)
    assert scipy.stats.kstest(values.ravel(), "norm").statistic < 0.06  # the jumps of 200 coin flips are some 0.04 high


def test_skewness_is_taken_out() -> None:
    """Few errors: against the exact mid-p of the hypergeometric distribution, as a normal score, out to 4 sigma.

    Given all rights of window and baseline, those of the window are hypergeometric. The plain z is up to 0.5 off there.
    """
    rows, before, before_right = 200, 4000, 3800
    for right in (180, 185, 190, 195):
        held = recursive_residuals([wins(right, rows)], wins(before_right, before)).values[0]
        exact = scipy.stats.hypergeom(before + rows, before_right + right, rows)
        middle = exact.cdf(right) - exact.pmf(right) / 2
        assert held == pytest.approx(scipy.stats.norm.ppf(middle), abs=0.08), right
    values = np.linspace(-30, 30, 1001)
    assert (np.diff(without_skewness(values, np.full(1001, 0.7))) >= 0).all()


def test_a_change_moves_the_residuals_as_announced() -> None:
    """A level that falls by 0.05 just before the third window: mean residuals are -0.05 * levels[2] * rates[i]."""
    generator = np.random.default_rng(3)
    level = np.array([0.8, 0.8, 0.75, 0.75, 0.75, 0.75])
    right = generator.binomial(200, level, size=(20_000, 6)).astype(float)
    windows = np.zeros((20_000, 6, 7))
    windows[..., 0], windows[..., 1:4] = 200, right[..., np.newaxis]
    found = recursive_residuals(windows)
    assert found.levels[0].tolist() == [0, 200, 400, 600, 800, 1000]
    seen, announced = found.values.mean(axis=0), -0.05 * found.levels[0, 2] * found.rates.mean(axis=0)
    assert seen[1] == pytest.approx(0, abs=0.03)
    assert seen[2:] == pytest.approx(announced[2:], abs=0.05)


def test_what_never_varies_says_nothing() -> None:
    found = recursive_residuals([wins(50, 50), wins(50, 50)], wins(100, 100))
    assert found.values.tolist() == [0, 0]
    assert found.rates.tolist() == [0, 0]


@pytest.mark.parametrize(("values", "labels"), [([], []), ([1.0], ["a", "b"]), ([math.nan], ["a"])])
def test_bad_rows_are_refused(values, labels) -> None:
    with pytest.raises(ValueError, match="values"):
        window_moments(values, labels)

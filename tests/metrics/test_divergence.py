"""PSI, Kolmogorov-Smirnov, Jensen-Shannon and chi-square, against SciPy and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import jensenshannon

from rewardlab.metrics.divergence import MERGED_BINS, diverge, merge_bins
from rewardlab.metrics.histograms import Histogram, score_grid


def test_two_bins_by_hand() -> None:
    """Shares with half a count added to each bin: 50.5/101 and 80.5/101; PSI is the sum of (w - r) ln(w / r)."""
    found = diverge([50, 50], [80, 20])
    r, w = 0.5, 80.5 / 101
    assert found.psi == pytest.approx((w - r) * np.log(w / r) + (r - w) * np.log((1 - w) / (1 - r)), rel=1e-12)
    assert found.ks == pytest.approx(0.3, abs=1e-12)


def test_the_distance_is_scipys() -> None:
    generator = np.random.default_rng(1)
    first, second = generator.multinomial(5000, [0.1] * 10), generator.multinomial(3000, [0.05] * 5 + [0.15] * 5)
    shares = [(counts + 0.5) / (counts.sum() + 5) for counts in (first, second)]
    assert diverge(first, second).js == pytest.approx(jensenshannon(*shares, base=2), rel=1e-12)


def test_chi_square_is_scipys_contingency_test() -> None:
    generator = np.random.default_rng(2)
    first, second = generator.multinomial(5000, [0.1] * 10), generator.multinomial(3000, [0.1] * 10)
    expected = stats.chi2_contingency(np.array([first, second]), correction=False).pvalue
    assert diverge(first, second).chi2_p == pytest.approx(expected, rel=1e-9)


def test_chi_square_against_exact_shares_is_scipys_goodness_of_fit() -> None:
    counts = np.random.default_rng(3).multinomial(1000, [0.1] * 10)
    found = diverge([0.1] * 10, counts, num_reference=0)
    assert found.chi2_p == pytest.approx(stats.chisquare(counts).pvalue, rel=1e-9)


def test_kolmogorov_smirnov_is_scipys_where_every_value_has_its_bin() -> None:
    generator = np.random.default_rng(4)
    first, second = generator.normal(size=400), generator.normal(0.2, size=300)
    edges = sorted({*first, *second})
    found = diverge(Histogram.of(edges, first).counts, Histogram.of(edges, second).counts)
    oracle = stats.ks_2samp(first, second, method="asymp")
    assert found.ks == pytest.approx(oracle.statistic, abs=1e-12)
    # SciPy's asymptotic p-value is Kolmogorov's exact distribution at a rounded effective size: nearly the limit's.
    assert found.ks_p == pytest.approx(oracle.pvalue, rel=0.1)


def test_equal_counts_lie_nowhere_apart() -> None:
    found = diverge([10, 20, 30], [10, 20, 30])
    assert (found.psi, found.ks, found.js) == pytest.approx((0, 0, 0), abs=1e-7)
    assert (found.ks_p, found.chi2_p) == (1.0, 1.0)


def test_nothing_in_common_is_the_largest_distance_and_no_infinity() -> None:
    found = diverge([1000, 0, 1000, 0], [0, 10**6, 0, 10**6])
    assert diverge([10**6, 0], [0, 10**6]).ks == pytest.approx(1.0)
    assert np.isfinite(found.psi)
    assert found.js < 1


def test_a_window_beyond_all_of_the_reference_is_far_away() -> None:
    """What lies beyond is counted with the reference's last tenth: that bin then holds everything."""
    edges = score_grid(0.0, 1.0)
    reference = Histogram.of(edges, np.random.default_rng(7).normal(size=5000))
    found = diverge(reference.counts, Histogram.of(edges, [9.0] * 1000).counts)
    assert found.psi > 5
    assert found.ks == pytest.approx(1.0)
    assert found.js > 0.8


def test_without_drift_psi_is_chi_square_times_one_over_n_plus_one_over_m() -> None:
    """Its mean is (bins - 1)(1/n + 1/m): 9 x (1/2000 + 1/500) = 0.0225; 5 % of draws are beyond that quantile."""
    generator, edges = np.random.default_rng(5), score_grid(0.0, 1.0)
    found = [
        diverge(
            Histogram.of(edges, generator.normal(size=2000)).counts,
            Histogram.of(edges, generator.normal(size=500)).counts,
        )
        for _ in range(300)
    ]
    assert np.mean([one.psi for one in found]) == pytest.approx(0.0225, rel=0.1)
    assert 0.02 < np.mean([one.chi2_p < 0.05 for one in found]) < 0.09
    assert np.mean([one.ks_p < 0.05 for one in found]) < 0.07


def test_merged_bins_hold_about_a_tenth_each_and_all_of_the_reference() -> None:
    counts = np.array(Histogram.of(score_grid(0.0, 1.0), np.random.default_rng(6).normal(size=20_000)).counts, float)
    starts = merge_bins(counts)
    assert len(starts) == MERGED_BINS
    assert starts[0] == 0
    assert np.add.reduceat(counts, starts) / counts.sum() == pytest.approx(0.1, abs=0.03)


@pytest.mark.parametrize("counts", [[0, 0, 5, 0, 0], [3, 0, 0, 0, 0], [0, 0, 0, 0, 9]])
def test_a_reference_in_one_bin_leaves_one_merged_bin(counts: list[int]) -> None:
    assert merge_bins(np.array(counts, float)).tolist() == [0]
    assert diverge(counts, [1, 1, 1, 1, 1]).psi == pytest.approx(0)


@pytest.mark.parametrize(
    ("reference", "window"), [([1, 2], [1, 2, 3]), ([0, 0], [1, 1]), ([1, 1], [0, 0]), ([1, -1], [1, 1])]
)
def test_what_cannot_be_compared_is_refused(reference: list[int], window: list[int]) -> None:
    with pytest.raises(ValueError, match="counts"):
        diverge(reference, window)

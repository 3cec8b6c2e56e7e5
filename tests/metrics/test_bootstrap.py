"""rewardlab.metrics.bootstrap: coverage by simulation, agreement with SciPy, determinism, and speed."""

from __future__ import annotations

import math
import time
import tracemalloc

import numpy as np
import pytest
import scipy.stats

from rewardlab.metrics import Interval, bootstrap_by_cluster, calibration_gaps, expected_calibration_error, mean_of


def rows_of(values) -> np.ndarray:
    """Columns count, value: the mean is ``mean_of(1)``."""
    return np.column_stack([np.ones(len(values)), values])


def names(labels) -> list[str]:
    return [f"prompt {label:06d}" for label in labels]


def mean_interval(values, clusters, **options) -> Interval:
    return bootstrap_by_cluster(rows_of(values), names(clusters), {"mean": mean_of(1)}, **options)["mean"]


def test_covers_where_resampling_pairs_does_not() -> None:
    """80 prompts of 6 pairs; the chance of a win is the prompt's own, Beta(1, 1), so the true accuracy is 1/2.

    Var of a set's accuracy: (1/12 + (1/6)/6) / 80 = 0.00139 by prompt, against (1/4) / 480 = 0.00052 if pairs were
    independent. An interval built on the latter is 0.61 as wide as it should be: it covers about 2 Phi(0.61 x 1.96) - 1
    = 77 %.
    """
    generator = np.random.default_rng(0)
    prompts = np.repeat(np.arange(80), 6)
    by_prompt = by_pair = 0
    for _ in range(200):
        wins = generator.random(480) < generator.random(80)[prompts]
        seed = int(generator.integers(2**31))
        inner = mean_interval(wins, prompts, resamples=400, seed=seed)
        naive = mean_interval(wins, np.arange(480), resamples=400, seed=seed)
        by_prompt += inner.low <= 0.5 <= inner.high
        by_pair += naive.low <= 0.5 <= naive.high
    assert 0.90 <= by_prompt / 200 <= 0.99
    assert by_pair / 200 < 0.85


def test_agrees_with_scipy_on_single_rows() -> None:
    """Without clusters it is the plain percentile bootstrap; both have Monte Carlo noise near 0.002 here."""
    values = np.random.default_rng(1).exponential(1.0, 300)
    ours = mean_interval(values, range(300), resamples=9999, confidence=0.9)
    oracle = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=9999, confidence_level=0.9, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert ours.value == pytest.approx(values.mean())
    assert ours.low == pytest.approx(oracle.low, abs=0.008)
    assert ours.high == pytest.approx(oracle.high, abs=0.008)


def test_clusters_of_unequal_size_give_a_mean_over_rows() -> None:
    """Rows 1, 1, 1 in one prompt and 0 in another: the mean over rows is 3/4, not the mean of prompt means, 1/2.

    Four equally likely draws of two prompts give 0, 3/4, 3/4, 1: the interval is [0, 1].
    """
    assert mean_interval([1, 1, 1, 0], [0, 0, 0, 1], resamples=500) == Interval(0.75, 0.0, 1.0)


def test_calibration_error_through_bin_sums_is_that_of_the_drawn_rows() -> None:
    """A sum of bin columns over drawn prompts, against the error recomputed on the drawn rows themselves."""
    generator = np.random.default_rng(3)
    margins, prompts = generator.normal(0.5, 2, 60), np.repeat(np.arange(20), 3)
    drawn_values: list[float] = []

    def statistic(sums):
        drawn_values.extend(np.abs(sums[:, 1:]).sum(axis=1) / sums[:, 0])
        return np.abs(sums[:, 1:]).sum(axis=1) / sums[:, 0]

    rows = np.column_stack([np.ones(60), calibration_gaps(margins)])
    bootstrap_by_cluster(rows, names(prompts), {"ece": statistic}, resamples=50, seed=9)
    draws = np.random.default_rng(9).integers(0, 20, size=(50, 20))
    slow = [expected_calibration_error(np.concatenate([margins[prompts == p] for p in draw])) for draw in draws]
    np.testing.assert_allclose(drawn_values, [expected_calibration_error(margins), *slow], rtol=1e-12)


def test_the_interval_holds_its_value() -> None:
    """Calibrated scores: resampling adds noise to a distance from zero, and the plain percentiles lie above it.

    That happens in some of these sets (or the test would show nothing), and never in the answer.
    """

    def error(sums):
        return np.abs(sums[:, 1:]).sum(axis=1) / sums[:, 0]

    generator = np.random.default_rng(4)
    at_the_bound = 0
    for _ in range(30):
        differences = generator.normal(0, 2, 400)
        margins = np.where(generator.random(400) < 1 / (1 + np.exp(-differences)), differences, -differences)
        rows = np.column_stack([np.ones(400), calibration_gaps(margins)])
        interval = bootstrap_by_cluster(rows, names(range(400)), {"ece": error}, resamples=200)["ece"]
        assert interval.low <= interval.value <= interval.high
        at_the_bound += interval.low == interval.value
    assert at_the_bound > 0


def test_one_prompt_has_no_interval() -> None:
    interval = mean_interval([1, 0, 1], [5, 5, 5])
    assert interval == Interval(pytest.approx(2 / 3), None, None)
    assert interval.to_dict() == {"value": pytest.approx(2 / 3), "low": None, "high": None}


def test_equal_seeds_equal_intervals_in_any_row_order() -> None:
    generator = np.random.default_rng(5)
    values, prompts = generator.integers(0, 2, 200), generator.integers(0, 50, 200)
    order = generator.permutation(200)
    first = mean_interval(values, prompts, seed=1)
    assert mean_interval(values[order], prompts[order], seed=1) == first
    assert mean_interval(values, prompts, seed=2) != first
    narrower = mean_interval(values, prompts, seed=1, confidence=0.5)
    assert first.low < narrower.low <= first.value <= narrower.high < first.high


def test_statistics_share_their_resamples() -> None:
    """The difference of a column with itself is zero in every resample only if both see the same draws."""
    values = np.random.default_rng(6).normal(size=100)
    rows = np.column_stack([np.ones(100), values, values + 1])
    statistics = {"difference": lambda sums: (sums[:, 2] - sums[:, 1]) / sums[:, 0]}
    interval = bootstrap_by_cluster(rows, names(range(100)), statistics)["difference"]
    assert interval.low == pytest.approx(1.0)
    assert interval.high == pytest.approx(1.0)


def test_ten_thousand_prompts_are_quick_and_small() -> None:
    """2000 resamples of 10,000 prompts with 21 columns: about half a second on one core, and bounded memory."""
    generator = np.random.default_rng(7)
    rows = np.column_stack([np.ones(20_000), generator.random((20_000, 20))])
    clusters = names(np.arange(20_000) // 2)
    start = time.process_time()
    bootstrap_by_cluster(rows, clusters, {"mean": mean_of(1)})
    assert time.process_time() - start < 10  # generous: a loop over resamples and rows takes over a minute
    tracemalloc.start()
    bootstrap_by_cluster(rows, clusters, {"mean": mean_of(1)}, resamples=400)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200e6


@pytest.mark.parametrize(
    ("rows", "clusters", "options", "said"),
    [
        (np.ones((0, 2)), [], {}, "at least one row"),
        (np.ones(3), ["a", "b", "c"], {}, "at least one row"),
        (np.ones((3, 2)), ["a", "b"], {}, "3 rows but 2 cluster labels"),
        ([[1, 0], [1, math.nan]], ["a", "b"], {}, "row 1 holds a value that is not finite"),
        (np.ones((2, 2)), ["a", "b"], {"resamples": 0}, "resamples >= 1"),
        (np.ones((2, 2)), ["a", "b"], {"confidence": 95}, "confidence < 1"),
    ],
)
def test_bad_input(rows, clusters, options, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        bootstrap_by_cluster(rows, clusters, {"mean": mean_of(1)}, **options)


def test_a_statistic_that_can_divide_by_zero_is_refused() -> None:
    """Only prompt "a" counts: a resample without it has nothing to divide by, and NaN quantiles would pass unseen."""
    with np.errstate(invalid="ignore"), pytest.raises(ValueError, match="statistic 'mean' is not finite"):
        bootstrap_by_cluster([[1, 1], [0, 0]], ["a", "b"], {"mean": mean_of(1)})

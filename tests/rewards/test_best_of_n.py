"""Best-of-n estimates against every subset, its KL against the exact distribution of the pick; selection."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import rel_entr, softmax

from rewardlab.errors import ConfigError, DataError
from rewardlab.rewards.best_of_n import (
    best_of_n_curve,
    default_sizes,
    effective_sample_size,
    expected_best_of_n,
    kl_of_best_of_n,
    reward_weighted_indices,
    reward_weights,
    top_k,
)


def by_every_subset(scores: list[float], values: list[float], n: int) -> float:
    """The mean over all subsets of n of the mean value of those with the highest score in it."""
    picks = []
    for subset in itertools.combinations(range(len(scores)), n):
        best = max(scores[i] for i in subset)
        picks.append(np.mean([values[i] for i in subset if scores[i] == best]))
    return float(np.mean(picks))


samples = st.integers(1, 8).flatmap(
    lambda m: st.tuples(
        st.lists(st.integers(-3, 3).map(float), min_size=m, max_size=m),  # few values: ties are common
        st.lists(st.floats(-10, 10), min_size=m, max_size=m),
    )
)


@given(samples)
def test_the_estimate_is_the_mean_over_every_subset(drawn):
    scores, values = drawn
    sizes = range(1, len(scores) + 1)
    estimate = expected_best_of_n(scores, values, sizes)
    assert estimate == pytest.approx([by_every_subset(scores, values, n) for n in sizes], abs=1e-9)
    own = expected_best_of_n(scores, sizes=sizes)
    assert own == pytest.approx([by_every_subset(scores, scores, n) for n in sizes], abs=1e-9)


@given(samples, st.randoms())
def test_the_order_of_the_samples_does_not_matter(drawn, random):
    scores, values = drawn
    order = list(range(len(scores)))
    random.shuffle(order)
    shuffled = expected_best_of_n([scores[i] for i in order], [values[i] for i in order])
    assert shuffled == pytest.approx(expected_best_of_n(scores, values), abs=1e-9)


def test_the_ends_are_the_mean_and_the_maximum():
    scores = np.random.default_rng(0).normal(size=50)
    estimate = expected_best_of_n(scores, sizes=[1, 50])
    assert estimate == pytest.approx([scores.mean(), scores.max()])


def test_all_scores_tied_is_a_random_pick():
    assert expected_best_of_n([2.0] * 6, [0, 0, 0, 1, 1, 1], sizes=[1, 3, 6]) == pytest.approx([0.5] * 3)


def test_it_is_stable_for_thousands_of_samples():
    """Scores 1..M: the best of n has the mean n (M + 1) / (n + 1), the classic of the German tanks."""
    count = 4000
    sizes = [1, 2, 10, 999, 2000, 3999, 4000]
    estimate = expected_best_of_n(np.random.default_rng(0).permutation(np.arange(1.0, count + 1)), sizes=sizes)
    assert estimate == pytest.approx([n * (count + 1) / (n + 1) for n in sizes], rel=1e-11)


def test_it_is_unbiased():
    """Of uniform scores the best of 4 is 4/5 on average; from 6 samples each, over 5,000 prompts."""
    scores = np.random.default_rng(0).random((5_000, 6))
    estimates = np.array([expected_best_of_n(row, sizes=[4])[0] for row in scores])
    assert estimates.mean() == pytest.approx(0.8, abs=4 * estimates.std() / math.sqrt(len(estimates)))


def test_what_tells_nothing_of_a_size_is_refused():
    with pytest.raises(ConfigError, match="best of 4 cannot be estimated from 3"):
        expected_best_of_n([1.0, 2.0, 3.0], sizes=[4])
    with pytest.raises(ConfigError, match="best of 0"):
        expected_best_of_n([1.0], sizes=[0])
    with pytest.raises(DataError, match=r"scores\[1\] is nan"):
        expected_best_of_n([1.0, float("nan")])
    with pytest.raises(DataError, match="2 scores but 1 values"):
        expected_best_of_n([1.0, 2.0], [1.0])
    with pytest.raises(DataError, match="at least one"):
        expected_best_of_n([])


@pytest.mark.parametrize("n", [1, 2, 4, 64])
def test_the_kl_is_exact_for_many_completions_without_ties(n):
    """N equally likely completions: the k-th from below is the best of n draws with (k^n - (k-1)^n) / N^n."""
    count = 100_000
    ranks = np.arange(count + 1) / count
    pick = np.diff(ranks**n)
    assert rel_entr(pick, 1 / count).sum() == pytest.approx(kl_of_best_of_n(n), abs=1e-3)


@pytest.mark.parametrize("n", [2, 8, 100])
@pytest.mark.parametrize("seed", range(3))
def test_the_kl_is_an_upper_bound_for_few_completions(n, seed):
    """Ten completions of unequal probability, all scores different: P(pick) = F(y)^n - F(y-)^n."""
    ref = softmax(np.random.default_rng(seed).normal(size=10))
    pick = np.diff(np.concatenate([[0.0], np.cumsum(ref)]) ** n)
    exact = rel_entr(pick, ref).sum()
    assert exact < kl_of_best_of_n(n)
    assert exact <= -math.log(ref[-1]) + 1e-12


def test_the_kl_by_hand():
    assert kl_of_best_of_n(1) == 0.0
    assert kl_of_best_of_n(4) == pytest.approx(1.3863 - 0.75, abs=1e-4)
    for bad in (0, 0.5, math.inf, math.nan):
        with pytest.raises(ConfigError):
            kl_of_best_of_n(bad)


def test_default_sizes():
    assert default_sizes(1) == (1,)
    assert default_sizes(8) == (1, 2, 4, 8)
    assert default_sizes(10) == (1, 2, 4, 8, 10)


def test_a_curve_is_the_mean_over_prompts():
    generator = np.random.default_rng(0)
    scores = [generator.normal(size=size) for size in (5, 8, 6)]
    values = [generator.normal(size=size) for size in (5, 8, 6)]
    curve = best_of_n_curve(scores, values, prompts=["a", "b", "c"], resamples=200, seed=3)
    assert curve.sizes == (1, 2, 4, 5)
    assert curve.kl == tuple(kl_of_best_of_n(n) for n in curve.sizes)
    wanted = np.array([expected_best_of_n(s, v, (1, 2, 4, 5)) for s, v in zip(scores, values, strict=True)])
    np.testing.assert_array_equal(curve.per_prompt, wanted)
    for interval, mean in zip(curve.mean, wanted.mean(axis=0), strict=True):
        assert interval.value == pytest.approx(mean)
        assert interval.low < interval.value < interval.high
    assert curve.bootstrap == {"unit": "prompt", "confidence": 0.95, "resamples": 200, "seed": 3}


def test_groups_of_one_prompt_are_resampled_together():
    """Ten groups in two prompts: the interval is that of two clusters, its ends the clusters' own means."""
    scores = [[0.0, 0.0]] * 5 + [[1.0, 1.0]] * 5
    curve = best_of_n_curve(scores, sizes=[1], prompts=["a"] * 5 + ["b"] * 5, resamples=200)
    assert (curve.mean[0].low, curve.mean[0].high) == (0.0, 1.0)


def test_a_curve_that_cannot_be_drawn():
    with pytest.raises(DataError, match="no groups"):
        best_of_n_curve([])
    with pytest.raises(DataError, match="2 groups of scores but 1"):
        best_of_n_curve([[1.0], [2.0]], [[1.0]])
    with pytest.raises(ConfigError, match="best of 3"):
        best_of_n_curve([[1.0, 2.0, 3.0], [1.0, 2.0]], sizes=[3])
    with pytest.raises(DataError, match="2 groups of scores but 1 prompts"):
        best_of_n_curve([[1.0], [2.0]], prompts=["a"])


@pytest.mark.parametrize("wrong", [2.0, 1.5, "2", True, None, math.nan])
def test_sizes_are_whole_numbers(wrong):
    with pytest.raises(ConfigError, match="whole number"):
        expected_best_of_n([1.0, 2.0, 3.0], sizes=[wrong])
    with pytest.raises(ConfigError, match="whole number"):
        top_k([1.0, 2.0, 3.0], wrong)
    assert expected_best_of_n([1.0, 2.0], sizes=np.array([2])).tolist() == [2.0]


def test_top_k_is_stable_among_ties():
    assert top_k([1.0, 3.0, 3.0, 2.0], 3).tolist() == [1, 2, 3]
    with pytest.raises(ConfigError, match="5 of 4"):
        top_k([1.0, 3.0, 3.0, 2.0], 5)


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=20), st.floats(0.1, 10), st.floats(-1e3, 1e3))
def test_reward_weights_are_a_softmax(scores, temperature, shift):
    weights = reward_weights(scores, temperature)
    np.testing.assert_allclose(weights, softmax(np.array(scores) / temperature), rtol=1e-9, atol=1e-300)
    np.testing.assert_allclose(reward_weights(np.array(scores) + shift, temperature), weights, rtol=1e-6, atol=1e-12)
    assert 1 - 1e-9 <= effective_sample_size(weights) <= len(scores) + 1e-9


def test_effective_sample_size_by_hand():
    assert effective_sample_size([1, 1, 1, 1]) == pytest.approx(4)
    assert effective_sample_size([5, 0, 0]) == pytest.approx(1)
    assert effective_sample_size([2, 1]) == pytest.approx(9 / 5)
    with pytest.raises(DataError):
        effective_sample_size([0.0, 0.0])
    with pytest.raises(DataError):
        effective_sample_size([1.0, -1.0])


def test_reward_weighted_sampling_draws_as_the_weights_say():
    """The first of two without replacement is i with w_i, the second j with w_j / (1 - w_i): all six orders counted."""
    scores, temperature, draws = [0.0, 1.0, 2.0], 1.5, 6000
    weights = reward_weights(scores, temperature)
    drawn = [tuple(reward_weighted_indices(scores, 2, temperature=temperature, seed=seed)) for seed in range(draws)]
    for i, j in itertools.permutations(range(3), 2):
        wanted = weights[i] * weights[j] / (1 - weights[i])
        error = math.sqrt(wanted * (1 - wanted) / draws)
        assert sum(pair == (i, j) for pair in drawn) / draws == pytest.approx(wanted, abs=4 * error)


def test_reward_weighted_sampling_is_seeded_and_without_replacement():
    scores = np.random.default_rng(0).normal(size=30)
    first = reward_weighted_indices(scores, 30, seed=5).tolist()
    assert first == reward_weighted_indices(scores, 30, seed=5).tolist()
    assert first != reward_weighted_indices(scores, 30, seed=6).tolist()
    assert sorted(first) == list(range(30))
    assert reward_weighted_indices(scores, 3, temperature=1e-9).tolist() == top_k(scores, 3).tolist()
    with pytest.raises(ConfigError, match="temperature"):
        reward_weighted_indices(scores, 3, temperature=0)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("temperature", [1e-20, 1e-300, 1e-309, 5e-324])
def test_a_tiny_temperature_picks_the_best(temperature):
    """The limit of the weights, also where score / temperature is beyond float64 and all of them looked alike."""
    assert reward_weighted_indices([1.0, 2.0, 3.0], 3, temperature=temperature).tolist() == [2, 1, 0]
    assert reward_weighted_indices([-1e308, 1e308, 0.0], 2, temperature=temperature).tolist() == [1, 2]
    assert reward_weights([1.0, 2.0, 3.0], temperature=temperature).tolist() == [0.0, 0.0, 1.0]


def test_ties_below_the_best_are_broken_by_lot_at_a_tiny_temperature():
    seconds = {reward_weighted_indices([0.0, 9.0, 0.0], 2, temperature=1e-309, seed=seed)[1] for seed in range(30)}
    assert seconds == {0, 2}

"""The laws of the world: a seed decides it, splits share no prompt, labels follow the truth, length does not."""

from __future__ import annotations

import math
from collections import Counter
from itertools import combinations, permutations
from random import Random

import pytest

from rewardlab.studies import phrases
from rewardlab.studies import world as world_module
from rewardlab.studies.utility import qualities
from rewardlab.studies.world import (
    SUBSETS,
    best_reachable_accuracy,
    expected_best_accuracy,
    generate,
    generate_rankings,
    generate_ties,
    sample_comparisons,
    sample_completion,
    sample_prompt,
    sample_ranks,
    sample_strengths,
    true_utility,
)
from rewardlab.types import Pair, PromptGroup


@pytest.fixture(scope="module")
def world():
    return generate(0, n_train=3000, n_held_out=600, n_canary=60)


@pytest.fixture(scope="module")
def groups(world):
    return world.train + world.held_out + world.canary


def utility_gap(group):
    """Utility of the first completion minus the second's."""
    first, second = (true_utility(group.prompt, completion) for completion in group.completions)
    return first - second


def test_sizes_and_ids(world, groups):
    assert [len(split) for split in (world.train, world.held_out, world.canary)] == [3000, 600, 60]
    assert len({group.id for group in groups}) == len(groups)


def test_a_seed_decides_the_world():
    small = {"n_train": 40, "n_held_out": 20, "n_canary": 5}
    assert generate(3, **small) == generate(3, **small)
    assert generate(3, **small).train != generate(4, **small).train


def test_more_training_data_leaves_the_other_splits_alone():
    small, large = (generate(5, n_train=n, n_held_out=20, n_canary=5) for n in (10, 50))
    assert (small.canary, small.held_out, small.train) == (large.canary, large.held_out, large.train[:10])


def test_no_prompt_occurs_twice(groups):
    assert len({group.prompt_key for group in groups}) == len(groups)


def test_the_two_sides_differ(groups):
    assert all(len(set(group.completions)) == 2 for group in groups)


def test_every_subset_is_there_and_named_rightly(groups):
    shares = {kind: sum(group.subset == kind for group in groups) / len(groups) for kind in SUBSETS}
    assert all(0.2 < share < 0.3 for share in shares.values()), shares


def test_labels_follow_the_sigmoid_of_the_utility_difference(groups):
    """Per bin of the true probability, the share of "first preferred" is within 4 standard errors of it.

    The standard error of a mean of n independent Bernoulli labels is sqrt(sum p (1 - p)) / n.
    """
    bins: dict[int, list[tuple[float, bool]]] = {}
    for group in groups:
        p = 1 / (1 + math.exp(-utility_gap(group)))
        bins.setdefault(min(int(5 * p), 4), []).append((p, group.pairs[0] == Pair(0, 1)))
    assert len(bins) == 5
    for members in bins.values():
        expected = sum(p for p, _ in members)
        error = math.sqrt(sum(p * (1 - p) for p, _ in members))
        assert abs(sum(label for _, label in members) - expected) < 4 * error


def test_the_longer_completion_wins_about_half_of_the_time(groups):
    """Neither side of length is a short cut: both are far below what the truth reaches."""
    outcomes = []
    for group in groups:
        chosen, rejected = (len(group.completions[i]) for i in (group.pairs[0].chosen, group.pairs[0].rejected))
        outcomes.append(0.5 if chosen == rejected else float(chosen > rejected))
    assert 0.45 < sum(outcomes) / len(outcomes) < 0.55


def test_the_best_reachable_accuracy_leaves_noise(groups):
    best, expected = best_reachable_accuracy(groups), expected_best_accuracy(groups)
    assert 0.80 < expected < 0.88
    assert 0.78 < best < 0.88  # below the expected one by the exact ties, which are not wins


def test_the_best_accuracies_by_hand():
    """Utilities 3.4 and 0: sigmoid(3.4) = 0.96770. One label with the truth, one against it, one tie."""
    right, wrong = "It is 5.", "It is 50."
    pairs = [
        PromptGroup("What is 2 plus 3?", (right, wrong), (Pair(0, 1),)),
        PromptGroup("What is 2 plus 3?", (right, wrong), (Pair(1, 0),)),
        PromptGroup("What is 2 plus 3?", (right, "That makes 5."), (Pair(0, 1),)),
    ]
    assert best_reachable_accuracy(pairs) == pytest.approx(1 / 3)
    assert expected_best_accuracy(pairs) == pytest.approx((0.967705 + 0.967705 + 0.5) / 3, abs=1e-6)


def test_every_quality_varies(groups):
    judged = [qualities(group.prompt, completion) for group in groups for completion in group.completions]
    for name in judged[0]:
        assert len({row[name] for row in judged}) > 1, name


def test_half_of_the_truth_needs_the_prompt(groups):
    """Judging the same completions under another prompt of the same kind changes who is better in many pairs."""
    turned = 0
    rng = Random(1)
    for group in groups[:1000]:
        other = sample_prompt(rng, group.subset)
        first, second = (true_utility(other, completion) for completion in group.completions)
        turned += (first - second) * utility_gap(group) <= 0
    assert turned > 200


@pytest.mark.parametrize("kind", SUBSETS)
def test_more_completions_can_be_drawn_for_any_prompt(kind):
    rng = Random(2)
    prompt = sample_prompt(rng, kind)
    utilities = [true_utility(prompt, sample_completion(rng, prompt)) for _ in range(200)]
    assert max(utilities) - min(utilities) > 3


def test_ranks_follow_plackett_luce():
    """Every order of three comes as often as the formula says: product over places of exp(u_k) / sum of those left."""
    utilities, draws, rng = (0.0, 0.7, -0.4), 20_000, Random(3)
    counts = Counter(sample_ranks(rng, utilities) for _ in range(draws))
    for order in permutations(range(3)):
        left = [math.exp(utilities[i]) for i in order]
        p = left[0] / sum(left) * left[1] / sum(left[1:])
        ranks = tuple(order.index(i) for i in range(3))
        assert abs(counts[ranks] - draws * p) < 4 * math.sqrt(draws * p * (1 - p))
    assert sum(counts.values()) == draws


def test_two_tie_where_their_noisy_utilities_are_close():
    """The difference of two Gumbels is logistic: P(|d + L| < w) = sigmoid(w - d) - sigmoid(-w - d)."""
    draws, rng, d, w = 20_000, Random(4), 0.8, 0.5
    tied = sum(sample_ranks(rng, (d, 0.0), w) == (0, 0) for _ in range(draws))
    p = 1 / (1 + math.exp(d - w)) - 1 / (1 + math.exp(d + w))
    assert abs(tied - draws * p) < 4 * math.sqrt(draws * p * (1 - p))


@pytest.mark.parametrize("nu", [0.4, 2.5])
@pytest.mark.parametrize("d", [0.0, 1.5])
def test_comparisons_follow_davidson(nu, d):
    """P(tie) = nu / (nu + 2 cosh(d / 2)), and given a decision P(first) = sigmoid(d)."""
    draws, rng = 20_000, Random(5)
    pairs = [sample_comparisons(rng, (d, 0.0), nu)[0] for _ in range(draws)]
    p = nu / (nu + 2 * math.cosh(d / 2))
    ties = sum(pair.tie for pair in pairs)
    assert abs(ties - draws * p) < 4 * math.sqrt(draws * p * (1 - p))
    q, decided = 1 / (1 + math.exp(-d)), draws - ties
    first = sum(pair.chosen == 0 and not pair.tie for pair in pairs)
    assert abs(first - decided * q) < 4 * math.sqrt(decided * q * (1 - q))


def test_each_two_completions_are_compared_once():
    pairs = sample_comparisons(Random(0), (0.0, 1.0, 2.0, 3.0), 1.0)
    assert {frozenset((p.chosen, p.rejected)) for p in pairs} == {frozenset(two) for two in combinations(range(4), 2)}
    assert len(pairs) == 6


@pytest.mark.parametrize("d", [0.0, 2.0])
def test_strengths_are_levels_of_the_perceived_difference(d):
    """P(level 3) = P(|d + L| > 4) with L logistic, and the preference is Bradley-Terry's."""
    draws, rng = 20_000, Random(6)
    pairs = [sample_strengths(rng, (d, 0.0))[0] for _ in range(draws)]
    strongest = 1 / (1 + math.exp(4 - d)) + 1 / (1 + math.exp(4 + d))
    first = 1 / (1 + math.exp(-d))
    for count, p in (
        (sum(pair.strength == 3 for pair in pairs), strongest),
        (sum(pair.chosen == 0 for pair in pairs), first),
    ):
        assert abs(count - draws * p) < 4 * math.sqrt(draws * p * (1 - p))
    assert {pair.strength for pair in pairs} == {0.0, 1.0, 2.0, 3.0}


@pytest.mark.parametrize(
    ("make", "most"),
    [
        (lambda seed, n: generate_rankings(seed, n_train=n, n_held_out=30, tie_width=0.3), 6),
        (lambda seed, n: generate_ties(seed, n_train=n, n_held_out=30, nu=1.0, sizes=(2, 4)), 4),
    ],
)
def test_the_other_worlds_follow_their_seed_and_share_no_prompt(make, most):
    small, large = make(7, 60), make(7, 90)
    assert (small.held_out, small.train) == (large.held_out, large.train[:60])
    assert make(8, 60).train != small.train
    groups = large.train + large.held_out
    assert len({group.prompt_key for group in groups}) == len({group.id for group in groups}) == 120
    assert all(len(set(group.completions)) == len(group.completions) <= most for group in groups)
    assert all(group.pairs and group.subset in SUBSETS for group in groups)


def test_an_unknown_kind_names_the_known_ones():
    with pytest.raises(ValueError, match="arithmetic, explain, format, reply"):
        sample_prompt(Random(0), "poem")


def test_a_world_that_is_used_up_says_so(monkeypatch):
    monkeypatch.setattr(phrases, "GREETINGS", ("",))
    monkeypatch.setattr(phrases, "OPENERS", ("",))
    monkeypatch.setattr(world_module, "MOST_DRAWS", 300)
    with pytest.raises(ValueError, match="too small"):
        generate(0, n_train=3000, n_held_out=0, n_canary=0)  # there are 16 x 9 explain prompts without an opening

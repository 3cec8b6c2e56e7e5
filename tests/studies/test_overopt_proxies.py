"""Labels that a gold draws, the scale on which proxy and gold stand side by side, and (slow) a proxy that learns."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from rewardlab.scoring.scorer import Scorer
from rewardlab.studies.overopt_proxies import GoldUnits, ProxySize, ProxyTraining, label_pairs, train_proxy
from rewardlab.studies.world import generate
from rewardlab.types import PromptGroup

PAIRS = [PromptGroup(f"p{number}", ("a", "bb"), id=str(number)) for number in range(4000)]


def by_length(groups):
    return [[float(len(str(one))) for one in group.completions] for group in groups]


@pytest.mark.parametrize("noise", [0.0, 0.25])
def test_labels_are_bradley_terrys_and_then_flipped(noise):
    """The longer side is 1 better: P = sigmoid(1), then (1 - noise) P + noise (1 - P); 4 standard errors of 4,000."""
    labelled = label_pairs(PAIRS, by_length, seed=0, label_noise=noise)
    p = 1 / (1 + math.exp(-1))
    expected = (1 - noise) * p + noise * (1 - p)
    share = np.mean([group.pairs[0].chosen == 1 for group in labelled])
    assert share == pytest.approx(expected, abs=4 * math.sqrt(0.25 / len(PAIRS)))
    assert [group.completions for group in labelled] == [group.completions for group in PAIRS]


def test_an_overwhelming_difference_is_no_overflow():
    labelled = label_pairs(PAIRS[:2], lambda groups: [[-1e6, 1e6], [1e6, -1e6]], seed=0)
    assert [group.pairs[0].chosen for group in labelled] == [1, 0]


def test_units_are_the_golds():
    """Gold (0, 4): mean 2, deviation 2. Proxy (10, 20) and (0, 10): deviation 5, so the factor is 2/5."""
    units = GoldUnits(np.array([[0.0, 4.0], [0.0, 4.0]]), np.array([[10.0, 20.0], [0.0, 10.0]]))
    assert units.gold(np.array([[3.0], [5.0]])).tolist() == [[1.0], [3.0]]
    assert units.proxy(np.array([[20.0], [20.0]])).ravel().tolist() == pytest.approx([2.0, 6.0])
    assert units.correlation == pytest.approx(1.0)


def test_a_constant_proxy_has_no_correlation_and_stays_at_zero():
    units = GoldUnits(np.array([[0.0, 4.0]]), np.array([[3.0, 3.0]]))
    assert units.correlation == 0.0
    assert units.proxy(np.array([[3.0]])).tolist() == [[0.0]]


@pytest.mark.slow
def test_a_proxy_learns_from_the_labels(tmp_path):
    """After 150 steps it agrees with clearly more than half of the labels that it has not seen; members differ."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        world = generate(0, n_train=1000, n_held_out=200, n_canary=0)
        size, training = ProxySize(1000), ProxyTraining(num_steps=150)
        folders = [
            train_proxy(tmp_path / str(seed), world.train, world.held_out, size, seed, training) for seed in (0, 1)
        ]
        scores = [Scorer.from_pretrained(folder, scale="z").score_groups(world.held_out) for folder in folders]
    finally:
        torch.set_num_threads(threads)
    for of_member in scores:
        right = [
            row[g.pairs[0].chosen] > row[g.pairs[0].rejected] for g, row in zip(world.held_out, of_member, strict=True)
        ]
        assert np.mean(right) > 0.6
    assert not np.allclose(scores[0], scores[1])

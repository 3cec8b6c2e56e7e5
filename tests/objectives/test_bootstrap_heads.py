"""Several heads: the counts' distribution, and losses by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from rewardlab.objectives import (
    BradleyTerry,
    Davidson,
    GroupedPairs,
    PairTargets,
    PlackettLuce,
    RankingTargets,
    RatingTargets,
    Regression,
)
from rewardlab.objectives.bootstrap_heads import BootstrapHeads, HeadTargets, poisson_counts, resampled

KEYS = [f"pair {i}".encode() for i in range(20_000)]


def pairs(rows: list[tuple[int, int]], weight: list[float], group: list[int], tie: list[bool] | None = None):
    chosen, rejected = torch.tensor(rows).T
    ties = None if tie is None else torch.tensor(tie)
    given = {} if ties is None else {"tie": ties}
    return PairTargets(chosen, rejected, torch.zeros(len(rows)), torch.tensor(weight), torch.tensor(group), **given)


def test_counts_are_poisson_and_heads_independent() -> None:
    """20,000 units: the mean's standard error is 0.007, the variance's 0.012, a correlation's 0.007."""
    counts = poisson_counts(KEYS, 3, seed=0).double().numpy()
    assert counts.mean(axis=0) == pytest.approx([1, 1, 1], abs=0.03)
    assert counts.var(axis=0) == pytest.approx([1, 1, 1], abs=0.05)
    assert np.corrcoef(counts.T)[np.triu_indices(3, 1)] == pytest.approx([0, 0, 0], abs=0.03)
    assert np.corrcoef(counts[:-1, 0], counts[1:, 0])[0, 1] == pytest.approx(0, abs=0.03)
    seen = np.bincount(counts[:, 0].astype(int), minlength=6)
    expected = 20_000 * stats.poisson(1).pmf(range(5))
    assert stats.chisquare(seen[:5], expected * seen[:5].sum() / expected.sum()).pvalue > 1e-3


def test_counts_depend_on_seed_head_and_key_alone() -> None:
    counts = poisson_counts(KEYS[:50], 3, seed=0)
    assert torch.equal(poisson_counts(KEYS[:50][::-1], 3, seed=0), counts.flip(0))
    assert torch.equal(poisson_counts(KEYS[:50], 5, seed=0)[:, :3], counts)
    assert not torch.equal(poisson_counts(KEYS[:50], 3, seed=1), counts)
    assert poisson_counts([], 3, seed=0).shape == (0, 3)


def test_loss_of_two_heads_by_hand() -> None:
    """Pairs (0, 1) of weight 2 and (2, 1) of weight 1; the first head takes them 2 and 0 times, the second 0 and 3.

    Head 0 scores 1, 0, .: the first pair costs softplus(-1), 2 * 2 times. Head 1 scores ., 1, 0: the second costs
    softplus(1), 3 times. The denominator is 2 * 2 + 3 = 7.
    """
    targets = HeadTargets.of(pairs([(0, 1), (2, 1)], [2.0, 1.0], [0, 0]), torch.tensor([[2, 0], [0, 3]]))
    scores = torch.tensor([[1.0, 9.0], [0.0, 1.0], [-9.0, 0.0]], requires_grad=True)
    heads = BootstrapHeads(BradleyTerry(center_rewards_coefficient=0.0))
    loss = heads(scores, targets)
    assert loss.item() == pytest.approx(4 * math.log1p(math.exp(-1)) + 3 * math.log1p(math.exp(1)), abs=1e-5)
    assert heads.num_units(targets) == 7
    loss.backward()
    assert scores.grad is not None
    assert scores.grad[2, 0] == scores.grad[0, 1] == 0, "no head learns what it does not take"
    assert scores.grad[0, 0].item() == pytest.approx(-4 / (1 + math.e), abs=1e-5)


def test_centering_is_of_each_head() -> None:
    """Scores 1 and 2 under one head, -1 and -2 under the other: their mean is centered, and they are not: 9 each."""
    targets = HeadTargets.of(pairs([(0, 1)], [1.0], [0]), torch.ones(1, 2, dtype=torch.long))
    scores = torch.tensor([[1.0, -1.0], [2.0, -2.0]])
    with_it, without = (BootstrapHeads(BradleyTerry(c))(scores, targets) for c in (0.5, 0.0))
    assert (with_it - without).item() == pytest.approx(0.5 * (9 + 9), abs=1e-5)


def test_under_grouped_pairs_a_prompt_counts_as_often_as_it_is_drawn() -> None:
    """Group 0 (two pairs) twice, group 1 never: twice the plain loss of group 0, and two units."""
    targets = pairs([(0, 1), (1, 2), (3, 4)], [1.0, 3.0, 1.0], [0, 0, 1])
    scores = torch.tensor([0.3, -0.2, 0.5, 1.0, 2.0])
    drawn = HeadTargets.of(targets, torch.tensor([[2], [2], [0]]))
    objective = GroupedPairs(center_rewards_coefficient=0.0)
    alone = objective(scores[:3], pairs([(0, 1), (1, 2)], [1.0, 3.0], [0, 0]))
    heads = BootstrapHeads(objective)
    assert heads(scores[:, None], drawn).item() == pytest.approx(2 * alone.item(), abs=1e-6)
    assert heads.num_units(drawn) == 2


@pytest.mark.parametrize("kind", ["pairs", "rankings", "ratings"])
def test_counts_of_one_change_nothing_and_of_zero_leave_nothing(kind: str) -> None:
    scores = torch.tensor([0.3, -0.2, 0.5], requires_grad=True)
    index = torch.tensor([[0, 1, 2], [2, 0, -1]])
    objective, targets = {
        "pairs": (Davidson(), pairs([(0, 1), (1, 2)], [1.0, 2.0], [0, 1], [False, True])),
        "rankings": (
            PlackettLuce(),
            RankingTargets(
                index, torch.tensor([[0, 1, 1], [0, 1, -1]]), torch.tensor([1.0, 2.0]), torch.tensor([0, 1])
            ),
        ),
        "ratings": (
            Regression(),
            RatingTargets(torch.tensor([0, 2]), torch.tensor([1.0, 2.0]), torch.ones(2), torch.tensor([0, 0])),
        ),
    }[kind]
    ones, none = torch.ones(2, dtype=torch.long), torch.zeros(2, dtype=torch.long)
    assert objective(scores, resampled(targets, ones)).item() == objective(scores, targets).item()
    heads = BootstrapHeads(objective)
    empty = HeadTargets.of(targets, torch.stack([none, none], dim=1)).to(torch.device("cpu"))
    loss = heads(torch.stack([scores, scores], dim=1), empty) / heads.num_units(empty)
    (gradient,) = torch.autograd.grad(loss, scores)
    assert loss.item() == 0
    assert not gradient.any(), "a step in which no unit counts changes nothing"


def test_scores_of_other_heads_are_refused() -> None:
    targets = HeadTargets.of(pairs([(0, 1)], [1.0], [0]), torch.ones(1, 2, dtype=torch.long))
    with pytest.raises(ValueError, match=r"scores of shape \(2,\) for 2 heads"):
        BootstrapHeads(BradleyTerry())(torch.zeros(2), targets)

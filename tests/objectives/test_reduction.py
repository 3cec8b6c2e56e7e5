"""The law of reduction: shards of any size give the loss and gradient of the whole."""

from __future__ import annotations

import pytest
import torch

from rewardlab.objectives import BradleyTerry, GroupedPairs, PairTargets
from rewardlab.objectives.reduction import check_same_shape, in_float32

SHARDS = (140, 70, 90)


def test_shards_of_uneven_size_give_the_gradient_of_the_whole() -> None:
    """Sum over units divided by their global weighted number, in shards of 140, 70 and 90 weighted pairs."""
    generator = torch.Generator().manual_seed(0)
    total = sum(SHARDS)
    chosen, rejected = (torch.randn(total, generator=generator, dtype=torch.float64) for _ in range(2))
    margin, weight = (torch.rand(total, generator=generator, dtype=torch.float64) + 0.1 for _ in range(2))
    objective = BradleyTerry(center_rewards_coefficient=0.01)

    def gradient(shards: tuple[int, ...]) -> tuple[torch.Tensor, float]:
        scores = torch.stack([chosen, rejected], dim=1).requires_grad_()
        loss = torch.zeros((), dtype=torch.float64)
        units, start = 0.0, 0
        parts = []
        for size in shards:
            rows = slice(start, start + size)
            index = torch.arange(size)
            targets = PairTargets(2 * index, 2 * index + 1, margin[rows], weight[rows], index)
            parts.append((scores[rows].reshape(-1), targets))
            units += objective.num_units(targets)
            start += size
        for part, targets in parts:
            loss = loss + objective(part, targets) / units
        loss.backward()
        assert scores.grad is not None
        return scores.grad, loss.item()

    whole, whole_loss = gradient((total,))
    sharded, sharded_loss = gradient(SHARDS)
    torch.testing.assert_close(sharded, whole, rtol=1e-12, atol=0)
    assert sharded_loss == pytest.approx(whole_loss, rel=1e-12)


def test_grouped_pairs_in_shards_of_whole_groups_give_the_gradient_of_the_whole() -> None:
    """Six groups of 1 to 6 weighted pairs, in shards of 1, 2 and 3 groups that number their groups from 0 each."""
    generator = torch.Generator().manual_seed(0)
    sizes = [3, 1, 6, 2, 5, 4]
    scores = torch.randn(2 * sum(sizes), generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(sum(sizes), generator=generator, dtype=torch.float64) + 0.1
    objective = GroupedPairs(center_rewards_coefficient=0.01)

    def loss_of(shards: list[list[int]]) -> torch.Tensor:
        total, units, start = torch.zeros((), dtype=torch.float64), 0.0, 0
        for shard in shards:
            stop = start + sum(shard)
            chosen = 2 * torch.arange(stop - start)
            group = torch.repeat_interleave(torch.arange(len(shard)), torch.tensor(shard))
            targets = PairTargets(chosen, chosen + 1, torch.zeros(stop - start), weight[start:stop], group)
            total = total + objective(scores[2 * start : 2 * stop], targets)
            units += objective.num_units(targets)
            start = stop
        return total / units

    (whole,) = torch.autograd.grad(loss_of([sizes]), scores)
    (sharded,) = torch.autograd.grad(loss_of([sizes[:1], sizes[1:3], sizes[3:]]), scores)
    torch.testing.assert_close(sharded, whole, rtol=1e-12, atol=0)


def test_a_mean_of_means_is_something_else() -> None:
    """What the law prevents: the mean of the three shards' means weighs a pair of the shard of 70 twice one of 140."""
    values = torch.cat([torch.full((size,), float(i)) for i, size in enumerate(SHARDS)])
    mean_of_means = sum(float(i) for i in range(3)) / 3
    assert abs(float(values.mean()) - mean_of_means) > 0.1


def test_targets_of_different_lengths_are_refused() -> None:
    one, two = torch.zeros(1), torch.zeros(2)
    with pytest.raises(ValueError, match="vectors of one length"):
        PairTargets(one.long(), one.long(), one, two, one.long())
    with pytest.raises(ValueError, match="group"):
        PairTargets(one.long(), one.long(), one, one, two.long())
    with pytest.raises(ValueError, match="vectors of one length"):
        check_same_shape(scores=torch.zeros(2, 2))


def test_low_precision_is_raised_and_float64_kept() -> None:
    assert in_float32(torch.zeros(1, dtype=torch.bfloat16)).dtype == torch.float32
    assert in_float32(torch.zeros(1, dtype=torch.float64)).dtype == torch.float64

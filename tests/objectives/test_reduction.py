"""The law of reduction: shards of any size give the loss and gradient of the whole."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from rewardlab.objectives import (
    MASKED,
    OBJECTIVES,
    BradleyTerry,
    GroupedPairs,
    PairTargets,
    RankingTargets,
    RatingTargets,
    StepTargets,
    Targets,
    TokenTargets,
    build_objective,
)
from rewardlab.objectives.reduction import check_same_shape, checked_coefficient, in_float32

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


def made(name: str, groups: int, generator: torch.Generator) -> tuple[torch.Tensor, Targets]:
    """Scores of some groups of four, with all that an objective could be told of them."""

    def numbers(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    first, group, scores = 4 * torch.arange(groups), torch.arange(groups), 4 * numbers(4 * groups) - 2
    if name == "plackett_luce":
        index = first[:, None] + torch.tensor([2, 0, 3, 1])
        ranks = torch.tensor([[0, 1, 1, -1]]).repeat(groups, 1)
        return scores, RankingTargets(index, ranks, numbers(groups) + 0.1, group)
    if name == "regression":
        return scores, RatingTargets(first + 1, 5 * numbers(groups), numbers(groups) + 0.1, group)
    if name == "outcome":
        return scores, TokenTargets(torch.where(numbers(4 * groups) < 0.3, MASKED, numbers(4 * groups)))
    if name == "process":
        label = torch.randint(0, 3, (4 * groups,), generator=generator)
        label[::3] = MASKED
        return 4 * numbers(4 * groups, 3) - 2, StepTargets(label)
    chosen, rejected = torch.cat([first, first + 1, first]), torch.cat([first + 1, first + 2, first + 3])
    count, tie = 3 * groups, torch.arange(3 * groups) % 3 == 2
    return scores, PairTargets(
        chosen,
        rejected,
        torch.where(tie, 0.0, numbers(count)),
        numbers(count) + 0.1,
        group.repeat(3),
        torch.where(tie, 0.5, numbers(count)),
        torch.where(tie, torch.nan, numbers(count)),
        tie,
    )


def cat(parts: list[Targets], sizes: list[int]) -> Targets:
    """The targets of several micro-batches as those of one."""
    shifts = {"chosen": sizes, "rejected": sizes, "index": sizes, "group": [size // 4 for size in sizes]}
    joined = {}
    for field in dataclasses.fields(parts[0]):
        by = shifts.get(field.name, [0] * len(sizes))
        shifted = [getattr(part, field.name) + sum(by[:place]) for place, part in enumerate(parts)]
        joined[field.name] = torch.cat(shifted).to(getattr(parts[0], field.name).dtype)
    return type(parts[0])(**joined)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_sums_over_its_units(name: str) -> None:
    """Micro-batches of 1, 4 and 2 groups: their sums add up to the whole's, in loss, gradient and units."""
    generator = torch.Generator().manual_seed(0)
    batches = [made(name, groups, generator) for groups in (1, 4, 2)]
    objective = build_objective(name, {})
    scores = torch.cat([part for part, _ in batches]).requires_grad_()
    sizes = [len(part) for part, _ in batches]
    whole = cat([targets for _, targets in batches], sizes)
    together = objective(scores, whole)
    apart = [objective(part, t) for part, (_, t) in zip(scores.split(sizes), batches, strict=True)]
    assert (together.ndim, together.dtype) == (0, torch.float64)
    assert len({round(part.item(), 6) for part in apart}) == 3
    torch.testing.assert_close(sum(apart), together)
    assert sum(objective.num_units(t) for _, t in batches) == pytest.approx(objective.num_units(whole))
    (expected,) = torch.autograd.grad(together, scores)
    (found,) = torch.autograd.grad(sum(apart), scores)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
    assert expected.abs().max() > 0.01


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_objective_raises_low_precision(name: str, dtype: torch.dtype) -> None:
    scores, targets = made(name, 3, torch.Generator().manual_seed(0))
    low = (500 * scores).to(dtype).requires_grad_()
    loss = build_objective(name, {})(low, targets)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert low.grad is not None
    assert low.grad.isfinite().all()


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


def test_a_penalty_that_would_reward_drifting_is_refused() -> None:
    assert checked_coefficient(0.0) == 0.0
    with pytest.raises(ValueError, match="must be >= 0, got -1"):
        checked_coefficient(-1.0)

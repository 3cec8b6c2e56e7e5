"""One pass and two passes over a part give the same loss, scores and gradient, also an objective's own."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rewardlab.modeling.engine import Forward
from rewardlab.training.batches import TargetedPart
from rewardlab.training.part_step import PartStep, Rounds, counts_of, fill_up, in_order


@dataclass
class Weights:
    """Targets of a made-up objective: loss = a * sum(weights * scores^2)."""

    value: Tensor

    def to(self, device: torch.device) -> Weights:
        return self


def forward_of(rows: list[list[float]], indices: tuple[int, ...]) -> Forward:
    return Forward({"input_ids": torch.tensor(rows)}, indices)


@dataclass
class Run:
    """A linear model, a made-up objective with a parameter of its own, and what was asked of both, in order."""

    model: nn.Module
    scale: nn.Parameter
    told: list[str]

    @classmethod
    def seeded(cls) -> Run:
        torch.manual_seed(1)
        return cls(nn.Linear(2, 1), nn.Parameter(torch.tensor(0.7)), [])

    def step(self) -> PartStep:
        def run(forward: Forward) -> Tensor:
            self.told.append("forward" if torch.is_grad_enabled() else "look")
            return self.model(forward.inputs["input_ids"]).squeeze(-1)

        def exchanging(exchange: bool) -> nullcontext[None]:
            self.told += ["exchange"] * exchange
            return nullcontext()

        def backward(loss: Tensor, is_last: bool = False) -> None:
            self.told.append("last backward" if is_last else "backward")
            (8 * loss).backward()  # as the scaler of float16 does

        return PartStep(
            run=run,
            loss=lambda scores, targets: self.scale * torch.sum(targets.value * scores**2),
            backward=backward,
            backward_beside=lambda loss: (8 * loss).backward(),
            computing=nullcontext,
            exchanging=exchanging,
            filler=lambda: forward_of([[math.pi, 1.0]], (0,)),
            device=torch.device("cpu"),
        )


ROWS = [[0.3, -1.2], [1.7, 0.4], [-0.6, 0.9]]
TARGETS = Weights(torch.tensor([1.0, -2.0, 0.5]))
ONCE = TargetedPart((forward_of(ROWS, (0, 1, 2)),), TARGETS)
TWICE = TargetedPart((forward_of([ROWS[2], ROWS[0]], (2, 0)), forward_of([ROWS[1]], (1,))), TARGETS)


@pytest.mark.parametrize("more", [0, 2])
def test_two_passes_equal_one_and_what_fills_up_changes_nothing(more: int) -> None:
    """Read-outs 0, 1, 2 in one forward, and as 2, 0 and 1 in two; alone, and beside ranks with two forwards more."""
    results = []
    for part in (ONCE, TWICE):
        run = Run.seeded()
        rounds = Rounds.of([part])
        loss, (scores,) = run.step()([part], Rounds(rounds.without_gradient + more, rounds.with_gradient + more))
        assert run.model.weight.grad is not None
        assert run.scale.grad is not None
        results.append((loss, scores, run.model.weight.grad, run.scale.grad))
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(one, two)
    assert results[0][3] != 0
    weights, bias = Run.seeded().model.parameters()
    expected = (torch.tensor(ROWS) @ weights.T + bias).squeeze(-1)
    torch.testing.assert_close(results[0][1], expected.detach())
    torch.testing.assert_close(results[0][0], 0.7 * torch.sum(TARGETS.value * expected.detach() ** 2))


def test_first_passes_come_first_and_gradients_are_exchanged_at_the_last() -> None:
    """In shards every rank must go through these very steps: two looks and a filler, then four backwards and one."""
    run = Run.seeded()
    run.step()([ONCE, TWICE, ONCE], Rounds(3, 5))
    ordinary, last = ["forward", "backward"], ["exchange", "forward", "last backward"]
    assert run.told == ["look"] * 3 + ordinary * 4 + last
    run = Run.seeded()
    run.step()([TWICE], Rounds.of([TWICE]))
    assert run.told == ["look"] * 2 + ordinary + last


def test_a_rank_without_groups_takes_part() -> None:
    run = Run.seeded()
    loss, scores = run.step()([], Rounds.of([]))
    assert (float(loss), scores, run.told) == (0.0, [], ["exchange", "forward", "last backward"])
    assert run.model.weight.grad is not None
    assert not run.model.weight.grad.any()
    assert run.scale.grad is None


def test_counts_are_told_per_micro_batch_and_each_is_filled_up() -> None:
    batches: list[dict[str, Any]] = [{"parts": [ONCE, TWICE]}, {"parts": []}]
    assert counts_of(batches) == [2, 3, 0, 1]
    fill_up(batches, [2, 4, 7, 8])
    assert [batch["rounds"] for batch in batches] == [Rounds(2, 4), Rounds(7, 8)]


def test_in_order_also_for_rows_of_classes() -> None:
    part = TargetedPart((forward_of([[0.0]], (2, 0)), forward_of([[0.0]], (1,))), None)
    found = in_order(part, [torch.tensor([[2.0, 2.5], [0.0, 0.5]]), torch.tensor([[1.0, 1.5]])])
    assert found.tolist() == [[0.0, 0.5], [1.0, 1.5], [2.0, 2.5]]

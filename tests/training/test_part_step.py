"""One pass and two passes over a part give the same loss, scores and gradient, also an objective's own."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rewardlab.modeling.engine import Forward
from rewardlab.training.batches import TargetedPart
from rewardlab.training.part_step import PartStep, in_order


@dataclass
class Weights:
    """Targets of a made-up objective: loss = a * sum(weights * scores^2)."""

    value: Tensor

    def to(self, device: torch.device) -> Weights:
        return self


def forward_of(rows: list[list[float]], indices: tuple[int, ...]) -> Forward:
    return Forward({"input_ids": torch.tensor(rows)}, indices)


def step_of(model: nn.Module, scale: nn.Parameter, exchanged: list[bool]) -> PartStep:
    def exchanging(exchange: bool) -> nullcontext[None]:
        exchanged.append(exchange)
        return nullcontext()

    return PartStep(
        run=lambda forward: model(forward.inputs["input_ids"]).squeeze(-1),
        loss=lambda scores, targets: scale * torch.sum(targets.value * scores**2),
        backward=lambda loss: (8 * loss).backward(),  # as the scaler of float16 does
        computing=nullcontext,
        exchanging=exchanging,
        device=torch.device("cpu"),
    )


def test_two_passes_equal_one() -> None:
    """Read-outs 0, 1, 2 in one forward, and as 2, 0 and 1 in two; the gradient of the last is exchanged alone."""
    torch.manual_seed(0)
    rows = torch.randn(3, 2).tolist()
    targets = Weights(torch.tensor([1.0, -2.0, 0.5]))
    once = TargetedPart((forward_of(rows, (0, 1, 2)),), targets)
    twice = TargetedPart((forward_of([rows[2], rows[0]], (2, 0)), forward_of([rows[1]], (1,))), targets)
    results = []
    for part, expected in ((once, [True]), (twice, [False, False, True])):
        torch.manual_seed(1)
        model, scale, exchanged = nn.Linear(2, 1), nn.Parameter(torch.tensor(0.7)), list[bool]()
        loss, scores = step_of(model, scale, exchanged)(part, is_last=True)
        assert exchanged == expected
        assert model.weight.grad is not None
        assert scale.grad is not None
        results.append((loss, scores, model.weight.grad, scale.grad))
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(one, two)
    assert results[0][3] != 0


def test_in_order_also_for_rows_of_classes() -> None:
    part = TargetedPart((forward_of([[0.0]], (2, 0)), forward_of([[0.0]], (1,))), None)
    found = in_order(part, [torch.tensor([[2.0, 2.5], [0.0, 0.5]]), torch.tensor([[1.0, 1.5]])])
    assert found.tolist() == [[0.0, 0.5], [1.0, 1.5], [2.0, 2.5]]

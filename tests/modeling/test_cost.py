"""Costs against torch's own count of the FLOPs of a forward, in each layout."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from rewardlab.modeling.cost import ComputeCost
from rewardlab.modeling.engine import Engine, Layout
from rewardlab.modeling.preparing import LoraOptions, prepare_for_training

aten = torch.ops.aten
GROUP = [[*range(3, 43), *range(50, 50 + n)] for n in (30, 12, 12, 55)]


def test_linear_layers_as_torch_counts_them(base_model: Path) -> None:
    """Adapters included; of the head, which is counted by torch alone, there is little."""
    inner = prepare_for_training(base_model, seed=0, mode="lora", lora=LoraOptions(rank=4)).model.get_base_model()
    engine = Engine(inner, "padded")
    ((forward,),) = [part.forwards for part in engine.planner.parts([GROUP])]
    cost = ComputeCost.of_model(inner)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        engine.scores(forward)
    counted = counter.get_flop_counts()["Global"]
    products = sum(count for operator, count in counted.items() if operator in (aten.mm, aten.addmm))
    assert 0.98 * products < cost.per_token * forward.num_tokens <= products


@pytest.mark.parametrize("layout", ["tree", "packed", "padded"])
def test_a_group_costs_what_its_forward_does(base_model: Path, layout: Layout) -> None:
    model = prepare_for_training(base_model, seed=0).model
    cost = ComputeCost.of_model(model)
    ((forward,),) = [part.forwards for part in Engine(model, layout).planner.parts([GROUP])]
    assert cost.of_forward(forward) == cost.of_group(GROUP, layout) > 0


def test_attention_counts_each_query_and_key_that_meet() -> None:
    """Prefix of 3, completions of 2 and 1 ids: 6 pairs in the prefix, 3 + 4 and 3 + 4 ... counted by a mask."""
    cost = ComputeCost(per_token=0.0, per_pair=1.0)
    group = [[1, 2, 3, 4, 5], [1, 2, 3, 9]]
    seen = torch.ones(6, 6).tril()
    seen[5, 3:5] = 0  # the second completion does not see the first
    assert cost.of_group(group, "tree") == float(seen.sum())
    assert cost.of_group(group, "packed") == 15 + 10
    assert cost.of_group(group, "padded") == 2 * 5 * 5
    assert ComputeCost(1.0, 0.0).of_group(group, "tree") == 6


def test_a_token_meets_a_few_of_many_experts() -> None:
    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = nn.Parameter(torch.zeros(8, 5, 3))
            self.embedding = nn.Embedding(100, 3)
            self.linear = nn.Linear(3, 4)

    class Config:
        head_dim, num_attention_heads, num_hidden_layers, num_experts_per_tok = 2, 3, 1, 2

        def get_text_config(self) -> Config:
            return self

    model = nn.Module()
    model.config, model.base_model = Config(), Experts()
    cost = ComputeCost.of_model(model)
    assert cost == ComputeCost(2.0 * (2 * 5 * 3 + 3 * 4), 4.0 * 2 * 3)

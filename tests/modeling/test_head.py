"""The head: found in every family, float32 in every dtype, the same start for the same seed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rewardlab.errors import CheckpointError
from rewardlab.modeling.head import Float32Head, head_name, initialise_head, is_decoder, use_float32_head


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert", "deberta_v2", "modernbert"])
def test_head_is_found_by_shape(make_model, family: str) -> None:
    model = make_model(family)
    expected = "classifier" if family in ("bert", "deberta_v2", "modernbert") else "score"
    assert head_name(model) == expected
    assert is_decoder(model) == (expected == "score")


def test_replacing_the_head_keeps_names_and_values(make_model) -> None:
    model = make_model("llama")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    head = use_float32_head(model)
    assert isinstance(model.score, Float32Head)
    assert use_float32_head(model) is head
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_head_is_float32_under_autocast_and_in_bfloat16() -> None:
    """Two hidden states that differ by less than a bfloat16 step of the score still get different scores."""
    head = Float32Head(2, 1, bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[1.0, 2.0**-12]]))
    hidden = torch.tensor([[64.0, 1.0], [64.0, 2.0]], dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = head(hidden)
    assert scores.dtype == torch.float32
    assert scores[1, 0] > scores[0, 0]
    plain = nn.functional.linear(hidden, head.weight.bfloat16())
    assert plain[1, 0] == plain[0, 0]  # what the head prevents


def test_start_depends_on_the_seed_alone() -> None:
    heads = [nn.Linear(400, 1) for _ in range(3)]
    for head, seed in zip(heads, (7, 7, 8), strict=True):
        torch.manual_seed(seed * 31)  # the global generator must not matter
        initialise_head(head, seed)
    assert torch.equal(heads[0].weight, heads[1].weight)
    assert not torch.equal(heads[0].weight, heads[2].weight)
    assert heads[0].weight.std().item() == pytest.approx(401**-0.5, rel=0.15)
    assert heads[0].bias.item() == 0


def test_a_model_without_one_scalar_head_is_refused() -> None:
    with pytest.raises(CheckpointError, match="has 0 linear layers with 1 outputs"):
        head_name(nn.Sequential(nn.Linear(3, 2)))

"""Counted on fake tensors against counted in a real forward over a packed row, as training runs it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from transformers import AutoModelForSequenceClassification, BertConfig, LlamaConfig, Qwen3Config

from rewardlab.modeling.head import use_float32_head
from rewardlab.modeling.packed_forward import enable_packing, row_inputs
from rewardlab.modeling.prefix_tree import lay_out, without_sharing
from rewardlab.modeling.preparing import LoraOptions, inner_model, with_adapters
from rewardlab.modeling.tree_attention import AttentionPlan
from rewardlab.training.activations import CountedModel

HIDDEN, INTERMEDIATE, TOKENS = 128, 320, 256


def _llama(**changes: Any) -> LlamaConfig:
    values = {
        "vocab_size": 500,
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "num_labels": 1,
        "pad_token_id": 0,
        "use_cache": False,
    }
    return LlamaConfig(**{**values, **changes})


def _really_kept(config: Any, mode: str, dtype: torch.dtype) -> int:
    """Bytes that a real forward over two sequences in one packed row keeps, each storage once."""
    model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    use_float32_head(model)
    trained: Any = with_adapters(model, LoraOptions(), set()) if mode == "lora" else model
    enable_packing(inner_model(trained))
    row = lay_out(without_sharing([list(range(3, 3 + TOKENS // 2))] * 2))
    plan = AttentionPlan(row, "cpu", prune=False)
    own = {tensor.untyped_storage().data_ptr() for tensor in (*trained.parameters(), *trained.buffers())}
    saved: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    autocast = torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16)
    with saved_tensors_hooks(keep, lambda tensor: tensor), autocast:
        outputs = trained(**row_inputs(row), packing_plan=plan).logits
    assert outputs.requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in saved.values())


@pytest.mark.parametrize("mode", ["full", "lora"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["llama", "grouped"])
def test_the_count_is_what_a_real_forward_keeps(mode: str, dtype: torch.dtype, family: str) -> None:
    config = _llama() if family == "llama" else Qwen3Config(**_llama(num_key_value_heads=2).to_dict())
    counted = CountedModel(config, mode=mode).kept(computes_in=dtype)  # type: ignore[arg-type]
    assert counted.per_token * TOKENS + counted.fixed == pytest.approx(_really_kept(config, mode, dtype), rel=0.03)


def test_a_layer_s_count_follows_the_formula_that_the_module_states() -> None:
    counted = CountedModel(_llama()).kept(computes_in=torch.bfloat16)
    # Beside it what the layers share, which the first one keeps first: the rotations, and a few numbers a head.
    shared = counted.layer_per_token - (34 * HIDDEN + 8 * INTERMEDIATE)
    assert 0 <= shared <= 16 * HIDDEN // 4
    assert counted.between_per_token == 4 * HIDDEN, "the residual stream is float32 under autocast"


def test_autocast_keeps_a_copy_of_every_matrix_and_none_in_float32() -> None:
    config = _llama()
    matrices = 3 * (4 * HIDDEN * HIDDEN + 3 * HIDDEN * INTERMEDIATE)
    model = CountedModel(config)
    assert model.kept(computes_in=torch.bfloat16).fixed == pytest.approx(2 * matrices, rel=0.02)
    assert model.kept().fixed <= 0.01 * matrices


@pytest.mark.parametrize("mode", ["full", "lora", "head_only"])
def test_parameters_are_counted_exactly(mode: str) -> None:
    config = _llama()
    real = AutoModelForSequenceClassification.from_config(config)
    size = CountedModel(config, mode=mode).size  # type: ignore[arg-type]
    whole = sum(p.numel() for p in real.parameters())
    adapters = 3 * 16 * (4 * (HIDDEN + HIDDEN) + 3 * (HIDDEN + INTERMEDIATE))
    if mode == "lora":
        assert size.trained == adapters + HIDDEN
        assert size.parameters == whole + adapters + HIDDEN, (
            "PEFT keeps the head twice: as it was, and as it is trained"
        )
    else:
        assert (size.parameters, size.trained) == (whole, whole if mode == "full" else HIDDEN)
    assert size.num_layers == 3


def test_an_encoder_is_counted_too() -> None:
    config = BertConfig(
        vocab_size=500, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_labels=1
    )
    counted = CountedModel(config)
    assert counted.size.parameters == sum(
        p.numel() for p in AutoModelForSequenceClassification.from_config(config).parameters()
    )
    assert counted.kept().per_token > 2 * counted.kept().layer_per_token * 0.9


def test_70_billion_parameters_are_counted_without_memory_for_one() -> None:
    config = _llama(
        hidden_size=8192,
        intermediate_size=28672,
        num_hidden_layers=8,
        num_attention_heads=64,
        num_key_value_heads=8,
        vocab_size=128256,
    )
    counted = CountedModel(config)
    assert counted.size.largest_layer == 855_654_400  # of Llama 3 70B, of which this has 8 of the 80 layers
    assert counted.kept(computes_in=torch.bfloat16).per_token > 0

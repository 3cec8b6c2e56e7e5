"""What a trainer is told of engines, where DeepSpeed takes its steps, and that what stays whole is left alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.utils import DistributedType
from torch import Tensor, nn
from torch.distributed.fsdp import MixedPrecisionPolicy

from rewardlab.errors import ConfigError
from rewardlab.training.sharding import Sharding


class _Engine:
    """As DeepSpeed's: writes down what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def set_gradient_accumulation_boundary(self, is_boundary: bool) -> None:
        self.asked.append(f"boundary {is_boundary}")

    def backward(self, loss: Tensor, scale_wrt_gas: bool) -> None:
        self.asked.append(f"backward {loss.item()} {scale_wrt_gas}")

    def step(self) -> None:
        self.asked.append("step")


def _sharding(kind: DistributedType, **others: Any) -> Sharding:
    accelerator: Any = SimpleNamespace(distributed_type=kind, is_main_process=True, **others)
    accelerator.unwrap_model = lambda model: model
    policy = MixedPrecisionPolicy(torch.bfloat16, torch.bfloat16, torch.bfloat16)  # accelerate's for bfloat16
    accelerator.state = SimpleNamespace(fsdp_plugin=SimpleNamespace(fsdp_version=2, mixed_precision_policy=policy))
    return Sharding(accelerator)


@pytest.mark.parametrize(
    ("kind", "collective"),
    [
        (DistributedType.NO, False),
        (DistributedType.MULTI_CPU, False),
        (DistributedType.MULTI_GPU, False),
        (DistributedType.DEEPSPEED, True),
        (DistributedType.FSDP, True),
    ],
)
def test_engines_whose_backwards_are_collectives(kind: DistributedType, collective: bool) -> None:
    assert _sharding(kind).is_sharded is collective


def test_fsdp_sums_gradients_and_gives_scores_in_float32() -> None:
    sharding = _sharding(DistributedType.FSDP)
    policy = sharding._accelerator.state.fsdp_plugin.mixed_precision_policy
    assert policy == MixedPrecisionPolicy(torch.bfloat16, torch.float32, torch.float32)


def test_deepspeed_steps_at_the_last_backward_of_a_steps_last_micro_batch() -> None:
    engine = _Engine()
    wrapped = SimpleNamespace(engine=engine)
    sharding = _sharding(DistributedType.DEEPSPEED, deepspeed_engine_wrapped=wrapped, sync_gradients=False)
    sharding.backward(torch.tensor(1.0), is_last=True)  # of the first micro-batch of two
    sharding._accelerator.sync_gradients = True
    sharding.backward(torch.tensor(2.0), is_last=False)
    sharding.backward(torch.tensor(3.0), is_last=True)
    assert engine.asked == [
        *("boundary False", "backward 1.0 False"),
        *("boundary False", "backward 2.0 False"),
        *("boundary True", "backward 3.0 False", "step"),
    ]


def test_a_whole_model_is_saved_as_it_is() -> None:
    model = nn.Linear(2, 2)
    sharding = _sharding(DistributedType.MULTI_CPU)
    sharding.remember_structure(model)
    assert sharding.whole_model(model) is model
    sharding._accelerator.is_main_process = False
    assert sharding.whole_model(model) is None


def test_a_model_in_4_bits_is_refused() -> None:
    model = nn.Linear(2, 2)
    model.is_quantized = True
    with pytest.raises(ConfigError, match="4 bits"):
        _sharding(DistributedType.DEEPSPEED).remember_structure(model)

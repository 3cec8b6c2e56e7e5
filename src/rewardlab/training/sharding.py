"""How a run's model lies across its processes, and what follows for forwards, backwards and saving.

| engine | weights | forward | backward |
|---|---|---|---|
| alone, DDP | whole in each process | each its own | exchanges gradients once a micro-batch |
| ZeRO-2 | whole | each its own | a collective, every one |
| ZeRO-3, FSDP2 | in shards, gathered layer by layer | a collective | a collective |

Where any of them is a collective, all processes must run as many forwards and backwards, in the same order.

This file knows accelerate, DeepSpeed and FSDP; it knows no data and no objective.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor, nn
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from rewardlab.errors import ConfigError
from rewardlab.modeling.preparing import inner_model
from rewardlab.training.gathering import of_deepspeed, of_fsdp, put_together, structure_of


class Sharding:
    """What a trainer asks of the way its model lies across processes.

    Args:
        accelerator: Of the run.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator: Any = accelerator
        self._structure: nn.Module | None = None
        if self.uses_fsdp:
            _exchange_in_float32(self._accelerator.state.fsdp_plugin)

    @property
    def uses_deepspeed(self) -> bool:
        """Whether DeepSpeed takes the steps."""
        return bool(self._accelerator.distributed_type == DistributedType.DEEPSPEED)

    @property
    def uses_fsdp(self) -> bool:
        """Whether torch's FSDP2 divides the model."""
        return bool(self._accelerator.distributed_type == DistributedType.FSDP)

    @property
    def is_sharded(self) -> bool:
        """Whether forwards or backwards are collectives: then all processes must run as many."""
        return self.uses_deepspeed or self.uses_fsdp

    @property
    def keeps_weights_apart(self) -> bool:
        """Whether the model itself is not what is to be saved: in shards, or rounded beside DeepSpeed's float32."""
        return self.is_sharded

    def exchanging(self, model: nn.Module, exchange: bool) -> AbstractContextManager[Any]:
        """Around a forward and its backward: whether processes exchange their gradients at it.

        So whole models may need different numbers of forwards. DDP wants the forward inside, too. What is in shards
        exchanges at every backward.
        """
        return nullcontext() if exchange or self.is_sharded else self._accelerator.no_sync(model)

    def backward(self, loss: Tensor, *, is_last: bool) -> None:
        """In place of ``loss.backward()``, for a loss that goes through the model.

        Args:
            loss: The part's share of the step's loss.
            is_last: Whether it is the micro-batch's last. DeepSpeed takes its step in the last backward of a step's
                last micro-batch, which the accelerator knows.
        """
        if not self.uses_deepspeed:
            self._accelerator.backward(loss)
            return
        engine = self._accelerator.deepspeed_engine_wrapped.engine
        takes_step = is_last and bool(self._accelerator.sync_gradients)
        engine.set_gradient_accumulation_boundary(takes_step)
        engine.backward(loss, scale_wrt_gas=False)  # the loss is divided by the units of the whole step
        if takes_step:
            engine.step()

    def backward_beside(self, loss: Tensor) -> None:
        """The same for a loss that reaches parameters of the objective alone, and none of the model's."""
        if self.uses_deepspeed:
            loss.backward()
        else:
            self._accelerator.backward(loss)

    def remember_structure(self, model: nn.Module) -> None:
        """Keep what a model is without its weights, before it is divided; nothing where it stays whole.

        Args:
            model: The whole model.

        Raises:
            ConfigError: It is in 4 bits, which cannot be divided.
        """
        if self.keeps_weights_apart:
            if getattr(inner_model(model), "is_quantized", False):
                raise ConfigError(
                    "a model in 4 bits cannot be divided between processes",
                    hint="--launcher ddp, or leave out lora.load_in_4bit",
                )
            self._structure = structure_of(model)

    def whole_model(self, model: nn.Module) -> nn.Module | None:
        """The trained model with whole weights, in the first process; every process must call it.

        Args:
            model: As the trainer has it, wrapped or not.

        Returns:
            In the first process the model to save: the given one, or one put together on the CPU from its shards. None
            in the others, which have nothing left to do.
        """
        first = bool(self._accelerator.is_main_process)
        if not self.keeps_weights_apart:
            return self._accelerator.unwrap_model(model) if first else None
        assert self._structure is not None, "remember_structure comes before the model is divided"
        inner = self._accelerator.unwrap_model(model)
        if self.uses_fsdp:
            _divide_again(inner)
        gather = of_deepspeed if self.uses_deepspeed else of_fsdp
        return put_together(self._structure, inner, gather, keep=first)

    def let_go(self, trainer: Any) -> None:
        """Free what the engine holds: shards, gradients and optimiser state. The trainer cannot train any more.

        Args:
            trainer: transformers' trainer, which holds the engine too.
        """
        trainer.optimizer = trainer.lr_scheduler = trainer.model = trainer.model_wrapped = trainer._engine = None
        callbacks = trainer.callback_handler
        callbacks.model = callbacks.optimizer = callbacks.lr_scheduler = None
        if self.uses_deepspeed:
            trainer.deepspeed = None
            self._accelerator.deepspeed_engine_wrapped.engine.destroy()
            self._accelerator.deepspeed_engine_wrapped = None
            unset_hf_deepspeed_config()  # by which transformers would load the next model in shards, too
        self._accelerator.free_memory()


def _exchange_in_float32(plugin: Any) -> None:
    """Sum gradients, and give scores, in float32: accelerate's bfloat16 is for weights, gradients and outputs alike."""
    policy = plugin.mixed_precision_policy
    if policy is not None and plugin.fsdp_version == 2:
        plugin.mixed_precision_policy = replace(policy, reduce_dtype=torch.float32, output_dtype=torch.float32)


def _divide_again(model: nn.Module) -> None:
    """Let go of what a forward has gathered: FSDP2 keeps the outermost parameters so, in the forward's precision."""
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()

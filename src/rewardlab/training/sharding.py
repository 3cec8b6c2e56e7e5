"""How a run's model lies across its processes, and what follows for forwards, backwards and saving.

*Whole* in each process (alone, DDP, ZeRO-2: only gradients and optimiser state are sharded), or in *shards* that every
forward gathers layer by layer (ZeRO-3, FSDP2). In shards each forward and each backward is a collective: all processes
must run as many, in the same order.

This file knows accelerate, DeepSpeed and FSDP; it knows no data and no objective.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor, nn


class Sharding:
    """What a trainer asks of the way its model lies across processes.

    Args:
        accelerator: Of the run.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator: Any = accelerator

    @property
    def uses_deepspeed(self) -> bool:
        """Whether DeepSpeed takes the steps."""
        return bool(self._accelerator.distributed_type == DistributedType.DEEPSPEED)

    @property
    def is_sharded(self) -> bool:
        """Whether no process holds the whole model: then all must run as many forwards and backwards."""
        return False

    def exchanging(self, model: nn.Module, exchange: bool) -> AbstractContextManager[Any]:
        """Around a forward and its backward: whether processes exchange their gradients at it.

        So whole models may need different numbers of forwards. DDP wants the forward inside, too.
        """
        return nullcontext() if exchange else self._accelerator.no_sync(model)

    def backward(self, loss: Tensor, *, is_last: bool) -> None:
        """In place of ``loss.backward()``, for a loss that goes through the model.

        Args:
            loss: The part's share of the step's loss.
            is_last: Whether it is the micro-batch's last.
        """
        self._accelerator.backward(loss)

    def backward_beside(self, loss: Tensor) -> None:
        """The same for a loss that reaches parameters of the objective alone, and none of the model's."""
        self._accelerator.backward(loss)

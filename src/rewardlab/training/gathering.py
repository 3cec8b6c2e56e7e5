"""A model that lies in shards across processes, put together in the first of them.

What is gathered goes parameter by parameter: the first process ends with the whole model on its CPU, once, and no other
process holds more than one whole parameter at a time.

This file knows torch's modules, DeepSpeed's shards and FSDP's; it knows no training and no checkpoint.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

Gather: TypeAlias = Callable[[Tensor], Tensor]
"""A shard -> its whole parameter, on every process at once (a collective)."""


def structure_of(model: nn.Module) -> nn.Module:
    """A copy of a model without its weights: parameters on torch's meta device, buffers as they are.

    It is taken before the model is divided, since engines change classes and hooks of what they divide.

    Args:
        model: A whole model.
    """
    empty: dict[int, Any] = {
        id(parameter): nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=parameter.requires_grad)
        for parameter in model.parameters()
    }
    return copy.deepcopy(model, empty)  # what deepcopy finds in its memo it takes as copied


def put_together(structure: nn.Module, model: nn.Module, gather: Gather, *, keep: bool) -> nn.Module | None:
    """The whole model.

    Args:
        structure: As :func:`structure_of` made it; its parameters are replaced.
        model: The model in shards. Called on every process, with parameters in the same order.
        gather: How a shard becomes whole.
        keep: Whether this process is to hold the result; the others only take part.

    Returns:
        The structure with its weights, on the CPU; None where nothing is kept.
    """
    shards = dict(model.named_parameters())
    whole: dict[str, nn.Parameter] = {}
    for name, empty in structure.named_parameters():  # a tied parameter has one name here, and one there
        value = gather(shards[name])
        if keep:
            if value.shape != empty.shape:
                raise RuntimeError(f"{name} was gathered as {tuple(value.shape)}, expected {tuple(empty.shape)}")
            whole[name] = nn.Parameter(
                value.detach().to(device="cpu", dtype=empty.dtype, copy=True), requires_grad=empty.requires_grad
            )
        del value
    if not keep:
        return None
    by_identity = {id(empty): whole[name] for name, empty in structure.named_parameters()}
    for module in structure.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = by_identity[id(parameter)]
    return structure.to("cpu")


def of_deepspeed(parameter: Tensor) -> Tensor:
    """DeepSpeed's whole parameter, in float32 where its optimiser keeps that beside a lower precision."""
    import deepspeed
    from deepspeed.utils import safe_get_full_fp32_param

    trained = safe_get_full_fp32_param(parameter) if parameter.requires_grad else None
    if trained is not None:
        return trained
    with deepspeed.zero.GatheredParameters([parameter]):
        return parameter.detach().cpu().clone()


def of_fsdp(parameter: Tensor) -> Tensor:
    """FSDP2's whole parameter: its shards are torch's ``DTensor``."""
    full = getattr(parameter, "full_tensor", None)
    whole: Tensor = parameter if full is None else full()
    return whole

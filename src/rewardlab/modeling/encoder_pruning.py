"""Encoders: the last layer at the first token alone, over ordinary padded batches.

An encoder's prefix sees its completion, so nothing can be shared between sequences. But most encoders are read at their
first token (``[CLS]``), so that the last layer's queries, output projection and MLP are wanted there only. The layer
runs twice, as in :mod:`rewardlab.modeling.packed_forward`: once as far as its keys and values, once for the first
token. What comes after it then sees sequences of one token. Models that pool over all tokens give other scores that
way; they are found out when pruning is enabled, and refused.
"""

from __future__ import annotations

import types
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask

from rewardlab.errors import CheckpointError
from rewardlab.modeling.forward import model_inputs, pad
from rewardlab.modeling.packed_forward import (
    CANNOT,
    AttentionSwitch,
    are_alike,
    give_back_forwards,
    last_layer,
    require_own_forward,
    run_at_rows,
)
from rewardlab.modeling.tree_attention import Captured

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_ATTENTION_NAME = "rewardlab_first_row"
_STATE = "_rewardlab_pruning"


class FirstRow:
    """Given as ``packing_plan``: prune the last layer to the first token.

    Attributes:
        was_used: Whether the last layer has been pruned; False where the plan does not reach it.
    """

    was_used = False


class _Capture(FirstRow):
    """Stop at the keys and values."""


@dataclass(frozen=True, slots=True)
class _AtFirstRow:
    """Attend from the first token to these keys and values, each (batch, heads, width, size)."""

    key: Tensor
    value: Tensor


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    packing_plan: FirstRow | _AtFirstRow | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Transformers' sdpa attention, but where keys and values are captured or given."""
    if isinstance(packing_plan, _Capture):
        raise Captured(key, value)
    if isinstance(packing_plan, _AtFirstRow):
        key, value = packing_plan.key, packing_plan.value
        attention_mask = None if attention_mask is None else attention_mask[..., :1, :]
    return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)


AttentionInterface.register(_ATTENTION_NAME, _attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(_ATTENTION_NAME, sdpa_mask)


def enable_encoder_pruning(model: PreTrainedModel) -> None:
    """Teach an encoder's forward the argument ``packing_plan=FirstRow()``; doing so twice changes nothing.

    Raises:
        CheckpointError: The model cannot be pruned: its attention is its own, or it pools over all tokens.
    """
    if hasattr(model, _STATE):
        return
    require_own_forward(model)
    layer = last_layer(model)
    if layer is None:
        raise CheckpointError(f"{type(model).__name__} has no list of layers", hint="use the padded layout")
    was_training = model.training
    model.eval()
    ids = [[3, 4, 5, 6, 7], [3, 4, 8], [5]]
    batch = {name: tensor.to(model.device) for name, tensor in model_inputs(model, pad(ids, 0)).items()}
    try:
        with torch.no_grad():
            expected = model(**batch).logits
            setattr(model, _STATE, AttentionSwitch(model))
            model.forward = types.MethodType(_forward, model)
            layer.forward = types.MethodType(_last_layer_forward, layer)
            plan = FirstRow()
            pruned = model(**batch, packing_plan=plan).logits
        if not plan.was_used:
            raise ValueError("its layers are not handed the plan")
        if not are_alike(pruned, expected, model):
            raise ValueError("its scores change, so it reads more than the first token")
    except torch.OutOfMemoryError:
        raise
    except CANNOT as error:
        disable_encoder_pruning(model)
        raise CheckpointError(
            f"{type(model).__name__} cannot be pruned to its first token: {error}", hint="use the padded layout"
        ) from error
    finally:
        model.train(was_training)


def disable_encoder_pruning(model: PreTrainedModel) -> None:
    """Give an encoder its own forward back."""
    if not hasattr(model, _STATE):
        return
    getattr(model, _STATE).use(None)
    give_back_forwards(model, _STATE, _forward)


def _forward(self: PreTrainedModel, *args: Any, packing_plan: FirstRow | None = None, **kwargs: Any) -> Any:
    """The model's own forward, pruned if it is asked for."""
    getattr(self, _STATE).use(_ATTENTION_NAME if packing_plan is not None else None)
    if packing_plan is not None:
        kwargs["packing_plan"] = packing_plan
    return type(self).forward(self, *args, **kwargs)


def _last_layer_forward(
    self: nn.Module, hidden_states: Tensor, *args: Any, packing_plan: FirstRow | None = None, **kwargs: Any
) -> Any:
    """The last layer for the first token alone; as it was without a plan."""
    if packing_plan is None:
        return type(self).forward(self, hidden_states, *args, **kwargs)
    out = run_at_rows(self, hidden_states, args, kwargs, slice(0, 1), _Capture(), _AtFirstRow)
    packing_plan.was_used = True
    return out

"""A model's forward over a packed row: trunk, pruned last layer, head at the read-out positions.

:func:`enable_packing` teaches a loaded model to take ``packing_plan`` (a packed row instead of a padded batch) as an
argument of its own forward. Its class and weights stay as they are; called without that argument, it is transformers'
model as before. Since all goes through the model's one forward, wrappers (DDP, PEFT, autocast) keep working.

**Last-layer pruning.** Where each sequence is read at its last token alone, the last layer is wanted at that one: after
its attention nothing flows between tokens. So it runs twice: once only as far as the keys and values of all tokens,
which leave it through :class:`~rewardlab.modeling.tree_attention.Captured`; then whole, but for the read-out rows
alone, attending to those keys and values. That is exact, and knows no model's code beyond "the last layer has one
attention". Where a sequence is read at several tokens, the last layer runs as it is.

**Language models** may change what their head gives (soft-capped or scaled logits). Their own forward is called then,
with the read-out as transformers' ``logits_to_keep``.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import SequenceClassifierOutput

from rewardlab.errors import CheckpointError
from rewardlab.modeling.head import head_name, num_outputs
from rewardlab.modeling.prefix_tree import PackedRow, lay_out, without_sharing
from rewardlab.modeling.tree_attention import ATTENTION_NAME, AttentionPlan, Captured, CapturePlan, ReadoutPlan

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_STATE = "_rewardlab_packing"

# What a trunk fails with that is not made for what is asked of it.
CANNOT = (RuntimeError, ValueError, TypeError, IndexError, AttributeError, KeyError, AssertionError)


class AttentionSwitch:
    """Lets a model's attention layers call a function of ours, or the one the model came with."""

    def __init__(self, model: PreTrainedModel) -> None:
        found = (getattr(module, "config", None) for module in model.modules())
        configs: dict[int, Any] = {id(c): c for c in found if hasattr(c, "_attn_implementation")}
        self._own = [(config, config._attn_implementation) for config in configs.values()]

    def use(self, name: str | None) -> None:
        """Name an attention implementation; None for the model's own."""
        for config, own in self._own:
            if config._attn_implementation != (name or own):
                config._attn_implementation = name or own


class _Packing:
    """What a packed forward needs to know of its model; found once.

    Attributes:
        head: Dotted name of the head; None for a language model, whose own forward applies it.
        attention: Switches the attention implementation.
        prunes: How the last layer's read-out rows go on: ``"rows"`` (nothing else does), ``"scattered"`` (at their
            places in a row of full size, for trunks that reshape it), or ``"no"`` (the layer is not pruned).
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.head = None if is_language_model(model) else head_name(model)
        self.attention = AttentionSwitch(model)
        self.prunes = "no"


def enable_packing(model: PreTrainedModel) -> None:
    """Teach a model's forward the argument ``packing_plan``; doing so twice changes nothing.

    Args:
        model: A decoder with a sequence, token or language modelling head. Whether packed scores are right is not
            settled here but by :mod:`rewardlab.modeling.parity`.

    Raises:
        CheckpointError: The model does not run over a packed row at all.
    """
    if hasattr(model, _STATE):
        return
    require_own_forward(model)
    if is_language_model(model) and "logits_to_keep" not in inspect.signature(type(model).forward).parameters:
        raise CheckpointError(
            f"the forward of {type(model).__name__} cannot be asked for the logits of some tokens",
            hint="use the padded layout",
        )
    packing = _Packing(model)
    setattr(model, _STATE, packing)
    model.forward = types.MethodType(_forward, model)
    layer = last_layer(model)
    was_training = model.training
    model.eval()
    try:
        whole, calls = _outputs_of_small_row(model)
        if layer is None or len(calls) != len(set(calls)):
            return  # a layer that attends twice is not left at its first keys and values
        setattr(layer, _STATE, packing)
        layer.forward = types.MethodType(_last_layer_forward, layer)
        for prunes in ("rows", "scattered", "no"):
            packing.prunes = prunes
            try:
                outputs, _ = _outputs_of_small_row(model)
            except torch.OutOfMemoryError:
                raise
            except CANNOT:
                continue  # this way does not suit what the trunk does after its last layer
            if are_alike(outputs, whole, model):
                return
    except torch.OutOfMemoryError:
        raise
    except CANNOT as error:
        disable_packing(model)
        raise CheckpointError(
            f"{type(model).__name__} does not run over a packed row: {error}", hint="use the padded layout"
        ) from error
    finally:
        packing.attention.use(None)
        model.train(was_training)


def disable_packing(model: PreTrainedModel) -> None:
    """Give a model its own forward back."""
    if not hasattr(model, _STATE):
        return
    getattr(model, _STATE).attention.use(None)
    give_back_forwards(model, _STATE, _forward)


def give_back_forwards(model: PreTrainedModel, state: str, forward: Callable[..., Any]) -> None:
    """Take a forward of ours, and what belongs to it, off a model and its last layer.

    Others may have put theirs around ours. Then it stays: called without a plan it is the model's own.
    """
    if getattr(vars(model).get("forward"), "__func__", None) is not forward:
        return
    delattr(model, state)
    del model.forward
    layer = last_layer(model)
    if layer is not None:
        vars(layer).pop("forward", None)
        vars(layer).pop(state, None)


def require_own_forward(model: PreTrainedModel) -> None:
    """Refuse a model whose forward, or last layer's, somebody has already replaced: ours would push theirs aside.

    Raises:
        CheckpointError: It has been replaced.
    """
    layer = last_layer(model)
    if "forward" in vars(model) or (layer is not None and "forward" in vars(layer)):
        raise CheckpointError(
            f"the forward of this {type(model).__name__} has been replaced", hint="use the padded layout"
        )


def are_alike(scores: Tensor, expected: Tensor, model: PreTrainedModel) -> bool:
    """Whether a pruned layer gives a model's scores, within the rounding of what it computes in."""
    if scores.shape != expected.shape:
        return False
    device = model.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else model.dtype
    tolerance = 1e-4 if dtype in (torch.float32, torch.float64) else 0.05
    largest = expected.float().abs().max().clamp(min=1e-3)
    return bool((scores.float() - expected.float()).abs().max() <= tolerance * largest)


def last_layer(model: PreTrainedModel) -> nn.Module | None:
    """The trunk's last layer: the last of the longest list of ``num_hidden_layers`` modules; None if there is none."""
    number = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    lists = [m for m in model.base_model.modules() if isinstance(m, nn.ModuleList) and len(m) == number]
    if not lists:
        return None
    return max(lists, key=lambda layers: sum(p.numel() for p in layers.parameters()))[-1]


def is_language_model(model: PreTrainedModel) -> bool:
    """Whether the head gives a number for each token of the vocabulary."""
    return model.get_output_embeddings() is not None


def _outputs_of_small_row(model: PreTrainedModel) -> tuple[Tensor, list[int]]:
    """What the head gives for two short sequences in one packed row, and which attention layers were called."""
    row = lay_out(without_sharing([[3, 4, 5], [3, 4]]))
    plan = AttentionPlan(row, model.device)
    inputs = {name: tensor.to(model.device) for name, tensor in row_inputs(row).items()}
    with torch.no_grad():
        outputs = model(**inputs, packing_plan=plan).logits
    if outputs.shape != (2, num_outputs(model)):
        raise ValueError(f"two sequences gave logits of shape {tuple(outputs.shape)}")
    return outputs, plan.layers_seen


def row_inputs(row: PackedRow) -> dict[str, Tensor]:
    """A packed row's tensors, each of shape (1, T), int64."""
    return {"input_ids": torch.tensor([row.input_ids]), "position_ids": torch.tensor([row.position_ids])}


def _forward(
    self: PreTrainedModel,
    *args: Any,
    packing_plan: AttentionPlan | None = None,
    **kwargs: Any,
) -> Any:
    """The model's forward: over a packed row, or transformers' own.

    Args:
        self: The model.
        *args: As transformers' own forward.
        packing_plan: The plan of the packed row in ``input_ids`` and ``position_ids``, each (1, T); the logits are
            then (read-outs, outputs of the head), in the plan's order.
        **kwargs: As transformers' own forward.
    """
    packing: _Packing = getattr(self, _STATE)
    if packing_plan is None:
        packing.attention.use(None)
        return type(self).forward(self, *args, **kwargs)
    if args:
        raise TypeError("a packed row is given by name: input_ids, position_ids, packing_plan")
    # PEFT names every argument, most of them None; the plan stands for the mask.
    given = {name: value for name, value in kwargs.items() if value is not None and name != "return_dict"}
    given.update(attention_mask=None, use_cache=False, packing_plan=packing_plan)
    # Gradient checkpointing calls the layers again during the backward; the implementation chosen here stays until
    # the next forward chooses.
    packing.attention.use(ATTENTION_NAME)
    pruned = packing_plan.prune and packing.prunes == "rows"  # then the trunk gives the read-out rows alone
    if packing.head is None:
        kept = 0 if pruned else packing_plan.readout  # 0: all
        logits = type(self).forward(self, logits_to_keep=kept, **given).logits[0]
    else:
        hidden = self.base_model(**given)[0][0]
        logits = self.get_submodule(packing.head)(hidden if pruned else hidden[packing_plan.readout])
    return SequenceClassifierOutput(logits=logits)


def _last_layer_forward(
    self: nn.Module, hidden_states: Tensor, *args: Any, packing_plan: Any = None, **kwargs: Any
) -> Any:
    """The last layer at the read-out positions alone; as it was without a plan that prunes."""
    own = type(self).forward
    packing: _Packing = getattr(self, _STATE)
    if packing_plan is None or not packing_plan.prune or packing.prunes == "no":
        if packing_plan is not None:
            kwargs["packing_plan"] = packing_plan
        return own(self, hidden_states, *args, **kwargs)
    rows = packing_plan.readout
    out = run_at_rows(
        self, hidden_states, args, kwargs, rows, CapturePlan(packing_plan), partial(ReadoutPlan, packing_plan)
    )
    if packing.prunes == "rows":
        return out
    first = out[0] if isinstance(out, tuple) else out
    full = torch.zeros_like(hidden_states, dtype=first.dtype).index_copy(1, rows, first)
    return (full, *out[1:]) if isinstance(out, tuple) else full


def run_at_rows(
    layer: nn.Module,
    hidden_states: Tensor,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    rows: Tensor | slice,
    capture: Any,
    attend: Callable[[Tensor, Tensor], Any],
) -> Any:
    """Run a layer as far as its keys and values, then whole, at some tokens only.

    Args:
        layer: The layer.
        hidden_states: Shape (batch, width, hidden).
        args: What else it is given.
        kwargs: The same by name, without the plan.
        rows: The tokens, as an index into the width.
        capture: The plan under which its attention raises :class:`~rewardlab.modeling.tree_attention.Captured`.
        attend: Keys and values of all tokens -> the plan under which the given tokens attend to them.

    Returns:
        What the layer returns, for these tokens.
    """
    own, shape = type(layer).forward, hidden_states.shape[:2]
    with _without_checkpointing(layer):
        try:
            with _without_queries(layer):
                own(layer, hidden_states, *args, packing_plan=capture, **kwargs)
        except Captured as captured:
            plan = attend(captured.key, captured.value)
        else:
            raise RuntimeError("its attention does not go through transformers' attention interface")
        return own(
            layer,
            hidden_states[:, rows],
            *(_at_rows(value, rows, shape) for value in args),
            packing_plan=plan,
            **{name: _at_rows(value, rows, shape) for name, value in kwargs.items()},
        )


def _at_rows(value: Any, rows: Tensor | slice, shape: torch.Size) -> Any:
    """Whatever is given per token, at some tokens only: tensors (batch or 1, width, ...), also inside containers."""
    if isinstance(value, Tensor):
        per_token = value.ndim >= 2 and value.shape[0] in (1, shape[0]) and value.shape[1] == shape[1]
        return value[:, rows] if per_token else value
    if isinstance(value, tuple | list):
        return type(value)(_at_rows(item, rows, shape) for item in value)
    if isinstance(value, dict):
        return {name: _at_rows(item, rows, shape) for name, item in value.items()}
    return value


@contextmanager
def _without_checkpointing(layer: nn.Module) -> Iterator[None]:
    """Run a layer without gradient checkpointing of its own.

    From transformers 5.23 on a layer's class checkpoints inside its ``forward``. Keys and values that leave such a
    region by an exception have no graph (reentrant), or another one than the recomputation (not reentrant). The last
    layer's backward comes first, so that recomputing it would save nothing at the peak.
    """
    checkpointed = [m for m in layer.modules() if getattr(m, "gradient_checkpointing", False)]
    for module in checkpointed:
        setattr(module, "gradient_checkpointing", False)  # noqa: B010  # mypy takes it for a tensor
    try:
        yield
    finally:
        for module in checkpointed:
            setattr(module, "gradient_checkpointing", True)  # noqa: B010


@contextmanager
def _without_queries(layer: nn.Module) -> Iterator[None]:
    """Skip the query projection, whose result is not wanted, where a layer has one of its own."""
    projection = getattr(getattr(layer, "self_attn", None), "q_proj", None)
    size = getattr(projection, "out_features", None)
    if not isinstance(projection, nn.Module) or size is None or "forward" in vars(projection):
        yield
        return
    projection.forward = lambda x, *args, **kwargs: x.new_zeros(()).expand(*x.shape[:-1], size)
    try:
        yield
    finally:
        del projection.forward

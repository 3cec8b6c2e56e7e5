"""What a model's forward keeps for its backward, counted tensor by tensor without weights and without computing.

The model is built from its config on fake tensors, which have shapes and no memory, so that a 70B model is counted on a
laptop. Its own forward runs over them, adapters and precision as in training, and every tensor that autograd saves is
counted once. Attention is a stand-in that keeps what flash attention keeps: queries, keys, values, output and the
log-sum-exp; no T x T matrix, as in our packed rows. So no formula per model family is needed. For a Llama-like layer in
bfloat16 autocast the count comes to 34 h + 8 m bytes a token (h hidden, m intermediate size, as many key heads as
heads); Korthikanti et al. count 34 h for a GPT layer with m = 4 h, in float16 and without its T x T part.

This file knows shapes; it knows no launcher and no budget.

References:
    Korthikanti et al. 2022 (Reducing Activation Recomputation in Large Transformer Models, arXiv:2205.05198), eq. 2.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from transformers import AttentionInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from rewardlab.modeling.head import head_name, is_decoder, use_float32_head
from rewardlab.modeling.loading import model_class, quiet_transformers
from rewardlab.modeling.preparing import LoraOptions, Mode, inner_model, with_adapters

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from rewardlab.types import Kind

_ATTENTION = "rewardlab_counted"
_LENGTHS = (64, 128)  # two, for what grows with the tokens and what does not


@dataclass(frozen=True, slots=True)
class ModelSize:
    """How many parameters a model has.

    Attributes:
        parameters: All, adapters and head too.
        trained: Those that are trained.
        largest_layer: Of the largest of the repeated layers.
        beside_layers: Of embeddings, last norm and head.
        num_layers: How many repeated layers there are.
    """

    parameters: int
    trained: int
    largest_layer: int
    beside_layers: int
    num_layers: int


@dataclass(frozen=True, slots=True)
class Kept:
    """Bytes that a forward keeps until its backward.

    Attributes:
        per_token: Of the whole model, for each token of the forward.
        layer_per_token: Of the repeated layer that keeps most.
        between_per_token: What lies between two layers: what checkpointing keeps of each layer.
        fixed: Whatever the tokens: the copies that autocast makes of weights.
    """

    per_token: float
    layer_per_token: float
    between_per_token: float
    fixed: int


class CountedModel:
    """A model of shapes alone.

    Args:
        config: Its config; ``num_labels`` as it is to be trained.
        kind: What the head gives numbers for.
        mode: Which parameters are trained.
        lora: Adapter options for mode ``"lora"``.
    """

    def __init__(
        self,
        config: PreTrainedConfig,
        *,
        kind: Kind = "sequence",
        mode: Mode = "full",
        lora: LoraOptions | None = None,
    ) -> None:
        config.use_cache = False
        with torch.device("meta"), quiet_transformers():
            model = model_class(kind).from_config(config, dtype=torch.float32, attn_implementation=_ATTENTION)
            use_float32_head(model)
            if mode == "head_only":
                for name, parameter in model.named_parameters():
                    parameter.requires_grad_(not name.startswith(f"{model.base_model_prefix}."))
            self._model: Any = with_adapters(model, lora or LoraOptions(), set()) if mode == "lora" else model
        self._layers = _layers_of(inner_model(self._model))

    @property
    def size(self) -> ModelSize:
        """Its parameters, exactly; a padding token or separator that training adds is not among them."""
        parameters = list(self._model.parameters())
        total = sum(p.numel() for p in parameters)
        layers = [sum(p.numel() for p in layer.parameters()) for layer in self._layers]
        return ModelSize(
            parameters=total,
            trained=sum(p.numel() for p in parameters if p.requires_grad),
            largest_layer=max(layers, default=0),
            beside_layers=total - sum(layers),
            num_layers=len(layers),
        )

    def kept(self, *, weights: torch.dtype = torch.float32, computes_in: torch.dtype = torch.float32) -> Kept:
        """Count what one forward keeps.

        Args:
            weights: What the weights are held in; float32 with autocast, or rounded by the engine that shards them.
            computes_in: What is multiplied in.
        """
        short, long = (self._count(length, weights, computes_in) for length in _LENGTHS)
        more = _LENGTHS[1] - _LENGTHS[0]
        per_token = (long.total - short.total) / more
        layers = [(b - a) / more for a, b in zip(short.layers, long.layers, strict=True)]
        return Kept(
            per_token=per_token,
            layer_per_token=max(layers[:-1] or layers, default=per_token),  # the last one's have the last norm's beside
            between_per_token=long.between / _LENGTHS[1],
            fixed=round(short.total - per_token * _LENGTHS[0]),
        )

    def _count(self, length: int, weights: torch.dtype, computes_in: torch.dtype) -> _Count:
        with FakeTensorMode() as mode, _with_fake_weights(self._model, weights, mode):
            own = {_key(tensor) for tensor in (*self._model.parameters(), *self._model.buffers())}
            # The tensors are held on to: a storage that is freed would give its key to another.
            saved: dict[int, Tensor] = {}
            marks: list[int] = []
            between: list[int] = []

            def keep(tensor: Tensor) -> Tensor:
                if _key(tensor) not in own:
                    saved[_key(tensor)] = tensor
                return tensor

            def so_far() -> int:
                return sum(tensor.untyped_storage().nbytes() for tensor in saved.values())

            def at_layer(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                marks.append(so_far())
                hidden = args[0] if args else kwargs["hidden_states"]
                between.append(hidden.untyped_storage().nbytes())

            handles = [layer.register_forward_pre_hook(at_layer, with_kwargs=True) for layer in self._layers]
            try:
                with (
                    saved_tensors_hooks(keep, lambda tensor: tensor),
                    torch.autocast("cpu", torch.bfloat16, enabled=computes_in != torch.float32),
                ):
                    outputs = self._forward(length)
            finally:
                for handle in handles:
                    handle.remove()
            total = so_far()
            del outputs
            steps = [*marks, total]
            return _Count(total, [b - a for a, b in pairwise(steps)], max(between, default=0))

    def _forward(self, length: int) -> Tensor:
        """A row of so many tokens; a decoder's head is read at two of them, as of a pair."""
        model: Any = inner_model(self._model)
        inputs = {"input_ids": torch.zeros(1, length, dtype=torch.long)}
        if not is_decoder(model):
            outputs: Tensor = model(**inputs).logits
            return outputs
        hidden = model.base_model(**inputs, position_ids=torch.arange(length)[None])[0]
        read: Tensor = model.get_submodule(head_name(model))(hidden[0, -2:])
        return read


@dataclass(frozen=True, slots=True)
class _Count:
    """Bytes of one forward: all that is kept, of each layer, and of the tensor between two."""

    total: int
    layers: list[int]
    between: int


class _KeptByFlash(torch.autograd.Function):
    """Keeps what flash attention keeps, and computes nothing."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = query.new_empty(query.shape[0], query.shape[2], query.shape[1], value.shape[3])
        ctx.save_for_backward(query, key, value, out, query.new_empty(query.shape[:3], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        raise NotImplementedError("counted, never computed")


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kwargs: Any
) -> tuple[Tensor, None]:
    if torch.is_autocast_enabled("cpu"):
        query, key, value = (tensor.to(torch.get_autocast_dtype("cpu")) for tensor in (query, key, value))
    return _KeptByFlash.apply(query, key, value), None


def _no_mask(*args: Any, **kwargs: Any) -> None:
    """Nothing sees what: nothing is computed."""


AttentionInterface.register(_ATTENTION, _attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(_ATTENTION, _no_mask)


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _layers_of(model: Any) -> list[nn.Module]:
    """The repeated layers: the heaviest list of ``num_hidden_layers`` modules."""
    number = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    lists = [m for m in model.base_model.modules() if isinstance(m, nn.ModuleList) and len(m) == number]
    if not lists:
        return []
    heaviest: nn.ModuleList = max(lists, key=lambda found: sum(p.numel() for p in found.parameters()))
    return list(heaviest)


@contextmanager
def _with_fake_weights(model: nn.Module, dtype: torch.dtype, mode: FakeTensorMode) -> Iterator[None]:
    """Put fake tensors on the CPU, where autocast works, in the place of those on the meta device."""
    before: list[tuple[dict[str, Any], str, Tensor]] = []
    try:
        for module in model.modules():
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    before.append((module._parameters, name, parameter))
                    fake = torch.empty(parameter.shape, dtype=dtype)
                    module._parameters[name] = nn.Parameter(fake, requires_grad=parameter.requires_grad)
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    before.append((module._buffers, name, buffer))
                    module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)
        yield
    finally:
        for place, name, tensor in before:
            place[name] = tensor

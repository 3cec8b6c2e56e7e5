"""Attention over a packed row of trees, registered with transformers as an attention implementation of its own.

A packed row (:mod:`rewardlab.modeling.prefix_tree`) needs attention that no mask-free kernel has: each completion sees
itself and its prefix, nothing else. On a CPU it is done as a *cascade* of blocks. Each block is dense or causal, so the
plain flash kernel computes it and no T x T mask is built; queries covered by several blocks have their partial results
merged by the log-sum-exp of their scores. The backward calls the flash backward once per block with the merged output
and log-sum-exp, which gives the exact gradient: the kernel recomputes a block's probabilities as exp(score - lse), and
with the merged lse these are the true ones. CUDA devices are :mod:`rewardlab.modeling.tree_attention_cuda`'s.

The plan reaches this function as the argument ``packing_plan`` of the model's forward, which transformers hands down to
every attention layer. So it is there again when gradient checkpointing calls a layer a second time, and inside DDP and
PEFT wrappers. No model's code is touched or known here.

References:
    Merging by log-sum-exp: Dao et al. 2022 (FlashAttention, arXiv:2205.14135), section 3; cascade of a shared prefix:
    Juravsky et al. 2024 (Hydragen, arXiv:2402.05099). Attention sinks: transformers ``modeling_gpt_oss.py``
    (``s_aux``). Soft-capping: transformers ``modeling_gemma2.py``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from rewardlab.modeling.prefix_tree import PackedRow, Segment

ATTENTION_NAME = "rewardlab_tree"

# Queries that share one band mask: a window of w tokens then needs a mask of 256 x (256 + w) only.
_BAND_QUERIES = 256

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class Band(NamedTuple):
    """Which keys the queries of a block see under a sliding window: ``0 <= query position - key position < window``.

    Attributes:
        offset: Position of the block's first query minus that of its first key.
        window: Tokens a query sees, itself included.
    """

    offset: int
    window: int


class Block(NamedTuple):
    """Queries ``[query_start, query_stop)`` against keys ``[key_start, key_stop)``.

    Attributes:
        query_start: First query.
        query_stop: One past the last.
        key_start: First key.
        key_stop: One past the last.
        causal: Queries and keys are the same tokens, and each query sees those up to itself.
        band: Where a window hides some of the keys, which; None where all are seen.
    """

    query_start: int
    query_stop: int
    key_start: int
    key_stop: int
    causal: bool = False
    band: Band | None = None


class AttentionPlan:
    """How attention walks over one packed row; what the model's forward is given as ``packing_plan``.

    Args:
        row: The row.
        device: Where the model is.
        prune: Whether the last layer's queries, output projection and MLP may run at the read-out positions alone.

    Attributes:
        row: The row.
        readout: Where the head is read, shape (read-outs,), int64, on the device.
        prune: As given; False for a row that is not read at its sequences' last tokens alone.
        layers_seen: Attention layers reached with this plan, by identity; one entry per call.
        windows_seen: The windows they asked for; None for none.
        memory: What kernels keep between layers (index tensors, block masks), by a name of their choice.
    """

    def __init__(self, row: PackedRow, device: torch.device | str = "cpu", *, prune: bool = True) -> None:
        self.row = row
        self.readout = torch.tensor(row.readout, device=device)
        self.prune = prune and row.reads_ends
        self.layers_seen: list[int] = []
        self.windows_seen: set[int | None] = set()
        self.memory: dict[Any, Any] = {}

    def blocks(self, window: int | None = None, *, at_readout: bool = False) -> list[Block]:
        """The row's blocks, computed once per window.

        Args:
            window: Tokens a query sees, itself included; None for all.
            at_readout: For queries at the read-out positions alone: query i is the i-th segment's.
        """
        if window is not None and window >= self.row.longest:
            window = None
        key = ("blocks", window, at_readout)
        if key not in self.memory:
            make = readout_blocks if at_readout else row_blocks
            self.memory[key] = make(self.row.segments, window)
        blocks: list[Block] = self.memory[key]
        return blocks


def row_blocks(segments: tuple[Segment, ...], window: int | None = None) -> list[Block]:
    """Blocks of a whole row: each segment on itself, then on its prefix.

    Without a window all segments of a tree see the prefix in one dense block.
    """
    blocks = [block for segment in segments for block in _own_blocks(segment, window)]
    if window is not None:
        return blocks + [block for segment in segments for block in _prefix_blocks(segment, window)]
    for start, stop, prefix in _runs(segments):
        blocks.append(Block(segments[start].start, segments[stop - 1].stop, *prefix))
    return blocks


def readout_blocks(segments: tuple[Segment, ...], window: int | None = None) -> list[Block]:
    """Blocks of the read-out queries: each segment's last token on its segment, then on the prefix."""
    blocks = []
    for i, segment in enumerate(segments):
        first = segment.start if window is None else max(segment.start, segment.stop - window)
        blocks.append(Block(i, i + 1, first, segment.stop))
    if window is None:
        return blocks + [Block(start, stop, *prefix) for start, stop, prefix in _runs(segments)]
    for i, segment in enumerate(segments):
        seen = min(segment.prefix_length, window - (segment.stop - segment.start))
        if seen > 0:
            blocks.append(Block(i, i + 1, segment.prefix_stop - seen, segment.prefix_stop))
    return blocks


def _runs(segments: tuple[Segment, ...]) -> Iterator[tuple[int, int, tuple[int, int]]]:
    """Runs of segments that continue one prefix: first segment, one past the last, the prefix's range."""
    start = 0
    while start < len(segments):
        prefix = (segments[start].prefix_start, segments[start].prefix_stop)
        stop = start + 1
        while stop < len(segments) and (segments[stop].prefix_start, segments[stop].prefix_stop) == prefix:
            stop += 1
        if prefix[1] > prefix[0]:
            yield start, stop, prefix
        start = stop


def _own_blocks(segment: Segment, window: int | None) -> Iterator[Block]:
    if window is None or segment.stop - segment.start <= window:
        yield Block(segment.start, segment.stop, segment.start, segment.stop, causal=True)
        return
    for start in range(segment.start, segment.stop, _BAND_QUERIES):
        stop = min(start + _BAND_QUERIES, segment.stop)
        first = max(segment.start, start - window + 1)
        yield Block(start, stop, first, stop, band=Band(start - first, window))


def _prefix_blocks(segment: Segment, window: int) -> Iterator[Block]:
    """A segment's queries on its prefix; queries whose window ends before the prefix are left out."""
    for offset in range(0, min(segment.stop - segment.start, window - 1), _BAND_QUERIES):
        stop = min(offset + _BAND_QUERIES, segment.stop - segment.start, window - 1)
        seen = min(segment.prefix_length, window - 1 - offset)  # keys the first of these queries sees
        if seen > 0:
            first = segment.prefix_stop - seen
            # The band hides something only if the last of these queries no longer sees the first key.
            band = Band(seen + offset, window) if stop - 1 + seen >= window else None
            yield Block(segment.start + offset, segment.start + stop, first, segment.prefix_stop, band=band)


# -- what transformers calls -----------------------------------------------------------------------------------------


class Captured(Exception):  # no error: it carries keys and values out of a layer
    """Raised out of a layer whose keys and values are all that is wanted of it."""

    def __init__(self, key: Tensor, value: Tensor) -> None:
        super().__init__()
        self.key, self.value = key, value


@dataclass(frozen=True, slots=True)
class CapturePlan:
    """Stands for the plan while the last layer's keys and values are computed.

    Attributes:
        plan: The row's plan.
    """

    plan: AttentionPlan


@dataclass(frozen=True, slots=True)
class ReadoutPlan:
    """Stands for the plan while the last layer runs at the read-out positions.

    Attributes:
        plan: The row's plan.
        key: Keys of all tokens, shape (1, key heads, T, head size).
        value: Values of all tokens, likewise.
    """

    plan: AttentionPlan
    key: Tensor
    value: Tensor


def tree_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    packing_plan: AttentionPlan | CapturePlan | ReadoutPlan | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of one layer over a packed row, as transformers' attention interface calls it.

    Args:
        module: The attention layer.
        query: Shape (1, heads, T, head size).
        key: Shape (1, key heads, T, head size); heads must be a multiple of key heads.
        value: Shape (1, key heads, T, value size).
        attention_mask: Must be None: the plan says what sees what.
        dropout: Must be 0: the kernels have none, and sequences would share the prefix's.
        scaling: Factor on the scores; 1 / sqrt(head size) by default.
        sliding_window: Tokens a query sees, itself included; None for all.
        softcap: Scores become softcap * tanh(score / softcap).
        s_aux: Attention sinks, shape (heads,): a key of this score and value 0 for each head.
        packing_plan: The plan; without one this function refuses.
        **kwargs: What else models pass.

    Returns:
        Shape (1, T, heads, value size), and None for the weights.

    Raises:
        RuntimeError: The plan did not arrive, or something is asked that cannot be done exactly.
    """
    if packing_plan is None:
        raise RuntimeError(f"{type(module).__name__} did not hand on the packing plan")
    plan = packing_plan if isinstance(packing_plan, AttentionPlan) else packing_plan.plan
    plan.layers_seen.append(id(module))
    plan.windows_seen.add(sliding_window)
    if isinstance(packing_plan, CapturePlan):
        raise Captured(key, value)
    if attention_mask is not None or dropout or kwargs.get("position_bias") is not None:
        raise RuntimeError(f"{type(module).__name__} asks for a mask, dropout or position bias over a packed row")
    if query.shape[0] != 1 or (softcap is not None and s_aux is not None):
        raise RuntimeError(f"{type(module).__name__} asks for several rows, or for sinks with soft-capping")
    at_readout = isinstance(packing_plan, ReadoutPlan)
    if isinstance(packing_plan, ReadoutPlan):
        key, value = packing_plan.key, packing_plan.value
    if torch.is_autocast_enabled(query.device.type):
        # Layers that normalise queries and keys hand them on in float32 beside bfloat16 values; torch's own attention
        # takes all three to the autocast dtype.
        dtype = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    size = value.shape[-1]
    if size != query.shape[-1]:  # latent attention: the kernels want one head size
        width = max(size, query.shape[-1])
        query, key, value = (functional.pad(t, (0, width - t.shape[-1])) for t in (query, key, value))
    if softcap is not None:
        out = _softcapped(query, key, value, plan, sliding_window, scale, softcap, at_readout)
    elif query.device.type == "cuda":
        from rewardlab.modeling.tree_attention_cuda import attend

        out = attend(query, key, value, plan, sliding_window, scale, s_aux, at_readout)
    else:
        blocks = plan.blocks(sliding_window, at_readout=at_readout)
        out = _Cascade.apply(query, key, value, s_aux, blocks, plan.memory, scale)
    return out[..., :size].transpose(1, 2), None


AttentionInterface.register(ATTENTION_NAME, tree_attention)


def _no_mask(*args: Any, **kwargs: Any) -> None:
    """Transformers asks for a mask once per kind of layer; the plan takes its place."""


ALL_MASK_ATTENTION_FUNCTIONS.register(ATTENTION_NAME, _no_mask)


# -- the CPU's kernels -----------------------------------------------------------------------------------------------


def _heads_apart(tensor: Tensor, key_heads: int) -> Tensor:
    """(1, heads, T, size) -> (key heads, heads per key head, T, size), a view."""
    return tensor[0].unflatten(0, (key_heads, -1))


class _Cascade(torch.autograd.Function):
    """Blocks of flash attention, merged by log-sum-exp.

    Key heads stand in the kernel's batch dimension and are repeated over their query heads with stride 0, so that
    grouped-query attention copies nothing.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        sink: Tensor | None,
        blocks: list[Block],
        memory: dict[Any, Any],
        scale: float,
    ) -> Tensor:
        """Shape (1, heads, queries, size) in, the same out."""
        key_heads = key.shape[1]
        q = _heads_apart(query, key_heads)
        k, v = (t[0].unsqueeze(1).expand(-1, q.shape[1], -1, -1) for t in (key, value))
        num_queries = q.shape[2]
        # Memory in the order (queries, heads, size): the output projection reads it without a copy.
        out = q.new_empty(num_queries, *q.shape[:2], q.shape[3]).permute(1, 2, 0, 3)
        lse = torch.empty(*q.shape[:2], num_queries, dtype=_accumulates(q.dtype))
        seen = bytearray(num_queries)
        for block in blocks:
            rows, columns = slice(block.query_start, block.query_stop), slice(block.key_start, block.key_stop)
            partial, partial_lse = _flash(
                q[:, :, rows], k[:, :, columns], v[:, :, columns], 0.0, block.causal,
                attn_mask=_band_mask(block, q, memory), scale=scale,
            )  # fmt: skip
            if seen[block.query_start]:
                _merge(out[:, :, rows], lse[:, :, rows], partial, partial_lse)
            else:
                out[:, :, rows], lse[:, :, rows] = partial, partial_lse
                seen[rows] = b"\1" * (block.query_stop - block.query_start)
        if sink is not None:
            _merge(out, lse, None, sink.to(lse.dtype).view(key_heads, -1, 1))
        ctx.save_for_backward(query, key, value, sink, out, lse)
        ctx.blocks, ctx.memory, ctx.scale = blocks, memory, scale
        return out.flatten(0, 1).unsqueeze(0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Flash backward per block, with the merged output and log-sum-exp."""
        query, key, value, sink, out, lse = ctx.saved_tensors
        key_heads = key.shape[1]
        q, gradient = _heads_apart(query, key_heads), _heads_apart(gradients[0], key_heads)
        k, v = (t[0].unsqueeze(1).expand(-1, q.shape[1], -1, -1) for t in (key, value))
        dq = torch.zeros_like(query, memory_format=torch.preserve_format)
        dk, dv = torch.zeros_like(key), torch.zeros_like(value)
        dq_apart = _heads_apart(dq, key_heads)
        for block in ctx.blocks:
            rows, columns = slice(block.query_start, block.query_stop), slice(block.key_start, block.key_stop)
            to_q, to_k, to_v = _flash_backward(
                gradient[:, :, rows], q[:, :, rows], k[:, :, columns], v[:, :, columns], out[:, :, rows],
                lse[:, :, rows], 0.0, block.causal, attn_mask=_band_mask(block, q, ctx.memory), scale=ctx.scale,
            )  # fmt: skip
            dq_apart[:, :, rows] += to_q
            dk[0, :, columns] += to_k.sum(1)
            dv[0, :, columns] += to_v.sum(1)
        d_sink = None
        if sink is not None:
            # The sink is a key with value 0: its score's gradient is -p * (gradient . out).
            p = torch.exp(sink.to(lse.dtype).view(key_heads, -1, 1) - lse)
            d_sink = -(p * (gradient.to(p.dtype) * out).sum(-1)).sum(-1).flatten().to(sink.dtype)
        return dq, dk, dv, d_sink, None, None, None


def _accumulates(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _merge(out: Tensor, lse: Tensor, partial: Tensor | None, partial_lse: Tensor) -> None:
    """Take a partial result (None: of value 0) into ``out`` and ``lse``, in place; both are softmax-weighted means.

    The weight of the partial result is exp(partial_lse) / (exp(lse) + exp(partial_lse)).
    """
    merged = torch.logaddexp(lse, partial_lse)
    weight = torch.exp(partial_lse - merged).unsqueeze(-1)
    if partial is None:
        out.mul_((1 - weight).to(out.dtype))
    elif out.dtype == weight.dtype:
        out.lerp_(partial, weight)
    else:  # bfloat16: weigh in float32
        out.copy_(torch.lerp(out.to(weight.dtype), partial.to(weight.dtype), weight))
    lse.copy_(merged)


def _band_mask(block: Block, like: Tensor, memory: dict[Any, Any]) -> Tensor | None:
    """What to add to the scores of a block that a window cuts: 0 or -inf, shape (1, 1, queries, keys)."""
    if block.band is None:
        return None
    queries, keys = block.query_stop - block.query_start, block.key_stop - block.key_start
    name = ("band", queries, keys, block.band)
    if name not in memory:
        distance = block.band.offset + torch.arange(queries)[:, None] - torch.arange(keys)
        seen = (distance >= 0) & (distance < block.band.window)
        mask = torch.zeros(1, 1, queries, keys, dtype=like.dtype).masked_fill_(~seen, -math.inf)
        memory[name] = mask
    found: Tensor = memory[name]
    return found


def _softcapped(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    plan: AttentionPlan,
    window: int | None,
    scale: float,
    softcap: float,
    at_readout: bool,
) -> Tensor:
    """Attention with soft-capped scores, segment by segment in plain torch: no kernel caps scores.

    Memory grows with segment x (prefix + segment), as in transformers' eager attention.
    """
    repeats = query.shape[1] // key.shape[1]
    parts = []
    for i, segment in enumerate(plan.row.segments):
        seen = slice(segment.prefix_start, segment.prefix_stop), slice(segment.start, segment.stop)
        k, v = (torch.cat([t[0, :, s] for s in seen], 1).repeat_interleave(repeats, 0) for t in (key, value))
        q = query[0, :, i : i + 1] if at_readout else query[0, :, segment.start : segment.stop]
        scores = softcap * torch.tanh(q @ k.transpose(1, 2) * scale / softcap)
        total = k.shape[1]
        distance = torch.arange(total - q.shape[1], total, device=q.device)[:, None]
        distance = distance - torch.arange(total, device=q.device)
        hidden = (distance < 0) | (distance >= (window or total))
        scores = scores.masked_fill(hidden, -math.inf)
        parts.append(torch.softmax(scores, -1, dtype=_accumulates(q.dtype)).to(q.dtype) @ v)
    return torch.cat(parts, 1).unsqueeze(0)

"""The kernels of attention over a packed row on a CUDA device: torch's own, chosen when called.

:func:`attend` is called by :mod:`rewardlab.modeling.tree_attention`, which says what a packed row is. Two kernels of
torch can do it, and no other package is needed:

``varlen`` (flash attention with variable lengths; bfloat16 and float16)
    One call for the whole row. The queries are the segments as they stand. The keys of each segment are gathered next
    to it: first its prefix, then its own. Causal with *bottom-right* alignment (the last query sees the last key), that
    is exactly what each token sees. No log-sum-exp is merged and no mask is built, but a prefix's keys and values are
    copied once per completion: with K completions of n own tokens each, K * (prefix + n) keys for a row of
    prefix + K * n tokens. A row that shares nothing is not copied.

``flex`` (FlexAttention; float32 too, attention sinks too)
    A block mask says which 128 x 128 blocks to look at; nothing is copied. It is compiled at first use, which takes
    seconds to a minute. It is taken where varlen cannot be, and where the copies would exceed :data:`MOST_COPIES` times
    the row.

Neither could be run on a device when this was written. That flash attention aligns bottom-right, that its gradient is
right when there are more keys than queries, and that flex compiles in the installed torch, is known here from torch's
source, documentation and pull requests alone. So nothing may rely on this file unchecked: the parity gate at each run's
start compares scores and gradients with the plain padded forward, and ends at the padded layout wherever a kernel
disagrees, or raises.

References:
    Bottom-right alignment of ``varlen_attn``: pytorch/pytorch#193630; its ``window_size``, in which W means W keys
    before the query *and* the query's own: flash-attention README ("between i + seqlen_k - seqlen_q - window_size[0]
    and ..."); ``enable_gqa``, which torch 2.11 lacks because its kernel groups heads by itself: pytorch/pytorch#179468.
    FlexAttention: Dong et al. 2024 (arXiv:2412.05496). Sinks from a log-sum-exp: transformers ``modeling_gpt_oss.py``.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, flex_attention
from torch.nn.attention.varlen import varlen_attn

from rewardlab.modeling.prefix_tree import Segment

if TYPE_CHECKING:
    from rewardlab.modeling.tree_attention import AttentionPlan

T = TypeVar("T")

# Gathered keys per token of the row from which on flex is preferred, for its memory.
MOST_COPIES = 8.0

# What torch itself tests FlexAttention on, and the least that flash attention runs on.
_AMPERE = (8, 0)
_BLOCK = 128  # FlexAttention's block size


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    plan: AttentionPlan,
    window: int | None,
    scale: float,
    sink: Tensor | None,
    at_readout: bool,
) -> Tensor:
    """Attention over a packed row.

    Args:
        query: Shape (1, heads, queries, head size); of all T tokens, or of the read-out positions alone.
        key: Shape (1, key heads, T, head size); heads is a multiple of key heads, which are never copied per head.
        value: Shape (1, key heads, T, head size).
        plan: The row's plan; its memory keeps index tensors and block masks between layers.
        window: Tokens a query sees, itself included; None for all.
        scale: Factor on the scores.
        sink: A score per head of a key with value 0, shape (heads,).
        at_readout: Whether query i is the last token of the i-th segment.

    Returns:
        Shape (1, heads, queries, head size).

    Raises:
        RuntimeError: No kernel of the installed torch does this on this device.
    """
    device = query.device
    if window is not None and window >= plan.row.longest:
        window = None
    copies = _remembered(plan, ("copies", window), lambda: num_gathered(plan.row.segments, window))
    backend = choose_backend(
        query.dtype,
        torch.cuda.get_device_capability(device),
        query.shape[-1],
        copies=copies / plan.row.num_tokens,
        has_sink=sink is not None,
        has_varlen=torch.version.hip is None and {"scale", "window_size"} <= _parameters(varlen_attn),
        has_flex=_has_triton(),
    )
    if backend == "varlen":
        return attend_varlen(query, key, value, plan, window, scale, at_readout)
    return attend_flex(query, key, value, plan, window, scale, sink, at_readout)


def choose_backend(
    dtype: torch.dtype,
    capability: tuple[int, int],
    head_size: int,
    *,
    copies: float,
    has_sink: bool,
    has_varlen: bool,
    has_flex: bool,
) -> Literal["varlen", "flex"]:
    """Which kernel computes a row.

    Args:
        dtype: Of queries, keys and values.
        capability: The device's compute capability.
        head_size: Of queries, keys and values.
        copies: Keys that ``varlen`` would gather, per token of the row.
        has_sink: Whether there are attention sinks. They need the gradient of the log-sum-exp, and that of torch's
            ``varlen_attn`` has none (torch 2.13 ``varlen.py``: its backward drops it).
        has_varlen: Whether torch has ``varlen_attn`` with windows, on CUDA rather than ROCm, where its alignment is
            another kernel's.
        has_flex: Whether Triton is there to compile FlexAttention.

    Raises:
        RuntimeError: Neither does it.
    """
    half = dtype in (torch.bfloat16, torch.float16)
    recent = capability >= _AMPERE
    varlen = has_varlen and half and recent and not has_sink and head_size % 8 == 0 and head_size <= 256
    flex = has_flex and (half or dtype == torch.float32) and recent and head_size >= 16
    if flex and (not varlen or copies > MOST_COPIES):
        return "flex"
    if varlen:
        return "varlen"
    major, minor = capability
    wants = []
    if not recent:
        wants.append(f"a device of compute capability {_AMPERE[0]}.{_AMPERE[1]} or more")
    if not half:
        wants.append("bf16 training")
    if not has_flex:
        wants.append("Triton, which FlexAttention is compiled with")
    if not has_varlen:
        wants.append("a CUDA build of torch >= 2.11")
    raise RuntimeError(
        f"no attention kernel for a packed row: {dtype}, compute capability {major}.{minor}, head size {head_size}"
        f"{', attention sinks' if has_sink else ''}, torch {torch.__version__}; what would help: "
        + (", or ".join(wants) or "the padded layout")
    )


def _remembered(plan: AttentionPlan, name: Any, make: Callable[[], T]) -> T:
    """What the plan's memory has under a name, made at the first call."""
    if name not in plan.memory:
        plan.memory[name] = make()
    found: T = plan.memory[name]
    return found


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


@functools.cache
def _parameters(function: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters)


# -- varlen ----------------------------------------------------------------------------------------------------------


class VarlenLayout(NamedTuple):
    """One varlen call.

    Attributes:
        gathered: Row index of each key, shape (keys,), int64; None if the keys are the row as it stands.
        query_bounds: Where each segment's queries start and end, shape (segments + 1,), int32.
        key_bounds: Where each segment's keys start and end, likewise.
        most_queries: Of any segment.
        most_keys: Of any segment.
    """

    gathered: Tensor | None
    query_bounds: Tensor
    key_bounds: Tensor
    most_queries: int
    most_keys: int


def _prefix_kept(segment: Segment, window: int | None) -> int:
    """How many of its prefix's last tokens any query of a segment sees."""
    return segment.prefix_length if window is None else min(segment.prefix_length, window - 1)


def num_gathered(segments: tuple[Segment, ...], window: int | None) -> int:
    """Keys of a varlen call: of each segment its own and those of its prefix."""
    return sum(segment.stop - segment.start + _prefix_kept(segment, window) for segment in segments)


def varlen_layout(
    segments: tuple[Segment, ...], window: int | None, at_readout: bool, device: torch.device | str = "cpu"
) -> VarlenLayout:
    """Lay a row out as one varlen call: each segment's queries against [its prefix, itself].

    Args:
        segments: The row's.
        window: Tokens a query sees; what no query of a segment sees is not gathered.
        at_readout: One query per segment.
        device: Where the tensors go.
    """
    own = torch.tensor([segment.stop - segment.start for segment in segments])
    kept = torch.tensor([_prefix_kept(segment, window) for segment in segments])
    queries = torch.ones_like(own) if at_readout else own
    gathered = None
    if kept.any():
        gathered = torch.cat(
            [
                torch.arange(start, stop)
                for segment, seen in zip(segments, kept.tolist(), strict=True)
                for start, stop in ((segment.prefix_stop - seen, segment.prefix_stop), (segment.start, segment.stop))
            ]
        ).to(device)
    return VarlenLayout(
        gathered, _bounds(queries, device), _bounds(kept + own, device), int(queries.max()), int((kept + own).max())
    )


def _bounds(lengths: Tensor, device: torch.device | str) -> Tensor:
    return torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]).to(device, torch.int32)


def attend_varlen(
    query: Tensor, key: Tensor, value: Tensor, plan: AttentionPlan, window: int | None, scale: float, at_readout: bool
) -> Tensor:
    """:func:`attend` by torch's ``varlen_attn``; bottom-right causal alignment is the kernel's, and trusted here."""
    layout = _remembered(
        plan,
        ("varlen", window, at_readout),
        lambda: varlen_layout(plan.row.segments, window, at_readout, query.device),
    )
    # (1, heads, tokens, size) -> (tokens, heads, size), which is how the projections wrote them.
    query, key, value = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    if layout.gathered is not None:
        key, value = (_Gather.apply(tensor, layout.gathered) for tensor in (key, value))
    options: dict[str, Any] = {}
    if "enable_gqa" in _parameters(varlen_attn):
        options["enable_gqa"] = query.shape[1] != key.shape[1]
    out: Any = varlen_attn(
        query,
        key,
        value,
        layout.query_bounds,
        layout.key_bounds,
        layout.most_queries,
        layout.most_keys,
        scale=scale,
        # W means W keys before the query's own; a tuple, since torch compares it with (-1, 0).
        window_size=(-1 if window is None else window - 1, 0),
        **options,
    )
    return out.transpose(0, 1).unsqueeze(0)


class _Gather(torch.autograd.Function):
    """``tensor[index]`` along dimension 0, whose backward adds up the copies' gradients in float32 or more.

    The gradient of a prefix's key is a sum over completions; in bfloat16 that sum would lose what the padded layout's
    float32 accumulation keeps. Order of additions: fixed only under ``torch.use_deterministic_algorithms``.
    """

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, index: Tensor) -> Tensor:
        """Shape (tokens, heads, size) in, (indices, heads, size) out."""
        ctx.save_for_backward(index)
        ctx.shape = tensor.shape
        return tensor.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """The copies' gradients, added up."""
        (index,) = ctx.saved_tensors
        (gradient,) = gradients
        total = gradient.new_zeros(ctx.shape, dtype=torch.promote_types(gradient.dtype, torch.float32))
        return total.index_add_(0, index, gradient.to(total.dtype)).to(gradient.dtype), None


# -- flex ------------------------------------------------------------------------------------------------------------


def seen_ranges(segments: tuple[Segment, ...], window: int | None, at_readout: bool) -> Tensor:
    """What each query sees: two ranges of the row, one of its prefix and one of its segment.

    Args:
        segments: The row's.
        window: Tokens a query sees, itself included; None for all.
        at_readout: For the last token of each segment alone.

    Returns:
        Shape (4, queries), int32: first key of the prefix and one past the last (equal if none is seen), first key of
        the segment and one past the last, which is the query.
    """
    table = torch.tensor([(s.start, s.stop, s.prefix_start, s.prefix_stop) for s in segments])
    if at_readout:
        start, stop, prefix_start, prefix_stop = table.T
        token = stop - 1
    else:
        start, stop, prefix_start, prefix_stop = table.repeat_interleave(table[:, 1] - table[:, 0], 0).T
        token = torch.arange(len(start))
    if window is not None:
        left = (window - 1 - (token - start)).clamp(min=0)  # prefix tokens within the window
        prefix_start = torch.maximum(prefix_start, prefix_stop - left)
        start = torch.maximum(start, token - window + 1)
    return torch.stack([prefix_start, prefix_stop, start, token + 1]).to(torch.int32)


def block_mask(ranges: Tensor, num_keys: int) -> BlockMask:
    """FlexAttention's block mask of some ranges.

    ``create_block_mask`` would go through a mask of queries x keys, gigabytes for a long row; this needs a 128th.

    Args:
        ranges: As :func:`seen_ranges` gives them, on the device.
        num_keys: T.
    """
    prefix_start, prefix_stop, start, stop = ranges.unbind()

    def mask_mod(batch: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return ((k >= start[q]) & (k < stop[q])) | ((k >= prefix_start[q]) & (k < prefix_stop[q]))

    num_queries = ranges.shape[1]
    first = torch.arange(0, num_keys, _BLOCK, device=ranges.device)
    last = first + _BLOCK - 1
    seen = torch.zeros(-(-num_queries // _BLOCK) * _BLOCK, len(first), dtype=torch.bool, device=ranges.device)
    # A block is full only within one range: of a block at the end of the row, past which no range goes, the rest is
    # for mask_mod to hide, and so are the rows past the last query.
    whole = seen.clone()
    for low, high in ((prefix_start[:, None], prefix_stop[:, None]), (start[:, None], stop[:, None])):
        seen[:num_queries] |= (low <= last) & (high > first) & (low < high)
        whole[:num_queries] |= (low <= first) & (high > last)
    touched = seen.unflatten(0, (-1, _BLOCK)).any(1)
    full = whole.unflatten(0, (-1, _BLOCK)).all(1)
    return BlockMask.from_kv_blocks(
        *_ordered(touched & ~full),
        *_ordered(full),
        BLOCK_SIZE=_BLOCK,
        mask_mod=mask_mod,
        seq_lengths=(num_queries, num_keys),
    )


def _ordered(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Of each row of a boolean (query blocks, key blocks): how many are True, and which, these first."""
    order = blocks.to(torch.int32).argsort(dim=-1, descending=True, stable=True)
    return blocks.sum(-1).to(torch.int32)[None, None], order.to(torch.int32)[None, None].contiguous()


@functools.cache
def _compiled_flex() -> Callable[..., Any]:
    # Rows differ in length: without dynamic shapes each would be compiled anew.
    return torch.compile(flex_attention, dynamic=True)


def attend_flex(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    plan: AttentionPlan,
    window: int | None,
    scale: float,
    sink: Tensor | None,
    at_readout: bool,
) -> Tensor:
    """:func:`attend` by FlexAttention: compiled on CUDA, and the plain (slow) reference elsewhere."""
    mask = _remembered(
        plan,
        ("flex", window, at_readout),
        lambda: block_mask(seen_ranges(plan.row.segments, window, at_readout).to(query.device), key.shape[2]),
    )
    kernel: Any = _compiled_flex() if query.device.type == "cuda" else flex_attention
    options: dict[str, Any] = {"block_mask": mask, "scale": scale, "enable_gqa": query.shape[1] != key.shape[1]}
    if sink is None:
        out: Tensor = kernel(query, key, value, **options)
        return out
    out, aux = kernel(query, key, value, **options, return_aux=AuxRequest(lse=True))
    # exp(sink) joins the softmax's denominator: everything else is scaled by exp(lse) / (exp(lse) + exp(sink)).
    kept = torch.sigmoid(aux.lse - sink.to(aux.lse.dtype)[:, None])
    return out * kept.unsqueeze(-1).to(out.dtype)

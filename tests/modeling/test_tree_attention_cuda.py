"""The CUDA kernels' layouts, checked on a CPU; the kernels themselves only where there is a device.

The oracle goes sequence by sequence: prefix and completion are put together again, attention over that one sequence is
written out in float64, and the completion's rows of it are what the packed row must give. ``varlen_attn`` runs on CUDA
alone, so a slow function of its documented meaning (flash-attention's: bottom-right alignment, ``window_size`` of keys
before and after the query's own) stands in for it: what is tested is what we ask of it.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rewardlab.modeling import tree_attention_cuda
from rewardlab.modeling.prefix_tree import PackedRow, lay_out, tree_of, without_sharing
from rewardlab.modeling.tree_attention import AttentionPlan, _Cascade
from rewardlab.modeling.tree_attention_cuda import (
    attend,
    attend_flex,
    attend_varlen,
    block_mask,
    choose_backend,
    num_gathered,
    seen_ranges,
    varlen_layout,
)

HEADS, KEY_HEADS, SIZE = 4, 2, 16
SCALE = 0.3


def packed(*trees: tuple[int, tuple[int, ...]]) -> PackedRow:
    """A row of trees, each given as its prefix length and the lengths of its completions."""
    ids = itertools.count()
    made = []
    for prefix_length, owns in trees:
        prefix = [next(ids) for _ in range(prefix_length)]
        made.append(tree_of([prefix + [next(ids) for _ in range(own)] for own in owns]))
    # A tree of one sequence would share it all with itself but for its last token.
    return lay_out(made)


ROWS = {
    "K=1": packed((0, (7,))),
    "K=2": packed((5, (4, 3))),
    "K=4": packed((6, (5, 1, 4, 2))),
    "empty prefix": packed((0, (3, 5))),
    "one-token completions": packed((4, (1, 1, 1))),
    "several trees": packed((3, (2, 6)), (0, (1,)), (9, (1, 3, 3, 2)), (0, (4, 2)), (1, (5, 5))),
}
CASES = [
    (name, window, at_readout) for name in ROWS for window in (None, 1, 2, 3, 6, 99) for at_readout in (False, True)
]


def tensors(row: PackedRow, at_readout: bool, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Query, key and value, and what the output is weighed with for a gradient."""
    generator = torch.Generator().manual_seed(1)
    queries = len(row.segments) if at_readout else row.num_tokens
    shapes = [(HEADS, queries), (KEY_HEADS, row.num_tokens), (KEY_HEADS, row.num_tokens), (HEADS, queries)]
    return [
        torch.randn(1, heads, tokens, SIZE, generator=generator, dtype=torch.float64).to(dtype)
        for heads, tokens in shapes
    ]


def one_by_one(
    query: Tensor, key: Tensor, value: Tensor, row: PackedRow, window: int | None, at_readout: bool, sink: Tensor | None
) -> Tensor:
    """The oracle: attention over each whole sequence by itself."""
    parts = []
    for i, segment in enumerate(row.segments):
        path = [*range(segment.prefix_start, segment.prefix_stop), *range(segment.start, segment.stop)]
        k, v = (t[0, :, path].repeat_interleave(HEADS // KEY_HEADS, 0) for t in (key, value))
        q = query[0, :, [i]] if at_readout else query[0, :, segment.start : segment.stop]
        scores = q @ k.transpose(1, 2) * SCALE
        for place in range(q.shape[1]):
            at = len(path) - q.shape[1] + place  # this query's position in the sequence
            hidden = [j for j in range(len(path)) if j > at or (window is not None and at - j >= window)]
            scores[:, place, hidden] = -math.inf
        if sink is not None:
            scores = torch.cat([scores, sink[:, None, None].expand(-1, q.shape[1], 1)], 2)
        parts.append(torch.softmax(scores, 2)[:, :, : len(path)] @ v)
    return torch.cat(parts, 1)[None]


def varlen_reference(
    query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale=None, window_size=(-1, -1), enable_gqa=False
):
    """What ``varlen_attn`` is documented to do, by loops."""
    assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
    assert isinstance(window_size, tuple)
    assert enable_gqa == (query.shape[1] != key.shape[1])
    bounds = [list(itertools.pairwise(cu.tolist())) for cu in (cu_seq_q, cu_seq_k)]
    assert max_q == max(stop - start for start, stop in bounds[0])
    assert max_k == max(stop - start for start, stop in bounds[1])
    assert (bounds[0][-1][1], bounds[1][-1][1]) == (len(query), len(key))
    left, right = window_size
    parts = []
    for (q0, q1), (k0, k1) in zip(*bounds, strict=True):
        q = query[q0:q1].transpose(0, 1)
        k, v = (t[k0:k1].transpose(0, 1).repeat_interleave(query.shape[1] // key.shape[1], 0) for t in (key, value))
        at = torch.arange(q1 - q0)[:, None] + (k1 - k0) - (q1 - q0)
        other = torch.arange(k1 - k0)
        seen = torch.ones(q1 - q0, k1 - k0, dtype=torch.bool)
        if left >= 0:
            seen &= other >= at - left
        if right >= 0:
            seen &= other <= at + right
        scores = (q @ k.transpose(1, 2) * scale).masked_fill(~seen, -math.inf)
        parts.append((torch.softmax(scores, 2) @ v).transpose(0, 1))
    return torch.cat(parts)


def varlen_reference_of_torch_2_11(query, key, value, cu_q, cu_k, max_q, max_k, *, scale=None, window_size=(-1, -1)):
    grouped = query.shape[1] != key.shape[1]
    return varlen_reference(
        query, key, value, cu_q, cu_k, max_q, max_k, scale=scale, window_size=window_size, enable_gqa=grouped
    )


@pytest.mark.parametrize("reference", [varlen_reference, varlen_reference_of_torch_2_11])
@pytest.mark.parametrize(("name", "window", "at_readout"), CASES)
def test_varlen_equals_sequences_one_by_one(monkeypatch, reference, name, window, at_readout):
    monkeypatch.setattr(tree_attention_cuda, "varlen_attn", reference)
    row = ROWS[name]
    *inputs, weight = tensors(row, at_readout)
    theirs = [t.clone().requires_grad_() for t in inputs]
    expected = one_by_one(*theirs, row, window, at_readout, None)
    (expected * weight).sum().backward()
    ours = [t.clone().requires_grad_() for t in inputs]
    out = attend_varlen(*ours, AttentionPlan(row), window, SCALE, at_readout)
    (out * weight).sum().backward()
    torch.testing.assert_close(out, expected)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad)


def test_layout_is_made_once_per_window_and_kept_in_the_plan(monkeypatch):
    monkeypatch.setattr(tree_attention_cuda, "varlen_attn", varlen_reference)
    row = ROWS["K=4"]
    plan = AttentionPlan(row)
    *inputs, _ = tensors(row, at_readout=False)
    attend_varlen(*inputs, plan, None, SCALE, False)
    layout = plan.memory["varlen", None, False]
    attend_varlen(*inputs, plan, None, SCALE, False)
    attend_varlen(*inputs, plan, 3, SCALE, False)
    assert plan.memory["varlen", None, False] is layout
    assert ("varlen", 3, False) in plan.memory


def test_layout_of_a_small_row_by_hand():
    """Prefix 0 1, completions 2 3 4 (in the first segment) and 5 6.

    With a window of 2 the second completion's first token sees one token of the prefix, its last; the first segment's
    prefix is its own. At the read-out each segment asks one question of the same keys.
    """
    segments = packed((2, (3, 2))).segments
    layout = varlen_layout(segments, None, at_readout=False)
    assert layout.gathered.tolist() == [0, 1, 2, 3, 4, 0, 1, 5, 6]
    assert layout.query_bounds.tolist() == [0, 5, 7]
    assert layout.key_bounds.tolist() == [0, 5, 9]
    assert (layout.most_queries, layout.most_keys) == (5, 5)
    narrow = varlen_layout(segments, 2, at_readout=True)
    assert narrow.gathered.tolist() == [0, 1, 2, 3, 4, 1, 5, 6]
    assert narrow.query_bounds.tolist() == [0, 1, 2]
    assert (narrow.most_queries, narrow.most_keys) == (1, 5)
    assert (num_gathered(segments, None), num_gathered(segments, 2), num_gathered(segments, 1)) == (9, 8, 7)


def test_a_row_that_shares_nothing_is_not_copied():
    row = lay_out(without_sharing([[1, 2, 3], [1, 2, 4, 5]]))
    assert varlen_layout(row.segments, None, at_readout=False).gathered is None
    assert varlen_layout(ROWS["K=2"].segments, 1, at_readout=False).gathered is None


def test_gradients_of_copies_are_summed_in_float32():
    """300 copies of gradient 1: a running sum in bfloat16 stops at 256, where 256 + 1 rounds back to 256."""
    tensor = torch.zeros(1, 1, 1, dtype=torch.bfloat16, requires_grad=True)
    tree_attention_cuda._Gather.apply(tensor, torch.zeros(300, dtype=torch.int64)).sum().backward()
    assert tensor.grad.dtype == torch.bfloat16
    assert tensor.grad.item() == 300


# -- flex ------------------------------------------------------------------------------------------------------------


def definition(row: PackedRow, window: int | None) -> Tensor:
    """(T, T): whether a query sees a key. Both are on one path and the key is not later, nor out of the window."""
    seen = torch.zeros(row.num_tokens, row.num_tokens, dtype=torch.bool)
    for segment in row.segments:
        path = torch.tensor([*range(segment.prefix_start, segment.prefix_stop), *range(segment.start, segment.stop)])
        at = torch.arange(len(path))
        before = at[:, None] - at
        within = (before >= 0) & (before < (window or len(path)))
        seen[path[segment.prefix_length :, None], path] = within[segment.prefix_length :]
    return seen


trees_drawn = st.lists(
    st.tuples(st.integers(0, 40), st.lists(st.integers(1, 40), min_size=1, max_size=4).map(tuple)),
    min_size=1,
    max_size=3,
)


@settings(max_examples=40, deadline=None)
@given(trees_drawn, st.none() | st.integers(1, 90), st.booleans())
def test_ranges_are_what_each_query_sees(trees, window, at_readout):
    row = packed(*trees)
    expected = definition(row, window)
    if at_readout:
        expected = expected[[segment.stop - 1 for segment in row.segments]]
    prefix_start, prefix_stop, start, stop = seen_ranges(row.segments, window, at_readout)[:, :, None]
    keys = torch.arange(row.num_tokens)
    in_prefix, in_segment = ((keys >= a) & (keys < b) for a, b in ((prefix_start, prefix_stop), (start, stop)))
    assert not (in_prefix & in_segment).any()
    assert torch.equal(in_prefix | in_segment, expected)


@pytest.mark.parametrize("window", [None, 40, 200])
@pytest.mark.parametrize("at_readout", [False, True])
@pytest.mark.parametrize(
    "trees",
    [
        [(200, (150, 30, 260, 3)), (0, (128,)), (300, (1, 90))],
        [(0, (127,)), (0, (200,))],  # of block 0 the second tree sees the last key alone
        [(127, (129, 300))],  # of block 0 the second completion sees all but the last key
    ],
)
def test_block_mask_marks_the_blocks_that_are_touched_and_those_that_are_full(trees, window, at_readout):
    """Against the whole T x T mask: touched = any pair seen, and full blocks (whose pairs go unasked) all seen."""
    row = packed(*trees)
    seen = definition(row, window)
    if at_readout:
        seen = seen[[segment.stop - 1 for segment in row.segments]]
    mask = block_mask(seen_ranges(row.segments, window, at_readout), row.num_tokens)
    queries, keys = (-(-n // 128) * 128 for n in seen.shape)
    grid = torch.zeros(queries, keys, dtype=torch.bool)
    grid[: seen.shape[0], : seen.shape[1]] = seen
    blocks = grid.unflatten(1, (-1, 128)).unflatten(0, (-1, 128))
    touched, full = blocks.any(3).any(1), blocks.all(3).all(1)
    partial_marked = marked(mask.kv_num_blocks, mask.kv_indices)
    full_marked = marked(mask.full_kv_num_blocks, mask.full_kv_indices)
    assert torch.equal(partial_marked | full_marked, touched)
    assert not (partial_marked & full_marked).any()
    assert not (full_marked & ~full).any()
    assert mask.shape[-2:] == seen.shape
    if not at_readout and window is None and row.num_tokens > 400:
        assert full_marked.any()


def marked(numbers: Tensor, indices: Tensor) -> Tensor:
    """Which blocks a block mask lists, as a boolean (query blocks, key blocks)."""
    listed = torch.zeros(indices.shape[2:], dtype=torch.bool)
    for i, number in enumerate(numbers[0, 0].tolist()):
        listed[i, indices[0, 0, i, :number].long()] = True
    return listed


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("with_sink", [False, True])
@pytest.mark.parametrize(("window", "at_readout"), [(None, False), (None, True), (5, False), (70, True)])
def test_flex_equals_sequences_one_by_one(window, at_readout, with_sink):
    """Forward only: FlexAttention's backward is not implemented on CPUs (pytorch/pytorch#148752)."""
    row = packed((70, (30, 1, 45)), (0, (3,)), (2, (9, 9)))
    *inputs, _ = tensors(row, at_readout)
    sink = torch.tensor([0.5, -1.0, 2.0, 0.0], dtype=torch.float64) if with_sink else None
    with torch.no_grad():
        out = attend_flex(*(t.float() for t in inputs), AttentionPlan(row), window, SCALE, sink, at_readout)
    expected = one_by_one(*inputs, row, window, at_readout, sink)
    torch.testing.assert_close(out, expected.float(), atol=2e-6, rtol=2e-6)


# -- the choice ------------------------------------------------------------------------------------------------------

HALF, SINGLE = torch.bfloat16, torch.float32


@pytest.mark.parametrize(
    ("dtype", "capability", "size", "copies", "sink", "varlen", "flex", "expected"),
    [
        (HALF, (8, 0), 64, 2.0, False, True, True, "varlen"),
        (torch.float16, (9, 0), 256, 2.0, False, True, True, "varlen"),
        (HALF, (9, 0), 64, 8.0, False, True, True, "varlen"),
        (HALF, (9, 0), 64, 8.1, False, True, True, "flex"),  # too many copies
        (HALF, (9, 0), 8, 8.1, False, True, True, "varlen"),  # ... but flex has no heads so small
        (HALF, (9, 0), 64, 8.1, False, True, False, "varlen"),  # ... nor is it there
        (HALF, (9, 0), 64, 2.0, True, True, True, "flex"),  # sinks
        (HALF, (9, 0), 100, 2.0, False, True, True, "flex"),  # not a multiple of 8
        (HALF, (9, 0), 264, 2.0, False, True, True, "flex"),
        (HALF, (9, 0), 64, 2.0, False, False, True, "flex"),
        (SINGLE, (9, 0), 64, 2.0, False, True, True, "flex"),
        (SINGLE, (9, 0), 64, 2.0, False, True, False, "what would help: .*Triton"),
        (SINGLE, (9, 0), 8, 2.0, False, True, True, "head size 8"),
        (torch.float64, (9, 0), 64, 2.0, False, True, True, "float64"),
        (HALF, (7, 5), 64, 2.0, False, True, True, "compute capability 7.5"),
        (HALF, (9, 0), 8, 2.0, True, True, True, "sinks"),
    ],
)
def test_choice(dtype, capability, size, copies, sink, varlen, flex, expected):
    arguments = {"copies": copies, "has_sink": sink, "has_varlen": varlen, "has_flex": flex}
    if expected in ("varlen", "flex"):
        assert choose_backend(dtype, capability, size, **arguments) == expected
    else:
        with pytest.raises(RuntimeError, match=expected):
            choose_backend(dtype, capability, size, **arguments)


def test_attend_goes_by_the_choice(monkeypatch):
    """bfloat16 goes to varlen; many copies or a float32 input go to flex."""
    asked = []

    def varlen(query, *rest):
        asked.append(("varlen", query.dtype, rest[3]))

    def flex(query, *rest):
        asked.append(("flex", query.dtype, rest[3]))

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(tree_attention_cuda, "_has_triton", lambda: True)
    monkeypatch.setattr(tree_attention_cuda, "attend_varlen", varlen)
    monkeypatch.setattr(tree_attention_cuda, "attend_flex", flex)
    row = ROWS["K=2"]
    many = packed((200, (1,) * 20))
    *inputs, _ = tensors(row, False, torch.float32)
    halves = [tensor.to(HALF) for tensor in inputs]
    attend(*halves, AttentionPlan(row), 3, SCALE, None, False)
    attend(*halves, AttentionPlan(many), None, SCALE, None, False)
    attend(*inputs, AttentionPlan(row), row.longest, SCALE, None, False)
    assert asked == [("varlen", HALF, 3), ("flex", HALF, None), ("flex", SINGLE, None)]


# -- on a device -----------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.filterwarnings("default")  # what the compiler has to say is no failure of ours
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("at_readout", [False, True])
@pytest.mark.parametrize("window", [None, 50])
@pytest.mark.parametrize(
    ("backend", "dtype"), [("varlen", torch.bfloat16), ("flex", torch.bfloat16), ("flex", torch.float32)]
)
def test_kernels_equal_the_cpu_cascade(backend, dtype, window, at_readout):
    """Outputs and gradients on the device against the CPU's kernels in float32.

    bfloat16 keeps 8 bits: the tolerance is of its rounding, 2^-8, with room for the sums in between.
    """
    row = packed((300, (200, 30, 260, 1)), (0, (128,)), (60, (1, 1, 90)))
    *inputs, weight = tensors(row, at_readout, dtype)
    sinks = [None] if backend == "varlen" else [None, torch.tensor([0.5, -1.0, 2.0, 0.0])]
    for sink in sinks:
        slow = [t.float().requires_grad_() for t in inputs]
        slow_sink = None if sink is None else sink.clone().requires_grad_()
        plan = AttentionPlan(row)
        blocks = plan.blocks(window, at_readout=at_readout)
        expected = _Cascade.apply(*slow, slow_sink, blocks, plan.memory, SCALE)
        (expected * weight.float()).sum().backward()

        fast = [t.cuda().requires_grad_() for t in inputs]
        fast_sink = None if sink is None else sink.cuda().requires_grad_()
        plan = AttentionPlan(row, "cuda")
        if backend == "varlen":
            out = attend_varlen(*fast, plan, window, SCALE, at_readout)
        else:
            out = attend_flex(*fast, plan, window, SCALE, fast_sink, at_readout)
        (out * weight.cuda()).sum().backward()

        wanted = [expected, *(t.grad for t in slow)] + ([] if sink is None else [slow_sink.grad])
        got = [out, *(t.grad for t in fast)] + ([] if sink is None else [fast_sink.grad])
        for mine, other in zip(got, wanted, strict=True):
            error = (mine.float().cpu() - other).norm() / other.norm()
            assert error < (2e-2 if dtype == torch.bfloat16 else 1e-5)

"""Attention over a packed row on a CPU: its blocks by their definition, its numbers by one sequence at a time.

The oracle puts each sequence together again, prefix and completion, and gives it to torch's plain ("math") attention
with an explicit mask; gradients are autograd's. A sink is an ordinary key there: of value 0, its score in the mask.
"""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from rewardlab.modeling import tree_attention as cascade
from rewardlab.modeling.prefix_tree import PackedRow, lay_out, tree_of
from rewardlab.modeling.tree_attention import (
    ATTENTION_NAME,
    AttentionPlan,
    Block,
    Captured,
    CapturePlan,
    ReadoutPlan,
    readout_blocks,
    row_blocks,
    tree_attention,
)

HEADS, KEY_HEADS, SIZE = 4, 2, 8


def packed(*trees: tuple[int, list[int]]) -> PackedRow:
    """A row of trees, each given as its prefix length and the lengths of its completions."""
    return lay_out(
        [tree_of([[0] * prefix_length + [1 + i] * own for i, own in enumerate(owns)]) for prefix_length, owns in trees]
    )


ROWS = {
    "K = 1": packed((0, [7])),
    "K = 2": packed((5, [4, 3])),
    "K = 4": packed((6, [5, 1, 4, 2])),
    "K = 9": packed((4, [3, 1, 2, 5, 2, 2, 1, 4, 3])),
    "empty prefix": packed((0, [3, 5])),
    "one-token completions": packed((4, [1, 1, 1])),
    "identical completions": lay_out([tree_of([[5, 6, 7, 8]] * 3)]),
    "several trees": packed((3, [2, 6]), (0, [1]), (9, [1, 3, 3, 2]), (0, [4, 2]), (1, [5, 5])),
}


def tensors(
    row: PackedRow, *, at_readout: bool = False, value_size: int = SIZE, dtype: torch.dtype = torch.float64
) -> list[Tensor]:
    """Query, key, value and sinks, in the strides that models give them: (1, T, heads, size) transposed."""
    generator = torch.Generator().manual_seed(row.num_tokens)
    queries = len(row.segments) if at_readout else row.num_tokens
    shapes = [(queries, HEADS, SIZE), (row.num_tokens, KEY_HEADS, SIZE), (row.num_tokens, KEY_HEADS, value_size)]
    made = [torch.randn(1, *s, generator=generator, dtype=torch.float64).transpose(1, 2) for s in shapes]
    made.append(torch.randn(HEADS, generator=generator, dtype=torch.float64))
    return [tensor.to(dtype).requires_grad_() for tensor in made]


def attend(
    row: PackedRow, query: Tensor, key: Tensor, value: Tensor, sink: Tensor | None = None, *, at_readout=False, **kwargs
) -> Tensor:
    """Ours, shape (1, queries, heads, value size)."""
    plan = AttentionPlan(row)
    if at_readout:
        # The layer runs on the read-out rows, so the keys and values it hands over are theirs; the plan's count.
        few = query[:, :KEY_HEADS].detach() * math.nan
        return tree_attention(
            nn.Module(), query, few, few, None, s_aux=sink, packing_plan=ReadoutPlan(plan, key, value), **kwargs
        )[0]
    return tree_attention(nn.Module(), query, key, value, None, s_aux=sink, packing_plan=plan, **kwargs)[0]


def seen(total: int, queries: int, window: int | None) -> Tensor:
    """Which of a sequence's tokens its last ``queries`` see: themselves and ``window - 1`` before."""
    distance = torch.arange(total)[-queries:, None] - torch.arange(total)
    return (distance >= 0) & (distance < (total if window is None else window))


def one_by_one(
    row: PackedRow, query, key, value, sink=None, *, at_readout=False, sliding_window=None, scaling=None
) -> Tensor:
    """The oracle."""
    parts = []
    for i, segment in enumerate(row.segments):
        path = [*range(segment.prefix_start, segment.prefix_stop), *range(segment.start, segment.stop)]
        q = query[:, :, [i]] if at_readout else query[:, :, segment.start : segment.stop]
        shown = seen(len(path), q.shape[2], sliding_window)
        bias = torch.zeros(HEADS, *shown.shape, dtype=q.dtype).masked_fill(~shown, -math.inf)
        last = torch.full((HEADS,), -math.inf, dtype=q.dtype) if sink is None else sink
        bias = torch.cat([bias, last[:, None, None].expand(-1, q.shape[2], 1)], -1)
        k, v = (functional.pad(tensor[:, :, path], (0, 0, 0, 1)) for tensor in (key, value))
        with sdpa_kernel(SDPBackend.MATH):
            parts.append(
                functional.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scaling, enable_gqa=True)
            )
    return torch.cat(parts, 2).transpose(1, 2)


def with_gradients(function, row: PackedRow, inputs: list[Tensor | None], **kwargs) -> list[Tensor]:
    """Output, then the gradient of each input for a fixed mixture of the output."""
    out = function(row, *inputs, **kwargs)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64).to(out.dtype)
    return [out, *torch.autograd.grad((out * weights).sum(), [tensor for tensor in inputs if tensor is not None])]


def assert_same(row: PackedRow, inputs: list[Tensor | None], **kwargs) -> None:
    expected = with_gradients(one_by_one, row, inputs, **kwargs)
    for ours, theirs in zip(with_gradients(attend, row, inputs, **kwargs), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


# -- the numbers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_sinks", [False, True], ids=["plain", "sinks"])
@pytest.mark.parametrize("at_readout", [False, True], ids=["all tokens", "at read-out"])
@pytest.mark.parametrize("name", ROWS)
def test_output_and_gradients_equal_one_sequence_at_a_time(
    monkeypatch, name: str, at_readout: bool, with_sinks: bool
) -> None:
    """Every window there can be, in bands of three queries, so that even these rows have several."""
    monkeypatch.setattr(cascade, "_BAND_QUERIES", 3)
    row = ROWS[name]
    query, key, value, sink = tensors(row, at_readout=at_readout)
    inputs = [query, key, value, sink if with_sinks else None]
    for window in [None, *range(1, row.longest + 2)]:
        assert_same(row, inputs, at_readout=at_readout, sliding_window=window, scaling=0.4)


def test_bands_of_the_real_size() -> None:
    """Segments of several bands of 256 queries, with windows shorter than, about and over a band."""
    row = packed((300, [520, 20]), (0, [270]))
    inputs = [*tensors(row)[:3], None]
    for window in (10, 256, 500):
        assert_same(row, inputs, sliding_window=window)


@pytest.mark.parametrize(
    ("window", "softcap", "at_readout"),
    [(None, None, False), (3, None, False), (None, None, True), (3, None, True), (3, 2.0, False)],
    ids=["whole", "window", "at read-out", "window at read-out", "softcap"],
)
def test_gradients_by_finite_differences(
    monkeypatch, window: int | None, softcap: float | None, at_readout: bool
) -> None:
    """Grouped queries (two to a key head) and, where scores are not capped, sinks."""
    monkeypatch.setattr(cascade, "_BAND_QUERIES", 2)
    row = packed((3, [3, 1, 2]), (0, [1]))
    query, key, value, sink = tensors(row, at_readout=at_readout)
    inputs = [t[..., :3].detach().requires_grad_() for t in (query, key, value)] + ([sink] if softcap is None else [])

    def function(*given: Tensor) -> Tensor:
        return attend(row, *given, at_readout=at_readout, sliding_window=window, softcap=softcap)

    assert torch.autograd.gradcheck(function, inputs)


def test_scale_is_one_over_the_root_of_the_head_size_by_default() -> None:
    row = ROWS["K = 4"]
    inputs = tensors(row)[:3]
    torch.testing.assert_close(attend(row, *inputs), attend(row, *inputs, scaling=SIZE**-0.5), rtol=0, atol=0)


@pytest.mark.parametrize("value_size", [5, 12])
@pytest.mark.parametrize("at_readout", [False, True])
def test_latent_attention_has_values_of_another_size(value_size: int, at_readout: bool) -> None:
    row = ROWS["several trees"]
    query, key, value, _ = tensors(row, at_readout=at_readout, value_size=value_size)
    assert attend(row, query, key, value, at_readout=at_readout).shape[-1] == value_size
    assert_same(row, [query, key, value, None], at_readout=at_readout)


@pytest.mark.parametrize("at_readout", [False, True])
@pytest.mark.parametrize("window", [None, 1, 4])
def test_soft_capping_is_the_formula(window: int | None, at_readout: bool) -> None:
    """softmax(cap * tanh(q k' scale / cap)) v: with a cap of 1 scores of +-3 are bent, not only scaled."""
    row, cap, scale = ROWS["several trees"], 1.0, 0.4

    def formula(row: PackedRow, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        parts = []
        for i, segment in enumerate(row.segments):
            path = [*range(segment.prefix_start, segment.prefix_stop), *range(segment.start, segment.stop)]
            q = query[0, :, [i]] if at_readout else query[0, :, segment.start : segment.stop]
            for head in range(HEADS):
                k, v = (tensor[0, head // (HEADS // KEY_HEADS), path] for tensor in (key, value))
                scores = cap * torch.tanh(q[head] @ k.T * scale / cap)
                scores = scores.masked_fill(~seen(len(path), len(q[head]), window), -math.inf)
                parts.append(torch.softmax(scores, -1) @ v)
        heads = [torch.cat(parts[head::HEADS]) for head in range(HEADS)]
        return torch.stack(heads, 1)[None]

    inputs = tensors(row, at_readout=at_readout)[:3]
    ours = with_gradients(attend, row, inputs, at_readout=at_readout, sliding_window=window, scaling=scale, softcap=cap)
    for mine, theirs in zip(ours, with_gradients(formula, row, inputs), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("window", [None, 40])
def test_bfloat16_is_as_near_as_one_sequence_at_a_time(window: int | None) -> None:
    """Distance to float64 on the same (rounded) inputs, at most twice that of torch's own attention in bfloat16."""
    row = packed((60, [50, 30, 40, 10]), (20, [30, 5]))
    inputs = tensors(row, dtype=torch.bfloat16)[:3]
    wide = [tensor.detach().double().requires_grad_() for tensor in inputs]
    exact = with_gradients(one_by_one, row, wide, sliding_window=window)
    theirs = with_gradients(one_by_one, row, inputs, sliding_window=window)
    ours = with_gradients(attend, row, inputs, sliding_window=window)
    for mine, other, truth in zip(ours, theirs, exact, strict=True):
        assert mine.dtype == torch.bfloat16
        off, allowed = (float((tensor.detach() - truth.detach()).norm()) for tensor in (mine, other))
        assert 0 < off < 2 * allowed


@pytest.mark.parametrize("options", [{}, {"sliding_window": 4}, {"softcap": 5.0}], ids=["whole", "window", "softcap"])
@pytest.mark.parametrize("at_readout", [False, True])
def test_autocast_takes_all_three_to_its_dtype(at_readout: bool, options: dict) -> None:
    """Layers that normalise queries and keys hand them on in float32 beside bfloat16 values."""
    row = ROWS["several trees"]
    query, key, value, _ = tensors(row, at_readout=at_readout, dtype=torch.float32)
    mixed = [query, key, value.detach().bfloat16().requires_grad_()]
    with torch.autocast("cpu", torch.bfloat16):
        ours = with_gradients(attend, row, mixed, at_readout=at_readout, **options)
    low = [tensor.detach().bfloat16().requires_grad_() for tensor in mixed]
    expected = with_gradients(attend, row, low, at_readout=at_readout, **options)
    assert [tensor.dtype for tensor in ours] == [torch.bfloat16, torch.float32, torch.float32, torch.bfloat16]
    for mine, theirs in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine.bfloat16(), theirs, rtol=0, atol=0)


# -- what is refused, what is kept -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"packing_plan": None}, "did not hand on the packing plan"),
        ({"attention_mask": torch.zeros(1, 1, 1, 1)}, "mask"),
        ({"dropout": 0.1}, "dropout"),
        ({"position_bias": torch.zeros(1)}, "position bias"),
    ],
)
def test_what_cannot_be_exact_is_refused(changed: dict, message: str) -> None:
    row = ROWS["K = 2"]
    given = {"attention_mask": None, "packing_plan": AttentionPlan(row), **changed}
    with pytest.raises(RuntimeError, match=message):
        tree_attention(nn.Linear(1, 1), *tensors(row)[:3], **given)


def test_transformers_finds_it_and_makes_no_mask() -> None:
    assert ALL_ATTENTION_FUNCTIONS[ATTENTION_NAME] is tree_attention
    mask = ALL_MASK_ATTENTION_FUNCTIONS[ATTENTION_NAME]
    assert mask(batch_size=1, q_length=4, kv_length=4, local_size=2) is None


def test_keys_and_values_leave_a_layer_that_is_asked_for_them_alone() -> None:
    row = ROWS["K = 2"]
    query, key, value, _ = tensors(row)
    with pytest.raises(Captured) as captured:
        tree_attention(nn.Module(), query, key, value, None, packing_plan=CapturePlan(AttentionPlan(row)))
    assert captured.value.key is key
    assert captured.value.value is value


def test_the_plan_notes_the_layers_and_windows_it_meets() -> None:
    row, layers = ROWS["K = 2"], [nn.Module(), nn.Module()]
    plan = AttentionPlan(row)
    assert plan.readout.tolist() == list(row.readout)
    for layer, window in zip(layers, (None, 3), strict=True):
        tree_attention(layer, *tensors(row)[:3], None, sliding_window=window, packing_plan=plan)
    assert plan.layers_seen == [id(layer) for layer in layers]
    assert plan.windows_seen == {None, 3}
    assert plan.blocks(3) is plan.blocks(3)
    assert plan.blocks(row.longest) is plan.blocks()  # a window that hides nothing is none
    assert plan.blocks(row.longest - 1) != plan.blocks()


# -- the blocks ------------------------------------------------------------------------------------------------------

trees_drawn = st.lists(
    st.tuples(st.integers(0, 14), st.lists(st.integers(1, 14), min_size=1, max_size=4)), min_size=1, max_size=3
)


def defined(row: PackedRow, window: int | None, at_readout: bool) -> set[tuple[int, int]]:
    """A query sees the tokens of its own sequence up to itself, and of these the window's."""
    pairs = set()
    for i, segment in enumerate(row.segments):
        path = [*range(segment.prefix_start, segment.prefix_stop), *range(segment.start, segment.stop)]
        for at in range(segment.prefix_length, len(path)):
            if at_readout and path[at] != row.readout[i]:
                continue
            first = 0 if window is None else max(0, at - window + 1)
            pairs |= {(i if at_readout else path[at], j) for j in path[first : at + 1]}
    return pairs


def covered(block: Block) -> list[tuple[int, int]]:
    """The pairs one block computes; each query must see something, or its softmax is 0 / 0, and each key be seen."""
    pairs = []
    for q in range(block.query_start, block.query_stop):
        keys = []
        for k in range(block.key_start, block.key_stop):
            i, j = q - block.query_start, k - block.key_start
            hidden = block.causal and j > i
            if block.band is not None:
                hidden = hidden or not 0 <= block.band.offset + i - j < block.band.window
            if not hidden:
                keys.append((q, k))
        assert keys
        pairs += keys
    assert {k for _, k in pairs} == set(range(block.key_start, block.key_stop))
    return pairs


@settings(max_examples=150, deadline=None)
@given(trees_drawn, st.none() | st.integers(1, 30), st.booleans(), st.booleans(), st.sampled_from([1, 3, 5, 256]))
def test_each_pair_is_covered_exactly_once(trees, window, at_readout, through_plan, band_queries) -> None:
    row = packed(*trees)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cascade, "_BAND_QUERIES", band_queries)  # bands of few queries, so that rows have several
        if through_plan:
            blocks = AttentionPlan(row).blocks(window, at_readout=at_readout)
        else:
            blocks = (readout_blocks if at_readout else row_blocks)(row.segments, window)
    counts = Counter(pair for block in blocks for pair in covered(block))
    assert set(counts) == defined(row, window, at_readout)
    assert set(counts.values()) == {1}
    for block in blocks:  # masks stay small, however long the row
        if block.band is not None:
            assert block.query_stop - block.query_start <= band_queries
            assert block.key_stop - block.key_start < band_queries + window


@settings(max_examples=100, deadline=None)
@given(trees_drawn, st.none() | st.integers(1, 30), st.booleans())
def test_a_block_meets_only_new_queries_or_only_known_ones(trees, window, at_readout) -> None:
    """The cascade looks at a block's first query to see whether to write its result or to merge it."""
    met: set[int] = set()
    for block in AttentionPlan(packed(*trees)).blocks(window, at_readout=at_readout):
        queries = set(range(block.query_start, block.query_stop))
        assert queries <= met or not queries & met
        met |= queries


def test_a_prefix_is_met_by_all_its_completions_at_once() -> None:
    """Two trees, K = 4 and K = 2: one causal block for each sequence, one dense block for each tree."""
    row = packed((6, [5, 1, 4, 2]), (3, [2, 2]))
    assert len(row_blocks(row.segments)) == 6 + 2
    assert len(readout_blocks(row.segments)) == 6 + 2

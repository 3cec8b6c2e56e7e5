"""The cascade's blocks against the definition: every pair of query and key that may see each other, exactly once."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewardlab.modeling import tree_attention
from rewardlab.modeling.prefix_tree import PackedRow, lay_out, tree_of
from rewardlab.modeling.tree_attention import AttentionPlan, Block, readout_blocks, row_blocks

trees_drawn = st.lists(
    st.tuples(st.integers(0, 14), st.lists(st.integers(1, 14), min_size=1, max_size=4)), min_size=1, max_size=3
)


def packed(trees: list[tuple[int, list[int]]]) -> PackedRow:
    """A row of trees, each given as its prefix length and the lengths of its completions."""
    return lay_out(
        [tree_of([[0] * prefix_length + [1 + i] * own for i, own in enumerate(owns)]) for prefix_length, owns in trees]
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
    """The pairs one block computes; each of its queries must see something, or its softmax is 0 / 0."""
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
    return pairs


@settings(max_examples=150, deadline=None)
@given(trees_drawn, st.none() | st.integers(1, 30), st.booleans(), st.booleans(), st.sampled_from([1, 3, 5, 256]))
def test_each_pair_is_covered_exactly_once(trees, window, at_readout, through_plan, band_queries):
    row = packed(trees)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tree_attention, "_BAND_QUERIES", band_queries)  # bands of few queries, so that rows have several
        if through_plan:
            blocks = AttentionPlan(row).blocks(window, at_readout=at_readout)
        else:
            blocks = (readout_blocks if at_readout else row_blocks)(row.segments, window)
    counts = Counter(pair for block in blocks for pair in covered(block))
    assert set(counts) == defined(row, window, at_readout)
    assert set(counts.values()) == {1}


@settings(max_examples=100, deadline=None)
@given(trees_drawn, st.none() | st.integers(1, 30), st.booleans())
def test_a_block_meets_only_new_queries_or_only_known_ones(trees, window, at_readout):
    """The cascade looks at a block's first query to see whether to write its result or to merge it."""
    seen: set[int] = set()
    for block in AttentionPlan(packed(trees)).blocks(window, at_readout=at_readout):
        queries = set(range(block.query_start, block.query_stop))
        assert queries <= seen or not queries & seen
        seen |= queries

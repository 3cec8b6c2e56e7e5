"""Packing plans against their definitions: shared prefixes found, trees cut, rows filled and written down."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import chain, pairwise, takewhile

from hypothesis import example, given, settings
from hypothesis import strategies as st

from rewardlab.modeling.prefix_tree import (
    Segment,
    TokenCount,
    Tree,
    count_tokens,
    fill_rows,
    lay_out,
    share_prefixes,
    split_tree,
    tree_of,
    without_sharing,
)

Sequences = list[list[int]]


def shareable(sequences: Sequences) -> int:
    """The oracle for a prefix: columns of one id, less what leaves each sequence a token of its own."""
    alike = takewhile(lambda column: len(set(column)) == 1, zip(*sequences, strict=False))
    return min(len(list(alike)), min(map(len, sequences)) - 1)


def saved(trees: list[Tree]) -> int:
    """Tokens not computed: each prefix once instead of K times."""
    return sum(tree.prefix_length * (len(tree.sequences) - 1) for tree in trees)


def as_set(trees: list[Tree]) -> list[tuple[int, Sequences]]:
    """Trees without their indices, in an order of their own."""
    return sorted((tree.prefix_length, sorted(map(list, tree.sequences))) for tree in trees)


def divisions(items: list[int]) -> Iterator[list[list[int]]]:
    """Every division of some items into sets."""
    if not items:
        yield []
        return
    first, *rest = items
    for division in divisions(rest):
        yield [[first], *division]
        for i, part in enumerate(division):
            yield [*division[:i], [first, *part], *division[i + 1 :]]


@st.composite
def branching(draw: st.DrawFn, most: int = 6) -> Sequences:
    """Sequences that leave one another anywhere: each goes on from a beginning of one before it."""
    made: Sequences = []
    for _ in range(draw(st.integers(1, most))):
        start: list[int] = []
        if made:
            other = draw(st.sampled_from(made))
            start = other[: draw(st.integers(0, len(other)))]
        made.append((start + draw(st.lists(st.integers(0, 2), max_size=6))) or [0])
    return made


@st.composite
def prompts_and_completions(draw: st.DrawFn) -> list[Sequences]:
    """Groups as data has them: a template's head, prompts that begin differently, completions, some of them equal."""
    head = [7] * draw(st.integers(0, 4))
    groups = []
    for number in range(draw(st.integers(1, 5))):
        prompt = [*head, 100 + number, *draw(st.lists(st.integers(0, 1), max_size=5))]
        completions = draw(st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=5), min_size=1, max_size=4))
        groups.append([[*prompt, *completion] for completion in completions])
    return groups


# -- trees -----------------------------------------------------------------------------------------------------------


def test_a_tree_shares_all_that_leaves_each_sequence_a_token() -> None:
    assert tree_of([[5, 6, 7], [5, 6, 8, 9]]) == Tree(([5, 6, 7], [5, 6, 8, 9]), (0, 1), 2)
    assert tree_of([[5, 6, 7], [5, 6, 8, 9]], [4, 2]).indices == (4, 2)
    assert tree_of([[5, 6], [5, 6]]).prefix_length == 1  # equal sequences: the last token is each one's own
    assert tree_of([[5, 6], [5, 6, 7]]).prefix_length == 1  # one continues the other
    assert tree_of([[5], [5, 6]]).prefix_length == 0
    assert tree_of([[5, 6, 7]]).prefix_length == 2
    assert tree_of([[5, 6, 7], [5, 6, 8, 9]]).num_tokens == 2 + 1 + 2
    assert without_sharing([[5, 6], [5, 7]], [3, 1]) == [Tree(([5, 6],), (3,), 0), Tree(([5, 7],), (1,), 0)]


@given(branching())
def test_each_sequence_is_in_one_tree_under_its_own_number(sequences: Sequences) -> None:
    trees = share_prefixes(sequences)
    assert sorted(i for tree in trees for i in tree.indices) == list(range(len(sequences)))
    for tree in trees:
        assert list(tree.sequences) == [sequences[i] for i in tree.indices]
        assert tree.prefix_length == shareable(list(tree.sequences))


@given(branching(), st.randoms(use_true_random=False))
def test_trees_do_not_depend_on_the_order_of_the_sequences(sequences: Sequences, random: random.Random) -> None:
    shuffled = random.sample(sequences, len(sequences))
    assert as_set(share_prefixes(shuffled)) == as_set(share_prefixes(sequences))


@settings(max_examples=150)
@given(branching())
# Two singles that share a template's head with each other and with a pair are a tree beside the pair's, on whichever
# side of it they are sorted.
@example([[9, 1, 1, 1, 3], [9, 1, 1, 1, 4], [9, 5], [9, 6]])
@example([[9, 7, 7, 7, 3], [9, 7, 7, 7, 4], [9, 5], [9, 6]])
# The best trees are no stretches of the sorted order: the two singles stand on either side of the pair.
@example([[9, 5, 5, 5, 3], [9, 5, 5, 5, 4], [9, 1], [9, 8]])
# A sequence that ends where the others part leaves them less to share.
@example([[0], [0, 1], [0, 2]])
# The inner tree gives way to a tree between, which gives way to the outermost; then the inner one pays again.
@example([[2, 2, 1, 1, 2], [2, 2, 2, 2], [2, 2, 2, 2, 0, 0], [2, 2, 2, 2, 0, 0, 0, 2]])
@example([[2, 0], [2, 2], [2, *[1] * 5], [2, *[1] * 5, 0], [2, *[1] * 5, 2, 1, 2], [2, *[1] * 5, 2, 1, 1]])
def test_trees_save_the_most_there_is(sequences: Sequences) -> None:
    """Against all divisions of up to six sequences; hence also at least what the best two stretches would."""
    most = 0
    for division in divisions(list(range(len(sequences)))):
        parts = [[sequences[i] for i in part] for part in division]
        most = max(most, sum(shareable(part) * (len(part) - 1) for part in parts))
    assert saved(share_prefixes(sequences)) == most


@given(prompts_and_completions(), st.randoms(use_true_random=False))
def test_trees_are_never_worse_than_groups_by_prompt(groups: list[Sequences], random: random.Random) -> None:
    sequences = [sequence for group in groups for sequence in group]
    random.shuffle(sequences)
    assert saved(share_prefixes(sequences)) >= saved([tree_of(group) for group in groups])


def test_a_shared_head_does_not_cost_a_prompt_its_tree() -> None:
    """Three tokens of template head, two prompts of four more tokens, two completions each.

    One tree saves 3 tokens for each of three sequences, 9; a tree for each prompt saves 7 for each of two, 14.
    """
    head, prompts = [1, 1, 1], [[2] * 4, [3] * 4]
    sequences = [[*head, *prompt, own, 9] for own in (5, 6) for prompt in prompts]
    trees = share_prefixes(sequences)
    assert sorted((tree.prefix_length, sorted(tree.indices)) for tree in trees) == [(7, [0, 2]), (7, [1, 3])]


def test_sequences_with_nothing_in_common_share_nothing() -> None:
    assert share_prefixes([]) == []
    assert len(share_prefixes([[4, 5], [3, 5]])) == 2


# -- cutting and filling ---------------------------------------------------------------------------------------------


@given(branching(), st.integers(1, 40))
def test_parts_of_a_tree_keep_the_budget_and_the_prefix(sequences: Sequences, budget: int) -> None:
    tree = tree_of(sequences)
    parts = split_tree(tree, budget)
    assert [i for part in parts for i in part.indices] == list(tree.indices)  # each once, in their order
    assert [s for part in parts for s in part.sequences] == list(tree.sequences)
    for part in parts:
        assert part.prefix_length == tree.prefix_length
        assert part.num_tokens <= budget or len(part.sequences) == 1
    for part, following in pairwise(parts):  # no part ends earlier than it must
        assert part.num_tokens + len(following.sequences[0]) - tree.prefix_length > budget


def test_a_tree_that_fits_stays_whole() -> None:
    """A prefix of 3 and completions of 2, 2 and 1: 8 tokens; a budget of 7 leaves the last one out."""
    tree = tree_of([[1, 1, 1, 2, 2], [1, 1, 1, 3, 3], [1, 1, 1, 4]])
    assert split_tree(tree, 8) == [tree]
    assert [part.indices for part in split_tree(tree, 7)] == [(0, 1), (2,)]
    assert [part.indices for part in split_tree(tree, 2)] == [(0,), (1,), (2,)]  # the prefix alone is over the budget


@given(st.lists(st.integers(1, 30), max_size=25), st.integers(1, 40))
def test_rows_keep_the_budget_and_are_balanced(sizes: list[int], budget: int) -> None:
    rows = fill_rows(sizes, budget)
    assert sorted(thing for row in rows for thing in row) == list(range(len(sizes)))
    loads = [sum(sizes[thing] for thing in row) for row in rows]
    assert loads == sorted(loads, reverse=True)
    assert all(rows)
    assert all(load <= budget or len(row) == 1 for load, row in zip(loads, rows, strict=True))
    # What is over the budget fills one row, no more: there is no bound on the rows from below but this.
    fewest = -(-sum(min(size, budget) for size in sizes) // budget)
    if len(rows) > fewest:  # a row beyond was opened only because two would not go into one
        assert len(rows) < 2 or loads[-1] + loads[-2] > budget
    elif max(sizes, default=0) <= budget and rows:
        assert loads[0] - loads[-1] <= max(sizes)


def test_rows_are_filled_as_by_hand() -> None:
    """Largest first, each to the emptiest row: 6 | 5, then 5 to the 5, then 4 to the 6."""
    assert fill_rows([5, 4, 6, 5], 10) == [[2, 1], [0, 3]]
    assert fill_rows([3, 3, 3, 3], 6) == [[0, 2], [1, 3]]
    assert fill_rows([100, 1, 1, 1], 10) == [[0], [1, 2, 3]]  # what is over the budget opens no rows for the others
    assert fill_rows([], 10) == []


# -- rows ------------------------------------------------------------------------------------------------------------


@given(prompts_and_completions(), st.booleans())
def test_a_row_holds_each_sequence_exactly(groups: list[Sequences], shared: bool) -> None:
    """Prefix and segment of each score, put together, are its sequence, at positions 0, 1, ..."""
    sequences = [sequence for group in groups for sequence in group]
    trees = share_prefixes(sequences) if shared else without_sharing(sequences)
    row = lay_out(trees)
    assert row.num_tokens == len(row.position_ids) == sum(tree.num_tokens for tree in trees)
    assert row.num_tokens == sum(map(len, sequences)) - saved(trees)
    assert row.longest == max(map(len, sequences))
    assert sorted(row.indices) == list(range(len(sequences)))
    end = 0
    for segment, readout, index in zip(row.segments, row.readout, row.indices, strict=True):
        assert segment.start == end < segment.stop  # one after the other, none empty, no gap
        end = segment.stop
        assert segment.prefix_stop <= segment.start
        path = [*range(segment.prefix_start, segment.prefix_stop), *range(segment.start, segment.stop)]
        assert [row.input_ids[at] for at in path] == sequences[index]
        assert [row.position_ids[at] for at in path] == list(range(len(path)))
        assert readout == path[-1]
    assert end == row.num_tokens


def test_a_row_as_by_hand() -> None:
    """The longest completion follows its prefix directly; the other continues at the position after the prefix."""
    row = lay_out([tree_of([[1, 2, 3], [1, 2, 4, 5]]), Tree(([8, 9],), (2,), 0)])
    assert row.input_ids == [1, 2, 4, 5, 3, 8, 9]
    assert row.position_ids == [0, 1, 2, 3, 2, 0, 1]
    assert row.segments == (Segment(0, 4, 0, 0), Segment(4, 5, 0, 2), Segment(5, 7, 5, 5))
    assert [segment.prefix_length for segment in row.segments] == [0, 2, 0]
    assert row.readout == (3, 4, 6)
    assert row.indices == (1, 0, 2)


@given(prompts_and_completions(), st.data())
def test_a_row_is_read_where_it_is_asked_for(groups: list[Sequences], data: st.DataObject) -> None:
    """Each read-out is the token that stands at the position asked for on the way through its prefix and segment.

    Any positions in any order, the same one twice, each row of trees with numbers of their own.
    """
    sequences = [sequence for group in groups for sequence in group]
    positions = [data.draw(st.lists(st.integers(0, len(s) - 1), min_size=1, max_size=4)) for s in sequences]
    row = lay_out(share_prefixes(sequences), positions)
    asked = [(index, at) for index in row.indices for at in positions[index]]
    segment_of = dict(zip(row.indices, row.segments, strict=True))
    for (index, at), readout in zip(asked, row.readout, strict=True):
        segment = segment_of[index]
        path = list(chain(range(segment.prefix_start, segment.prefix_stop), range(segment.start, segment.stop)))
        assert readout == path[at]
    assert row.reads_ends == ([at for _, at in asked] == [len(sequences[i]) - 1 for i in row.indices])


def test_read_outs_as_by_hand() -> None:
    """Position 1 is in the prefix that both share; the second sequence is laid out first, being the longer."""
    row = lay_out([tree_of([[1, 2, 3], [1, 2, 4, 5]], [0, 1])], [(1, 2), (1, 3)])
    assert row.input_ids == [1, 2, 4, 5, 3]
    assert row.indices == (1, 0)
    assert row.readout == (1, 3, 1, 4)
    assert not row.reads_ends
    assert lay_out([tree_of([[1, 2, 3], [1, 2, 4, 5]], [0, 1])]).reads_ends


# -- counting --------------------------------------------------------------------------------------------------------


def test_counts_as_by_hand() -> None:
    """A prefix of 4 with completions of 3, 2 and 1, and a single of 5, at a budget of 9.

    Computed once each: 4 + 3 + 2 + 1 = 10, and 5. At 9 tokens the tree is cut after its second completion, so the
    prefix counts twice: 9 + 5, and 5. One by one: 7 + 6 + 5 + 5. Padded: four sequences of 7.
    """
    prefix = [1] * 4
    groups = [[[*prefix, 2, 2, 2], [*prefix, 3, 3], [*prefix, 4]], [[5] * 5]]
    count = count_tokens(groups, budget=9)
    assert count == TokenCount(computed=19, unique=15, unpacked=23, padded=28)
    assert count_tokens(groups, budget=10) == TokenCount(computed=15, unique=15, unpacked=23, padded=28)
    assert count + TokenCount(1, 2, 3, 4) == TokenCount(20, 17, 26, 32)
    assert "15 tokens" in str(count_tokens(groups, budget=10))
    assert "1.53 times fewer than one by one" in str(count_tokens(groups, budget=10))  # 23 / 15
    assert "1.87 times fewer than padded" in str(count_tokens(groups, budget=10))  # 28 / 15
    assert count_tokens([], budget=10) == TokenCount(0, 0, 0, 0)

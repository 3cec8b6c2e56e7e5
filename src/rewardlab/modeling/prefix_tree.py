"""Sequences that share a prefix -> packed rows in which the prefix stands once: the plan, without any model.

Completions of one prompt repeat its tokens. A :class:`Tree` is a prefix and what follows it, and trees are laid out one
after another in a single row without padding::

    [prefix A | completion A0 | completion A1 | completion A2 | prefix B | completion B0 | ...]

Position ids start again with each completion where the prefix left off, and each completion attends to itself and to
its prefix alone, so that every token has the hidden states it would have in a sequence of its own, and each is computed
once. The head is read at the last token of each sequence, or wherever it is asked for: a position within the prefix is
read there for each sequence that asks.

:func:`share_prefixes` finds the trees in sequences that nobody has grouped, :func:`split_tree` cuts one that is over
the token budget (its prefix is then computed once per part), :func:`fill_rows` divides trees among rows,
:func:`lay_out` writes a row down. How attention walks over a row is :mod:`rewardlab.modeling.tree_attention`'s.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from rewardlab.data.encoding import common_prefix_length

Ids = Sequence[int]


@dataclass(frozen=True, slots=True)
class Tree:
    """Sequences with a common prefix.

    Attributes:
        sequences: K >= 1 whole sequences, prefix included.
        indices: The caller's number of each sequence.
        prefix_length: How many leading ids are shared, and computed once; at most the shortest length - 1, so that
            each sequence keeps a token of its own.
    """

    sequences: tuple[Ids, ...]
    indices: tuple[int, ...]
    prefix_length: int

    @property
    def num_tokens(self) -> int:
        """Tokens computed: the prefix once, then each sequence's own."""
        return self.prefix_length + sum(len(sequence) - self.prefix_length for sequence in self.sequences)


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a packed row whose tokens attend to one another, and to the prefix they continue.

    The first segment of a tree holds the prefix and its first completion, so its own prefix range is empty.

    Attributes:
        start: First token.
        stop: One past the last.
        prefix_start: First token of the prefix.
        prefix_stop: One past its last; equal to ``prefix_start`` where there is none.
    """

    start: int
    stop: int
    prefix_start: int
    prefix_stop: int

    @property
    def prefix_length(self) -> int:
        """Tokens of the prefix."""
        return self.prefix_stop - self.prefix_start


@dataclass(frozen=True, slots=True)
class PackedRow:
    """One row of packed trees.

    Attributes:
        input_ids: Ids, T of them.
        position_ids: Position of each token in its own sequence, counted from 0.
        segments: What attends to what, in row order, covering the row; one for each sequence.
        readout: Where the head is read: for the first segment's sequence, for the second's, and so on.
        indices: The caller's number of each segment's sequence.
    """

    input_ids: list[int]
    position_ids: list[int]
    segments: tuple[Segment, ...]
    readout: tuple[int, ...]
    indices: tuple[int, ...]

    @property
    def num_tokens(self) -> int:
        """T."""
        return len(self.input_ids)

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence, its prefix included."""
        return 1 + max(self.position_ids)

    @property
    def reads_ends(self) -> bool:
        """Whether each sequence is read at its last token alone."""
        return self.readout == tuple(segment.stop - 1 for segment in self.segments)


def tree_of(sequences: Sequence[Ids], indices: Sequence[int] | None = None) -> Tree:
    """The tree of some sequences, sharing all they have in common.

    Args:
        sequences: One or more non-empty id sequences.
        indices: The caller's number of each; by default 0, 1, ...
    """
    chosen = tuple(range(len(sequences))) if indices is None else tuple(indices)
    return Tree(tuple(sequences), chosen, common_prefix_length(sequences))


def without_sharing(sequences: Sequence[Ids], indices: Sequence[int] | None = None) -> list[Tree]:
    """Each sequence as a tree of its own: packed, but nothing shared."""
    numbers = range(len(sequences)) if indices is None else indices
    return [Tree((sequence,), (index,), 0) for sequence, index in zip(sequences, numbers, strict=True)]


def share_prefixes(sequences: Sequence[Ids]) -> list[Tree]:
    """Find the trees in a flat list of sequences: those that leave the fewest tokens to compute.

    Sorted, sequences that share most stand side by side, and what they share forks like a trie. Any fork could be
    where a tree's prefix ends. Whether it should be depends on the next tree above, which would take the sequences in
    at a shorter prefix: forks find from the leaves up how short that must be, and it is looked up from the root down.

    Args:
        sequences: Non-empty id sequences, in any order, equal ones allowed.

    Returns:
        Trees that hold each sequence once; equal for any order of the sequences, but for their ``indices``.
    """
    order = sorted(range(len(sequences)), key=lambda i: tuple(sequences[i]))
    shared = [common_prefix_length((sequences[a], sequences[b])) for a, b in pairwise(order)]
    path, forks = [_Fork(0)], []  # forks open at this place of the order; those done, each after all below it
    for index, border in zip(order, [*shared, 0], strict=False):
        if path[-1].depth < border:
            path.append(_Fork(border, path[-1]))
        path[-1].members.append(index)
        path[-1].joins.append((0.0, 1))
        while path[-1].depth > border:
            fork = path.pop()
            if path[-1].depth < border:
                path.append(_Fork(border, path[-1]))
            fork.above = path[-1]
            fork.above.joins += fork.settle()
            forks.append(fork)
    root = path[0]
    for fork in reversed(forks):
        assert fork.above is not None
        if fork.above.tree.depth >= fork.pays_below:
            fork.tree = fork.above.tree
            fork.tree.members += fork.members
            fork.members = []
    members = [fork.members for fork in forks if fork.members] + [[alone] for alone in root.members]
    return [tree_of([sequences[i] for i in numbers], numbers) for numbers in members]


class _Fork:
    """A place where sequences part, and where a tree's prefix could end.

    Attributes:
        depth: Tokens up to here.
        above: The next fork towards the start of the sequences; None for that start.
        tree: The fork whose tree has what parts here: this one, or one above.
        members: Sequences of this fork's tree.
        joins: What would leave its own trees for one that ends here: ``count`` sequences, if ``depth`` is over ``d``,
            each saving ``depth - d`` tokens by it; pairs (d, count).
        pays_below: This fork has a tree of its own if the next tree above has a shorter prefix than this.
    """

    def __init__(self, depth: int, above: _Fork | None = None) -> None:
        self.depth = depth
        self.above = above
        self.tree = self
        self.members: list[int] = []
        self.joins: list[tuple[float, int]] = []
        self.pays_below = 0.0

    def settle(self) -> list[tuple[float, int]]:
        """Find ``pays_below``; return what joins a tree above.

        A tree here gains what its sequences save by joining it, less the one prefix that must be computed. Joining a
        tree above instead gains count * (its depth - d) each; ``pays_below`` is its depth at which both are equal.
        """
        joins = sorted(join for join in self.joins if join[0] < self.depth)
        gain = sum(count * (self.depth - d) for d, count in joins) - self.depth
        if gain <= 0:
            return joins
        total, weight = 0, 0.0
        for d, count in joins:
            if total * d - weight >= gain:
                break
            total, weight = total + count, weight + count * d
        self.pays_below = (gain + weight) / total
        return [(self.pays_below, total)] + [join for join in joins if join[0] >= self.pays_below]


def split_tree(tree: Tree, budget: int) -> list[Tree]:
    """Cut a tree into parts of at most ``budget`` tokens, each with the prefix; one completion at least per part.

    A part that is still over the budget is a single sequence, which cannot be cut.
    """
    if tree.num_tokens <= budget or len(tree.sequences) == 1:
        return [tree]
    parts: list[list[int]] = []
    left = 0
    for member, sequence in enumerate(tree.sequences):
        own = len(sequence) - tree.prefix_length
        if not parts or own > left:
            parts.append([])
            left = budget - tree.prefix_length
        parts[-1].append(member)
        left -= own
    return [
        Tree(tuple(tree.sequences[m] for m in part), tuple(tree.indices[m] for m in part), tree.prefix_length)
        for part in parts
    ]


def fill_rows(sizes: Sequence[int], budget: int) -> list[list[int]]:
    """Divide things of known size among about as few rows as the budget allows, of about equal size, the fullest first.

    Equal rows keep matrices large; the fullest comes first so that what does not fit in memory is met at once.

    Args:
        sizes: Tokens of each thing; one over the budget gets a row of its own.
        budget: Most tokens in a row.

    Returns:
        For each row, the numbers of what it holds.
    """
    num_rows = max(1, -(-sum(min(size, budget) for size in sizes) // budget))
    rows: list[list[int]] = [[] for _ in range(num_rows)]
    loads = [(0, row) for row in range(num_rows)]  # a heap: the emptiest row first
    for thing in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        load, row = loads[0]
        if load and load + sizes[thing] > budget:  # it does not fit the emptiest, so it fits none
            heapq.heappush(loads, (sizes[thing], len(rows)))
            rows.append([thing])
        else:
            heapq.heapreplace(loads, (load + sizes[thing], row))
            rows[row].append(thing)
    return [rows[row] for load, row in sorted(loads, key=lambda item: (-item[0], item[1])) if load]


def lay_out(trees: Sequence[Tree], readouts: Sequence[Sequence[int]] | None = None) -> PackedRow:
    """Write trees into one row.

    Of each tree the longest completion follows the prefix directly: those tokens need no second look at the prefix.

    Args:
        trees: The trees of the row.
        readouts: Positions at which a sequence is read, looked up by the caller's number of the sequence; by default
            the last of each.
    """
    ids: list[int] = []
    positions: list[int] = []
    segments: list[Segment] = []
    readout: list[int] = []
    indices: list[int] = []
    for tree in trees:
        prefix_start, cut = len(ids), tree.prefix_length
        order = sorted(range(len(tree.sequences)), key=lambda member: -len(tree.sequences[member]))
        for place, member in enumerate(order):
            sequence = tree.sequences[member]
            skipped = cut if place else 0
            start = len(ids)
            ids.extend(sequence[skipped:])
            positions.extend(range(skipped, len(sequence)))
            segments.append(Segment(start, len(ids), prefix_start, prefix_start + skipped))
            number = tree.indices[member]
            read = (len(sequence) - 1,) if readouts is None else readouts[number]
            readout.extend(prefix_start + at if at < skipped else start + at - skipped for at in read)
            indices.append(number)
    return PackedRow(ids, positions, tuple(segments), tuple(readout), tuple(indices))


@dataclass(frozen=True, slots=True)
class TokenCount:
    """What some forwards compute, and what other layouts would.

    Attributes:
        computed: Tokens in the packed rows; a prefix that is split counts each time.
        unique: Tokens if every prefix were computed exactly once.
        unpacked: Tokens of all sequences, prefixes repeated.
        padded: Tokens of one padded batch per step, as other trainers compute it.
    """

    computed: int
    unique: int
    unpacked: int
    padded: int

    def __add__(self, other: TokenCount) -> TokenCount:
        """The count of both."""
        return TokenCount(
            self.computed + other.computed,
            self.unique + other.unique,
            self.unpacked + other.unpacked,
            self.padded + other.padded,
        )

    def __str__(self) -> str:
        """As the training log says it."""
        computed = max(1, self.computed)
        return (
            f"{self.computed:,} tokens to compute, {self.unpacked / computed:.2f} times fewer than one by one and "
            f"{self.padded / computed:.2f} times fewer than padded to the batch"
        )


def count_tokens(groups: Sequence[Sequence[Ids]], budget: int) -> TokenCount:
    """Dry run: what one step over some groups computes.

    Args:
        groups: Sequences of each group of the step.
        budget: Most tokens in a row.
    """
    trees = [tree_of(sequences) for sequences in groups]
    lengths = [len(sequence) for sequences in groups for sequence in sequences]
    return TokenCount(
        computed=sum(part.num_tokens for tree in trees for part in split_tree(tree, budget)),
        unique=sum(tree.num_tokens for tree in trees),
        unpacked=sum(lengths),
        padded=len(lengths) * max(lengths, default=0),
    )

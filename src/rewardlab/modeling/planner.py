"""The planner: which sequences go into which forward of the model, in each of the four layouts of the engine.

This file knows ids, the token budget and what a model's forward is given; it computes nothing. What layouts are, and
what runs the forwards, is :mod:`rewardlab.modeling.engine`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Literal, TypeAlias

import torch
from torch import Tensor

from rewardlab.errors import RewardLabError
from rewardlab.modeling.forward import input_names, length_buckets, pad
from rewardlab.modeling.packed_forward import row_inputs
from rewardlab.modeling.prefix_tree import (
    Ids,
    PackedRow,
    Tree,
    fill_rows,
    lay_out,
    share_prefixes,
    split_tree,
    tree_of,
    without_sharing,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Layout: TypeAlias = Literal["tree", "packed", "pruned", "padded"]
Positions: TypeAlias = Sequence[int]


def default_tokens_per_batch(device: torch.device) -> int:
    """Token budget of one forward: enough to keep the device busy, few enough for its caches and memory.

    On a CPU 2,048 and 4,096 were alike and 1,024 slower (docs/log.md). For GPUs nothing has been measured. 8,192 tokens
    of a 7B model trained whole in bfloat16 are computed to need 62 GB of activations and 13 GB of autocast's copies of
    weights, with gradient checkpointing 8 GB and those (docs/memory.md).
    """
    return 8192 if device.type == "cuda" else 4096


@dataclass(frozen=True, slots=True)
class Forward:
    """One call of the model.

    Attributes:
        inputs: Tensors of a padded batch, shape (sequences, width), or of a packed row, (1, T); on the CPU.
        indices: The flat number of the read-out that each row of output is.
        row: The packed row; None for padded batches.
        places: Of a padded batch, the row and column of each read-out; None where the model reads the token of its
            choice.
    """

    inputs: dict[str, Tensor]
    indices: tuple[int, ...]
    row: PackedRow | None = None
    places: tuple[tuple[int, int], ...] | None = None

    @property
    def num_tokens(self) -> int:
        """Tokens the model computes, padding included."""
        return self.inputs["input_ids"].numel()


@dataclass(frozen=True, slots=True)
class Part:
    """Whole groups whose loss can be computed together, and the forwards that give their scores.

    Attributes:
        groups: Which groups, by number.
        forwards: Usually one; several for a single group over the token budget. Their ``indices`` count the
            read-outs of ``groups``, in that order.
    """

    groups: tuple[int, ...]
    forwards: tuple[Forward, ...]


class Readouts:
    """Where some sequences are read.

    Args:
        sequences: Ids of each.
        positions: Positions in each; None where each is read once, at its last token.

    Attributes:
        positions: As given.
        starts: Flat number of each sequence's first read-out; then of one that would follow.

    Raises:
        ValueError: A sequence is empty, is read nowhere, or where it has no token.
    """

    def __init__(self, sequences: Sequence[Ids], positions: Sequence[Positions] | None) -> None:
        for number, sequence in enumerate(sequences):
            if not len(sequence):
                raise ValueError(f"sequence {number} has no ids: there is no token to read a score at")
        self.positions = positions
        self.starts: Sequence[int] = range(len(sequences) + 1)
        if positions is None:
            return
        if len(positions) != len(sequences):
            raise ValueError(f"read-outs of {len(positions)} sequences for {len(sequences)} sequences")
        for number, (sequence, own) in enumerate(zip(sequences, positions, strict=True)):
            if not len(own) or min(own) < 0 or max(own) >= len(sequence):
                raise ValueError(f"sequence {number} has {len(sequence)} ids and cannot be read at {list(own)}")
        self.starts = list(accumulate(map(len, positions), initial=0))

    def numbers(self, sequences: Iterable[int]) -> tuple[int, ...]:
        """Flat numbers of the read-outs of some of the sequences."""
        return tuple(number for i in sequences for number in range(self.starts[i], self.starts[i + 1]))


class Planner:
    """Divides sequences among forwards, without looking at the model again; small enough to travel to workers.

    Args:
        model: A model with a head whose ``config.pad_token_id`` is set.
        layout: One that suits the model (:func:`rewardlab.modeling.parity.choose_layout`).
        tokens_per_batch: Most tokens in one forward; by default what suits the device. A sequence longer than that
            goes alone.

    Attributes:
        layout: As given.
        tokens_per_batch: As given, or the default; less after :meth:`divided`.
    """

    def __init__(self, model: PreTrainedModel, layout: Layout = "padded", tokens_per_batch: int | None = None) -> None:
        self.layout: Layout = layout
        self.tokens_per_batch = tokens_per_batch or default_tokens_per_batch(model.device)
        self._pad_id: int = model.config.get_text_config().pad_token_id
        self._input_names = input_names(model)

    @property
    def is_packed(self) -> bool:
        """Whether sequences are packed into rows rather than padded."""
        return self.layout in ("tree", "packed")

    def forwards(self, sequences: Sequence[Ids], readouts: Sequence[Positions] | None = None) -> list[Forward]:
        """The forwards that read some sequences, largest first; prefixes are found in the sequences themselves.

        Args:
            sequences: Ids of each sequence.
            readouts: Positions in each sequence at which the head is read, for models that give something at every
                token; by default each is read once, where a ``*ForSequenceClassification`` model is.

        Raises:
            ValueError: A sequence is empty, or its read-outs are.
        """
        read = Readouts(sequences, readouts)
        if not self.is_packed:
            buckets = length_buckets([len(s) for s in sequences], self.tokens_per_batch)
            return [self._padded(sequences, read, bucket) for bucket in buckets]
        sequences = self._until_readout(sequences, readouts)
        trees = self._split(share_prefixes(sequences) if self.layout == "tree" else without_sharing(sequences))
        return self._rows_of(trees, read)

    def parts(
        self, groups: Sequence[Sequence[Ids]], readouts: Sequence[Sequence[Positions]] | None = None
    ) -> list[Part]:
        """The forwards of one micro-batch, such that each group's completions stay together.

        Args:
            groups: Sequences of each group. Trees are the groups; nothing is shared between groups.
            readouts: As :meth:`forwards`, for each sequence of each group.

        Returns:
            Parts that hold each group once: whole groups in one forward up to the token budget, and each group that
            is over the budget in a part of several forwards.

        Raises:
            ValueError: A sequence is empty, or its read-outs are.
        """
        everything = range(len(groups))
        _readouts_of(groups, readouts, everything)  # refuses by the number in all groups, before anything is planned
        if not self.is_packed:
            return self._padded_parts(groups, readouts)
        forest = [self._trees_of(groups[i], None if readouts is None else readouts[i]) for i in everything]
        sizes = [sum(tree.num_tokens for tree in trees) for trees in forest]
        parts = []
        for i, size in enumerate(sizes):  # the largest first: what does not fit in memory is met at once
            if size > self.tokens_per_batch:
                read = _readouts_of(groups, readouts, [i])
                parts.append(Part((i,), tuple(self._rows_of(self._split(forest[i]), read))))
        fitting = [i for i, size in enumerate(sizes) if size <= self.tokens_per_batch]
        for row in fill_rows([sizes[i] for i in fitting], self.tokens_per_batch):
            members = [fitting[i] for i in row]
            read = _readouts_of(groups, readouts, members)
            parts.append(Part(tuple(members), (self._packed(_renumbered([forest[m] for m in members]), read),)))
        return parts

    def divided(
        self, forward: Forward, sequences: Sequence[Ids], readouts: Sequence[Positions] | None = None
    ) -> list[Forward]:
        """One forward as several, of half its tokens at most; from now on no forward is planned with more.

        Args:
            forward: Of :meth:`forwards`; there is not the memory for it.
            sequences: As they were given there.
            readouts: Likewise.

        Raises:
            RewardLabError: It holds one sequence, which cannot be divided.
        """
        read = Readouts(sequences, readouts)
        members = sorted({bisect_right(read.starts, number) - 1 for number in forward.indices})
        if len(members) == 1:
            raise RewardLabError(
                f"there is not the memory for a sequence of {forward.num_tokens:,} tokens by itself",
                hint="cut what is longer (max_length), compute in bfloat16 (dtype), or take a device with more memory",
            )
        self.tokens_per_batch = min(self.tokens_per_batch, forward.num_tokens // 2)
        numbers = read.numbers(members)
        parts = self.forwards([sequences[i] for i in members], readouts and [readouts[i] for i in members])
        return [replace(part, indices=tuple(numbers[index] for index in part.indices)) for part in parts]

    def _padded_parts(
        self, groups: Sequence[Sequence[Ids]], readouts: Sequence[Sequence[Positions]] | None
    ) -> list[Part]:
        parts = []
        widths = [max(len(sequence) for sequence in group) for group in groups]
        for bucket in length_buckets(widths, self.tokens_per_batch, [len(group) for group in groups]):
            sequences = [sequence for member in bucket for sequence in groups[member]]
            read = _readouts_of(groups, readouts, bucket)
            inner = length_buckets([len(s) for s in sequences], self.tokens_per_batch)
            fits = widths[bucket[0]] * len(sequences) <= self.tokens_per_batch
            forwards = [range(len(sequences))] if fits else inner
            parts.append(Part(tuple(bucket), tuple(self._padded(sequences, read, list(f)) for f in forwards)))
        return parts

    def _trees_of(self, group: Sequence[Ids], readouts: Sequence[Positions] | None) -> list[Tree]:
        sequences = self._until_readout(group, readouts)
        return [tree_of(sequences)] if self.layout == "tree" else without_sharing(sequences)

    def _split(self, trees: Sequence[Tree]) -> list[Tree]:
        return [part for tree in trees for part in split_tree(tree, self.tokens_per_batch)]

    def _until_readout(self, sequences: Sequence[Ids], readouts: Sequence[Positions] | None) -> list[Ids]:
        """Sequences up to the last token that is read: what follows cannot change it.

        By default that is the token which transformers reads: the last that is not padding. Only models of others have
        a padding id that also ends sequences.
        """
        if readouts is not None:
            return [sequence[: max(own) + 1] for sequence, own in zip(sequences, readouts, strict=True)]
        return [self._without_padding(sequence) for sequence in sequences]

    def _without_padding(self, sequence: Ids) -> Ids:
        stop = len(sequence)
        while stop > 1 and sequence[stop - 1] == self._pad_id:
            stop -= 1
        return sequence[:stop]

    def _rows_of(self, trees: Sequence[Tree], read: Readouts) -> list[Forward]:
        rows = fill_rows([tree.num_tokens for tree in trees], self.tokens_per_batch)
        return [self._packed([trees[i] for i in row], read) for row in rows]

    def _packed(self, trees: Sequence[Tree], read: Readouts) -> Forward:
        row = lay_out(trees, read.positions)
        return Forward(row_inputs(row), read.numbers(row.indices), row)

    def _padded(self, sequences: Sequence[Ids], read: Readouts, bucket: Sequence[int]) -> Forward:
        batch = pad([sequences[i] for i in bucket], self._pad_id)
        inputs = {name: batch[name] for name in self._input_names}
        if read.positions is None:
            return Forward(inputs, read.numbers(bucket))
        places = tuple((row, column) for row, i in enumerate(bucket) for column in read.positions[i])
        return Forward(inputs, read.numbers(bucket), places=places)


def _readouts_of(
    groups: Sequence[Sequence[Ids]], readouts: Sequence[Sequence[Positions]] | None, members: Sequence[int]
) -> Readouts:
    """Where the sequences of some of the groups are read, numbered through."""
    sequences = [sequence for i in members for sequence in groups[i]]
    if readouts is None:
        return Readouts(sequences, None)
    if len(readouts) != len(groups) or any(len(readouts[i]) != len(groups[i]) for i in members):
        raise ValueError("there must be read-outs for each sequence of each group")
    return Readouts(sequences, [own for i in members for own in readouts[i]])


def _renumbered(forest: Sequence[Sequence[Tree]]) -> list[Tree]:
    """The trees of some groups, their sequences numbered through."""
    trees: list[Tree] = []
    first = 0
    for group in forest:
        for tree in group:
            trees.append(Tree(tree.sequences, tuple(first + i for i in tree.indices), tree.prefix_length))
        first += sum(len(tree.sequences) for tree in group)
    return trees

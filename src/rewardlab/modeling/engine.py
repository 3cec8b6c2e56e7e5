"""The engine: sequences in, what the head gives for them out, in one of four layouts of the same computation.

=========  ===========================================================================================
layout     one forward holds
=========  ===========================================================================================
tree       packed trees: a prefix shared by completions is computed once (decoders)
packed     packed sequences: no padding, nothing shared (decoders)
pruned     sequences of like length, padded; the last layer runs at the first token alone (encoders)
padded     sequences of like length, padded: transformers' own forward, with nothing of ours inside
=========  ===========================================================================================

A *read-out* is one row of the head's output: the score of a sequence, or, of a model with a token or language modelling
head, what it gives at one position. Read-outs are numbered flat, sequence after sequence.

All four layouts give the same numbers and gradients; which of them a model can have is
:mod:`rewardlab.modeling.parity`'s to say. The token budget only splits forwards: it changes no score, and no
gradient, for a group whose completions do not fit into one forward is done in two passes
(:class:`rewardlab.training.trainer.RewardTrainer`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from rewardlab.errors import CheckpointError
from rewardlab.modeling.encoder_pruning import FirstRow, enable_encoder_pruning
from rewardlab.modeling.forward import input_names, length_buckets, pad
from rewardlab.modeling.head import head_name
from rewardlab.modeling.packed_forward import enable_packing, row_inputs
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
from rewardlab.modeling.tree_attention import AttentionPlan

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Layout: TypeAlias = Literal["tree", "packed", "pruned", "padded"]
Positions: TypeAlias = Sequence[int]

_LOCKS: WeakKeyDictionary[nn.Module, threading.Lock] = WeakKeyDictionary()
_LOCKS_LOCK = threading.Lock()


def default_tokens_per_batch(device: torch.device) -> int:
    """Token budget of one forward: enough to keep the device busy, few enough for its caches and memory.

    On a CPU 2,048 and 4,096 were alike and 1,024 slower (docs/log.md). For GPUs nothing has been measured: 8,192 tokens
    of a 7B model, without gradient checkpointing, need about 36 GB of activations in bfloat16.
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


class _Readouts:
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
        tokens_per_batch: As given, or the default.
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
        read = _Readouts(sequences, readouts)
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

    def _rows_of(self, trees: Sequence[Tree], read: _Readouts) -> list[Forward]:
        rows = fill_rows([tree.num_tokens for tree in trees], self.tokens_per_batch)
        return [self._packed([trees[i] for i in row], read) for row in rows]

    def _packed(self, trees: Sequence[Tree], read: _Readouts) -> Forward:
        row = lay_out(trees, read.positions)
        return Forward(row_inputs(row), read.numbers(row.indices), row)

    def _padded(self, sequences: Sequence[Ids], read: _Readouts, bucket: Sequence[int]) -> Forward:
        batch = pad([sequences[i] for i in bucket], self._pad_id)
        inputs = {name: batch[name] for name in self._input_names}
        if read.positions is None:
            return Forward(inputs, read.numbers(bucket))
        places = tuple((row, column) for row, i in enumerate(bucket) for column in read.positions[i])
        return Forward(inputs, read.numbers(bucket), places=places)


class Engine:
    """Runs sequences through one model in one layout.

    Args:
        model: As :class:`Planner`.
        layout: As :class:`Planner`.
        tokens_per_batch: As :class:`Planner`.

    Attributes:
        model: As given; its forward has been taught the layout.
        planner: What divides sequences among forwards.
    """

    def __init__(self, model: PreTrainedModel, layout: Layout = "padded", tokens_per_batch: int | None = None) -> None:
        self.model = model
        self.planner = Planner(model, layout, tokens_per_batch)
        if self.planner.is_packed:
            enable_packing(model)
        elif layout == "pruned":
            enable_encoder_pruning(model)

    @property
    def layout(self) -> Layout:
        """The layout."""
        return self.planner.layout

    def scores(self, forward: Forward, model: nn.Module | None = None) -> Tensor:
        """What the head gives at the read-outs of one forward, with gradients where they are enabled.

        Args:
            forward: From the planner.
            model: What to call in the model's place: the same model inside its wrappers (DDP, PEFT).

        Returns:
            Shape (len(forward.indices),), in their order, where the head has one output; else (.., outputs). float32.

        Raises:
            ValueError: The padded layout of a model that gives something at every token, without read-outs; or
                read-outs for one that does not.
        """
        logits = (self.model if model is None else model)(**self.arguments(forward)).logits
        return self.at_readouts(forward, logits).squeeze(-1).float()

    def at_readouts(self, forward: Forward, values: Tensor) -> Tensor:
        """Of what the model gives in one forward, the rows that are read.

        Args:
            forward: From the planner.
            values: Shape (rows, size) where there is nothing to choose; (sequences, width, size) of a padded batch
                that is read at its ``places``.

        Returns:
            Shape (len(forward.indices), size).
        """
        if (values.ndim == 3) != (forward.places is not None):
            raise ValueError(
                f"{type(self.model).__name__} gives logits of shape {tuple(values.shape)}: read-outs must be given for "
                "a model with a token or language modelling head, and for no other"
            )
        if forward.places is None:
            return values
        rows, columns = torch.tensor(forward.places, device=values.device).unbind(1)
        return values[rows, columns]

    def score(self, sequences: Sequence[Ids], on_progress: Callable[[int], None] | None = None) -> list[float]:
        """Scores of many sequences, in their order, without gradients and with dropout off.

        Args:
            sequences: Ids of each sequence; equal ones are computed once and have equal scores.
            on_progress: Called with the number of sequences just scored.
        """
        scores: list[float] = self.rows(sequences, None, on_progress, self.scores).tolist()
        return scores

    def outputs(
        self,
        sequences: Sequence[Ids],
        readouts: Sequence[Positions],
        on_progress: Callable[[int], None] | None = None,
    ) -> list[Tensor]:
        """What the head gives at the read-outs of many sequences, without gradients and with dropout off.

        Args:
            sequences: Ids of each sequence; equal ones that are read alike are computed once.
            readouts: Positions in each sequence at which the head is read.
            on_progress: Called with the number of sequences just computed.

        Returns:
            For each sequence, in the order of its read-outs, shape (read-outs,) where the head has one output, else
            (read-outs, outputs); float32, on the CPU.

        Raises:
            ValueError: A sequence is empty, or its read-outs are.
        """
        rows = self.rows(sequences, readouts, on_progress, self.scores)
        return list(rows.split([len(own) for own in readouts]))

    def features(
        self,
        sequences: Sequence[Ids],
        readouts: Sequence[Positions] | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> Tensor:
        """What the head reads, without gradients and with dropout off.

        Args:
            sequences: Ids of each sequence.
            readouts: As :meth:`Planner.forwards`.
            on_progress: Called with the number of sequences just computed.

        Returns:
            Shape (read-outs, hidden), float32, on the CPU.

        Raises:
            CheckpointError: In the padded layout decoders apply their score head to every token; there is no one row.
        """
        head = self.model.get_submodule(head_name(self.model))
        found: list[Tensor] = []

        def of_forward(forward: Forward) -> Tensor:
            self.scores(forward)
            rows = found.pop()
            if forward.row is not None:
                return rows.flatten(0, -2).float()  # language models give their head (1, read-outs, hidden)
            if rows.ndim == 3 and forward.places is None:
                raise CheckpointError(
                    f"the head of {type(self.model).__name__} reads every token, not one per sequence",
                    hint="features can be had from a packed layout",
                )
            return self.at_readouts(forward, rows).float()

        hook = head.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0]))
        try:
            return self.rows(sequences, readouts, on_progress, of_forward)
        finally:
            hook.remove()

    def rows(
        self,
        sequences: Sequence[Ids],
        readouts: Sequence[Positions] | None,
        on_progress: Callable[[int], None] | None,
        compute: Callable[[Forward], Tensor],
    ) -> Tensor:
        """What ``compute`` makes of each forward's read-outs, in their order, shape (read-outs, ...), on the CPU.

        What is equal is computed once: forwards number the read-outs of the sequences that differ.
        """
        read = _Readouts(sequences, readouts)
        same: dict[tuple[Ids, Positions | None], list[int]] = {}
        for number, sequence in enumerate(sequences):
            own = None if readouts is None else tuple(readouts[number])
            same.setdefault((tuple(sequence), own), []).append(number)
        distinct = [sequence for sequence, _ in same]
        positions = None if readouts is None else [own for _, own in same if own is not None]
        # For each read-out of the distinct sequences, the flat numbers that it has among all.
        numbers = [row for alike in same.values() for row in zip(*(read.numbers([i]) for i in alike), strict=True)]
        firsts = set(read.starts[:-1])
        rows = torch.empty(0)
        was_training = self.model.training
        self.model.eval()
        try:
            for forward in self.planner.forwards(distinct, positions):
                with _lock_of(self.model), torch.inference_mode():
                    values = compute(forward).cpu()
                if not len(rows):  # outside of inference mode: what the caller gets is an ordinary tensor
                    rows = torch.empty(read.starts[-1], *values.shape[1:])
                held = [(number, row) for row, index in enumerate(forward.indices) for number in numbers[index]]
                to, source = zip(*held, strict=True)
                rows[list(to)] = values[list(source)]
                if on_progress is not None:
                    on_progress(sum(number in firsts for number in to))
        finally:
            self.model.train(was_training)
        return rows

    def arguments(self, forward: Forward) -> dict[str, Any]:
        """What the model's forward is given, on the model's device."""
        device = self.model.device
        inputs: dict[str, Any] = {name: tensor.to(device) for name, tensor in forward.inputs.items()}
        if forward.row is not None:
            inputs["packing_plan"] = AttentionPlan(forward.row, device)
        elif self.layout == "pruned":
            inputs["packing_plan"] = FirstRow()
        return inputs


def score_sequences(
    model: PreTrainedModel,
    sequences: Sequence[Ids],
    *,
    layout: Layout = "padded",
    tokens_per_batch: int | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> list[float]:
    """Scores of many sequences, in their order: :meth:`Engine.score` for one call."""
    return Engine(model, layout, tokens_per_batch).score(sequences, on_progress)


def _lock_of(model: nn.Module) -> threading.Lock:
    """One forward at a time: which attention a model calls is a setting of the model, not of the call."""
    with _LOCKS_LOCK:
        return _LOCKS.setdefault(model, threading.Lock())


def _readouts_of(
    groups: Sequence[Sequence[Ids]], readouts: Sequence[Sequence[Positions]] | None, members: Sequence[int]
) -> _Readouts:
    """Where the sequences of some of the groups are read, numbered through."""
    sequences = [sequence for i in members for sequence in groups[i]]
    if readouts is None:
        return _Readouts(sequences, None)
    if len(readouts) != len(groups) or any(len(readouts[i]) != len(groups[i]) for i in members):
        raise ValueError("there must be read-outs for each sequence of each group")
    return _Readouts(sequences, [own for i in members for own in readouts[i]])


def _renumbered(forest: Sequence[Sequence[Tree]]) -> list[Tree]:
    """The trees of some groups, their sequences numbered through."""
    trees: list[Tree] = []
    first = 0
    for group in forest:
        for tree in group:
            trees.append(Tree(tree.sequences, tuple(first + i for i in tree.indices), tree.prefix_length))
        first += sum(len(tree.sequences) for tree in group)
    return trees

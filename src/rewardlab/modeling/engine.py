"""The engine: sequences in, scores out, in one of four layouts of the same computation.

=========  ===========================================================================================
layout     one forward holds
=========  ===========================================================================================
tree       packed trees: a prefix shared by completions is computed once (decoders)
packed     packed sequences: no padding, nothing shared (decoders)
pruned     sequences of like length, padded; the last layer runs at the read-out row alone (encoders)
padded     sequences of like length, padded: transformers' own forward, with nothing of ours inside
=========  ===========================================================================================

All four give the same scores and gradients; which of them a model can have is
:mod:`rewardlab.modeling.parity`'s to say. The token budget only splits forwards: it changes no score, and no
gradient, for a group whose completions do not fit into one forward is done in two passes
(:class:`rewardlab.training.trainer.RewardTrainer`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
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
        indices: The number of the sequence that each score belongs to.
        row: The packed row; None for padded batches.
    """

    inputs: dict[str, Tensor]
    indices: tuple[int, ...]
    row: PackedRow | None = None

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
            completions of ``groups``, in that order.
    """

    groups: tuple[int, ...]
    forwards: tuple[Forward, ...]


class Planner:
    """Divides sequences among forwards, without looking at the model again; small enough to travel to workers.

    Args:
        model: A model with a score head whose ``config.pad_token_id`` is set.
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

    def forwards(self, sequences: Sequence[Ids]) -> list[Forward]:
        """The forwards that score some sequences, largest first; prefixes are found in the sequences themselves.

        Args:
            sequences: Ids of each sequence.

        Raises:
            ValueError: A sequence is empty.
        """
        _require_ids(sequences)
        if not self.is_packed:
            buckets = length_buckets([len(s) for s in sequences], self.tokens_per_batch)
            return [self._padded(sequences, bucket) for bucket in buckets]
        sequences = [self._until_readout(sequence) for sequence in sequences]
        trees = self._split(share_prefixes(sequences) if self.layout == "tree" else without_sharing(sequences))
        return self._rows_of(trees)

    def parts(self, groups: Sequence[Sequence[Ids]]) -> list[Part]:
        """The forwards of one micro-batch, such that each group's completions stay together.

        Args:
            groups: Sequences of each group. Trees are the groups; nothing is shared between groups.

        Returns:
            Parts that hold each group once: whole groups in one forward up to the token budget, and each group that
            is over the budget in a part of several forwards.

        Raises:
            ValueError: A sequence is empty.
        """
        _require_ids([sequence for group in groups for sequence in group])
        if not self.is_packed:
            return self._padded_parts(groups)
        forest = [self._trees_of(group) for group in groups]
        sizes = [sum(tree.num_tokens for tree in trees) for trees in forest]
        parts = []
        for i, size in enumerate(sizes):  # the largest first: what does not fit in memory is met at once
            if size > self.tokens_per_batch:
                parts.append(Part((i,), tuple(self._rows_of(self._split(forest[i])))))
        fitting = [i for i, size in enumerate(sizes) if size <= self.tokens_per_batch]
        for row in fill_rows([sizes[i] for i in fitting], self.tokens_per_batch):
            members = [fitting[i] for i in row]
            parts.append(Part(tuple(members), (self._packed(_renumbered([forest[m] for m in members])),)))
        return parts

    def _padded_parts(self, groups: Sequence[Sequence[Ids]]) -> list[Part]:
        parts = []
        widths = [max(len(sequence) for sequence in group) for group in groups]
        for bucket in length_buckets(widths, self.tokens_per_batch, [len(group) for group in groups]):
            sequences = [sequence for member in bucket for sequence in groups[member]]
            inner = length_buckets([len(s) for s in sequences], self.tokens_per_batch)
            fits = widths[bucket[0]] * len(sequences) <= self.tokens_per_batch
            forwards = [range(len(sequences))] if fits else inner
            parts.append(Part(tuple(bucket), tuple(self._padded(sequences, list(f)) for f in forwards)))
        return parts

    def _trees_of(self, group: Sequence[Ids]) -> list[Tree]:
        sequences = [self._until_readout(sequence) for sequence in group]
        return [tree_of(sequences)] if self.layout == "tree" else without_sharing(sequences)

    def _split(self, trees: Sequence[Tree]) -> list[Tree]:
        return [part for tree in trees for part in split_tree(tree, self.tokens_per_batch)]

    def _until_readout(self, sequence: Ids) -> Ids:
        """A sequence up to the token that transformers reads: the last that is not padding.

        Only models of others have a padding id that also ends sequences. What follows the read-out cannot change it.
        """
        stop = len(sequence)
        while stop > 1 and sequence[stop - 1] == self._pad_id:
            stop -= 1
        return sequence[:stop]

    def _rows_of(self, trees: Sequence[Tree]) -> list[Forward]:
        rows = fill_rows([tree.num_tokens for tree in trees], self.tokens_per_batch)
        return [self._packed([trees[i] for i in row]) for row in rows]

    def _packed(self, trees: Sequence[Tree]) -> Forward:
        row = lay_out(trees)
        return Forward(row_inputs(row), row.indices, row)

    def _padded(self, sequences: Sequence[Ids], bucket: Sequence[int]) -> Forward:
        batch = pad([sequences[i] for i in bucket], self._pad_id)
        return Forward({name: batch[name] for name in self._input_names}, tuple(bucket))


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
        """Scores of one forward, with gradients where they are enabled.

        Args:
            forward: From :meth:`forwards` or :meth:`parts`.
            model: What to call in the model's place: the same model inside its wrappers (DDP, PEFT).

        Returns:
            Shape (len(forward.indices),), float32, in their order.
        """
        return (self.model if model is None else model)(**self.arguments(forward)).logits.squeeze(-1).float()

    def score(self, sequences: Sequence[Ids], on_progress: Callable[[int], None] | None = None) -> list[float]:
        """Scores of many sequences, in their order, without gradients and with dropout off.

        Args:
            sequences: Ids of each sequence; equal ones are computed once and have equal scores.
            on_progress: Called with the number of sequences just scored.
        """
        scores = [0.0] * len(sequences)
        for numbers, values in self._each(sequences, on_progress):
            for same, score in zip(numbers, values.tolist(), strict=True):
                for number in same:
                    scores[number] = score
        return scores

    def features(self, sequences: Sequence[Ids], on_progress: Callable[[int], None] | None = None) -> Tensor:
        """What the head reads of each sequence, without gradients and with dropout off.

        Args:
            sequences: Ids of each sequence.
            on_progress: Called with the number of sequences just computed.

        Returns:
            Shape (sequences, hidden), float32, on the CPU.

        Raises:
            CheckpointError: In the padded layout decoders apply their head to every token; there is no one row.
        """
        head = self.model.get_submodule(head_name(self.model))
        found: list[Tensor] = []
        hook = head.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0].detach().float().cpu()))
        features = torch.empty(len(sequences), 0)
        try:
            for numbers, _ in self._each(sequences, on_progress):
                rows = found.pop()
                if rows.ndim != 2:
                    raise CheckpointError(
                        f"the head of {type(self.model).__name__} reads every token, not one per sequence",
                        hint="features can be had from a packed layout",
                    )
                if not features.shape[1]:
                    features = torch.empty(len(sequences), rows.shape[1])
                for same, row in zip(numbers, rows, strict=True):
                    features[same] = row
        finally:
            hook.remove()
        return features

    def _each(
        self, sequences: Sequence[Ids], on_progress: Callable[[int], None] | None
    ) -> Iterator[tuple[list[list[int]], Tensor]]:
        """Forward by forward: for each of its scores the sequences it belongs to, and the scores."""
        numbers: dict[tuple[int, ...], list[int]] = {}
        for number, sequence in enumerate(sequences):
            numbers.setdefault(tuple(sequence), []).append(number)
        distinct, same = list(numbers), list(numbers.values())
        was_training = self.model.training
        self.model.eval()
        try:
            for forward in self.planner.forwards(distinct):
                of_each = [same[index] for index in forward.indices]
                # Not around the yield: what the caller makes would be inference tensors.
                with _lock_of(self.model), torch.inference_mode():
                    scores = self.scores(forward)
                yield of_each, scores
                if on_progress is not None:
                    on_progress(sum(map(len, of_each)))
        finally:
            self.model.train(was_training)

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


def _require_ids(sequences: Sequence[Ids]) -> None:
    for number, sequence in enumerate(sequences):
        if not len(sequence):
            raise ValueError(f"sequence {number} has no ids: there is no token to read a score at")


def _renumbered(forest: Sequence[Sequence[Tree]]) -> list[Tree]:
    """The trees of some groups, their sequences numbered through."""
    trees: list[Tree] = []
    first = 0
    for group in forest:
        for tree in group:
            trees.append(Tree(tree.sequences, tuple(first + i for i in tree.indices), tree.prefix_length))
        first += sum(len(tree.sequences) for tree in group)
    return trees

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

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from rewardlab.errors import CheckpointError
from rewardlab.modeling.encoder_pruning import FirstRow, enable_encoder_pruning
from rewardlab.modeling.head import head_name
from rewardlab.modeling.lending import lenders_of
from rewardlab.modeling.out_of_memory import is_out_of_memory, release_memory
from rewardlab.modeling.packed_forward import enable_packing
from rewardlab.modeling.planner import Forward, Layout, Planner, Positions, Readouts
from rewardlab.modeling.prefix_tree import Ids
from rewardlab.modeling.tree_attention import AttentionPlan

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)

Computation: TypeAlias = Callable[["Engine", Forward], Tensor]
"""What is made of a forward: one row for each of its read-outs. Picklable, for it may be made in another process."""

_LOCKS: WeakKeyDictionary[nn.Module, threading.Lock] = WeakKeyDictionary()
_LOCKS_LOCK = threading.Lock()


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
        scores: list[float] = self.rows(sequences, None, on_progress, head_outputs).tolist()
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
        rows = self.rows(sequences, readouts, on_progress, head_outputs)
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
        return self.rows(sequences, readouts, on_progress, _head_inputs)

    def rows(
        self,
        sequences: Sequence[Ids],
        readouts: Sequence[Positions] | None,
        on_progress: Callable[[int], None] | None,
        computation: Computation,
    ) -> Tensor:
        """What a computation makes of many sequences, without gradients and with dropout off.

        What is equal is computed once: forwards number the read-outs of the sequences that differ. Where other
        processes lend their copies of the model (:mod:`rewardlab.modeling.lending`), each computes some forwards.

        Args:
            sequences: Ids of each sequence.
            readouts: As :meth:`Planner.forwards <rewardlab.modeling.planner.Planner.forwards>`.
            on_progress: Called with the number of sequences just computed.
            computation: What to make of each forward.

        Returns:
            Shape (read-outs, ...), in the order of the read-outs, on the CPU.

        Raises:
            ValueError: A sequence is empty, or its read-outs are.
            RewardLabError: The device has not the memory for one of the sequences alone.
        """
        read = Readouts(sequences, readouts)
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
            for forward, values in self._computed(distinct, positions, computation):
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

    def attempt(self, forward: Forward, computation: Computation) -> Tensor | None:
        """What a computation makes of one forward, without gradients, on the CPU; None where memory does not suffice.

        Args:
            forward: From the planner.
            computation: What to make of it.
        """
        try:
            with _lock_of(self.model), torch.inference_mode():
                return computation(self, forward).cpu()
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        release_memory(self.model.device)  # here the error, which holds what the forward had computed, is gone
        return None

    def _computed(
        self, sequences: Sequence[Ids], readouts: Sequence[Positions] | None, computation: Computation
    ) -> Iterator[tuple[Forward, Tensor]]:
        """All forwards of some sequences, each with what was made of it, as they are done.

        Those for which memory does not suffice are divided and tried again.
        """
        forwards = self.planner.forwards(sequences, readouts)
        while forwards:
            too_large = []
            for number, values in self._attempts(forwards, computation):
                if values is None:
                    too_large.append(forwards[number])
                else:
                    yield forwards[number], values
            budget = self.planner.tokens_per_batch
            forwards = [part for forward in too_large for part in self.planner.divided(forward, sequences, readouts)]
            if self.planner.tokens_per_batch < budget:
                logger.warning(
                    "%s has not the memory for a forward of %s tokens: from now on there are at most %s in one",
                    self.model.device,
                    f"{max(forward.num_tokens for forward in too_large):,}",
                    f"{self.planner.tokens_per_batch:,}",
                )

    def _attempts(self, forwards: Sequence[Forward], computation: Computation) -> Iterator[tuple[int, Tensor | None]]:
        """The number of each forward and what came of it, in this process or in one that lends its model."""
        lenders = lenders_of(self.model)
        if lenders is not None:
            yield from lenders.compute(self, computation, forwards)
            return
        for number, forward in enumerate(forwards):
            yield number, self.attempt(forward, computation)

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


def head_outputs(engine: Engine, forward: Forward) -> Tensor:
    """What the head gives at the read-outs of one forward, as :meth:`Engine.scores` has it: the usual computation."""
    return engine.scores(forward)


def _head_inputs(engine: Engine, forward: Forward) -> Tensor:
    """What the head reads at the read-outs of one forward, shape (read-outs, hidden)."""
    head = engine.model.get_submodule(head_name(engine.model))
    found: list[Tensor] = []
    hook = head.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0]))
    try:
        engine.scores(forward)
    finally:
        hook.remove()
    rows = found.pop()
    if forward.row is not None:
        return rows.flatten(0, -2).float()  # language models give their head (1, read-outs, hidden)
    if rows.ndim == 3 and forward.places is None:
        raise CheckpointError(
            f"the head of {type(engine.model).__name__} reads every token, not one per sequence",
            hint="features can be had from a packed layout",
        )
    return engine.at_readouts(forward, rows).float()

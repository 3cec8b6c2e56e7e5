"""The engine of a training run: each of its ranks computes some of the forwards of an evaluation, all know the scores.

All ranks ask for the same scores at the same time, and plan the same forwards; each computes its share by cost. This
file knows forwards and ranks; it knows no data but ids.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from rewardlab.data.encoding import EncodedGroup
from rewardlab.modeling.cost import ComputeCost
from rewardlab.modeling.engine import Computation, Engine
from rewardlab.modeling.parity import LayoutChoice, agreed_layout, choose_layout
from rewardlab.modeling.planner import Forward, Layout, Planner
from rewardlab.modeling.ranks import Ranks, share_out
from rewardlab.training.arguments import RewardArguments

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_GROUPS_COMPARED = 16


class RankEngine(Engine):
    """An engine on every rank of a run.

    Args:
        model: As :class:`~rewardlab.modeling.engine.Engine`.
        layout: As there.
        tokens_per_batch: As there.
        ranks: Of the run.
        example: A group as the model will be given it.
        called: The model inside its wrappers, where it lies in shards: each forward is then a collective, and ranks
            with fewer of them run others that are thrown away. None for a model that each rank holds.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        layout: Layout,
        tokens_per_batch: int | None,
        ranks: Ranks,
        example: EncodedGroup,
        called: nn.Module | None = None,
    ) -> None:
        super().__init__(model, layout, tokens_per_batch)
        self._ranks = ranks
        self._example = example
        self._called = called
        self._cost = ComputeCost.of_model(model)

    def scores(self, forward: Forward, model: nn.Module | None = None) -> Tensor:
        """As :meth:`Engine.scores <rewardlab.modeling.engine.Engine.scores>`."""
        return super().scores(forward, self._called if model is None else model)

    def filler(self) -> Forward:
        """A small forward, for a rank that has none left while others have."""
        return filler(self.planner, self._example)

    def attempt(self, forward: Forward, computation: Computation) -> Tensor | None:
        """As :meth:`Engine.attempt <rewardlab.modeling.engine.Engine.attempt>`.

        A model in shards is called without inference mode, for what is gathered is used again in training; and it
        cannot run out of memory on one rank and go on, for the others wait.
        """
        if self._called is None:
            return super().attempt(forward, computation)
        with torch.no_grad():
            return computation(self, forward).cpu()

    def _attempts(self, forwards: Sequence[Forward], computation: Computation) -> Iterator[tuple[int, Tensor | None]]:
        if self._ranks.count == 1:
            yield from super()._attempts(forwards, computation)
            return
        shares = share_out([self._cost.of_forward(forward) for forward in forwards], self._ranks.count)
        own = [(number, self.attempt(forwards[number], computation)) for number in shares[self._ranks.index]]
        if self._called is not None:
            for _ in range(max(map(len, shares)) - len(own)):
                self.attempt(self.filler(), computation)
        for found in self._ranks.gather(own):
            yield from found


def chosen_engine(
    model: PreTrainedModel,
    examples: Sequence[EncodedGroup],
    arguments: RewardArguments,
    ranks: Ranks,
    called: nn.Module | None,
) -> tuple[LayoutChoice, RankEngine]:
    """The engine of a run in the best layout that its model can have, the same on all ranks.

    Args:
        model: The model inside its wrappers; moved to the run's device where it is whole.
        examples: The groups to train on, of which the first are compared on.
        arguments: Of the run.
        ranks: Of the run.
        called: As :class:`RankEngine`.
    """
    if called is None:
        cast(nn.Module, model).to(arguments.device)
    first = sorted(examples[:_GROUPS_COMPARED], key=lambda example: sum(example.lengths))
    choice = choose_layout(
        model,
        [example.sequences for example in first],
        readouts=[example.readouts for example in first] if first[0].readouts else None,
        engine=arguments.engine,
        longest=max(max(example.lengths) for example in examples),
        with_gradients=True,
        autocast=torch.bfloat16 if arguments.bf16 else torch.float16 if arguments.fp16 else None,
        called=called,
    )
    choice = agreed_layout(model, ranks.gather(choice))
    return choice, RankEngine(model, choice.layout, arguments.tokens_per_batch, ranks, first[0], called)


def scores_of(engine: Engine, forward: Forward) -> Tensor:
    """What the head gives, by the model as the engine calls it."""
    return engine.scores(forward)


def filler(planner: Planner, example: EncodedGroup) -> Forward:
    """A forward over the first ids of a group, as small as one can be."""
    readouts = [(0,)] if example.readouts else None
    return planner.forwards([example.sequences[0][:2]], readouts)[0]

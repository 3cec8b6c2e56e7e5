"""Forward and backward of one rank's share of a micro-batch, part by part, so that one forward's activations are held.

A group over the token budget is done in two passes: its scores without a graph; then, forward by forward, the gradient
of the loss with respect to them is pushed back. By the chain rule that is the gradient. All first passes come before
any second one, so that ranks whose model lies in shards, where every forward is a collective, go through the same two
phases; in each a rank with fewer forwards than the others fills up with forwards that change nothing.

This file knows forwards, an objective and how gradients are asked for; it knows no trainer and no data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import Tensor

from rewardlab.modeling.engine import Forward
from rewardlab.training.batches import TargetedPart


@dataclass(frozen=True, slots=True)
class Rounds:
    """How many forwards a rank runs in a micro-batch, those that change nothing included.

    Attributes:
        without_gradient: In the first phase.
        with_gradient: In the second; at least 1, for in its last ranks exchange their gradients.
    """

    without_gradient: int
    with_gradient: int

    @classmethod
    def of(cls, parts: Sequence[TargetedPart]) -> Rounds:
        """What some parts need by themselves."""
        counts = [len(part.forwards) for part in parts]
        return cls(sum(count for count in counts if count > 1), max(1, sum(counts)))


def counts_of(batches: Sequence[dict[str, Any]]) -> list[int]:
    """How many forwards this rank's shares of some micro-batches need: without and with gradient of the first, ..."""
    rounds = [Rounds.of(batch["parts"]) for batch in batches]
    return [count for each in rounds for count in (each.without_gradient, each.with_gradient)]


def fill_up(batches: Sequence[dict[str, Any]], counts: Sequence[int]) -> None:
    """Have this rank run as many forwards in each micro-batch as are counted here, as by :func:`counts_of`."""
    for batch, without, with_gradient in zip(batches, counts[::2], counts[1::2], strict=True):
        batch["rounds"] = Rounds(without, with_gradient)


def gathered(accelerator: Accelerator, numbers: Sequence[float]) -> Tensor:
    """Some numbers of each rank, shape (ranks, numbers)."""
    dtype = torch.float32 if accelerator.device.type == "mps" else torch.float64
    own = torch.tensor(numbers, dtype=dtype, device=accelerator.device)
    of_all: Tensor = cast(Any, accelerator).gather(own)
    return of_all.view(-1, len(numbers))


@dataclass(frozen=True, slots=True)
class PartStep:
    """How a run computes the parts of a micro-batch.

    Attributes:
        run: A forward -> what the head gives at its read-outs.
        loss: Scores and targets -> the part's share of the step's loss.
        backward: What the run does in place of ``loss.backward()``, and whether it is the micro-batch's last.
        backward_beside: The same for a loss that reaches the objective's own parameters alone.
        computing: Around what is computed: the run's precision.
        exchanging: Around a forward and its backward: whether ranks exchange gradients at it.
        filler: A small forward, for a rank that has none left.
        device: Where the run computes.
    """

    run: Callable[[Forward], Tensor]
    loss: Callable[[Tensor, Any], Tensor]
    backward: Callable[[Tensor, bool], None]
    backward_beside: Callable[[Tensor], None]
    computing: Callable[[], AbstractContextManager[Any]]
    exchanging: Callable[[bool], AbstractContextManager[Any]]
    filler: Callable[[], Forward]
    device: torch.device

    def __call__(self, parts: Sequence[TargetedPart], rounds: Rounds) -> tuple[Tensor, list[Tensor]]:
        """Loss and scores of some parts, their gradients pushed back.

        Args:
            parts: This rank's parts of the micro-batch; none where others have all of it.
            rounds: As many as the parts need, or more.

        Returns:
            The sum of their losses, and of each part its scores in the order of its read-outs.
        """
        total = torch.zeros((), device=self.device)
        scores: list[Tensor] = []
        first_passes = self._first_passes(parts, rounds.without_gradient)
        left = rounds.with_gradient
        for number, part in enumerate(parts):
            if (first := first_passes.get(number)) is None:
                left -= 1
                with self.exchanging(not left):
                    with self.computing():
                        found = in_order(part, [self.run(part.forwards[0])])
                        loss = self.loss(found, part.targets.to(self.device))
                    self.backward(loss, not left)
                total += loss.detach()
                scores.append(found.detach())
                continue
            total += first.loss
            scores.append(first.scores)
            for forward, state in zip(part.forwards, first.states, strict=True):
                set_random_state(self.device, state)  # adapter dropout, where there is any, drops the same
                left -= 1
                with self.exchanging(not left):
                    with self.computing():
                        surrogate = torch.sum(self.run(forward) * first.gradient[list(forward.indices)])
                    self.backward(surrogate, not left)
        while left:
            left -= 1
            with self.exchanging(not left):
                with self.computing():
                    nothing = self.run(self.filler()).sum() * 0.0
                self.backward(nothing, not left)
        return total, scores

    def _first_passes(self, parts: Sequence[TargetedPart], rounds: int) -> dict[int, _FirstPass]:
        """The parts that need two passes: their loss, and its gradient with respect to their scores."""
        passes: dict[int, _FirstPass] = {}
        for number, part in enumerate(parts):
            if len(part.forwards) == 1:
                continue
            states, found = [], []
            with torch.no_grad(), self.exchanging(False), self.computing():
                for forward in part.forwards:
                    states.append(random_state(self.device))
                    found.append(self.run(forward))
            rounds -= len(found)
            leaf = in_order(part, found).requires_grad_()
            loss = self.loss(leaf, part.targets.to(self.device))
            (gradient,) = torch.autograd.grad(loss, leaf, retain_graph=True)
            self.backward_beside(loss)  # scaled as the run scales
            passes[number] = _FirstPass(loss.detach(), leaf.detach(), gradient, states)
        with torch.no_grad(), self.exchanging(False), self.computing():
            for _ in range(rounds):
                self.run(self.filler())
        return passes


@dataclass(frozen=True, slots=True)
class _FirstPass:
    """What the first pass over a part found, and the random states in which its forwards began."""

    loss: Tensor
    scores: Tensor
    gradient: Tensor
    states: list[list[Tensor]]


def in_order(part: TargetedPart, found: Sequence[Tensor]) -> Tensor:
    """What a part's forwards gave, in the order of its read-outs."""
    order = [index for forward in part.forwards for index in forward.indices]
    scores = torch.cat(list(found))
    return scores[torch.tensor(order, device=scores.device).argsort()]


def random_state(device: torch.device) -> list[Tensor]:
    """The state of what is random in a forward on a device."""
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def set_random_state(device: torch.device, states: list[Tensor]) -> None:
    """Go back to a state of :func:`random_state`."""
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)

"""Forward and backward of one part of a micro-batch, in one pass or, for a group over the token budget, in two.

This file knows forwards, an objective and how gradients are asked for; it knows no trainer and no data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rewardlab.modeling.engine import Forward
from rewardlab.training.batches import TargetedPart


@dataclass(frozen=True, slots=True)
class PartStep:
    """How a run computes a part.

    Attributes:
        run: A forward -> what the head gives at its read-outs.
        loss: Scores and targets -> the part's share of the step's loss.
        backward: What the run does in place of ``loss.backward()``.
        computing: Around what is computed: the run's precision.
        exchanging: Around a forward and its backward: whether ranks exchange gradients at it.
        device: Where the run computes.
    """

    run: Callable[[Forward], Tensor]
    loss: Callable[[Tensor, Any], Tensor]
    backward: Callable[[Tensor], None]
    computing: Callable[[], AbstractContextManager[Any]]
    exchanging: Callable[[bool], AbstractContextManager[Any]]
    device: torch.device

    def __call__(self, part: TargetedPart, *, is_last: bool) -> tuple[Tensor, Tensor]:
        """Loss and scores of a part, its gradients pushed back.

        Args:
            part: The part.
            is_last: Whether it is the micro-batch's last, at which ranks exchange their gradients.
        """
        targets = part.targets.to(self.device)
        if len(part.forwards) > 1:
            return self._in_two_passes(part, targets, is_last)
        with self.exchanging(is_last):
            with self.computing():
                scores = in_order(part, [self.run(part.forwards[0])])
                loss = self.loss(scores, targets)
            self.backward(loss)
        return loss.detach(), scores.detach()

    def _in_two_passes(self, part: TargetedPart, targets: Any, is_last: bool) -> tuple[Tensor, Tensor]:
        """Scores without a graph; then, forward by forward, the loss's gradient with respect to them is pushed back.

        By the chain rule that is the gradient.
        """
        states, found = [], []
        with torch.no_grad(), self.exchanging(False), self.computing():
            for forward in part.forwards:
                states.append(_random_state(self.device))
                found.append(self.run(forward))
        leaf = in_order(part, found).requires_grad_()
        loss = self.loss(leaf, targets)
        (gradient,) = torch.autograd.grad(loss, leaf, retain_graph=True)
        self.backward(loss)  # into the objective's own parameters, scaled as the run scales
        for number, (forward, state) in enumerate(zip(part.forwards, states, strict=True)):
            _set_random_state(self.device, state)  # adapter dropout, where there is any, drops the same
            with self.exchanging(is_last and number == len(part.forwards) - 1):
                with self.computing():
                    surrogate = torch.sum(self.run(forward) * gradient[list(forward.indices)])
                self.backward(surrogate)
        return loss.detach(), leaf.detach()


def in_order(part: TargetedPart, found: Sequence[Tensor]) -> Tensor:
    """What a part's forwards gave, in the order of its read-outs."""
    order = [index for forward in part.forwards for index in forward.indices]
    scores = torch.cat(list(found))
    return scores[torch.tensor(order, device=scores.device).argsort()]


def _random_state(device: torch.device) -> list[Tensor]:
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def _set_random_state(device: torch.device, states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)

"""The law by which losses are added up, and what it asks of every objective.

**Reduction.** The loss of an optimiser step is the sum over its units (for Bradley-Terry: pairs, each counting its
weight; for grouped pairs: prompts; for outcomes: tokens) over all micro-batches and ranks, divided by their global
weighted number; never a mean of means, which would give a unit in a small micro-batch more say. So an objective
returns a *sum*, says what its batch counts (``num_units``), and the trainer divides once.

This file knows no objective; what each is given beside the scores is :mod:`rewardlab.objectives.targets`'s.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from rewardlab.types import Kind


class Objective(nn.Module):
    """What a trainer may ask of an objective; most learn nothing themselves.

    Called with what the head gave, shape (n,) or, for steps, (n, classes), and with the record of
    :mod:`rewardlab.objectives.targets` that it reads, it returns the *sum* of the losses of the batch's units: a
    scalar, float32 (float64 for float64 scores).

    Attributes:
        kind: Where the scores are read: one per sequence, per token, or class logits per step.
    """

    kind: ClassVar[Kind]

    @staticmethod
    def num_units(targets: Any) -> float:
        """What the batch counts in the step's denominator."""
        raise NotImplementedError


def check_same_shape(**tensors: Tensor) -> None:
    """Raise unless all tensors are vectors of one length.

    Raises:
        ValueError: Naming each argument and its shape; silent broadcasting would train on the wrong pairs.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if len(set(shapes.values())) > 1 or any(len(shape) != 1 for shape in shapes.values()):
        raise ValueError(f"expected vectors of one length, got {shapes}")


def in_float32(scores: Tensor) -> Tensor:
    """Scores raised to float32 for the loss; float64 stays (gradient checks use it)."""
    return scores if scores.dtype == torch.float64 else scores.float()


def checked_coefficient(value: float) -> float:
    """The weight of a centering penalty, which must not reward scores for drifting away.

    Raises:
        ValueError: It is negative or not a number.
    """
    if not value >= 0:
        raise ValueError(f"center_rewards_coefficient must be >= 0, got {value}")
    return value

"""What an objective is given beside the scores, and the law by which losses are added up.

**Reduction.** The loss of an optimiser step is the sum over its units (for Bradley-Terry: pairs, each counting its
weight; for grouped pairs: prompts) over all micro-batches and ranks, divided by their global weighted number; never a
mean of means, which would give a pair in a small micro-batch more say. So an objective returns a *sum*, says what its
batch counts (``num_units``), and the trainer divides once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class PairTargets:
    """The preferences of a batch, as indices into its completions' scores.

    Attributes:
        chosen: Index of each pair's preferred completion, shape (pairs,), int64.
        rejected: Index of each pair's other completion, shape (pairs,), int64.
        margin: Margin of each pair, shape (pairs,), float32; 0 where the row has none.
        weight: Weight of each pair, shape (pairs,), float32; 1 where the row has none.
        group: Index in the batch of the group each pair belongs to, shape (pairs,), int64.
    """

    chosen: Tensor
    rejected: Tensor
    margin: Tensor
    weight: Tensor
    group: Tensor

    def __post_init__(self) -> None:
        """Refuse vectors of different lengths."""
        check_same_shape(
            chosen=self.chosen, rejected=self.rejected, margin=self.margin, weight=self.weight, group=self.group
        )

    def to(self, device: torch.device) -> PairTargets:
        """The same targets on another device."""
        tensors = (self.chosen, self.rejected, self.margin, self.weight, self.group)
        return PairTargets(*(tensor.to(device) for tensor in tensors))


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

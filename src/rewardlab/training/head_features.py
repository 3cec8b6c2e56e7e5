"""Training the head alone: what it reads stands still, so it is computed once, and the trunk never again.

This file knows when that can be done and keeps what was computed; the trainer asks it for batches and outputs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rewardlab.data.encoding import EncodedGroup
from rewardlab.modeling.engine import Engine, Layout
from rewardlab.modeling.head import head_name, is_decoder
from rewardlab.modeling.preparing import drops_out
from rewardlab.training.batches import sequences_of
from rewardlab.training.supervision import Supervision
from rewardlab.types import ReadOut

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)


def only_head_is_trained(model: PreTrainedModel, read_out: ReadOut, layout: Layout) -> bool:
    """Whether all below the head stands still, and what the head reads can be had and kept.

    Args:
        model: The model inside its wrappers.
        read_out: Where its head is read.
        layout: The layout that it runs in.
    """
    head = head_name(model)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    if not trained or any(not name.startswith(f"{head}.") for name in trained):
        return False
    if drops_out(model) or read_out.kind == "token":
        return False  # the features of every token would not fit into memory
    return layout != "padded" or (not is_decoder(model) and read_out.kind == "sequence")


@dataclass(frozen=True, slots=True)
class FeaturedGroup:
    """A group whose features are known, because what is below the head does not change.

    Attributes:
        example: The group.
        features: What the head reads at each read-out, shape (read-outs, hidden), float32.
    """

    example: EncodedGroup
    features: Tensor


def collate_features(examples: Sequence[FeaturedGroup], supervision: Supervision) -> dict[str, Any]:
    """One micro-batch of groups whose features are known.

    Returns:
        ``features`` of all read-outs, shape (read-outs, hidden), ``targets``, and ``num_tokens``.
    """
    groups = [item.example for item in examples]
    return {
        "features": torch.cat([item.features for item in examples]),
        "targets": supervision.targets(groups),
        "num_tokens": sum(sum(group.lengths) for group in groups),
    }


class HeadFeatures:
    """What the head of one model reads, computed once; and what the head makes of it, as it is then.

    Args:
        engine: Runs the model.
        computing: The context of every forward of the run (autocast).
    """

    def __init__(self, engine: Engine, computing: Callable[[], AbstractContextManager[Any]]) -> None:
        logger.info("only the head is trained: what it reads is computed once, for all epochs")
        self._engine, self._computing = engine, computing
        self._head = engine.model.get_submodule(head_name(engine.model))
        self._kept: tuple[Sequence[EncodedGroup], Tensor] | None = None

    def featured(self, examples: Sequence[EncodedGroup]) -> list[FeaturedGroup]:
        """Groups with their features, to train on."""
        counts = [sum(map(len, example.readouts)) or len(example.sequences) for example in examples]
        features = self._compute(examples).split(counts)
        return [FeaturedGroup(example, own) for example, own in zip(examples, features, strict=True)]

    def keep(self, examples: Sequence[EncodedGroup]) -> None:
        """Compute the features of groups that will be evaluated often, and keep them."""
        self._kept = (examples, self._compute(examples))

    def of_kept(self, examples: Sequence[EncodedGroup]) -> Tensor | None:
        """What the head gives at all read-outs of the kept groups, without gradients.

        Returns:
            Shape (read-outs, outputs), float32, on the CPU; None where other groups are kept, or none.
        """
        if self._kept is None or self._kept[0] is not examples:
            return None
        with torch.no_grad():
            return self.outputs(self._kept[1]).float().cpu()

    def outputs(self, features: Tensor) -> Tensor:
        """What the head gives for some features, shape (read-outs, outputs), with gradients where they are enabled."""
        outputs: Tensor = self._head(features.to(self._engine.model.device))
        return outputs

    def _compute(self, examples: Sequence[EncodedGroup]) -> Tensor:
        """What the head reads at all read-outs of some groups, shape (read-outs, hidden)."""
        with self._computing():
            return self._engine.features(*sequences_of(examples))

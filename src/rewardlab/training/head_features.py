"""Training the head alone: what it reads stands still, so it is computed once, and the trunk never again.

This file knows when that can be done and keeps what was computed; the trainer asks it for batches and outputs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rewardlab.data.encoding import EncodedGroup
from rewardlab.modeling.engine import Layout
from rewardlab.modeling.head import head_name, is_decoder
from rewardlab.modeling.preparing import drops_out
from rewardlab.modeling.ranks import Ranks
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


class FeatureCollator:
    """Groups whose features are known -> one rank's share of a micro-batch, by the number of their read-outs.

    Args:
        supervision: What the objective learns from.
        ranks: Of the run.
    """

    def __init__(self, supervision: Supervision, ranks: Ranks | None = None) -> None:
        self._supervision = supervision
        self._ranks = Ranks() if ranks is None else Ranks(ranks.index, ranks.count)

    def __call__(self, examples: Sequence[FeaturedGroup]) -> dict[str, Any]:
        """One micro-batch.

        Returns:
            ``features`` of this rank's read-outs, shape (read-outs, hidden), ``targets``, both None where other ranks
            have all groups, and ``num_tokens`` of all ranks.
        """
        own = [examples[i] for i in self._ranks.own_share([len(item.features) for item in examples])]
        return {
            "features": torch.cat([item.features for item in own]) if own else None,
            "targets": self._supervision.targets([item.example for item in own]) if own else None,
            "num_tokens": sum(sum(item.example.lengths) for item in examples),
        }


class HeadFeatures:
    """What the head of one model reads, computed once; and what the head makes of it, as it is then.

    Args:
        model: The model inside its wrappers.
        compute: Groups -> what the head reads at all their read-outs, shape (read-outs, hidden).

    Attributes:
        head: The head.
    """

    def __init__(self, model: PreTrainedModel, compute: Callable[[Sequence[EncodedGroup]], Tensor]) -> None:
        logger.info("only the head is trained: what it reads is computed once, for all epochs")
        self._device = model.device
        self._compute = compute
        self.head = model.get_submodule(head_name(model))
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
        outputs: Tensor = self.head(features.to(self._device))
        return outputs

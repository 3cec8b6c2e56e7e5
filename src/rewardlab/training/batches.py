"""Groups -> what the model is fed: encoding with every row accounted for, and padded batches with their targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rewardlab.data.encoding import EncodedGroup, Encoder, reason_of
from rewardlab.errors import DataError
from rewardlab.modeling.forward import pad
from rewardlab.objectives import PairTargets
from rewardlab.types import PromptGroup


@dataclass(frozen=True, slots=True)
class EncodedDataset:
    """Groups as ids, and what became of the rest.

    Attributes:
        examples: The groups that are trained or evaluated on.
        dropped: Groups left out because their two sides are the same ids, with the reason.
        quarantined: Groups that cannot be encoded, with the reason.
        num_truncated: Groups of which a sequence was cut.
    """

    examples: list[EncodedGroup]
    dropped: list[tuple[PromptGroup, str]]
    quarantined: list[tuple[PromptGroup, str]]
    num_truncated: int


def encode_pairs(groups: Sequence[PromptGroup], encoder: Encoder, *, keep_identical: bool = False) -> EncodedDataset:
    """Encode groups for a pairwise objective.

    A group with a pair that has become identical (the template strips what differed) says nothing and is dropped; one
    that cannot be encoded is quarantined; both are counted.

    Args:
        groups: The groups.
        encoder: The model's encoder.
        keep_identical: Keep identical pairs: in an evaluation they are ties, which are not wins.

    Raises:
        DataError: A group has no pairs at all: then the data is not preferences.
    """
    examples: list[EncodedGroup] = []
    dropped: list[tuple[PromptGroup, str]] = []
    quarantined: list[tuple[PromptGroup, str]] = []
    for group, item in zip(groups, encoder.encode_many(groups), strict=True):
        if not group.pairs:
            raise DataError(
                f"{group.name}: no preference between its completions",
                hint="training needs rows with chosen and rejected; rows with only completions can be scored",
            )
        if isinstance(item, DataError):
            quarantined.append((group, reason_of(item)))
        elif not keep_identical and any(item.sequences[p.chosen] == item.sequences[p.rejected] for p in group.pairs):
            dropped.append((group, "chosen and rejected give the same token ids"))
        else:
            examples.append(item)
    return EncodedDataset(examples, dropped, quarantined, sum(bool(e.truncated) for e in examples))


class PairCollator:
    """Encoded groups -> one padded batch of all their completions, with the pairs between them.

    Args:
        pad_id: The padding id.
    """

    def __init__(self, pad_id: int) -> None:
        self.pad_id = pad_id

    def __call__(self, examples: Sequence[EncodedGroup]) -> dict[str, Tensor]:
        """One batch.

        Returns:
            ``input_ids``, ``attention_mask``, ``position_ids``, each (completions, width), and the fields of
            :class:`~rewardlab.objectives.PairTargets`, each (pairs,).
        """
        batch = pad([sequence for example in examples for sequence in example.sequences], self.pad_id)
        return {**batch, **pair_targets(examples)}


def pair_targets(examples: Sequence[EncodedGroup]) -> dict[str, Tensor]:
    """The pairs of some groups, as indices into the flat list of their completions."""
    chosen: list[int] = []
    rejected: list[int] = []
    margin: list[float] = []
    weight: list[float] = []
    first = 0
    for example in examples:
        for pair in example.group.pairs:
            chosen.append(first + pair.chosen)
            rejected.append(first + pair.rejected)
            margin.append(pair.margin or 0.0)
            weight.append(pair.weight)
        first += len(example.sequences)
    return {
        "chosen": torch.tensor(chosen),
        "rejected": torch.tensor(rejected),
        "margin": torch.tensor(margin, dtype=torch.float32),
        "weight": torch.tensor(weight, dtype=torch.float32),
    }


def targets_of(batch: dict[str, Any]) -> PairTargets:
    """The targets inside a batch."""
    return PairTargets(batch["chosen"], batch["rejected"], batch["margin"], batch["weight"])

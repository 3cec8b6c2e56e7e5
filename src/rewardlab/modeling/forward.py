"""Sequences of ids -> padded batches for transformers' own forward: what all other layouts must equal.

The score is whatever transformers' own ``*ForSequenceClassification.forward`` gives: for decoders the head at the
rightmost id that is not the padding id. Other classes give something at every token; which of it is read is
:mod:`rewardlab.modeling.engine`'s. Position ids are always given to decoders, so that padding on the left cannot move a
model with learned positions.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from rewardlab.modeling.head import is_decoder


def pad(sequences: Sequence[Sequence[int]], pad_id: int, *, side: str = "right", extra: int = 0) -> dict[str, Tensor]:
    """One padded batch.

    Args:
        sequences: Ids of each sequence, none empty.
        pad_id: The padding id.
        side: ``"right"`` or ``"left"``.
        extra: Columns of padding beyond the longest sequence (used to verify that padding does not matter).

    Returns:
        ``input_ids``, ``attention_mask`` and ``position_ids``, each of shape (sequences, width), int64. Positions
        count the real tokens from 0; padding has position 0.
    """
    width = max(len(sequence) for sequence in sequences) + extra
    ids = torch.full((len(sequences), width), pad_id, dtype=torch.long)
    mask = torch.zeros((len(sequences), width), dtype=torch.long)
    positions = torch.zeros((len(sequences), width), dtype=torch.long)
    for row, sequence in enumerate(sequences):
        length = len(sequence)
        columns = slice(0, length) if side == "right" else slice(width - length, width)
        ids[row, columns] = torch.tensor(sequence, dtype=torch.long)
        mask[row, columns] = 1
        positions[row, columns] = torch.arange(length)
    return {"input_ids": ids, "attention_mask": mask, "position_ids": positions}


def takes_position_ids(model: nn.Module) -> bool:
    """Whether explicit positions are given to this model.

    Encoders keep their own rule: their positions do not always start at 0 (RoBERTa), and their padding is on the right.
    """
    return is_decoder(model) and "position_ids" in inspect.signature(model.forward).parameters


def input_names(model: nn.Module) -> list[str]:
    """What this model's forward takes of a padded batch; it looks through the whole model, so ask once for many."""
    return ["input_ids", "attention_mask"] + (["position_ids"] if takes_position_ids(model) else [])


def model_inputs(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The part of a padded batch that this model's forward takes."""
    return {name: batch[name] for name in input_names(model)}


def length_buckets(
    lengths: Sequence[int], tokens_per_batch: int, counts: Sequence[int] | None = None
) -> Iterator[list[int]]:
    """Indices grouped so that sequences of like length share a padded batch, longest first.

    Longest first, so that a batch that does not fit in memory is met at once, not after an hour.

    Args:
        lengths: Tokens of each sequence; of a group of sequences, the longest's.
        tokens_per_batch: Most padded tokens in a batch; what is longer than that goes alone.
        counts: How many sequences each entry stands for; 1 by default.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    bucket: list[int] = []
    width = held = 0
    for index in order:
        count = 1 if counts is None else counts[index]
        if bucket and width * (held + count) > tokens_per_batch:
            yield bucket
            bucket, held = [], 0
        if not bucket:
            width = lengths[index]
        bucket.append(index)
        held += count
    if bucket:
        yield bucket

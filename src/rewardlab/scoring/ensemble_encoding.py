"""Groups -> the ids of every member of an ensemble; members that read the same ids share the work.

This file knows encoders; it knows no models and no scores.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rewardlab.data.encoding import EncodedGroup, Encoder
from rewardlab.data.template import chat_template_of
from rewardlab.errors import DataError
from rewardlab.types import PromptGroup


@dataclass(frozen=True, slots=True)
class EncodedForMembers(EncodedGroup):
    """A group as each encoder of an ensemble encodes it; to the outside as the first does.

    Attributes:
        truncated: How many of the sequences were cut to fit, by the encoder that cuts most.
        by_encoder: The group by each encoder.
    """

    by_encoder: tuple[EncodedGroup, ...] = ()


class EnsembleEncoder(Encoder):
    """Turns groups into the ids of every member.

    Args:
        encoders: The encoders that differ, at least one.
        names: Of each, the name of the first member that it encodes for.

    Attributes:
        tokenizer: The first encoder's.
        max_length: The shortest of the encoders'.
        read_out: The first encoder's.
    """

    def __init__(self, encoders: Sequence[Encoder], names: Sequence[str]) -> None:
        super().__init__(encoders[0].tokenizer, min(each.max_length for each in encoders), encoders[0].read_out)
        self.encoders, self.names = tuple(encoders), tuple(names)

    def encode_many(
        self, groups: Sequence[PromptGroup], on_progress: Callable[[int], None] | None = None
    ) -> list[EncodedGroup | DataError]:
        """Ids of many groups, in order; a group that any member cannot read gives the error in place, naming it.

        Args:
            groups: The groups.
            on_progress: Called with the number of groups just finished.
        """
        by_encoder = [encoder.encode_many(groups) for encoder in self.encoders]
        if on_progress is not None:
            on_progress(len(groups))
        return [self._joined(results) for results in zip(*by_encoder, strict=True)]

    def _joined(self, results: Sequence[EncodedGroup | DataError]) -> EncodedGroup | DataError:
        encoded = []
        for name, result in zip(self.names, results, strict=True):
            if isinstance(result, DataError):
                return type(result)(f"{result.message} (member {name})", hint=result.hint)
            encoded.append(result)
        first, truncated = encoded[0], max(item.truncated for item in encoded)
        return EncodedForMembers(
            first.group, first.sequences, first.prefix_length, truncated, first.readouts, by_encoder=tuple(encoded)
        )


def same_ids(encoders: Sequence[Encoder]) -> list[int]:
    """Which encoders give the same ids for every text.

    Args:
        encoders: One per member.

    Returns:
        A number for each, counted from 0 in the order of first appearance; equal numbers give equal ids. Tokenizers
        that cannot be compared (none of the tokenizers library) share with nobody.
    """
    numbers: dict[object, int] = {}
    return [numbers.setdefault(_rule(encoder), len(numbers)) for encoder in encoders]


def _rule(encoder: Encoder) -> object:
    """All that decides an encoder's ids."""
    tokenizer, read_out = encoder.tokenizer, encoder.read_out
    inner = getattr(tokenizer, "backend_tokenizer", None)
    if inner is None:
        return id(encoder)
    tokens = json.dumps(tokenizer.special_tokens_map, default=str, sort_keys=True)
    read_at = (read_out.kind, read_out.separator, read_out.split_at)
    return inner.to_str(), chat_template_of(tokenizer), tokens, encoder.max_length, read_at

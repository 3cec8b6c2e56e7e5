"""Several heads in one run: which units the training data has, how often each head takes them, what is logged.

A unit's key is what it says, as ids, and which of those in the data that say the same it is. So a pair counts the same
for a head whatever its rows were merged with, and two rows that are equal are drawn apart. The counting itself is
:mod:`rewardlab.objectives.bootstrap_heads`'s.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rewardlab.data.encoding import EncodedGroup
from rewardlab.objectives.bootstrap_heads import HeadTargets, poisson_counts
from rewardlab.training.arguments import RewardArguments
from rewardlab.training.supervision import Supervision, rankings_of, ratings_of


@dataclass(frozen=True, slots=True)
class ResampledGroup(EncodedGroup):
    """A group, and how often each of its units counts for each head.

    Attributes:
        counts: Shape (units, heads), int64, in the order in which the group's targets come.
    """

    counts: Tensor = dataclasses.field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.long), compare=False)


def resample_groups(examples: Sequence[EncodedGroup], arguments: RewardArguments) -> list[EncodedGroup]:
    """Training groups with the counts of their units.

    Args:
        examples: The groups.
        arguments: Of the run: its objective, seed and number of heads.
    """
    seen: Counter[bytes] = Counter()
    found: list[EncodedGroup] = []
    for example in examples:
        keys = []
        for unit in _units(example, arguments):
            said = hashlib.blake2b(repr(unit).encode(), digest_size=16).digest()
            keys.append(said + seen[said].to_bytes(8, "big"))
            seen[said] += 1
        counts = poisson_counts(keys, arguments.ensemble_heads, arguments.seed)
        if arguments.objective == "grouped_pairs":  # the unit is the prompt: its pairs come and go together
            counts = counts.expand(len(example.group.pairs), -1)
        fields = {field.name: getattr(example, field.name) for field in dataclasses.fields(EncodedGroup)}
        found.append(ResampledGroup(**fields, counts=counts))
    return found


def of_heads(supervision: Supervision) -> Supervision:
    """What several heads learn from: each from its own bootstrap; what is logged is of their mean score."""

    def targets(examples: Sequence[EncodedGroup]) -> HeadTargets:
        counts = [example.counts for example in examples if isinstance(example, ResampledGroup)]
        return HeadTargets.of(supervision.targets(examples), torch.cat(counts))

    return dataclasses.replace(
        supervision,
        targets=targets,
        metrics=lambda parts: supervision.metrics([(scores.mean(dim=1), given.plain) for scores, given in parts]),
    )


def _units(example: EncodedGroup, arguments: RewardArguments) -> list[object]:
    """What each unit of a group says, in the order of the targets of :mod:`rewardlab.training.supervision`."""
    group, ids = example.group, example.sequences
    if arguments.objective == "regression":
        ratings = enumerate(ratings_of(group, arguments.attribute_weights))
        return [(ids[place], rating) for place, rating in ratings if rating is not None]
    if arguments.objective == "plackett_luce":
        return [([ids[place] for place in ranking.completions], ranking.dense) for ranking in rankings_of(group)]
    # Which side of a tie comes first says nothing.
    pairs = [
        (*(sorted((ids[p.chosen], ids[p.rejected])) if p.tie else (ids[p.chosen], ids[p.rejected])), p.tie)
        for p in group.pairs
    ]
    return [sorted(pairs)] if arguments.objective == "grouped_pairs" else list(pairs)

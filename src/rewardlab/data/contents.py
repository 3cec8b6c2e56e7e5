"""What is known of a set's completions, counted: ties, rankings, ratings, outcomes, steps.

This file knows groups; preferences, lengths and what is wrong with a set are :mod:`rewardlab.data.check`'s.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rewardlab.types import PromptGroup


@dataclass(frozen=True, slots=True)
class Contents:
    """What is known of a set's completions, besides its preferences.

    Attributes:
        ties: Pairs that were judged equally good, those that rankings imply among them.
        soft: Pairs and ties with a probability instead of a plain label (``p_chosen``, votes).
        strengths: Pairs that say how much better the chosen completion is.
        rankings: How many rankings there are of each number of completions.
        unlisted_pairs: Pairs that rankings imply and that no figure of pairs counts, because one ranking has more than
            :data:`~rewardlab.types.MOST_IMPLIED_PAIRS`.
        ratings: Completions with a rating.
        attributes: Completions with a rating of each attribute.
        outcomes: Completions with an outcome label.
        outcomes_correct: Mean of those labels; None without any.
        solutions: Completions with steps.
        steps: Steps by label: ``correct``, ``neutral``, ``incorrect``, ``unlabelled``.
    """

    ties: int
    soft: int
    strengths: int
    rankings: dict[int, int]
    unlisted_pairs: int
    ratings: int
    attributes: dict[str, int]
    outcomes: int
    outcomes_correct: float | None
    solutions: int
    steps: dict[str, int]

    @classmethod
    def of(cls, groups: Sequence[PromptGroup]) -> Contents:
        """What is known in some groups."""
        pairs = [pair for group in groups for pair in group.pairs]
        labels = [label for group in groups for label in group.labels if label is not None]
        solutions = [steps for group in groups for steps in group.steps if steps]
        names = {1: "correct", 0: "neutral", -1: "incorrect", None: "unlabelled"}
        marks = Counter(names[step.label] for steps in solutions for step in steps)
        sizes = Counter(len(ranking.completions) for group in groups for ranking in group.rankings)
        return cls(
            ties=sum(pair.tie for pair in pairs),
            soft=sum(pair.p_chosen is not None for pair in pairs),
            strengths=sum(pair.strength is not None and not pair.tie for pair in pairs),
            rankings=dict(sorted(sizes.items())),
            unlisted_pairs=sum(group.num_unlisted_pairs for group in groups),
            ratings=sum(rating is not None for group in groups for rating in group.ratings),
            attributes=dict(Counter(name for group in groups for known in group.attributes for name in known)),
            outcomes=len(labels),
            outcomes_correct=sum(labels) / len(labels) if labels else None,
            solutions=len(solutions),
            steps={name: marks[name] for name in names.values()} if solutions else {},
        )

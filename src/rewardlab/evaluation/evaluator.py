"""A scorer and preference pairs -> how good the scorer is.

The scorer is anything that can score groups (:class:`GroupScorer`), so this file knows no model and no tokenizer; what
is measured is :mod:`rewardlab.metrics.pairs`'.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rewardlab.metrics.pairs import EvaluationResult, evaluate_scores, require_pairs
from rewardlab.types import PromptGroup


class GroupScorer(Protocol):
    """Anything that gives each completion of each group a score."""

    def score_groups(self, groups: Sequence[PromptGroup], *, progress: bool = False) -> Sequence[Sequence[float]]:
        """One list of K scores per group, in order."""
        ...


class Evaluator:
    """Evaluates one scorer on preference pairs.

    Args:
        scorer: What gives the scores, e.g. a ``Scorer``.
        resamples: Bootstrap resamples behind the intervals.
        seed: Seed of the resamples; equal scores and seed give equal intervals.
        confidence: Coverage of the intervals, in (0, 1).

    Example:
        >>> from rewardlab.types import Pair
        >>> class ByLength:
        ...     def score_groups(self, groups, progress=False):
        ...         return [[float(len(text)) for text in group.completions] for group in groups]
        >>> groups = [PromptGroup("2 + 2?", ("4, of course.", "5"), pairs=(Pair(0, 1),))]
        >>> Evaluator(ByLength()).evaluate(groups).accuracy.value
        1.0
    """

    def __init__(self, scorer: GroupScorer, *, resamples: int = 2000, seed: int = 0, confidence: float = 0.95) -> None:
        self.scorer = scorer
        self.resamples = resamples
        self.seed = seed
        self.confidence = confidence

    def evaluate(self, groups: Sequence[PromptGroup], progress: bool = False) -> EvaluationResult:
        """Scores the groups and compares the scores with the preferences.

        Args:
            groups: Groups with at least one pair each.
            progress: Whether the scorer shows a progress bar.

        Returns:
            The metrics, their intervals, and each pair's numbers.

        Raises:
            DataError: See :func:`~rewardlab.metrics.pairs.evaluate_scores`.
        """
        require_pairs(groups)  # before the scoring, which may take hours
        scores = self.scorer.score_groups(groups, progress=progress)
        return evaluate_scores(groups, scores, resamples=self.resamples, seed=self.seed, confidence=self.confidence)

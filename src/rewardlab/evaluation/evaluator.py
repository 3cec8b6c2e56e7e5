"""A scorer and groups of which something is known -> how good the scorer is.

The scorer is anything that can score groups (:class:`GroupScorer`), so this file knows no model and no tokenizer; what
is measured is :mod:`rewardlab.metrics`'.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from rewardlab.errors import ConfigError
from rewardlab.evaluation.ensembles import EnsembleResult, evaluate_members
from rewardlab.evaluation.scorers import (
    GroupScorer,
    Scores,
    StepScores,
    is_ensemble,
    require_raw,
    scores_and_steps,
)
from rewardlab.metrics.known import Evaluation, evaluate_known, require_known
from rewardlab.metrics.pairs import EvaluationResult, evaluate_scores, require_pairs
from rewardlab.metrics.ratings import rated_by
from rewardlab.types import PromptGroup


class Evaluator:
    """Evaluates one scorer on preference pairs, or on whatever is known of the groups.

    Args:
        scorer: What gives the scores, e.g. a ``Scorer``; they must be raw. Where its ``reference_scale`` has
            a fitted temperature, the contract's, log loss and calibration are also measured at it.
        resamples: Bootstrap resamples behind the intervals.
        seed: Seed of the resamples; equal scores and seed give equal intervals.
        confidence: Coverage of the intervals, in (0, 1).
        threshold: P(correct) at or below which a step is taken for an error.

    Example:
        >>> from rewardlab.types import Pair
        >>> class ByLength:
        ...     def score_groups(self, groups, progress=False):
        ...         return [[float(len(text)) for text in group.completions] for group in groups]
        >>> groups = [PromptGroup("2 + 2?", ("4, of course.", "5"), pairs=(Pair(0, 1),))]
        >>> Evaluator(ByLength()).evaluate(groups).accuracy.value
        1.0
    """

    def __init__(
        self,
        scorer: GroupScorer,
        *,
        resamples: int = 2000,
        seed: int = 0,
        confidence: float = 0.95,
        threshold: float = 0.5,
    ) -> None:
        self.scorer = scorer
        self.resamples = resamples
        self.seed = seed
        self.confidence = confidence
        self.threshold = threshold

    def evaluate(self, groups: Sequence[PromptGroup], progress: bool = False) -> EvaluationResult:
        """Scores the groups and compares the scores with the preferences.

        Args:
            groups: Groups with at least one pair each.
            progress: Whether the scorer shows a progress bar.

        Returns:
            The metrics, their intervals, and each preference's numbers.

        Raises:
            ConfigError: The scorer gives other than raw scores.
            DataError: See :func:`~rewardlab.metrics.pairs.evaluate_scores`.
        """
        require_raw(self.scorer, "log loss and calibration are of")
        require_pairs(groups)  # before the scoring, which may take hours
        scores = self.scorer.score_groups(groups, progress=progress)
        return evaluate_scores(
            groups,
            scores,
            temperature=self._temperature if self._temperature_of == "pair" else None,
            resamples=self.resamples,
            seed=self.seed,
            confidence=self.confidence,
        )

    def evaluate_all(self, groups: Sequence[PromptGroup], progress: bool = False) -> Evaluation:
        """Scores the groups once and compares the scores with everything that is known of them.

        Args:
            groups: Groups with preferences, rankings, ratings, labels or judged steps, in any mixture.
            progress: Whether the scorer shows a progress bar.

        Returns:
            A part for each kind of knowledge that there is. Attributes are rated by the weights the model was trained
            with, where it was. Judged steps are compared with step scores where the scorer
            has them; the solutions' own scores are compared with "no step is an error" in any case.

        Raises:
            ConfigError: The scorer gives other than raw scores.
            DataError: See :func:`~rewardlab.metrics.known.require_known`.
        """
        require_raw(self.scorer, "log loss and calibration are of")
        require_known(groups)
        contract = getattr(self.scorer, "contract", None)
        weights = contract.objective.get("attribute_weights") if contract is not None else None
        groups = rated_by(groups, weights)
        return self._compared(groups, *scores_and_steps(self.scorer, groups, progress))

    def evaluate_ensemble(
        self, groups: Sequence[PromptGroup], progress: bool = False
    ) -> tuple[Evaluation, EnsembleResult]:
        """As :meth:`evaluate_all`, with what the members say, in one pass.

        Args:
            groups: As there.
            progress: As there.

        Returns:
            The evaluation of the combined scores, and the members' disagreement.

        Raises:
            ConfigError: The scorer is no ensemble.
            DataError: As there.
        """
        if not is_ensemble(self.scorer):
            raise ConfigError("this scorer has no members", hint="evaluate_all measures a single model")
        require_known(groups)
        scores, of_members = self.scorer.score_groups_members(groups, progress=progress)
        options: dict[str, Any] = {"resamples": self.resamples, "seed": self.seed, "confidence": self.confidence}
        told = evaluate_members(groups, scores, of_members, self.scorer.to_dict(), **options)
        return self._compared(groups, scores, None), told

    def _compared(self, groups: Sequence[PromptGroup], scores: Scores, step_scores: StepScores | None) -> Evaluation:
        """The scores compared with everything that is known."""
        read_out = getattr(self.scorer, "read_out", None)
        return evaluate_known(
            groups,
            scores,
            step_scores,
            aggregation=read_out.aggregation if read_out is not None else None,
            threshold=self.threshold,
            temperature=self._temperature,
            temperature_of=self._temperature_of,
            resamples=self.resamples,
            seed=self.seed,
            confidence=self.confidence,
        )

    @property
    def _temperature(self) -> float | None:
        """The contract's, of a scorer that aggregates as it did when the temperature was fitted; else None."""
        scale = getattr(self.scorer, "reference_scale", None)
        return None if scale is None else scale.temperature

    @property
    def _temperature_of(self) -> Literal["pair", "completion"]:
        """What the contract's temperature was fitted on."""
        scale = getattr(self.scorer, "reference_scale", None)
        return "pair" if scale is None else scale.unit

"""Groups and their scores -> every metric that what is known of the groups allows.

This file knows which question each kind of knowledge answers: preferences, rankings, ratings, outcomes, judged steps.
Each answer is its own file's. Where the scores come from is not known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

from rewardlab.errors import DataError
from rewardlab.metrics.bootstrap import Bootstrapped
from rewardlab.metrics.inputs import as_judged, check_scores, check_step_scores
from rewardlab.metrics.outcomes import OutcomeResult, evaluate_outcomes
from rewardlab.metrics.pairs import EvaluationResult, evaluate_scores
from rewardlab.metrics.rankings import RankingResult, evaluate_rankings, orders_something
from rewardlab.metrics.ratings import RatingResult, evaluate_ratings
from rewardlab.metrics.steps import StepResult, evaluate_steps, with_outcomes
from rewardlab.types import PromptGroup

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class Evaluation(Bootstrapped):
    """What one model's scores are worth on one set; a part is None where nothing in the set asks for it.

    Attributes:
        num_groups: Groups given.
        num_unknown: Those of which nothing is known that a score could be compared with; no part counts them.
        num_unlisted: Those with a ranking of so many completions that its pairs are not listed
            (:attr:`~rewardlab.types.PromptGroup.num_unlisted_pairs`): the other parts count them.
        pairs: Preferences, among them those that rankings imply.
        rankings: Rankings as wholes.
        ratings: Ratings.
        attributes: Ratings by attribute.
        outcomes: Completions labelled correct or incorrect.
        solutions: Completions with judged steps, correct if no step is an error.
        steps: Judged steps, where the model scores steps.
    """

    num_groups: int
    num_unknown: int
    num_unlisted: int = 0
    pairs: EvaluationResult | None = None
    rankings: RankingResult | None = None
    ratings: RatingResult | None = None
    attributes: Mapping[str, RatingResult] = field(default_factory=dict)
    outcomes: OutcomeResult | None = None
    solutions: OutcomeResult | None = None
    steps: StepResult | None = None

    def to_dict(self) -> dict[str, Any]:
        """What ``rewardlab evaluate --json`` prints: the pairs' metrics at the top, every other part under its name."""
        parts = {
            "rankings": self.rankings,
            "ratings": self.ratings,
            "outcomes": self.outcomes,
            "solutions": self.solutions,
            "steps": self.steps,
        }
        named = {name: part.to_dict() for name, part in parts.items() if part}
        attributes = {name: result.to_dict() for name, result in self.attributes.items()}
        return {
            **(self.pairs.to_dict() if self.pairs else {}),
            **named,
            **({"attributes": attributes} if attributes else {}),
            "num_groups": self.num_groups,
            "num_unknown": self.num_unknown,
            **({"num_unlisted": self.num_unlisted} if self.num_unlisted else {}),
            "bootstrap": self.bootstrap,
        }


def has_labelled_steps(group: PromptGroup) -> bool:
    """Whether any step of any completion was judged."""
    return any(step.label is not None for steps in group.steps for step in steps)


def require_known(groups: Sequence[PromptGroup]) -> None:
    """Refuses groups of which nothing is known that a score could be compared with; call it before hours of scoring.

    Raises:
        DataError: There are no groups, some say nothing (the first of them are named), or all only say "equally good".
    """
    if not groups:
        raise DataError("there are no rows to evaluate", hint="Give a file with at least one row.")
    unknown = [group.name for group in groups if not _is_known(group)]
    if unknown:
        named = ", ".join(unknown[:5]) + (f" and {len(unknown) - 5} more" if len(unknown) > 5 else "")
        raise DataError(
            f"{len(unknown)} of {len(groups)} rows say nothing that a score could be compared with: {named}",
            hint="Evaluation needs preferences, ranks, ratings, labels or judged steps; "
            "leave the others to `rewardlab score`.",
        )
    if not any(_evaluated(group) for group in groups):
        raise DataError(
            "all pairs are ties: there is no preference to evaluate",
            hint="Add rows in which one completion was preferred.",
        )


def evaluate_known(
    groups: Sequence[PromptGroup],
    scores: Sequence[Sequence[float]],
    step_scores: Sequence[Sequence[Sequence[float]]] | None = None,
    *,
    aggregation: str | None = None,
    threshold: float = 0.5,
    temperature: float | None = None,
    temperature_of: Literal["pair", "completion"] = "pair",
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Evaluation:
    """Compares scores that are already there with everything that is known of the groups.

    Groups of which nothing is known are counted, not refused: see :func:`require_known`.

    Args:
        groups: Any groups.
        scores: Per group, one score per completion.
        step_scores: Per group and completion, P(correct) of each step, an empty tuple for groups without steps; None
            where the model scores no steps.
        aggregation: How the scores were aggregated from tokens or steps; only reported.
        threshold: P(correct) at or below which a step is taken for an error.
        temperature: Fitted temperature, at which log loss, Brier score and calibration are measured as well.
        temperature_of: What it was fitted on, and is therefore measured on: preferences, or outcomes of completions.
        resamples: Bootstrap resamples behind the intervals, which resample prompts.
        seed: Seed of the resamples.
        confidence: Coverage of the intervals, in (0, 1).

    Raises:
        DataError: Scores that do not match the completions or steps one to one, or a score that is not finite.
    """
    check_scores(groups, scores)
    options: dict[str, Any] = {"resamples": resamples, "seed": seed, "confidence": confidence}
    at = {"pair": None, "completion": None, temperature_of: temperature}
    of_outcomes = {"aggregation": aggregation, "temperature": at["completion"], **options}
    parts: dict[str, Any] = {}

    compared = [bool(group.pairs) for group in groups]
    if any(not as_judged(pair).tie for group in groups for pair in group.pairs):
        parts["pairs"] = evaluate_scores(
            _where(compared, groups), _where(compared, scores), temperature=at["pair"], **options
        )
    if any(orders_something(ranking) for group in groups for ranking in group.rankings):
        parts["rankings"] = evaluate_rankings(groups, scores, **options)
    if any(rating is not None for group in groups for rating in group.ratings):
        rated = [bool(group.ratings) for group in groups]
        parts["ratings"] = evaluate_ratings(_where(rated, groups), _where(rated, scores), **options)
    parts["attributes"] = {
        name: evaluate_ratings(_where(has, rated), _where(has, scores), **options)
        for name, rated, has in _by_attribute(groups)
    }
    labelled = [any(label is not None for label in group.labels) for group in groups]
    if any(labelled):
        parts["outcomes"] = evaluate_outcomes(_where(labelled, groups), _where(labelled, scores), **of_outcomes)
    stepped = [has_labelled_steps(group) for group in groups]
    solved = with_outcomes(_where(stepped, groups))
    if any(label is not None for group in solved for label in group.labels):
        parts["solutions"] = evaluate_outcomes(solved, _where(stepped, scores), **of_outcomes)
    if step_scores is not None and any(stepped):
        check_step_scores(groups, step_scores)
        judged = _where(stepped, groups)
        parts["steps"] = evaluate_steps(judged, _where(stepped, step_scores), threshold=threshold, **options)
    unlisted = sum(group.num_unlisted_pairs > 0 for group in groups)
    return Evaluation(len(groups), sum(not _is_known(group) for group in groups), unlisted, **parts, **options)


def _by_attribute(groups: Sequence[PromptGroup]) -> list[tuple[str, list[PromptGroup], list[bool]]]:
    """Per attribute: the groups with it as their rating, and which groups have it."""
    found = []
    for name in sorted({name for group in groups for attributes in group.attributes for name in attributes}):
        rated = [
            replace(group, ratings=tuple(attributes.get(name) for attributes in group.attributes)) for group in groups
        ]
        found.append((name, rated, [any(rating is not None for rating in group.ratings) for group in rated]))
    return found


def _where(mask: Sequence[bool], items: Sequence[_Item]) -> list[_Item]:
    return [item for chosen, item in zip(mask, items, strict=True) if chosen]


def _is_known(group: PromptGroup) -> bool:
    return bool(group.pairs) or _evaluated(group)


def _evaluated(group: PromptGroup) -> bool:
    """Whether any part of an evaluation can be made of this group alone."""
    return (
        any(not as_judged(pair).tie for pair in group.pairs)
        or any(value is not None for value in (*group.ratings, *group.labels))
        or any(group.attributes)
        or any(orders_something(ranking) for ranking in group.rankings)
        or has_labelled_steps(group)
    )

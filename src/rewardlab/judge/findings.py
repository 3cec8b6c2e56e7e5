"""What a run of the judge says beyond its rows: how far it agrees with people, what it costs, who wins.

Each figure is :mod:`rewardlab.metrics`'s or :mod:`rewardlab.judge.quality`'s; this file knows which of them a mode and
its rows call for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rewardlab.errors import DataError
from rewardlab.judge.chat import Usage
from rewardlab.judge.judged_rows import Judged, judged_pairs, ratings_of
from rewardlab.judge.quality import measure_quality, rank_systems, win_rates
from rewardlab.judge.quality_figures import JudgeQuality, as_json
from rewardlab.judge.verdicts import StepsReading
from rewardlab.metrics.bootstrap import Interval
from rewardlab.metrics.first_errors import FirstErrorResult, Solution, evaluate_first_errors, first_error
from rewardlab.metrics.inputs import as_judged
from rewardlab.metrics.pairs import evaluate_scores
from rewardlab.metrics.ratings import RatingResult, evaluate_ratings
from rewardlab.metrics.system_ranking import SystemRanking
from rewardlab.metrics.win_rate import WinRate
from rewardlab.types import PromptGroup

FEWEST_PAIRS = 30
"""Preferences behind an accuracy; with fewer it is noted."""


@dataclass(frozen=True, slots=True)
class ComparisonFindings:
    """What comparisons say, or the comparisons that rankings imply.

    Attributes:
        quality: How far the judge can be believed.
        win_rates: Of each two systems, by their names; empty where the rows name none.
        ranking: Of all systems; None where the rows name none, or there is none.
        notes: Why there is no ranking of systems that were compared.
    """

    quality: JudgeQuality
    win_rates: Mapping[tuple[str, str], WinRate]
    ranking: SystemRanking | None
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """``"quality"``, and where systems were compared ``"win_rates"`` and ``"ranking"``, as JSON values."""
        found: dict[str, Any] = {"quality": self.quality.to_dict()}
        if self.win_rates:
            found["win_rates"] = [
                {"first": first, "second": second, **rate.to_dict()} for (first, second), rate in self.win_rates.items()
            ]
            found["ranking"] = None if self.ranking is None else self.ranking.to_dict()
        return found


def comparison_findings(
    groups: Sequence[PromptGroup],
    judged: Judged,
    *,
    usage: Usage | None = None,
    seconds: float | None = None,
    self_name: str | None = None,
    prior: float = 0.0,
    seed: int = 0,
) -> ComparisonFindings:
    """What a run of comparisons or rankings says.

    Args:
        groups: The groups that were judged.
        judged: The verdicts.
        usage: What was used for them; None of rankings, whose questions are not two for each comparison.
        seconds: What they took; None likewise.
        self_name: What the judge is called among the rows' systems.
        prior: Weight of each system's pseudo-comparisons in the ranking.
        seed: Of the intervals.
    """
    pairs = judged_pairs(groups, judged)
    notes: list[str] = []
    ranking = None
    try:
        ranking = rank_systems(pairs, prior=prior, seed=seed)
    except DataError as error:
        notes.append(f"no ranking of the systems, {error.message}; --prior 1 gives one")
    quality = measure_quality(pairs, usage, self_name, seconds=seconds, seed=seed)
    return ComparisonFindings(quality, win_rates(pairs, seed=seed), ranking, tuple(notes))


@dataclass(frozen=True, slots=True)
class RatingFindings:
    """Ratings of a judge against what the rows say. They are no logits, so there is no log loss of them.

    Attributes:
        num_completions: Rated completions.
        mean: Mean rating.
        left_out: Rows of which a completion has no rating: no figure below counts them.
        num_pairs: Preferences between rated completions.
        accuracy: Share of them whose chosen completion is rated strictly higher; None without any.
        ties: Those rated alike, counted as not won.
        longer_wins: Accuracy of always choosing the longer completion.
        ratings: Beside the rows' own ratings; None where they have none.
    """

    num_completions: int
    mean: float | None
    left_out: int
    num_pairs: int = 0
    accuracy: Interval | None = None
    ties: int = 0
    longer_wins: Interval | None = None
    ratings: RatingResult | None = None

    def to_dict(self) -> dict[str, Any]:
        """All attributes, as JSON values."""
        return as_json(self)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should not overlook."""
        if not 0 < self.num_pairs < FEWEST_PAIRS:
            return ()
        return (
            f"the accuracy of ratings is of {self.num_pairs} preferences only: below {FEWEST_PAIRS} it says little",
        )


def rating_findings(groups: Sequence[PromptGroup], judged: Judged, *, seed: int = 0) -> RatingFindings:
    """Ratings against what the rows say of preferences and ratings."""
    scores = ratings_of(judged)
    values = [score for of_group in scores.values() for score in of_group.values()]
    whole = [index for index in sorted(scores) if len(scores[index]) == len(groups[index].completions)]
    asked = {item.group for item, _ in judged}
    found: dict[str, Any] = {
        "num_completions": len(values),
        "mean": sum(values) / len(values) if values else None,
        "left_out": len(asked) - len(whole),
    }

    def rows(which: Sequence[int]) -> tuple[list[PromptGroup], list[list[float]]]:
        return [groups[i] for i in which], [[scores[i][k] for k in range(len(scores[i]))] for i in which]

    compared = [index for index in whole if groups[index].pairs]
    if any(not as_judged(pair).tie for index in compared for pair in groups[index].pairs):
        result = evaluate_scores(*rows(compared), seed=seed)
        found |= {"num_pairs": result.num_pairs, "accuracy": result.accuracy, "ties": result.ties}
        found["longer_wins"] = result.longer_wins
    rated = [index for index in whole if any(rating is not None for rating in groups[index].ratings)]
    if rated:
        found["ratings"] = evaluate_ratings(*rows(rated), seed=seed)
    return RatingFindings(**found)


def first_error_findings(groups: Sequence[PromptGroup], judged: Judged, *, seed: int = 0) -> FirstErrorResult | None:
    """Where critiques see the first error, against the rows' own labels; None where no row says where it is."""
    solutions = []
    for item, verdict in judged:
        if isinstance(verdict, StepsReading):
            steps = groups[item.group].steps[item.completions[0]]
            says = tuple(0.0 if index == verdict.first_error else 1.0 for index in range(len(steps)))
            solutions.append(Solution(groups[item.group].prompt_key, first_error(steps), says))
    if not any(solution.determined for solution in solutions):
        return None
    return evaluate_first_errors(solutions, seed=seed)

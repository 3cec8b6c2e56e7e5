"""What the members' disagreement says of an ensemble's choices: are the pairs on which they agree decided better?

This file knows the members' scores and the preferences; it knows no models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rewardlab.metrics.bootstrap import Bootstrapped, FloatArray, Interval, Statistic, bootstrap_by_cluster, mean_of
from rewardlab.metrics.inputs import as_judged, check_scores, prompt_clusters
from rewardlab.scoring.combining_scores import disagreement
from rewardlab.types import PromptGroup


@dataclass(frozen=True, slots=True)
class PairSubset:
    """Some of the pairs, and how many of them the ensemble decides as was preferred.

    Attributes:
        num_pairs: How many.
        accuracy: Share of them whose chosen completion scores strictly higher; None where there are none.
    """

    num_pairs: int
    accuracy: Interval | None

    def to_dict(self) -> dict[str, Any]:
        """``{"num_pairs", "accuracy": {"value", "low", "high"} or None}``."""
        return {"num_pairs": self.num_pairs, "accuracy": self.accuracy.to_dict() if self.accuracy else None}


@dataclass(frozen=True, slots=True)
class PairDisagreement:
    """How the members judge the preferences.

    The disagreement on a pair is the standard deviation (ddof 0) of the members' differences, chosen minus rejected:
    what moves both scores of a prompt alike cancels in it.

    Attributes:
        num_pairs: Preferences; ties are none.
        num_prompts: Their prompts, which the intervals resample.
        disagreement: The mean disagreement on a pair.
        member_accuracy: Each member's own accuracy.
        less: The half of the pairs with less disagreement; of an odd number it has the one in the middle.
        more: The other half.
        difference: Accuracy of ``less`` minus accuracy of ``more``; None for a single pair.
        unanimous: The pairs on which all members prefer the same completion.
        split: The others; a member that gives both completions the same score prefers none.
    """

    num_pairs: int
    num_prompts: int
    disagreement: Interval
    member_accuracy: Mapping[str, Interval]
    less: PairSubset
    more: PairSubset
    difference: Interval | None
    unanimous: PairSubset
    split: PairSubset

    def to_dict(self) -> dict[str, Any]:
        """The attributes, ready for JSON."""
        return {
            "num_pairs": self.num_pairs,
            "num_prompts": self.num_prompts,
            "mean_disagreement": self.disagreement.to_dict(),
            "member_accuracy": {name: found.to_dict() for name, found in self.member_accuracy.items()},
            "less_disagreement": self.less.to_dict(),
            "more_disagreement": self.more.to_dict(),
            "difference": self.difference.to_dict() if self.difference else None,
            "unanimous": self.unanimous.to_dict(),
            "split": self.split.to_dict(),
        }


@dataclass(frozen=True, slots=True)
class EnsembleResult(Bootstrapped):
    """What the members of an ensemble say of some groups beside its score.

    Attributes:
        ensemble: Which members, and how they are combined: ``EnsembleScorer.to_dict()``.
        num_completions: Completions scored.
        disagreement: Mean over the completions of the standard deviation (ddof 0) of the members' scores.
        pairs: Of the preferences; None where there are none.
    """

    ensemble: Mapping[str, Any]
    num_completions: int
    disagreement: Interval
    pairs: PairDisagreement | None

    def to_dict(self) -> dict[str, Any]:
        """What ``rewardlab evaluate --json`` prints under ``ensemble``."""
        return {
            **self.ensemble,
            "num_completions": self.num_completions,
            "mean_disagreement": self.disagreement.to_dict(),
            **({"pairs": self.pairs.to_dict()} if self.pairs else {}),
            "bootstrap": self.bootstrap,
        }


def evaluate_members(
    groups: Sequence[PromptGroup],
    scores: Sequence[Sequence[float]],
    member_scores: Sequence[Sequence[Sequence[float]]],
    ensemble: Mapping[str, Any],
    *,
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> EnsembleResult:
    """Compares the members with each other, and their disagreement with the preferences.

    Args:
        groups: Any groups, at least one.
        scores: Per group, the ensemble's score of each completion.
        member_scores: Per group and completion, each member's score on the common scale.
        ensemble: ``EnsembleScorer.to_dict()``, whose ``"members"`` names them in the order of the scores.
        resamples: Bootstrap resamples behind the intervals, which resample prompts.
        seed: Seed of the resamples.
        confidence: Coverage of the intervals, in (0, 1).

    Raises:
        DataError: Scores that do not match the completions one to one, or are not finite.
    """
    check_scores(groups, scores)
    options: dict[str, Any] = {"resamples": resamples, "seed": seed, "confidence": confidence}
    clusters = prompt_clusters(groups)
    completions = [(1.0, float(disagreement(of_one))) for of_group in member_scores for of_one in of_group]
    of_completions = [cluster for cluster, group in zip(clusters, groups, strict=True) for _ in group.completions]
    mean = bootstrap_by_cluster(completions, of_completions, {"mean": mean_of(1)}, **options)["mean"]
    return EnsembleResult(
        ensemble=ensemble,
        num_completions=len(completions),
        disagreement=mean,
        pairs=_pairs(groups, clusters, scores, member_scores, ensemble["members"], options),
        **options,
    )


def _pairs(
    groups: Sequence[PromptGroup],
    clusters: Sequence[str],
    scores: Sequence[Sequence[float]],
    member_scores: Sequence[Sequence[Sequence[float]]],
    names: Sequence[str],
    options: Mapping[str, Any],
) -> PairDisagreement | None:
    judged = [
        (index, pair) for index, group in enumerate(groups) for pair in map(as_judged, group.pairs) if not pair.tie
    ]
    if not judged:
        return None
    chosen = np.array([member_scores[index][pair.chosen] for index, pair in judged], dtype=np.float64)
    rejected = np.array([member_scores[index][pair.rejected] for index, pair in judged], dtype=np.float64)
    differences: FloatArray = chosen - rejected  # (pairs, members)
    won = np.array([scores[index][pair.chosen] > scores[index][pair.rejected] for index, pair in judged], dtype=float)
    spread = disagreement(differences)
    half = np.zeros(len(judged))
    half[np.argsort(spread, kind="stable")[: (len(judged) + 1) // 2]] = 1.0
    unanimous = ((differences > 0).all(axis=1) | (differences < 0).all(axis=1)).astype(float)
    ones = np.ones(len(judged))
    parts = {"less": half, "more": ones - half, "unanimous": unanimous, "split": ones - unanimous}
    columns = [ones, spread, *parts.values(), *(won * member for member in parts.values()), *(differences > 0).T]
    first_won, first_member = 2 + len(parts), 2 + 2 * len(parts)
    statistics: dict[str, Statistic] = {"disagreement": mean_of(1)}
    for number, (name, belongs) in enumerate(parts.items()):
        if belongs.any():
            statistics[name] = mean_of(first_won + number, count=2 + number)
    if "less" in statistics and "more" in statistics:
        less, more = statistics["less"], statistics["more"]
        statistics["difference"] = lambda sums: less(sums) - more(sums)
    statistics |= {f"member {number}": mean_of(first_member + number) for number in range(len(names))}
    of_pairs = [clusters[index] for index, _ in judged]
    table = np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=1)
    found = bootstrap_by_cluster(table, of_pairs, statistics, skip_undefined=True, **options)
    made = {name: PairSubset(int(belongs.sum()), found.get(name)) for name, belongs in parts.items()}
    return PairDisagreement(
        num_pairs=len(judged),
        num_prompts=len(set(of_pairs)),
        disagreement=found["disagreement"],
        member_accuracy={name: found[f"member {number}"] for number, name in enumerate(names)},
        difference=found.get("difference"),
        **made,
    )

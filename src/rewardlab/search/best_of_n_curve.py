"""What the best of n would give, for n = 1, 2, 4, ...: estimated from the N completions of each prompt that there are.

The estimates are unbiased, with intervals by prompt (:func:`~rewardlab.rewards.best_of_n.best_of_n_curve`). Groups may
differ in size: each n is over the groups that have n completions, and says how many they are. Where something is known
of the completions (ratings, outcomes), the same is done for what is known of the pick, against random and an oracle's.

This file knows judged groups and numbers, not models or files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np

from rewardlab.errors import DataError
from rewardlab.metrics.bootstrap import Bootstrapped, FloatArray, Interval
from rewardlab.rewards.best_of_n import best_of_n_curve, default_sizes, kl_of_best_of_n
from rewardlab.search.best_of_n import JudgedGroup


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """What picking the best of n gives.

    Attributes:
        n: How many completions one picks from.
        num_groups: Groups that have that many; the others say nothing of it. Points of different groups are no curve.
        kl: ``log n - (n - 1) / n``, nats.
        value: What the pick of the highest score is worth: its score, or what is known of it.
        oracle: What the best of n by the values themselves is worth; None where the values are the scores.
    """

    n: int
    num_groups: int
    kl: float
    value: Interval
    oracle: Interval | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        oracle = {"oracle": self.oracle.to_dict()} if self.oracle else {}
        return {
            "n": self.n,
            "num_groups": self.num_groups,
            "kl": self.kl,
            "value": self.value.to_dict(),
            **oracle,
        }


@dataclass(frozen=True, slots=True)
class KnownCurve:
    """The known quality of what the scores pick, over the groups in which two or more completions have one.

    Attributes:
        num_groups: Those groups; each counts with its completions whose quality is known.
        random: What a random pick is worth.
        points: What the best of n is worth, and the oracle's.
    """

    num_groups: int
    random: Interval
    points: tuple[CurvePoint, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "num_groups": self.num_groups,
            "random": self.random.to_dict(),
            "points": [point.to_dict() for point in self.points],
        }


@dataclass(frozen=True, slots=True)
class BestOfNSummary(Bootstrapped):
    """A file of judged groups in numbers.

    Attributes:
        num_groups: All groups.
        num_scored: Those with scores; the rest of the numbers is of these.
        n: Fewest, median and most completions of a group.
        expected: The expected highest score of n.
        known: The known quality of the pick: ``"rating"`` in the rows' own units; ``"correct"``, how often it is
            correct, a label above 1/2 counting as that (as in :mod:`rewardlab.metrics.outcomes`).
    """

    num_groups: int
    num_scored: int
    n: tuple[int, float, int]
    expected: tuple[CurvePoint, ...]
    known: dict[str, KnownCurve] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        names = ("min", "median", "max")
        fewest, middle, most = self.n
        return {
            "num_groups": self.num_groups,
            "num_scored": self.num_scored,
            "n": dict(zip(names, self.n, strict=True)),
            # Of a median between two sizes there is no KL.
            "kl": {
                name: kl_of_best_of_n(int(size)) if size == int(size) else None
                for name, size in zip(names, (fewest, middle, most), strict=True)
            },
            "expected": [point.to_dict() for point in self.expected],
            "known": {name: curve.to_dict() for name, curve in self.known.items()},
            "bootstrap": self.bootstrap,
        }


def summarise(judged: Sequence[JudgedGroup], *, resamples: int = 2000, seed: int = 0) -> BestOfNSummary:
    """The expected-best-of-n curves of judged groups.

    Args:
        judged: The groups, at least one of them with scores.
        resamples: Bootstrap resamples behind the intervals.
        seed: Seed of the resamples.

    Raises:
        DataError: No group has scores.
    """
    scored = [one for one in judged if one.scores]
    if not scored:
        raise DataError(f"none of {len(judged):,} groups has scores: there is nothing to summarise")
    sizes = [one.n for one in scored]
    options = {"resamples": resamples, "seed": seed}
    clusters = [one.group.prompt_key for one in scored]
    scores = [np.array(one.scores) for one in scored]
    known = {}
    qualities: dict[str, list[Sequence[float | None]]] = {
        "rating": [one.group.ratings for one in scored],
        "correct": [[None if p is None else float(p > 0.5) for p in one.group.labels] for one in scored],
    }
    for name, of_groups in qualities.items():
        curve = _known(of_groups, scores, clusters, options)
        if curve is not None:
            known[name] = curve
    return BestOfNSummary(
        num_groups=len(judged),
        num_scored=len(scored),
        n=(min(sizes), median(sizes), max(sizes)),
        expected=_points(clusters, [(of_one, of_one) for of_one in scores], options),
        known=known,
        **options,
    )


def _points(
    clusters: Sequence[str],
    rows: Sequence[tuple[FloatArray, FloatArray]],
    options: dict[str, int],
    oracle: bool = False,
) -> tuple[CurvePoint, ...]:
    """A point for each size, of the (scores, values) of each group; with an oracle, who knows the values."""
    populations: dict[tuple[int, ...], list[int]] = {}  # groups -> the sizes that all of them, and no others, have
    for size in default_sizes(max(len(scores) for scores, _ in rows)):
        having = tuple(number for number, (scores, _) in enumerate(rows) if len(scores) >= size)
        populations.setdefault(having, []).append(size)
    points = []
    for having, sizes in populations.items():
        scores, values = zip(*(rows[number] for number in having), strict=True)
        prompts = [clusters[number] for number in having]
        curve = best_of_n_curve(scores, values, sizes, prompts=prompts, **options)
        best = (
            best_of_n_curve(values, values, sizes, prompts=prompts, **options).mean if oracle else [None] * len(sizes)
        )
        points += [
            CurvePoint(n=n, num_groups=len(having), kl=kl, value=value, oracle=of_oracle)
            for n, kl, value, of_oracle in zip(sizes, curve.kl, curve.mean, best, strict=True)
        ]
    return tuple(points)


def _known(
    of_groups: Sequence[Sequence[float | None]],
    scores: Sequence[FloatArray],
    clusters: Sequence[str],
    options: dict[str, int],
) -> KnownCurve | None:
    """The curve of what the pick is worth, by values per group; None where no group has two completions with one."""
    rows, own_clusters = [], []
    for values, own, cluster in zip(of_groups, scores, clusters, strict=True):
        places = [place for place, value in enumerate(values) if value is not None]
        if len(places) > 1:
            rows.append((own[places], np.array([values[place] for place in places], dtype=np.float64)))
            own_clusters.append(cluster)
    if not rows:
        return None
    points = _points(own_clusters, rows, options, oracle=True)
    return KnownCurve(num_groups=len(rows), random=points[0].value, points=points)

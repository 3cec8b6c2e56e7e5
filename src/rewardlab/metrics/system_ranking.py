"""Many systems, compared two at a time: how strong is each, and how sure is its rank?

Bradley-Terry strengths by maximum likelihood, ties by Davidson's model or as half wins, intervals by prompt. numpy, and
SciPy's optimiser, in float64. This file knows names of systems and outcomes; who judged is not known here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rewardlab.errors import DataError
from rewardlab.metrics.bootstrap import Bootstrapped, FloatArray, Interval, Statistic, bootstrap_by_cluster

Outcome: TypeAlias = Literal["first", "second", "tie"]
TieModel: TypeAlias = Literal["davidson", "half"]

ELO_MEAN = 1000.0
ELO_PER_UNIT = 400 / math.log(10)
"""Ten times the odds are 400 points, as in Elo's chess ratings."""


@dataclass(frozen=True, slots=True)
class SystemComparison:
    """One comparison of two systems.

    Attributes:
        first: Name of a system.
        second: Name of another.
        outcome: Which was preferred.
        prompt: Key of the prompt; intervals resample by it.
        weight: What it counts, > 0.
    """

    first: str
    second: str
    outcome: Outcome
    prompt: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class RankedSystem:
    """One system among others.

    Attributes:
        name: Its name.
        strength: Logarithm of its odds against a system of strength 0; strengths of all add up to zero.
        rank: 1 is the strongest; equal strengths share a rank.
        rank_low: Best rank within the interval; None where there is none.
        rank_high: Worst.
        wins: Comparisons won.
        ties: Comparisons tied.
        losses: Comparisons lost.
    """

    name: str
    strength: Interval
    rank: int
    rank_low: int | None
    rank_high: int | None
    wins: int
    ties: int
    losses: int

    @property
    def elo(self) -> Interval:
        """The strength as points: mean 1000, 400 for ten times the odds."""
        low, high = (
            None if at is None else ELO_MEAN + ELO_PER_UNIT * at for at in (self.strength.low, self.strength.high)
        )
        return Interval(ELO_MEAN + ELO_PER_UNIT * self.strength.value, low, high)

    def to_dict(self) -> dict[str, Any]:
        """All attributes and ``elo``; intervals as ``{"value", "low", "high"}``."""
        return {
            "name": self.name,
            "strength": self.strength.to_dict(),
            "elo": self.elo.to_dict(),
            "rank": self.rank,
            "rank_low": self.rank_low,
            "rank_high": self.rank_high,
            "wins": self.wins,
            "ties": self.ties,
            "losses": self.losses,
        }


@dataclass(frozen=True, slots=True)
class SystemRanking(Bootstrapped):
    """Systems in order of strength.

    Attributes:
        systems: The strongest first.
        tie_model: How ties were read.
        nu: Davidson's tie parameter: equally strong systems tie in nu / (2 + nu) of their comparisons. None where ties
            are half wins; 0 where there are none.
        prior: Weight of the pseudo-comparisons of each system; 0: none.
        num_comparisons: Comparisons.
        num_prompts: Clusters that the intervals resample.
        log_likelihood: Of the fit, nats, the pseudo-comparisons among it.
    """

    systems: tuple[RankedSystem, ...]
    tie_model: TieModel
    nu: Interval | None
    prior: float
    num_comparisons: int
    num_prompts: int
    log_likelihood: float

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should not overlook."""
        if self.num_prompts > 1 and any(system.strength.low is None for system in self.systems):
            return (
                "Too many resamples have no finite strengths (some system wins or loses all of its comparisons there): "
                "there are no intervals. More comparisons, or prior=1, would give some.",
            )
        return ()

    def to_dict(self) -> dict[str, Any]:
        """Numbers, text and None only; intervals as ``{"value", "low", "high"}``."""
        return {
            "systems": [system.to_dict() for system in self.systems],
            "tie_model": self.tie_model,
            "nu": self.nu.to_dict() if self.nu else None,
            "prior": self.prior,
            "num_comparisons": self.num_comparisons,
            "num_prompts": self.num_prompts,
            "log_likelihood": self.log_likelihood,
            "notes": list(self.notes),
            "bootstrap": self.bootstrap,
        }


def rank_systems(
    comparisons: Sequence[SystemComparison],
    *,
    tie_model: TieModel = "davidson",
    prior: float = 0.0,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> SystemRanking:
    """Strengths of all systems, with intervals of each strength and of each rank.

    With ``d`` the difference of two strengths, the outcomes first, tie, second have the probabilities
    ``softmax(d/2, log nu, -d/2)`` (Davidson); as half wins a tie is half a comparison won and half a one lost, and
    P(first) is ``sigmoid(d)`` (Bradley-Terry).

    Args:
        comparisons: Of two systems each.
        tie_model: What a tie says.
        prior: Of each system this weight of pseudo-comparisons with a common opponent of strength 0 is added, half of
            them won and half lost. It pulls strengths together, keeps them finite whoever met whom, and its size is the
            user's to state; 0: nothing is added.
        resamples: Bootstrap resamples behind the intervals; each is fitted anew.
        seed: Seed of the resamples.
        confidence: Coverage of the intervals, in (0, 1).

    Raises:
        DataError: Nothing to compare, a system compared with itself, an outcome or a weight that is none; or without a
            prior, strengths that have no finite maximum: some systems never lost to the others, or never met them, or
            ties are too many to tell nu from them.

    Note:
        A rank's interval is of the ranks in the resamples, rounded outwards. Time: 1000 fits of 20 systems take some
        five seconds.

    References:
        Bradley & Terry 1952; Ford 1957 (American Mathematical Monthly 64:28): a finite maximum exists if and only if no
        group of systems is unbeaten by the others; Davidson 1970 (JASA 65:317); ties as half wins: Chatbot Arena,
        arXiv:2403.04132.
    """
    names, rows, kinds = _table(comparisons, tie_model, prior)
    model = _Model(len(names), kinds, tie_model == "davidson", prior)
    sums = rows.sum(axis=0, keepdims=True)
    _require_finite(names, model, sums[0])

    statistics: dict[str, Statistic] = {}
    for place, name in enumerate(names):
        statistics[f"strength {name}"] = lambda draws, place=place: model(draws)[:, place]  # type: ignore[misc]
        statistics[f"rank {name}"] = lambda draws, place=place: _ranks(model(draws))[:, place]  # type: ignore[misc]
    if tie_model == "davidson":
        statistics["nu"] = lambda draws: model(draws)[:, -1]
    found = bootstrap_by_cluster(
        rows,
        [comparison.prompt for comparison in comparisons],
        statistics,
        resamples=resamples,
        seed=seed,
        confidence=confidence,
        skip_undefined=True,
    )
    systems = [_system(name, comparisons, found[f"strength {name}"], found[f"rank {name}"]) for name in names]
    return SystemRanking(
        systems=tuple(sorted(systems, key=lambda system: (system.rank, system.name))),
        tie_model=tie_model,
        nu=found.get("nu"),
        prior=prior,
        num_comparisons=len(comparisons),
        num_prompts=len({comparison.prompt for comparison in comparisons}),
        log_likelihood=model.log_likelihood(sums[0]),
        resamples=resamples,
        seed=seed,
        confidence=confidence,
    )


def _table(
    comparisons: Sequence[SystemComparison], tie_model: str, prior: float
) -> tuple[list[str], FloatArray, NDArray[np.intp]]:
    """The systems, sorted; what is summed, shape (comparisons, 3 * kinds); the two systems of each kind."""
    if tie_model not in ("davidson", "half"):
        raise DataError(f"no tie model is called {tie_model!r}", hint="one of: davidson, half")
    if not (math.isfinite(prior) and prior >= 0):
        raise DataError(f"the prior must be finite and >= 0, got {prior}")
    if not comparisons:
        raise DataError("there are no comparisons of two systems to rank them by")
    for comparison in comparisons:
        if comparison.first == comparison.second:
            raise DataError(f"system {comparison.first!r} is compared with itself")
        if comparison.outcome not in ("first", "second", "tie"):
            raise DataError(f"the outcome {comparison.outcome!r} is not one of first, second, tie")
        if not (math.isfinite(comparison.weight) and comparison.weight > 0):
            raise DataError(f"a comparison's weight must be finite and > 0, got {comparison.weight}")
    names = sorted({name for c in comparisons for name in (c.first, c.second)})
    place = {name: number for number, name in enumerate(names)}
    pairs = sorted({tuple(sorted((place[c.first], place[c.second]))) for c in comparisons})
    kind_of = {pair: number for number, pair in enumerate(pairs)}
    rows = np.zeros((len(comparisons), 3 * len(pairs)))
    for row, c in zip(rows, comparisons, strict=True):
        one, other = place[c.first], place[c.second]
        kind = kind_of[min(one, other), max(one, other)]
        if c.outcome == "tie":
            row[3 * kind + 1] = c.weight
        else:
            row[3 * kind + (0 if (c.outcome == "first") == (one < other) else 2)] = c.weight
    return names, rows, np.array(pairs)


class _Model:
    """The likelihood of counts, and its maximum for each draw of them.

    Counts are one row: of each kind (two systems that met) the wins of the first, the ties, the wins of the second. The
    prior's opponent is one more system, which every system met.

    Args:
        size: Number of systems.
        kinds: The two systems of each kind, shape (kinds, 2).
        has_ties: Whether ties have a parameter; else they are half wins.
        prior: Weight of each system's pseudo-comparisons.
    """

    def __init__(self, size: int, kinds: NDArray[np.intp], has_ties: bool, prior: float) -> None:
        self.size, self._has_ties, self._prior = size, has_ties, prior
        self._nodes = size + (prior > 0)
        self.kinds = kinds
        if prior > 0:
            self.kinds = np.concatenate([kinds, np.column_stack([np.arange(size), np.full(size, size)])])
        halves = (np.eye(self._nodes)[self.kinds[:, 0]] - np.eye(self._nodes)[self.kinds[:, 1]]) / 2
        logits = np.stack([halves, np.zeros_like(halves), -halves], axis=1).reshape(-1, self._nodes)
        of_ties = np.tile([0.0, 1.0, 0.0], len(self.kinds))
        self._design = np.column_stack([logits[:, :-1], of_ties])  # the last strength is zero, then comes log nu
        self._draws = self._found = np.empty((0, 0))

    def __call__(self, draws: FloatArray) -> FloatArray:
        """Strengths and nu of each draw, shape (draws, systems + 1); NaN where there is no finite maximum.

        Fitted once for all statistics that are read off the same draws.
        """
        if not np.array_equal(draws, self._draws):
            self._draws, self._found = draws, np.stack([self._fit(row) for row in draws])
        return self._found

    def counts(self, sums: FloatArray) -> FloatArray:
        """Shape (kinds, 3): wins, ties, losses of the first of each kind, with the prior's."""
        counts = sums.reshape(-1, 3)
        if self._prior > 0:
            counts = np.concatenate([counts, np.tile([self._prior / 2, 0, self._prior / 2], (self.size, 1))])
        if not self._has_ties:
            half = counts[:, 1] / 2
            counts = np.column_stack([counts[:, 0] + half, np.zeros(len(counts)), counts[:, 2] + half])
        return counts

    def components(self, counts: FloatArray) -> NDArray[np.intp]:
        """Number of each system's group, in which each is (over others) both beaten and unbeaten by each."""
        from scipy.sparse import csr_array
        from scipy.sparse.csgraph import connected_components

        beats = np.zeros((self._nodes, self._nodes))
        one, other = self.kinds.T
        np.add.at(beats, (one, other), counts[:, 0] + counts[:, 1])
        np.add.at(beats, (other, one), counts[:, 2] + counts[:, 1])
        groups: NDArray[np.intp] = connected_components(csr_array(beats), connection="strong")[1]
        return groups

    def ties_are_bounded(self, counts: FloatArray) -> bool:
        """Whether nu has a finite maximum, given that every system is linked to every other.

        It has none if strengths could grow apart so that every win spans at least two units and every tie at most two:
        then nu could grow with them. Some round trip of more wins than ties makes that impossible.
        """
        if not counts[:, 1].any():
            return True
        gaps = np.full((self._nodes, self._nodes), -np.inf)
        one, other = self.kinds.T
        tied = np.where(counts[:, 1] > 0, -1.0, -np.inf)
        gaps[one, other] = np.where(counts[:, 0] > 0, 1.0, tied)
        gaps[other, one] = np.where(counts[:, 2] > 0, 1.0, tied)
        for middle in range(self._nodes):
            gaps = np.minimum(np.maximum(gaps, gaps[:, [middle]] + gaps[[middle]]), self._nodes)
        return bool((np.diag(gaps) > 0).any())

    def log_likelihood(self, sums: FloatArray) -> float:
        """At the maximum, nats."""
        counts = self.counts(sums)
        return -self._loss(self._maximum(counts), counts)[0]

    def _fit(self, sums: FloatArray) -> FloatArray:
        counts = self.counts(sums)
        if len(set(self.components(counts))) > 1 or not self.ties_are_bounded(counts):
            return np.full(self.size + 1, np.nan)
        found = self._maximum(counts)
        strengths = np.append(found[: self._nodes - 1], 0.0)[: self.size]
        nu = math.exp(found[-1]) if counts[:, 1].any() else 0.0
        return np.append(strengths - strengths.mean(), nu)

    def _maximum(self, counts: FloatArray) -> FloatArray:
        """All strengths but the last, which is 0, then log nu where there are ties."""
        from scipy.optimize import minimize

        shares = counts / counts.sum()  # so that the tolerance is of the mean
        found = minimize(
            self._loss,
            np.zeros(self._nodes - 1 + bool(counts[:, 1].any())),
            args=(shares,),
            jac=True,
            hess=self._hessian,
            method="trust-exact",
            options={"gtol": 1e-8, "maxiter": 1000},
        )
        return np.asarray(found.x)

    def _loss(self, at: FloatArray, counts: FloatArray) -> tuple[float, FloatArray]:
        """Minus the log-likelihood, and its gradient."""
        design, logs = self._logarithms(at)
        loss = -float(counts[counts > 0] @ logs[counts > 0])
        surplus = counts.sum(axis=1, keepdims=True) * np.exp(logs) - counts
        return loss, surplus.ravel() @ design

    def _hessian(self, at: FloatArray, counts: FloatArray) -> FloatArray:
        design, logs = self._logarithms(at)
        weights = counts.sum(axis=1, keepdims=True) * np.exp(logs)
        means = (np.exp(logs)[:, None, :] @ design.reshape(*logs.shape, -1))[:, 0]
        hessian: FloatArray = (design.T * weights.ravel()) @ design - (means.T * weights.sum(axis=1)) @ means
        return hessian

    def _logarithms(self, at: FloatArray) -> tuple[FloatArray, FloatArray]:
        """What the logits are made of, (3 * kinds, free), and the outcomes' log-probabilities, (kinds, 3)."""
        free = self._nodes - 1
        has_nu = len(at) > free
        design = self._design if has_nu else self._design[:, :free]
        logits = (design @ at).reshape(-1, 3)
        if not has_nu:
            logits[:, 1] = -np.inf
        return design, logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)


def _require_finite(names: list[str], model: _Model, sums: FloatArray) -> None:
    """Refuses comparisons whose likelihood grows without end, and says which systems are unbeaten."""
    hint = "Compare them with the others more often, leave them out, or state prior=1: pseudo-comparisons for all."
    counts = model.counts(sums)
    groups = model.components(counts)
    if len(set(groups)) > 1:
        wins = [(int(one), int(other)) for (one, other), c in zip(model.kinds, counts, strict=True) if c[0]]
        wins += [(int(other), int(one)) for (one, other), c in zip(model.kinds, counts, strict=True) if c[2]]
        beaten = {groups[loser] for winner, loser in wins if groups[winner] != groups[loser]}
        unbeaten = next(group for group in groups if group not in beaten)
        members = [names[place] for place in np.flatnonzero(groups == unbeaten)]
        met = any(groups[winner] == unbeaten != groups[loser] for winner, loser in wins)
        why = "never lost to or tied with the others" if met else "were never compared with the others"
        raise DataError(f"no finite strengths: {', '.join(members)} {why}", hint=hint)
    if not model.ties_are_bounded(counts):
        raise DataError(
            "no finite strengths: there are too few wins beside the ties to tell how likely a tie is",
            hint="State prior=1: pseudo-comparisons for all; or read ties as half wins, tie_model='half'.",
        )


def _ranks(found: FloatArray) -> FloatArray:
    """Ranks from 1 of each draw's systems, shape (draws, systems); NaN where strengths are."""
    strengths = found[:, :-1].round(9)  # what differs by the optimiser's tolerance alone is equal
    above = (strengths[:, None, :] > strengths[:, :, None]).sum(axis=2)
    return np.where(np.isfinite(strengths), 1.0 + above, np.nan)


def _system(name: str, comparisons: Sequence[SystemComparison], strength: Interval, rank: Interval) -> RankedSystem:
    own = [c for c in comparisons if name in (c.first, c.second)]
    wins = sum((c.first if c.outcome == "first" else c.second) == name for c in own if c.outcome != "tie")
    ties = sum(c.outcome == "tie" for c in own)
    return RankedSystem(
        name=name,
        strength=strength,
        rank=round(rank.value),
        rank_low=None if rank.low is None else math.floor(rank.low),
        rank_high=None if rank.high is None else math.ceil(rank.high),
        wins=wins,
        ties=ties,
        losses=len(own) - wins - ties,
    )

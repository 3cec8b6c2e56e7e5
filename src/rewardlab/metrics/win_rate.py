"""How often one system's completions are preferred to another's, as they are and as if both were equally long.

Judges like long answers, so a system wins comparisons by writing more. The length-controlled win rate is what a
logistic fit of the preference on the length difference says of two equally long completions. Pure numpy in float64;
this file knows preferences and lengths, and neither systems nor judges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rewardlab.metrics.bootstrap import (
    Bootstrapped,
    FloatArray,
    Interval,
    bootstrap_by_cluster,
    bootstrap_weights,
    mean_of,
)
from rewardlab.metrics.probability import sigmoid

FEWEST_COMPARISONS = 30
"""Comparisons behind a fit; below it none is given."""

_MOST_STEPS = 50
_LARGEST = 30.0  # a coefficient beyond it is on its way to infinity


@dataclass(frozen=True, slots=True)
class WinRate(Bootstrapped):
    """How often the first system is preferred to the second.

    Attributes:
        num_comparisons: Comparisons.
        num_prompts: Clusters that the intervals resample.
        wins: Comparisons whose preference is above 1/2.
        ties: Comparisons whose preference is exactly 1/2.
        win_rate: Mean preference; of hard verdicts (wins + ties / 2) / comparisons.
        soft_win_rate: Mean probability that the first is preferred; None where none are given.
        length_controlled: The same if both were equally long, by the fit; None where there is none.
        length_coefficient: What the fit gives ``tanh(length difference / its standard deviation)``; above 0 longer
            completions are preferred.
        notes: Why what is None is None.
    """

    num_comparisons: int
    num_prompts: int
    wins: int
    ties: int
    win_rate: Interval
    soft_win_rate: Interval | None
    length_controlled: Interval | None
    length_coefficient: Interval | None
    notes: tuple[str, ...]

    @property
    def losses(self) -> int:
        """Comparisons whose preference is below 1/2."""
        return self.num_comparisons - self.wins - self.ties

    def to_dict(self) -> dict[str, Any]:
        """Numbers, text and None only; intervals as ``{"value", "low", "high"}``."""
        return {
            "num_comparisons": self.num_comparisons,
            "num_prompts": self.num_prompts,
            "wins": self.wins,
            "ties": self.ties,
            "losses": self.losses,
            "win_rate": self.win_rate.to_dict(),
            "soft_win_rate": self.soft_win_rate.to_dict() if self.soft_win_rate else None,
            "length_controlled": self.length_controlled.to_dict() if self.length_controlled else None,
            "length_coefficient": self.length_coefficient.to_dict() if self.length_coefficient else None,
            "notes": list(self.notes),
            "bootstrap": self.bootstrap,
        }


def win_rate(
    preferences: ArrayLike,
    first_lengths: ArrayLike,
    second_lengths: ArrayLike,
    prompts: Sequence[str],
    *,
    probabilities: ArrayLike | None = None,
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> WinRate:
    """Win rate of a first system over a second one, raw and length-controlled ("LC-style").

    The fit is ``P(first) = sigmoid(a + b * tanh(d / s))``, d the length difference (first minus second) and s the
    standard deviation of all of them (ddof 1), by maximum likelihood; the length-controlled win rate is
    ``sigmoid(a)``, the prediction at d = 0. Each resample is fitted anew, with the same s.

    Args:
        preferences: P(the first is preferred), shape (comparisons,), in [0, 1]: 1, 1/2 and 0 for a win, a tie and a
            loss.
        first_lengths: Lengths of the first system's completions, shape (comparisons,), characters.
        second_lengths: Lengths of the second system's.
        prompts: Label of each comparison's prompt; the intervals are by prompt.
        probabilities: A judge's probabilities that the first is preferred, for a rate of their own; shape
            (comparisons,), in [0, 1].
        resamples: Bootstrap resamples behind the intervals.
        seed: Seed of the resamples.
        confidence: Coverage of the intervals, in (0, 1).

    Raises:
        ValueError: No comparisons, shapes that differ, or a preference or probability outside [0, 1].

    Note:
        Time: 2000 resamples of 1,000 comparisons take about a second, of 20,000 some twenty.

        AlpacaEval's own figure has two more terms, of the instruction's difficulty and of baselines told to be verbose,
        and an L1 penalty; their weights are of its 805 prompts. Without them the two figures are not the same, and this
        one is called LC-style.

    References:
        Dubois et al. 2024 (arXiv:2404.04475), equations 1 and 2; tatsu-lab/alpaca_eval, metrics/glm_winrate.py.
    """
    chosen = np.asarray(preferences, dtype=np.float64)
    differences = np.asarray(first_lengths, dtype=np.float64) - np.asarray(second_lengths, dtype=np.float64)
    if chosen.ndim != 1 or not len(chosen) or differences.shape != chosen.shape:
        raise ValueError(f"preferences have the shape {chosen.shape}, length differences {differences.shape}")
    columns = {"win_rate": chosen}
    if probabilities is not None:
        columns["soft_win_rate"] = np.asarray(probabilities, dtype=np.float64)
    for name, column in columns.items():
        if column.shape != chosen.shape or not ((column >= 0) & (column <= 1)).all():
            raise ValueError(f"{name}: a value is outside [0, 1], or the shape is not {chosen.shape}")
    options: dict[str, Any] = {"resamples": resamples, "seed": seed, "confidence": confidence}
    rows = np.column_stack([np.ones(len(chosen)), *columns.values()])
    means = {name: mean_of(place) for place, name in enumerate(columns, start=1)}
    rates = bootstrap_by_cluster(rows, prompts, means, **options)
    controlled, coefficient, note = _length_controlled(chosen, differences, prompts, options)
    return WinRate(
        num_comparisons=len(chosen),
        num_prompts=len(set(prompts)),
        wins=int((chosen > 0.5).sum()),
        ties=int((chosen == 0.5).sum()),
        win_rate=rates["win_rate"],
        soft_win_rate=rates.get("soft_win_rate"),
        length_controlled=controlled,
        length_coefficient=coefficient,
        notes=(note,) if note else (),
        **options,
    )


def length_feature(differences: ArrayLike) -> FloatArray | None:
    """``tanh(d / s)`` of length differences d, s their standard deviation (ddof 1); None where they never vary.

    Args:
        differences: Shape (comparisons,), characters.
    """
    values = np.asarray(differences, dtype=np.float64)
    spread = values.std(ddof=1) if len(values) > 1 else 0.0
    return np.tanh(values / spread) if spread > 0 else None


def fit_logistic(features: FloatArray, targets: FloatArray, weights: FloatArray) -> FloatArray:
    """Logistic regression by maximum likelihood, once for each row of weights; no penalty.

    Args:
        features: Shape (rows, features); a column of ones for an intercept.
        targets: Probability of the positive outcome, shape (rows,), in [0, 1].
        weights: What each row counts in each fit, shape (fits, rows), >= 0.

    Returns:
        Coefficients, shape (fits, features); NaN where a fit has no finite maximum: the features tell the outcomes
        apart without an error, or are proportional to each other.

    Note:
        Newton's method from zero, each step at most 4 long: the likelihood is concave, and features are of size 1.
    """
    found = np.zeros((len(weights), features.shape[1]))
    moving = np.arange(len(weights))
    squares = (features[:, :, None] * features[:, None, :]).reshape(len(features), -1)
    for _ in range(_MOST_STEPS):
        p = sigmoid(found[moving] @ features.T)
        own = weights[moving]
        gradients = (own * (targets - p)) @ features
        hessians = (own * p * (1 - p) @ squares).reshape(len(moving), features.shape[1], -1)
        size = own.sum(axis=1) + 1e-300
        # In units of a row's share: a determinant of nearly zero is a direction in which the likelihood is flat.
        flat = np.linalg.det(hessians / size[:, None, None]) < 1e-12
        hessians[flat] = np.eye(features.shape[1])
        steps = np.linalg.solve(hessians, gradients[:, :, None])[:, :, 0]
        lengths = np.linalg.norm(steps, axis=1)
        steps *= np.minimum(1.0, 4.0 / np.maximum(lengths, 1e-300))[:, None]
        found[moving] += steps
        lost = flat | (np.abs(found[moving]).max(axis=1) > _LARGEST)
        found[moving[lost]] = np.nan
        moving = moving[~lost & (lengths > 1e-10)]
        if not len(moving):
            return found
    found[moving] = np.nan
    return found


def _length_controlled(
    chosen: FloatArray, differences: FloatArray, prompts: Sequence[str], options: dict[str, Any]
) -> tuple[Interval | None, Interval | None, str]:
    """The length-controlled win rate and the coefficient, or why there is none."""
    if len(chosen) < FEWEST_COMPARISONS:
        return None, None, f"no length control: {len(chosen)} comparisons, fewer than {FEWEST_COMPARISONS}"
    lengths = length_feature(differences)
    if lengths is None:
        return None, None, "no length control: the length difference is always the same"
    features = np.column_stack([np.ones(len(chosen)), lengths])
    if not np.isfinite(fit_logistic(features, chosen, np.ones((1, len(chosen))))).all():
        return None, None, "no length control: length alone, or always the same system, is right about every comparison"
    fits = _Fits(features, chosen)
    found = bootstrap_weights(
        prompts,
        {"controlled": lambda weights: sigmoid(fits(weights)[:, 0]), "length": lambda weights: fits(weights)[:, 1]},
        **options,
    )
    return found["controlled"], found["length"], ""


class _Fits:
    """The fit of each draw, made once for all statistics that are read off it."""

    def __init__(self, features: FloatArray, targets: FloatArray) -> None:
        self._features, self._targets = features, targets
        self._weights: FloatArray | None = None
        self._found = np.empty((0, 0))

    def __call__(self, weights: FloatArray) -> FloatArray:
        if weights is not self._weights:
            self._weights, self._found = weights, fit_logistic(self._features, self._targets, weights)
        return self._found

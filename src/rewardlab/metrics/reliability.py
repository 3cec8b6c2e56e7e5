"""What a reliability diagram draws: stated confidence against how often it came true, bin by bin.

Pure numpy in float64. What a confidence is, and which bin it falls into, is :mod:`rewardlab.metrics.probability`'s, so
the bars of a plot and the calibration error beside it are of the same bins. This file draws nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rewardlab.metrics.probability import bin_numbers, label_array, pair_confidences, scaled_margins, sigmoid

Z_95 = NormalDist().inv_cdf(0.975)
"""Quantile of two-sided 95 % intervals."""

RELIABILITY_BINS = 10
"""Fewer than for the calibration error, so that each is drawn from pairs enough."""


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """One bin with something in it.

    Attributes:
        low: Its lower edge, included.
        high: Its upper edge; included in the last bin only.
        num_pairs: How many pairs (of outcomes: completions) are in it.
        mean_confidence: Mean of what they state.
        share_right: How often that came true; equal scores count half.
        share_low: Lower bound of the share, Wilson's interval, pairs counted as independent.
        share_high: Upper bound.
    """

    low: float
    high: float
    num_pairs: int
    mean_confidence: float
    share_right: float
    share_low: float
    share_high: float


def reliability(
    margins: ArrayLike,
    temperature: float = 1.0,
    *,
    confidence: float = 0.95,
) -> list[ReliabilityBin]:
    """The bins of pairs: confidence ``sigmoid(|margin| / T)``, right where the higher score is the chosen one.

    Args:
        margins: Chosen minus rejected scores, shape (pairs,), logits.
        temperature: What the margins are divided by, > 0.
        confidence: Coverage of the shares' intervals, in (0, 1).

    Returns:
        The bins from low to high, :data:`RELIABILITY_BINS` of equal width on [0.5, 1]; empty ones are left out.

    Raises:
        ValueError: No margins, one that is not finite, a temperature that is not > 0, or a confidence outside (0, 1).

    References:
        Wilson 1927 (JASA 22:209), for the interval of a share.
    """
    scaled = scaled_margins(margins, temperature)
    stated, outcome = pair_confidences(scaled, label_array(None, scaled.size))
    return _binned(stated, outcome, 0.5, confidence)


def outcome_reliability(
    logits: ArrayLike,
    labels: ArrayLike,
    temperature: float = 1.0,
    *,
    confidence: float = 0.95,
) -> list[ReliabilityBin]:
    """The bins of outcomes: P(correct) = ``sigmoid(logit / T)`` on [0, 1], right where the completion is correct.

    Args:
        logits: Logit of each completion, shape (completions,).
        labels: 1 where it is correct, 0 where it is not, or the probability that it is; shape (completions,).
        temperature: What the logits are divided by, > 0.
        confidence: Coverage of the shares' intervals, in (0, 1).

    Returns:
        The bins from low to high, :data:`RELIABILITY_BINS` of equal width on [0, 1]; empty ones are left out.

    Raises:
        ValueError: See :func:`reliability`; or labels that do not fit.
    """
    scaled = scaled_margins(logits, temperature)
    stated = sigmoid(scaled)
    return _binned(stated, label_array(labels, scaled.size), 0.0, confidence)


def _binned(
    stated: NDArray[np.float64], outcome: NDArray[np.float64], lowest: float, confidence: float
) -> list[ReliabilityBin]:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence}")
    quantile = NormalDist().inv_cdf((1 + confidence) / 2)
    edges, size = np.linspace(lowest, 1.0, RELIABILITY_BINS + 1), RELIABILITY_BINS
    numbers = bin_numbers(stated, edges)
    counts = np.bincount(numbers, minlength=size)
    stated_sums, outcome_sums = (np.bincount(numbers, values, size) for values in (stated, outcome))
    found = []
    for number in np.flatnonzero(counts):
        count = int(counts[number])
        share = float(outcome_sums[number]) / count
        low, high = wilson(share, count, quantile)
        mean = float(stated_sums[number]) / count
        found.append(ReliabilityBin(float(edges[number]), float(edges[number + 1]), count, mean, share, low, high))
    return found


def wilson(share: float, count: int, quantile: float) -> tuple[float, float]:
    """Where a share could lie: the roots of ``(share - p)^2 = quantile^2 p (1 - p) / count`` in p (Wilson 1927).

    Args:
        share: What was seen, in [0, 1].
        count: Of how many.
        quantile: Of the normal distribution; 1.96 for 95 %.
    """
    squared = quantile**2 / count
    middle = (share + squared / 2) / (1 + squared)
    half = math.sqrt(squared * share * (1 - share) + squared**2 / 4) / (1 + squared)
    return max(0.0, middle - half), min(1.0, middle + half)

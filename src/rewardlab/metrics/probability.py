"""Scores read as probabilities: log loss and calibration of ``sigmoid(margin / T)``.

Pure numpy in float64. This file knows margins (chosen minus rejected score); it knows no model and no text, and it does
not fit the temperature T. Each mean comes with its rows (:func:`pair_log_losses`, :func:`calibration_gaps`), because a
bootstrap adds rows up per prompt.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

ECE_BINS = 15
"""Number of equal-width bins on [0.5, 1], after Guo et al. 2017 (arXiv:1706.04599), who use 15."""


def _scaled(margins: ArrayLike, temperature: float) -> NDArray[np.float64]:
    array = np.asarray(margins, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"margins must have the shape (pairs,) with at least one pair, got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"margin {int(np.argmin(np.isfinite(array)))} is not finite")
    if not 0 < temperature < np.inf:
        raise ValueError(f"temperature must be > 0 and finite, got {temperature}")
    return array / temperature


def pair_log_losses(margins: ArrayLike, temperature: float = 1.0) -> NDArray[np.float64]:
    """Negative log-likelihood of each preference, ``-log sigmoid(margin / T)``.

    Args:
        margins: Chosen minus rejected scores, shape (pairs,), logits.
        temperature: What the margins are divided by, > 0.

    Returns:
        Shape (pairs,), float64, nats, >= 0; ``log 2`` for a tie.

    Raises:
        ValueError: No margins, one that is not finite, or a temperature that is not > 0.

    Note:
        Computed as ``softplus(-margin / T)``: ``log(sigmoid(-1000))`` would be minus infinity, this is 1000.
    """
    return np.logaddexp(0.0, -_scaled(margins, temperature))


def log_loss(margins: ArrayLike, temperature: float = 1.0) -> float:
    """Mean negative log-likelihood of the preferences under Bradley-Terry: ``mean(softplus(-margin / T))``.

    A coin flip, and a model whose scores are all equal, have log 2 = 0.6931. Above that the scores are worse than no
    scores: usually right in order but too sure, which a temperature mends.

    Args:
        margins: Chosen minus rejected scores, shape (pairs,), logits.
        temperature: What the margins are divided by, > 0.

    Returns:
        Mean over pairs, nats.

    Raises:
        ValueError: See :func:`pair_log_losses`.

    References:
        Bradley & Terry 1952. Equals ``sklearn.metrics.log_loss`` of the pairs seen in both orders.

    Example:
        >>> round(log_loss([0.0]), 4)
        0.6931
    """
    return float(np.mean(pair_log_losses(margins, temperature)))


def calibration_gaps(margins: ArrayLike, temperature: float = 1.0, bins: int = ECE_BINS) -> NDArray[np.float64]:
    """Per pair, confidence minus outcome, written in the column of the confidence's bin.

    The bins of a pair do not depend on the other pairs, so the calibration error of any selection of rows is a function
    of their column sums, which is what makes its bootstrap cheap.

    Args:
        margins: Chosen minus rejected scores, shape (pairs,), logits.
        temperature: What the margins are divided by, > 0.
        bins: Number of equal-width bins on [0.5, 1]; a bin includes its lower edge, the last one also 1.

    Returns:
        Shape (pairs, bins), float64; one entry per row may differ from zero.

    Raises:
        ValueError: See :func:`pair_log_losses`; or bins < 1.
    """
    scaled = _scaled(margins, temperature)
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    confidence = 1.0 / (1.0 + np.exp(-np.abs(scaled)))
    outcome = np.where(scaled > 0, 1.0, np.where(scaled < 0, 0.0, 0.5))
    inner_edges = np.linspace(0.5, 1.0, bins + 1)[1:-1]
    gaps = np.zeros((scaled.size, bins))
    gaps[np.arange(scaled.size), np.searchsorted(inner_edges, confidence, side="right")] = confidence - outcome
    return gaps


def expected_calibration_error(margins: ArrayLike, temperature: float = 1.0, bins: int = ECE_BINS) -> float:
    """Expected calibration error (ECE): how far stated confidence is from how often the higher score wins.

    ``sum over bins of |sum over the bin's pairs of (confidence - outcome)| / pairs``, with confidence
    ``sigmoid(|margin| / T)`` and outcome 1 where the higher score is the chosen one, 0 where it is the rejected one,
    and 1/2 where the scores are equal.

    Why not ``sigmoid(margin / T)`` against "chosen wins": each row says which side won, so the outcome would always be
    1 and no honest probability could match it. A pair has no first side; it has to be seen in both orders, ``(p, y)``
    and ``(1 - p, 1 - y)``. The two have the same gap in mirrored bins, so the half with ``p >= 0.5`` says it all, and
    that half is ``sigmoid(|margin| / T)`` against "the higher score is the chosen one".

    Args:
        margins: Chosen minus rejected scores, shape (pairs,), logits.
        temperature: What the margins are divided by, > 0.
        bins: Number of equal-width bins on [0.5, 1]; a bin includes its lower edge, the last one also 1.

    Returns:
        Error in [0, 1]. It is biased upward in small sets: see ``docs/metrics.md``.

    Raises:
        ValueError: See :func:`calibration_gaps`.

    References:
        Naeini et al. 2015 (AAAI, "Obtaining well calibrated probabilities using Bayesian binning"); Guo et al. 2017,
        eq. 3 (arXiv:1706.04599).

    Example:
        >>> expected_calibration_error([0.0, 0.0])  # ties say 1/2, and count as half right
        0.0
    """
    gaps = calibration_gaps(margins, temperature, bins)
    return float(np.abs(gaps.sum(axis=0)).sum() / len(gaps))

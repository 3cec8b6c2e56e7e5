"""How often, and by how much, the chosen completion scores higher.

Pure numpy in float64. This file knows scores of pairs; it knows no model, no text and no prompts, so it cannot
give intervals: pairs of one prompt are not independent, and only :mod:`rewardlab.metrics.bootstrap` is told which
belong together.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def score_margins(chosen: ArrayLike, rejected: ArrayLike) -> NDArray[np.float64]:
    """Score of the chosen completion minus score of the rejected one, checked.

    The difference is taken in float64, so it is zero if and only if the two scores are equal.

    Args:
        chosen: Scores of the chosen completions, shape (pairs,), logits.
        rejected: Scores of the rejected completions, shape (pairs,), logits.

    Returns:
        Margins, shape (pairs,), float64, in score units.

    Raises:
        ValueError: No pairs, shapes that differ (broadcasting would compare the wrong pairs) or are not (pairs,), or a
            score that is not finite (NaN compares as "not a win" and would pass for a wrong answer).
    """
    left, right = np.asarray(chosen, dtype=np.float64), np.asarray(rejected, dtype=np.float64)
    if left.shape != right.shape or left.ndim != 1:
        raise ValueError(f"chosen {left.shape} and rejected {right.shape} must both have the shape (pairs,)")
    if left.size == 0:
        raise ValueError("no pairs: a mean over nothing is not defined")
    finite = np.isfinite(left) & np.isfinite(right)
    if not finite.all():
        first = int(np.argmin(finite))
        raise ValueError(f"pair {first} has a score that is not finite: {left[first]} against {right[first]}")
    margins: NDArray[np.float64] = left - right
    return margins


def pairwise_accuracy(chosen: ArrayLike, rejected: ArrayLike) -> float:
    """Share of pairs whose chosen completion scores strictly higher; a tie is not a win.

    ``mean(chosen > rejected)``. A model that gives every completion the same score has accuracy 0, not 1/2: counting
    ties as half would let a collapsed model pass for chance.

    Args:
        chosen: Scores of the chosen completions, shape (pairs,).
        rejected: Scores of the rejected completions, shape (pairs,).

    Returns:
        Accuracy in [0, 1].

    Raises:
        ValueError: See :func:`score_margins`.

    References:
        TRL 1.16 ``RewardTrainer``, metric ``accuracy`` (there a mean of batch means).

    Example:
        >>> pairwise_accuracy([2.0, 1.0, 0.0], [1.0, 1.0, 3.0])  # a win, a tie, a loss
        0.3333333333333333
    """
    return float(np.mean(score_margins(chosen, rejected) > 0))


def tie_rate(chosen: ArrayLike, rejected: ArrayLike) -> float:
    """Share of pairs whose two scores are exactly equal.

    Args:
        chosen: Scores of the chosen completions, shape (pairs,).
        rejected: Scores of the rejected completions, shape (pairs,).

    Returns:
        Rate in [0, 1]; ``pairwise_accuracy(a, b) + pairwise_accuracy(b, a) + tie_rate(a, b) == 1``.

    Raises:
        ValueError: See :func:`score_margins`.
    """
    return float(np.mean(score_margins(chosen, rejected) == 0))


def mean_margin(chosen: ArrayLike, rejected: ArrayLike) -> float:
    """Mean of chosen minus rejected score: the metric ``margin``, as TRL names it.

    Not the column ``margin``, which is what a loss subtracts. Its size depends on the model's scale; compare it between
    checkpoints of one run, not between models.

    Args:
        chosen: Scores of the chosen completions, shape (pairs,).
        rejected: Scores of the rejected completions, shape (pairs,).

    Returns:
        Mean difference, in score units.

    Raises:
        ValueError: See :func:`score_margins`.
    """
    return float(np.mean(score_margins(chosen, rejected)))

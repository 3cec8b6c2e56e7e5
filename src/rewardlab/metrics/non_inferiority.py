"""Is one model's accuracy at most so much below another's on the same pairs? The paired score test and its bounds.

The bootstrap cannot answer this of few pairs: where both models are right about the same pairs its interval is a single
point, however few they are. The score test can: twenty pairs without a difference still leave a loss of ten points
possible. Pure numpy, SciPy for a quantile and a root; only counts are known here.

References:
    Tango 1998 (Statistics in Medicine 17:891), eq. 2 and 3, after Nam 1997 (Biometrics 53:1422).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from rewardlab.metrics.bootstrap import FloatArray

_EDGE = 1e-12  # a difference of accuracies lies between -1 and 1; at the ends its variance is zero


def score_z(only_first: ArrayLike, only_second: ArrayLike, num_pairs: ArrayLike, difference: float) -> FloatArray:
    """How far the observed difference of accuracies, second minus first, lies above a supposed one.

    Args:
        only_first: Pairs that only the first model has right; any shape, fractions too (:func:`design_effect`).
        only_second: Pairs that only the second has right, same shape.
        num_pairs: All pairs, same shape.
        difference: The supposed difference, in (-1, 1).

    Returns:
        Standard normal where the true difference is the supposed one; 0 where nothing is known. At 0 it is
        McNemar's ``(c - b) / sqrt(b + c)``.
    """
    b, c, n = (np.asarray(value, dtype=np.float64) for value in (only_first, only_second, num_pairs))
    # The likeliest share of pairs that only the first has right, given that the second's is larger by the difference.
    linear = (2 * n - (c - b)) * difference - b - c
    share = (np.sqrt(linear**2 + 8 * n * b * difference * (1 - difference)) - linear) / (4 * n)
    variance = n * (2 * share + difference * (1 - difference))
    above = c - b - n * difference
    z: FloatArray = np.divide(above, np.sqrt(np.maximum(variance, 0)), out=np.zeros_like(above), where=variance > 0)
    return z


def difference_bounds(
    only_first: float, only_second: float, num_pairs: float, confidence: float = 0.95
) -> tuple[float, float]:
    """One-sided lower and upper bound of the difference of accuracies, second minus first.

    Args:
        only_first: As for :func:`score_z`.
        only_second: As there.
        num_pairs: As there.
        confidence: Of each bound by itself; together they enclose the difference with ``2 * confidence - 1``.

    Example:
        >>> low, high = difference_bounds(0, 0, 20)
        >>> round(low, 3), round(high, 3)
        (-0.119, 0.119)
    """
    from scipy.optimize import brentq
    from scipy.stats import norm

    limit = float(norm.ppf(confidence))

    def beyond(supposed: float, sign: float) -> float:
        return sign * float(score_z(only_first, only_second, num_pairs, supposed)) - limit

    bounds = []
    for sign in (1.0, -1.0):
        far, near = -sign * (1 - _EDGE), (only_second - only_first) / num_pairs
        bounds.append(float(brentq(beyond, far, near, args=(sign,))) if beyond(far, sign) > 0 else -sign)
    return bounds[0], bounds[1]


def design_effect(differences: ArrayLike, clusters: Sequence[str]) -> float:
    """How many pairs count as one where pairs of one prompt are right or wrong together; at least 1.

    Counts divided by it are those of as many independent pairs as say equally much.

    Args:
        differences: Per pair 1 where only the second model is right, -1 where only the first is, else 0.
        clusters: Label of each pair's prompt.

    Returns:
        The variance of the mean difference with prompts as the units / with pairs as the units. Where no pair differs,
        or all are of one prompt, the pairs for each prompt, which is the most it can be.
    """
    values = np.asarray(differences, dtype=np.float64)
    numbers = np.unique(np.asarray(clusters), return_inverse=True)[1]
    count = int(numbers.max()) + 1
    centred = values - values.mean()
    by_pair = float((centred**2).sum())
    if not by_pair or count == 1:
        return len(values) / count
    sums = np.bincount(numbers, weights=centred)
    return max(1.0, float((sums**2).sum()) / by_pair)


def pairs_needed(
    discordant: float, tolerance: float, *, effect: float = 1.0, confidence: float = 0.95, power: float = 0.8
) -> int | None:
    """Pairs with which two equally good models are shown to differ by less than a tolerance.

    Args:
        discordant: Share of the pairs that only one of the two has right.
        tolerance: Loss of accuracy that is tolerated; of 0 no number of pairs is enough.
        effect: The :func:`design_effect`.
        confidence: Of the one-sided bound.
        power: How often they are shown to.

    Returns:
        ``(z_confidence + z_power)^2 * discordant / tolerance^2``, times the effect, but never fewer than it takes where
        no pair differs; None where the tolerance is 0.

    Example:
        >>> pairs_needed(0.1, 0.01)
        6183
    """
    from scipy.stats import norm

    if tolerance <= 0:
        return None
    sure, found = (float(norm.ppf(share)) for share in (confidence, power))
    least = sure**2 * (1 - tolerance) / tolerance
    return math.ceil(effect * max(least, (sure + found) ** 2 * discordant / tolerance**2))

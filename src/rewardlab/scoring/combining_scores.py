"""Several members' scores of one completion -> one score, and how far they disagree.

=========  ==============================================================================================
how        the one score
=========  ==============================================================================================
mean       the members' mean
min        the lowest: the worst case
median     the middle one; of an even number the mean of the middle two
mean-std   mean - k x std (ddof 0)
weighted   sum of weight x score, the weights divided by their sum
=========  ==============================================================================================

Pure numpy. This file knows numbers on one scale; how they came on it is :mod:`rewardlab.scoring.ensemble`'s.

References:
    Coste et al. 2023 (arXiv:2310.02743): the mean, the worst case (WCO, our ``min``) and the
    uncertainty-weighted one (UWO). UWO subtracts lambda x variance, ``mean-std`` k x std: with the standard deviation k
    has no unit, so that the same k is the same caution whatever the scores are given in, while lambda would have to be
    divided by a where scores are multiplied by a.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rewardlab.errors import ConfigError

HOWS = ("mean", "min", "median", "mean-std", "weighted")
"""Names of the ways to combine."""


def combine(
    scores: ArrayLike, how: str = "mean", *, k: float = 1.0, weights: Sequence[float] | None = None
) -> NDArray[np.float64]:
    """One score of each completion.

    Args:
        scores: The members' scores, shape (..., members), members >= 1.
        how: One of :data:`HOWS`.
        k: Of ``mean-std``: how many standard deviations are subtracted, at least 0.
        weights: Of ``weighted``: one per member, at least 0, not all 0.

    Returns:
        Shape (...), float64.

    Raises:
        ConfigError: See :func:`require_combinable`.

    Example:
        >>> combine([[1.0, 3.0]], "mean-std", k=2.0)
        array([0.])
    """
    values = np.asarray(scores, dtype=np.float64)
    require_combinable(how, values.shape[-1], k=k, weights=weights)
    if how == "mean":
        found = values.mean(axis=-1)
    elif how == "min":
        found = values.min(axis=-1)
    elif how == "median":
        found = np.median(values, axis=-1)
    elif how == "mean-std":
        found = values.mean(axis=-1) - k * values.std(axis=-1)
    else:
        found = values @ normalised(cast("Sequence[float]", weights))
    return np.asarray(found, dtype=np.float64)


def disagreement(scores: ArrayLike) -> NDArray[np.float64]:
    """How far the members are apart: the standard deviation (ddof 0) of their scores.

    Args:
        scores: The members' scores, shape (..., members), members >= 1.

    Returns:
        Shape (...), float64, at least 0; in the unit of the scores. 0 for a single member.
    """
    return np.asarray(np.asarray(scores, dtype=np.float64).std(axis=-1), dtype=np.float64)


def normalised(weights: Sequence[float]) -> NDArray[np.float64]:
    """The weights divided by their sum."""
    values = np.asarray(weights, dtype=np.float64)
    return np.asarray(values / values.sum(), dtype=np.float64)


def require_combinable(how: str, num_members: int, *, k: float = 1.0, weights: Sequence[float] | None = None) -> None:
    """Refuse what cannot be combined, before anything is scored.

    Args:
        how: As :func:`combine`.
        num_members: How many members there are.
        k: As there.
        weights: As there.

    Raises:
        ConfigError: No such way; no member; ``k`` is negative or not finite; weights that are missing, too many, too
            few, negative, not finite or all 0, or that are given for another way.
    """
    if how not in HOWS:
        raise ConfigError(f"no ensemble is combined by {how!r}", hint=f"one of {', '.join(HOWS)}")
    if num_members < 1:
        raise ConfigError("an ensemble without members", hint="name at least one")
    if not (math.isfinite(k) and k >= 0):
        raise ConfigError(f"k must be at least 0, got {k}", hint="1 subtracts one standard deviation")
    if (weights is None) == (how == "weighted"):
        raise ConfigError(
            "'weighted' needs weights" if weights is None else f"weights mean nothing to {how!r}",
            hint="give one weight per member" if weights is None else "leave them out, or combine by 'weighted'",
        )
    if weights is None:
        return
    if len(weights) != num_members:
        raise ConfigError(f"{len(weights)} weights for {num_members} members", hint="give one weight per member")
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights) or not sum(weights) > 0:
        raise ConfigError(f"weights {list(weights)}: each must be at least 0, and one above 0")

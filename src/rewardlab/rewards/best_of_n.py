"""Best-of-N: what sampling N completions and keeping the one with the highest score gains, and what it costs in KL.

Beside it the other ways to select by score: the k best, and reward-weighted sampling; preference pairs are
:mod:`rewardlab.rewards.preference_pairs`'s. This file knows numbers; what gives the scores it does not know.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rewardlab.errors import ConfigError, DataError
from rewardlab.metrics.bootstrap import Bootstrapped, Interval, bootstrap_by_cluster, mean_of

FloatArray: TypeAlias = NDArray[np.float64]
IndexArray: TypeAlias = NDArray[np.intp]


def kl_of_best_of_n(n: float) -> float:
    """KL(best-of-n policy || reference), ``log n - (n - 1) / n``, in nats per completion.

    Exact where no two completions have equal scores and each is a negligible part of the whole; else (short
    completions, ties, a reference that repeats itself) an upper bound: the KL cannot exceed -log P(best completion).

    Args:
        n: How many completions are sampled, >= 1.

    References:
        Stiennon et al. 2020, arXiv:2009.01325, appendix G.3; that it is a bound: Beirami et al. 2024, arXiv:2401.01879.

    Example:
        >>> kl_of_best_of_n(1), round(kl_of_best_of_n(1000), 3)
        (0.0, 5.909)
    """
    if not n >= 1 or math.isinf(n):
        raise ConfigError(f"best of n needs a finite n >= 1, got {n}")
    return math.log(n) - (n - 1) / n


def expected_best_of_n(
    scores: ArrayLike, values: ArrayLike | None = None, sizes: Sequence[int] | None = None
) -> FloatArray:
    """What the best of n of a prompt's completions is worth on average, for many n, from M >= n samples.

    The mean over *all* subsets of n of the M samples: the unbiased estimate of smallest variance (a U-statistic),
    where splitting the samples into M / n lots would use each once. With samples in rising order the i-th is the best
    of ``C(i - 1, n - 1)`` of the ``C(M, n)`` subsets, so that

        E_n  =  sum_i  C(i - 1, n - 1) / C(M, n)  value_(i)

    The weights come from ``w_M = n / M`` and ``w_i = w_(i+1) (i - n + 1) / i``, without a large number in between.
    Samples of equal score share their weights equally, as if ties were broken by lot.

    Args:
        scores: Scores of one prompt's M completions, shape (M,), in any order.
        values: What of the picked completion is averaged, shape (M,), e.g. its gold reward; None: its score.
        sizes: The n, each in [1, M]; None: :func:`default_sizes`.

    Returns:
        One number per size, float64.

    Raises:
        DataError: Numbers that are not finite, or shapes that differ.
        ConfigError: A size that M samples cannot tell anything of.

    References:
        The estimator: Nakano et al. 2021, arXiv:2112.09332; with values, Gao et al. 2022, arXiv:2210.10760.

    Example:
        >>> expected_best_of_n([1.0, 2.0, 4.0], sizes=[1, 2, 3]).round(3).tolist()
        [2.333, 3.333, 4.0]
    """
    score = _finite(scores, "scores")
    value = score if values is None else _finite(values, "values")
    if value.shape != score.shape:
        raise DataError(f"{len(score)} scores but {len(value)} values")
    count = len(score)
    wanted = default_sizes(count) if sizes is None else tuple(sizes)
    for n in wanted:
        if not (_is_whole(n) and 1 <= n <= count):
            raise ConfigError(
                f"the best of {n} cannot be estimated from {count} completions",
                hint="sizes are whole numbers from 1 to the number of completions of the prompt that has fewest",
            )
    _, place, ties = np.unique(score, return_inverse=True, return_counts=True)
    mean_value = np.bincount(place, value) / ties  # of each run of equal scores
    last = np.cumsum(ties)  # place of its last sample in rising order, counted from 1
    best = np.empty(len(wanted))
    for number, n in enumerate(wanted):
        i = np.arange(count - 1, n - 1, -1)
        weights = np.zeros(count)
        weights[n - 1 :] = (n / count * np.cumprod(np.concatenate([[1.0], (i - n + 1) / i])))[::-1]
        summed = np.concatenate([[0.0], np.cumsum(weights)])
        best[number] = np.diff(summed[np.concatenate([[0], last])]) @ mean_value
    return best


def default_sizes(count: int) -> tuple[int, ...]:
    """1, 2, 4, ... up to a number of completions, and that number."""
    powers = [2**power for power in range(max(count, 1).bit_length())]
    return tuple(sorted({*powers, count}))


@dataclass(frozen=True, slots=True, kw_only=True)
class BestOfNCurve(Bootstrapped):
    """What best-of-n is worth over many prompts.

    Attributes:
        sizes: The n.
        kl: :func:`kl_of_best_of_n` of each.
        per_prompt: Shape (groups, sizes).
        mean: Mean over groups, with an interval from resampling prompts.
    """

    sizes: tuple[int, ...]
    kl: tuple[float, ...]
    per_prompt: FloatArray
    mean: tuple[Interval, ...]


def best_of_n_curve(
    scores: Sequence[ArrayLike],
    values: Sequence[ArrayLike] | None = None,
    sizes: Sequence[int] | None = None,
    *,
    prompts: Sequence[str] | None = None,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> BestOfNCurve:
    """:func:`expected_best_of_n` of every prompt, and its mean.

    Args:
        scores: Per group, the scores of its completions; groups may differ in number.
        values: Per group, what of the picked completion is averaged; None: the scores.
        sizes: The n; None: :func:`default_sizes` of the group with fewest completions, so that every n is a mean over
            the same prompts.
        prompts: A label per group, equal for groups of one prompt; None: each is a prompt of its own.
        resamples: Bootstrap resamples, of prompts.
        confidence: Coverage of the intervals.
        seed: Seed of the resamples.

    Raises:
        DataError: No groups, or scores, values and prompts that do not fit.
        ConfigError: A size above the number of completions of some group.
    """
    if not len(scores):
        raise DataError("there are no groups")
    if values is not None and len(values) != len(scores):
        raise DataError(f"{len(scores)} groups of scores but {len(values)} of values")
    if prompts is not None and len(prompts) != len(scores):
        raise DataError(f"{len(scores)} groups of scores but {len(prompts)} prompts")
    wanted = default_sizes(min(np.size(of_group) for of_group in scores)) if sizes is None else tuple(sizes)
    given = [None] * len(scores) if values is None else values
    table = np.stack([expected_best_of_n(s, v, wanted) for s, v in zip(scores, given, strict=True)])
    labels = [f"group {number}" for number in range(len(scores))] if prompts is None else prompts
    intervals = bootstrap_by_cluster(
        np.column_stack([np.ones(len(table)), table]),
        labels,
        {str(n): mean_of(column + 1) for column, n in enumerate(wanted)},
        resamples=resamples,
        confidence=confidence,
        seed=seed,
    )
    return BestOfNCurve(
        sizes=wanted,
        kl=tuple(kl_of_best_of_n(n) for n in wanted),
        per_prompt=table,
        mean=tuple(intervals[str(n)] for n in wanted),
        confidence=confidence,
        resamples=resamples,
        seed=seed,
    )


def top_k(scores: ArrayLike, k: int) -> IndexArray:
    """Indices of the k highest scores, best first; of equal scores the earlier.

    Args:
        scores: Shape (M,).
        k: From 1 to M.
    """
    score = _finite(scores, "scores")
    _check_k(k, len(score))
    return np.argsort(-score, kind="stable")[:k]


def reward_weights(scores: ArrayLike, temperature: float = 1.0) -> FloatArray:
    """``softmax(scores / temperature)``.

    Samples of a reference policy, weighted so, stand for the policy ``reference exp(score / temperature)``: the best
    one under a KL coefficient of that temperature.

    Args:
        scores: Shape (M,).
        temperature: > 0, in units of the score; towards 0 it picks the best, towards infinity any.

    Returns:
        Shape (M,), sums to 1.

    References:
        Peters and Schaal 2007 (reward-weighted regression).
    """
    score = _finite(scores, "scores")
    weights = np.exp(_below_best(score, temperature))
    return np.asarray(weights / weights.sum(), dtype=np.float64)


def effective_sample_size(weights: ArrayLike) -> float:
    """``1 / sum w^2`` of normalised weights (Kish): how many equally weighted samples they are worth, from 1 to M.

    Near 1 the weighted samples are one sample, and no estimate of anything: raise the temperature or sample more.

    Args:
        weights: Shape (M,), >= 0, with a positive sum.
    """
    weight = _finite(weights, "weights")
    if (weight < 0).any() or not weight.sum() > 0:
        raise DataError("weights must be >= 0, with a positive sum")
    return float(weight.sum() ** 2 / (weight**2).sum())


def reward_weighted_indices(scores: ArrayLike, k: int, *, temperature: float = 1.0, seed: int = 0) -> IndexArray:
    """Different completions, k of them, drawn with probabilities proportional to ``exp(score / temperature)``.

    Without replacement, by the Gumbel-top-k trick: Gumbel noise on ``score / temperature``, then the k largest, in the
    order in which drawing one after the other would give them. As the temperature goes to 0 these are the k best.

    Args:
        scores: Shape (M,).
        k: From 1 to M.
        temperature: > 0, in units of the score.
        seed: Seed of the draw; the same draw for the same input.

    References:
        Kool et al. 2019, arXiv:1903.06059. Rejection sampling with such weights: Liu et al. 2023, arXiv:2309.06657.
    """
    score = _finite(scores, "scores")
    _check_k(k, len(score))
    noise = np.random.default_rng(seed).gumbel(size=len(score))
    key = _below_best(score, temperature) + noise
    return np.lexsort((-noise, -score, -key))[:k]  # keys are equal where a tiny temperature has left no digit of them


def _below_best(score: FloatArray, temperature: float) -> FloatArray:
    """``(score - best) / temperature``: 0 for the best; -inf, and never NaN, where a tiny temperature overflows."""
    if not (math.isfinite(temperature) and temperature > 0):
        raise ConfigError(f"temperature must be finite and > 0, got {temperature}")
    with np.errstate(over="ignore"):
        return np.asarray((score - score.max()) / temperature, dtype=np.float64)


def _finite(numbers: ArrayLike, what: str) -> FloatArray:
    array = np.asarray(numbers, dtype=np.float64)
    if array.ndim != 1 or not len(array):
        raise DataError(f"{what} must have the shape (completions,), at least one, got {array.shape}")
    if not np.isfinite(array).all():
        number = int(np.argmin(np.isfinite(array)))
        raise DataError(f"{what}[{number}] is {array[number]}, expected a finite number")
    return array


def _check_k(k: int, count: int) -> None:
    if not (_is_whole(k) and 1 <= k <= count):
        raise ConfigError(f"cannot take {k} of {count} completions", hint=f"k is a whole number from 1 to {count}")


def _is_whole(number: Any) -> bool:
    return isinstance(number, Integral) and not isinstance(number, bool)  # numpy's integers are Integral

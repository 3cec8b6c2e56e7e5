"""Gold and proxy reward against KL: where gold peaks, how far it falls, and the functional forms that describe it.

A curve is made from one value per held-out prompt and point, so that it has intervals over prompts; several seeds'
curves become one with intervals over seeds. What optimises (best-of-N, reinforcement learning) and what scores it does
not know.

References:
    Gao, Schulman & Hilton 2022, "Scaling laws for reward model overoptimization" (arXiv:2210.10760), section 3:
    R_bon(d) = d (alpha - beta d), R_RL(d) = d (alpha - beta log d), d = sqrt(KL(policy || initial policy)), KL in nats,
    R the gold reward above the initial policy's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t as student_t

from rewardlab.metrics.bootstrap import FloatArray, Interval, bootstrap_by_cluster, mean_of

Law = Literal["best_of_n", "rl"]
"""Which of the two functional forms."""

Range = tuple[float | None, float | None]
"""Lower and upper end; None where there is none."""


@dataclass(frozen=True, slots=True)
class Peak:
    """The highest point of a curve.

    Attributes:
        index: Which of its points.
        kl: KL there, in nats.
        gold: Gold reward there.
        drop: Gold there less gold at the last point; 0 where the last is the highest.
    """

    index: int
    kl: float
    gold: float
    drop: float


@dataclass(frozen=True, slots=True)
class LawFit:
    """One of Gao et al.'s functional forms, fitted to a gold curve.

    Attributes:
        law: Which form.
        alpha: Its first parameter: the slope in d = sqrt(KL) (at d = 1 for ``"rl"``).
        beta: Its second: how fast the slope falls.
        peak_kl: KL at the form's maximum; None where it has none (beta <= 0: gold keeps rising, or alpha <= 0 of
            best-of-N: it never rises).
        peak_gold: Gold reward at the maximum.
        rmse: Root mean squared error of the fit, in the gold's unit.
    """

    law: Law
    alpha: float
    beta: float
    peak_kl: float | None
    peak_gold: float | None
    rmse: float


@dataclass(frozen=True, slots=True)
class SeedCurve:
    """What one seed gave.

    Attributes:
        step: What was varied: the n of best-of-n, or the training step.
        kl: KL at each point, in nats.
        gold: Mean gold reward above the initial policy's at each point, with its interval over prompts.
        proxy: The proxy's.
        drop: :func:`cross_fitted_drop` of the gold.
    """

    step: tuple[int, ...]
    kl: tuple[float, ...]
    gold: tuple[Interval, ...]
    proxy: tuple[Interval, ...]
    drop: float

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> SeedCurve:
        """The same back from JSON."""
        gold, proxy = (tuple(Interval(**one) for one in record[name]) for name in ("gold", "proxy"))
        return cls(tuple(record["step"]), tuple(record["kl"]), gold, proxy, record["drop"])


@dataclass(frozen=True, slots=True)
class Curve:
    """What all seeds gave together.

    Attributes:
        step: As :class:`SeedCurve`.
        kl: Mean KL at each point.
        gold: Mean gold at each point; of several seeds with the t interval over seeds, of one with that over prompts.
        proxy: The proxy's.
        gold_range: Lowest and highest seed's gold at each point; of one seed the interval over prompts.
        proxy_range: The proxy's.
        peak: Of the mean gold.
        peak_kls: KL at each seed's own peak.
        peak_gold: Gold at each seed's own peak, which chance lifts: mean and t interval.
        end_gold: Gold at the last point.
        drop: Mean cross-fitted drop, with its t interval over seeds.
        fit: The functional form, fitted to the mean gold; None with fewer than three points away from KL 0.
    """

    step: tuple[int, ...]
    kl: tuple[float, ...]
    gold: tuple[Interval, ...]
    proxy: tuple[Interval, ...]
    gold_range: tuple[Range, ...]
    proxy_range: tuple[Range, ...]
    peak: Peak
    peak_kls: tuple[float, ...]
    peak_gold: Interval
    end_gold: Interval
    drop: Interval
    fit: LawFit | None

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)

    @property
    def falls(self) -> bool:
        """Whether gold is lower at the end than at its peak, beyond what chance explains."""
        return self.drop.value > 0 if self.drop.low is None else self.drop.low > 0


def peak_of(kl: ArrayLike, gold: ArrayLike) -> Peak:
    """The highest point of a curve; the first of several.

    Args:
        kl: KL at each point, shape (points,), nats.
        gold: Gold at each point, shape (points,).
    """
    kls, golds = np.asarray(kl, dtype=np.float64), np.asarray(gold, dtype=np.float64)
    index = int(np.argmax(golds))
    return Peak(index, float(kls[index]), float(golds[index]), float(golds[index] - golds[-1]))


def cross_fitted_drop(gold: ArrayLike) -> float:
    """How far gold falls from its peak to the end, without the bias of looking for a maximum in noise.

    The highest point of a noisy curve lies above its last one even where nothing falls. Here the peak is located on
    one half of the prompts (every other one) and the drop from there measured on the other half, and the other way
    round; on a curve that does not fall this is 0 on average, and may be negative.

    Args:
        gold: Gold reward of each prompt at each point, shape (prompts, points), float64.

    Raises:
        ValueError: Fewer than two prompts.
    """
    values = np.asarray(gold, dtype=np.float64)
    if values.ndim != 2 or len(values) < 2:
        raise ValueError(f"need shape (prompts, points) with two prompts or more, got {values.shape}")
    halves = [values[0::2].mean(axis=0), values[1::2].mean(axis=0)]
    drops = [measured[np.argmax(located)] - measured[-1] for located, measured in (halves, halves[::-1])]
    return float(np.mean(drops))


def fit_law(kl: ArrayLike, gold: ArrayLike, law: Law) -> LawFit:
    """Fit one of the functional forms by least squares, to which both are linear in alpha and beta.

    Args:
        kl: KL at each point, shape (points,), nats.
        gold: Gold reward above the initial policy's, shape (points,).
        law: ``"best_of_n"``: alpha d - beta d^2, highest at d = alpha / (2 beta). ``"rl"``: alpha d - beta d log d,
            highest at d = exp(alpha / beta - 1).

    Raises:
        ValueError: Fewer than three points with KL above 0: two are met exactly by any data.

    Example:
        >>> d = np.array([0.5, 1.0, 1.5, 2.0])
        >>> fit = fit_law(d**2, d * (2.0 - 0.5 * d), "best_of_n")
        >>> round(fit.alpha, 6), round(fit.beta, 6), round(fit.peak_kl, 6), round(fit.peak_gold, 6)
        (2.0, 0.5, 4.0, 2.0)
    """
    kls, golds = np.asarray(kl, dtype=np.float64), np.asarray(gold, dtype=np.float64)
    away = kls > 0
    if away.sum() < 3:
        raise ValueError(f"a fit of two parameters needs three points with KL above 0, got {int(away.sum())}")
    d, golds = np.sqrt(kls[away]), golds[away]
    bend = d**2 if law == "best_of_n" else d * np.log(d)
    columns = np.stack([d, -bend], axis=1)
    (alpha, beta), *_ = np.linalg.lstsq(columns, golds, rcond=None)
    rmse = float(np.sqrt(np.mean((columns @ (alpha, beta) - golds) ** 2)))
    peak = None
    if beta > 0 and law == "best_of_n" and alpha > 0:
        peak = alpha / (2 * beta)
    elif beta > 0 and law == "rl" and alpha / beta < 100:  # beyond that the peak is nowhere that KL could be
        peak = math.exp(alpha / beta - 1)
    if peak is None:
        return LawFit(law, float(alpha), float(beta), None, None, rmse)
    height = alpha * peak - beta * (peak**2 if law == "best_of_n" else peak * math.log(peak))
    return LawFit(law, float(alpha), float(beta), float(peak**2), float(height), rmse)


def seed_curve(step: Sequence[int], kl: Sequence[float], gold: ArrayLike, proxy: ArrayLike) -> SeedCurve:
    """A curve from one value per prompt and point.

    Args:
        step: The n of best-of-n, or the training step, of each point.
        kl: KL at each point, nats.
        gold: Gold reward above the initial policy's, shape (prompts, points), float64.
        proxy: The proxy's reward, the same shape.
    """
    golds, proxies = np.asarray(gold, dtype=np.float64), np.asarray(proxy, dtype=np.float64)
    intervals = [_over_prompts(values) for values in (golds, proxies)]
    return SeedCurve(tuple(step), tuple(kl), intervals[0], intervals[1], cross_fitted_drop(golds))


def over_seeds(curves: Sequence[SeedCurve], law: Law) -> Curve:
    """One curve from those of several seeds.

    Args:
        curves: One per seed, at the same steps.
        law: Which form is fitted.

    Raises:
        ValueError: No curve, or different steps.
    """
    if not curves or any(curve.step != curves[0].step for curve in curves):
        raise ValueError(f"curves of the same steps are needed, got {sorted({curve.step for curve in curves})}")
    kl = np.mean([curve.kl for curve in curves], axis=0)
    golds, proxies = [curve.gold for curve in curves], [curve.proxy for curve in curves]
    gold, proxy = _together(golds), _together(proxies)
    means = [point.value for point in gold]
    peaks = [peak_of(curve.kl, [point.value for point in curve.gold]) for curve in curves]
    return Curve(
        step=curves[0].step,
        kl=tuple(kl.tolist()),
        gold=gold,
        proxy=proxy,
        gold_range=_range(golds),
        proxy_range=_range(proxies),
        peak=peak_of(kl, means),
        peak_kls=tuple(peak.kl for peak in peaks),
        peak_gold=t_interval([peak.gold for peak in peaks]),
        end_gold=gold[-1],
        drop=t_interval([curve.drop for curve in curves]),
        fit=fit_law(kl, means, law) if (kl > 0).sum() >= 3 else None,
    )


def gold_at(curve: SeedCurve, kl: float) -> float | None:
    """Gold at a KL between two points, linear in the root of KL; None beyond what was reached.

    Args:
        curve: Of one seed. KL need not rise from point to point.
        kl: Nats.
    """
    order = np.argsort(curve.kl)
    d = np.sqrt(np.maximum(np.asarray(curve.kl)[order], 0.0))  # an estimate of 0 may be a little below it
    golds = np.array([point.value for point in curve.gold])[order]
    return float(np.interp(math.sqrt(kl), d, golds)) if kl <= d[-1] ** 2 else None


def t_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Mean with Student's t interval; one value has none.

    Args:
        values: One per seed.
        confidence: Coverage where the values are normal; with three of them the half-width is 2.5 standard deviations.
    """
    mean = float(np.mean(values))
    if len(values) < 2:
        return Interval(mean, None, None)
    half = float(student_t.ppf((1 + confidence) / 2, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values)))
    return Interval(mean, mean - half, mean + half)


def _over_prompts(values: FloatArray) -> tuple[Interval, ...]:
    """Each column's mean, with its bootstrap interval over the rows."""
    prompts, points = values.shape
    rows = np.hstack([np.ones((prompts, 1)), values])
    found = bootstrap_by_cluster(
        rows, [str(number) for number in range(prompts)], {str(i): mean_of(i + 1) for i in range(points)}
    )
    return tuple(found.values())


def _together(of_seeds: Sequence[Sequence[Interval]]) -> tuple[Interval, ...]:
    """Point by point the mean over seeds; a single seed's intervals stay."""
    if len(of_seeds) == 1:
        return tuple(of_seeds[0])
    return tuple(t_interval([one.value for one in point]) for point in zip(*of_seeds, strict=True))


def _range(of_seeds: Sequence[Sequence[Interval]]) -> tuple[Range, ...]:
    """Point by point the lowest and the highest seed; a single seed's intervals stay."""
    if len(of_seeds) == 1:
        return tuple((point.low, point.high) for point in of_seeds[0])
    values = [[one.value for one in point] for point in zip(*of_seeds, strict=True)]
    return tuple((min(point), max(point)) for point in values)

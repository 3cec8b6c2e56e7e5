"""The over-optimisation alarm: a model's scores rise over an ensemble's.

A policy that is optimised against one reward model finds completions that this one overrates. Other models, of an
ensemble, overrate others; so as it happens the optimised model's scores (the proxy's) go on rising and the ensemble's
do not (Gao et al. 2023, arXiv:2210.10760; Coste et al. 2024, arXiv:2310.02743). The mean difference of the two over a
window's completions is the *gap*, tested upwards. It needs no labels to be computed, only both scores on one scale.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rewardlab.errors import DataError
from rewardlab.metrics.change_detection import Bets, detect
from rewardlab.metrics.recursive_residuals import Residuals, residuals_of_estimates
from rewardlab.monitoring.snapshots import Finding
from rewardlab.monitoring.thresholds import Thresholds
from rewardlab.monitoring.windows import Window, Windows, finding_of, span_words

WATCH = "gap"

_SMALLEST_ERROR = 1e-6  # in standard deviations of scores: equal models differ by rounding, which is no evidence


def gap_figures(proxy_z: ArrayLike, against_z: ArrayLike, prompts: Sequence[str]) -> dict[str, Any]:
    """How much higher a model scores than what it is held against.

    Args:
        proxy_z: The model's scores on its reference scale, shape (completions,).
        against_z: The other's of the same completions, likewise.
        prompts: Which prompt each is of.

    Returns:
        ``{"num", "mean", "se", "std"}`` of the differences; ``se`` is by prompt and not below ``std / sqrt(num)``, and
        None with one prompt, which says nothing of others.

    Raises:
        DataError: No completions, lengths that differ, or a score that is not finite.
    """
    proxy, against = np.asarray(proxy_z, dtype=np.float64), np.asarray(against_z, dtype=np.float64)
    if proxy.ndim != 1 or proxy.shape != against.shape or not len(proxy) or len(prompts) != len(proxy):
        raise DataError(
            f"a gap needs two scores and a prompt for each completion, got {proxy.shape}, {against.shape} and "
            f"{len(prompts)}"
        )
    gaps = proxy - against
    if not np.isfinite(gaps).all():
        raise DataError(f"the gap of completion {int(np.argmin(np.isfinite(gaps)))} is not finite")
    mean, std = float(gaps.mean()), float(gaps.std())
    numbers = {label: number for number, label in enumerate(dict.fromkeys(prompts))}
    totals = np.bincount([numbers[label] for label in prompts], gaps - mean)
    error = None
    if len(totals) > 1:
        by_prompt = math.sqrt(float((totals**2).sum()) * len(totals) / (len(totals) - 1)) / len(gaps)
        error = max(by_prompt, std / math.sqrt(len(gaps)))
    return {"num": len(gaps), "mean": mean, "se": error, "std": std}


def gap_runs(windows: Windows) -> bool:
    """Whether the newest window, or an earlier one that is tested, has a gap to test."""
    return any(_gap(window) is not None for window in (*windows.tested, windows.newest))


def gap_finding(windows: Windows, thresholds: Thresholds, log_limit: float) -> Finding:
    """Whether the gap has risen.

    Only windows whose gap is against the same ensemble on the same scales as the newest one's are tested.

    Args:
        windows: What is tested.
        thresholds: ``gap_steps`` are the rises that are bet on, in standard deviations of the first gap.
        log_limit: What log evidence is an alarm.
    """
    known = [(window, gap) for window in windows.tested if (gap := _gap(window)) is not None]
    terms = _terms(known[-1][1]) if known else None
    known = [(window, gap) for window, gap in known if _terms(gap) == terms]
    first = None if windows.baseline is None else _gap(windows.baseline)
    before = [first] if first is not None and _terms(first) == terms else []
    gaps = [*before, *(gap for _, gap in known)]
    if len(gaps) < 2:
        mean = f": {gaps[0]['mean']:+.2f}" if gaps else ""
        return Finding(WATCH, "learning", f"there is no earlier gap to hold the gap to the ensemble against{mean}")
    residuals = residuals_of_estimates([gap["mean"] for gap in gaps], [max(gap["se"], _SMALLEST_ERROR) for gap in gaps])
    start = len(before)
    of_windows = Residuals(residuals.values[start:], residuals.levels[start:], residuals.rates[start:])
    unit = max(float(gaps[0]["std"]), _SMALLEST_ERROR)
    detection = detect([Bets(of_windows, tuple(step * unit for step in thresholds.gap_steps))], log_limit)
    tested = [window for window, _ in known]
    if detection.alarm is None or detection.onset is None:
        message = (
            f"the scores are {gaps[-1]['mean']:+.2f} standard deviations above the ensemble's, {_mean(gaps[:-1]):+.2f} "
            "before"
        )
        return finding_of(WATCH, detection, tested, message, "ok")
    place = start + detection.onset
    message = (
        f"over-optimisation: the scores rose over the ensemble's, from {_mean(gaps[:place]):+.2f} standard deviations "
        f"to {_mean(gaps[place:]):+.2f} ({span_words(tested, detection.onset)}); the policy finds completions that "
        "this model alone overrates"
    )
    return finding_of(WATCH, detection, tested, message, "alarm")


def _gap(window: Window) -> Mapping[str, Any] | None:
    """A gap that can be tested: one with a standard error."""
    gap: Mapping[str, Any] | None = window.snapshot.metrics.get("gap")
    return gap if gap is not None and gap["se"] is not None else None


def _terms(gap: Mapping[str, Any]) -> tuple[Any, Any]:
    """Against what, and on which scales."""
    return gap.get("against"), gap.get("scales")


def _mean(gaps: Sequence[Mapping[str, Any]]) -> float:
    return float(np.average([gap["mean"] for gap in gaps], weights=[gap["num"] for gap in gaps])) if gaps else 0.0

"""The over-optimisation alarm: a model's scores rise over an ensemble's.

A policy that is optimised against one reward model finds completions that this one overrates. Other models, of an
ensemble, overrate others; so as it happens the optimised model's scores (the proxy's) go on rising and the ensemble's
do not (Gao et al. 2023, arXiv:2210.10760; Coste et al. 2024, arXiv:2310.02743). The mean difference of the two is the
*gap*. It is tested upwards, on the comparisons that the other watches are tested on: each counts once, with the mean
gap of its two completions, and comparisons of one prompt are not taken for independent.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rewardlab.errors import DataError
from rewardlab.metrics.change_detection import Bets, detect
from rewardlab.metrics.recursive_residuals import mean_of_moments, moments_of_windows, recursive_residuals
from rewardlab.monitoring.snapshots import Finding, PairScore, Snapshot
from rewardlab.monitoring.thresholds import Thresholds
from rewardlab.monitoring.watch_words import finding_of, untested_words
from rewardlab.monitoring.windows import Window, Windows

WATCH = "gap"

FloatArray = NDArray[np.float64]

_SMALLEST_UNIT = 1e-6  # in standard deviations of scores: equal models differ by rounding, which is no rise


def gap_figures(gaps: Sequence[Sequence[float]], prompts: Sequence[str]) -> dict[str, Any]:
    """How much higher a model scores than what it is held against.

    Args:
        gaps: Difference of the two scores of each completion, of one group after the other.
        prompts: Which prompt each group is of.

    Returns:
        ``{"num", "mean", "se", "std"}`` of the differences; ``se`` is by prompt and not below ``std / sqrt(num)``, and
        None with one prompt, which says nothing of others.

    Raises:
        DataError: No completions, or a score that is not finite.
    """
    every = np.array([value for of_group in gaps for value in of_group], dtype=np.float64)
    if not len(every):
        raise DataError("there are no completions to measure a gap of")
    if not np.isfinite(every).all():
        raise DataError(f"the gap of completion {int(np.argmin(np.isfinite(every)))} is not finite")
    mean, std = float(every.mean()), float(every.std())
    totals: dict[str, float] = {}
    for prompt, of_group in zip(prompts, gaps, strict=True):
        totals[prompt] = totals.get(prompt, 0.0) + sum(of_group) - mean * len(of_group)
    error = None
    if len(totals) > 1:
        squares = sum(total**2 for total in totals.values())
        by_prompt = math.sqrt(squares * len(totals) / (len(totals) - 1)) / len(every)
        error = max(by_prompt, std / math.sqrt(len(every)))
    return {"num": len(every), "mean": mean, "se": error, "std": std}


def gap_finding(windows: Windows, thresholds: Thresholds, log_limit: float) -> Finding | None:
    """Whether the gap has risen; None where no tested window has one, and neither has the snapshot.

    Gaps against another ensemble, or on other scales, are another sequence. An alarm of an earlier one stays too.

    Args:
        windows: What is tested.
        thresholds: ``gap_steps`` are the rises that are bet on, in standard deviations of the first window's gaps.
        log_limit: What log evidence is an alarm.
    """
    parts = [part for window in windows.tested for part in window.parts]
    now = _terms(windows.snapshot)
    every = dict.fromkeys(
        terms
        for part in parts
        if (terms := _terms(part.snapshot)) is not None and any(pair.gap is not None for pair in part.pairs)
    )
    if not every:
        if now is None:
            return None
        return Finding(WATCH, "learning", f"{untested_words(windows)}no window has been tested yet")
    current = now if now in every else list(every)[-1]
    ordered = [current, *(terms for terms in reversed(every) if terms != current)]
    found = [_of_terms(windows, terms, thresholds, log_limit) for terms in ordered]
    first = next((place for place, one in enumerate(found) if one.state == "alarm"), 0)
    finding = found[first]
    prefix = untested_words(windows)
    if now is None:
        prefix += "not looked at in this window (no --against), as it was last: "
    elif ordered[first] != now:
        prefix += "as it was against another ensemble, or on other scales: "
    return Finding(finding.watch, finding.state, prefix + finding.message, finding.value, finding.limit, finding.since)


def _of_terms(windows: Windows, terms: str, thresholds: Thresholds, log_limit: float) -> Finding:
    """The sequence of gaps of which all are against the same, on the same scales."""
    of_windows = [_pairs(window, terms) for window in windows.tested]
    places = [place for place, pairs in enumerate(of_windows) if pairs]
    moments = _moments([of_windows[place] for place in places])
    first = [] if windows.baseline is None else _pairs(windows.baseline, terms)
    baseline = _moments([first])[0] if first else None
    until = np.cumsum(moments, axis=0) + (0 if baseline is None else baseline)
    last = windows.tested[places[-1]].day
    level = mean_of_moments(moments[-1])
    message = f"the scores are {level:+.2f} standard deviations above the ensemble's in the window of {last}"
    if baseline is None and len(places) == 1:
        return Finding(WATCH, "learning", f"{message}, with nothing before it to be held against")
    start = moments[0] if baseline is None else baseline
    unit = max(math.sqrt(max(start[2] / start[0] - mean_of_moments(start) ** 2, 0.0)), _SMALLEST_UNIT)
    sizes = tuple(step * unit for step in thresholds.gap_steps)
    detection = detect([Bets(recursive_residuals(moments, baseline), sizes)], log_limit)
    known = [windows.tested[place] for place in places]
    if detection.alarm is None or detection.onset is None:
        before = until[-1] - moments[-1]
        message += f", {mean_of_moments(before):+.2f} before ({before[0]:,.0f} comparisons)"
        return finding_of(WATCH, detection, known, message, "ok")
    before = until[detection.onset] - moments[detection.onset]
    since = moments[detection.onset :].sum(axis=0)
    message = (
        f"over-optimisation: the scores rose over the ensemble's, from {mean_of_moments(before):+.2f} standard "
        f"deviations ({before[0]:,.0f} comparisons) to {mean_of_moments(since):+.2f} ({since[0]:,.0f} since "
        f"{known[detection.onset].day}); the policy finds completions that this model alone overrates"
    )
    return finding_of(WATCH, detection, known, message, "ok")


def _terms(snapshot: Snapshot) -> str | None:
    """Against what, and on which scales; None where a snapshot has no gap."""
    gap = snapshot.metrics.get("gap")
    return None if gap is None else json.dumps([gap.get(name) for name in ("against", "scales", "reference")])


def _pairs(window: Window, terms: str) -> list[PairScore]:
    parts = [part for part in window.parts if _terms(part.snapshot) == terms]
    return [pair for part in parts for pair in part.pairs if pair.gap is not None]


def _moments(windows: Sequence[Sequence[PairScore]]) -> FloatArray:
    pairs = [pair for of_window in windows for pair in of_window]
    gaps = [0.0 if pair.gap is None else pair.gap for pair in pairs]  # none of them is, see _pairs
    return moments_of_windows(gaps, [pair.prompt for pair in pairs], [*map(len, windows)])

"""A history as months of monitoring would leave it: two versions, a drop of accuracy, a changed stack, a live drift."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from rewardlab.metrics.divergence import diverge
from rewardlab.metrics.histograms import TOKEN_GRID, Histogram, score_grid
from rewardlab.monitoring.canary import test_canary as of_canary
from rewardlab.monitoring.fresh import test_fresh as of_fresh
from rewardlab.monitoring.history import History
from rewardlab.monitoring.snapshots import Finding, PairScore, Snapshot
from rewardlab.monitoring.thresholds import Thresholds

START = datetime(2026, 9, 1, 3, 0, tzinfo=UTC)
FIRST, SECOND = "0f1e2d3c" * 8, "a9b8c7d6" * 8
SUBSETS = ("chat", "math", "safety", "code")
LIMITS = Thresholds()


def told(day: float) -> str:
    return (START + timedelta(days=day)).strftime("%Y-%m-%dT%H:%M:%SZ")


def interval(value: float, error: float) -> dict[str, float]:
    return {"value": value, "low": value - 1.96 * error, "high": value + 1.96 * error}


def labelled(
    kind: Any,
    day: float,
    rng: np.random.Generator,
    *,
    count: int = 200,
    fingerprint: str = FIRST,
    lost: float = 0.0,
    gap: float | None = None,
    model: str = "rm",
    margins: np.ndarray | None = None,
    name: str = "",
) -> Snapshot:
    """A snapshot of comparisons that are right as often as the model says, but for a lost share."""
    name = name or f"{kind}-{day}"
    if margins is None:
        margins = np.abs(rng.normal(0, 1.5, count))
        margins = np.where(rng.uniform(size=count) < 1 / (1 + np.exp(-margins)) - lost, margins, -margins)
    keys = [f"{name}-{index}" for index in range(len(margins))]
    gaps = [None if gap is None else gap + spread for spread in np.linspace(-1.2, 1.2, len(margins)).tolist()]
    pairs = tuple(
        PairScore(key, key, float(margin), 0.0, SUBSETS[index % len(SUBSETS)], gaps[index])
        for index, (key, margin) in enumerate(zip(keys, margins, strict=True))
    )
    right, number = float(np.mean(margins > 0)), len(margins)
    error = (right * (1 - right) / number) ** 0.5
    subsets = {
        one: {
            "num_pairs": len(margins[place :: len(SUBSETS)]),
            "accuracy": float(np.mean(margins[place :: len(SUBSETS)] > 0)),
            "log_loss": 0.5,
            "ece": 0.05,
            "mean_score": 0.1,
        }
        for place, one in enumerate(SUBSETS)
    }
    loss = float(np.logaddexp(0, -margins).mean())
    figures: dict[str, Any] = {
        "num_pairs": number,
        "num_prompts": number,
        "accuracy": interval(right, error),
        "log_loss": interval(loss, 0.03),
        "brier": interval(0.2, 0.01),
        "ece": interval(0.04 + lost, 0.015),
        "margin": interval(float(margins.mean()), 0.1),
        "temperature": 1.0,
        "scores": {"num": 2 * number, "mean": 0.1, "std": 1.0, "quantiles": {"0.05": -1.0, "0.5": 0.0, "0.95": 1.2}},
        "disagreement": None,
        "gap": None,
        "subsets": subsets,
        "left_out": 0,
        "has_lineage": True,
    }
    if gap is not None:
        figures["gap"] = {"num": 400, "mean": gap, "se": 0.05, "std": 1.0, "against": "three", "scales": ["z", "z"]}
    return Snapshot(
        kind,
        told(day),
        model,
        fingerprint,
        fingerprint[::-1],
        (f"{kind}.jsonl",),
        name,
        {"torch": "2.13.0"},
        figures,
        pairs,
    )


def live(kind: Any, day: float, rng: np.random.Generator, *, shift: float = 0.0, reference: Any = None) -> Snapshot:
    """A reading, or the reference, with its findings."""
    window = {
        "scores": Histogram.of(score_grid(0.0, 1.0), rng.normal(shift, 1.0, 2000)),
        "tokens": Histogram.of(TOKEN_GRID, np.exp(rng.normal(5 + shift / 2, 0.6, 2000))),
        "disagreement": Histogram.of((0.1, 1.0)),
    }
    figures: dict[str, Any] = {}
    found = []
    for name, one in window.items():
        figures[name] = {"num": one.num, "mean": one.mean, "std": one.std, **one.to_dict()}
        if reference is None:
            continue
        figures[name] = {"num": one.num, "mean": one.mean, "std": one.std, "window": one.to_dict()}
        if one.num:
            distance = diverge(Histogram.from_dict(reference.metrics[name]).counts, one.counts)
            figures[name] |= distance.to_dict()
            state: Any = "alarm" if distance.psi >= 0.25 else "warning" if distance.psi >= 0.1 else "ok"
            found.append(Finding(name, state, f"{name}: PSI {distance.psi:.3f}", distance.psi, 0.25))
    return Snapshot(
        kind, told(day), "runs/rm", SECOND, None, ("http:" + "//server:8000",), None, {}, figures, (), tuple(found)
    )


def write_history(path: Path, *, windows: int = 40, dropped: bool = True, looks_live: int = 23) -> Path:
    """Windows daily, canaries every other day, a new version at two fifths; from four fifths on it is worse."""
    rng = np.random.default_rng(3)
    new, bad = windows * 2 // 5, windows * 4 // 5
    canary = np.abs(rng.normal(0, 1.5, 300)) * np.where(rng.uniform(size=300) < 0.78, 1, -1)
    better = canary + rng.normal(0.25, 0.3, 300)

    def fresh(history: History, one: Snapshot) -> list[Finding]:
        return of_fresh(history, one, LIMITS)

    def stack(history: History, one: Snapshot) -> list[Finding]:
        return of_canary(history, one, LIMITS, 1e-5)

    def as_found(history: History, one: Snapshot) -> list[Finding]:
        return list(one.findings)

    with History(path) as history:
        history.record(labelled("baseline", -1, rng, count=1000, gap=0.02), as_found)
        for day in range(windows):
            version = SECOND if day >= new else FIRST
            if day == new:
                history.record(labelled("baseline", day - 0.3, rng, count=1000, fingerprint=SECOND, gap=0.05), as_found)
            lost = 0.1 if dropped and day >= bad else 0.0
            gap = float(rng.normal(0.03 + 3 * lost, 0.05))
            history.record(labelled("fresh", day, rng, fingerprint=version, lost=lost, gap=gap), fresh)
            if day % 2 == 0:
                moved = 3e-3 if dropped and day == new + 4 else 2e-6 * (day % 3)
                margins = (better if version == SECOND else canary) + moved
                history.record(
                    labelled("canary", day + 0.1, rng, fingerprint=version, margins=margins, name="canary"), stack
                )
        reference = history.record(live("reference", new, rng), as_found)
        for day in range(looks_live):
            shift = 0.05 * max(0, day - 10) if dropped else 0.0
            history.record(live("live", new + 1 + day, rng, shift=shift, reference=reference), as_found)
    return path

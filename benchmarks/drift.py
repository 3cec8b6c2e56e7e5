"""How often the monitor's sequential tests raise a false alarm, and how soon they find drift, in simulations.

    python benchmarks/drift.py [--runs 2000] [--processes 1] [--output TABLE]

A run is a sequence of windows of 200 labelled comparisons, tested after each with the code that ``rewardlab monitor
--fresh`` runs (``recursive_residuals``, ``calibration_bets``, ``log_evidence``, ``log_limit``: they take many sequences
at once, and are not copied here; only how a window's sums are made is, and a test compares the two). Margins are normal
with the spread that gives a calibrated model the accuracy wanted; a comparison is right with probability
sigmoid(|margin|). With 4 comparisons a prompt, their margins and their outcomes are correlated, each by 1/2. A
miscalibrated model states margins twice as large. A drop turns right ones wrong, at random. Some 12 minutes on one
thread; the tables go to ``benchmarks/results/drift.md`` and stdout.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit, ndtr
from scipy.stats import binomtest

from rewardlab import __version__
from rewardlab.metrics.calibration_change import calibration_bets
from rewardlab.metrics.change_detection import Bets, log_evidence, log_limit
from rewardlab.metrics.probability import ECE_BINS, bin_numbers
from rewardlab.metrics.recursive_residuals import MOMENTS, recursive_residuals
from rewardlab.monitoring.fresh import WATCHES
from rewardlab.monitoring.thresholds import Thresholds

FloatArray = NDArray[np.float64]
Job = tuple[Callable[..., list[str]], tuple[Any, ...]]

TABLE = Path(__file__).resolve().parent / "results" / "drift.md"
SIZE = 200
BASELINE_SIZE = 500
AT_ONCE = 50  # runs held at once: 200 windows of 200 comparisons each are some 50 MB
BASELINES = (0, 500, 2000, 10_000)
ACCURACIES = (0.6, 0.7, 0.8, 0.9)
LIMITS = Thresholds()
DROPS = tuple(-drop for drop in LIMITS.accuracy_drops)
LIMIT = log_limit(LIMITS.false_alarm_rate, LIMITS.horizon, WATCHES)


@dataclass(frozen=True)
class World:
    """What the windows are drawn from."""

    accuracy: float = 0.7
    per_prompt: int = 1
    scale: float = 1.0


def spread_for(accuracy: float) -> float:
    """Standard deviation of the margins of a calibrated model with this accuracy."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(200)
    weights = weights / weights.sum()
    return float(brentq(lambda spread: (expit(np.abs(spread * nodes)) * weights).sum() - accuracy, 1e-3, 60))


def draw(
    generator: np.random.Generator, world: World, shape: tuple[int, ...], size: int, lost: FloatArray | None = None
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Stated margins (absolute) and whether each is right, both of shape (*shape, prompts, comparisons of a prompt).

    ``lost`` is the loss of accuracy, shape (windows,).
    """
    cells = (*shape, size // world.per_prompt)

    def correlated() -> FloatArray:
        single = generator.standard_normal((*cells, world.per_prompt))
        if world.per_prompt == 1:
            return single
        return np.sqrt(0.5) * (single + generator.standard_normal((*cells, 1)))

    margins = spread_for(world.accuracy) * np.abs(correlated())
    right = ndtr(correlated()) < expit(margins)
    if lost is not None:
        right &= generator.random(right.shape) < (1 - lost / world.accuracy)[:, np.newaxis, np.newaxis]
    return world.scale * margins, right


def moments(margins: FloatArray, right: NDArray[np.bool_]) -> tuple[FloatArray, FloatArray]:
    """Of accuracy, (windows, 7), and of calibration, (windows, ECE_BINS + 1, 7): as the product makes them, at once."""
    number, prompts, per_prompt = margins.shape
    confidence = expit(margins)
    gaps = confidence - right
    bins = bin_numbers(confidence, np.linspace(0.5, 1.0, ECE_BINS + 1))
    accuracy, calibration = np.zeros((number, MOMENTS)), np.zeros((number, ECE_BINS + 1, MOMENTS))
    accuracy[:, 0] = calibration[..., 0] = prompts * per_prompt
    accuracy[:, 1:4] = right.sum(axis=(1, 2))[:, np.newaxis]
    of_bin = (np.arange(number)[:, np.newaxis, np.newaxis] * ECE_BINS + bins).ravel()
    values = np.ones(gaps.shape)
    for power in (1, 2, 3):
        values *= gaps
        calibration[:, :-1, power] = np.bincount(of_bin, values.ravel(), number * ECE_BINS).reshape(number, -1)
        calibration[:, -1, power] = values.sum(axis=(1, 2))
    if per_prompt > 1:
        cells = (np.arange(number * prompts)[:, np.newaxis] * ECE_BINS + bins.reshape(-1, per_prompt)).ravel()
        totals = np.bincount(cells, gaps.ravel(), number * prompts * ECE_BINS).reshape(number, prompts, ECE_BINS)
        squares = np.concatenate([(totals**2).sum(axis=1), (gaps.sum(axis=2) ** 2).sum(axis=1)[:, np.newaxis]], axis=1)
        calibration[..., 6] = squares - calibration[..., 2]
        accuracy[:, 6] = (right.sum(axis=2) ** 2).sum(axis=1) - accuracy[:, 2]
        for table in (accuracy, calibration):
            table[..., 4] = prompts * per_prompt * (per_prompt - 1)
            table[..., 5] = (per_prompt - 1) * table[..., 1]
    return accuracy, calibration


@dataclass
class Sequences:
    """Moments of many runs: accuracy (runs, windows, 7), calibration (runs, windows, bins + 1, 7)."""

    accuracy: FloatArray
    calibration: FloatArray

    def evidence(self, baseline: Sequences | None) -> tuple[FloatArray, FloatArray]:
        """Log R_n of accuracy and of calibration, (runs, windows) each."""
        right = None if baseline is None else baseline.accuracy.sum(axis=1)
        gaps = None if baseline is None else baseline.calibration.sum(axis=1)
        return (
            log_evidence([Bets(recursive_residuals(self.accuracy, right), DROPS)]),
            log_evidence(calibration_bets(self.calibration, gaps, LIMITS.accuracy_drops)),
        )


def sequences(
    generator: np.random.Generator,
    world: World,
    runs: int,
    windows: int,
    size: int = SIZE,
    drop: FloatArray | None = None,
) -> Sequences:
    """Draws runs; ``drop`` is the loss of accuracy in each window, shape (windows,)."""
    margins, right = draw(generator, world, (runs, windows), size, drop)
    accuracy, calibration = moments(margins.reshape(-1, *margins.shape[2:]), right.reshape(-1, *right.shape[2:]))
    return Sequences(accuracy.reshape(runs, windows, -1), calibration.reshape(runs, windows, ECE_BINS + 1, -1))


def baseline_of(drawn: Sequences, count: int) -> Sequences | None:
    """The first ``count`` comparisons of baselines that were drawn in parts of 500."""
    parts = count // BASELINE_SIZE
    return Sequences(drawn.accuracy[:, :parts], drawn.calibration[:, :parts]) if parts else None


def in_parts(runs: int) -> Iterator[int]:
    """How many runs to draw at once."""
    for start in range(0, runs, AT_ONCE):
        yield min(AT_ONCE, runs - start)


def share(count: int, runs: int) -> str:
    interval = binomtest(count, runs).proportion_ci(method="exact")
    return f"{count / runs:.2%} ({interval.low:.2%} to {interval.high:.2%})"


def false_alarms(generator: np.random.Generator, world: World, runs: int, baselines: tuple[int, ...]) -> list[str]:
    """Rows of the quiet table."""
    alarms = {count: np.zeros(3, dtype=int) for count in baselines}
    for part in in_parts(runs):
        windows = sequences(generator, world, part, LIMITS.horizon)
        drawn = sequences(generator, world, part, max(1, max(baselines) // BASELINE_SIZE), BASELINE_SIZE)
        for count in baselines:
            reached = [(one >= LIMIT).any(axis=1) for one in windows.evidence(baseline_of(drawn, count))]
            alarms[count] += [reached[0].sum(), reached[1].sum(), (reached[0] | reached[1]).sum()]
    kind = "calibrated" if world.scale == 1 else f"margins × {world.scale:g}"
    return [
        f"| {world.accuracy} | {world.per_prompt} | {kind} | {count:,} | {alarms[count][0] / runs:.2%} | "
        f"{alarms[count][1] / runs:.2%} | {share(alarms[count][2], runs)} |"
        for count in baselines
    ]


def delays(evidence: FloatArray, quiet: int) -> tuple[str, float]:
    """Median and 90 % quantile of the windows until found, of runs that were quiet before; and the share found."""
    quietly = (evidence[:, :quiet] < LIMIT).all(axis=1)
    reached = evidence[quietly, quiet:] >= LIMIT
    until = np.where(reached.any(axis=1), reached.argmax(axis=1) + 1.0, np.inf)
    words = [f"{value:.0f}" if np.isfinite(value) else f"> {reached.shape[1]}" for value in _quantiles(until)]
    return f"{words[0]} ({words[1]})", float(np.isfinite(until).mean())


def _quantiles(until: FloatArray) -> list[float]:
    ordered = np.sort(until)
    return [float(ordered[int(np.ceil(level * len(ordered))) - 1]) for level in (0.5, 0.9)]


def found(
    generator: np.random.Generator,
    world: World,
    runs: int,
    *,
    baseline: int,
    quiet: int,
    drop: FloatArray,
    scale: float = 1.0,
) -> tuple[str, str, float, float]:
    """Windows until accuracy and calibration find a change, and the share of runs in which each does."""
    parts = []
    for part in in_parts(runs):
        before = sequences(generator, world, part, quiet) if quiet else None
        changed = World(world.accuracy, world.per_prompt, world.scale * scale)
        after = sequences(generator, changed, part, len(drop), drop=drop)
        if before is not None:
            after = Sequences(
                np.concatenate([before.accuracy, after.accuracy], axis=1),
                np.concatenate([before.calibration, after.calibration], axis=1),
            )
        first = sequences(generator, world, part, baseline // BASELINE_SIZE, BASELINE_SIZE) if baseline else None
        parts.append(after.evidence(first))
    accuracy, calibration = (np.concatenate([part[place] for part in parts]) for place in range(2))
    of_accuracy, of_calibration = delays(accuracy, quiet), delays(calibration, quiet)
    return of_accuracy[0], of_calibration[0], of_accuracy[1], of_calibration[1]


def naive(generator: np.random.Generator, runs: int, baseline: int, drop: float) -> list[str]:
    """What is usual instead: a z-test of each window at 5 %, and a CUSUM; both hold windows against the baseline."""
    drawn = sequences(generator, World(), runs, max(1, baseline // BASELINE_SIZE), BASELINE_SIZE)
    level = drawn.accuracy[..., 1].sum(axis=1) / drawn.accuracy[..., 0].sum(axis=1)

    def residuals(windows: Sequences) -> FloatArray:
        error = np.sqrt(level * (1 - level) / SIZE)[:, np.newaxis]
        return (level[:, np.newaxis] - windows.accuracy[..., 1] / SIZE) / error

    quiet = residuals(sequences(generator, World(), runs, LIMITS.horizon))
    worse = residuals(sequences(generator, World(), runs, 40, drop=np.full(40, drop)))
    step = drop / np.sqrt(0.7 * 0.3 / SIZE)

    def cusum(values: FloatArray) -> FloatArray:
        state, path = np.zeros(len(values)), []
        for column in values.T:
            state = np.maximum(0.0, state + step * (column - step / 2))
            path.append(state)
        return np.stack(path, axis=1)

    known = cusum(generator.standard_normal((20_000, LIMITS.horizon))).max(axis=1)
    height = float(np.quantile(known, 1 - LIMITS.false_alarm_rate / 2))  # 2.5 %, were the level known exactly
    rows = []
    for name, paths, limit in (
        ("z-test of each window, p < 5 %", (quiet, worse), 1.645),
        ("CUSUM against the baseline's level", (cusum(quiet), cusum(worse)), height),
    ):
        alarms = int((paths[0] >= limit).any(axis=1).sum())
        reached = paths[1] >= limit
        until = np.where(reached.any(axis=1), reached.argmax(axis=1) + 1.0, np.inf)
        words = [f"{value:.0f}" if np.isfinite(value) else "> 40" for value in _quantiles(until)]
        rows.append(f"| {name} | {baseline:,} | {share(alarms, runs)} | {words[0]} ({words[1]}) |")
    return rows


def quiet_rows(seed: int, runs: int, world: World, baselines: tuple[int, ...]) -> list[str]:
    return false_alarms(np.random.default_rng(seed), world, runs, baselines)


def drop_row(seed: int, runs: int, accuracy: float, baseline: int) -> list[str]:
    generator = np.random.default_rng(seed)
    drop = np.full(40, 0.05)
    cells = [
        found(generator, World(accuracy), runs, baseline=baseline, quiet=quiet, drop=drop)[0]
        if baseline or quiet
        else "cannot be seen"
        for quiet in (0, 20, 50, 100)
    ]
    return [f"| {accuracy} | {baseline:,} | {' | '.join(cells)} |"]


def other_row(seed: int, runs: int, words: str, world: World, drop: FloatArray) -> list[str]:
    first, second, *shares = found(np.random.default_rng(seed), world, runs, baseline=2000, quiet=50, drop=drop)
    return [f"| {words} | {first} | {shares[0]:.0%} | {second} | {shares[1]:.0%} |"]


def scale_row(seed: int, runs: int, scale: float, baseline: int, quiet: int) -> list[str]:
    drop = np.zeros(40)
    generator = np.random.default_rng(seed)
    _, second, false, _ = found(generator, World(), runs, baseline=baseline, quiet=quiet, drop=drop, scale=scale)
    return [f"| × {scale:g} | {baseline:,} | {quiet} | {second} | {false:.1%} |"]


def naive_rows(seed: int, runs: int, baseline: int) -> list[str]:
    return naive(np.random.default_rng(seed), runs, baseline, 0.05)


def sections(runs: int) -> list[tuple[str, list[Job]]]:
    """Each table: its heading, and what makes its rows."""
    some = max(100, runs // 10)
    worlds = [(World(accuracy), BASELINES) for accuracy in ACCURACIES]
    worlds += [(World(0.7, 4), (500, 10_000)), (World(0.9, 4), (500, 10_000)), (World(0.7, 1, 2.0), (500, 10_000))]
    drops = [(f"{100 * size:g} points at once", World(), np.full(60, size)) for size in (0.02, 0.03, 0.05, 0.1)]
    drops += [("0.5 points a window, up to 20", World(), np.minimum(0.005 * np.arange(1, 61), 0.2))]
    drops += [("5 points, 4 comparisons a prompt", World(0.7, 4), np.full(60, 0.05))]
    return [
        (
            f"## Quiet: share of {runs} runs with a false alarm within {LIMITS.horizon} windows\n\n"
            "| accuracy | comparisons a prompt | model | baseline | accuracy alarm | calibration alarm | any |\n"
            "|--|--|--|--|--|--|--|",
            [(quiet_rows, (runs, *world)) for world in worlds],
        ),
        (
            f"## Windows until a drop of 5 points is found, median (90 %), {some} runs\n\n"
            "| accuracy before | baseline | after 0 quiet windows | after 20 | after 50 | after 100 |\n"
            "|--|--|--|--|--|--|",
            [(drop_row, (some, accuracy, count)) for accuracy in ACCURACIES for count in BASELINES],
        ),
        (
            f"## Other changes: accuracy 0.7, baseline 2,000, after 50 quiet windows, {some} runs\n\n"
            "| change | accuracy watch | found within 60 | calibration watch | found within 60 |\n|--|--|--|--|--|",
            [(other_row, (some, *drop)) for drop in drops],
        ),
        (
            f"## Margins scaled, accuracy still 0.7, {some} runs of 40 windows after the change\n\n"
            "| margins | baseline | quiet windows | calibration watch | runs in which accuracy alarms |\n"
            "|--|--|--|--|--|",
            [
                (scale_row, (some, scale, *before))
                for scale in (1.5, 2.0, 3.0)
                for before in ((500, 20), (2000, 0), (2000, 50))
            ],
        ),
        (
            f"## What is usual instead: accuracy 0.7, 5 points lost at the first window, {some} runs\n\n"
            "| test | baseline | runs of 200 quiet windows with a false alarm | windows until found |\n|--|--|--|--|",
            [(naive_rows, (some, count)) for count in BASELINES[1:]],
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--output", type=Path, default=TABLE)
    arguments = parser.parse_args()
    lines = [
        f"Made by `benchmarks/drift.py --runs {arguments.runs}`: windows of {SIZE} comparisons, limits as they are by",
        f"default (5 % in {LIMITS.horizon} windows, shared by three watches: log evidence {LIMIT:.2f}). In brackets:",
        "95 % intervals (Clopper-Pearson) of shares, 90 % quantiles of windows until found.",
    ]
    with ProcessPoolExecutor(arguments.processes) as pool:
        for number, (heading, jobs) in enumerate(sections(arguments.runs)):
            lines += ["", *heading.split("\n")]
            making = [pool.submit(row, 1000 * number + place, *given) for place, (row, given) in enumerate(jobs)]
            for one in making:
                rows = one.result()
                print("\n".join(rows), flush=True)
                lines += rows
    versions = f"numpy {np.__version__}, scipy {scipy.__version__}, Python {platform.python_version()}"
    day = datetime.now(UTC).date().isoformat()
    lines += ["", f"{day}, rewardlab {__version__}, {versions}; {platform.machine()}, no GPU"]
    arguments.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

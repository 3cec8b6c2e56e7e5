"""Measuring that the speed benchmarks share: interleaved repeats, peak memory, the machine's floor, results on file.

Shared machines drift by a factor of two within minutes, so no figure here stands alone: all variants run in one
process, in turns, in an order that rotates with each repeat, and what is quoted is the ratio to a baseline within one
repeat. This file knows seconds, bytes and FLOPs; it knows neither models nor data.
"""

from __future__ import annotations

import ctypes
import gc
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import torch
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
BUSY = 0.5  # load average above which a machine was not quiet
_SAMPLE_SECONDS = 0.002


@dataclass(frozen=True, slots=True)
class Timing:
    """One timed run.

    Attributes:
        seconds: All of it.
        startup: Seconds until its first step begins, part of ``seconds``.
        laps: Seconds of each step, where there are steps.
    """

    seconds: float
    startup: float = 0.0
    laps: tuple[float, ...] = ()


@dataclass(slots=True)
class Work:
    """What one run of a variant does; found in an untimed rehearsal.

    Attributes:
        units: Pairs or texts.
        unique_tokens: Tokens of these when what they share is counted once: the floor's measure.
        computed_tokens: Ids that the model's embedding was given.
        peak_mb: Peak memory above what was in use before, in MB (10^6 bytes).
        extra: Further columns of the table, as text.
    """

    units: int
    unique_tokens: int
    computed_tokens: int
    peak_mb: float
    extra: dict[str, str] = field(default_factory=dict)


def interleave(
    runs: Mapping[str, Callable[[], Timing]], repeats: int, report: Callable[[str], None]
) -> dict[str, list[Timing]]:
    """Run every variant once per repeat, in an order that rotates by one each time.

    Args:
        runs: Variant to what runs it once and times the part that counts.
        repeats: How often.
        report: Called with a line for each run.
    """
    names = list(runs)
    timings: dict[str, list[Timing]] = {name: [] for name in names}
    for repeat in range(repeats):
        shift = repeat % len(names)
        for name in names[shift:] + names[:shift]:
            gc.collect()
            timings[name].append(runs[name]())
            report(f"repeat {repeat + 1} of {repeats}, {name}: {timings[name][-1].seconds:.2f} s")
    return timings


def ratios(baseline: Sequence[Timing], variant: Sequence[Timing]) -> dict[str, dict[str, Any]]:
    """How many times faster a variant is than the baseline of the same repeat.

    Returns:
        Under ``"whole"`` for runs of as many steps, all of their time; under ``"steps"`` for runs with steps, the time
        of these alone, over as many first steps as both have. Each with every repeat's ratio, its minimum and median.
    """
    found: dict[str, dict[str, Any]] = {}
    both = list(zip(baseline, variant, strict=True))
    if all(len(base.laps) == len(other.laps) for base, other in both):
        found["whole"] = _spread([base.seconds / other.seconds for base, other in both])
    steps = min(min(len(base.laps), len(other.laps)) for base, other in both)
    if steps:
        found["steps"] = _spread([sum(base.laps[:steps]) / sum(other.laps[:steps]) for base, other in both])
        found["steps"]["count"] = steps
    return found


def _spread(values: Sequence[float]) -> dict[str, Any]:
    return {"each": [round(v, 3) for v in values], "min": min(values), "median": statistics.median(values)}


@contextmanager
def peak_memory(device: str) -> Iterator[dict[str, float]]:
    """Peak memory of a block above what was in use before it, under ``"mb"`` when the block has ended.

    On CUDA what torch has allocated; else the process's resident memory, sampled by a thread. Freed memory is given
    back first, or a variant would live in what an earlier one has left behind and seem to need nothing.
    """
    result: dict[str, float] = {}
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        yield result
        result["mb"] = (torch.cuda.max_memory_allocated() - before) / 1e6
        return
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    process, ended = psutil.Process(), threading.Event()
    before = peak = process.memory_info().rss

    def sample() -> None:
        nonlocal peak
        while not ended.wait(_SAMPLE_SECONDS):
            peak = max(peak, process.memory_info().rss)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield result
    finally:
        ended.set()
        thread.join()
    result["mb"] = (peak - before) / 1e6


def synchronize(device: str) -> None:
    """Wait until the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def gemm_flops(device: str) -> float:
    """The machine's matrix-multiply rate in FLOP/s, best of several: float32 with all threads, bfloat16 on CUDA."""
    size, dtype = (8192, torch.bfloat16) if device == "cuda" else (2048, torch.float32)
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(12):
        synchronize(device)
        start = time.perf_counter()
        left @ right
        synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def start(device: str, report: Callable[[str], None]) -> dict[str, Any]:
    """What must be noted before anything runs: the load that others put on the machine, and its matrix rate."""
    load = os.getloadavg()[0]
    if load > BUSY:
        report(f"warning: the load average is {load:.2f}: this machine is not quiet, ratios will scatter")
    return {"load_average": round(load, 2), "gemm_gflops": {"start": round(gemm_flops(device) / 1e9, 1)}}


def surroundings(device: str) -> dict[str, Any]:
    """Date, command, commit, versions and machine, without names of hosts or people."""
    versions = {"python": platform.python_version()}
    for name in ("rewardlab", "torch", "transformers", "trl", "flash-pref"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    machine: dict[str, Any] = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
    }
    if device == "cuda":
        machine["gpu"] = torch.cuda.get_device_name()
    return {
        "command": " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "date": datetime.now(UTC).date().isoformat(),
        "commit": _commit(),
        "versions": versions,
        "machine": machine,
    }


def summarize(
    timings: Mapping[str, Sequence[Timing]],
    work: Mapping[str, Work],
    *,
    baselines: Sequence[str],
    flops_per_token: float,
    peak_flops: float,
) -> dict[str, dict[str, Any]]:
    """The figures of every variant, those that only rehearsed (no timings) included.

    Args:
        timings: Of each timed variant, one per repeat.
        work: Of each variant.
        baselines: Variants that the others are compared with.
        flops_per_token: Least that one token costs.
        peak_flops: The machine's matrix rate.
    """
    figures: dict[str, dict[str, Any]] = {}
    for name, done in work.items():
        row: dict[str, Any] = {
            "units": done.units,
            "computed_tokens": done.computed_tokens,
            "unique_tokens": done.unique_tokens,
            "peak_mb": round(done.peak_mb),
            "extra": done.extra,
        }
        if runs := timings.get(name):
            seconds = [run.seconds for run in runs]
            working = [sum(run.laps) or run.seconds for run in runs]
            row |= {
                "seconds": [round(s, 3) for s in seconds],
                "startup_seconds": [round(run.startup, 3) for run in runs],
                "step_seconds": [round(sum(run.laps), 3) for run in runs if run.laps],
                "per_second": done.units / min(seconds),
                "median_per_second": done.units / statistics.median(seconds),
                "floor_share": flops_per_token * done.unique_tokens / peak_flops / min(working),
                "ratios": {base: ratios(timings[base], runs) for base in baselines},
            }
        figures[name] = row
    return figures


def save(benchmark: str, name: str, record: Mapping[str, Any], results: Path) -> None:
    """Write one record, print its table, and make the page of all records on file anew."""
    folder = results / benchmark
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    parts = [f"Made by `benchmarks/{benchmark}.py`; how to read it is in that file.\n"]
    for path in sorted(folder.glob("*.json")):
        parts.append(_section(json.loads(path.read_text(encoding="utf-8"))))
    (results / f"{benchmark}.md").write_text("\n".join(parts), encoding="utf-8")
    columns, rows = _table(record)
    table = Table(*columns, title=record["title"])
    for row in rows:
        table.add_row(*row)
    console = Console()
    console.width = max(console.width, 170)  # a table in a log file is not to be broken
    console.print(table)
    for line in _notes(record):
        console.print(line, markup=False)


def _section(record: Mapping[str, Any]) -> str:
    columns, rows = _table(record)
    lines = [f"## {record['title']}", "", *(f"- {line}" for line in _notes(record)), ""]
    lines += [f"| {' | '.join(columns)} |", "|--" * len(columns) + "|"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows]) + "\n"


def _table(record: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of a record, as text; ratios are minimum (median) over the repeats."""
    unit, rows = record["unit"], record["variants"].values()
    others = {base: [r for name, r in record["variants"].items() if name != base] for base in record["baselines"]}
    kinds = [
        (base, kind)
        for base in record["baselines"]
        for kind in ("whole", "steps")
        if any(kind in row.get("ratios", {}).get(base, {}) for row in others[base])
    ]
    stepwise = any(row.get("step_seconds") for row in rows)
    extras = list(dict.fromkeys(key for row in rows for key in row["extra"]))
    columns = ["variant", f"{unit}s/s", *(f"× {base}" + (", steps" if kind == "steps" else "") for base, kind in kinds)]
    columns += ["% of floor", "peak MB", f"tokens/{unit}", *(["startup s"] if stepwise else []), *extras]
    table = []
    for name, row in record["variants"].items():
        timed = "seconds" in row
        cells = [name, f"{row['per_second']:.2f}" if timed else "-"]
        for base, kind in kinds:
            ratio = row["ratios"][base].get(kind) if timed else None
            cells.append(f"{ratio['min']:.2f} ({ratio['median']:.2f})" if ratio else "-")
        cells.append(f"{100 * row['floor_share']:.0f}" if timed else "-")
        cells += [f"{row['peak_mb']:,}", f"{row['computed_tokens'] / row['units']:.0f}"]
        if stepwise:
            cells.append(f"{statistics.median(row['startup_seconds']):.2f}" if timed else "-")
        table.append(cells + [row["extra"].get(key, "-") for key in extras])
    return columns, table


def _notes(record: Mapping[str, Any]) -> list[str]:
    machine, gemm, versions = record["machine"], record["gemm_gflops"], record["versions"]
    return [
        *record["notes"],
        f"Floor: {record['floor']}; matrix rate {gemm['start']:.0f} GFLOP/s at the start, {gemm['end']:.0f} at the "
        "end, the larger one counts.",
        f"{record['repeats']} interleaved repeats; {record['unit']}s/s from the fastest; × is the ratio within a "
        "repeat: minimum (median).",
        f"{machine.get('gpu') or machine['processor']}, {machine['cores']} cores, {machine['threads']} threads, "
        f"load average before {record['load_average']}"
        + (" (NOT quiet)" if record["load_average"] > BUSY else "")
        + f"; {', '.join(f'{k} {v}' for k, v in versions.items())}; commit {record['commit']}; {record['date']}; "
        f"`{record['command']}`",
    ]


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """The checkout's commit, marked where the source was changed since; None without git."""
    try:
        asked = [["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "--", "src", "benchmarks/*.py"]]
        head, changed = (
            subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True).stdout.strip()
            for words in asked
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{head} with changes" if changed else head

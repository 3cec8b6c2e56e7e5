"""How long `import rewardlab`, the command line's help and each command's wait for imports.

    python benchmarks/imports.py

Fresh processes in turns, the bare interpreter too; to ``benchmarks/results/imports.md`` and stdout. The CPU seconds are
what to look at where the machine is busy. Under a minute on a free machine.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

RESULT = Path(__file__).resolve().parent / "results" / "imports.md"
REPEATS = 5
VARIANTS = {
    "python alone": ["-c", "pass"],
    "import rewardlab": ["-c", "import rewardlab"],
    "rewardlab --help": ["-m", "rewardlab.cli", "--help"],
    "rewardlab train --help": ["-m", "rewardlab.cli", "train", "--help"],
    "rewardlab score --help": ["-m", "rewardlab.cli", "score", "--help"],
    "import torch, for comparison": ["-c", "import torch"],
}


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    times: dict[str, list[float]] = {name: [] for name in VARIANTS}
    worked: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for _ in range(REPEATS):
        for name, arguments in VARIANTS.items():
            before, start = _cpu_seconds(), time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, capture_output=True, timeout=120)
            times[name].append(time.perf_counter() - start)
            worked[name].append(_cpu_seconds() - before)
    rows = [
        f"| {name} | {statistics.median(found):.2f} | {min(found):.2f} | {statistics.median(worked[name]):.2f} |"
        for name, found in times.items()
    ]
    text = "\n".join(["| process | median s | best s | median CPU s |", "|---|---|---|---|", *rows])
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("typer", "rich", "torch"))
    told = (
        f"`python benchmarks/imports.py`, {REPEATS} fresh processes each, in turns; {datetime.date.today()}, Python "
        f"{platform.python_version()}, {versions};\n{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end."
    )
    RESULT.write_text(f"# Imports\n\n{told}\n\n{text}\n")
    print(text)


if __name__ == "__main__":
    main()

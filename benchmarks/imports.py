"""How long `import rewardlab`, the command line's help and each command's wait for imports.

    python benchmarks/imports.py

Fresh processes in turns, the bare interpreter too; medians of 5, to ``benchmarks/results/imports.md`` and stdout.
Under a minute on a free machine.
"""

from __future__ import annotations

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


def main() -> None:
    times: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for _ in range(REPEATS):
        for name, arguments in VARIANTS.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, capture_output=True, timeout=120)
            times[name].append(time.perf_counter() - start)
    rows = [f"| {name} | {statistics.median(found):.2f} | {min(found):.2f} |" for name, found in times.items()]
    text = "\n".join(["| process | median s | best s |", "|---|---|---|", *rows])
    told = f"`python benchmarks/imports.py`, {REPEATS} fresh processes each, in turns."
    RESULT.write_text(f"# Imports\n\n{told}\n\n{text}\n")
    print(text)


if __name__ == "__main__":
    main()

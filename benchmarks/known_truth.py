"""What each objective learns of a known truth: generated rankings, outcomes, judged steps, ties and strengths.

    python benchmarks/known_truth.py

Runs every experiment of :mod:`rewardlab.studies.known_truth` at the size of its tests, on one thread, some six minutes
in all; the table goes to ``benchmarks/results/known_truth.md`` and stdout.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import torch
import transformers

from rewardlab import __version__
from rewardlab.studies import known_truth
from rewardlab.studies.known_truth import Finding, StudySize

TABLE = Path(__file__).resolve().parent / "results" / "known_truth.md"


def findings() -> Iterator[tuple[str, str, Finding]]:
    """Experiment, measure and finding, one after the other."""
    for objective in ("plackett_luce", "grouped_pairs"):
        for name, finding in known_truth.rankings(0, StudySize(2000, 300), objective).items():
            yield f"rankings, {objective}", name, finding
    for name, finding in known_truth.outcomes(0, StudySize(2000, 150, batch_size=4)).items():
        yield "outcomes", name, finding
    for name, finding in known_truth.steps(0, StudySize(1200, 150, batch_size=4)).items():
        yield "judged steps", name, finding
    for seed in (0, 1, 2):
        for margin_from in ("column", "llama2_large"):
            what = "no margin" if margin_from == "column" else margin_from
            found = known_truth.margins(seed, StudySize(1500, 300, batch_size=4), margin_from)
            yield f"strengths, seed {seed}, {what}", "correlation of score difference and strength", found


def main() -> None:
    """Run all, write the table."""
    torch.set_num_threads(1)
    lines = ["Made by `benchmarks/known_truth.py`: small decoders from nothing, one epoch, held-out prompts.", ""]
    lines += ["| experiment | measure | value [95 %] | without a model |", "|--|--|--|--|"]
    for experiment, measure, found in findings():
        value = found.measured
        interval = "" if value.low is None else f" [{value.low:.3f}, {value.high:.3f}]"
        baselines = ", ".join(f"{name} {baseline:.3f}" for name, baseline in found.baselines.items())
        lines.append(f"| {experiment} | {measure.replace('_', ' ')} | {value.value:.3f}{interval} | {baselines} |")
        print(lines[-1], flush=True)
    lines += ["", "| ties drawn with nu | on | learned | error | from the share of ties alone | score correlation |"]
    lines += ["|--|--|--|--|--|--|"]
    for where, nu in (("chains", 0.4), ("chains", 2.5), ("world", 2.5)):
        found_ties = known_truth.ties(0, StudySize(4000, 150, batch_size=4), nu, on=where)  # type: ignore[arg-type]
        lines.append(
            f"| {nu} | {where} | {found_ties.learned:.3f} | {found_ties.error:.1%} | {found_ties.from_shares:.3f} | "
            f"{found_ties.correlation:.3f} |"
        )
        print(lines[-1], flush=True)
    versions = f"rewardlab {__version__}, torch {torch.__version__}, transformers {transformers.__version__}"
    lines += ["", f"{datetime.now(UTC):%Y-%m-%d}, {versions}, Python {platform.python_version()}; "]
    lines[-1] += f"{platform.machine()}, one thread, no GPU"
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

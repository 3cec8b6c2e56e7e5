"""Training on 2 processes of 1 thread beside 1 process of 1 thread: the same global batches through the real loop.

    python benchmarks/processes.py --model S10 --batch 16 --pairs 192 --repeats 3

Pairs are the first N of hh_harmless_test (as in ``train.py``; ``$REWARDLAB_DATA``, by default ``../shared/data``), in
packed trees. Each run is a launch of its own, by turns; timed are the steps of ``trainer.train()`` after the first.
What is beside them (imports, the model, the first step, the end) is as long in a run of any length, and is told in
seconds. Processes exchange gradients by DDP over gloo and share each batch by computed cost. On a machine with as few
cores as processes, whatever else it does shows in the ratio: see the load that is noted. ``balance`` is the dearest
share of a batch over the mean share, 1 at best, by computed cost.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import measure

COUNTS = (1, 2)
TIMEOUT = 3600  # seconds for one launch


def main() -> None:
    """Launch by turns, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="S10", help="a shape of workloads.py")
    parser.add_argument("--batch", type=int, default=16, help="pairs in a step, over all processes")
    parser.add_argument("--pairs", type=int, default=192)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--results", type=Path, default=measure.RESULTS)
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    found: dict[int, list[dict[str, Any]]] = {count: [] for count in COUNTS}
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(arguments.repeats):
            for count in COUNTS[:: 1 if repeat % 2 else -1]:
                found[count].append(launch(count, arguments, Path(folder)))
                print(
                    f"repeat {repeat + 1}, {count} processes: {found[count][-1]['per_second']:.2f} pairs/s", flush=True
                )
    ratios = [two["per_second"] / one["per_second"] for one, two in zip(found[1], found[2], strict=True)]
    command = f"python benchmarks/processes.py {' '.join(sys.argv[1:])}".strip()
    lines = [
        "Made by `benchmarks/processes.py`; how to read it is in that file.",
        "",
        f"- {arguments.pairs} pairs, {arguments.batch} a step, model {arguments.model}, packed trees, float32, CPU.",
        f"- {arguments.repeats} interleaved repeats; pairs/s is the median; × is the ratio within a repeat.",
        f"- {os.cpu_count()} cores; load average before {load:.2f}{' (NOT quiet)' if load > measure.BUSY else ''}; "
        f"{datetime.now(UTC).date()}; `{command}`",
        "",
        "| processes of 1 thread | pairs/s | × 1 process: minimum (median) | balance of shares | seconds beside |",
        "|--|--|--|--|--|",
    ]
    for count in COUNTS:
        speed = statistics.median(run["per_second"] for run in found[count])
        ratio = f"{min(ratios):.2f} ({statistics.median(ratios):.2f})" if count > 1 else "1"
        beside = statistics.median(run["beside"] for run in found[count])
        lines.append(f"| {count} | {speed:.2f} | {ratio} | {found[count][0]['balance']:.3f} | {beside:.1f} |")
    page = "\n".join(lines) + "\n"
    print(page)
    (arguments.results / "processes.md").write_text(page, encoding="utf-8")


def launch(count: int, arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One run on so many processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    out = folder / "found.json"
    job = json.dumps({"model": arguments.model, "batch": arguments.batch, "pairs": arguments.pairs, "out": str(out)})
    processes = []
    began = time.perf_counter()
    for rank in range(count):
        own = {"WORLD_SIZE": str(count), "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"}
        environment = {**os.environ, **address, **own, "REWARDLAB_PROCESSES_JOB": job}
        processes.append(subprocess.Popen([sys.executable, __file__], env=environment, stderr=subprocess.DEVNULL))
    try:
        if any(process.wait(TIMEOUT) for process in processes):
            raise SystemExit("error: a process failed; run it with REWARDLAB_PROCESSES_JOB set to see why")
    finally:
        for process in processes:
            process.kill()
    wall = time.perf_counter() - began
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return {**found, "beside": wall - found["seconds"]}


def work(job: dict[str, Any]) -> None:
    """What each process does."""
    import torch
    from transformers import TrainerCallback
    from workloads import SHAPES, build_base_model, hh_groups, usable

    from rewardlab import RewardArguments, RewardTrainer
    from rewardlab.data.encoding import Encoder
    from rewardlab.modeling.cost import ComputeCost
    from rewardlab.modeling.preparing import inner_model, prepare_for_training
    from rewardlab.modeling.ranks import share_out

    torch.set_num_threads(1)
    ranks = int(os.environ["WORLD_SIZE"])
    groups = hh_groups()
    with tempfile.TemporaryDirectory() as folder:
        build_base_model(Path(folder), SHAPES[job["model"]], groups[:512], seed=0)
        prepared = prepare_for_training(folder, seed=0)
    arguments = RewardArguments(
        tempfile.gettempdir(), per_device_train_batch_size=job["batch"] // ranks, max_length=1024, use_cpu=True,
        save_strategy="no", disable_tqdm=True, report_to="none", seed=0, logging_strategy="no", max_group_size=1,
        ddp_find_unused_parameters=False,
    )  # fmt: skip
    kept = usable(groups[:512], Encoder(prepared.tokenizer, 1024), job["pairs"], seed=0)
    trainer = RewardTrainer(prepared.model, arguments, kept, processing_class=prepared.tokenizer)
    ends: list[float] = []

    class Watch(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

    trainer.add_callback(Watch())
    trainer.train()
    steps = len(ends) - 1
    balances = []
    cost, layout = ComputeCost.of_model(inner_model(trainer.model)), trainer._engine_of_run().layout
    examples = trainer.train_data.examples
    for start in range(0, len(examples) - job["batch"] + 1, job["batch"]):
        batch = examples[start : start + job["batch"]]
        costs = [cost.of_group(example.sequences, layout) for example in batch]
        shares = [sum(costs[i] for i in share) for share in share_out(costs, ranks)]
        balances.append(max(shares) * ranks / sum(shares))
    if int(os.environ["RANK"]) == 0:
        seconds = ends[-1] - ends[0]
        speed = steps * job["batch"] / seconds
        record = {"per_second": speed, "seconds": seconds, "balance": statistics.mean(balances), "layout": layout}
        Path(job["out"]).write_text(json.dumps(record), encoding="utf-8")
    if ranks > 1:
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    if "REWARDLAB_PROCESSES_JOB" in os.environ:
        work(json.loads(os.environ["REWARDLAB_PROCESSES_JOB"]))
    else:
        main()

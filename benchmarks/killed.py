"""Kill a training run at random steps, resume it each time, and compare its final weights with a run left alone.

    python benchmarks/killed.py --kills 10

Each combination of signal and number of processes trains the same small model through the command line. SIGTERM goes to
one process, which must stop all of them at one step with status 143; SIGKILL goes to all, as when a machine dies. Steps
are drawn from a seed and printed; a random pause after the step lets kills hit saving, too. With `--one-rank` a run
that `--launcher ddp` has started loses its last process alone: the command must end by itself. What must hold: the
bytes of `model.safetensors`, and the loss of every step, are those of the uninterrupted run.

The command is run in forks of this process, which has imported everything: they are processes like any other, and
start at once. Results: benchmarks/results/killed.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}

import rewardlab.training.run  # noqa: F401  # imported once, for all forks
from rewardlab.cli.main import STOPPED, main
from rewardlab.studies.demo import DemoSize, build_base_model
from rewardlab.types import Pair, PromptGroup

RESULTS = Path(__file__).resolve().parent / "results" / "killed.json"
LONGEST_ATTEMPT = 300.0
"""Seconds after which an attempt counts as hanging, on a machine however busy."""
LONGEST_WITHOUT_A_RANK = 60.0
"""Seconds that a command may go on for after one of its processes was killed."""
GROUPS, STEPS = 60, 30

VARIANTS = {
    # A parameter beside the model, dropout, several epochs, an accumulation that does not divide them.
    "full": ["--objective", "davidson", "--set", "disable_dropout=false", "--set", "num_train_epochs=6"],
    "lora": ["--lora", "--set", "lora.dropout=0.2", "--set", "disable_dropout=false", "--set", "num_train_epochs=6"],
    "heads": ["--ensemble-heads", "3", "--set", "num_train_epochs=6"],
}


@dataclass(slots=True)
class Attempt:
    """One start of the command.

    Attributes:
        statuses: Of its processes; negative: the signal that ended it.
        said: What the first process wrote to stderr.
        steps: The steps that it told of.
    """

    statuses: list[int]
    said: str
    steps: list[int] = field(default_factory=list)


def groups(count: int, seed: int) -> list[PromptGroup]:
    """Pairs of different lengths."""
    draw = random.Random(seed)
    words = ["the", "sea", "and", "wind", "of", "a", "poem", "about", "Paris", "is", "short", "but", "long"]

    def text(low: int, high: int) -> str:
        return " ".join(draw.choices(words, k=draw.randint(low, high)))

    return [PromptGroup(text(2, 9), (text(9, 14), text(2, 5)), (Pair(0, 1),), id=number) for number in range(count)]


def build(folder: Path) -> None:
    """The base model and the rows that all runs train on."""
    train = groups(GROUPS, 0)
    size = DemoSize(vocabulary=300, hidden_size=32, num_heads=2, num_layers=2)
    build_base_model(folder / "base", train, size, 0)
    for name, rows in (("train", train), ("held_out", groups(8, 1))):
        lines = ({"prompt": row.prompt, "chosen": row.completions[0], "rejected": row.completions[1]} for row in rows)
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def command(folder: Path, output: Path, variant: str, processes: int) -> list[str]:
    """The command line: five optimiser steps an epoch, the last of them with fewer rows."""
    settings = {
        "per_device_train_batch_size": 4 // processes,
        "gradient_accumulation_steps": 3,
        "save_steps": 2,
        "logging_steps": 1,
        "eval_steps": 7,
        "learning_rate": 0.002,
        "max_length": 128,
        "max_group_size": 1,
        "use_cpu": "true",
    }
    chosen = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    files = ["--data", str(folder / "train.jsonl"), "--eval-data", str(folder / "held_out.jsonl")]
    model = ["--model", str(folder / "base"), "--output", str(output), "--dtype", "float32"]
    return ["train", *model, *files, *VARIANTS[variant], *chosen]


def attempt(
    arguments: Sequence[str], processes: int, *, kill_after: int = 0, number: int = 0, pause: float = 0.0
) -> Attempt:
    """Start the command, and send a signal after a step.

    Args:
        arguments: Of the command line.
        processes: How many.
        kill_after: The step; 0 to let it end by itself.
        number: The signal.
        pause: Seconds between the step and the signal.
    """
    port, pids, out = _free_port(), [], os.pipe()
    for rank in range(processes):
        pids.append(_fork(arguments, rank, processes, port, out))
    os.close(out[1])
    made = Attempt([], "")
    watch = selectors.DefaultSelector()
    watch.register(out[0], selectors.EVENT_READ)
    deadline, sent, ends = time.monotonic() + LONGEST_ATTEMPT, not kill_after, b""
    text = bytearray()
    while time.monotonic() < deadline:
        if not watch.select(timeout=1.0):
            continue
        ends = os.read(out[0], 65536)
        if not ends:
            break
        text += ends
        whole_lines = text[: text.rfind(b"\n") + 1].decode(errors="replace").splitlines()
        made.steps = [int(line.split()[1].split("/")[0]) for line in whole_lines if line.startswith("step ")]
        if not sent and made.steps and made.steps[-1] >= kill_after:
            time.sleep(pause)
            for pid in pids if number == signal.SIGKILL else pids[-1:]:
                os.kill(pid, number)
            sent = True
    for pid in pids if time.monotonic() >= deadline else []:
        os.kill(pid, signal.SIGKILL)
    made.statuses = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    os.close(out[0])
    made.said = text.decode(errors="replace")
    if time.monotonic() >= deadline:
        raise SystemExit(f"error: the command hangs\n{made.said}")
    return made


def run(
    folder: Path, variant: str, processes: int, number: int, kills: int, seed: int, alone: Path
) -> dict[str, object]:
    """Train, kill at each of some steps, resume until it is done; compare with the run that was left alone."""
    draw = random.Random(f"{seed} {variant} {processes} {number}")
    steps = sorted(draw.sample(range(1, STEPS - 3), kills))
    output = folder / f"{variant}-{processes}-{signal.Signals(number).name}"
    arguments = command(folder, output, variant, processes)
    print(f"{variant}, {processes} process(es), {signal.Signals(number).name} after steps {steps}", flush=True)
    ended: list[list[int]] = []
    for step in steps:
        pause = draw.uniform(0.0, 0.04) if number == signal.SIGKILL else 0.0
        made = attempt(arguments, processes, kill_after=step, number=number, pause=pause)
        ended.append(made.statuses)
        expected = -number if number == signal.SIGKILL else STOPPED
        if set(made.statuses) != {expected}:
            raise SystemExit(f"error: the processes ended with {made.statuses}, expected {expected}\n{made.said}")
        arguments = [*command(folder, output, variant, processes), "--resume"]
    told = {"variant": variant, "processes": processes, "signal": signal.Signals(number).name, "after_steps": steps}
    return told | _resumed_and_compared(arguments, processes, output, alone)


def run_without_a_rank(folder: Path, variant: str, processes: int, step: int, alone: Path) -> dict[str, object]:
    """Train under the launcher, kill the last process after a checkpoint, see the command end, and resume."""
    output = folder / f"{variant}-{processes}-one-rank"
    arguments = command(folder, output, variant, processes)
    print(f"{variant}, process {processes - 1} of {processes} alone, SIGKILL after step {step}", flush=True)
    said = output.with_suffix(".txt")
    launched = [sys.executable, "-m", "rewardlab.cli", *arguments, "--launcher", "ddp", "--processes", str(processes)]
    with said.open("wb") as file, subprocess.Popen(launched, stdout=subprocess.DEVNULL, stderr=file) as process:
        try:
            deadline = time.monotonic() + LONGEST_ATTEMPT
            while not (output / "training" / f"checkpoint-{step}").exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"error: no checkpoint of step {step}\n{said.read_text(errors='replace')}")
                time.sleep(0.02)
            os.kill(_ranks_below(process.pid)[processes - 1], signal.SIGKILL)
            start = time.monotonic()
            status = process.wait(LONGEST_WITHOUT_A_RANK)  # raises where it goes on
            seconds = time.monotonic() - start
        finally:
            process.kill()  # its processes end with it
    if f"process {processes - 1} of {processes} was ended by SIGKILL" not in said.read_text(errors="replace"):
        raise SystemExit(f"error: it ended with {status} and does not say why\n{said.read_text(errors='replace')}")
    if not status or (output / "reward_contract.json").exists():
        raise SystemExit(f"error: it ended with {status}, as if it were done")
    print(f"  ended with status {status} after {seconds:.1f} s", flush=True)
    told = {"variant": variant, "processes": processes, "signal": "SIGKILL of one process", "after_steps": [step]}
    told |= {"status": status, "seconds_to_end": round(seconds, 1)}
    return told | _resumed_and_compared([*arguments, "--resume"], processes, output, alone)


def _resumed_and_compared(arguments: Sequence[str], processes: int, output: Path, alone: Path) -> dict[str, object]:
    made = attempt(arguments, processes)
    if any(made.statuses):
        raise SystemExit(f"error: the last resumption ended with {made.statuses}\n{made.said}")
    if "resuming from checkpoint-" not in made.said:
        raise SystemExit(f"error: it started from the beginning\n{made.said}")
    found: dict[str, object] = {
        "weights_equal": digest(output) == digest(alone),
        "losses_equal": losses(output) == losses(alone),
    }
    print(f"  weights {'bit-equal' if found['weights_equal'] else 'DIFFER'}, ", end="")
    print(f"losses {'equal' if found['losses_equal'] else 'DIFFER'}", flush=True)
    return found


def digest(output: Path) -> str:
    """SHA-256 of the final weights."""
    return hashlib.sha256((output / "model.safetensors").read_bytes()).hexdigest()


def losses(output: Path) -> dict[int, list[float]]:
    """Of each step what was logged: its loss, and that of an evaluation after it."""
    found: dict[int, list[float]] = {}
    for entry in json.loads((output / "training" / "log_history.json").read_text()):
        values = [entry[name] for name in ("loss", "eval_loss") if name in entry]
        found.setdefault(entry["step"], []).extend(values)
    return found


def _fork(arguments: Sequence[str], rank: int, processes: int, port: int, out: tuple[int, int]) -> int:
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        if processes > 1:
            ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
            os.environ |= {name: str(value) for name, value in ranks.items()}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(out[1], 2)
        os.close(out[0])
        status = main(list(arguments))
    except SystemExit as ended:
        status = int(ended.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _ranks_below(parent: int) -> dict[int, int]:
    """Of each rank that descends from a process its pid, by the environment that its launcher gave it."""
    found: dict[int, int] = {}
    parents = [parent]
    while parents:
        for task in Path(f"/proc/{parents.pop()}/task").glob("*/children"):
            for child in map(int, task.read_text().split()):
                parents.append(child)
                environment = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
                for entry in environment:
                    if entry.startswith(b"RANK="):
                        found.setdefault(int(entry[5:]), child)  # not a rank's own children, who inherit it
    return found


def _free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


def _build_in_a_fork(folder: Path) -> None:
    """So that this process itself never computes, and a fork has no threads that it does not know of."""
    pid = os.fork()
    if not pid:
        try:
            build(folder)
            os._exit(0)
        finally:
            os._exit(1)
    if os.waitpid(pid, 0)[1]:
        raise SystemExit("error: the base model could not be built")


def parse() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--signals", nargs="+", default=["SIGTERM", "SIGKILL"], choices=["SIGTERM", "SIGKILL"])
    parser.add_argument("--one-rank", action="store_true", help="also kill one process alone, where there are several")
    parser.add_argument("--variants", nargs="+", default=["full"], choices=list(VARIANTS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=None, help=f"by default nothing is written; {RESULTS.name}")
    return parser.parse_args()


def run_all(options: argparse.Namespace) -> int:
    """All combinations; the status is 1 where any run differs."""
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _build_in_a_fork(folder)
        for variant in options.variants:
            for processes in options.processes:
                alone = folder / f"{variant}-{processes}-alone"
                made = attempt(command(folder, alone, variant, processes), processes)
                if any(made.statuses) or made.steps[-1] != STEPS:
                    raise SystemExit(f"error: the run left alone ended with {made.statuses}\n{made.said}")
                for name in options.signals:
                    number = signal.Signals[name]
                    found.append(run(folder, variant, processes, number, options.kills, options.seed, alone))
                if options.one_rank and processes > 1:
                    found.append(run_without_a_rank(folder, variant, processes, 4, alone))
    if options.results:
        options.results.write_text(json.dumps({"seed": options.seed, "steps": STEPS, "runs": found}, indent=1) + "\n")
    return 0 if all(one["weights_equal"] and one["losses_equal"] for one in found) else 1


if __name__ == "__main__":
    raise SystemExit(run_all(parse()))

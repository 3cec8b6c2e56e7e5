"""Bulk scoring killed with -9 again and again: the output must be that of a run that was left alone, byte for byte.

    python benchmarks/bulk_killed.py                                # 100,000 rows, 5 kills, both engines
    python benchmarks/bulk_killed.py --rows 3000 --kills 3 --model runs/rm --engines local

The moments are drawn from a seed: each kill comes when a drawn share of the rows is safe on disk, and a drawn delay
later. With the engine `ray` every second kill hits an actor, which Ray has to start again, and the others the command
itself, with which its cluster dies. Without `--model` the scorer is a stand-in: its scores depend on the text and, as
a real model's, in their last bits on what else is in the batch, so that other chunks would be noticed.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

_STARTED_IN = 600.0  # seconds in which a command must have got on, on whatever busy machine
_WORDS = ["the", "sea", "and", "wind", "of", "a", "poem", "about", "Paris", "is", "short", "but", "long"]


class StandIn:
    """A scorer without a model.

    Args:
        seconds: That each chunk takes.
    """

    fingerprint, scale, has_steps, is_ensemble = "stand-in", "raw", False, False
    settings: dict[str, Any] = {}  # noqa: RUF012 - what a Scorer calls its settings

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    @property
    def encoder(self) -> StandIn:
        """Itself."""
        return self

    def encode_many(self, groups: Sequence[Any]) -> list[Any]:
        """Bytes as ids."""
        from rewardlab.data.encoding import EncodedGroup

        return [
            EncodedGroup(group, tuple(tuple(text.encode()) for text in group.completions), 0, 0) for group in groups
        ]

    def score_encoded(
        self, encoded: Sequence[Any], on_progress: Callable[[int], None] | None = None
    ) -> list[list[float]]:
        """Scores of a chunk."""
        time.sleep(self.seconds)
        last_bits = 2.0**-40 * sum(len(ids) for item in encoded for ids in item.sequences)
        found = [
            [zlib.crc32((item.group.prompt + text).encode()) / 2**32 + last_bits for text in item.group.completions]
            for item in encoded
        ]
        if on_progress is not None:
            on_progress(sum(map(len, found)))
        return found


def opener(model: str | None, seconds: float) -> Callable[[], Any]:
    """What opens the scorer, in the command or in an actor."""
    if model is None:
        return functools.partial(StandIn, seconds)
    from rewardlab.scoring.opening import open_scorer

    return functools.partial(open_scorer, model, device="cpu")


def command(engine: str, data: str, output: str, model: str | None, seconds: float, part_rows: int) -> None:
    """What is killed: one run of bulk scoring."""
    opens = opener(model, seconds)
    if engine == "local":
        from rewardlab.scoring.bulk import score_file

        scorer = opens()
        score_file(scorer, [data], output, settings=scorer.settings)
        return
    from rewardlab.adapters.ray_data import RayWorkers
    from rewardlab.scoring.parts import score_parts

    with RayWorkers(opens, actors=2, use_gpus=False) as workers:
        score_parts(workers, [data], output, settings=workers.settings, part_rows=part_rows)


def write_rows(path: Path, rows: int, seed: int) -> None:
    """Runs of rows with one prompt, and now and then a row that is broken."""
    chance, prompt = random.Random(seed), 0
    with path.open("w", encoding="utf-8") as stream:
        for number in range(rows):
            prompt += chance.random() < 0.3
            row = {
                "id": number,
                "prompt": f"Write about {prompt}.",
                "completion": " ".join(chance.choices(_WORDS, k=6)),
            }
            line = json.dumps(row)
            stream.write((line if number % 997 != 5 else line[:-3]) + "\n")


def rows_done(output: Path, engine: str) -> int:
    """Rows that are safe on disk."""
    name = output.with_name(output.name + ".partial.journal")
    if engine == "ray":
        name = output.with_name(output.name + ".parts") / "index.jsonl.partial"
    try:
        lines = name.read_bytes().split(b"\n")[:-1]
        return sum(json.loads(line).get("rows", 0) for line in (lines if engine == "ray" else lines[1:]))
    except (FileNotFoundError, ValueError):
        return 0


def end(processes: Sequence[psutil.Process]) -> float:
    """Wait until processes are gone, whose parent was killed; those that stay are killed too.

    Returns:
        Seconds that it took.
    """
    begun = time.monotonic()
    for process in psutil.wait_procs(processes, timeout=60)[1]:
        process.kill()
    return time.monotonic() - begun


def killed_run(
    start: Callable[[], subprocess.Popen[bytes]], output: Path, engine: str, kills: int, rows: int, seed: int
) -> list[dict[str, Any]]:
    """Run a command to its end, killing it on the way.

    Returns:
        Of each kill what was hit and how many rows were safe then; fewer where the command was done before the last.
    """
    chance = random.Random(seed)
    shares = sorted(chance.uniform(0.02, 0.8) for _ in range(kills))
    told: list[dict[str, Any]] = []
    process = start()
    try:
        for number, share in enumerate(shares):
            deadline = time.monotonic() + _STARTED_IN
            while rows_done(output, engine) < share * rows:
                if process.poll() == 0:  # Ray hands over several parts at once: it was done before this kill was due
                    return told
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the command failed or hung before kill {number + 1}: {process.poll()}")
                time.sleep(0.02)
            time.sleep(chance.uniform(0, 0.5))
            children = psutil.Process(process.pid).children(recursive=True)
            actors = [child for child in children if "MapWorker" in _name(child)]
            victim = "actor" if engine == "ray" and number % 2 and actors else "command"
            safe = rows_done(output, engine)
            if victim == "actor":
                chance.choice(sorted(actors, key=lambda actor: actor.pid)).kill()
            else:
                process.send_signal(signal.SIGKILL)
                process.wait()
                end(children)
                told.append({"hit": victim, "rows_safe": safe})
                if output.exists():  # it was hit when all was done; a command is not given again then
                    return told
                process = start()
                continue
            told.append({"hit": victim, "rows_safe": safe})
        if process.wait(timeout=_STARTED_IN) != 0:
            raise RuntimeError(f"the last run of the command failed: {process.returncode}")
    finally:
        if process.poll() is None:
            children = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            process.wait()
            end(children)
    return told


def _name(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def compare(engine: str, reference: Path, output: Path, rows: int) -> dict[str, Any]:
    """Whether all rows are there once, and the bytes are those of the run that was left alone."""
    ids = [json.loads(line)["id"] for line in output.read_text(encoding="utf-8").splitlines()]
    good = [number for number in range(rows) if number % 997 != 5]
    left = sorted(path.name for path in output.parent.iterdir() if path.name.startswith(output.name + "."))
    return {
        "engine": engine,
        "identical": output.read_bytes() == reference.read_bytes(),
        "sha256": hashlib.sha256(output.read_bytes()).hexdigest(),
        "rows": len(ids),
        "lost": len(set(good) - set(ids)),
        "twice": len(ids) - len(set(ids)),
        "in_order": ids == good,
        "left_behind": [name for name in left if not name.endswith(".quarantine.jsonl")],
    }


def main() -> int:
    """Run it; the exit status says whether all outputs were identical."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--engines", default="local,ray")
    parser.add_argument("--model", help="a reward model's folder; a stand-in without it")
    parser.add_argument("--seconds", type=float, default=0.05, help="that the stand-in takes for a chunk")
    parser.add_argument("--part-rows", type=int, default=2048)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, help="where to write what was found, as JSON")
    parser.add_argument("--command", nargs=3, metavar=("ENGINE", "DATA", "OUT"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.command:
        command(*given.command, given.model, given.seconds, given.part_rows)
        return 0
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        data, reference = Path(folder) / "rows.jsonl", Path(folder) / "reference" / "scores.jsonl"
        write_rows(data, given.rows, given.seed)

        def start(engine: str, output: Path) -> subprocess.Popen[bytes]:
            options = ["--seconds", str(given.seconds), "--part-rows", str(given.part_rows)]
            options += ["--model", given.model] if given.model else []
            return subprocess.Popen(
                [sys.executable, __file__, "--command", engine, str(data), str(output), *options],
                stdout=sys.stderr,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )

        begun = time.monotonic()
        if start("local", reference).wait() != 0:
            return 1
        alone = time.monotonic() - begun
        for engine in given.engines.split(","):
            output = Path(folder) / engine / "scores.jsonl"
            begun = time.monotonic()
            kills = killed_run(
                functools.partial(start, engine, output), output, engine, given.kills, given.rows, given.seed
            )
            outcome = compare(engine, reference, output, given.rows)
            outcome |= {"kills": kills, "seconds": time.monotonic() - begun, "seconds_left_alone": alone}
            found.append(outcome)
            print(json.dumps(outcome), flush=True)
    if given.results:
        given.results.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0 if all(one["identical"] and one["in_order"] and not one["left_behind"] for one in found) else 1


if __name__ == "__main__":
    sys.exit(main())

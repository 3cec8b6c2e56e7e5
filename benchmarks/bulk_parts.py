"""What each step of bulk scoring costs on this machine: the measured half of docs/scaling.md.

    python benchmarks/bulk_parts.py MODEL --results benchmarks/results/bulk_parts.json

Rows are a prompt of 20 words and a completion of 40, K completions per prompt. All steps run in turns, in an order that
rotates with each repeat (`benchmarks/measure.py`). Quoted is the fastest repeat, for what others do on a shared machine
only adds time; the rate per CPU second of the process stands beside it, which changes little with load.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import measure
from measure import Timing

_WORDS = ["the", "sea", "and", "wind", "of", "a", "poem", "about", "Paris", "is", "short", "but", "long"]


def write_rows(folder: Path, rows: int, k: int) -> tuple[Path, Path]:
    """The same rows as JSON Lines and as Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    chance = random.Random(0)
    table = []
    for number in range(rows):
        if number % k == 0:
            prompt = " ".join(chance.choices(_WORDS, k=20))
        table.append({"id": number, "prompt": prompt, "completion": " ".join(chance.choices(_WORDS, k=40))})
    lines, parquet = folder / "rows.jsonl", folder / "rows.parquet"
    lines.write_text("".join(json.dumps(row) + "\n" for row in table), encoding="utf-8")
    pq.write_table(pa.Table.from_pylist(table), parquet, row_group_size=8192)
    return lines, parquet


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a reward model's folder")
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--forward-rows", type=int, default=256)
    parser.add_argument("--completions", type=int, default=4, help="completions of a prompt, one row each")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--results", type=Path)
    given = parser.parse_args()

    from rewardlab.data.encoding import EncodedGroup
    from rewardlab.data.loading import read_groups
    from rewardlab.data.reading import iter_rows
    from rewardlab.scoring.bulk import write_parquet
    from rewardlab.scoring.bulk_rows import RowFacts, RowLayout
    from rewardlab.scoring.opening import open_scorer
    from rewardlab.scoring.partial import Partial
    from rewardlab.scoring.survey import PartReader, join, sources_of, survey_file

    scorer = open_scorer(given.model, device="cpu", max_length=512)
    engine = scorer._engine
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines, parquet = write_rows(folder, given.rows, given.completions)
        groups = read_groups(lines).groups
        encoded = [item for item in scorer.encoder.encode_many(groups) if isinstance(item, EncodedGroup)]
        sequences = [ids for item in encoded for ids in item.sequences]
        some, tokens = encoded[: given.forward_rows], sum(map(len, sequences))
        survey = join([survey_file(source) for source in sources_of([lines])])
        facts = RowFacts()
        for group in groups:
            facts.add(group)
        layout = RowLayout.of(facts, "auto")
        scored = [json.dumps({"id": n, "score": 0.123456789}) + "\n" for n in range(given.rows)]
        written = 0

        def write_lines() -> None:
            nonlocal written
            written += 1
            with Partial(folder / f"out-{written}.jsonl").opened({}, restart=True) as partial:
                for first in range(0, given.rows, 512):
                    partial.append(
                        [{"id": n, "score": 0.123456789} for n in range(first, first + 512)], {"reasons": {}}
                    )

        def plan() -> None:
            for first in range(0, len(sequences), 512):
                list(engine.planner.forwards(sequences[first : first + 512], None))

        def read_again() -> None:
            reader = PartReader()
            for part in survey.parts:
                for _ in reader.chunks(part):
                    pass

        steps: dict[str, tuple[int, Callable[[], Any]]] = {
            "read JSON Lines": (given.rows, lambda: sum(1 for _ in iter_rows(lines))),
            "read Parquet": (given.rows, lambda: sum(1 for _ in iter_rows(parquet))),
            "first pass, JSON Lines": (given.rows, lambda: survey_file(sources_of([lines])[0])),
            "first pass, Parquet": (given.rows, lambda: survey_file(sources_of([parquet])[0])),
            "second reading": (given.rows, read_again),
            "template and tokenise": (given.rows, lambda: scorer.encoder.encode_many(groups)),
            "plan forwards": (given.rows, plan),
            "forward, this model": (given.forward_rows, lambda: scorer.score_encoded(some)),
            "write rows, a chunk at a time": (given.rows, write_lines),
            "write Parquet": (given.rows, lambda: write_parquet(scored, folder / "out.parquet", layout)),
        }
        cpu: dict[str, list[float]] = {step: [] for step in steps}

        def timed(step: str) -> Callable[[], Timing]:
            def run() -> Timing:
                before, used = time.perf_counter(), time.process_time()
                steps[step][1]()
                cpu[step].append(time.process_time() - used)
                return Timing(time.perf_counter() - before)

            return run

        told = lambda line: print(line, file=sys.stderr)  # noqa: E731
        beginning = measure.start("cpu", told)
        timings = measure.interleave({step: timed(step) for step in steps}, given.repeats, told)
        forwards = list(engine.planner.forwards(sequences[:512], None))
        computed = sum(forward.inputs["input_ids"].numel() for forward in forwards)
    found = {
        "rows": given.rows,
        "completions_per_prompt": given.completions,
        "tokens_per_row": tokens / given.rows,
        "computed_tokens_per_row": computed / min(512, len(sequences)),
        **beginning,
        **measure.surroundings("cpu"),
        "steps": {
            step: {
                "rows": steps[step][0],
                "rows_per_second": steps[step][0] / min(timing.seconds for timing in timings[step]),
                "rows_per_second_each": [steps[step][0] / timing.seconds for timing in timings[step]],
                "rows_per_cpu_second": steps[step][0] / min(cpu[step]),
            }
            for step in steps
        },
    }
    print(f"{tokens / given.rows:.0f} tokens per row; {computed / min(512, len(sequences)):.0f} computed")
    for step, one in found["steps"].items():
        print(f"{step:32} {one['rows_per_second']:12,.0f} rows/s {one['rows_per_cpu_second']:12,.0f} per CPU second")
    if given.results:
        given.results.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`rewardlab serve` under load, over real sockets: failures, latency, the knee, overload, throughput, a soak.

    python benchmarks/serving.py
    python benchmarks/serving.py --parts knee overload --quick

Model, server, worker and load generator share one machine's cores, so that every figure is what two cores do with all
of it. Requests are verl's: one rendered text, posted to `/classify` on a connection of its own. Texts are real
(hh_harmless_test); the data is ``$REWARDLAB_DATA``, by default ``../shared/data``. Every number that comes back is
compared with the offline Scorer's.

Parts: ``load`` 50 requests per second; ``knee`` the rate at which the 99th percentile exceeds 1 s, or a request fails;
``posts`` 5,000 requests, 256 in flight; ``overload`` ten times the rate that the knee of the same requests is at, with
prompts of 512 tokens, so that the model is what is overloaded and not the generator; ``throughput`` best-of-8, as 64
one-item requests in flight, beside one forward per request: by the same server told to gather nothing (``alone``) and
by a plain FastAPI server with transformers' own forward (``plain``, one_forward_server.py); ``soak`` 60 s at 60% of
the knee, with memory and open files. Each part is kept in results/serving/, and a part alone can be run again.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import measure
import transformers
from hammer import Outcome, hammer, latencies, post, statuses
from served import Server
from serving_page import failed, findings, write_page
from workloads import SHAPES, TextSource, build_base_model, hh_groups

from rewardlab import PromptGroup, Scorer
from rewardlab.data.template import render
from rewardlab.modeling.checkpoint import Provenance, save_reward_model
from rewardlab.modeling.preparing import prepare_for_training
from rewardlab.types import conversation, text_of

MAX_LENGTH = 2048
TOLERANCE = 1e-5
DEADLINE = 5.0
SIZE = 8
HERE = Path(__file__).resolve().parent
REWARDLAB = "import sys; from rewardlab.cli.main import main; sys.exit(main())"


@dataclass(frozen=True)
class Texts:
    """What is sent, and what must come back.

    Attributes:
        requests: A post of each.
        scores: The offline Scorer's.
    """

    requests: list[bytes]
    scores: list[float]


class Bench:
    """A checkpoint with random weights, its offline scorer, and the requests of each part.

    Args:
        options: Of the command line.
        scratch: Where checkpoints go.
    """

    def __init__(self, options: argparse.Namespace, scratch: Path) -> None:
        self.options, self.scratch = options, scratch
        self.groups = hh_groups()
        self._made: dict[str, tuple[Path, Scorer]] = {}

    def model(self, shape: str) -> tuple[Path, Scorer]:
        """The folder of a model of that shape, and its scorer; made once."""
        if shape not in self._made:
            base, folder = self.scratch / f"base-{shape}", self.scratch / shape
            build_base_model(base, SHAPES[shape], self.groups, self.options.seed)
            ready = prepare_for_training(base, seed=self.options.seed)
            made = Provenance(objective={"name": "none: random weights, for a benchmark"})
            parts = (ready.model, ready.tokenizer, ready.template)
            save_reward_model(folder, *parts, max_length=MAX_LENGTH, provenance=made)
            self._made[shape] = folder, Scorer.from_pretrained(folder, device="cpu", dtype="float32")
        return self._made[shape]

    def short(self, count: int) -> Texts:
        """Texts as they are in the data."""
        groups = [PromptGroup(group.prompt, group.completions[:1]) for group in self.groups]
        return self._texts("T1", (groups * (count // len(groups) + 1))[:count])

    def best_of(self, shape: str, count: int) -> Texts:
        """Prompts of 512 tokens, each with eight real answers of 100-500 characters; ``count`` texts in all."""
        answers = [text for group in self.groups if 100 <= len(text := text_of(group.completions[0])) <= 500]
        source = TextSource(self.groups, self.model(shape)[1].encoder.tokenizer, self.options.seed)
        return self._texts(shape, source.best_of(count // SIZE, size=SIZE, prompt=512, answers=answers))

    def _texts(self, shape: str, groups: Sequence[PromptGroup]) -> Texts:
        scorer = self.model(shape)[1]
        tokenizer = scorer.encoder.tokenizer
        texts = [render(tokenizer, conversation(group.prompt, one)) for group in groups for one in group.completions]
        requests = [post("/classify", {"model": "rm", "input": text, "use_activation": False}) for text in texts]
        return Texts(requests, [score for scores in scorer.score_groups(groups) for score in scores])


@contextmanager
def serving(bench: Bench, shape: str, *further: str) -> Iterator[Server]:
    """`rewardlab serve` of a model; it is ready, and warm."""
    command = ["-c", REWARDLAB, "serve", str(bench.model(shape)[0]), "--port", "0", "--device", "cpu", *further]
    server = Server(command, bench.options.threads)
    try:
        server.wait_until_ready()
        warm = bench.short(64).requests if shape == "T1" else bench.best_of(shape, SIZE).requests
        hammer(server.port, lambda h: h.closed_loop(warm, 8))
        yield server
    finally:
        server.stop()


def check(outcomes: Sequence[Outcome], texts: Texts) -> dict[str, Any]:
    """Statuses, latencies, and how the numbers that came back differ from the Scorer's."""
    errors = []
    for outcome in outcomes:
        if outcome.status == 200:
            [row] = json.loads(outcome.body)["data"]
            errors.append(abs(row["probs"][-1] - texts.scores[outcome.number % len(texts.scores)]))
    return {
        "sent": len(outcomes),
        "statuses": statuses(outcomes),
        "lost": sum(not outcome.status for outcome in outcomes),
        "wrong": sum(not error <= TOLERANCE for error in errors),
        "max_error": max(errors, default=0.0),
        **latencies(outcomes),
    }


def load(bench: Bench, report: Callable[[str], None]) -> dict[str, Any]:
    """TEI's own bar: 50 requests per second for 30 s without a failure."""
    texts, seconds = bench.short(1024), 3.0 if bench.options.quick else 30.0
    with serving(bench, "T1") as server:
        found = check(hammer(server.port, lambda h: h.open_loop(texts.requests, 50, seconds)), texts)
    return {"rate": 50, "seconds": seconds, **found}


def find_knee(server: Server, texts: Texts, first: float, seconds: float, report: Callable[[str], None]) -> list[Any]:
    """Each rate with what became of it, up to the first at which p99 exceeds 1 s or a request fails."""
    steps: list[Any] = []
    rate = first
    while True:
        found = check(hammer(server.port, partial(_open_loop, texts, rate, seconds)), texts)
        done = found["statuses"].get("200", 0) / seconds
        steps.append({"rate": round(rate, 1), "failed": failed(found), "p50": found["p50"], "p99": found["p99"]})
        report(f"{rate:.0f}/s: {failed(found)} failed, p50 {found['p50']:.3f} s, p99 {found['p99']:.3f} s")
        if failed(found) or found["p99"] > 1 or not done:
            return steps
        rate *= 1.25
        time.sleep(1)


def _open_loop(texts: Texts, rate: float, seconds: float, h: Any) -> Any:
    return h.open_loop(texts.requests, rate, seconds)


def knee(bench: Bench, report: Callable[[str], None]) -> dict[str, Any]:
    """The highest rate that was served."""
    texts, seconds = bench.short(1024), 1.0 if bench.options.quick else 5.0
    with serving(bench, "T1", "--deadline", str(DEADLINE)) as server:
        steps = find_knee(server, texts, 100 if not bench.options.quick else 200, seconds, report)
    return {"seconds": seconds, "steps": steps, "knee": _served(steps)}


def _served(steps: Sequence[Mapping[str, Any]]) -> float:
    """The last rate before the knee; where there is none, the first, divided until it would be one."""
    return float(steps[-2]["rate"] if len(steps) > 1 else steps[0]["rate"] / 1.25)


def posts(bench: Bench, report: Callable[[str], None]) -> dict[str, Any]:
    """5,000 requests, each with a connection and a text of its own, 256 in flight."""
    texts = bench.short(512 if bench.options.quick else 5000)
    with serving(bench, "T1") as server:
        begin = time.perf_counter()
        outcomes = hammer(server.port, lambda h: h.closed_loop(texts.requests, 256))
        seconds = time.perf_counter() - begin
    return {"in_flight": 256, "per_second": round(len(outcomes) / seconds, 1), **check(outcomes, texts)}


def overload(bench: Bench, report: Callable[[str], None]) -> dict[str, Any]:
    """Ten times what is served: who is refused, how long the others wait, and how soon all is well again."""
    seconds = 4.0 if bench.options.quick else 30.0
    texts = bench.best_of(bench.options.overload_model, 512)
    waiting: list[float] = []
    ended = threading.Event()
    with serving(bench, bench.options.overload_model, "--deadline", str(DEADLINE)) as server:
        rate = 10 * _served(find_knee(server, texts, 10, 2.0 if bench.options.quick else 5.0, report))
        time.sleep(2)

        def watch() -> None:
            while not ended.wait(0.5):
                waiting.append(server.metric("rewardlab_queue_items"))

        watching = threading.Thread(target=watch)
        watching.start()
        report(f"{rate:.0f}/s for {seconds:.0f} s")
        begin = time.perf_counter()
        outcomes = hammer(server.port, lambda h: h.open_loop(texts.requests, rate, seconds))
        over = begin + max(outcome.due for outcome in outcomes)
        sent_for = time.perf_counter() - begin
        ended.set()
        watching.join()
        normal = _until_normal(server, texts) - over
    refused = [outcome for outcome in outcomes if outcome.status == 503]
    return {
        "rate": round(rate, 1),
        "seconds": seconds,
        "until_last_answer": round(sent_for, 1),
        "deadline": DEADLINE,
        "refused": latencies(outcomes, 503),
        "answered_since_sent": latencies(outcomes, since_sent=True),
        "generator_late_s": round(max(outcome.late for outcome in outcomes), 2),
        "without_retry_after": sum(not outcome.retry_after for outcome in refused),
        "most_waiting": max(waiting, default=0),
        "seconds_to_normal": round(max(0.0, normal), 2),
        **check(outcomes, texts),
    }


def _until_normal(server: Server, texts: Texts) -> float:
    """When the first of ten requests in turn was sent that were all answered within a second."""
    since, good = time.perf_counter(), 0
    while good < 10:
        [outcome] = hammer(server.port, lambda h: h.closed_loop(texts.requests[:1], 1))
        good = good + 1 if outcome.status == 200 and outcome.seconds < 1 else 0
        if not good:
            since = time.perf_counter()
    return since


def throughput(bench: Bench, report: Callable[[str], None]) -> dict[str, Any]:
    """64 one-item requests, the best-of-8 of 8 prompts, all in flight: gathered, and each by itself."""
    shape = bench.options.throughput_model
    texts = bench.best_of(shape, 2 * SIZE if bench.options.quick else 8 * SIZE)
    alone = ("--max-wait-ms", "0", "--batch-tokens", "1", "--engine", "padded")
    timings: dict[str, list[measure.Timing]] = {}
    with ExitStack() as stack:
        ports = {
            "gathered": stack.enter_context(serving(bench, shape)).port,
            "alone": stack.enter_context(serving(bench, shape, *alone)).port,
        }
        plain = Server([str(HERE / "one_forward_server.py"), str(bench.model(shape)[0])], bench.options.threads)
        stack.callback(plain.stop)
        plain.wait_until_ready()
        ports["plain"] = plain.port

        def timed(name: str) -> measure.Timing:
            begin = time.perf_counter()
            found = check(hammer(ports[name], lambda h: h.closed_loop(texts.requests, len(texts.requests))), texts)
            if failed(found):
                raise SystemExit(f"error: {name} failed: {found}")
            return measure.Timing(time.perf_counter() - begin)

        runs = {name: partial(timed, name) for name in ports}
        measure.interleave(runs, 1, report)  # warm
        timings = measure.interleave(runs, 2 if bench.options.quick else 5, report)
    return {
        "items": len(texts.requests),
        "model": shape,
        "per_second": {
            name: round(len(texts.requests) / statistics.median(run.seconds for run in runs), 1)
            for name, runs in timings.items()
        },
        "ratios": {
            name: measure.ratios(timings[name], timings["gathered"])["whole"] for name in timings if name != "gathered"
        },
    }


def soak(bench: Bench, report: Callable[[str], None]) -> dict[str, Any]:
    """Memory and open files while the server works at 60% of its knee."""
    seconds, texts = 10.0 if bench.options.quick else 60.0, bench.short(4096)
    known = bench.options.results / "serving" / "knee.json"
    rate = 0.6 * json.loads(known.read_text(encoding="utf-8"))["found"]["knee"] if known.exists() else 50.0
    samples: list[dict[str, float]] = []
    ended = threading.Event()
    with serving(bench, "T1") as server:
        hammer(server.port, partial(_open_loop, texts, rate, seconds / 6))  # what the allocators keep, they have now

        def watch() -> None:
            begin = time.perf_counter()
            while not ended.wait(0.5):
                samples.append({"at": time.perf_counter() - begin, **server.usage()})

        watching = threading.Thread(target=watch)
        watching.start()
        found = check(hammer(server.port, partial(_open_loop, texts, rate, seconds)), texts)
        ended.set()
        watching.join()
        time.sleep(1)
        after = server.usage()
    at = [sample["at"] for sample in samples]
    slopes = {
        name: round(60 * statistics.linear_regression(at, [sample[name] for sample in samples]).slope, 2)
        for name in ("server_mb", "worker_mb")
    }
    return {
        "rate": round(rate, 1),
        "seconds": seconds,
        "mb_per_minute": slopes,
        "memory_mb": {name: round(after[name]) for name in ("server_mb", "worker_mb")},
        "files": {"first": samples[0]["files"], "most": max(s["files"] for s in samples), "after": after["files"]},
        **found,
    }


PARTS: dict[str, Callable[[Bench, Callable[[str], None]], dict[str, Any]]] = {
    "load": load,
    "knee": knee,
    "posts": posts,
    "overload": overload,
    "throughput": throughput,
    "soak": soak,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--overload-model", choices=list(SHAPES), default="S10")
    parser.add_argument("--throughput-model", choices=list(SHAPES), default="S10")
    parser.add_argument("--threads", type=int, default=1, help="of the model's matrix products")
    parser.add_argument("--quick", action="store_true", help="short times, to see that it works; figures mean nothing")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=measure.RESULTS, help="folder for results")
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    folder = options.results / "serving"
    folder.mkdir(parents=True, exist_ok=True)
    report = partial(print, flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(options, Path(scratch))
        for part in options.parts:
            report(f"== {part}")
            before = round(os.getloadavg()[0], 2)
            found = PARTS[part](bench, report)
            how = {**measure.surroundings("cpu"), "load_average": before, "threads": options.threads}
            how["versions"] |= {name: importlib.metadata.version(name) for name in ("fastapi", "uvicorn")}
            text = json.dumps({**how, "found": found}, indent=1)
            (folder / f"{part}.json").write_text(text + "\n", encoding="utf-8")
            report("\n".join(" | ".join(row) for row in findings(part, found)))
    report(write_page(options.results, list(PARTS)))


if __name__ == "__main__":
    main()

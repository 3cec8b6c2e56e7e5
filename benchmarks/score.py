"""Scoring speed, memory and error, text in and scores out, beside a plain loop and the transformers pipeline.

    python benchmarks/score.py --workload hh --model S10
    python benchmarks/score.py --workload bo8 --model M38

Workloads: ``hh`` is both completions of 96 hh_harmless_test pairs, in the file's form, one text after the other;
``bo8`` is best-of-8: prompts of 512 tokens, each with 8 real answers of 100-500 characters. The data is
``$REWARDLAB_DATA``, by default ``../shared/data``.

Variants: ``loop`` tokenises and scores 16 texts at a time in the order they come, padded; ``pipeline`` is transformers'
text-classification pipeline at the same batch size; ``padded``, ``packed`` and ``tree`` are the layouts of rewardlab's
Scorer, which is given one prompt and one completion per score and not told which share a prompt. All read one
checkpoint and the same ids, which is checked. Tokenising is timed on all sides; rendering the chat template is timed
for the Scorer alone, since ``loop`` and ``pipeline`` are given rendered text. Loading, and the Scorer's checks at
loading, are not timed. Peak memory is that beyond the loaded model.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import measure
import torch
import transformers
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline
from workloads import (
    SHAPES,
    TextSource,
    TokenCounter,
    build_base_model,
    hh_groups,
    non_embedding_parameters,
    unique_tokens,
    usable,
)

from rewardlab import PromptGroup, Scorer
from rewardlab.data.encoding import Encoder
from rewardlab.data.template import render
from rewardlab.modeling.checkpoint import Provenance, save_reward_model
from rewardlab.modeling.preparing import prepare_for_training
from rewardlab.types import conversation, text_of

BATCH = 16
MAX_LENGTH = 2048
VARIANTS = ["loop", "pipeline", "padded", "packed", "tree"]


@dataclass(frozen=True)
class Variant:
    """A way to score all texts.

    Attributes:
        model: What it computes with.
        score: Scores of all texts, in order.
    """

    model: torch.nn.Module
    score: Callable[[], list[float]]


def build(name: str, folder: Path, groups: list[PromptGroup], options: argparse.Namespace) -> Variant:
    """Load the checkpoint in the way of one variant."""
    if name in ("padded", "packed", "tree"):
        scorer = Scorer.from_pretrained(
            folder,
            engine=name,
            device=options.device,
            dtype=_dtype(options),
            tokens_per_batch=options.tokens_per_batch,
        )
        if scorer.layout.layout != name:
            raise SystemExit(f"error: {name} was to use another layout, the Scorer fell back: {scorer.layout}")
        prompts = [group.prompt for group in groups for _ in group.completions]
        completions = [completion for group in groups for completion in group.completions]
        score = partial(scorer.score, prompts, completions)
        return Variant(scorer.loaded.model, score)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=_dtype(options)).to(options.device).eval()
    texts = [render(tokenizer, conversation(group.prompt, c)) for group in groups for c in group.completions]
    if name == "loop":
        return Variant(model, partial(_loop, model, tokenizer, texts))
    pipe = pipeline("text-classification", model=model, tokenizer=tokenizer, device=options.device)
    return Variant(model, partial(_piped, pipe, texts))


def _piped(pipe: Any, texts: list[str]) -> list[float]:
    return [row["score"] for row in pipe(texts, batch_size=BATCH, function_to_apply="none", truncation=False)]


def _loop(model: torch.nn.Module, tokenizer: Any, texts: list[str]) -> list[float]:
    scores: list[float] = []
    with torch.no_grad():
        for first in range(0, len(texts), BATCH):
            batch = tokenizer(texts[first : first + BATCH], padding=True, return_tensors="pt").to(model.device)
            scores += model(**batch).logits.squeeze(-1).float().tolist()
    return scores


def _dtype(options: argparse.Namespace) -> str:
    return "bfloat16" if options.device == "cuda" else "float32"


def make_groups(options: argparse.Namespace, base: Path, folder: Path) -> tuple[list[PromptGroup], Encoder]:
    """The checkpoint in ``folder``, the groups to score and their encoder."""
    texts = hh_groups()
    build_base_model(base, SHAPES[options.model], texts, options.seed)
    prepared = prepare_for_training(base, seed=options.seed)
    save_reward_model(
        folder,
        prepared.model,
        prepared.tokenizer,
        prepared.template,
        max_length=MAX_LENGTH,
        provenance=Provenance(objective={"name": "none: random weights, for a benchmark"}),
    )
    encoder = Encoder(prepared.tokenizer, MAX_LENGTH)
    if options.workload == "hh":
        return usable(texts, Encoder(prepared.tokenizer, 1024), options.groups or 96, options.seed), encoder
    answers = [text for group in texts if 100 <= len(text := text_of(group.completions[0])) <= 500]
    source = TextSource(texts, prepared.tokenizer, options.seed)
    return source.best_of(options.groups or 8, size=8, prompt=512, answers=answers), encoder


def require_same_ids(folder: Path, groups: list[PromptGroup], sequences: list[list[int]]) -> None:
    """Stop unless plain tokenising of rendered text, as loop and pipeline do it, gives the Scorer's ids."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = [render(tokenizer, conversation(group.prompt, c)) for group in groups for c in group.completions]
    if tokenizer(texts)["input_ids"] != sequences:
        raise SystemExit("error: rendered text does not give the Scorer's ids; the variants would not be comparable")


def run(options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Rehearse, time and compare; returns the record."""
    report = partial(print, flush=True)
    state = measure.start(options.device, report)
    folder = scratch / "model"
    groups, encoder = make_groups(options, scratch / "base", folder)
    encoded = [encoder.encode(group) for group in groups]
    sequences = [list(sequence) for item in encoded for sequence in item.sequences]
    require_same_ids(folder, groups, sequences)
    lengths, unique = [len(s) for s in sequences], unique_tokens(encoded)
    padded = sum(len(b) * max(b) for b in (lengths[i : i + BATCH] for i in range(0, len(lengths), BATCH)))

    variants, scores, work = {}, {}, {}
    for name in options.variants:
        report(f"untimed run of {name}")
        variants[name] = variant = build(name, folder, groups, options)
        variant.score()  # warm kernels
        counter = TokenCounter(variant.model)
        with measure.peak_memory(options.device) as peak:
            scores[name] = variant.score()
        counter.active = False
        error = max(abs(a - b) for a, b in zip(scores[name], scores[options.variants[0]], strict=True))
        work[name] = measure.Work(len(lengths), unique, counter.count, peak["mb"], {"max error": f"{error:.1e}"})

    def timed(name: str) -> measure.Timing:
        measure.synchronize(options.device)
        start = time.perf_counter()
        variants[name].score()
        return measure.Timing(time.perf_counter() - start)

    timings = measure.interleave({name: partial(timed, name) for name in variants}, options.repeats, report)
    state["gemm_gflops"]["end"] = round(measure.gemm_flops(options.device) / 1e9, 1)
    parameters = non_embedding_parameters(variants[options.variants[0]].model)
    baselines = [name for name in ("loop", "pipeline") if name in variants] or options.variants[:1]
    return {
        "title": f"{options.workload}, {options.model}, {options.device}",
        "unit": "text",
        "notes": [
            f"{len(lengths)} texts of {len(groups)} prompts; tokens: {padded:,} padded ({BATCH} at a time, in order), "
            f"{sum(lengths):,} in all, {unique:,} unique; padded/unique {padded / unique:.2f}.",
            f"Text in, scores out. Errors against {options.variants[0]}, whose scores have a standard deviation of "
            f"{statistics.pstdev(scores[options.variants[0]]):.3g}.",
        ],
        "repeats": options.repeats,
        "baselines": baselines,
        "floor": f"2 × {parameters / 1e6:.1f} M parameters outside the embeddings × {unique:,} unique tokens",
        **measure.surroundings(options.device),
        **state,
        "data": {
            "texts": len(lengths),
            "padded_tokens": padded,
            "total_tokens": sum(lengths),
            "unique_tokens": unique,
            "padded_per_unique": round(padded / unique, 3),
        },
        "variants": measure.summarize(
            timings,
            work,
            baselines=baselines,
            flops_per_token=2 * parameters,
            peak_flops=max(state["gemm_gflops"].values()) * 1e9,
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", choices=["hh", "bo8"], default="hh")
    parser.add_argument("--model", choices=list(SHAPES), default="S10")
    parser.add_argument("--groups", type=int, help="how many pairs (hh: 96) or prompts (bo8: 8)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--variants", nargs="+", choices=VARIANTS, default=VARIANTS, help="errors are against the first"
    )
    parser.add_argument("--tokens-per-batch", type=int, help="as in Scorer; its default without")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=measure.RESULTS, help="folder for results")
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as scratch:
        record = run(options, Path(scratch))
    measure.save("score", f"{options.workload}-{options.model}-{options.device}", record, options.results)


if __name__ == "__main__":
    main()

"""Training speed, memory and exactness of the engines, beside TRL's RewardTrainer on the same weights, pairs and steps.

    python benchmarks/train.py --workload hh --model S10 --batch 8 --pairs 128
    python benchmarks/train.py --workload k8 --model S10 --batch 2 --groups 8
    python benchmarks/train.py --workload hh --model 0.5B --batch 16 --device cuda

Workloads: ``hh`` is the first N of 512 hh_harmless_test pairs (seeded shuffle, longest 1024 tokens, data in
``$REWARDLAB_DATA``, by default ``../shared/data``); ``k8`` is groups of 8 ranked completions of 24-96 tokens to prompts
of 512, each group 28 pairs; ``long`` is pairs with prompts of ``--prompt-tokens`` and completions of 64-256. A batch is
counted in groups, of which a pair is one.

Variants: ``trl_f32`` is TRL in float32 without gradient checkpointing, its best setting on a CPU; ``trl_f32_gc`` with
it, for its memory; ``trl_default`` is TRL as it comes (bfloat16 autocast, checkpointing, learning rate 1e-4); where it
is slow it runs only the first steps, and its ratios are over just these. ``trl_pairs`` is ``trl_f32`` given every pair
of a group, the only way TRL takes one. ``flash_pref`` is TRL in bfloat16 with the package flash-pref (CUDA only).
``padded``, ``packed`` and ``tree`` are the layouts of rewardlab's RewardTrainer; ``padded_once`` stands for any trainer
that pads each completion of a batch once, all in one forward.

Timed is ``trainer.train()`` from end to end, ours with the parity check that users wait for as well. That check takes
as long for a short run as for a long one, so the time until the first step ("startup") is given apart, and ratios both
with and without it. Building trainers and tokenising, on both sides, is not timed. Before, each variant runs once
untimed: for its peak memory beyond the loaded model (gradients, optimiser state and activations), the ids it really
computes, its losses and final weights. All variants must see the same sequences in the same steps, or the benchmark
stops.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import measure
import torch
import transformers
from trainers import BUILDS, ENGINE, Job
from transformers import AutoModelForSequenceClassification, Trainer, TrainerCallback
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

from rewardlab import Pair, PromptGroup
from rewardlab.data.encoding import EncodedGroup, Encoder
from rewardlab.modeling.preparing import prepare_for_training

HH_PAIRS = 512
# Two pairs that every variant trains on first, so that kernels and imports are warm and what is broken breaks at once.
PREFLIGHT = [
    PromptGroup("What is 2 + 2?", ("4", "5"), (Pair(),)),
    PromptGroup("Name a colour.", ("Red", "Seven"), (Pair(),)),
]
DEFAULT_VARIANTS = {
    ("hh", "cpu"): ["trl_f32", "trl_default", "trl_f32_gc", "padded", "packed", "tree"],
    ("k8", "cpu"): ["trl_pairs", "padded_once", "packed", "tree"],
    ("long", "cpu"): ["trl_f32", "padded", "packed", "tree"],
    ("hh", "cuda"): ["padded", "packed", "tree", "trl_default", "flash_pref"],
    ("k8", "cuda"): ["padded_once", "packed", "tree", "trl_default"],
    ("long", "cuda"): ["padded", "packed", "tree", "trl_default", "flash_pref"],
}
BASELINES = ("trl_f32", "trl_pairs", "trl_default", "flash_pref", "padded_once")


class Watch(TrainerCallback):
    """When training and each step of it began and ended."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.marks: list[float] = []

    def on_train_begin(self, *_args: Any, **_kwargs: Any) -> None:
        """Note the end of what comes before the first step."""
        self._mark()

    def on_step_end(self, *_args: Any, **_kwargs: Any) -> None:
        """Note the end of a step."""
        self._mark()

    def _mark(self) -> None:
        measure.synchronize(self.device)
        self.marks.append(time.perf_counter())


def train(trainer: Trainer, name: str, device: str) -> measure.Timing:
    """Time ``trainer.train()``; afterwards make sure that it used the layout that was asked for."""
    watch = Watch(device)
    trainer.add_callback(watch)
    measure.synchronize(device)
    start = time.perf_counter()
    trainer.train()
    measure.synchronize(device)
    seconds = time.perf_counter() - start
    if name in ENGINE and trainer.layout.layout != ENGINE[name]:
        raise SystemExit(f"error: {name} was to use another layout, the trainer fell back: {trainer.layout}")
    laps = tuple(b - a for a, b in zip(watch.marks, watch.marks[1:], strict=False))
    return measure.Timing(seconds, watch.marks[0] - start, laps)


@dataclass(frozen=True)
class Rehearsal:
    """What an untimed run of a variant showed.

    Attributes:
        steps: The different sequences of each optimiser step.
        losses: The loss of each.
        weights: The trained weights, on the CPU.
        tokens: Ids that the embedding was given.
        peak_mb: Peak memory beyond the loaded model.
    """

    steps: list[set[tuple[int, ...]]]
    losses: list[float]
    weights: dict[str, torch.Tensor]
    tokens: int
    peak_mb: float


def rehearse(trainer: Trainer, name: str, device: str) -> Rehearsal:
    """Train, and note what the collator, the embedding and the steps see."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    loader, step = trainer.get_train_dataloader, trainer.training_step
    batches: list[set[tuple[int, ...]]] = []
    losses: list[float] = []
    counter = TokenCounter(model)
    counter.active = False

    class FromFirstStep(TrainerCallback):
        def on_train_begin(self, *_args: Any, **_kwargs: Any) -> None:
            """From here on, ids are the training's and not those of a check before it."""
            counter.active = True

    def watched_loader() -> Any:
        collate = trainer.data_collator  # only now: our trainer chooses it when it trains

        def watched_collate(examples: Sequence[Any]) -> Any:
            batches.append({sequence for example in examples for sequence in _sequences(example)})
            return collate(examples)

        trainer.data_collator = watched_collate
        return loader()

    def watched_step(*args: Any, **kwargs: Any) -> torch.Tensor:
        loss = step(*args, **kwargs)
        losses.append(loss.item())  # a micro-batch's part of its step's loss
        return loss

    trainer.get_train_dataloader, trainer.training_step = watched_loader, watched_step
    trainer.add_callback(FromFirstStep())
    with measure.peak_memory(device) as peak:
        train(trainer, name, device)
    size, steps = trainer.args.gradient_accumulation_steps, trainer.state.global_step
    return Rehearsal(
        # The loader may have collated batches beyond the last step.
        steps=[set().union(*batches[i * size : (i + 1) * size]) for i in range(steps)],
        losses=[sum(losses[i * size : (i + 1) * size]) for i in range(steps)],
        weights={key: value.detach().cpu() for key, value in model.named_parameters()},
        tokens=counter.count,
        peak_mb=peak["mb"],
    )


def _sequences(example: Any) -> tuple[tuple[int, ...], ...]:
    if isinstance(example, dict):
        return tuple(example["chosen_ids"]), tuple(example["rejected_ids"])
    return tuple(example.sequences)


def difference(theirs: Rehearsal, ours: Rehearsal, before: dict[str, torch.Tensor]) -> dict[str, float]:
    """How far two runs came apart: in weights, relative to the way gone, and in the loss of any step."""

    def distance(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> float:
        return sum(((left[key] - right[key]).double() ** 2).sum().item() for key in left) ** 0.5

    way = distance(theirs.weights, before)
    return {
        "weights": distance(theirs.weights, ours.weights) / way,
        "loss": max(abs(x - y) for x, y in zip(theirs.losses, ours.losses, strict=True)),
    }


def make_job(options: argparse.Namespace, folder: Path) -> tuple[Job, list[PromptGroup]]:
    """The base model, the same weights for TRL, and the groups."""
    texts = hh_groups()
    build_base_model(folder / "base", SHAPES[options.model], texts, options.seed)
    prepared = prepare_for_training(folder / "base", seed=options.seed)
    prepared.model.save_pretrained(folder / "plain")
    max_length = {"hh": 1024, "k8": 1024, "long": options.prompt_tokens + 512}[options.workload]
    encoder = Encoder(prepared.tokenizer, max_length)
    source = TextSource(texts, prepared.tokenizer, options.seed)
    if options.workload == "hh":
        groups = usable(texts, encoder, HH_PAIRS, options.seed)[: options.groups or 128]
    elif options.workload == "k8":
        groups = source.ranked_groups(options.groups or 8, size=8, prompt=512, completion=(24, 96))
    else:
        prompt, count = options.prompt_tokens, options.groups or 64
        groups = source.ranked_groups(count, size=2, prompt=prompt, completion=(64, 256))
    if len(groups) % options.batch:
        raise SystemExit(f"error: {len(groups)} groups are no whole number of steps of {options.batch}")
    shared = {"batch": options.batch, "max_length": max_length, "device": options.device, "seed": options.seed}
    job = Job(
        base=folder / "base",
        plain=folder / "plain",
        scratch=folder / "runs",
        tokenizer=prepared.tokenizer,
        tokens_per_batch=options.tokens_per_batch,
        **shared,
    )
    return job, groups


def run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Rehearse, time and compare; returns the record."""
    report = partial(print, flush=True)
    state = measure.start(options.device, report)
    job, groups = make_job(options, folder)
    encoded = [Encoder(job.tokenizer, job.max_length).encode(group) for group in groups]
    most_steps = dict.fromkeys(options.variants, -1)
    if "trl_default" in most_steps and options.default_steps:
        most_steps["trl_default"] = min(options.default_steps, len(groups) // job.batch)
    for name in options.variants:
        train(BUILDS[name](job, PREFLIGHT, 1), name, job.device)

    rehearsals = {}
    for name in options.variants:
        report(f"untimed run of {name}")
        rehearsals[name] = rehearse(BUILDS[name](job, groups, most_steps[name]), name, job.device)
    full = max((rehearsal.steps for rehearsal in rehearsals.values()), key=len)
    for name, rehearsal in rehearsals.items():
        if rehearsal.steps != full[: len(rehearsal.steps)]:
            raise SystemExit(f"error: {name} did not see the same sequences in the same steps as the others")
    steps = _groups_of_steps(full, encoded)

    model = AutoModelForSequenceClassification.from_pretrained(job.plain, dtype=torch.float32)
    before = {key: value.detach() for key, value in model.named_parameters()}
    parameters = non_embedding_parameters(model)
    reference = rehearsals[options.variants[0]]
    exact: dict[str, dict[str, float]] = {}
    work = {}
    for name, rehearsal in rehearsals.items():
        done = [item for step in steps[: len(rehearsal.steps)] for item in step]
        extra = {}
        if rehearsal is not reference and "trl_default" not in (name, options.variants[0]):  # its optimiser differs
            exact[name] = difference(reference, rehearsal, before)
            extra = {"Δ weights": f"{exact[name]['weights']:.1e}", "Δ loss": f"{exact[name]['loss']:.1e}"}
        units = sum(len(item.group.pairs) for item in done)
        work[name] = measure.Work(units, unique_tokens(done), rehearsal.tokens, rehearsal.peak_mb, extra)
    del rehearsals, reference, model, before

    timed = [name for name in options.variants if name not in options.untimed]
    runs = {name: partial(_timed, job, groups, name, most_steps[name]) for name in timed}
    timings = measure.interleave(runs, options.repeats, report)
    state["gemm_gflops"]["end"] = round(measure.gemm_flops(job.device) / 1e9, 1)
    baselines = [name for name in BASELINES if name in timed] or timed[:1]
    data = _data_figures(steps)
    unique = data["unique_tokens"]
    return {
        "title": f"{options.workload}, {options.model}, batch {job.batch}, {job.device}",
        "unit": "pair",
        "notes": _notes(options, data, most_steps, len(steps)),
        "repeats": options.repeats,
        "baselines": baselines,
        "floor": f"6 × {parameters / 1e6:.1f} M parameters outside embeddings × {unique:,} unique tokens",
        **measure.surroundings(job.device),
        **state,
        "data": data,
        "exactness": {"reference": options.variants[0], **exact},
        "variants": measure.summarize(
            timings,
            work,
            baselines=baselines,
            flops_per_token=6 * parameters,
            peak_flops=max(state["gemm_gflops"].values()) * 1e9,
        ),
    }


def _timed(job: Job, groups: Sequence[PromptGroup], name: str, max_steps: int) -> measure.Timing:
    return train(BUILDS[name](job, groups, max_steps), name, job.device)


def _groups_of_steps(steps: Sequence[set[tuple[int, ...]]], groups: Sequence[EncodedGroup]) -> list[list[EncodedGroup]]:
    """The groups that each step trained on, told by their sequences."""
    found = [[item for item in groups if step.issuperset(item.sequences)] for step in steps]
    assert sum(map(len, found)) == len(groups), "every group belongs to one step"
    return found


def _data_figures(steps: Sequence[Sequence[EncodedGroup]]) -> dict[str, Any]:
    lengths = [[n for item in step for n in item.lengths] for step in steps]
    padded = sum(len(step) * max(step) for step in lengths)
    unique = sum(unique_tokens(step) for step in steps)
    return {
        "groups": sum(map(len, steps)),
        "pairs": sum(len(item.group.pairs) for step in steps for item in step),
        "padded_tokens": padded,
        "total_tokens": sum(map(sum, lengths)),
        "unique_tokens": unique,
        "padded_per_unique": round(padded / unique, 3),
    }


def _notes(options: argparse.Namespace, data: dict[str, Any], most_steps: dict[str, int], steps: int) -> list[str]:
    notes = [
        f"{data['pairs']} pairs in {data['groups']} groups, {steps} steps; tokens in the order trained: "
        f"{data['padded_tokens']:,} padded (each completion once), {data['total_tokens']:,} in all, "
        f"{data['unique_tokens']:,} unique; padded/unique {data['padded_per_unique']:.2f}.",
        "Timed: `trainer.train()`, our parity check included; tokenising on neither side. Startup is the time before "
        "the first step, as long in a run of any length; columns named steps, and the floor, leave it out. Δ: against "
        f"{options.variants[0]} after this run: weights relative to the way they went, largest loss difference of a "
        "step.",
    ]
    if 0 < (limit := most_steps.get("trl_default", -1)) < steps:
        notes.append(f"trl_default ran the first {limit} steps only, and ratios with it are over these.")
    return notes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", choices=["hh", "k8", "long"], default="hh")
    parser.add_argument("--model", choices=list(SHAPES), default="S10")
    parser.add_argument("--batch", type=int, default=8, help="groups in a step (a pair is a group)")
    parser.add_argument("--groups", "--pairs", type=int, help="how many (hh: 128, k8: 8, long: 64)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--variants", nargs="+", choices=list(BUILDS), help="the first is what others must equal")
    parser.add_argument("--untimed", nargs="*", default=["trl_f32_gc"], help="variants that only rehearse, for memory")
    parser.add_argument("--default-steps", type=int, help="steps of trl_default; 0 for all (CPU: 4, CUDA: 0)")
    parser.add_argument("--tokens-per-batch", type=int, help="as in RewardArguments; its default without")
    parser.add_argument("--prompt-tokens", type=int, default=4096, help="of the workload long")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=measure.RESULTS, help="folder for results")
    options = parser.parse_args()
    if options.default_steps is None:
        options.default_steps = 4 if options.device == "cpu" else 0
    if options.variants is None:
        options.variants = list(DEFAULT_VARIANTS[options.workload, options.device])
        if importlib.util.find_spec("flash_pref") is None and "flash_pref" in options.variants:
            options.variants.remove("flash_pref")
    warnings.filterwarnings("ignore", category=FutureWarning)  # TRL 1.16 uses names that transformers has renamed
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as folder:
        record = run(options, Path(folder))
    name = f"{options.workload}-{options.model}-b{options.batch}-{options.device}"
    measure.save("train", name, record, options.results)


if __name__ == "__main__":
    main()

"""Rewards for GRPO: RewardFunction beside TRL's own way of calling a reward model, through TRL's own trainer.

    python benchmarks/reward_function.py --model S10

8 real answers of 100-500 characters to each of 8 prompts of 512 tokens, conversational, as GRPO has them. The data is
``$REWARDLAB_DATA``, by default ``../shared/data``.

Both variants are a ``reward_funcs`` of a ``GRPOTrainer``, and what is timed is its ``_calculate_rewards``: ``trl`` has
the checkpoint itself, which TRL renders, tokenises, pads and computes in one forward; ``rewardlab`` has a
:class:`~rewardlab.adapters.trl.RewardFunction`. Both read the same checkpoint and the same ids, which is checked, and
their scores must agree to 1e-4. Loading, and the Scorer's checks at loading, are not timed. Peak memory is that beyond
the loaded model; it is measured again for more completions, where ``rewardlab``'s must not grow.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import measure
import torch
import transformers
from datasets import Dataset
from transformers import AutoTokenizer
from trl import GRPOConfig, GRPOTrainer
from workloads import SHAPES, TextSource, TokenCounter, build_base_model, hh_groups, non_embedding_parameters
from workloads import unique_tokens as count_unique

from rewardlab import PromptGroup, Scorer
from rewardlab.adapters.trl import RewardFunction
from rewardlab.data.encoding import Encoder
from rewardlab.modeling.checkpoint import Provenance, save_reward_model
from rewardlab.modeling.preparing import prepare_for_training
from rewardlab.types import text_of

MAX_LENGTH = 2048
SIZE = 8  # completions of a prompt, as GRPO's default
TOLERANCE = 1e-4
VARIANTS = ["trl", "rewardlab"]


def build_checkpoint(options: argparse.Namespace, scratch: Path) -> tuple[Path, TextSource, list[str]]:
    """A reward model with random weights and a real tokenizer, and the texts that groups are made of."""
    texts = hh_groups()
    build_base_model(scratch / "base", SHAPES[options.model], texts, options.seed)
    build_base_model(scratch / "policy", SHAPES["T1"], texts, options.seed)
    prepared = prepare_for_training(scratch / "base", seed=options.seed)
    save_reward_model(
        scratch / "model",
        prepared.model,
        prepared.tokenizer,
        prepared.template,
        max_length=MAX_LENGTH,
        provenance=Provenance(objective={"name": "none: random weights, for a benchmark"}),
    )
    prepared.tokenizer.save_pretrained(scratch / "policy")
    answers = [text for group in texts if 100 <= len(text := text_of(group.completions[0])) <= 500]
    return scratch / "model", TextSource(texts, prepared.tokenizer, options.seed), answers


def make_trainer(scratch: Path, reward: Any, options: argparse.Namespace) -> GRPOTrainer:
    """A trainer with a policy of no account: only its ``_calculate_rewards`` is called."""
    return GRPOTrainer(
        model=str(scratch / "policy"),
        reward_funcs=[reward],
        args=GRPOConfig(
            output_dir=str(scratch / "out"),
            use_cpu=options.device == "cpu",
            bf16=False,
            report_to="none",
            per_device_train_batch_size=SIZE,
            model_init_kwargs={"dtype": "float32"},
        ),
        train_dataset=Dataset.from_dict({"prompt": [[{"role": "user", "content": "x"}]]}),
        processing_class=AutoTokenizer.from_pretrained(scratch / "policy"),
    )


def rewards_of(trainer: GRPOTrainer, groups: list[PromptGroup]) -> list[float]:
    """Rewards as the trainer computes them after generation: one row per completion, prompts repeated."""
    prompts = [[{"role": "user", "content": text_of(g.prompt)}] for g in groups for _ in g.completions]
    completions = [[{"role": "assistant", "content": text_of(c)}] for g in groups for c in g.completions]
    inputs = [{"prompt": prompt} for prompt in prompts]
    found = trainer._calculate_rewards(inputs, prompts, completions, [[0]] * len(prompts))
    trainer._pending_metrics.clear()
    trainer._pending_extra_logs.clear()
    return found[:, 0].tolist()


def memory_by_size(
    trainers: dict[str, GRPOTrainer], source: TextSource, answers: list[str], options: argparse.Namespace, report: Any
) -> list[str]:
    """Peak memory for more and more completions, one line each."""
    lines = []
    for count in options.sizes:
        groups = source.best_of(count // SIZE, size=SIZE, prompt=options.memory_prompt, answers=answers)
        peaks = {}
        for name in VARIANTS:
            if name == "trl" and count > options.largest_padded:
                continue
            report(f"peak memory of {name} for {count} completions")
            with measure.peak_memory(options.device) as peak:
                rewards_of(trainers[name], groups)
            peaks[name] = f"{name} {peak['mb']:,.0f} MB"
        peaks.setdefault("trl", "trl not run")
        lines.append(f"{count:,} completions: {', '.join(peaks[name] for name in VARIANTS)}")
    return lines


def run(options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Rehearse, compare, time and measure memory; returns the record."""
    report = partial(print, flush=True)
    state = measure.start(options.device, report)
    folder, source, answers = build_checkpoint(options, scratch)
    groups = source.best_of(options.groups, size=SIZE, prompt=512, answers=answers)
    scorer = Scorer.from_pretrained(folder, device=options.device, dtype="float32")
    trainers = {
        "trl": make_trainer(scratch, str(folder), options),
        "rewardlab": make_trainer(scratch, RewardFunction(scorer, name="rm"), options),
    }
    models = {"trl": trainers["trl"].reward_funcs[0], "rewardlab": scorer.loaded.model}
    models["trl"].to(options.device, torch.float32)
    encoded = Encoder(scorer.encoder.tokenizer, MAX_LENGTH).encode_many(groups)
    lengths, unique = [n for item in encoded for n in item.lengths], count_unique(encoded)

    work, scores = {}, {}
    for name in VARIANTS:
        report(f"untimed run of {name}")
        rewards_of(trainers[name], groups)  # warm kernels
        counter = TokenCounter(models[name])
        with measure.peak_memory(options.device) as peak:
            scores[name] = rewards_of(trainers[name], groups)
        counter.active = False
        error = max(abs(a - b) for a, b in zip(scores[name], scores["trl"], strict=True))
        if error > TOLERANCE:
            raise SystemExit(f"error: {name} differs from trl by {error:.1e}; the variants do not read the same ids")
        work[name] = measure.Work(len(lengths), unique, counter.count, peak["mb"], {"max error": f"{error:.1e}"})

    def timed(name: str) -> measure.Timing:
        measure.synchronize(options.device)
        start = time.perf_counter()
        rewards_of(trainers[name], groups)
        return measure.Timing(time.perf_counter() - start)

    timings = measure.interleave({name: partial(timed, name) for name in VARIANTS}, options.repeats, report)
    memory = memory_by_size(trainers, source, answers, options, report)
    state["gemm_gflops"]["end"] = round(measure.gemm_flops(options.device) / 1e9, 1)
    parameters = non_embedding_parameters(models["rewardlab"])
    return {
        "title": f"best of {SIZE}, {options.model}, {options.device}",
        "unit": "completion",
        "notes": [
            f"{len(lengths)} completions of {len(groups)} prompts; tokens: {len(lengths) * max(lengths):,} padded (all "
            f"at once), {sum(lengths):,} in all, {unique:,} unique.",
            f"Peak memory beyond the model, prompts of {options.memory_prompt} tokens: {'; '.join(memory)}.",
        ],
        "repeats": options.repeats,
        "baselines": ["trl"],
        "floor": f"2 × {parameters / 1e6:.1f} M parameters outside the embeddings × {unique:,} unique tokens",
        **measure.surroundings(options.device),
        **state,
        "variants": measure.summarize(
            timings,
            work,
            baselines=["trl"],
            flops_per_token=2 * parameters,
            peak_flops=max(state["gemm_gflops"].values()) * 1e9,
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=list(SHAPES), default="S10")
    parser.add_argument("--groups", type=int, default=8, help=f"how many prompts, each with {SIZE} completions")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="*", default=[64, 256, 1024], help="completions whose memory counts")
    parser.add_argument("--memory-prompt", type=int, default=128, help="tokens of the prompts there")
    parser.add_argument("--largest-padded", type=int, default=1024, help="most completions there for TRL's one forward")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=measure.RESULTS, help="folder for results")
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as scratch:
        record = run(options, Path(scratch))
    measure.save("reward_function", f"bo8-{options.model}-{options.device}", record, options.results)


if __name__ == "__main__":
    main()

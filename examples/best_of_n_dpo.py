"""Best-of-N to a better policy: sample, score, pair the best with the worst, train DPO on the pairs, and look.

Runs offline, in three to four minutes on one core, in the demo's world, where the truth about every answer is known:

1. a small policy learns to write what the world's sampler writes, and a reward model is made of it on 4,000 pairs;
2. the policy answers 1,000 prompts eight times, and `best_of_n_file` (`rewardlab best-of-n`) makes pairs of the scores;
3. TRL's `DPOTrainer` trains the policy on the pairs;
4. on prompts that none of this has seen: the true utility and the score of what the policy writes before and after, the
   distance (KL) it went, and how well its implicit reward, beta log(policy / reference), tells preferred answers.

    python examples/best_of_n_dpo.py                 # needs TRL: pip install "rewardlab[rl]"
    python examples/best_of_n_dpo.py --quick         # seconds; the numbers mean nothing

What came out is in benchmarks/results/best_of_n_dpo.md.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rewardlab.evaluation.evaluator import Evaluator
from rewardlab.metrics.bootstrap import Interval, bootstrap_by_cluster, mean_of
from rewardlab.modeling.loading import quiet_transformers
from rewardlab.rewards.best_of_n import best_of_n_curve
from rewardlab.scoring.opening import open_scorer
from rewardlab.scoring.scorer import Scorer
from rewardlab.search import BestOfNOutputs, best_of_n_file
from rewardlab.studies.policy import PolicySize, build_policy, load_policy_model, log_ratios, sample
from rewardlab.studies.world import expected_best_accuracy, generate, true_utility
from rewardlab.training.run import train_reward_model
from rewardlab.types import PromptGroup, Text, text_of

N = 8
"""Completions of each prompt."""


@dataclass(frozen=True)
class Size:
    """How much of everything; by default what the recorded run has."""

    policy: PolicySize = field(default_factory=PolicySize)
    pairs: int = 4_000
    prompts: int = 1_000
    held_out: int = 1_000
    held_out_prompts: int = 300
    learning_rate: float = 3e-4
    max_new_tokens: int = 64


QUICK = Size(PolicySize(num_pairs=640, hidden_size=32, num_heads=2), 128, 32, 64, 16, max_new_tokens=16)


@dataclass(frozen=True)
class Written:
    """What a policy writes on held-out prompts: shape (prompts, N), but for the KL's one number per prompt."""

    utilities: np.ndarray
    scores: np.ndarray
    kl: np.ndarray


@dataclass(frozen=True)
class Result:
    """What the table shows."""

    num_pairs: int
    utility: dict[str, Interval]
    score: dict[str, Interval]
    kl: Interval
    accuracy: dict[str, float | Interval]


def run(folder: Path, size: Size | None = None, *, seed: int = 0, report: Callable[[str], None] = print) -> Result:
    """The four steps, with all files in a folder."""
    size = size or Size()
    world = generate(seed, n_train=size.pairs, n_held_out=size.held_out, n_canary=0, n_fresh=size.prompts)
    policy, reward_model, tuned = folder / "policy", folder / "reward-model", folder / "dpo"

    report("1. a policy, and a reward model of it")
    build_policy(policy, seed=seed, size=size.policy)
    train_reward_model(
        model=policy,
        train_groups=world.train,
        output_dir=reward_model,
        dtype="float32",
        overrides={
            "seed": seed,
            "learning_rate": 1e-3,
            "per_device_train_batch_size": 16,
            "gradient_accumulation_steps": 1,
            "max_length": 256,
            "save_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
        },
    )
    scorer = open_scorer(reward_model, device="cpu")

    report(f"2. {N} answers to each of {size.prompts:,} prompts; the best against the worst")
    model, tokenizer = load_policy_model(policy)
    prompts = [group.prompt for group in world.fresh]
    answers = sample(model, tokenizer, prompts, n=N, seed=seed, max_new_tokens=size.max_new_tokens)
    samples, pairs = folder / "samples.jsonl", folder / "pairs.jsonl"
    write_samples(samples, prompts, [[one.text for one in drawn] for drawn in answers], report)
    made = best_of_n_file(scorer, [samples], BestOfNOutputs(folder / "best.jsonl", pairs=pairs), format="completions")

    report(f"3. DPO on {made.num_pairs:,} pairs")
    train_dpo(policy, pairs, tuned, size.learning_rate, seed)

    report("4. what it writes on prompts that it has not seen")
    unseen = [group.prompt for group in world.held_out[: size.held_out_prompts]]
    before = look_at(policy, policy, scorer, unseen, seed + 1, size.max_new_tokens)
    after = look_at(tuned, policy, scorer, unseen, seed + 1, size.max_new_tokens)
    implicit = open_scorer(f"{tuned}:{policy}", device="cpu")
    return Result(
        num_pairs=made.num_pairs or 0,
        utility=compared(before.utilities, after.utilities, before.scores, unseen),
        score=compared(before.scores, after.scores, before.scores, unseen),
        kl=mean(after.kl, unseen),
        accuracy={
            "reward model": Evaluator(scorer).evaluate(world.held_out).accuracy,
            "implicit reward": Evaluator(implicit).evaluate(world.held_out).accuracy,
            "whoever knows the truth": expected_best_accuracy(world.held_out),
        },
    )


def write_samples(
    file: Path, prompts: Sequence[Text], texts: Sequence[Sequence[str]], report: Callable[[str], None]
) -> None:
    """A row for each prompt; an empty answer makes a row bad, and is left out."""
    rows = [(p, [text for text in own if text.strip()]) for p, own in zip(prompts, texts, strict=True)]
    empty = sum(map(len, texts)) - sum(len(own) for _, own in rows)
    if empty:
        report(f"   {empty:,} answers are empty and left out")
    lines = [json.dumps({"prompt": prompt, "completions": own}) + "\n" for prompt, own in rows if own]
    file.write_text("".join(lines), encoding="utf-8")


def train_dpo(policy: Path, pairs: Path, output: Path, learning_rate: float, seed: int) -> None:
    """TRL's DPO on a file of pairs; its prompts become messages, so that they go through the chat template."""
    with warnings.catch_warnings(), quiet_transformers():
        # TRL 1.16 and transformers 5.23: each option that was renamed is said to be deprecated, set or not.
        warnings.simplefilter("ignore", FutureWarning)
        from datasets import Dataset, disable_progress_bars
        from transformers import AutoTokenizer, PrinterCallback
        from trl import DPOConfig, DPOTrainer

        disable_progress_bars()
        roles = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
        rows = [json.loads(line) for line in pairs.read_text(encoding="utf-8").splitlines()]
        data = Dataset.from_list(
            [{name: [{"role": role, "content": row[name]}] for name, role in roles.items()} for row in rows]
        )
        arguments = DPOConfig(
            output_dir=str(output),
            beta=0.1,
            learning_rate=learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=6,
            num_train_epochs=1,
            per_device_train_batch_size=16,
            max_length=256,
            seed=seed,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            dataloader_pin_memory=False,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
        )
        trainer = DPOTrainer(
            model=str(policy),
            args=arguments,
            train_dataset=data,
            processing_class=AutoTokenizer.from_pretrained(policy),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        trainer.save_model(str(output))


def look_at(
    folder: Path, reference: Path, scorer: Scorer, prompts: Sequence[Text], seed: int, max_new_tokens: int
) -> Written:
    """What a policy writes, what that is worth and scores, and how far it is from the reference."""
    model, tokenizer = load_policy_model(folder)
    answers = sample(model, tokenizer, prompts, n=N, seed=seed, max_new_tokens=max_new_tokens)
    texts = [[one.text for one in drawn] for drawn in answers]
    ratios = log_ratios(load_policy_model(reference)[0], tokenizer, prompts, answers)
    groups = [PromptGroup(prompt, tuple(own)) for prompt, own in zip(prompts, texts, strict=True)]
    return Written(
        utilities=np.array([[true_utility(group.prompt, text) for text in group.completions] for group in groups]),
        scores=np.array(scorer.score_groups(groups)),
        kl=np.array(ratios).mean(axis=1),
    )


def compared(before: np.ndarray, after: np.ndarray, scores: np.ndarray, prompts: Sequence[Text]) -> dict[str, Interval]:
    """Means before and after, what the best of N by the score had before, and the difference; 95 % by prompt."""
    labels = [text_of(prompt) for prompt in prompts]
    one, best = best_of_n_curve(list(scores), list(before), (1, N), prompts=labels).mean
    return {
        "before": one,
        f"best of {N}": best,
        "after": mean(after.mean(axis=1), prompts),
        "after - before": mean(after.mean(axis=1) - before.mean(axis=1), prompts),
    }


def mean(values: np.ndarray, prompts: Sequence[Text]) -> Interval:
    """The mean of one number per prompt, with its interval."""
    rows = np.column_stack([np.ones(len(values)), values])
    return bootstrap_by_cluster(rows, [text_of(prompt) for prompt in prompts], {"mean": mean_of(1)})["mean"]


def table(result: Result) -> str:
    """The result as Markdown."""

    def cell(value: float | Interval) -> str:
        if isinstance(value, float):
            return f"{value:.3f}"
        return f"{value.value:.3f}" + ("" if value.low is None else f" [{value.low:.3f}, {value.high:.3f}]")

    names = list(result.utility)
    lines = ["| | " + " | ".join(names) + " |", "|--" * (len(names) + 1) + "|"]
    for what, values in (("true utility", result.utility), ("reward model's score", result.score)):
        lines.append(f"| {what} | " + " | ".join(cell(value) for value in values.values()) + " |")
    bound = Interval(float(np.log(N) - (N - 1) / N), None, None)
    lines.append(f"| KL from the policy before, nats | 0 | at most {cell(bound)} | {cell(result.kl)} | |")
    lines += ["", "| pairs of held-out prompts told by | accuracy |", "|--|--|"]
    lines += [f"| {name} | {cell(value)} |" for name, value in result.accuracy.items()]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run it in a folder that is kept, or in one that is not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="keep the models and files here")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--learning-rate", type=float, default=Size().learning_rate, help="of DPO")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: whether it runs, not what comes out")
    given: Any = parser.parse_args(arguments)
    torch.set_num_threads(1)  # matrices this small lose more to waiting threads than they gain
    with tempfile.TemporaryDirectory() as temporary:
        size = replace(QUICK if given.quick else Size(), learning_rate=given.learning_rate)
        result = run(given.output or Path(temporary), size, seed=given.seed)
    print(f"\n{table(result)}")


if __name__ == "__main__":
    main()

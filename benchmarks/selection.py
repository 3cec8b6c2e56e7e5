"""Does choosing what to label beat labelling at random? On the demo's world, at equal budget, over seeds.

    python benchmarks/selection.py --seeds 1 2 3 --setting demo
    python benchmarks/selection.py --seeds 1 2 3 --setting moved --arms random selection

A model with five heads is trained on the first labelled pairs, and chooses comparisons from a pool of prompts with four
completions each. They are labelled as the world labels, and a model is trained from the base for one epoch on old and
new pairs. What is measured is the probability that its preference agrees with a label of a fresh comparison: the mean
of the true preference probabilities of what it prefers, which has no noise of drawn labels.

Settings: ``demo``: the pool and the first pairs are drawn alike. ``moved``: the first pairs know two of the world's
four kinds of prompts; one in five of the pool's prompts is of the two others, and half of what is measured on is.

Each run goes to ``benchmarks/results/selection/``, the table of all to ``benchmarks/results/selection.md`` and stdout.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from records import made
from scipy.special import expit
from scipy.stats import t as student

from rewardlab.monitoring.selecting import WEIGHTS, Measured, choose, measure
from rewardlab.scoring.ensemble import EnsembleScorer
from rewardlab.scoring.scorer import Scorer
from rewardlab.studies.demo import DemoSize, build_base_model
from rewardlab.studies.world import SUBSETS, expected_best_accuracy, sample_completion, sample_prompt, true_utility
from rewardlab.training.run import train_reward_model
from rewardlab.types import Pair, PromptGroup

RESULTS = Path(__file__).parent / "results"
FOLDER = RESULTS / "selection"
TABLE = RESULTS / "selection.md"

FIRST = 2000  # labelled pairs to begin with
POOL = 2000  # prompts to choose from, of four completions each: 12,000 comparisons
HELD_OUT = 1500  # prompts to measure on, likewise: 9,000 comparisons
OLD_KINDS = ("explain", "format")
NEW_KINDS = tuple(kind for kind in SUBSETS if kind not in OLD_KINDS)
ARMS: dict[str, dict[str, Any]] = {
    "random": {},
    "selection": {"weights": WEIGHTS},
    "disagreement": {"weights": {"disagreement": 1.0}, "diverse": False},
    "uncertainty": {"weights": {"uncertainty": 1.0}, "diverse": False},
}
"""What chooses: a random draw, what ``rewardlab monitor --select`` does, and one measure alone."""


def draw(rng: Random, seen: set[str], count: int, kinds: Sequence[str], completions: int) -> list[PromptGroup]:
    """Groups of new prompts, each of a kind drawn from ``kinds``, without labels."""
    groups = []
    while len(groups) < count:
        kind = rng.choice(kinds)
        prompt = sample_prompt(rng, kind)
        if prompt in seen:
            continue
        seen.add(prompt)
        answers: list[str] = []
        while len(answers) < completions:
            if (answer := sample_completion(rng, prompt)) not in answers:
                answers.append(answer)
        groups.append(PromptGroup(prompt, tuple(answers), subset=kind))
    return groups


def labelled(prompt: str, first: str, second: str, subset: str | None, seed: int) -> PromptGroup:
    """A comparison with the world's label, which is the same whoever asks for it, and in either order."""
    a, b = sorted((first, second))
    p_a = expit(true_utility(prompt, a) - true_utility(prompt, b))
    a_wins = Random(f"{seed}\n{prompt}\n{a}\n{b}").random() < p_a
    return PromptGroup(prompt, (a, b), (Pair(0, 1) if a_wins else Pair(1, 0),), subset=subset)


def trained(base: Path, groups: Sequence[PromptGroup], folder: Path, seed: int, heads: int) -> Path:
    """A reward model, from the base, by the demo's settings."""
    size = DemoSize()
    train_reward_model(
        model=base,
        train_groups=groups,
        output_dir=folder,
        dtype="float32",
        overrides={
            "seed": seed,
            "learning_rate": size.learning_rate,
            "per_device_train_batch_size": size.batch_size,
            "gradient_accumulation_steps": 1,
            "adam_beta2": 0.95,
            "max_length": 256,
            "ensemble_heads": heads,
            "save_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
        },
        report=lambda line: None,
    )
    return folder


def agreement(model: Path, groups: Sequence[PromptGroup]) -> dict[str, float]:
    """Probability that the model's preference agrees with a label: of all comparisons, and of those of each kind."""
    found = defaultdict(list)
    for group, scores in zip(groups, Scorer.from_pretrained(model).score_groups(groups), strict=True):
        utilities = [true_utility(group.prompt, completion) for completion in group.completions]
        for i in range(len(scores)):
            for j in range(i):
                sign = np.sign(scores[i] - scores[j])
                probability = float(expit(sign * (utilities[i] - utilities[j]))) if sign else 0.5
                found["all"].append(probability)
                found[str(group.subset)].append(probability)
    return {name: float(np.mean(values)) for name, values in found.items()}


def chosen(measured: Measured, arm: str, budget: int, seed: int) -> list[PromptGroup]:
    """The comparisons of one arm, labelled."""
    if arm == "random":
        drawn = Random(seed).sample(measured.candidates, budget)
        texts = [(g, c.first, c.second) for c in drawn for g in [measured.groups[c.group]]]
        rows = [(g.prompt, g.completions[i], g.completions[j], g.subset) for g, i, j in texts]
    else:
        selection = choose(measured, budget, seed=seed, **ARMS[arm])
        rows = [(row["prompt"], row["a"], row["b"], row["subset"]) for row in selection.rows]
    return [labelled(*row, seed) for row in rows]  # type: ignore[arg-type]


def run(seed: int, setting: str, budgets: Sequence[int], arms: Sequence[str], folder: Path) -> None:
    """One seed: everything is drawn and trained anew. Each arm's finding is a file."""
    rng, seen = Random(seed), set[str]()
    moved = setting == "moved"
    held_out = draw(rng, seen, HELD_OUT, SUBSETS, 4)
    old = [
        labelled(g.prompt, *g.completions, g.subset, seed)  # type: ignore[arg-type]
        for g in draw(rng, seen, FIRST, OLD_KINDS if moved else SUBSETS, 2)
    ]
    pool = draw(rng, seen, POOL, OLD_KINDS * 4 + NEW_KINDS if moved else SUBSETS, 4)
    with tempfile.TemporaryDirectory() as scratch:
        base = Path(scratch) / "base"
        build_base_model(base, [*old, *pool], DemoSize(), seed)  # the tokenizer needs no labels
        first = trained(base, old, Path(scratch) / "first", seed, heads=5)
        before = agreement(first, held_out)
        measured = measure(EnsembleScorer.of_heads(first), pool, known=old, seed=seed)
        for budget in budgets:
            for arm in arms:
                start = time.perf_counter()
                new = chosen(measured, arm, budget, seed)
                model = trained(base, [*old, *new], Path(scratch) / f"{arm}-{budget}", seed, heads=1)
                record = {
                    "setting": setting,
                    "seed": seed,
                    "budget": budget,
                    "arm": arm,
                    "before": before,
                    "after": agreement(model, held_out),
                    "best": expected_best(held_out),
                    "new_kinds": sum(group.subset in NEW_KINDS for group in new) / budget,
                    "prompts": len({group.prompt for group in new}),
                    "certainty": expected_best_accuracy(new),
                    "seconds": round(time.perf_counter() - start, 1),
                    **made("one thread, no GPU"),
                }
                folder.mkdir(parents=True, exist_ok=True)
                name = f"{setting}-{budget}-{arm}-{seed}.json"
                (folder / name).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
                print(name, f"{record['after']['all']:.4f}", f"{record['seconds']} s", flush=True)


def expected_best(groups: Sequence[PromptGroup]) -> float:
    """What the truth itself reaches."""
    every = [
        PromptGroup(g.prompt, (g.completions[i], g.completions[j]), (Pair(0, 1),))
        for g in groups
        for i in range(len(g.completions))
        for j in range(i)
    ]
    return expected_best_accuracy(every)


def interval(differences: Sequence[float]) -> tuple[float, float, float]:
    """Mean over the seeds with its 95 % interval by Student's t; no interval of fewer than two."""
    mean, n = float(np.mean(differences)), len(differences)
    if n < 2:
        return mean, math.nan, math.nan
    half = float(student.ppf(0.975, n - 1) * np.std(differences, ddof=1) / math.sqrt(n))
    return mean, mean - half, mean + half


def table(folder: Path) -> str:
    """The table of every finding on file: each arm against random labelling of the same seed and budget."""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    by_arm: dict[tuple[str, int, str], dict[int, Any]] = defaultdict(dict)
    for record in records:
        by_arm[record["setting"], record["budget"], record["arm"]][record["seed"]] = record
    lines = [
        "| setting | labels | chosen by | seeds | before | after | best possible | over random | 95 % interval | "
        "new kinds among the chosen | a perfect rater agrees with |",
        "|--|--|--|--|--|--|--|--|--|--|--|",
    ]
    order = list(ARMS)
    for setting, budget, arm in sorted(by_arm, key=lambda row: (row[0], row[1], order.index(row[2]))):
        found, random = by_arm[setting, budget, arm], by_arm[setting, budget, "random"]
        seeds = sorted(found.keys() & random.keys())
        mean, low, high = interval([found[s]["after"]["all"] - random[s]["after"]["all"] for s in seeds])
        over = f"{mean:+.4f} | {low:+.4f} to {high:+.4f}" if arm != "random" else " | "

        def average(name: str, of: dict[int, Any] = found) -> float:
            return float(np.mean([r[name]["all"] if name in ("before", "after") else r[name] for r in of.values()]))

        lines.append(
            f"| {setting} | {budget} | {arm} | {len(seeds)} | {average('before'):.4f} | {average('after'):.4f} | "
            f"{average('best'):.4f} | {over} | {average('new_kinds'):.2f} | {average('certainty'):.3f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2, 3])
    parser.add_argument("--setting", choices=("demo", "moved"), default="demo")
    parser.add_argument("--budgets", type=int, nargs="+", default=[1000])
    parser.add_argument("--arms", nargs="+", choices=tuple(ARMS), default=list(ARMS))
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where findings are kept")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for seed in options.seeds:
        run(seed, options.setting, options.budgets, options.arms, options.folder)
    text = table(options.folder)
    if options.folder == FOLDER:
        TABLE.write_text(f"Made by `benchmarks/selection.py`.\n\n{text}\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()

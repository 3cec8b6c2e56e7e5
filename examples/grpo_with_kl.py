"""GRPO against a reward model with no, a fixed and an adaptive KL: what the reward gains, and what the truth does.

A small policy answers prompts of the demo's world, whose truth is known. A reward model is trained on labelled pairs of
it, and the policy is trained by TRL's `GRPOTrainer` on that model's scores, three times from the same start: with
`beta = 0`, with a fixed `beta`, and with a `beta` that follows a target KL. Offline, on one free core some 15 minutes:

    pip install "rewardlab[rl]"
    python examples/grpo_with_kl.py --output runs

With the demo's reward model, and one of the three runs again (table and figures are of all that lie in `runs`):

    rewardlab demo --output demo
    python examples/grpo_with_kl.py --output runs --reward-model demo/model
    python examples/grpo_with_kl.py --output runs --reward-model demo/model --policy runs/policy --arms adaptive

Two things to know when reading it. GRPO divides the rewards of a prompt's completions by their standard deviation
(`scale_rewards="group"`), so multiplying the reward by 10 changes nothing, and `beta` is in units of that deviation.
And the horizon of the adaptive coefficient is that of ten steps (2 % per step at most), because the run is short: with
the usual 10,000 the coefficient would move by at most a fifth in all 150 steps of 64 completions.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any, Literal

import torch

from rewardlab.adapters.trl import RewardFunction
from rewardlab.metrics.bootstrap import Interval, bootstrap_by_cluster, mean_of
from rewardlab.rewards.kl import AdaptiveKL
from rewardlab.scoring.scorer import Scorer
from rewardlab.studies.grpo import GrpoRun, Measure, run_grpo
from rewardlab.studies.overopt import draw_prompts
from rewardlab.studies.overopt_figures import Series, as_file, lines
from rewardlab.studies.overopt_proxies import ProxySize, ProxyTraining, train_proxy
from rewardlab.studies.policy import build_policy
from rewardlab.studies.world import generate, true_utility
from rewardlab.types import PromptGroup

LABELS = {"none": "no KL", "fixed": "fixed KL", "adaptive": "adaptive KL"}
Means = dict[str, float]
COLUMNS = ("gold", "gold_gain", "proxy", "proxy_gain", "kl")


def judge(scorer: Scorer, prompts: Sequence[str], measure: Measure) -> list[Means]:
    """Per prompt, the mean over its samples of the true utility, the reward model's score, and log pi - log pi_ref."""
    groups = [PromptGroup(p, tuple(s.text for s in own)) for p, own in zip(prompts, measure.samples, strict=True)]
    scores = scorer.score_groups(groups)
    return [
        {
            "gold": fmean(true_utility(group.prompt, text) for text in group.completions),
            "proxy": fmean(own_scores),
            "kl": fmean(ratios),
        }
        for group, own_scores, ratios in zip(groups, scores, measure.log_ratios, strict=True)
    ]


def intervals(prompts: Sequence[str], start: Sequence[Means], end: Sequence[Means]) -> dict[str, Interval]:
    """Means over prompts with 95 % intervals; the gains are of the same prompts."""
    rows = [
        [b["gold"], b["gold"] - a["gold"], b["proxy"], b["proxy"] - a["proxy"], b["kl"], 1.0]
        for a, b in zip(start, end, strict=True)
    ]
    statistics = {name: mean_of(column, count=len(COLUMNS)) for column, name in enumerate(COLUMNS)}
    return bootstrap_by_cluster(rows, prompts, statistics)


def table(results: dict[str, Any]) -> str:
    """What the runs ended with, as Markdown."""
    lines = [
        "| run | beta at the end | KL, nats per completion | proxy reward | its gain | gold | its gain |",
        "|--|--|--|--|--|--|--|",
    ]
    for name, result in results.items():
        cells = {key: "{value:.2f} [{low:.2f}, {high:.2f}]".format(**result["end"][key]) for key in COLUMNS}
        order = [cells[key] for key in ("kl", "proxy", "proxy_gain", "gold", "gold_gain")]
        lines.append(f"| {LABELS[name]} | {result['path'][-1]['beta']:.3f} | {' | '.join(order)} |")
    return "\n".join(lines)


def figure(results: dict[str, Any], name: str, what: str, target: float | None = None) -> str:
    """One mean of each run over its steps, as an SVG file, with the target where there is one."""
    styles: dict[str, Literal["a", "b", "c"]] = {"none": "b", "fixed": "c", "adaptive": "a"}
    series = [
        Series(LABELS[arm], styles[arm], [(point["step"], point[name]) for point in result["path"]])
        for arm, result in results.items()
    ]
    if target is not None:
        last = max(step for one in series for step, _ in one.points)
        series.append(Series("target of the adaptive KL", "a", [(0, target), (last, target)], dashed=True))
    title, description = f"{what}, over the steps of GRPO", "One line for each run"
    return as_file(lines(title, description, series, x_name="training step", y_name=what))


def conclude(output: Path, target: float) -> None:
    """Table and figures of the runs that lie in a folder, those of a former call too."""
    files = {arm: output / f"{arm}.json" for arm in LABELS}
    results = {arm: json.loads(file.read_text(encoding="utf-8")) for arm, file in files.items() if file.exists()}
    (output / "gold.svg").write_text(figure(results, "gold", "mean true utility"), encoding="utf-8")
    held = {arm: result for arm, result in results.items() if arm != "none"}  # without a KL term it leaves the picture
    if held:
        (output / "kl.svg").write_text(figure(held, "kl", "KL, nats per completion", target), encoding="utf-8")
    print(f"\n{table(results)}")
    if "adaptive" in results:
        error = results["adaptive"]["end"]["kl"]["value"] / target - 1
        print(f"\nadaptive KL: {error:+.0%} from its target of {target:g} nats per completion")


def main() -> None:
    """Build what is missing, run the arms, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for models, results and figure")
    parser.add_argument("--policy", type=Path, help="a policy of build_policy; by default one is made")
    parser.add_argument("--reward-model", help="a reward model; by default one is trained")
    parser.add_argument("--arms", nargs="+", choices=list(LABELS), default=list(LABELS))
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--pairs", type=int, default=16_000, help="labelled pairs that the reward model is trained on")
    parser.add_argument("--beta", type=float, default=0.3, help="the fixed coefficient, and where the adaptive starts")
    parser.add_argument("--target", type=float, default=3.0, help="of the adaptive KL, nats per completion")
    parser.add_argument("--horizon", type=float, default=640, help="of the adaptive KL, completions")
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--num-held-out", type=int, default=120, help="prompts that are measured on")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)  # matrices this small lose more to threads waiting for each other than they gain
    options.output.mkdir(parents=True, exist_ok=True)

    policy = options.policy or build_policy(options.output / "policy", seed=options.seed, report=print)
    proxy = options.reward_model
    if proxy is None:
        proxy = options.output / "reward_model"
        world = generate(options.seed, n_train=options.pairs, n_held_out=300, n_canary=0)
        training = ProxyTraining(num_steps=math.ceil(options.pairs / 16), batch_size=16, vocabulary=2048)  # one epoch
        train_proxy(proxy, world.train, world.held_out, ProxySize(options.pairs, 64, 2), options.seed, training)
    reward = RewardFunction(proxy, name="proxy")
    held_out = draw_prompts(Random(options.seed + 1), options.num_held_out)
    prompts = draw_prompts(Random(options.seed + 2), 2_000, without=held_out)

    told = {key: str(value) if isinstance(value, os.PathLike) else value for key, value in vars(options).items()}
    for arm in options.arms:
        judged: list[list[Means]] = []

        def look(measure: Measure, arm: str = arm, judged: list[list[Means]] = judged) -> None:
            judged.append(judge(reward.scorer, held_out, measure))
            means = {name: fmean(row[name] for row in judged[-1]) for name in ("kl", "proxy", "gold")}
            shown = ", ".join(f"{name} {value:.2f}" for name, value in means.items())
            print(f"{LABELS[arm]}: step {measure.step}, beta {measure.beta:.3f}: {shown}", flush=True)

        run: GrpoRun = run_grpo(
            policy,
            reward,
            prompts,
            options.output / arm,
            held_out=held_out,
            steps=options.steps,
            beta=0.0 if arm == "none" else options.beta,
            controller=AdaptiveKL(options.beta, options.target, options.horizon) if arm == "adaptive" else None,
            seed=options.seed,
            learning_rate=options.learning_rate,
            on_measure=look,
        )
        means = [{name: fmean(row[name] for row in rows) for name in ("gold", "proxy", "kl")} for rows in judged]
        ends = intervals(held_out, judged[0], judged[-1])
        result = {
            "options": told,
            "path": [{"step": m.step, "beta": m.beta, **of_all} for m, of_all in zip(run.measures, means, strict=True)],
            "end": {name: interval.to_dict() for name, interval in ends.items()},
            "history": list(run.history),
        }
        (options.output / f"{arm}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")

    conclude(options.output, options.target)


if __name__ == "__main__":
    main()

"""GRPO against a proxy without a KL penalty, watched by the gold: the reinforcement-learning half of the study.

This file knows the run and how its measures become a curve; what the proxy is made of it does not know.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rewardlab.adapters.trl import RewardFunction
from rewardlab.metrics.bootstrap import FloatArray
from rewardlab.scoring.scorer import Scorer
from rewardlab.studies.grpo import Measure, run_grpo
from rewardlab.studies.overopt_curves import SeedCurve, seed_curve
from rewardlab.studies.overopt_proxies import Gold, GoldUnits
from rewardlab.types import PromptGroup


@dataclass(frozen=True, slots=True)
class GrpoSize:
    """How long a GRPO run is.

    Attributes:
        steps: Optimiser steps; 0 leaves GRPO out.
        every: Steps between two measures.
        prompts_per_step: Prompts of each step.
        num_generations: Completions of each.
        samples_per_prompt: Completions of each held-out prompt in a measure.
        learning_rate: Its learning rate.
        num_prompts: Prompts that it is trained on.
    """

    steps: int = 50
    every: int = 5
    prompts_per_step: int = 8
    num_generations: int = 8
    samples_per_prompt: int = 8
    learning_rate: float = 3e-4
    num_prompts: int = 1000


def grpo_curve(
    policy: Path,
    proxy: Scorer,
    units: GoldUnits,
    gold: Gold,
    *,
    prompts: Sequence[str],
    held_out: Sequence[str],
    output: Path,
    size: GrpoSize,
    max_new_tokens: int,
    seed: int,
    report: Callable[[str], None] = lambda _: None,
) -> SeedCurve:
    """Train the policy on what the proxy says, with beta = 0, and follow gold and proxy on held-out prompts.

    Args:
        policy: The policy's folder.
        proxy: The reward.
        units: What puts its scores beside the gold's.
        gold: The gold reward.
        prompts: What is trained on.
        held_out: What is measured on, the prompts of ``units``.
        output: Where the trained policy goes.
        size: How long.
        max_new_tokens: Longest completion.
        seed: Seed of the run.
        report: Called with one line for each measure.
    """
    points: list[tuple[FloatArray, FloatArray]] = []

    def judge(measure: Measure) -> None:
        groups = [
            PromptGroup(prompt, tuple(drawn.text for drawn in own))
            for prompt, own in zip(held_out, measure.samples, strict=True)
        ]
        golds = units.gold(np.array(gold(groups))).mean(axis=1)
        proxies = units.proxy(np.array(proxy.score_groups(groups))).mean(axis=1)
        points.append((golds, proxies))
        report(f"  step {measure.step}: KL {measure.kl:.2f}, gold {golds.mean():+.2f}, proxy {proxies.mean():+.2f}")

    run = run_grpo(
        policy,
        RewardFunction(proxy),
        prompts,
        output,
        held_out=held_out,
        steps=size.steps,
        beta=0.0,
        seed=seed,
        learning_rate=size.learning_rate,
        num_generations=size.num_generations,
        prompts_per_step=size.prompts_per_step,
        max_completion_length=max_new_tokens,
        every=size.every,
        samples_per_prompt=size.samples_per_prompt,
        on_measure=judge,
    )
    golds, proxies = (np.stack([point[i] for point in points], axis=1) for i in (0, 1))
    # Of the untrained policy the estimate of KL is 0 but for rounding, which may be negative.
    return seed_curve([m.step for m in run.measures], [max(m.kl, 0.0) for m in run.measures], golds, proxies)

"""Over-optimisation measured: gold and proxy reward against KL, for best-of-N and for GRPO, single against ensembles.

    result = run_overopt("overopt", seeds=(0, 1, 2), workers=2)
    result.headline                                   # where to stop

Each seed is an experiment of its own: a policy, pairs of its samples that the gold labels, proxies of several sizes of
data and of model, a pool of samples for each held-out prompt, and GRPO runs without a KL penalty. Its figures are kept
as JSON, so that an interrupted run goes on with the seeds that are missing.

This file knows the order of things; curves are :mod:`rewardlab.studies.overopt_curves`', proxies
:mod:`rewardlab.studies.overopt_proxies`', the page :mod:`rewardlab.studies.overopt_page`'s.

References:
    Gao, Schulman & Hilton 2022 (arXiv:2210.10760); Coste et al. 2023 (arXiv:2310.02743).
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

from rewardlab.errors import ConfigError, MissingDependencyError
from rewardlab.files import write_safely
from rewardlab.metrics.bootstrap import FloatArray
from rewardlab.rewards.best_of_n import default_sizes, expected_best_of_n, kl_of_best_of_n
from rewardlab.scoring.combining_scores import combine
from rewardlab.scoring.ensemble import EnsembleScorer
from rewardlab.scoring.opening import open_scorer
from rewardlab.scoring.scorer import Scorer
from rewardlab.studies.overopt_curves import SeedCurve, seed_curve
from rewardlab.studies.overopt_grpo import GrpoSize, grpo_curve
from rewardlab.studies.overopt_proxies import Gold, GoldUnits, ProxySize, ProxyTraining, label_pairs, train_proxy
from rewardlab.studies.overopt_result import SINGLE, Made, OveroptResult
from rewardlab.studies.policy import PolicySize, build_policy, load_policy_model, sample
from rewardlab.studies.world import SUBSETS, sample_prompt, true_utility
from rewardlab.types import PromptGroup

Report = Callable[[str], None]

NUM_REFERENCE = 200
"""Labelled pairs that give every proxy its scale; none is trained on them."""

_DRAWS_OF_A_SEED = 1000  # so that no two draws of any two seeds are of one torch seed
_POOL = 500


@dataclass(frozen=True, slots=True)
class OveroptSize:
    """How large the experiment of a seed is.

    Attributes:
        policy: The policy.
        proxies: The proxies. Of the first size there are several, an ensemble, and GRPO optimises them; of the others
            one each, for best-of-N.
        training: How they are trained.
        members: How many of the first, equal but for their seeds.
        hows: How ensembles are combined.
        k: Of ``mean-std``.
        label_noise: Share of flipped labels, beside the noise of Bradley-Terry.
        num_prompts: Held-out prompts.
        pool: Samples of each: the largest n of best-of-n.
        temperature: Of the samples in the pool and in the pairs.
        max_new_tokens: Longest completion.
        grpo: How long GRPO is.
    """

    policy: PolicySize = field(default_factory=PolicySize)
    proxies: tuple[ProxySize, ...] = (
        ProxySize(1000),
        ProxySize(300),
        ProxySize(4000),
        ProxySize(1000, hidden_size=64, num_layers=2),
    )
    training: ProxyTraining = field(default_factory=ProxyTraining)
    members: int = 4
    hows: tuple[str, ...] = ("mean", "min", "mean-std")
    k: float = 1.0
    label_noise: float = 0.25
    num_prompts: int = 32
    pool: int = 1024
    temperature: float = 1.0
    max_new_tokens: int = 64
    grpo: GrpoSize = field(default_factory=GrpoSize)

    @classmethod
    def quick(cls) -> OveroptSize:
        """Small enough for a minute; it shows what is made, not what is true."""
        return cls(
            policy=PolicySize(num_pairs=3000),
            proxies=(ProxySize(300), ProxySize(100)),
            training=ProxyTraining(num_steps=40),
            members=2,
            num_prompts=12,
            pool=64,
            grpo=GrpoSize(steps=6, every=2, prompts_per_step=4, samples_per_prompt=2),
        )


def run_overopt(
    output: str | Path,
    *,
    seeds: Sequence[int] = (0,),
    size: OveroptSize | None = None,
    gold: str | None = None,
    workers: int = 1,
    report: Report = lambda _: None,
) -> OveroptResult:
    """Run every seed that has no figures yet, and put the figures together.

    Args:
        output: Where the figures of each seed go, ``seed-0.json`` and so on.
        seeds: Seeds of everything.
        size: How large; by default as in :class:`OveroptSize`.
        gold: A reward model that is the gold, as :func:`~rewardlab.scoring.opening.open_scorer` takes it; by default
            the true utility of the demo world.
        workers: Seeds at the same time, each in a process with one thread.
        report: Called with one line for each stage.

    Raises:
        ConfigError: ``output`` holds figures of another size or gold, or no folder; a seed twice; no worker.
        MissingDependencyError: GRPO is to be run, and TRL is not installed.
    """
    size, folder = size or OveroptSize(), Path(output)
    if len(set(seeds)) != len(seeds) or not seeds or workers < 1:
        raise ConfigError(f"seeds {list(seeds)} with {workers} workers", hint="different seeds, and one worker or more")
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder", hint="name another --output")
    folder.mkdir(parents=True, exist_ok=True)
    settings = settings_of(size, gold)
    files = {seed: folder / f"seed-{seed}.json" for seed in seeds}
    for file in files.values():
        if file.exists() and json.loads(file.read_text(encoding="utf-8"))["settings"] != settings:
            raise ConfigError(f"{file} was made with other settings", hint="name another --output, or remove it")
    missing = [seed for seed in seeds if not files[seed].exists()]
    if missing and size.grpo.steps and find_spec("trl") is None:  # now, and not after the minutes that come before it
        raise MissingDependencyError("GRPO needs TRL", hint='pip install "rewardlab[rl]", or leave it out: --no-grpo')
    for seed in seeds:
        if seed not in missing:
            report(f"seed {seed}: taken from {files[seed]}")
    if workers == 1 or len(missing) < 2:
        for seed in missing:
            _one_seed(files[seed], seed, size, gold, settings, report)
    else:
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # before the processes start: they share the cores
        with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
            jobs = [pool.submit(_one_seed, files[seed], seed, size, gold, settings, None) for seed in missing]
            for job in as_completed(jobs):
                job.result()
    return OveroptResult.load([files[seed] for seed in seeds])


def settings_of(size: OveroptSize, gold: str | None) -> dict[str, Any]:
    """What a seed's record says that it was made with: figures of other settings are never put together."""
    settings: dict[str, Any] = json.loads(json.dumps(asdict(size)))
    return settings | {"gold": gold or "true utility"}


def _one_seed(
    file: Path, seed: int, size: OveroptSize, gold: str | None, settings: dict[str, Any], report: Report | None
) -> None:
    """One seed's experiment on one thread, and its figures written at once."""
    start, tell = time.perf_counter(), report or _tell

    def tell_when(line: str) -> None:
        tell(f"seed {seed}, {time.perf_counter() - start:4.0f} s: {line}")

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            record = run_seed(Path(scratch), seed, size, gold_reward(gold), tell_when)
    finally:
        torch.set_num_threads(threads)
    record |= {"seed": seed, "settings": settings, "seconds": round(time.perf_counter() - start)}
    write_safely(file, json.dumps(record) + "\n")


def gold_reward(path: str | None) -> Gold:
    """The gold: the demo world's true utility, or what a reward model says.

    Args:
        path: Of the reward model; None is the truth.
    """
    if path is not None:
        return open_scorer(path).score_groups
    return lambda groups: [[true_utility(g.prompt, completion) for completion in g.completions] for g in groups]


def run_seed(scratch: Path, seed: int, size: OveroptSize, gold: Gold, report: Report) -> dict[str, Any]:
    """The whole experiment of one seed.

    Args:
        scratch: A folder for its models.
        seed: Seed of everything.
        size: How large.
        gold: The gold reward.
        report: Called with one line for each stage.

    Returns:
        ``{"curves": [...], "policy": {...}, "proxies": [...]}``, ready for JSON.
    """
    report("training the policy")
    policy = build_policy(scratch / "policy", seed=seed, size=size.policy)
    model, tokenizer = load_policy_model(policy)
    rng = Random(seed)
    held_out = draw_prompts(rng, size.num_prompts)
    others = draw_prompts(rng, max(proxy.num_pairs for proxy in size.proxies) + NUM_REFERENCE, without=held_out)

    report(f"sampling pairs on {len(others):,} prompts")

    def draw(prompts: Sequence[str], n: int, seed: int) -> list[list[str]]:
        drawn = sample(
            model,
            tokenizer,
            prompts,
            n=n,
            seed=seed,
            temperature=size.temperature,
            max_new_tokens=size.max_new_tokens,
        )
        return [[one.text for one in own] for own in drawn]

    pairs = pairs_of_samples(draw, others, seed)
    labelled = label_pairs(pairs, gold, seed, label_noise=size.label_noise)
    reference, train = labelled[:NUM_REFERENCE], labelled[NUM_REFERENCE:]

    folders: dict[ProxySize, list[Path]] = {}
    for proxy in size.proxies:
        count = size.members if proxy == size.proxies[0] else 1
        report(f"proxies: training {count} of {proxy.shape} on {proxy.num_pairs:,} pairs")
        folders[proxy] = [
            train_proxy(scratch / f"{proxy.name}-{member}", train, reference, proxy, 100 * seed + member, size.training)
            for member in range(count)
        ]

    report(f"sampling {size.pool:,} completions of each of {len(held_out)} prompts")
    drawn = draw(held_out, size.pool, _DRAWS_OF_A_SEED * seed + _POOL)
    pool = [
        PromptGroup(prompt, tuple(own), id=str(number))
        for number, (prompt, own) in enumerate(zip(held_out, drawn, strict=True))
    ]
    golds = np.array(gold(pool))
    curves, quality = [], []
    scores: dict[ProxySize, FloatArray] = {}
    for proxy, members in folders.items():
        report(f"best-of-n by {proxy.shape} on {proxy.num_pairs:,} pairs")
        of_members = [Scorer.from_pretrained(one, scale="z").score_groups(pool) for one in members]
        scores[proxy] = np.stack([np.array(one) for one in of_members], axis=-1)
        for how in ways(size, len(members)):
            curve = best_of_n(scores[proxy], golds, how, size.k)
            curves.append(Made("best_of_n", proxy, how).to_dict() | curve.to_dict())
        singles = [GoldUnits(golds, scores[proxy][..., member]).correlation for member in range(len(members))]
        together = GoldUnits(golds, combine(scores[proxy])).correlation
        quality.append({"proxy_size": asdict(proxy), "correlation": float(np.mean(singles)), "of_the_mean": together})

    first = size.proxies[0]
    for how in ways(size, size.members) if size.grpo.steps else ():
        report(f"GRPO against {how}")
        alone = how == SINGLE
        curve = grpo_curve(
            policy,
            EnsembleScorer.from_pretrained(
                folders[first][:1] if alone else folders[first], "mean" if alone else how, size.k, on="z"
            ),
            GoldUnits(golds, scores[first][..., 0] if alone else combine(scores[first], how, k=size.k)),
            gold,
            prompts=others[: size.grpo.num_prompts],
            held_out=held_out,
            output=scratch / "grpo",
            size=size.grpo,
            max_new_tokens=size.max_new_tokens,
            seed=seed,
            report=report,
        )
        curves.append(Made("grpo", first, how).to_dict() | curve.to_dict())
    return {
        "curves": curves,
        "proxies": quality,
        "policy": {
            "gold": float(golds.mean()),
            "gold_std_within_prompts": float(golds.std(axis=1).mean()),
            "best_of_pool": float(golds.max(axis=1).mean() - golds.mean()),
            "distinct_in_pool": float(np.mean([len(set(group.completions)) for group in pool])),
        },
    }


def draw_prompts(rng: Random, number: int, without: Sequence[str] = ()) -> list[str]:
    """Different prompts of the world, each kind as often as the others.

    Args:
        rng: The generator.
        number: How many.
        without: Prompts that may not be among them.
    """
    seen, prompts = set(without), list[str]()
    while len(prompts) < number:
        prompt = sample_prompt(rng, SUBSETS[len(prompts) % len(SUBSETS)])
        if prompt not in seen:
            seen.add(prompt)
            prompts.append(prompt)
    return prompts


def pairs_of_samples(
    draw: Callable[[Sequence[str], int, int], list[list[str]]], prompts: Sequence[str], seed: int
) -> list[PromptGroup]:
    """Two different samples of each prompt; a prompt is asked again where they are equal.

    Args:
        draw: Gives a number of completions of each prompt, from a seed.
        prompts: Different prompts.
        seed: Seed of the draws.
    """
    pairs: dict[str, PromptGroup] = {}
    attempt, open_ones = 0, list(prompts)
    while open_ones:
        drawn = draw(open_ones, 2, _DRAWS_OF_A_SEED * seed + attempt)
        pairs |= {p: PromptGroup(p, (one, two)) for p, (one, two) in zip(open_ones, drawn, strict=True) if one != two}
        attempt, open_ones = attempt + 1, [prompt for prompt in open_ones if prompt not in pairs]
    return [pairs[prompt] for prompt in prompts]


def ways(size: OveroptSize, members: int) -> tuple[str, ...]:
    """One proxy alone, and each way to combine several where there are several."""
    return (SINGLE, *(size.hows if members > 1 else ()))


def best_of_n(scores: FloatArray, golds: FloatArray, how: str, k: float = 1.0) -> SeedCurve:
    """The curve of best-of-n; of the single proxy the mean over the members, each alone.

    Args:
        scores: The members' on a common scale, shape (prompts, samples, members).
        golds: The gold of the same, shape (prompts, samples).
        how: :data:`~rewardlab.studies.overopt_result.SINGLE`, or how the members are combined.
        k: Of ``mean-std``.
    """
    alternatives = np.moveaxis(scores, -1, 0) if how == SINGLE else [combine(scores, how, k=k)]
    of_gold, of_proxy = [], []
    for values in alternatives:
        units = GoldUnits(golds, values)
        proxy = units.proxy(values)
        of_gold.append([expected_best_of_n(*prompt) for prompt in zip(proxy, units.gold(golds), strict=True)])
        of_proxy.append([expected_best_of_n(prompt) for prompt in proxy])
    sizes = default_sizes(golds.shape[1])
    return seed_curve(sizes, [kl_of_best_of_n(n) for n in sizes], np.mean(of_gold, axis=0), np.mean(of_proxy, axis=0))


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)

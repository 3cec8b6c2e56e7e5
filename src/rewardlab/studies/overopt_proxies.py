"""Proxies of a gold reward: small reward models trained on pairs of a policy's samples that the gold labelled.

This file knows pairs, labels and training; it knows neither the policy nor what the proxies are used for.

References:
    Gao, Schulman & Hilton 2022 (arXiv:2210.10760): a gold reward model stands for the human and labels the data.
    Coste et al. 2023 (arXiv:2310.02743): a quarter of the labels flipped; the members of an ensemble differ in the seed
    of what is trained from nothing and in the order of the data, which is the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np

from rewardlab.metrics.bootstrap import FloatArray
from rewardlab.studies.demo import DemoSize, build_base_model
from rewardlab.training.run import train_reward_model
from rewardlab.types import Pair, PromptGroup

Gold = Callable[[Sequence[PromptGroup]], list[list[float]]]
"""The gold reward of every completion of some groups, one list per group."""


@dataclass(frozen=True, slots=True)
class ProxySize:
    """How large a proxy and its data are.

    Attributes:
        num_pairs: Labelled pairs that it is trained on.
        hidden_size: Width of the decoder.
        num_layers: Its layers.
    """

    num_pairs: int
    hidden_size: int = 32
    num_layers: int = 1

    @property
    def shape(self) -> str:
        """The model, as in tables: ``"32x1"``."""
        return f"{self.hidden_size}x{self.num_layers}"

    @property
    def name(self) -> str:
        """Model and data, as in tables and file names."""
        return f"{self.shape}-{self.num_pairs}"


@dataclass(frozen=True, slots=True)
class ProxyTraining:
    """How every proxy is trained: for as many steps whatever its data, so that more data is not more training.

    Attributes:
        num_steps: Steps; few pairs are seen several times.
        batch_size: Pairs per step.
        learning_rate: Peak learning rate.
        vocabulary: Tokens of the tokenizer.
    """

    num_steps: int = 300
    batch_size: int = 16
    learning_rate: float = 3e-3
    vocabulary: int = 1024


@dataclass(frozen=True, slots=True)
class GoldUnits:
    """What puts a proxy's scores beside the gold's.

    Both are 0 at the policy's mean of each prompt, and the proxy has the gold's standard deviation among the policy's
    samples of a prompt.

    Attributes:
        golds: Gold of the policy's samples, shape (prompts, samples), float64.
        proxies: The proxy's scores of the same.
    """

    golds: FloatArray
    proxies: FloatArray

    def gold(self, values: FloatArray) -> FloatArray:
        """Gold rewards of any completions of the same prompts, shape (prompts, n), on the scale."""
        return np.asarray(values - self.golds.mean(axis=1, keepdims=True), dtype=np.float64)

    def proxy(self, values: FloatArray) -> FloatArray:
        """The proxy's scores of any completions of the same prompts, shape (prompts, n), on the scale."""
        spread = math.sqrt(np.mean(self.proxies.var(axis=1)))
        factor = math.sqrt(np.mean(self.golds.var(axis=1))) / spread if spread > 0 else 1.0
        return np.asarray((values - self.proxies.mean(axis=1, keepdims=True)) * factor, dtype=np.float64)

    @property
    def correlation(self) -> float:
        """Mean Pearson correlation of the two among a prompt's samples, over the prompts; 0 of what is constant."""
        gold, proxy = (v - v.mean(axis=1, keepdims=True) for v in (self.golds, self.proxies))
        above, below = (gold * proxy).sum(axis=1), np.sqrt((gold**2).sum(axis=1) * (proxy**2).sum(axis=1))
        return float(np.mean(np.divide(above, below, out=np.zeros_like(above), where=below > 0)))


def label_pairs(groups: Sequence[PromptGroup], gold: Gold, seed: int, *, label_noise: float = 0.0) -> list[PromptGroup]:
    """Pairs as the gold would label them: drawn by Bradley-Terry, then some flipped.

    Args:
        groups: Groups of two completions without labels.
        gold: The gold reward, in logits.
        seed: Seed of the draws.
        label_noise: Probability that a drawn label is turned round.
    """
    rng = Random(seed)
    labelled = []
    for group, (first, second) in zip(groups, gold(groups), strict=True):
        first_wins = rng.random() < 1 / (1 + math.exp(min(second - first, 700)))
        if rng.random() < label_noise:
            first_wins = not first_wins
        pair = Pair(0, 1) if first_wins else Pair(1, 0)
        labelled.append(PromptGroup(group.prompt, group.completions, (pair,), group.id, group.subset))
    return labelled


def train_proxy(
    folder: Path,
    groups: Sequence[PromptGroup],
    held_out: Sequence[PromptGroup],
    size: ProxySize,
    seed: int,
    training: ProxyTraining | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> Path:
    """Train one proxy, or one member of an ensemble, from nothing.

    Args:
        folder: Where the checkpoint goes; its base model lies beside it.
        groups: All labelled pairs there are; the first ``size.num_pairs`` are used.
        held_out: Labelled pairs that no proxy is trained on; they give the reference statistics, that is the scale.
        size: How large.
        seed: Seed of the weights and of the order of the data.
        training: How.
        report: Called with one line for each stage.

    Returns:
        The checkpoint's folder.
    """
    training = training or ProxyTraining()
    own = list(groups[: size.num_pairs])
    base = folder.parent / f"{folder.name}-base"
    shape = DemoSize(
        vocabulary=training.vocabulary,
        hidden_size=size.hidden_size,
        num_heads=max(2, size.hidden_size // 16),
        num_layers=size.num_layers,
    )
    build_base_model(base, own, shape, seed)
    train_reward_model(
        model=base,
        train_groups=own,
        eval_groups=held_out,
        output_dir=folder,
        dtype="float32",
        overrides={
            "seed": seed,
            "learning_rate": training.learning_rate,
            "per_device_train_batch_size": training.batch_size,
            "gradient_accumulation_steps": 1,
            "max_steps": training.num_steps,
            "adam_beta2": 0.95,
            "max_length": 256,
            "eval_strategy": "no",
            "save_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
        },
        report=report,
    )
    return folder

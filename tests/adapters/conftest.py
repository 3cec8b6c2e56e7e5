"""Fixtures of the adapters: the small trained reward model, opened once, and texts for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rewardlab.modeling.head import head_name
from rewardlab.scoring.scorer import Scorer

PROMPT, OTHER = "Write about the sea.", "Write about Paris and the wind."
ANSWERS = ("the sea is long and the wind is short", "a poem", "but the sea and the sea of a poem about Paris")


@pytest.fixture(scope="session")
def scorer(reward_model: Path) -> Scorer:
    """The session's reward model; sequences are at most 128 tokens."""
    return Scorer.from_pretrained(reward_model)


@pytest.fixture(scope="session")
def other_scorer(reward_model: Path) -> Scorer:
    """The same model with another head, as a second member of an ensemble."""
    import torch

    other = Scorer.from_pretrained(reward_model)
    head = other.loaded.model.get_submodule(head_name(other.loaded.model))
    with torch.no_grad():
        head.weight.add_(0.3 * torch.randn(head.weight.shape, generator=torch.Generator().manual_seed(1)))
    other.loaded = replace(other.loaded, fingerprint="another")
    return other


@pytest.fixture
def six() -> tuple[list[str], list[str]]:
    """Two prompts with three completions each, not one after the other."""
    return [PROMPT, OTHER] * 3, [ANSWERS[0], ANSWERS[1], ANSWERS[2], ANSWERS[0], ANSWERS[1], ANSWERS[2]]


@pytest.fixture
def too_long() -> str:
    """A completion that does not fit 128 tokens."""
    return "the sea and the wind of Paris " * 60


@pytest.fixture
def make_trainer(base_model: Path, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Makes TRL trainers of a small random policy: 2 optimiser steps of 2 prompts with 4 completions each."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

    def make(functions: Any, *, rloo: bool = False, conversational: bool = False, **options: Any) -> Any:
        kind, config = (RLOOTrainer, RLOOConfig) if rloo else (GRPOTrainer, GRPOConfig)
        tokenizer = AutoTokenizer.from_pretrained(base_model)
        tokenizer.pad_token = "<pad>"
        prompts = [PROMPT, OTHER, "Write a poem.", "Write about a short poem."]
        if conversational:
            prompts = [[{"role": "user", "content": prompt}] for prompt in prompts]
        settings = {
            "output_dir": str(tmp_path),
            "per_device_train_batch_size": 8,
            "per_device_eval_batch_size": 8,
            "num_generations": 4,
            "max_completion_length": 12,
            "max_steps": 2,
            "learning_rate": 1e-3,
            "beta": 0.0,
            "logging_steps": 1,
            "report_to": "none",
            "save_strategy": "no",
            "bf16": False,
            "activation_checkpointing": False,
            "disable_tqdm": True,
            "use_cpu": True,
            "seed": 0,
        }
        return kind(
            model=AutoModelForCausalLM.from_pretrained(base_model, dtype=torch.float32),
            reward_funcs=functions,
            args=config(**{**settings, **options}),
            train_dataset=Dataset.from_dict({"prompt": prompts}),
            processing_class=tokenizer,
        )

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield make
    torch.set_num_threads(threads)

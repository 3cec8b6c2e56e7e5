"""What cannot be connected is refused before a model is loaded; a process alone is left alone."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from rewardlab.errors import ConfigError, MissingDependencyError
from rewardlab.modeling.preparing import prepare_for_training
from rewardlab.training.processes import connect


def test_a_process_alone_connects_with_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert connect() == {}


def _started(monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", engine: "true"}.items():
        monkeypatch.setenv(name, value)


def test_fsdp_needs_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    _started(monkeypatch, "ACCELERATE_USE_FSDP")
    with pytest.raises(ConfigError, match="needs a GPU for each process"):
        connect(use_cpu=True)


def test_zero_needs_deepspeed(monkeypatch: pytest.MonkeyPatch) -> None:
    _started(monkeypatch, "ACCELERATE_USE_DEEPSPEED")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="needs DeepSpeed"):
        connect()


def test_the_head_starts_the_same_whatever_the_processes_have_drawn(base_model: Path) -> None:
    heads = []
    for rank in range(2):
        torch.manual_seed(100 + rank)
        heads.append(prepare_for_training(base_model, seed=1).model.get_submodule("score").weight)
    assert torch.equal(*heads)

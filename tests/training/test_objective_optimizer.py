"""An objective's own optimiser takes torch's steps at the schedule's rate, and goes on where it was saved."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import TrainingArguments

from rewardlab.errors import ConfigError
from rewardlab.training.objective_optimizer import ObjectiveOptimizer


class _One(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tie = nn.Parameter(torch.tensor(0.5))


def _step(optimizer: ObjectiveOptimizer, objective: _One, arguments: TrainingArguments, number: int) -> None:
    objective.tie.grad = torch.tensor(float(number + 1))
    schedule: Any = SimpleNamespace(get_last_lr=lambda: [arguments.learning_rate * (4 - number) / 4])
    optimizer.on_pre_optimizer_step(arguments, None, None, lr_scheduler=schedule)  # type: ignore[arg-type]


def test_its_steps_are_adams_at_the_schedules_share_of_its_peak(tmp_path: Path) -> None:
    arguments = TrainingArguments(str(tmp_path), learning_rate=1e-5)
    objective, oracle = _One(), _One()
    optimizer = ObjectiveOptimizer(objective, 1e-2, arguments)
    adam = torch.optim.AdamW([oracle.tie], lr=1e-2, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: (4 - step) / 4)
    for number in range(4):
        _step(optimizer, objective, arguments, number)
        oracle.tie.grad = torch.tensor(float(number + 1))
        adam.step()
        schedule.step()
        assert objective.tie.item() == pytest.approx(oracle.tie.item(), rel=1e-6)


def test_resumed_it_ends_where_it_would_have(tmp_path: Path) -> None:
    arguments = TrainingArguments(str(tmp_path), learning_rate=1e-5)
    through, first, second = _One(), _One(), _One()
    whole, before = (ObjectiveOptimizer(objective, 1e-2, arguments) for objective in (through, first))
    for number in range(4):
        _step(whole, through, arguments, number)
    for number in range(2):
        _step(before, first, arguments, number)
    before.save(tmp_path)
    after = ObjectiveOptimizer(second, 1e-2, arguments)
    after.load(tmp_path)
    for number in range(2, 4):
        _step(after, second, arguments, number)
    assert second.tie.item() == through.tie.item()


def test_float16_is_refused(tmp_path: Path) -> None:
    arguments: Any = SimpleNamespace(fp16=True)
    with pytest.raises(ConfigError, match="float16"):
        ObjectiveOptimizer(_One(), 1e-2, arguments)

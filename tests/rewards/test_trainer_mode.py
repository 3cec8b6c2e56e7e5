"""rewards/trainer_mode.py."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rewardlab.rewards.trainer_mode import is_evaluating


class Trainer:
    """A trainer as far as reward functions see one: its method ``log_metric``, and its model."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def log_metric(self, name: str, value: float) -> None:
        """Nothing."""


def test_evaluation_is_the_mode_of_the_trainers_model() -> None:
    trainer = Trainer(torch.nn.Linear(1, 1))
    assert not is_evaluating(trainer.log_metric)
    trainer.model.eval()
    assert is_evaluating(trainer.log_metric)


@pytest.mark.parametrize(
    "log_metric",
    [None, print, lambda name, value: None, Trainer(None).log_metric, Trainer(SimpleNamespace()).log_metric],
    ids=["none", "builtin", "function", "no model", "model without a mode"],
)
def test_whatever_is_no_evaluating_trainer_is_training(log_metric: Any) -> None:
    assert not is_evaluating(log_metric)

"""The arguments: reward-model defaults, and our own fields checked by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rewardlab.errors import ConfigError
from rewardlab.training.arguments import RewardArguments


def test_defaults_are_those_of_a_reward_model(tmp_path: Path) -> None:
    arguments = RewardArguments(output_dir=str(tmp_path))
    assert arguments.num_train_epochs == 1
    assert arguments.center_rewards_coefficient == 0.01
    assert arguments.disable_dropout
    assert arguments.report_to == []  # trackers only where asked for
    assert not arguments.remove_unused_columns
    assert arguments.dataloader_pin_memory == torch.cuda.is_available()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("objective", "bradly_terry", "unknown objective 'bradly_terry'"),
        ("engine", "warp", "unknown engine 'warp'"),
        ("center_rewards_coefficient", -1.0, "must be >= 0, got -1.0"),
        ("max_length", 0, "max_length must be at least 1"),
    ],
)
def test_bad_arguments_are_named(tmp_path: Path, field: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RewardArguments(output_dir=str(tmp_path), **{field: value})

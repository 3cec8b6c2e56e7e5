"""The arguments: reward-model defaults, and our own fields checked by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rewardlab.errors import ConfigError
from rewardlab.training.arguments import RewardArguments, read_out_of, require_objective
from rewardlab.types import ReadOut


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
        ("accelerator_config", {"split_batches": True}, "accelerator_config: split_batches is True, but accelerate"),
        ("accelerator_config", {"dispatch_batches": True}, "dispatch_batches is True"),
        ("accelerator_config", {"use_seedable_sampler": False}, "use_seedable_sampler is False"),
    ],
)
def test_bad_arguments_are_named(tmp_path: Path, field: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RewardArguments(output_dir=str(tmp_path), **{field: value})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"objective": "davidson", "label_smoothing": 0.1}, "label_smoothing means nothing to davidson"),
        ({"objective": "plackett_luce", "margin_from": "difference"}, "margin_from means nothing to plackett_luce"),
        ({"aggregation": "min"}, "aggregation means nothing to bradley_terry"),
        ({"objective": "regression", "attribute_weights": {}}, "names no attribute"),
        ({"label_smoothing": 0.5}, "label_smoothing"),
        ({"margin_from": "llama"}, "unknown margin_from 'llama'"),
        ({"objective": "process", "step_classes": 4}, "step_classes is 4"),
        ({"objective": "process", "step_separator": " "}, "step_separator is ' '"),
        ({"objective": "process", "step_separator": None}, "step_separator is None"),
        ({"objective": "process", "step_classes": 2, "neutral_is_correct": True}, "no neutral one"),
        ({"objective": "outcome", "aggregation": "median"}, "unknown aggregation 'median'"),
        ({"objective": "bradley"}, "unknown objective 'bradley'"),
    ],
)
def test_what_an_objective_cannot_be_made_of_is_refused_with_or_without_a_run(
    values: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        require_objective(values)
    with pytest.raises(ConfigError, match=said):
        RewardArguments("unused", **values)


def test_read_outs_are_those_of_the_objective() -> None:
    assert read_out_of({}) == ReadOut()
    assert read_out_of({"objective": "outcome"}) == ReadOut("token", "mean")
    assert read_out_of({"objective": "process", "step_split": ""}) == ReadOut("step", "min", 3, "<|step|>")
    named = RewardArguments("unused", objective="process", step_classes=2, step_separator="ки", aggregation="product")
    assert named.read_out == ReadOut("step", "product", 2, "ки", "\n")


@pytest.mark.parametrize(("share", "steps", "expected"), [(0.03, 1, 0), (0.03, 100, 3), (0.1, 19, 1), (5, 100, 5)])
def test_a_short_run_is_not_all_warm_up(share: float, steps: int, expected: int) -> None:
    """The first step of a warm-up has the rate 0: transformers rounds up, and a run of one step would learn nothing."""
    assert RewardArguments("unused", warmup_steps=share).get_warmup_steps(steps) == expected

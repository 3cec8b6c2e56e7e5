"""SIGTERM and Ctrl-C: the step is finished and saved, and the run ends as if it had never been stopped."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from tests.training.test_saving import EPOCH, LAST, learned, losses, require_same, trainer_of
from transformers import TrainerCallback

from rewardlab.training.checkpoints import checkpoints_in, damage_of
from rewardlab.training.stopping import StopWhenAsked
from rewardlab.types import PromptGroup


class SendAt(TrainerCallback):
    """Sends signals to this process in the middle of a step."""

    def __init__(self, step: int, *numbers: int) -> None:
        self._step, self._numbers = step, numbers

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self._step - 1:
            for number in self._numbers:
                os.kill(os.getpid(), number)


@pytest.fixture
def heard() -> Iterator[list[int]]:
    """What handlers that were there before hear; put back at the end."""
    found: list[int] = []

    def hear(number: int, frame: FrameType | None) -> None:
        found.append(number)

    before = {number: signal.signal(number, hear) for number in (signal.SIGTERM, signal.SIGINT)}
    yield found
    for number, handler in before.items():
        signal.signal(number, handler)


# Saved at steps, a stop in the middle and at an epoch's end; saved and evaluated at epochs' ends, the same.
@pytest.mark.parametrize(
    ("options", "step", "number"),
    [
        ({"save_steps": 100}, 2, signal.SIGTERM),
        pytest.param({"save_steps": 100}, EPOCH, signal.SIGINT, marks=pytest.mark.slow),
        pytest.param({"save_strategy": "no"}, LAST - 1, signal.SIGTERM, marks=pytest.mark.slow),
        ({"save_strategy": "epoch", "eval_strategy": "epoch"}, EPOCH - 1, signal.SIGTERM),
        pytest.param(
            {"save_strategy": "epoch", "eval_strategy": "epoch"}, EPOCH, signal.SIGTERM, marks=pytest.mark.slow
        ),
    ],
)
def test_the_step_is_finished_and_saved_and_the_run_goes_on_to_the_same_bits(
    base_model: Path,
    tmp_path: Path,
    pairs: list[PromptGroup],
    heard: list[int],
    options: dict[str, Any],
    step: int,
    number: int,
) -> None:
    options = {**options, "disable_dropout": False, "eval_groups": pairs[20:24]}
    whole = trainer_of(base_model, tmp_path / "whole", pairs, **options)
    whole.train()
    stopped, stop = trainer_of(base_model, tmp_path / "stopped", pairs, **options), StopWhenAsked()
    stopped.add_callback(SendAt(step, number))
    stopped.add_callback(stop)
    with stop:
        stopped.train()
    assert heard == []
    assert (stop.stopped_at, stopped.state.global_step) == (step, step)
    (checkpoint,) = checkpoints_in(tmp_path / "stopped")[:1]
    assert checkpoint.name == f"checkpoint-{step}"
    assert damage_of(checkpoint) is None
    resumed = trainer_of(base_model, tmp_path / "stopped", pairs, **options)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    require_same(learned(resumed), learned(whole))
    assert losses(resumed) == losses(whole)
    evaluations = [
        [(entry["step"], entry["eval_loss"]) for entry in trainer.state.log_history if "eval_loss" in entry]
        for trainer in (whole, resumed)
    ]
    assert evaluations[0] == evaluations[1]


def test_both_signals_of_one_ctrl_c_stop_once_and_a_second_ctrl_c_ends_at_once(
    base_model: Path, tmp_path: Path, pairs: list[PromptGroup], heard: list[int]
) -> None:
    """A launcher passes on what the terminal has sent to all."""
    trainer, stop = trainer_of(base_model, tmp_path, pairs, max_steps=3), StopWhenAsked()
    trainer.add_callback(SendAt(1, signal.SIGINT, signal.SIGTERM, signal.SIGTERM))
    trainer.add_callback(stop)
    with stop:
        trainer.train()
    assert (stop.stopped_at, heard) == (1, [])

    signal.signal(signal.SIGINT, signal.default_int_handler)
    trainer, stop = trainer_of(base_model, tmp_path, pairs, max_steps=3), StopWhenAsked()
    trainer.add_callback(SendAt(1, signal.SIGINT, signal.SIGINT))
    trainer.add_callback(stop)
    with pytest.raises(KeyboardInterrupt), stop:
        trainer.train()


def test_before_and_after_training_a_signal_does_what_it_did(heard: list[int]) -> None:
    stop = StopWhenAsked()
    with stop:
        os.kill(os.getpid(), signal.SIGTERM)
    assert heard == [signal.SIGTERM]
    with StopWhenAsked():
        pass
    os.kill(os.getpid(), signal.SIGINT)
    assert heard == [signal.SIGTERM, signal.SIGINT]


def test_a_signal_too_late_for_any_step_is_sent_again(heard: list[int]) -> None:
    """As when it comes while the last checkpoint is saved: the run must not go on as if nobody had asked."""
    stop: Any = StopWhenAsked()
    with stop:
        stop.on_train_begin(None, None, None)
        os.kill(os.getpid(), signal.SIGTERM)
        assert heard == []
        stop.on_train_end(None, None, None)
    assert heard == [signal.SIGTERM]

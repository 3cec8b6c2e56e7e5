"""Stopping a run from outside without losing a step: finish the optimiser step, save, end.

SIGTERM, which schedulers send before they kill, and the first Ctrl-C ask for it; a second Ctrl-C ends at once. Several
processes agree on the step, whichever of them was asked. Where nothing is being trained yet, or any more, a signal does
what it did before: it ends the command at once.

This file knows signals and transformers' callbacks; saving is the trainer's.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

import torch
import torch.distributed as dist
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rewardlab.modeling.ranks import Ranks

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopWhenAsked(TrainerCallback):
    """Stops training at the next optimiser step after a signal, with a checkpoint of that step.

    Used as a context around ``trainer.train()``, and added to the trainer's callbacks. Signals are heard in the main
    thread alone, as Python has it; in others this does nothing.

    Attributes:
        stopped_at: The step at which training was stopped; None where it was not.

    Example:
        >>> stop = StopWhenAsked()  # doctest: +SKIP
        >>> trainer.add_callback(stop)  # doctest: +SKIP
        >>> with stop:
        ...     trainer.train()  # doctest: +SKIP
    """

    def __init__(self) -> None:
        self.stopped_at: int | None = None
        self._asked: int | None = None  # the first signal
        self._interrupts = 0
        self._trains = False
        self._before: dict[int, Any] = {}
        self._ranks = Ranks()

    def __enter__(self) -> StopWhenAsked:
        """Listen."""
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._hear) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Listen no more; a signal that came after the last step, too late to be obeyed, is sent again."""
        self._restore()
        if kind is None and self._asked is not None and self.stopped_at is None:
            os.kill(os.getpid(), self._asked)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """From here on there is a step to finish."""
        self._trains, self._ranks = True, Ranks.of_this_run()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Stop here if any process was asked to."""
        if not self._any(self._asked is not None):
            return
        self.stopped_at = state.global_step
        control.should_training_stop = True
        # At an epoch's end transformers still evaluates and saves, and what it finds belongs into the checkpoint.
        control.should_save = not _epoch_is_over(state)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Nothing is due after a stop in an epoch's middle, from where transformers comes here, too."""
        if self.stopped_at is None:
            return
        control.should_save = _epoch_is_over(state)
        if not control.should_save:
            control.should_log = control.should_evaluate = False

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """There is no step to finish any more."""
        self._trains = False

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self._interrupts += number == signal.SIGINT
        # A launcher passes on what a terminal has sent to all already: one Ctrl-C may come as both signals.
        if self._trains and self._interrupts < 2:
            self._asked = self._asked or number
            return
        self._restore()
        os.kill(os.getpid(), number)

    def _restore(self) -> None:
        for number, before in self._before.items():
            signal.signal(number, signal.SIG_DFL if before is None else before)  # None: not Python's own
        self._before = {}

    def _any(self, mine: bool) -> bool:
        """Whether it is so in any process; they all ask at the same step."""
        if self._ranks.count == 1:
            return mine
        flag = torch.tensor(int(mine))
        dist.all_reduce(flag, op=dist.ReduceOp.MAX, group=self._ranks.group)
        return bool(flag)


def _epoch_is_over(state: TrainerState) -> bool:
    return state.epoch is not None and float(state.epoch).is_integer()

"""What a person sees while a model trains: one live line on stderr, or plain lines where stderr is not a terminal."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

_SHOWN = ("loss", "accuracy", "margin", "eval_loss", "eval_accuracy")


class ProgressLine(TrainerCallback):
    """A progress bar with the last loss, accuracy and margin, training's and evaluation's."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._task: TaskID = TaskID(0)
        self._last: dict[str, float] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the bar."""
        if not state.is_world_process_zero or not sys.stderr.isatty():
            return
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._task = self._bar.add_task("training", total=state.max_steps, completed=state.global_step, figures="")
        self._bar.start()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(self._task, completed=state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Show the newest figures."""
        if not state.is_world_process_zero or not logs:
            return
        shown = {name: logs[name] for name in _SHOWN if name in logs}
        self._last.update(shown)
        if self._bar is not None:
            figures = "  ".join(f"{name} {value:.3f}" for name, value in self._last.items())
            self._bar.update(self._task, figures=figures)
        elif shown:
            figures = "  ".join(f"{name} {value:.4f}" for name, value in shown.items())
            print(f"step {state.global_step}/{state.max_steps}  {figures}", file=sys.stderr, flush=True)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

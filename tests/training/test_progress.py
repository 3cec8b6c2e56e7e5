"""What is shown while training: plain lines on stderr where it is not a terminal, nothing on stdout."""

from __future__ import annotations

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from rewardlab.training.progress import ProgressLine


class Terminal:
    """A stderr that says it is a terminal, and keeps what is written."""

    def __init__(self) -> None:
        self.text = ""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass


def play(line: ProgressLine, arguments: TrainingArguments) -> None:
    state, control = TrainerState(max_steps=10, is_world_process_zero=True), TrainerControl()
    line.on_train_begin(arguments, state, control)
    state.global_step = 4
    line.on_step_end(arguments, state, control)
    line.on_log(arguments, state, control, logs={"loss": 0.5, "accuracy": 0.75, "learning_rate": 1e-5})
    line.on_log(arguments, state, control, logs={"epoch": 1.0})
    line.on_train_end(arguments, state, control)


def test_plain_lines_without_a_terminal(tmp_path: object, capsys: pytest.CaptureFixture[str]) -> None:
    play(ProgressLine(), TrainingArguments(output_dir=str(tmp_path), use_cpu=True))
    captured = capsys.readouterr()
    assert captured.err == "step 4/10  loss 0.5000  accuracy 0.7500\n"
    assert captured.out == ""


def test_a_bar_on_a_terminal(
    tmp_path: object, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    play(ProgressLine(), TrainingArguments(output_dir=str(tmp_path), use_cpu=True))
    assert "4/10" in terminal.text
    assert "accuracy 0.750" in terminal.text
    assert capsys.readouterr().out == ""

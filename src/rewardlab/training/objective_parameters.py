"""What an objective learns beside the model: trained with it, saved in its checkpoints, resumed from them.

Most objectives have no parameters; Davidson's has one. They are no part of the model, whose checkpoint stays a plain
transformers folder, so DDP does not know them: their gradients are averaged over the ranks here.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import TrainerCallback

FILE_NAME = "objective.safetensors"


def add_to_optimizer(objective: nn.Module, optimizer: Optimizer, learning_rate: float) -> None:
    """Train an objective's parameters with the model's optimiser, without weight decay; doing so twice adds nothing."""
    known = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    new = [parameter for parameter in objective.parameters() if id(parameter) not in known]
    if new:
        optimizer.add_param_group({"params": new, "lr": learning_rate, "weight_decay": 0.0})


def save(objective: nn.Module, folder: str | Path) -> None:
    """Write an objective's parameters into a checkpoint; nothing where it has none."""
    if any(True for _ in objective.parameters()):
        save_file({name: value.detach().cpu() for name, value in objective.state_dict().items()}, _file(folder))


def load(objective: nn.Module, folder: str | Path) -> None:
    """Read them back.

    Raises:
        FileNotFoundError: The objective has parameters, and the checkpoint none of them.
    """
    if any(True for _ in objective.parameters()):
        objective.load_state_dict(load_file(_file(folder)))


def learned_values(objective: nn.Module) -> dict[str, float]:
    """Parameters and fitted constants by name, for the contract; all are scalars."""
    return {name: float(value) for name, value in objective.state_dict().items()}


class ClearGradients(TrainerCallback):
    """Clears an objective's gradients when transformers' loop clears the model's, to which they do not belong.

    That is also after a step which the scaler of float16 has skipped: an overflow that stayed would be in all others.
    """

    def __init__(self, objective: nn.Module) -> None:
        self._objective = objective

    def on_optimizer_step(self, *_: Any, **__: Any) -> None:
        """After the step, taken or skipped."""
        self._objective.zero_grad()


class RankAverage:
    """Averages over the ranks the gradient that one micro-batch adds to parameters that DDP does not exchange.

    Args:
        parameters: The objective's, and the head's where it is called past the model's wrapper.
        accelerator: Of the run.

    Example:
        ``with RankAverage(objective.parameters(), accelerator): loss.backward()``, on every rank.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], accelerator: Accelerator) -> None:
        self._parameters = list(parameters) if accelerator.num_processes > 1 else []
        self._accelerator: Any = accelerator
        self._before: list[Tensor | None] = []

    def __enter__(self) -> None:
        """Put aside what earlier micro-batches have added: it is averaged already."""
        self._before = [parameter.grad for parameter in self._parameters]
        for parameter in self._parameters:
            parameter.grad = None

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Average what this one has added."""
        if kind is not None:
            return
        for parameter, before in zip(self._parameters, self._before, strict=True):
            own = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            mean = self._accelerator.reduce(own, reduction="mean")
            parameter.grad = mean if before is None else before + mean


def _file(folder: str | Path) -> Path:
    return Path(folder) / FILE_NAME

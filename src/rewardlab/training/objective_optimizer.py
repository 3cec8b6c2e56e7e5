"""The optimiser of what an objective learns itself, where the model's optimiser takes the model's shards alone.

DeepSpeed and FSDP divide what their optimiser holds; an objective's few scalars are no part of the model and stay whole
in every process. So they have an AdamW of their own, which steps when the model's does, at the same point of the
schedule; their gradients have been averaged over the processes before, so it stays the same everywhere.

This file knows an objective and transformers' callbacks; it does not know which engine divides the model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rewardlab.errors import ConfigError

FILE_NAME = "objective_optimizer.pt"


class ObjectiveOptimizer(TrainerCallback):
    """Trains an objective's own parameters beside a model in shards.

    Args:
        objective: With at least one parameter.
        learning_rate: Their peak learning rate.
        arguments: Of the run: betas, epsilon, and the model's peak learning rate.

    Raises:
        ConfigError: The run is in float16, whose loss scale DeepSpeed keeps to itself.
    """

    def __init__(self, objective: nn.Module, learning_rate: float, arguments: TrainingArguments) -> None:
        if arguments.fp16:
            raise ConfigError(
                "an objective that learns a parameter cannot be trained in float16 with the model in shards",
                hint="use bfloat16 or float32: --dtype",
            )
        self._objective = objective
        self._peak = learning_rate
        self._optimizer = torch.optim.AdamW(
            objective.parameters(),
            lr=learning_rate,
            betas=(arguments.adam_beta1, arguments.adam_beta2),
            eps=arguments.adam_epsilon,
            weight_decay=0.0,
        )

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take the step that the model's optimiser takes, at the same share of the peak rate."""
        share = kwargs["lr_scheduler"].get_last_lr()[0] / args.learning_rate if args.learning_rate else 0.0
        for group in self._optimizer.param_groups:
            group["lr"] = self._peak * share
        self._optimizer.step()

    def save(self, folder: str | Path) -> None:
        """Write the parameters and the optimiser's state into a checkpoint."""
        state = {"objective": self._objective.state_dict(), "optimizer": self._optimizer.state_dict()}
        torch.save(state, Path(folder) / FILE_NAME)

    def load(self, folder: str | Path) -> None:
        """Read them back.

        Raises:
            FileNotFoundError: The checkpoint has none.
        """
        state = torch.load(Path(folder) / FILE_NAME, weights_only=True)
        self._objective.load_state_dict(state["objective"])
        self._optimizer.load_state_dict(state["optimizer"])

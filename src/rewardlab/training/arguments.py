"""The arguments of a training run: transformers' own, with reward-model defaults, and the few that are ours."""

from __future__ import annotations

from dataclasses import dataclass, field

from transformers import TrainingArguments

from rewardlab.errors import ConfigError
from rewardlab.modeling.parity import ENGINES
from rewardlab.objectives import OBJECTIVES


@dataclass
class RewardArguments(TrainingArguments):
    """Arguments of :class:`~rewardlab.training.trainer.RewardTrainer`.

    Everything of transformers' ``TrainingArguments`` is accepted; only defaults that a reward model needs differ.

    Attributes:
        objective: Name in :data:`rewardlab.objectives.OBJECTIVES`.
        center_rewards_coefficient: Weight of the centering penalty, 0 to switch it off.
        max_length: Longest sequence in tokens; longer ones lose the oldest part of their prompt.
        disable_dropout: Train without dropout.
        engine: How sequences are laid out for the forward: ``"tree"`` (each prompt computed once), ``"packed"`` (no
            padding), ``"padded"``, or ``"auto"`` for the best that the model can have
            (:mod:`rewardlab.modeling.parity`).
        tokens_per_batch: Most tokens in one forward; by default what suits the device. It only splits forwards: loss
            and gradient do not depend on it.
        max_group_size: Rows of one prompt are merged into groups of at most so many completions; 1 merges none.
    """

    objective: str = "bradley_terry"
    center_rewards_coefficient: float = 0.01
    max_length: int = 2048
    disable_dropout: bool = True
    engine: str = "auto"
    tokens_per_batch: int | None = None
    max_group_size: int = 16

    num_train_epochs: float = 1.0
    learning_rate: float = 1e-5
    per_device_train_batch_size: int = 8
    lr_scheduler_type: str = "linear"
    logging_steps: float = field(default=0.02, metadata={"help": "Steps between logs; below 1, a share of the run."})
    eval_steps: float | None = 0.25
    save_steps: float = 0.25
    save_total_limit: int | None = 2
    remove_unused_columns: bool = False

    def __post_init__(self) -> None:
        """Check our own fields, then let transformers check its own.

        Raises:
            ConfigError: Naming the field, what came and what is expected.
        """
        if self.objective not in OBJECTIVES:
            raise ConfigError(f"unknown objective {self.objective!r}", hint=f"one of {', '.join(sorted(OBJECTIVES))}")
        if self.engine not in ENGINES:
            raise ConfigError(f"unknown engine {self.engine!r}", hint=f"one of {', '.join(ENGINES)}")
        if not self.center_rewards_coefficient >= 0:
            raise ConfigError(f"center_rewards_coefficient must be >= 0, got {self.center_rewards_coefficient}")
        for name in ("max_length", "tokens_per_batch", "max_group_size"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        super().__post_init__()
        if self.device.type != "cuda":
            self.dataloader_pin_memory = False  # pinning serves copies to a GPU; without one torch only warns

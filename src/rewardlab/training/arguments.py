"""The arguments of a training run: transformers' own, with reward-model defaults, and the few that are ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from transformers import TrainingArguments

from rewardlab.errors import ConfigError
from rewardlab.modeling.aggregation import AGGREGATIONS
from rewardlab.modeling.parity import ENGINES
from rewardlab.objectives import MARGINS, OBJECTIVES, build_objective
from rewardlab.types import ReadOut


@dataclass
class RewardArguments(TrainingArguments):
    """Arguments of :class:`~rewardlab.training.trainer.RewardTrainer`.

    Everything of transformers' ``TrainingArguments`` is accepted; only defaults that a reward model needs differ.

    Attributes:
        objective: Name in :data:`rewardlab.objectives.OBJECTIVES`.
        center_rewards_coefficient: Weight of the centering penalty, 0 to switch it off.
        label_smoothing: Share of the preferences taken to be mislabelled, in [0, 0.5).
        margin_from: Where a pair's margin comes from, a name of :data:`rewardlab.objectives.MARGINS`: ``"column"``, or
            made from its strength (docs/objectives.md).
        margin_scale: What such a margin is multiplied with; the margin itself where it is ``"constant"``.
        ranking_ties: How Plackett-Luce takes ties: ``"efron"`` or ``"breslow"``.
        attribute_weights: What a completion's rating is where rows rate attributes: their weighted sum.
        objective_learning_rate: Peak learning rate of the objective's own parameters (Davidson's tie parameter).
        step_classes: Classes of a process model: 3 (incorrect, neutral, correct) or 2, where neutral counts as correct.
        step_separator: The token that ends every step; it becomes a special token of the tokenizer.
        step_split: Where completions that come as one text are split into steps, when they are scored.
        neutral_is_correct: A step's score is P(correct) + P(neutral).
        aggregation: How the probabilities of a completion's tokens or steps become its score: ``"mean"`` (default of
            outcome models), ``"min"`` (of process models), ``"product"`` or ``"last"``.
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
    label_smoothing: float = 0.0
    margin_from: str = "column"
    margin_scale: float = 1.0
    ranking_ties: str = "efron"
    attribute_weights: dict[str, float] | None = None
    objective_learning_rate: float = 1e-2
    step_classes: int = 3
    step_separator: str = "<|step|>"
    step_split: str = "\n"
    neutral_is_correct: bool = False
    aggregation: str | None = None
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
        if self.margin_from not in MARGINS:
            raise ConfigError(f"unknown margin_from {self.margin_from!r}", hint=f"one of {', '.join(MARGINS)}")
        if self.aggregation is not None and self.aggregation not in AGGREGATIONS:
            raise ConfigError(f"unknown aggregation {self.aggregation!r}", hint=f"one of {', '.join(AGGREGATIONS)}")
        if self.engine not in ENGINES:
            raise ConfigError(f"unknown engine {self.engine!r}", hint=f"one of {', '.join(ENGINES)}")
        try:
            _ = self.read_out
            build_objective(self.objective, self.objective_values())
        except ValueError as error:
            raise ConfigError(str(error)) from error
        for name in ("max_length", "tokens_per_batch", "max_group_size"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        super().__post_init__()
        if self.device.type != "cuda":
            self.dataloader_pin_memory = False  # pinning serves copies to a GPU; without one torch only warns

    def objective_values(self) -> dict[str, Any]:
        """All fields by name, of which an objective takes what it knows."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__ if hasattr(self, name)}

    @property
    def read_out(self) -> ReadOut:
        """Where a model of this objective is read, and how that becomes one score."""
        return read_out_of(self.objective_values())


def read_out_of(values: Mapping[str, Any]) -> ReadOut:
    """Where a model of some arguments is read.

    Args:
        values: Fields of :class:`RewardArguments` by name; those that are missing have their defaults.

    Raises:
        ConfigError: The objective is not known.
    """

    def value(name: str) -> Any:
        return values.get(name, getattr(RewardArguments, name))

    if value("objective") not in OBJECTIVES:
        raise ConfigError(f"unknown objective {value('objective')!r}", hint=f"one of {', '.join(sorted(OBJECTIVES))}")
    kind = OBJECTIVES[value("objective")].kind
    if kind == "sequence":
        return ReadOut()
    if kind == "token":
        return ReadOut("token", value("aggregation") or "mean")
    return ReadOut(
        kind="step",
        aggregation=value("aggregation") or "min",
        num_classes=value("step_classes"),
        separator=value("step_separator"),
        split_at=value("step_split") or None,
        neutral_is_correct=value("neutral_is_correct"),
    )

"""The arguments of a training run: transformers' own, with reward-model defaults, and the few that are ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from transformers import TrainingArguments

from rewardlab.errors import ConfigError
from rewardlab.modeling.aggregation import AGGREGATIONS
from rewardlab.modeling.parity import ENGINES
from rewardlab.objectives import MARGINS, OBJECTIVES, build_objective, parameters_of
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
        ensemble_heads: Heads on the one trunk, each with its own start and its own bootstrap of the data; the model's
            score is their mean (docs/ensembles.md). 1 is an ordinary reward model.
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
    ensemble_heads: int = 1
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
        require_objective(self.objective_values())
        if self.engine not in ENGINES:
            raise ConfigError(f"unknown engine {self.engine!r}", hint=f"one of {', '.join(ENGINES)}")
        for name in ("max_length", "tokens_per_batch", "max_group_size"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        super().__post_init__()
        for name, value in _LOADING_ACCELERATE_DOES_NOT_DO.items():
            given = getattr(self.accelerator_config, name)
            if given not in (None, value):
                raise ConfigError(
                    f"accelerator_config: {name} is {given}, but accelerate does not load the batches here: every "
                    "process sees the whole micro-batch, and takes its share by cost",
                    hint=f"leave {name} out; per_device_train_batch_size × processes groups are one micro-batch",
                )
        if self.device.type != "cuda":
            self.dataloader_pin_memory = False  # pinning serves copies to a GPU; without one torch only warns

    def get_warmup_steps(self, num_training_steps: int) -> int:
        """Steps of the warm-up; a share is rounded down, so that a short run is not all warm-up.

        transformers rounds up, and the first step of a warm-up has the rate 0: a run of one step would learn nothing.
        """
        share = float(self.warmup_steps)
        return int(share) if share >= 1 else int(num_training_steps * share)

    def objective_values(self) -> dict[str, Any]:
        """All fields by name, of which an objective takes what it knows."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__ if hasattr(self, name)}

    @property
    def read_out(self) -> ReadOut:
        """Where a model of this objective is read, and how that becomes one score."""
        return read_out_of(self.objective_values())


# What of ``accelerator_config`` would change nothing (training/step_loader.py), and what it is therefore.
_LOADING_ACCELERATE_DOES_NOT_DO = {"split_batches": False, "dispatch_batches": False, "use_seedable_sampler": True}

# What belongs to some objectives alone.
_OF_PAIRS = frozenset({"margin_from", "margin_scale"})
_OF_STEPS = frozenset({"step_classes", "step_separator", "step_split", "neutral_is_correct", "aggregation"})
_OF_FEW = {
    "bradley_terry": _OF_PAIRS,
    "grouped_pairs": _OF_PAIRS,
    "scaled_bradley_terry": _OF_PAIRS,
    "davidson": _OF_PAIRS | {"objective_learning_rate"},
    "plackett_luce": frozenset[str](),
    "regression": frozenset({"attribute_weights"}),
    "outcome": frozenset({"aggregation"}),
    "process": _OF_STEPS,
}


def require_objective(values: Mapping[str, Any]) -> None:
    """Refuse what an objective cannot be made of; before a model is loaded.

    Args:
        values: Fields of :class:`RewardArguments` by name; those that are missing have their defaults.

    Raises:
        ConfigError: An unknown name, a value out of range, or an argument that means nothing to the objective.
    """
    given = {name: value for name, value in values.items() if value != getattr(RewardArguments, name, value)}
    name = values.get("objective", RewardArguments.objective)
    read_out_of(values)
    if given.get("margin_from", "column") not in MARGINS:
        raise ConfigError(f"unknown margin_from {given['margin_from']!r}", hint=f"one of {', '.join(MARGINS)}")
    heads = values.get("ensemble_heads", 1)
    if not isinstance(heads, int) or isinstance(heads, bool) or heads < 1:
        raise ConfigError(f"ensemble_heads is {heads!r}", hint="how many heads, 2 or more; 1 is an ordinary model")
    if heads > 1 and OBJECTIVES[name].kind != "sequence":
        raise ConfigError(
            f"ensemble_heads is {heads}: {name} has no heads that score a whole answer, of which a mean could be taken",
            hint="leave it out, or train several models and score with all: --ensemble mean",
        )
    if given.get("attribute_weights") == {}:
        raise ConfigError("attribute_weights names no attribute", hint="for example {helpfulness: 0.65}")
    own = {parameter for other in OBJECTIVES for parameter in parameters_of(other)} | frozenset().union(
        *_OF_FEW.values()
    )
    stray = sorted(own & given.keys() - set(parameters_of(name)) - _OF_FEW[name])
    if stray:
        users = [other for other in OBJECTIVES if stray[0] in {*parameters_of(other), *_OF_FEW[other]}]
        raise ConfigError(f"{stray[0]} means nothing to {name}", hint=f"it belongs to {', '.join(users)}; leave it out")
    try:
        build_objective(name, values)
    except ValueError as error:
        raise ConfigError(str(error), hint="docs/objectives.md says what each argument may be") from error


def read_out_of(values: Mapping[str, Any]) -> ReadOut:
    """Where a model of some arguments is read.

    Args:
        values: As for :func:`require_objective`.

    Raises:
        ConfigError: The objective is not known, or the read-out cannot be.
    """

    def value(name: str) -> Any:
        return values.get(name, getattr(RewardArguments, name))

    if value("objective") not in OBJECTIVES:
        raise ConfigError(f"unknown objective {value('objective')!r}", hint=f"one of {', '.join(sorted(OBJECTIVES))}")
    if value("aggregation") not in (None, *AGGREGATIONS):
        raise ConfigError(f"unknown aggregation {value('aggregation')!r}", hint=f"one of {', '.join(AGGREGATIONS)}")
    kind = OBJECTIVES[value("objective")].kind
    if kind == "sequence":
        return ReadOut()
    if kind == "token":
        return ReadOut("token", value("aggregation") or "mean")
    if value("step_classes") not in (2, 3):
        raise ConfigError(
            f"step_classes is {value('step_classes')!r}",
            hint="3 (incorrect, neutral, correct) or 2 (incorrect, correct)",
        )
    if not str(value("step_separator") or "").strip():
        raise ConfigError(
            f"step_separator is {value('step_separator')!r}, expected a token", hint="leave it out, or name one"
        )
    if value("neutral_is_correct") and value("step_classes") == 2:
        raise ConfigError("neutral_is_correct: with 2 classes there is no neutral one", hint="leave it out")
    return ReadOut(
        kind="step",
        aggregation=value("aggregation") or "min",
        num_classes=value("step_classes"),
        separator=value("step_separator"),
        split_at=value("step_split") or None,
        neutral_is_correct=value("neutral_is_correct"),
    )

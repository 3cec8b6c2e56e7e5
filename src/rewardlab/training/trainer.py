"""The trainer: transformers' own, given groups, an objective and an exact reduction.

What it changes: a step is shared out between ranks by cost, each share divided into forwards by the engine, each prompt
computed once where the model allows it, and its loss exact (:mod:`rewardlab.training.step_trainer`); logged metrics are
computed over all pairs since the last log, not as means of batch means; evaluation scores each example once; a run
whose scores are all alike says so. Everything else, from optimisers to trackers, is transformers'.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from rewardlab.data.encoding import EncodedGroup, Encoder
from rewardlab.data.template import SealedTemplate, seal_chat_template
from rewardlab.errors import ConfigError, DataError
from rewardlab.modeling.cost import ComputeCost
from rewardlab.modeling.head import use_float32_head
from rewardlab.modeling.loading import position_limit
from rewardlab.modeling.parity import LayoutChoice
from rewardlab.modeling.planner import Planner
from rewardlab.modeling.prefix_tree import TokenCount, count_tokens
from rewardlab.modeling.preparing import (
    inner_model,
    require_distinct_pad,
    require_fitting_head,
    set_dropout_to_zero,
)
from rewardlab.modeling.ranks import Ranks
from rewardlab.objectives import Objective, build_objective, parameters_of
from rewardlab.objectives.bootstrap_heads import BootstrapHeads
from rewardlab.training import objective_parameters
from rewardlab.training.arguments import RewardArguments
from rewardlab.training.batches import (
    EncodedDataset,
    GroupCollator,
    encode_groups,
    repeated_prompts_note,
    sequences_of,
    ties_note,
)
from rewardlab.training.bootstrap import of_heads, resample_groups
from rewardlab.training.finishing import SavedModel, save_trained
from rewardlab.training.head_features import FeatureCollator, HeadFeatures, only_head_is_trained
from rewardlab.training.objective_optimizer import ObjectiveOptimizer
from rewardlab.training.out_of_memory import StepReplay
from rewardlab.training.progress import ProgressLine
from rewardlab.training.rank_engine import RankEngine, chosen_engine, scores_of
from rewardlab.training.run_metrics import collapse_warning
from rewardlab.training.sharding import Sharding
from rewardlab.training.step_trainer import StepTrainer
from rewardlab.training.supervision import fitted_values, supervision_of
from rewardlab.types import PromptGroup

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

_GROUPS_AT_STEP_0 = 16


class RewardTrainer(StepTrainer):
    """Trains a reward model on groups.

    Args:
        model: A model from :func:`rewardlab.modeling.preparing.prepare_for_training`, or any
            ``*ForSequenceClassification`` with one label and a padding id that is not its end token (for outcomes and
            steps: ``*ForTokenClassification``).
        args: The arguments.
        train_dataset: Groups to train on, each with what the objective learns from.
        eval_dataset: Groups to evaluate on; None for none.
        processing_class: The tokenizer; its chat template is sealed if it is not yet.
        template: What sealing found, where it was sealed before (``PreparedModel.template``); for the contract.
        **kwargs: What else transformers' Trainer takes (``callbacks``, ``optimizers``, ...).

    Attributes:
        train_data: The training groups as ids, with what was dropped and quarantined.
        eval_data: The evaluation groups likewise; None for none.
        template: What sealing the chat template found.
        objective: The objective, with what it learns beside the model; what each head learns, where there are several.
        supervision: What it learns from.
        layout: Which layout the engine has chosen, and why; None before anything was scored.
        sharding: How the model lies across the processes.

    Example:
        >>> arguments = RewardArguments("runs/1", objective="plackett_luce")  # doctest: +SKIP
        >>> prepared = prepare_for_training("my-base-model", seed=0, read_out=arguments.read_out)  # doctest: +SKIP
        >>> trainer = RewardTrainer(
        ...     prepared.model, arguments, groups, processing_class=prepared.tokenizer
        ... )  # doctest: +SKIP
        >>> trainer.train()  # doctest: +SKIP
        >>> trainer.save_reward_model("my-rm")  # doctest: +SKIP
    """

    args: RewardArguments
    objective: Objective

    def __init__(
        self,
        model: nn.Module,
        args: RewardArguments,
        train_dataset: Sequence[PromptGroup],
        eval_dataset: Sequence[PromptGroup] | None = None,
        *,
        processing_class: PreTrainedTokenizerBase,
        template: SealedTemplate | None = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(args, RewardArguments):
            raise ConfigError(f"args is a {type(args).__name__}, expected RewardArguments")
        text_config = inner_model(model).config.get_text_config()
        sealed = seal_chat_template(processing_class)
        for change in sealed.changes:
            logger.warning("chat template: %s", change)
        self.template = template or sealed
        require_distinct_pad(text_config.pad_token_id, processing_class)
        require_fitting_head(inner_model(model), args.read_out, args.ensemble_heads)
        limit = position_limit(text_config, processing_class)
        if limit is not None and args.max_length > limit:
            raise ConfigError(
                f"max_length {args.max_length} is beyond the model's {limit} positions", hint=f"at most {limit}"
            )
        if not hasattr(model, "get_base_model"):  # adapters are put on a model that was prepared before
            use_float32_head(model)
        if args.disable_dropout:
            set_dropout_to_zero(model)
        self.encoder = Encoder(processing_class, args.max_length, args.read_out)
        self.supervision = supervision_of(args)
        self.train_data = encode_groups(
            train_dataset, self.encoder, self.supervision, max_group_size=args.max_group_size
        ).required("training")
        self._in_steps = of_heads(self.supervision) if args.ensemble_heads > 1 else self.supervision
        if args.ensemble_heads > 1:
            self.train_data = replace(self.train_data, examples=resample_groups(self.train_data.examples, args))
        self.eval_data = self._encoded_for_evaluation(eval_dataset) if eval_dataset else None
        self._engine: RankEngine | None = None
        self.layout: LayoutChoice | None = None
        self.objective_values = args.objective_values() | fitted_values(args, self.train_data.examples)
        self.objective = build_objective(args.objective, self.objective_values).to(args.device)
        self._loss: Objective | BootstrapHeads = (
            BootstrapHeads(self.objective) if args.ensemble_heads > 1 else self.objective
        )
        self._window = []
        self._ranks = Ranks.of_this_run()
        self._collator = GroupCollator(
            Planner(inner_model(model), "padded", args.tokens_per_batch),
            self._in_steps,
            ComputeCost.of_model(inner_model(model)),
            self._ranks,
        )
        super().__init__(
            model=model,
            args=args,
            data_collator=self._collator,
            train_dataset=self.train_data.examples,
            eval_dataset=self.eval_data.examples if self.eval_data else None,
            processing_class=processing_class,
            **kwargs,
        )
        if args.n_gpu > 1:
            raise ConfigError(
                f"{args.n_gpu} GPUs are visible to one process",
                hint="launch one process per GPU (accelerate launch, torchrun)",
            )
        self.sharding = Sharding(self.accelerator)
        self.sharding.remember_structure(model)
        is_alone = self._ranks.count == 1 and not self.sharding.is_sharded
        self._replay = StepReplay(args.device, str(args.optim), is_alone=is_alone)
        # The loss is already divided by the units of the whole step; transformers must not divide it again.
        self.model_accepts_loss_kwargs = True
        # Both of transformers' callbacks print to stdout, which belongs to data.
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)
        self._objective_optimizer: ObjectiveOptimizer | None = None  # where the model's takes shards alone
        if self.sharding.is_sharded and any(True for _ in self.objective.parameters()):
            self._objective_optimizer = ObjectiveOptimizer(self.objective, args.objective_learning_rate, args)
            self.add_callback(self._objective_optimizer)
        self.add_callback(objective_parameters.ClearGradients(self.objective))
        if not args.disable_tqdm:
            self.add_callback(ProgressLine())
        if args.num_train_epochs > 1:
            logger.warning(
                "%g epochs: reward models overfit after one (InstructGPT, arXiv:2203.02155, C.2; Llama 2, 3.2.2); "
                "watch the held-out loss",
                args.num_train_epochs,
            )

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train; first choose the layout, and look whether the untrained model's scores differ at all.

        What lies in shards can be looked at when it has been divided, which is when training begins.
        """
        if not self.sharding.is_sharded:
            self._look_at_model()
        return super().train(*args, **kwargs)

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:
        prepared = super()._prepare_for_training(*args, **kwargs)
        if self.sharding.is_sharded:
            self._look_at_model()
        return prepared

    def _look_at_model(self) -> None:
        engine = self._engine_of_run()
        self._say_what_is_computed(engine)
        self._collator.planner = engine.planner
        if not self.sharding.is_sharded and only_head_is_trained(engine.model, self.args.read_out, engine.layout):
            self._features = HeadFeatures(engine.model, self._features_of)
            self.train_dataset = self._features.featured(self.train_data.examples)
            self.data_collator = FeatureCollator(self._in_steps, self._ranks)
            if self.eval_data:
                self._features.keep(self.eval_data.examples)
        first = self.train_data.examples[:_GROUPS_AT_STEP_0]
        self._warn_if_collapsed(self._scores(first), first, "before training")

    # -- what the objective learns itself ----------------------------------------------------------------------------

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        """The optimiser transformers makes, with the objective's own parameters in it."""
        optimizer = super().create_optimizer(*args, **kwargs)
        if self.lr_scheduler is not None and any(True for _ in self.objective.parameters()):
            raise ConfigError(
                f"{self.args.objective} learns a parameter that the schedule you passed does not know",
                hint="pass no scheduler: lr_scheduler_type and objective_learning_rate say the same",
            )
        if self._objective_optimizer is None:
            objective_parameters.add_to_optimizer(self.objective, optimizer, self.args.objective_learning_rate)
        return optimizer

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self._objective_optimizer is not None and self.args.should_save:
            self._objective_optimizer.save(output_dir)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if self._objective_optimizer is not None and checkpoint is not None:
            self._objective_optimizer.load(checkpoint)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        with warnings.catch_warnings():  # the embedding has grown by tokens of ours, and peft keeps it: as it should
            warnings.filterwarnings("ignore", "Setting `save_embedding_layers`")
            super()._save(output_dir, state_dict)
        if self.args.should_save:  # all processes have the same
            objective_parameters.save(self.objective, output_dir or str(self.args.output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self._objective_optimizer is None:  # which loads its own, with its state
            objective_parameters.load(self.objective, resume_from_checkpoint)

    def _load_best_model(self) -> None:
        super()._load_best_model()
        objective_parameters.load(self.objective, str(self.state.best_model_checkpoint))

    def objective_record(self) -> dict[str, Any]:
        """The objective's name, its settings and what it has learned, as the contract keeps them."""
        names = (*parameters_of(self.args.objective), *self.supervision.settings)
        settings = {name: self.objective_values[name] for name in names}
        return {"name": self.args.objective, **settings, **objective_parameters.learned_values(self.objective)}

    # -- the engine --------------------------------------------------------------------------------------------------

    def _engine_of_run(self) -> RankEngine:
        """The engine, its layout chosen the first time it is needed, the same on all ranks."""
        if self._engine is None:
            called = None
            if self.sharding.is_sharded:
                called = self.model_wrapped
                if called is self.model and not self.sharding.uses_fsdp:
                    raise ConfigError(
                        "the model is divided between processes when training begins: before, it cannot be scored",
                        hint="call train() first, or score the model on one process",
                    )
            model = inner_model(self.accelerator.unwrap_model(self.model))
            self.layout, self._engine = chosen_engine(model, self.train_data.examples, self.args, self._ranks, called)
            if self.is_world_process_zero():
                self.layout.log(logger)
        return self._engine

    def tokens_to_compute(self) -> TokenCount:
        """Dry run over the training groups in their order: tokens of an epoch, computed and otherwise."""
        examples = self.train_data.examples
        step = self._train_batch_size * self._ranks.count * self.args.gradient_accumulation_steps
        budget = self._engine_of_run().planner.tokens_per_batch
        counts = [
            count_tokens([example.sequences for example in examples[start : start + step]], budget)
            for start in range(0, len(examples), step)
        ]
        return sum(counts[1:], counts[0])

    def _say_what_is_computed(self, engine: RankEngine) -> None:
        if not self.is_world_process_zero():
            return
        if engine.layout == "tree":
            logger.info("engine: an epoch has %s", self.tokens_to_compute())
        for note in (repeated_prompts_note(self.train_data), ties_note(self.train_data)):
            if note and self.args.objective == "bradley_terry":
                logger.warning(note)

    # -- logging and evaluation --------------------------------------------------------------------------------------

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the metrics of all pairs since the last log, under TRL's names."""
        if "loss" in logs:
            logs = {**logs, **self._window_metrics()}
        if "loss" in logs:
            logs["num_tokens"] = self.state.num_input_tokens_seen
        super().log(logs, start_time)

    def evaluate(  # type: ignore[override]  # groups, where transformers has datasets of its own
        self,
        eval_dataset: Sequence[PromptGroup] | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Exact metrics over a whole set, each example scored once.

        Args:
            eval_dataset: Groups; the trainer's own evaluation set by default.
            ignore_keys: Accepted for transformers' interface; there is nothing to ignore.
            metric_key_prefix: Put before each name.

        Returns:
            loss, and what the objective's supervision measures: of pairs accuracy, margin, min_reward, mean_reward,
            max_reward; also logged.
        """
        data = self.eval_data if eval_dataset is None else self._encoded_for_evaluation(eval_dataset)
        if data is None:
            raise DataError("there is no evaluation set", hint="pass eval_dataset")
        scores = self._scores(data.examples)
        self._warn_if_collapsed(scores, data.examples, "at this evaluation")
        targets = self.supervision.targets(data.examples)
        with torch.no_grad():
            whole = self.objective(scores.double().to(self.args.device), targets.to(self.args.device))
        loss = float(whole) / self.objective.num_units(targets)
        metrics = {"loss": loss, **self.supervision.metrics([(scores, targets)])}
        named = {f"{metric_key_prefix}_{name}": value for name, value in metrics.items()}
        self.log(named)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, named)
        return named

    def save_reward_model(self, folder: str | Path, **kwargs: Any) -> SavedModel:
        """Save the trained model as a plain checkpoint with its contract, load it again and verify it.

        transformers' ``save_model`` writes weights without a contract; this is what scoring and serving want.

        Args:
            folder: Where to.
            **kwargs: As :func:`rewardlab.training.finishing.save_trained`.
        """
        return save_trained(self, folder, **kwargs)

    def _encoded_for_evaluation(self, groups: Sequence[PromptGroup]) -> EncodedDataset:
        return encode_groups(groups, self.encoder, self.supervision, keep_identical=True).required("evaluation")

    def _scores(self, examples: Sequence[EncodedGroup]) -> Tensor:
        """What the head gives at all read-outs of some groups, in flat order; the ranks share the forwards.

        Returns:
            Shape (read-outs,), of several heads their mean, or (read-outs, classes); on the CPU.
        """
        known = None if self._features is None else self._features.of_kept(examples)
        if known is None:
            with self.compute_loss_context_manager():
                outputs = self._engine_of_run().rows(*sequences_of(examples), None, scores_of)
        else:
            outputs = known.squeeze(-1)
        return outputs.mean(dim=1) if self.args.ensemble_heads > 1 else outputs

    def _features_of(self, examples: Sequence[EncodedGroup]) -> Tensor:
        with self.compute_loss_context_manager():
            return self._engine_of_run().features(*sequences_of(examples))

    def _warn_if_collapsed(self, scores: Tensor, examples: Sequence[EncodedGroup], when: str) -> None:
        margins = None
        if self.supervision.compares_pairs:
            targets = self.supervision.targets(examples)
            margins = scores[targets.chosen] - scores[targets.rejected]
        warning = collapse_warning(scores, margins)
        if warning and self.is_world_process_zero():
            logger.warning("%s: %s", when, warning)

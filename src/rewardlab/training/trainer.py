"""The trainer: transformers' own, given groups, an objective and an exact reduction.

What it changes: a micro-batch is divided into forwards by the engine, each prompt computed once where the model allows
it; the loss of a step is a sum over pairs divided by the number of pairs of the whole step (all micro-batches, all
ranks); logged metrics are computed over all pairs since the last log, not as means of batch means; evaluation scores
each example once; a run whose scores are all alike says so. Everything else, from optimisers to trackers, is
transformers'.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from accelerate.utils import DistributedType, gather_object
from torch import Tensor, nn
from transformers import Trainer
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.trainer_utils import IntervalStrategy

from rewardlab.data.encoding import EncodedGroup, Encoder
from rewardlab.data.template import SealedTemplate, seal_chat_template
from rewardlab.errors import ConfigError, DataError
from rewardlab.modeling.engine import Engine, Forward, Planner
from rewardlab.modeling.head import use_float32_head
from rewardlab.modeling.loading import position_limit
from rewardlab.modeling.parity import LayoutChoice, choose_layout
from rewardlab.modeling.prefix_tree import TokenCount, count_tokens
from rewardlab.modeling.preparing import (
    inner_model,
    require_distinct_pad,
    require_fitting_head,
    set_dropout_to_zero,
)
from rewardlab.objectives import Objective, build_objective, parameters_of
from rewardlab.objectives.bootstrap_heads import BootstrapHeads
from rewardlab.training import objective_parameters
from rewardlab.training.arguments import RewardArguments
from rewardlab.training.batches import (
    EncodedDataset,
    GroupCollator,
    TargetedPart,
    encode_groups,
    repeated_prompts_note,
    sequences_of,
    targets_in,
    ties_note,
)
from rewardlab.training.bootstrap import of_heads, resample_groups
from rewardlab.training.finishing import SavedModel, save_trained
from rewardlab.training.head_features import HeadFeatures, collate_features, only_head_is_trained
from rewardlab.training.part_step import PartStep, in_order
from rewardlab.training.progress import ProgressLine
from rewardlab.training.run_metrics import collapse_warning
from rewardlab.training.supervision import fitted_values, supervision_of
from rewardlab.types import PromptGroup

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

_GROUPS_AT_STEP_0 = 16


class RewardTrainer(Trainer):
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
        self._engine: Engine | None = None
        self.layout: LayoutChoice | None = None
        self._features: HeadFeatures | None = None  # where the head alone is trained
        self._window: list[tuple[Tensor, Any]] = []
        self.objective_values = args.objective_values() | fitted_values(args, self.train_data.examples)
        self.objective = build_objective(args.objective, self.objective_values).to(args.device)
        self._loss: Objective | BootstrapHeads = (
            BootstrapHeads(self.objective) if args.ensemble_heads > 1 else self.objective
        )
        super().__init__(
            model=model,
            args=args,
            data_collator=GroupCollator(Planner(inner_model(model), "padded", args.tokens_per_batch), self._in_steps),
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
        # The loss is already divided by the units of the whole step; transformers must not divide it again.
        self.model_accepts_loss_kwargs = True
        # Both of transformers' callbacks print to stdout, which belongs to data.
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)
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
        """Train; first choose the layout, and look whether the untrained model's scores differ at all."""
        engine = self._engine_of_run()
        self._say_what_is_computed(engine)
        one_process = self.accelerator.num_processes == 1  # ranks would each need the features of their own share
        if one_process and only_head_is_trained(engine.model, self.args.read_out, engine.layout):
            self._features = HeadFeatures(engine, self.compute_loss_context_manager)
            self.train_dataset = self._features.featured(self.train_data.examples)
            self.data_collator = partial(collate_features, supervision=self._in_steps)
            if self.eval_data:
                self._features.keep(self.eval_data.examples)
        else:
            self.data_collator = GroupCollator(engine.planner, self._in_steps)
        first = self.train_data.examples[:_GROUPS_AT_STEP_0]
        self._warn_if_collapsed(self._scores(first), first, "before training")
        return super().train(*args, **kwargs)

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Any]], device: torch.device) -> Tensor | None:
        """Units of the objective in the whole optimiser step: all its micro-batches, all ranks."""
        if not batch_samples:
            return None
        targets = [t for batch in batch_samples for t in targets_in(batch)]
        # float32 on the device: MPS has no float64, and weights are few and near 1.
        units = torch.tensor(sum(self._loss.num_units(t) for t in targets), device=device)
        return self.accelerator.gather(units.float()).sum()

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Forward and backward of one micro-batch, part by part, so that only one forward's activations are held.

        Returns:
            The micro-batch's part of the step's loss.
        """
        if "parts" not in inputs or self.accelerator.distributed_type == DistributedType.DEEPSPEED:
            # DeepSpeed takes a step at its last backward, and counts them: one backward then, over all parts.
            self._count(inputs)
            return super().training_step(model, inputs, num_items_in_batch)
        model.train()
        to_train = getattr(self.optimizer, "train", None)  # optimisers without a schedule have one
        if callable(to_train):
            to_train()
        self._count(inputs)
        scale = self._scale(inputs, num_items_in_batch)
        loss = torch.zeros((), device=self.args.device)
        parts: list[TargetedPart] = inputs["parts"]
        step = PartStep(
            run=partial(self._run, model),
            loss=lambda scores, targets: self._loss(scores, targets) * scale,
            backward=self.accelerator.backward,
            computing=self.compute_loss_context_manager,
            exchanging=partial(self._synchronised, model),
            device=self.args.device,
        )
        with objective_parameters.RankAverage(self.objective, self.accelerator):
            for number, part in enumerate(parts):
                part_loss, scores = step(part, is_last=number == len(parts) - 1)
                loss += part_loss
                self._remember(scores, part.targets)
        return loss

    def _synchronised(self, model: nn.Module, exchange: bool) -> AbstractContextManager[Any]:
        """Around a forward and its backward: ranks exchange their gradients at the micro-batch's last alone.

        So ranks may need different numbers of forwards. DDP wants the forward inside, too.
        """
        return nullcontext() if exchange else self.accelerator.no_sync(model)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """This micro-batch's part of the step's loss, in one graph: its sum over units divided by the whole step's."""
        scale = self._scale(inputs, num_items_in_batch)
        losses, outputs = [], []
        if "parts" in inputs:
            for part in inputs["parts"]:
                targets = part.targets.to(self.args.device)
                outputs.append(self._scores_in_order(model, part))
                losses.append(self._loss(outputs[-1], targets))
                self._remember(outputs[-1], targets)
        else:
            assert self._features is not None
            targets = inputs["targets"].to(self.args.device)
            outputs.append(self._features.outputs(inputs["features"]).squeeze(-1))
            losses.append(self._loss(outputs[-1], targets))
            self._remember(outputs[-1], targets)
        loss = torch.stack(losses).sum() * scale
        return (loss, {"logits": torch.cat(outputs)}) if return_outputs else loss

    def _scale(self, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None) -> Tensor:
        """What a sum over this micro-batch is multiplied with: 1 / (units of the step), times the ranks.

        DDP averages the gradients of its ranks; the sum over ranks is what is wanted.
        """
        if num_items_in_batch is None:
            units = sum(self._loss.num_units(targets) for targets in targets_in(inputs))
            return torch.tensor(1.0 / units, device=self.args.device)
        return torch.as_tensor(self.accelerator.num_processes / num_items_in_batch, device=self.args.device)

    def _run(self, model: nn.Module, forward: Forward) -> Tensor:
        return self._engine_of_run().scores(forward, model)

    def _scores_in_order(self, model: nn.Module, part: TargetedPart) -> Tensor:
        """What the head gives at a part's read-outs, in the order that its targets count."""
        return in_order(part, [self._run(model, forward) for forward in part.forwards])

    def _remember(self, scores: Tensor, targets: Any) -> None:
        if self.args.logging_strategy != IntervalStrategy.NO:
            self._window.append((scores.detach(), targets))

    def _count(self, inputs: dict[str, Any]) -> None:
        tokens = inputs["num_tokens"]
        if self.accelerator.num_processes > 1:
            tokens = int(self.accelerator.gather(torch.tensor(tokens, device=self.args.device)).sum())
        self.state.num_input_tokens_seen += tokens

    # -- what the objective learns itself ----------------------------------------------------------------------------

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        """The optimiser transformers makes, with the objective's own parameters in it."""
        optimizer = super().create_optimizer(*args, **kwargs)
        if self.lr_scheduler is not None and any(True for _ in self.objective.parameters()):
            raise ConfigError(
                f"{self.args.objective} learns a parameter that the schedule you passed does not know",
                hint="pass no scheduler: lr_scheduler_type and objective_learning_rate say the same",
            )
        objective_parameters.add_to_optimizer(self.objective, optimizer, self.args.objective_learning_rate)
        return optimizer

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        with warnings.catch_warnings():  # the embedding has grown by tokens of ours, and peft keeps it: as it should
            warnings.filterwarnings("ignore", "Setting `save_embedding_layers`")
            super()._save(output_dir, state_dict)
        objective_parameters.save(self.objective, output_dir or str(self.args.output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
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

    def _engine_of_run(self) -> Engine:
        """The engine, its layout chosen the first time it is needed."""
        if self._engine is None:
            model = inner_model(self.accelerator.unwrap_model(self.model))
            cast(nn.Module, model).to(self.args.device)
            examples = sorted(self.train_data.examples[:_GROUPS_AT_STEP_0], key=lambda e: sum(e.lengths))
            readouts = [example.readouts for example in examples] if examples[0].readouts else None
            autocast = torch.bfloat16 if self.args.bf16 else torch.float16 if self.args.fp16 else None
            self.layout = choose_layout(
                model,
                [example.sequences for example in examples],
                readouts=readouts,
                engine=self.args.engine,
                longest=max(max(example.lengths) for example in self.train_data.examples),
                with_gradients=True,
                autocast=autocast,
            )
            if self.is_world_process_zero():
                self.layout.log(logger)
            self._engine = Engine(model, self.layout.layout, self.args.tokens_per_batch)
        return self._engine

    def tokens_to_compute(self) -> TokenCount:
        """Dry run over the training groups in their order: tokens of an epoch, computed and otherwise."""
        examples = self.train_data.examples
        step = self.args.train_batch_size * self.args.gradient_accumulation_steps
        budget = self._engine_of_run().planner.tokens_per_batch
        counts = [
            count_tokens([example.sequences for example in examples[start : start + step]], budget)
            for start in range(0, len(examples), step)
        ]
        return sum(counts[1:], counts[0])

    def _say_what_is_computed(self, engine: Engine) -> None:
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
        if "loss" in logs and self._window:
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
        """What the head gives at all read-outs of some groups, in flat order; each rank does its share.

        Returns:
            Shape (read-outs,), of several heads their mean, or (read-outs, classes); on the CPU.
        """
        sequences, readouts = sequences_of(examples)
        rank, ranks = self.accelerator.process_index, self.accelerator.num_processes
        engine = self._engine_of_run()
        if self._features is not None and (known := self._features.of_kept(examples)) is not None:
            return self._mean(known)
        with self.compute_loss_context_manager():
            if readouts is None:
                mine = [torch.tensor([score]) for score in engine.score(sequences[rank::ranks])]
            else:
                mine = engine.outputs(sequences[rank::ranks], readouts[rank::ranks])
        found: list[Tensor] = [torch.empty(0)] * len(sequences)
        for owner, values in gather_object([(rank, mine)]) if ranks > 1 else [(rank, mine)]:
            found[owner::ranks] = values
        return self._mean(torch.cat(found))

    def _mean(self, outputs: Tensor) -> Tensor:
        return outputs.mean(dim=1) if self.args.ensemble_heads > 1 else outputs.squeeze(-1)

    def _window_metrics(self) -> dict[str, float]:
        window = [(scores.cpu(), targets.to(torch.device("cpu"))) for scores, targets in self._window]
        self._window.clear()
        return self._in_steps.metrics(gather_object(window) if self.accelerator.num_processes > 1 else window)

    def _warn_if_collapsed(self, scores: Tensor, examples: Sequence[EncodedGroup], when: str) -> None:
        margins = None
        if self.supervision.compares_pairs:
            targets = self.supervision.targets(examples)
            margins = scores[targets.chosen] - scores[targets.rejected]
        warning = collapse_warning(scores, margins)
        if warning and self.is_world_process_zero():
            logger.warning("%s: %s", when, warning)

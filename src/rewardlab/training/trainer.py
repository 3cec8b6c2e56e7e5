"""The trainer: transformers' own, given groups, an objective and an exact reduction.

What it changes: the loss of a step is a sum over pairs divided by the number of pairs of the whole step (all
micro-batches, all ranks); logged metrics are computed over all pairs since the last log, not as means of batch means;
evaluation scores each example once; a run whose scores are all alike says so. Everything else, from optimisers to
trackers, is transformers'.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from transformers import Trainer
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.trainer_utils import IntervalStrategy

from rewardlab.data.encoding import EncodedGroup, Encoder
from rewardlab.data.template import SealedTemplate, seal_chat_template
from rewardlab.errors import ConfigError, DataError, RewardLabError
from rewardlab.metrics import mean_margin, pairwise_accuracy
from rewardlab.modeling.forward import input_names, score_sequences
from rewardlab.modeling.head import use_float32_head
from rewardlab.modeling.loading import position_limit
from rewardlab.modeling.preparing import inner_model, set_dropout_to_zero
from rewardlab.objectives import OBJECTIVES, BradleyTerry, PairTargets
from rewardlab.training.arguments import RewardArguments
from rewardlab.training.batches import EncodedDataset, PairCollator, encode_pairs, pair_targets, targets_of
from rewardlab.training.finishing import SavedModel, save_trained
from rewardlab.training.progress import ProgressLine
from rewardlab.types import PromptGroup

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

# Below this standard deviation, in score units, scores or margins hardly differ: a fresh head gives around 0.1 to 1.
COLLAPSED_STD = 1e-3
_GROUPS_AT_STEP_0 = 32


class RewardTrainer(Trainer):
    """Trains a reward model on groups.

    Args:
        model: A model from :func:`rewardlab.modeling.preparing.prepare_for_training`, or any
            ``*ForSequenceClassification`` with one label and a padding id that is not its end token.
        args: The arguments.
        train_dataset: Groups to train on, each with at least one pair.
        eval_dataset: Groups to evaluate on; None for none.
        processing_class: The tokenizer; its chat template is sealed if it is not yet.
        template: What sealing found, where it was sealed before (``PreparedModel.template``); for the contract.
        **kwargs: What else transformers' Trainer takes (``callbacks``, ``optimizers``, ...).

    Attributes:
        train_data: The training groups as ids, with what was dropped and quarantined.
        eval_data: The evaluation groups likewise; None for none.
        template: What sealing the chat template found.

    Example:
        >>> prepared = prepare_for_training("my-base-model", seed=0)  # doctest: +SKIP
        >>> trainer = RewardTrainer(
        ...     prepared.model, RewardArguments("runs/1"), groups, processing_class=prepared.tokenizer
        ... )  # doctest: +SKIP
        >>> trainer.train()  # doctest: +SKIP
        >>> trainer.save_reward_model("my-rm")  # doctest: +SKIP
    """

    args: RewardArguments
    objective: BradleyTerry

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
        _require_distinct_pad(text_config.pad_token_id, processing_class)
        limit = position_limit(text_config, processing_class)
        if limit is not None and args.max_length > limit:
            raise ConfigError(
                f"max_length {args.max_length} is beyond the model's {limit} positions", hint=f"at most {limit}"
            )
        if not hasattr(model, "get_base_model"):  # adapters are put on a model that was prepared before
            use_float32_head(model)
        if args.disable_dropout:
            set_dropout_to_zero(model)
        self.encoder = Encoder(processing_class, args.max_length)
        self.train_data = _non_empty(encode_pairs(train_dataset, self.encoder), "training")
        self.eval_data = self._encoded_for_evaluation(eval_dataset) if eval_dataset else None
        self._input_names = input_names(inner_model(model))
        self._window: list[tuple[Tensor, PairTargets]] = []
        super().__init__(
            model=model,
            args=args,
            data_collator=PairCollator(text_config.pad_token_id),
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
        self.objective = OBJECTIVES[args.objective](center_rewards_coefficient=args.center_rewards_coefficient)
        # The loss is already divided by the units of the whole step; transformers must not divide it again.
        self.model_accepts_loss_kwargs = True
        # Both of transformers' callbacks print to stdout, which belongs to data.
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)
        if not args.disable_tqdm:
            self.add_callback(ProgressLine())
        if args.num_train_epochs > 1:
            logger.warning(
                "%g epochs: reward models overfit after one (InstructGPT, arXiv:2203.02155, C.2; Llama 2, 3.2.2); "
                "watch the held-out loss",
                args.num_train_epochs,
            )

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train; first look whether the untrained model's scores differ at all."""
        scores = self._scores(self.train_data.examples[:_GROUPS_AT_STEP_0])
        self._warn_if_collapsed(scores, self.train_data.examples[:_GROUPS_AT_STEP_0], "before training")
        return super().train(*args, **kwargs)

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Tensor]], device: torch.device) -> Tensor | None:
        """Units (weighted pairs) of the whole optimiser step: all its micro-batches, all ranks."""
        if not batch_samples:
            return None
        # float32 on the device: MPS has no float64, and weights are few and near 1.
        units = torch.tensor(sum(self.objective.num_units(targets_of(batch)) for batch in batch_samples), device=device)
        return self.accelerator.gather(units.float()).sum()

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """This micro-batch's part of the step's loss: its sum over pairs divided by the whole step's units."""
        targets = targets_of(inputs)
        outputs = model(**{name: inputs[name] for name in self._input_names})
        scores = outputs.logits.squeeze(-1).float()
        total = self.objective(scores, targets)
        units = self.objective.num_units(targets) if num_items_in_batch is None else num_items_in_batch
        # DDP averages the gradients of its ranks; the sum over ranks is what is wanted.
        ranks = 1 if num_items_in_batch is None else self.accelerator.num_processes
        loss = total / units * ranks
        if self.args.logging_strategy != IntervalStrategy.NO:
            self._window.append((scores.detach(), targets))
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the metrics of all pairs since the last log, under TRL's names."""
        if "loss" in logs and self._window:
            logs = {**logs, **self._window_metrics()}
        if "num_input_tokens_seen" in logs or "loss" in logs:
            logs = {k: v for k, v in logs.items() if k != "num_input_tokens_seen"}
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
            loss, accuracy, margin, min_reward, mean_reward, max_reward; also logged.
        """
        data = self.eval_data if eval_dataset is None else self._encoded_for_evaluation(eval_dataset)
        if data is None:
            raise DataError("there is no evaluation set", hint="pass eval_dataset")
        scores = self._scores(data.examples)
        self._warn_if_collapsed(scores, data.examples, "at this evaluation")
        targets = PairTargets(**pair_targets(data.examples))
        loss = float(self.objective(scores.double(), targets)) / self.objective.num_units(targets)
        metrics = {"loss": loss, **_pair_metrics([(scores, targets)])}
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
        return _non_empty(encode_pairs(groups, self.encoder, keep_identical=True), "evaluation")

    def _scores(self, examples: Sequence[EncodedGroup]) -> Tensor:
        """Scores of all completions of some groups, in flat order, shape (completions,); each rank does its share."""
        sequences = [sequence for example in examples for sequence in example.sequences]
        rank, ranks = self.accelerator.process_index, self.accelerator.num_processes
        model = inner_model(self.accelerator.unwrap_model(self.model))
        cast(nn.Module, model).to(self.args.device)
        with self.compute_loss_context_manager():
            mine = score_sequences(model, sequences[rank::ranks], tokens_per_batch=self.args.tokens_per_batch)
        scores = torch.empty(len(sequences))
        shares = gather_object([(rank, mine)]) if ranks > 1 else [(rank, mine)]
        for owner, values in shares:
            scores[owner::ranks] = torch.tensor(values)
        return scores

    def _window_metrics(self) -> dict[str, float]:
        window = [(scores.cpu(), targets.to(torch.device("cpu"))) for scores, targets in self._window]
        self._window.clear()
        return _pair_metrics(gather_object(window) if self.accelerator.num_processes > 1 else window)

    def _warn_if_collapsed(self, scores: Tensor, examples: Sequence[EncodedGroup], when: str) -> None:
        targets = PairTargets(**pair_targets(examples))
        warning = collapse_warning(scores, scores[targets.chosen] - scores[targets.rejected])
        if warning and self.is_world_process_zero():
            logger.warning("%s: %s", when, warning)


def collapse_warning(scores: Tensor, margins: Tensor) -> str | None:
    """What to say when scores or margins hardly differ; None when they do.

    Args:
        scores: Scores of some completions, shape (completions,).
        margins: Chosen minus rejected of their pairs, shape (pairs,).
    """
    spread, margin_spread = float(scores.std(correction=0)), float(margins.std(correction=0))
    if not math.isfinite(spread):
        return "scores are not finite: the run has diverged; lower the learning rate"
    if len(margins) < 2 or min(spread, margin_spread) >= COLLAPSED_STD:
        return None
    what = "scores" if spread < COLLAPSED_STD else "margins"
    return (
        f"the {what} of {len(scores)} completions hardly differ (standard deviation {min(spread, margin_spread):.1e}). "
        "Usual causes: the padding id is the EOS id, so the score is read at the wrong token; completions are cut away "
        "by max_length; the labels are balanced to coin flips; center_rewards_coefficient is so large that only 0 pays"
    )


def _pair_metrics(parts: Sequence[tuple[Tensor, PairTargets]]) -> dict[str, float]:
    """Metrics over all pairs of some batches at once, under TRL's names."""
    scores = np.concatenate([scores.double().numpy() for scores, _ in parts])
    if not np.isfinite(scores).all():
        raise RewardLabError(
            f"{int((~np.isfinite(scores)).sum())} of {len(scores)} scores are NaN or infinite: the run has diverged",
            hint="lower the learning rate (--set learning_rate=...), or train in float32",
        )
    chosen = np.concatenate([scores[targets.chosen].double().numpy() for scores, targets in parts])
    rejected = np.concatenate([scores[targets.rejected].double().numpy() for scores, targets in parts])
    return {
        "accuracy": pairwise_accuracy(chosen, rejected),
        "margin": mean_margin(chosen, rejected),
        "min_reward": float(scores.min()),
        "mean_reward": float(scores.mean()),
        "max_reward": float(scores.max()),
    }


def _require_distinct_pad(pad_id: int | None, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse what would read the score at the wrong token, in silence."""
    ends = (tokenizer.eos_token_id, tokenizer.sep_token_id)
    if pad_id is None or pad_id != tokenizer.pad_token_id or pad_id in ends:
        raise ConfigError(
            f"the model's pad_token_id is {pad_id} and the tokenizer's {tokenizer.pad_token_id}; they must be one id, "
            "and not that of the EOS: else the score is read at another token",
            hint="prepare the model with rewardlab.modeling.preparing.prepare_for_training",
        )


def _non_empty(data: EncodedDataset, name: str) -> EncodedDataset:
    if not data.examples:
        reasons = {reason for _, reason in data.dropped + data.quarantined}
        raise DataError(
            f"no {name} group is left: {len(data.dropped)} dropped, {len(data.quarantined)} quarantined "
            f"{sorted(reasons)[:3]}",
            hint="raise max_length, or look at the data with `rewardlab data check`",
        )
    return data

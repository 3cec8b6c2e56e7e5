"""The trainers that train.py compares: TRL's in its settings, ours in its layouts, on the same weights and groups.

This file knows how each is built so that only what is compared differs; it runs and measures nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerBase, Trainer
from transformers.trainer_callback import PrinterCallback
from trl import RewardConfig
from trl import RewardTrainer as TrlTrainer

from rewardlab import PromptGroup, RewardArguments, RewardTrainer
from rewardlab.data.encoding import Encoder
from rewardlab.modeling.preparing import prepare_for_training

LEARNING_RATE = 1e-5


@dataclass(frozen=True)
class Job:
    """What all variants share."""

    base: Path
    plain: Path  # the prepared model as transformers' own class, for TRL
    scratch: Path
    tokenizer: PreTrainedTokenizerBase
    batch: int
    max_length: int
    device: str
    seed: int
    tokens_per_batch: int | None

    def arguments(self, max_steps: int) -> dict[str, Any]:
        """Arguments that do not change the work of either trainer, and the order that both take."""
        return {
            "output_dir": str(self.scratch),
            "num_train_epochs": 1,
            "max_steps": max_steps,
            "seed": self.seed,
            "report_to": "none",
            "disable_tqdm": True,
            "save_strategy": "no",
            "use_cpu": self.device == "cpu",
            "dataloader_pin_memory": self.device != "cpu",
        }


SAME_OPTIMISER = {
    "learning_rate": LEARNING_RATE,
    "lr_scheduler_type": "linear",
    "warmup_steps": 0,
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
    "optim": "adamw_torch_fused",
    "logging_steps": 10,
}

Build = Callable[[Job, Sequence[PromptGroup], int], Trainer]
"""Job, groups and most steps (-1 for one epoch) to a trainer that is ready to be timed."""


def build_ours(
    job: Job, groups: Sequence[PromptGroup], max_steps: int, *, engine: str, tokens_per_batch: int | None = None
) -> Trainer:
    """Our trainer with one layout; a token budget here goes before the job's."""
    prepared = prepare_for_training(job.base, seed=job.seed)
    arguments = RewardArguments(
        **job.arguments(max_steps),
        **SAME_OPTIMISER,
        engine=engine,
        center_rewards_coefficient=0.0,  # as TRL's default
        max_length=job.max_length,
        max_group_size=1,  # merging the rows of a prompt would make other steps than TRL's
        per_device_train_batch_size=job.batch,
        train_sampling_strategy=_sampling(groups),
        bf16=job.device == "cuda",
        tokens_per_batch=tokens_per_batch or job.tokens_per_batch,
    )
    return RewardTrainer(
        prepared.model, arguments, groups, processing_class=prepared.tokenizer, template=prepared.template
    )


def build_trl(
    job: Job,
    groups: Sequence[PromptGroup],
    max_steps: int,
    *,
    trainer: type[TrlTrainer] = TrlTrainer,
    attention: str = "sdpa",
    **options: Any,
) -> Trainer:
    """TRL's trainer on the same weights and ids, every pair of a group a row."""
    encoded = [Encoder(job.tokenizer, job.max_length).encode(group) for group in groups]
    sides = [(item.sequences[p.chosen], item.sequences[p.rejected]) for item in encoded for p in item.group.pairs]
    rows = {"chosen_ids": [list(s[0]) for s in sides], "rejected_ids": [list(s[1]) for s in sides]}
    # A step has the same pairs as ours; 28 padded pairs at once may not fit, so groups are accumulated 7 at a time.
    per_group = len(groups[0].pairs)
    split = {} if per_group == 1 else {"gradient_accumulation_steps": job.batch * per_group // 7}
    arguments = RewardConfig(
        **job.arguments(max_steps),
        **options,
        **split,
        max_length=job.max_length,
        per_device_train_batch_size=job.batch if per_group == 1 else 7,
        train_sampling_strategy=_sampling(groups),
    )
    built = trainer(
        AutoModelForSequenceClassification.from_pretrained(
            job.plain, dtype=torch.float32, attn_implementation=attention
        ),
        args=arguments,
        train_dataset=Dataset.from_dict(rows),
        processing_class=copy.deepcopy(job.tokenizer),
    )
    built.remove_callback(PrinterCallback)
    return built


class FlashPrefTrainer(TrlTrainer):
    """TRL's trainer with flash-pref's shared prefixes, as that package's README has it."""

    def training_step(self, model: Any, inputs: Any, *rest: Any) -> torch.Tensor:
        """Forward and backward under shared prefixes."""
        from flash_pref import shared_prefix

        inputs = self._prepare_inputs(inputs)
        with shared_prefix(model, input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]):
            return super().training_step(model, inputs, *rest)


FLOAT32 = {**SAME_OPTIMISER, "bf16": False}
BUILDS: dict[str, Build] = {
    "trl_f32": partial(build_trl, **FLOAT32, gradient_checkpointing=False),
    "trl_f32_gc": partial(build_trl, **FLOAT32, gradient_checkpointing=True),
    "trl_default": build_trl,
    "trl_pairs": partial(build_trl, **FLOAT32, gradient_checkpointing=False),
    "flash_pref": partial(
        build_trl,
        **SAME_OPTIMISER,
        gradient_checkpointing=False,
        trainer=FlashPrefTrainer,
        attention="flash_attention_2",
    ),
    "padded": partial(build_ours, engine="padded"),
    # One forward for a whole batch, as a plain trainer has it: over our budget, a group would be computed twice.
    "padded_once": partial(build_ours, engine="padded", tokens_per_batch=1 << 20),
    "packed": partial(build_ours, engine="packed"),
    "tree": partial(build_ours, engine="tree"),
}
ENGINE = {"padded": "padded", "padded_once": "padded", "packed": "packed", "tree": "tree"}


def _sampling(groups: Sequence[PromptGroup]) -> str:
    """TRL would tear groups apart; those stay in their order, pairs are shuffled by transformers' seeded sampler."""
    return "random" if len(groups[0].pairs) == 1 else "sequential"

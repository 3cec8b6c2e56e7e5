"""The order of the training loop: that of transformers' own loader on one process, and the same for every rank."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from accelerate import skip_first_batches
from transformers import Trainer

from rewardlab.modeling.preparing import prepare_for_training
from rewardlab.modeling.ranks import Ranks
from rewardlab.training.arguments import RewardArguments
from rewardlab.training.trainer import RewardTrainer
from rewardlab.types import PromptGroup


def trainer_for(base: Path, pairs: list[PromptGroup], **options: Any) -> RewardTrainer:
    arguments = RewardArguments("unused", max_length=128, use_cpu=True, seed=3, disable_tqdm=True, **options)
    prepared = prepare_for_training(base, seed=0)
    return RewardTrainer(prepared.model, arguments, pairs, processing_class=prepared.tokenizer)


def keys(batch: Any) -> list[str]:
    return [example.group.prompt_key for example in batch["examples"]]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"data_seed": 11},
        {"dataloader_drop_last": True},
        {"train_sampling_strategy": "sequential"},
        {"dataloader_num_workers": 1},
    ],
    ids=lambda options: next(iter(options), "plain"),
)
def test_one_process_keeps_the_order_of_transformers(
    base_model: Path, pairs: list[PromptGroup], options: dict[str, Any]
) -> None:
    """Two epochs and a resumed one against ``Trainer.get_train_dataloader``, which shards through accelerate."""
    trainer = trainer_for(base_model, pairs[:22], per_device_train_batch_size=4, **options)
    own, theirs = trainer.get_train_dataloader(), Trainer.get_train_dataloader(trainer)
    assert len(own) == len(theirs) == (5 if options.get("dataloader_drop_last") else 6)
    for epoch in range(2):
        for loader in (own, theirs):
            loader.set_epoch(epoch)
        orders = [[keys(batch) for batch in loader] for loader in (own, theirs)]
        assert orders[0] == orders[1]
    rest = skip_first_batches(own, 2)
    rest.set_epoch(1)
    assert [keys(batch) for batch in rest] == orders[0][2:]


@pytest.mark.parametrize("count", [2, 3, 5])
def test_ranks_divide_the_same_global_batches(base_model: Path, pairs: list[PromptGroup], count: int) -> None:
    """22 groups in global batches of 30 // count * count: each once, over ranks; shares cost alike."""
    trainer = trainer_for(base_model, pairs[:22], per_device_train_batch_size=30 // count)
    loaders = []
    for index in range(count):
        trainer._ranks = trainer._collator._ranks = Ranks(index, count)
        loaders.append([keys(batch) for batch in trainer.get_train_dataloader()])
    trainer._ranks = trainer._collator._ranks = Ranks()
    assert {len(batches) for batches in loaders} == {1}
    used = [key for batches in loaders for key in batches[0]]
    assert sorted(used) == sorted(group.prompt_key for group in pairs[:22])
    costs = {
        example.group.prompt_key: trainer._collator._cost.of_group(example.sequences, "padded")
        for example in trainer.train_data.examples
    }
    shares = [sum(costs[key] for key in batches[0]) for batches in loaders]
    assert max(shares) <= 4 / 3 * max(sum(shares) / count, *costs.values())

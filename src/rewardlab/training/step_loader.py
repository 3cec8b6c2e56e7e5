"""The loader of the training loop: the same global micro-batches for every rank, in an order that ranks do not change.

A global micro-batch is what all ranks compute together. Each rank is given all of it, as ids, and its collator takes
the rank's share. So groups are divided by what they cost, none is repeated to fill an epoch's last batch, and a run on
other numbers of ranks with the same global batch sees the same groups in the same steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader, Sampler
from transformers import TrainingArguments


def step_loader(
    examples: Any,
    collate: Callable[[list[Any]], Any],
    sampler: Sampler[int] | None,
    arguments: TrainingArguments,
    *,
    batch_size: int,
) -> DataLoader[Any]:
    """A loader of global micro-batches.

    It is accelerate's loader for one process, whose random order goes by seed and epoch alone.

    Args:
        examples: What is trained on, all of it on every rank.
        collate: A global micro-batch -> this rank's share.
        sampler: The order, as transformers asks for it; a random one becomes accelerate's seeded one.
        arguments: Of the run: its seeds, and how batches are loaded.
        batch_size: Of a global micro-batch.
    """
    loader: DataLoader[Any] = DataLoader(
        examples,
        batch_size=batch_size,
        sampler=sampler,
        collate_fn=collate,
        drop_last=arguments.dataloader_drop_last,
        num_workers=arguments.dataloader_num_workers,
        pin_memory=arguments.dataloader_pin_memory,
        persistent_workers=arguments.dataloader_persistent_workers,
        prefetch_factor=arguments.dataloader_prefetch_factor,
        multiprocessing_context=arguments.dataloader_multiprocessing_context,
        in_order=arguments.dataloader_in_order,
    )
    prepared: DataLoader[Any] = prepare_data_loader(
        loader,
        num_processes=1,
        process_index=0,
        use_seedable_sampler=True,
        data_seed=arguments.seed if arguments.data_seed is None else arguments.data_seed,
    )
    return prepared

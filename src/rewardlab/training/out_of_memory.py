"""What a training run does when memory does not suffice for a forward or its backward.

What the step's backwards have added to the gradients by then is part of a sum that was cut short, so the step begins
again: gradients cleared, the random state put back, its micro-batches so far planned anew under half the token budget,
which only splits forwards. The step's gradients are those of a run that had the smaller budget from the start.

This file knows micro-batches and budgets; what is computed of them is the trainer's.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rewardlab.errors import RewardLabError
from rewardlab.modeling.out_of_memory import release_memory
from rewardlab.modeling.planner import Forward, Planner
from rewardlab.training.batches import GroupCollator
from rewardlab.training.part_step import random_state, set_random_state

logger = logging.getLogger(__name__)

# These take their steps inside the backward: what they have done cannot be cleared.
_STEP_IN_BACKWARD = ("lomo", "layerwise")


class StepReplay:
    """The micro-batches of one optimiser step, so that the step can begin again.

    Args:
        device: Where the run computes.
        optimizer: The name of its optimiser.
        is_alone: Whether no other rank waits, and no engine keeps gradients that clearing the model's does not clear.
    """

    def __init__(self, device: torch.device, optimizer: str, *, is_alone: bool) -> None:
        self._device = device
        self._can_replay = is_alone and not any(name in optimizer for name in _STEP_IN_BACKWARD)
        self._batches: Sequence[dict[str, Any]] = ()
        self._state: list[Tensor] = []

    def begin(self, batches: Sequence[dict[str, Any]]) -> None:
        """A step begins, with these micro-batches."""
        self._batches = batches
        self._state = random_state(self._device)

    def again(
        self, current: dict[str, Any], failed: dict[str, Any], collator: GroupCollator
    ) -> Sequence[dict[str, Any]]:
        """What is to be computed again, the step's micro-batches up to the current one; gradients are the caller's.

        Args:
            current: The micro-batch that the training loop has asked for.
            failed: The one, of those up to it, that memory did not suffice for.
            collator: Plans; its planner's token budget is made smaller.

        Raises:
            RewardLabError: There are several ranks, or the largest forward is one sequence already.
        """
        release_memory(self._device)
        budget = self._smaller_budget(failed, collator.planner)
        logger.warning(
            "%s has not the memory for a step's forwards of %s tokens: from now on there are at most %s in one "
            "(tokens_per_batch); the step begins again, its gradients do not depend on it",
            self._device,
            f"{collator.planner.tokens_per_batch:,}",
            f"{budget:,}",
        )
        collator.planner.tokens_per_batch = budget
        replan(self._batches, collator)  # those to come as well
        set_random_state(self._device, self._state)
        place = next(number for number, batch in enumerate(self._batches) if batch is current)
        return self._batches[: place + 1]

    def _smaller_budget(self, failed: dict[str, Any], planner: Planner) -> int:
        forwards: list[Forward] = [forward for part in failed["parts"] for forward in part.forwards]
        several = [forward.num_tokens for forward in forwards if _num_sequences(forward) > 1]
        budget = min(planner.tokens_per_batch, max(several, default=0)) // 2
        if not budget:
            longest = max(forward.num_tokens for forward in forwards)
            raise RewardLabError(
                f"{self._device} has not the memory to train on one sequence of {longest:,} tokens alone",
                hint="lower max_length, or pass --set gradient_checkpointing=true, --lora, or a launcher that shards "
                "the model (--launcher zero3)",
            )
        if not self._can_replay:
            raise RewardLabError(
                f"{self._device} has not the memory for a step's forwards of {max(several):,} tokens",
                hint=f"resume with half the budget, --resume --set tokens_per_batch={budget}: it only splits "
                "forwards, nothing else changes",
            )
        return budget


def replan(batches: Sequence[dict[str, Any]], collator: GroupCollator) -> None:
    """Divide micro-batches anew, in place, where they were planned under another token budget."""
    for batch in batches:
        if batch.get("tokens_per_batch", collator.planner.tokens_per_batch) != collator.planner.tokens_per_batch:
            batch.update(collator.planned(batch["examples"]))


def _num_sequences(forward: Forward) -> int:
    return len(forward.inputs["input_ids"]) if forward.row is None else len(forward.row.indices)

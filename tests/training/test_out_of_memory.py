"""Running out of memory in a step: it begins again under a smaller budget, with the gradients it would have had."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rewardlab.errors import RewardLabError
from rewardlab.modeling.preparing import LoraOptions, prepare_for_training
from rewardlab.training.arguments import RewardArguments
from rewardlab.training.out_of_memory import StepReplay
from rewardlab.training.trainer import RewardTrainer
from rewardlab.types import PromptGroup

CPU = "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"


def trainer_for(base: Path, pairs: list[PromptGroup], **options: Any) -> RewardTrainer:
    dropout = options.pop("dropout", None)
    arguments = RewardArguments(
        "unused", objective="davidson", max_length=128, use_cpu=True, seed=0, disable_tqdm=True, engine="packed",
        disable_dropout=dropout is None, **options,
    )  # fmt: skip
    prepared = prepare_for_training(
        base, seed=0, mode="lora" if dropout else "full", lora=LoraOptions(rank=4, dropout=dropout or 0.0),
        disable_dropout=dropout is None,
    )  # fmt: skip
    trainer = RewardTrainer(prepared.model, arguments, pairs, processing_class=prepared.tokenizer)
    trainer._look_at_model()
    return trainer


def step(trainer: RewardTrainer, budget: int) -> tuple[dict[str, torch.Tensor], torch.Tensor, int]:
    """Gradients and loss of a step of three micro-batches, and how many scores its log has."""
    trainer._collator.planner.tokens_per_batch = budget
    torch.manual_seed(5)
    examples = trainer.train_data.examples
    collated = iter([trainer._collator(examples[start : start + 4]) for start in (0, 4, 8)])
    batches, units = trainer.get_batch_samples(collated, 3, trainer.args.device)
    loss = torch.stack([trainer.training_step(trainer.model, batch, units) for batch in batches]).sum()
    named = [*trainer.model.named_parameters(), *trainer.objective.named_parameters()]
    gradients = {name: parameter.grad.clone() for name, parameter in named if parameter.grad is not None}
    seen = sum(len(scores) for scores, _ in trainer._window)
    trainer.model.zero_grad()
    trainer.objective.zero_grad()
    trainer._window.clear()
    return gradients, loss, seen


class Fails:
    """Raises the n-th time that a module is computed, in its forward or its backward, and never again."""

    def __init__(self, module: nn.Module, at: int, error: Exception, *, backward: bool) -> None:
        self.left, self.error = at, error
        self.handle = (
            module.register_full_backward_hook(self.count) if backward else module.register_forward_hook(self.count)
        )

    def count(self, *_: Any) -> None:
        self.left -= 1
        if self.left == 0:
            raise self.error


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError(CPU)], ids=["gpu", "cpu"])
@pytest.mark.parametrize("dropout", [None, 0.3])
def test_a_step_begins_again_with_the_same_gradients(
    base_model: Path,
    pairs: list[PromptGroup],
    error: Exception,
    backward: bool,
    dropout: float | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """After one micro-batch and a half. With adapter dropout: those of a step that had the smaller budget at once."""
    trainer = trainer_for(base_model, pairs[:12], dropout=dropout)
    whole, expected_loss, expected_seen = step(trainer, 400)
    layer = next(module for module in trainer.model.modules() if isinstance(module, nn.ModuleList))[0].mlp
    fails = Fails(layer, 2, error, backward=backward)
    found, loss, seen = step(trainer, 400)
    fails.handle.remove()
    budget = trainer._collator.planner.tokens_per_batch
    assert 0 < budget <= 200
    assert f"there are at most {budget} in one" in caplog.text
    if dropout:
        whole, expected_loss, expected_seen = step(trainer, budget)
    assert found.keys() == whole.keys()
    assert seen == expected_seen == 24
    if not dropout:  # the loss of the first micro-batch was told before
        assert float(loss) == pytest.approx(float(expected_loss), abs=1e-6)
    for name, gradient in whole.items():
        assert torch.linalg.norm(found[name] - gradient) <= 1e-5 * torch.linalg.norm(gradient) + 1e-8, name


def test_batches_that_were_loaded_ahead_are_planned_anew(base_model: Path, pairs: list[PromptGroup]) -> None:
    trainer = trainer_for(base_model, pairs[:12])
    ahead = trainer._collator(trainer.train_data.examples)
    trainer._collator.planner.tokens_per_batch = 150
    (batch,), _ = trainer.get_batch_samples(iter([ahead]), 1, trainer.args.device)
    assert batch["tokens_per_batch"] == 150
    assert all(forward.num_tokens <= 150 for part in batch["parts"] for forward in part.forwards)


def always(error: Exception) -> Callable[..., None]:
    def fail(*_: Any) -> None:
        raise error

    return fail


def test_one_sequence_that_does_not_fit_is_an_error(base_model: Path, pairs: list[PromptGroup]) -> None:
    trainer = trainer_for(base_model, pairs[:12])
    layer = next(module for module in trainer.model.modules() if isinstance(module, nn.ModuleList))[0]
    layer.register_forward_hook(always(torch.OutOfMemoryError("CUDA out of memory")))
    with pytest.raises(RewardLabError, match="to train on one sequence of") as found:
        step(trainer, 400)
    assert "max_length" in str(found.value.hint)


@pytest.mark.parametrize(("optimizer", "ranks"), [("adamw_torch", 2), ("lomo", 1), ("galore_adamw_layerwise", 1)])
def test_who_cannot_begin_again_is_told_how_to_resume(
    base_model: Path, pairs: list[PromptGroup], optimizer: str, ranks: int
) -> None:
    """Ranks that wait in an exchange cannot be called back; steps that the backward has taken cannot be undone."""
    trainer = trainer_for(base_model, pairs[:12])
    trainer._replay = StepReplay(trainer.args.device, optimizer, is_alone=ranks == 1)
    layer = next(module for module in trainer.model.modules() if isinstance(module, nn.ModuleList))[0]
    layer.register_forward_hook(always(torch.OutOfMemoryError("CUDA out of memory")))
    with pytest.raises(RewardLabError, match="has not the memory") as found:
        step(trainer, 400)
    assert "--resume --set tokens_per_batch=" in str(found.value.hint)


def test_other_errors_are_left_alone(base_model: Path, pairs: list[PromptGroup]) -> None:
    trainer = trainer_for(base_model, pairs[:12])
    trainer.model.score.register_forward_hook(always(RuntimeError("shapes differ")))
    with pytest.raises(RuntimeError, match="shapes differ"):
        step(trainer, 400)

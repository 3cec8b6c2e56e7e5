"""An objective's own parameters: in the optimiser once, in the checkpoint, and averaged over ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rewardlab.training import objective_parameters
from rewardlab.training.objective_parameters import ClearGradients, RankAverage


class Learned(nn.Module):
    def __init__(self, value: float = 0.0) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))


def test_parameters_join_the_optimiser_once() -> None:
    objective, model = Learned(), nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.1)
    for _ in range(2):
        objective_parameters.add_to_optimizer(objective, optimizer, 0.01)
    assert len(optimizer.param_groups) == 2
    assert (optimizer.param_groups[1]["lr"], optimizer.param_groups[1]["weight_decay"]) == (0.01, 0.0)
    objective_parameters.add_to_optimizer(nn.Module(), optimizer, 0.01)
    assert len(optimizer.param_groups) == 2


def test_gradients_are_cleared_after_each_step() -> None:
    """Else each step would add its own to those of all before: transformers clears the model's alone."""
    objective = Learned()
    optimizer = torch.optim.SGD(nn.Linear(2, 1).parameters(), lr=0.1)
    objective_parameters.add_to_optimizer(objective, optimizer, 0.1)
    for _ in range(3):
        objective.value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        ClearGradients(objective).on_optimizer_step()
    assert objective.value.item() == pytest.approx(-0.3)


def test_what_was_learned_is_saved_and_read_back(tmp_path: Path) -> None:
    objective_parameters.save(Learned(0.5), tmp_path)
    again = Learned()
    objective_parameters.load(again, tmp_path)
    assert objective_parameters.learned_values(again) == {"value": 0.5}
    with pytest.raises(FileNotFoundError):
        objective_parameters.load(again, tmp_path / "elsewhere")


def test_an_objective_without_parameters_leaves_no_file(tmp_path: Path) -> None:
    objective_parameters.save(nn.Module(), tmp_path)
    objective_parameters.load(nn.Module(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_ranks_average_what_a_micro_batch_adds() -> None:
    """Two ranks: this one adds 3, the other 5, after 10 from before that were averaged already: 10 + 4."""

    class TwoRanks:
        num_processes = 2

        def reduce(self, tensor: torch.Tensor, reduction: str) -> torch.Tensor:
            assert reduction == "mean"
            return (tensor + 5) / 2

    objective = Learned()
    objective.value.grad = torch.tensor(10.0)
    fake: Any = TwoRanks()
    with RankAverage(objective.parameters(), fake):
        (3 * objective.value).backward()  # type: ignore[no-untyped-call]
    assert objective.value.grad.item() == 14.0


def test_one_process_changes_nothing() -> None:
    class OneRank:
        num_processes = 1

    objective = Learned()
    fake: Any = OneRank()
    with RankAverage(objective.parameters(), fake):
        (3 * objective.value).backward()  # type: ignore[no-untyped-call]
    assert objective.value.grad is not None
    assert objective.value.grad.item() == 3.0

"""A model's structure keeps everything but its weights, and takes gathered ones back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rewardlab.modeling.preparing import LoraOptions, Mode, prepare_for_training
from rewardlab.training.gathering import put_together, structure_of


@pytest.mark.parametrize("mode", ["full", "lora"])
def test_a_model_put_together_gives_the_same_scores(base_model: Path, mode: Mode) -> None:
    model = prepare_for_training(base_model, seed=1, mode=mode, lora=LoraOptions(rank=2)).model.eval()
    ids = torch.tensor([[5, 9, 30, 2]])
    structure = structure_of(model)
    assert {parameter.device.type for parameter in structure.parameters()} == {"meta"}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.01  # as training does, after the structure was taken
    whole = put_together(structure, model, lambda shard: shard, keep=True)
    assert whole is not None
    assert torch.equal(whole.eval()(ids).logits, model(ids).logits)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name for name, parameter in whole.named_parameters() if parameter.requires_grad} == trained


def test_who_keeps_nothing_takes_part_in_every_gathering(base_model: Path) -> None:
    model = prepare_for_training(base_model, seed=1).model
    gathered = []

    def gather(shard: Tensor) -> Tensor:
        gathered.append(shard)
        return shard

    assert put_together(structure_of(model), model, gather, keep=False) is None
    assert len(gathered) == len(list(model.parameters()))


def test_tied_weights_are_gathered_once_and_stay_tied() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
            self.second.weight = self.first.weight

    model = Tied()
    whole = put_together(structure_of(model), model, lambda shard: shard, keep=True)
    assert isinstance(whole, Tied)
    assert whole.first.weight is whole.second.weight
    assert whole.first.weight is not model.first.weight


def test_a_shard_in_place_of_the_whole_is_refused() -> None:
    model = nn.Linear(4, 4)
    with pytest.raises(RuntimeError, match=r"gathered as \(2, 4\), expected \(4, 4\)"):
        put_together(structure_of(model), model, lambda shard: shard[:2], keep=True)

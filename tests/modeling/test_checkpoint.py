"""Saving proves itself: what is saved gives the scores the model gave in memory, or saving fails."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from rewardlab.errors import ContractError
from rewardlab.modeling.checkpoint import Provenance, save_reward_model
from rewardlab.modeling.engine import score_sequences
from rewardlab.modeling.loading import load_reward_model
from rewardlab.modeling.preparing import prepare_for_training

SEQUENCES = [[1, 9, 10, 11, 2], [1, 20, 21, 2], [1, *range(30, 70), 2]]


def save(folder: Path, base: Path, change=lambda model: None):
    prepared = prepare_for_training(base, seed=0)
    change(prepared.model)
    provenance = Provenance(objective={"name": "bradley_terry"})
    result = save_reward_model(
        folder, prepared.model, prepared.tokenizer, prepared.template, max_length=64, provenance=provenance
    )
    return prepared.model, result


@pytest.mark.parametrize("base", ["decoder", "encoder"])
def test_saved_and_loaded_scores_are_equal(base_model: Path, minilm_path: Path, tmp_path: Path, base: str) -> None:
    model, result = save(tmp_path / "rm", base_model if base == "decoder" else minilm_path)
    assert result.ok
    loaded = load_reward_model(tmp_path / "rm")
    assert score_sequences(loaded.model, SEQUENCES) == score_sequences(model, SEQUENCES)
    assert (tmp_path / "rm" / "model.safetensors").exists()
    assert not list((tmp_path / "rm").glob("*.bin"))


def test_a_save_that_loses_the_head_fails(base_model: Path, tmp_path: Path) -> None:
    """A head that is not in the state dict under its name is what a careless adapter leaves behind."""

    def lose(model: torch.nn.Module) -> None:
        original = model.save_pretrained

        def without_head(folder: Path) -> None:
            weights = {k: v for k, v in model.state_dict().items() if not k.startswith("score")}
            original(folder, state_dict={**weights, "score.weight": torch.zeros_like(model.score.weight)})

        model.save_pretrained = without_head

    with pytest.raises(ContractError, match="does not give the scores the trained model gave"):
        save(tmp_path / "rm", base_model, lose)
    assert list((tmp_path / "rm").iterdir()) == []


def test_a_folder_with_a_contract_is_whole_whenever_the_save_is_broken_off(
    base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Saved over an earlier one, as a resumed run does, and broken off at each rename."""
    model, _ = save(tmp_path / "rm", base_model)
    earlier = score_sequences(model, SEQUENCES)
    real = os.replace

    class Killed(BaseException):
        """Nothing that any code would catch and clean up after but by `finally`."""

    for allowed in (0, 1, 2, 1000):
        moved: list[Path] = []

        def replace(source: Path, target: Path, moved: list[Path] = moved, allowed: int = allowed) -> None:
            out_of_aside = Path(source).parent.name == ".saving-model" and Path(target).parent.name == "rm"
            if out_of_aside and len(moved) >= allowed:
                raise Killed
            moved.extend([Path(target)] * out_of_aside)
            real(source, target)

        monkeypatch.setattr(os, "replace", replace)
        try:
            model, _ = save(tmp_path / "rm", base_model, lambda model: model.score.weight.data.mul_(2.0))
        except Killed:
            assert not (tmp_path / "rm" / "reward_contract.json").exists()
    assert moved[-1].name == "reward_contract.json"
    again = score_sequences(load_reward_model(tmp_path / "rm").model, SEQUENCES)
    assert again == score_sequences(model, SEQUENCES) != earlier

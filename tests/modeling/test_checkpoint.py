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
    torch.manual_seed(0)  # rows of tokens that the base lacks are drawn, too
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


class Killed(BaseException):
    """Nothing that any code would catch and clean up after but by `finally`."""


def broken_off(patch: pytest.MonkeyPatch, allowed: int) -> list[str]:
    """Let only so many files be moved out of the folder inside; returns the names of those that are."""
    moved: list[str] = []
    real = os.replace

    def replace(source: Path, target: Path) -> None:
        if Path(source).parent.name == ".saving-model" != Path(target).parent.name:
            if len(moved) >= allowed:
                raise Killed
            moved.append(Path(target).name)
        real(source, target)

    patch.setattr(os, "replace", replace)
    return moved


def doubled(model: torch.nn.Module) -> None:
    model.score.weight.data.mul_(2.0)


def test_a_folder_with_a_contract_is_whole_whenever_the_save_is_broken_off(
    base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other weights saved over earlier ones, and broken off at each rename."""
    model, _ = save(tmp_path / "rm", base_model)
    earlier = score_sequences(model, SEQUENCES)
    (tmp_path / "rm" / "tokenizer_config.json").unlink()
    for allowed in (0, 1, 1):
        with monkeypatch.context() as patch:
            broken_off(patch, allowed)
            with pytest.raises(Killed):
                save(tmp_path / "rm", base_model, doubled)
        assert not (tmp_path / "rm" / "reward_contract.json").exists()
    with monkeypatch.context() as patch:
        moved = broken_off(patch, 1000)
        model, _ = save(tmp_path / "rm", base_model, doubled)
    assert moved == ["reward_contract.json"]  # the others had been moved, and are not moved again
    again = score_sequences(load_reward_model(tmp_path / "rm").model, SEQUENCES)
    assert again == score_sequences(model, SEQUENCES) != earlier


def test_the_contract_stays_where_the_same_files_are_saved_again(
    base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a resumed run does whose training was complete."""
    model, _ = save(tmp_path / "rm", base_model)
    with monkeypatch.context() as patch:
        broken_off(patch, 0)
        with pytest.raises(Killed):
            save(tmp_path / "rm", base_model)
    loaded = load_reward_model(tmp_path / "rm")
    assert loaded.contract is not None
    assert score_sequences(loaded.model, SEQUENCES) == score_sequences(model, SEQUENCES)

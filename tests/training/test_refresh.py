"""What a refresh takes from the run that it repeats, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from rewardlab.config import build
from rewardlab.errors import CheckpointError, ConfigError
from rewardlab.modeling.contract import MOST_ANCESTORS, load_contract
from rewardlab.modeling.loading import fingerprint_of
from rewardlab.training.recipe import TrainRecipe, overrides_of
from rewardlab.training.refresh import OldRun, inheritance_told, read_old_run


@pytest.fixture
def old(reward_model: Path) -> OldRun:
    return read_old_run(reward_model)


def test_settings_are_those_of_the_run_but_for_its_length(old: OldRun, base_model: Path) -> None:
    arguments = {**old.arguments, "num_train_epochs": 3.0, "max_steps": 7, "weight_decay": 0.1, "label_smoothing": 0.2}
    changed = dataclasses.replace(old, arguments=arguments)
    settings = changed.settings()
    assert settings["learning_rate"] == 1e-3
    assert settings["max_length"] == 128
    assert settings["per_device_train_batch_size"] == 8
    assert (settings["mode"], settings["dtype"], settings["objective"]) == ("full", "float32", "bradley_terry")
    assert (settings["weight_decay"], settings["label_smoothing"]) == (0.1, 0.2)
    assert not settings.keys() & {"num_train_epochs", "max_steps", "output_dir", "disable_tqdm", "eval_strategy"}
    assert changed.not_repeated() == ["3 epochs", "max_steps = 7"]
    overrides = [*changed.overrides(str(base_model)), "learning_rate=0.5", "adam_beta2=0.9"]
    recipe = build(TrainRecipe, overrides=overrides, explicit={"data": ["new.jsonl"], "output": "out"})
    assert overrides_of(recipe)["label_smoothing"] == 0.2
    told = "\n".join(inheritance_told(changed, recipe))
    assert "weight_decay 0.1" in told
    assert "learning_rate 0.5 (was 0.001)" in told
    assert "adam_beta2 0.9 (was " in told
    assert "not inherited: 3 epochs, max_steps = 7" in told
    assert "one epoch" in told


def test_encoders_are_trained_whole_and_adapters_as_they_were(old: OldRun) -> None:
    encoder = dataclasses.replace(old, run={**old.run, "mode": "encoder"})
    assert encoder.settings()["mode"] == "full"
    lora = {"rank": 4, "alpha": 8.0}
    adapters = dataclasses.replace(old, run={**old.run, "mode": "lora", "lora": lora})
    assert adapters.settings()["lora"] == lora


def test_the_base_model_is_found_again(old: OldRun, base_model: Path, tmp_path: Path) -> None:
    assert old.run["base_fingerprint"] == fingerprint_of(base_model)
    assert old.base_model() == str(base_model.resolve())
    moved = shutil.copytree(base_model, tmp_path / "moved")
    assert old.base_model(str(moved)) == str(moved)
    (moved / "config.json").write_text((moved / "config.json").read_text() + "\n")
    with pytest.raises(CheckpointError, match="not the base model that"):
        old.base_model(str(moved))
    with pytest.raises(ConfigError, match="is the model that is to be replaced"):
        old.base_model(str(old.folder))
    gone = dataclasses.replace(old, run={**old.run, "base_path": str(tmp_path / "gone")})
    with pytest.raises(CheckpointError, match="is not to be had") as error:
        gone.base_model()
    assert "--model" in error.value.hint


def test_the_lineage_begins_with_the_old_model_and_ends(old: OldRun) -> None:
    (own,) = old.lineage()
    contract = load_contract(old.folder)
    assert contract is not None
    assert own["fingerprint"] == fingerprint_of(old.folder)
    assert own["data"]["train"] == {"num_groups": 32, "sha256": contract.data["train"]["sha256"]}
    assert own["held_out_accuracy"] == contract.held_out_metrics["accuracy"]
    assert str(old.folder.parent) not in json.dumps(own)
    many = dataclasses.replace(contract, lineage=[{"fingerprint": str(n)} for n in range(MOST_ANCESTORS)])
    line = dataclasses.replace(old, contract=many).lineage()
    assert [a["fingerprint"] for a in line] == [old.fingerprint, *(str(n) for n in range(MOST_ANCESTORS - 1))]


def test_what_cannot_be_refreshed_is_told(reward_model: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        read_old_run(tmp_path / "nowhere")
    plain = shutil.copytree(reward_model, tmp_path / "plain", ignore=shutil.ignore_patterns("training"))
    with pytest.raises(CheckpointError, match=r"run\.json is not there"):
        read_old_run(plain)
    broken = shutil.copytree(reward_model, tmp_path / "broken")
    (broken / "training" / "run.json").write_text("{")
    with pytest.raises(CheckpointError, match="not readable as JSON"):
        read_old_run(broken)
    (broken / "training" / "run.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"run\.json: not a run: there is no key base_model"):
        read_old_run(broken)

"""A config that asks for terabytes is refused before anything is allocated; every real one passes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from rewardlab.errors import CheckpointError
from rewardlab.modeling.declared_size import require_declared_size
from rewardlab.modeling.foreign_weights import load_whole
from rewardlab.modeling.loading import load_config, load_reward_model
from rewardlab.modeling.preparing import prepare_for_training
from rewardlab.scoring.implicit import load_policy


def check(folder: Path) -> None:
    require_declared_size(folder, AutoConfig.from_pretrained(folder), AutoModelForSequenceClassification)


@pytest.fixture
def copy(base_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base_model, tmp_path / "model"))


def edit(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_what_a_folder_holds_is_what_its_config_says(base_model: Path, reward_model: Path, minilm_path: Path) -> None:
    for folder in (base_model, reward_model, minilm_path):
        check(folder)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"vocab_size": 10**10}, "describes 320,"),
        ({"hidden_size": 10**7}, "weights, and the files hold"),
        ({"intermediate_size": 10**9}, "weights, and the files hold"),
        ({"num_hidden_layers": 2000, "layer_types": None}, "says 2,000 layers, there are"),
        ({"num_attention_heads": 0}, "describes no model: ZeroDivisionError"),
        ({"hidden_size": -4}, "describes no model: "),
        ({"vocab_size": 0}, "describes no model: "),
    ],
    ids=str,
)
def test_what_nobody_can_have_saved_is_refused(copy: Path, values: dict[str, object], said: str) -> None:
    edit(copy, **values)
    with pytest.raises(CheckpointError, match=said):
        check(copy)


@pytest.mark.parametrize("values", [{"vocab_size": 10**10}, {"num_attention_heads": 0}, {"num_hidden_layers": 10**9}])
def test_every_way_to_load_a_model_asks_first(reward_model: Path, base_model: Path, tmp_path: Path, values) -> None:
    trained, base = (shutil.copytree(one, tmp_path / one.name) for one in (reward_model, base_model))
    edit(trained, **values)
    edit(base, **values)
    for load in (
        lambda: load_reward_model(trained),
        lambda: prepare_for_training(base, seed=0),
        lambda: load_policy(base),
        lambda: load_whole(AutoModel, base, load_config(base)),
    ):
        with pytest.raises(CheckpointError, match=r"config\.json:? (describes|says)"):
            load()


def test_no_random_number_is_used_up(base_model: Path) -> None:
    """Else a run would not be the run that it was."""
    before = torch.get_rng_state()
    check(base_model)
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_packed_into_integers_count_as_many(copy: Path) -> None:
    """Of a quantized model: eight of four bits in each int32."""
    with safe_open(copy / "model.safetensors", framework="pt") as file:
        names = list(file.keys())
        packed = {name: torch.zeros(file.get_tensor(name).numel() // 8 + 1, dtype=torch.int32) for name in names}
    edit(copy, vocab_size=200_000, hidden_size=128)  # above what is always allowed
    save_file(packed, copy / "model.safetensors")
    with pytest.raises(CheckpointError, match="and the files hold"):
        check(copy)
    full = {"embedding": torch.zeros(200_000 * 128 // 8, dtype=torch.int32)}
    save_file(full, copy / "model.safetensors")
    check(copy)

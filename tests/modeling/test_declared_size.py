"""A config that asks for terabytes is refused before anything is allocated; every real one passes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoModelForSequenceClassification

from rewardlab.errors import CheckpointError
from rewardlab.modeling.declared_size import require_declared_size


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
        ({"num_hidden_layers": 10**6, "layer_types": None}, "says 1,000,000 layers"),
        ({"num_attention_heads": 0}, "describes no model: integer division"),
        ({"hidden_size": -4}, "describes no model: "),
        ({"vocab_size": 0}, "describes no model: "),
    ],
    ids=str,
)
def test_what_nobody_can_have_saved_is_refused(copy: Path, values: dict[str, object], said: str) -> None:
    edit(copy, **values)
    with pytest.raises(CheckpointError, match=said):
        check(copy)

"""The recipe: every field of the arguments under its own name, and only what was set is passed on."""

from __future__ import annotations

from pathlib import Path

import pytest

from rewardlab.config import build
from rewardlab.errors import ConfigError
from rewardlab.training.recipe import TrainRecipe, overrides_of

REQUIRED = {"model": "m", "data": ["d.jsonl"], "output": "out"}


def test_only_what_was_set_overrides_the_preset() -> None:
    assert overrides_of(build(TrainRecipe, explicit=REQUIRED)) == {}
    recipe = build(TrainRecipe, overrides=["learning_rate=3e-5", "report_to=tensorboard"], explicit=REQUIRED)
    assert overrides_of(recipe) == {"learning_rate": 3e-5, "report_to": "tensorboard"}


def test_yaml_and_nested_adapter_options(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("model: m\ndata: [a.jsonl, b.jsonl]\noutput: out\nmode: lora\nlora:\n  rank: 4\nmax_length: 300\n")
    recipe = build(TrainRecipe, recipe=path, overrides=["lora.alpha=8"])
    assert (recipe.lora.rank, recipe.lora.alpha, recipe.mode) == (4, 8, "lora")
    assert overrides_of(recipe) == {"max_length": 300}


@pytest.mark.parametrize(
    ("override", "nearest"), [("learning_rat=1", "learning_rate"), ("mod=full", "mode"), ("lora.rnak=3", "rank")]
)
def test_an_unknown_key_is_told_its_nearest(override: str, nearest: str) -> None:
    with pytest.raises(ConfigError) as error:
        build(TrainRecipe, overrides=[override], explicit=REQUIRED)
    assert nearest in str(error.value)


def test_what_rewardlab_decides_cannot_be_set() -> None:
    with pytest.raises(ConfigError):
        build(TrainRecipe, overrides=["remove_unused_columns=true"], explicit=REQUIRED)

"""``rewardlab train --plan``: from options and recipes to tables and JSON; it loads and writes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rewardlab.cli.main import main

CONFIG = {
    "model_type": "llama",
    "vocab_size": 400,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "pad_token_id": 0,
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model folder with a config alone."""
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


def test_the_table_has_a_column_for_each_launcher_and_what_fits(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert main(["train", "--model", str(model), "--plan", "--processes", "8", "--memory", "80GB"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ("ddp", "fsdp2", "zero2", "zero3", "gradients", "activations of 8,192 tokens"))
    assert "recommended: --launcher ddp --processes 8 --set tokens_per_batch=8192" in " ".join(out.split())
    assert "not measured on a GPU" in " ".join(out.split())
    assert sorted(tmp_path.rglob("*")) == before, "nothing is written"


def test_json_follows_the_recipe_and_its_overrides(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"model: {model}\nmode: lora\nlora: {{rank: 4}}\ntokens_per_batch: 2048\n")
    arguments = ["train", "--config", str(recipe), "--plan", "--json", "--set", "gradient_checkpointing=true"]
    assert main(arguments) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["mode"], record["tokens_per_batch"], record["gradient_checkpointing"]) == ("lora", 2048, True)
    assert list(record["devices"]) == ["ddp"]
    assert record["recommended"] is None, "nothing was said of the memory"


def test_too_little_memory_is_told_in_words(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--model", str(model), "--plan", "--memory", "1GB"]) == 0
    assert "fits nowhere" in capsys.readouterr().out


def test_memory_without_plan_is_refused(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--model", str(model), "--data", "x.jsonl", "--output", str(tmp_path / "rm"), "--memory", "80GB"]
    assert main(["train", *arguments]) == 2
    assert "--memory without --plan" in capsys.readouterr().err
    assert not (tmp_path / "rm").exists()

"""``rewardlab import``: what it prints, and its exit status."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rewardlab.cli.main import main
from rewardlab.types import PromptGroup


@pytest.fixture
def llama_factory(base_model: Path, tmp_path: Path) -> Path:
    """A LLaMA-Factory reward model: a causal model with TRL's value head beside it."""
    folder = Path(shutil.copytree(base_model, tmp_path / "lf"))
    head = {"v_head.summary.weight": torch.ones(1, 32), "v_head.summary.bias": torch.tensor([-0.5])}
    save_file(head, folder / "value_head.safetensors")
    return folder


@pytest.fixture(scope="module")
def heads(base_model: Path, pairs: list[PromptGroup], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model with two heads, made with ``rewardlab train``."""
    folder = tmp_path_factory.mktemp("heads")
    rows = [{"prompt": g.prompt, "chosen": g.completions[0], "rejected": g.completions[1]} for g in pairs[:20]]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = ["--data", str(folder / "pairs.jsonl"), "--eval-fraction", "0.25", "--output", str(folder / "rm")]
    settings = ["max_steps=2", "max_length=128", "disable_tqdm=true", "learning_rate=1e-3"]
    options = ["--dtype", "float32", "--ensemble-heads", "2", *[w for s in settings for w in ("--set", s)]]
    assert main(["train", "--model", str(base_model), *data, *options]) == 0
    return folder / "rm"


def test_what_it_prints(llama_factory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", str(llama_factory), "--output", str(tmp_path / "out"), "--device", "cpu"]) == 0
    captured = capsys.readouterr()
    assert "imported from llama-factory" in captured.out
    assert "score the same" in captured.out
    assert "changed: <|pad|>" in captured.err
    assert "their score is ours -0.5" in " ".join(captured.err.split())
    assert main(["verify", str(tmp_path / "out"), "--device", "cpu"]) == 0


def test_json(llama_factory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", str(llama_factory), "--output", str(tmp_path / "out"), "--device", "cpu", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["framework"] == "llama-factory"
    assert record["score_offset"] == -0.5
    assert record["max_difference"] <= record["tolerance"]
    assert record["path"] == str(tmp_path / "out")


def test_what_cannot_be_imported(base_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", str(base_model), "--output", str(tmp_path / "out")]) == 1
    assert "there is no trained head" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_output_in_use_is_bad_usage(llama_factory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", str(llama_factory), "--output", str(llama_factory)]) == 2
    assert "not an empty folder" in capsys.readouterr().err


def test_one_head_of_several(heads: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["verify", str(heads), "--json"]) == 0
    assert "ensemble heads" in [check["name"] for check in json.loads(capsys.readouterr().out)["checks"]]
    assert main(["import", str(heads), "--head", "1", "--output", str(tmp_path / "one")]) == 0
    assert "head 1 of 2 of" in capsys.readouterr().out
    assert main(["import", str(heads), "--head", "0", "--output", str(tmp_path / "zero"), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["head"], record["num_heads"], record["path"]) == (0, 2, str(tmp_path / "zero"))
    assert record["max_difference"] <= record["tolerance"]


def test_a_head_with_a_base_is_bad_usage(heads: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["import", str(heads), "--head", "1", "--base", "B", "--output", str(tmp_path / "one")]
    assert main(arguments) == 2
    assert "--base is for adapters of others" in capsys.readouterr().err

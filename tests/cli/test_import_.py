"""``rewardlab import``: what it prints, and its exit status."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rewardlab.cli.main import main


@pytest.fixture
def llama_factory(base_model: Path, tmp_path: Path) -> Path:
    """A LLaMA-Factory reward model: a causal model with TRL's value head beside it."""
    folder = Path(shutil.copytree(base_model, tmp_path / "lf"))
    head = {"v_head.summary.weight": torch.ones(1, 32), "v_head.summary.bias": torch.tensor([-0.5])}
    save_file(head, folder / "value_head.safetensors")
    return folder


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

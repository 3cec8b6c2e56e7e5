"""Whose model a folder holds, and what is refused. That the scores are theirs is tests/modeling/test_importing.py's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

from rewardlab.errors import CheckpointError, ConfigError
from rewardlab.modeling.foreign import read_foreign

CPU = torch.device("cpu")
HEAD = {"v_head.summary.weight": torch.ones(1, 32), "v_head.summary.bias": torch.zeros(1)}


@pytest.fixture
def folder(base_model: Path, tmp_path: Path) -> Path:
    """A copy of a base decoder without any head."""
    return Path(shutil.copytree(base_model, tmp_path / "model"))


def set_config(folder: Path, **changes: Any) -> None:
    record = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**record, **changes}))


def add_tensors(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    path = folder / "model.safetensors"
    save_file({**load_file(path), **tensors}, path, metadata={"format": "pt"})


def llama_factory(folder: Path) -> None:
    save_file(HEAD, folder / "value_head.safetensors")


def openrlhf(folder: Path) -> None:
    set_config(folder, value_head_prefix="score", normalize_reward=True, mean=1.0, std=3.0)
    add_tensors(folder, {"score.weight": torch.ones(1, 32)})


def classifier(folder: Path) -> None:
    set_config(folder, num_labels=1)
    add_tensors(folder, {"score.weight": torch.ones(1, 32)})


@pytest.mark.parametrize(
    ("write", "framework"), [(llama_factory, "llama-factory"), (openrlhf, "openrlhf"), (classifier, "transformers")]
)
def test_the_framework_is_told_by_the_files(folder: Path, write: Callable[[Path], None], framework: str) -> None:
    write(folder)
    foreign = read_foreign(folder, base=None, device=CPU)
    assert foreign.framework == framework
    assert foreign.converted().score.weight.tolist() == [[1.0] * 32]


def test_what_each_read_out_passes_over(folder: Path) -> None:
    """The base's pad is its eos (2): transformers passes over it at the end, an attention mask does not.

    With a head of ones the score is the sum of the hidden state, so an EOS more is another score, or the same.
    """
    ids = [5, 6, 7, 8]
    for write, passes_over in [(llama_factory, False), (openrlhf, False), (classifier, True)]:
        copy = Path(shutil.copytree(folder, folder.parent / write.__name__))
        write(copy)
        foreign = read_foreign(copy, base=None, device=CPU)
        same = foreign.score([*ids, 2]) == pytest.approx(foreign.score(ids), abs=1e-4)
        assert (write.__name__, same, foreign.skipped_id) == (
            write.__name__,
            passes_over,
            2 if passes_over else None,
        )


@pytest.mark.parametrize("name", ["value_head.bin", "adapter_model.bin"])
def test_a_pickle_is_refused(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"never read")
    with pytest.raises(CheckpointError, match=f"{name} is pickled"):
        read_foreign(folder, base=None, device=CPU)


def test_pickled_weights_beside_a_head_are_refused(folder: Path) -> None:
    llama_factory(folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="no weights"):
        read_foreign(folder, base=None, device=CPU)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ({"v_head.summary.weight": torch.ones(1, 16), "v_head.summary.bias": torch.zeros(1)}, r"weight \(1, 16\)"),
        ({"v_head.summary.weight": torch.ones(2, 32), "v_head.summary.bias": torch.zeros(2)}, r"weight \(2, 32\)"),
        ({"v_head.weight": torch.ones(1, 32)}, "expected v_head.summary.weight, found v_head.weight"),
        ({**HEAD, "v_head.summary.bias": torch.tensor([float("nan")])}, "NaN"),
    ],
)
def test_a_value_head_that_is_none_is_refused(folder: Path, head: dict[str, torch.Tensor], message: str) -> None:
    save_file(head, folder / "value_head.safetensors")
    with pytest.raises(CheckpointError, match=message):
        read_foreign(folder, base=None, device=CPU)


def test_openrlhf_without_its_head_is_refused(folder: Path) -> None:
    set_config(folder, value_head_prefix="value_head")
    add_tensors(folder, {"score.weight": torch.ones(1, 32)})
    with pytest.raises(CheckpointError, match=r"expected value_head\.weight"):
        read_foreign(folder, base=None, device=CPU)


@pytest.mark.parametrize("changes", [{"mean": 1.0}, {"mean": 0.0, "std": 0.0}])
def test_openrlhf_statistics_that_cannot_be_used_are_refused(folder: Path, changes: dict[str, float]) -> None:
    add_tensors(folder, {"value_head.weight": torch.ones(1, 32)})
    set_config(folder, **changes)
    with pytest.raises(CheckpointError, match="std above 0"):
        read_foreign(folder, base=None, device=CPU)


def test_a_base_model_is_refused_with_what_was_found(folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no trained head.*found.*model\.safetensors.*Qwen3ForCausalLM"):
        read_foreign(folder, base=None, device=CPU)


def test_a_folder_of_anything_is_refused_with_what_was_found(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(CheckpointError, match=r"found notes\.txt"):
        read_foreign(tmp_path, base=None, device=CPU)


def test_a_head_of_two_classes_is_refused(folder: Path) -> None:
    AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2).save_pretrained(folder)
    with pytest.raises(CheckpointError, match="2 labels"):
        read_foreign(folder, base=None, device=CPU)


def test_a_token_classifier_is_refused(folder: Path) -> None:
    """Qwen3 calls the head of both kinds ``score``: read as the other kind, it would give plausible numbers."""
    AutoModelForTokenClassification.from_pretrained(folder, num_labels=1).save_pretrained(folder)
    with pytest.raises(CheckpointError, match="a number to every token"):
        read_foreign(folder, base=None, device=CPU)


def test_weights_of_another_shape_are_refused(folder: Path) -> None:
    set_config(folder, num_labels=1)
    add_tensors(folder, {"score.weight": torch.ones(1, 16)})
    with pytest.raises(CheckpointError, match="of another shape"):
        read_foreign(folder, base=None, device=CPU)


def test_our_own_model_is_refused(folder: Path) -> None:
    (folder / "reward_contract.json").write_text("{}")
    with pytest.raises(CheckpointError, match="already a rewardlab model"):
        read_foreign(folder, base=None, device=CPU)


def test_a_base_for_what_is_no_adapter_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="only an adapter has a base model"):
        read_foreign(folder, base=folder, device=CPU)


@pytest.mark.parametrize(("named", "error"), [(None, ConfigError), ("/nowhere/base", CheckpointError)])
def test_an_adapter_whose_base_is_not_there_says_so(tmp_path: Path, named: str | None, error: type[Exception]) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": named}))
    with pytest.raises(error, match="--base"):
        read_foreign(tmp_path, base=None, device=CPU)

"""Verification passes on what was saved and notices each way in which a checkpoint stops giving its scores."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from rewardlab.errors import ContractError
from rewardlab.modeling.contract import FILE_NAME
from rewardlab.modeling.loading import load_reward_model
from rewardlab.modeling.verification import float32_tolerance, require_contract_holds, verify_checkpoint


@pytest.fixture
def copy(reward_model: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "copy"
    shutil.copytree(reward_model, folder, ignore=shutil.ignore_patterns("training"))
    return folder


def failed(folder: Path) -> set[str]:
    return {check.name for check in verify_checkpoint(folder).checks if not check.ok}


def test_a_trained_checkpoint_passes_every_check(reward_model: Path) -> None:
    result = verify_checkpoint(reward_model)
    assert result.ok
    assert result.has_contract
    assert {check.name for check in result.checks} == {
        "chat template unchanged",
        "text gives the stored ids",
        "alone",
        "padded on the right",
        "padded on the left",
        "in batches of 2",
        "in batches of 3",
        "in one batch under the token budget",
        "in reverse order",
        "packed without padding",
        "packed, shared prefixes computed once",
        "through plain transformers",
    }
    assert all(check.max_difference <= 1e-5 for check in result.checks)
    record = result.to_dict()
    assert record["ok"] is True
    assert set(record["checks"][0]) == {"name", "max_difference", "tolerance", "ok"}


def test_bfloat16_stays_within_its_measured_tolerance(reward_model: Path) -> None:
    result = verify_checkpoint(reward_model, dtype="bfloat16")
    assert result.ok
    assert max(check.max_difference for check in result.checks) > 1e-5  # it is not float32


def test_a_changed_head_is_noticed(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    weights["score.weight"] *= 1.01
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    assert {"alone", "through plain transformers"} <= failed(copy)
    with pytest.raises(ContractError, match="probes alone differ"):
        require_contract_holds(load_reward_model(copy))


def test_a_changed_template_is_noticed_and_told_apart(copy: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(copy)
    tokenizer.chat_template = "<bos>" + str(tokenizer.chat_template)  # a double BOS
    tokenizer.save_pretrained(copy)
    assert failed(copy) == {"chat template unchanged", "text gives the stored ids", "through plain transformers"}
    with pytest.raises(ContractError, match="text gives the stored ids"):
        require_contract_holds(load_reward_model(copy))


def test_a_pad_that_is_the_eos_is_noticed(copy: Path) -> None:
    """The classic: someone sets pad = eos in the config, and transformers reads one token early."""
    config = json.loads((copy / "config.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(copy)
    (copy / "config.json").write_text(json.dumps({**config, "pad_token_id": tokenizer.eos_token_id}))
    assert failed(copy) == {"through plain transformers"}


def test_a_model_without_contract_is_compared_with_transformers(copy: Path) -> None:
    (copy / FILE_NAME).unlink()
    result = verify_checkpoint(copy)
    assert result.ok
    assert not result.has_contract
    assert any("no reward_contract.json" in note for note in result.notes)


def test_tolerance_grows_with_the_scores() -> None:
    assert float32_tolerance([0.1, -0.5]) == 1e-5
    assert float32_tolerance([0.1, -30.0]) == pytest.approx(3e-4)

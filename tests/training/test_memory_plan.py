"""The plan against tensors of a real step, against arithmetic by hand, and against itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from rewardlab.errors import CheckpointError, ConfigError
from rewardlab.modeling.preparing import LoraOptions
from rewardlab.training.memory_plan import RUNTIME_BYTES, MemoryPlan, as_record, parse_bytes, plan_memory

CONFIG = {
    "model_type": "llama",
    "vocab_size": 400,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder without weights."""
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path


def test_weights_gradients_and_moments_are_those_of_a_real_step(folder: Path) -> None:
    parts = plan_memory(folder, dtype="float32").devices["ddp"].parts
    model = AutoModelForSequenceClassification.from_config(AutoConfig.from_pretrained(folder, num_labels=1))
    optimizer = torch.optim.AdamW(model.parameters())
    model(input_ids=torch.ones(1, 4, dtype=torch.long)).logits.sum().backward()
    optimizer.step()
    assert parts["weights, trained"] == sum(p.nbytes for p in model.parameters())
    assert parts["gradients"] == sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)
    moments = sum(state[name].nbytes for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq"))
    assert parts["AdamW's two moments"] == moments
    assert parts["communication"] == parts["weights, frozen"] == 0


def test_full_training_on_four_devices_by_hand(folder: Path) -> None:
    plan = plan_memory(folder, processes=4)
    count = plan.size.parameters
    # Bytes a parameter: weights, gradients, moments, DeepSpeed's own float32 weights.
    expected = {
        "ddp": (4, 4, 8, 0),
        "fsdp2": (4 / 4, 4 / 4, 8 / 4, 0),
        "zero2": (2, 2 / 4, 8 / 4, 4 / 4),
        "zero3": (2 / 4, 2 / 4, 8 / 4, 4 / 4),
    }
    names = ("weights, trained", "gradients", "AdamW's two moments", "DeepSpeed's float32 weights")
    for launcher, device in plan.devices.items():
        found = tuple(device.parts[name] / count for name in names)
        assert found == pytest.approx(expected[launcher], rel=1e-3), launcher
        assert device.parts["CUDA, NCCL, fragmentation (assumed)"] == RUNTIME_BYTES
    assert plan.devices["ddp"].parts["communication"] == 4 * count, "DDP's buckets hold the gradients once more"
    assert plan.checkpoint_bytes == {"ddp": 12 * count, "fsdp2": 12 * count, "zero2": 16 * count, "zero3": 16 * count}


def test_in_float32_zero3_needs_no_other_weights_and_zero2_does(folder: Path) -> None:
    plan = plan_memory(folder, processes=2, dtype="float32")
    own = {name: device.parts["DeepSpeed's float32 weights"] for name, device in plan.devices.items()}
    assert own == {"ddp": 0, "fsdp2": 0, "zero2": 2 * plan.size.parameters, "zero3": 0}


def test_adapters_take_gradients_and_moments_for_themselves_alone(folder: Path) -> None:
    plan = plan_memory(folder, processes=2, mode="lora", lora=LoraOptions(rank=4))
    size, parts = plan.size, plan.devices["ddp"].parts
    assert 0 < size.trained < size.parameters / 4
    assert parts["gradients"] == 4 * size.trained
    assert parts["weights, frozen"] == 4 * (size.parameters - size.trained)
    wider = plan_memory(folder, mode="lora", lora=LoraOptions(rank=8)).size
    head = 64
    assert wider.trained - head == 2 * (size.trained - head)


def test_a_head_alone_keeps_nothing_of_the_trunk(folder: Path) -> None:
    whole, head = (plan_memory(folder, mode=mode).devices["ddp"] for mode in ("full", "head_only"))
    assert head.parts["gradients"] == 4 * 64
    assert head.activations(4096, checkpointing=False) < 0.6 * whole.activations(4096, checkpointing=False)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_largest_budget_fits_and_the_next_does_not(folder: Path, checkpointing: bool) -> None:
    device = plan_memory(folder).devices["ddp"]
    memory = device.fixed(checkpointing=checkpointing) + 50_000_000
    budget = device.largest_budget(memory, checkpointing=checkpointing)
    assert budget
    assert device.total(budget, checkpointing=checkpointing) <= memory
    assert device.total(budget + 256, checkpointing=checkpointing) > memory
    assert device.largest_budget(1000, checkpointing=checkpointing) == 0


def test_checkpointing_needs_less_for_the_same_tokens(folder: Path) -> None:
    for device in plan_memory(folder, processes=2).devices.values():
        assert device.total(8192, checkpointing=True) < device.total(8192, checkpointing=False)


def test_the_simplest_that_fits_is_recommended(folder: Path) -> None:
    plan = plan_memory(folder, processes=8)

    def recommended(memory: float, tokens: int = 8192) -> tuple[str, bool] | None:
        found = plan.recommended(int(memory), longest=512, tokens=tokens)
        return None if found is None else (found.launcher, found.checkpointing)

    need = {
        (name, checkpointing): device.total(8192, checkpointing=checkpointing)
        for name, device in plan.devices.items()
        for checkpointing in (False, True)
    }
    assert recommended(1e12) == ("ddp", False)
    assert recommended(need["ddp", False] - 1) == ("fsdp2", False)
    least = min(need.values())
    assert recommended(least) == min(need, key=lambda key: need[key])
    assert recommended(RUNTIME_BYTES) is None, "not even one sequence"


def test_the_record_is_json_and_says_the_same(folder: Path) -> None:
    plan: MemoryPlan = plan_memory(folder, processes=2)
    record = as_record(plan, tokens=1024, checkpointing=True, memory=10**10, longest=512)
    assert json.loads(json.dumps(record)) == record
    device = record["devices"]["zero3"]
    saved = plan.devices["zero3"].saved_by_checkpointing
    assert device["total"] == sum(device["parts"].values()) + device["activations"] - saved
    assert record["recommended"] == {"launcher": "ddp", "gradient_checkpointing": False, "tokens_per_batch": 1024}


@pytest.mark.parametrize(
    ("text", "expected"), [("80GB", 80 * 10**9), ("79.5 GiB", int(79.5 * 2**30)), ("1000", 1000), ("2tb", 2 * 10**12)]
)
def test_sizes(text: str, expected: int) -> None:
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "GB", "80 apples", "-1GB", "1e9"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="no size") as caught:
        parse_bytes(text)
    assert "80GB" in caught.value.hint


def test_what_cannot_be_planned_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="4-bit"):
        plan_memory(folder, mode="lora", lora=LoraOptions(load_in_4bit=True))
    with pytest.raises(ConfigError, match="--processes 0"):
        plan_memory(folder, processes=0)
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        plan_memory(tmp_path / "nothing-here")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "whisper"}))
    with pytest.raises(CheckpointError, match="no plan for a whisper model"):
        plan_memory(tmp_path)


def test_of_a_hub_id_the_config_alone_is_fetched(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def download(name: str, file: str) -> str:
        asked.append((name, file))
        return str(folder / file)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert plan_memory("some/model").size.parameters > 0
    assert asked == [("some/model", "config.json")]

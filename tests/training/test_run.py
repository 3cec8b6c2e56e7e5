"""A whole run: presets, ledger, quarantine, resume, and a checkpoint that was loaded again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from rewardlab.data.ledger import Ledger
from rewardlab.errors import ConfigError, DataError
from rewardlab.modeling.contract import load_contract
from rewardlab.scoring.scorer import Scorer
from rewardlab.training.run import bfloat16_is_faster, train_reward_model
from rewardlab.types import Pair, PromptGroup

FAST = {"max_length": 128, "disable_tqdm": True, "learning_rate": 1e-3}


def ledger_of(groups: list[PromptGroup]) -> Ledger:
    ledger = Ledger()
    for _ in groups:
        ledger.use()
    return ledger


def test_what_a_run_leaves_behind(reward_model: Path) -> None:
    names = {path.name for path in reward_model.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "reward_contract.json", "training"} <= names
    history = json.loads((reward_model / "training" / "log_history.json").read_text())
    assert any("eval_accuracy" in entry for entry in history)
    assert (reward_model / "training" / "arguments.json").exists()


def test_encoder_gets_its_preset_and_rows_are_accounted_for(
    minilm_path: Path, tmp_path: Path, pairs: list[PromptGroup]
) -> None:
    too_long = PromptGroup("Hi", ["good", "word " * 400], [Pair()], source="pairs.jsonl:9")
    alike = PromptGroup("Hi", ["Same", "same"], [Pair()])  # the tokenizer lowers case
    groups = [*pairs[:14], too_long, alike]
    ledger = ledger_of(groups)
    said: list[str] = []
    result = train_reward_model(
        model=minilm_path,
        train_groups=groups,
        output_dir=tmp_path / "rm",
        dtype="float32",
        overrides={"max_length": 64, "disable_tqdm": True, "max_steps": 1},
        max_bad_fraction=0.1,
        ledger=ledger,
        report=said.append,
    )
    assert result.mode == "encoder"
    assert result.saved.held_out is None
    assert any("learning rate 0.0001" in line for line in said)
    rows = ledger.to_dict()["rows"]
    assert rows == {"read": 16, "used": 14, "quarantined": 1, "dropped": 1, "truncated": 0}
    line = json.loads((tmp_path / "rm" / "training" / "quarantine.jsonl").read_text())
    assert (line["file"], line["line"]) == ("pairs.jsonl", 9)
    contract = load_contract(tmp_path / "rm")
    assert contract is not None
    assert contract.reference is not None
    assert contract.reference.source == "training"
    assert contract.read_out == "pooled by the architecture"
    assert contract.training["mode"] == "encoder"


def test_too_much_that_cannot_be_encoded_stops_the_run(
    base_model: Path, tmp_path: Path, pairs: list[PromptGroup]
) -> None:
    groups = [*pairs[:4], PromptGroup("Hi", ["good", "word " * 400], [Pair()], source="pairs.jsonl:9")]
    with pytest.raises(DataError, match="1 of 5 rows cannot be used, at most 5% may be"):
        train_reward_model(model=base_model, train_groups=groups, output_dir=tmp_path / "rm", overrides=FAST)


@pytest.mark.parametrize("mode", ["lora", "head_only"])
def test_other_modes_end_in_a_plain_verified_checkpoint(
    base_model: Path, tmp_path: Path, pairs: list[PromptGroup], mode: str
) -> None:
    result = train_reward_model(
        model=base_model,
        train_groups=pairs[:16],
        eval_groups=pairs[16:24],
        output_dir=tmp_path / "rm",
        mode=mode,  # type: ignore[arg-type]
        dtype="float32",
        overrides={**FAST, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1},
    )
    assert result.saved.verification.ok
    assert result.mode == mode
    assert not (tmp_path / "rm" / "adapter_config.json").exists()
    assert len(set(Scorer.from_pretrained(tmp_path / "rm").score(["Hi"] * 2, ["a", "the sea"]))) == 2


def test_a_run_in_a_used_folder_is_refused_and_can_be_resumed(
    base_model: Path, tmp_path: Path, pairs: list[PromptGroup]
) -> None:
    options = {**FAST, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1, "save_steps": 2}

    def run(steps: int, *, resume: bool = False, groups: list[PromptGroup] | None = None):
        return train_reward_model(
            model=base_model,
            train_groups=groups or pairs[:32],
            output_dir=tmp_path / "rm",
            dtype="float32",
            overrides={**options, "max_steps": steps, "lr_scheduler_type": "constant"},
            resume=resume,
        )

    run(2)
    with pytest.raises(ConfigError, match="not an empty folder"):
        run(4)
    (tmp_path / "rm" / "training" / "checkpoint-9").mkdir()  # what a kill while saving leaves
    result = run(4, resume=True)
    assert result.log_history[-1]["step"] == 4
    assert result.saved.verification.ok
    assert any(entry.get("step") == 2 for entry in result.log_history)  # went on from checkpoint-2, not from the start
    with pytest.raises(ConfigError, match=r"the run in .* is another one: train_sha256 was"):
        run(6, resume=True, groups=pairs[:16])


def test_resume_never_writes_over_what_is_no_run(base_model: Path, tmp_path: Path, pairs: list[PromptGroup]) -> None:
    """As in `--output` equal to `--model`, which would replace the base model."""
    folder = tmp_path / "base"
    shutil.copytree(base_model, folder)
    with pytest.raises(ConfigError, match="holds no run"):
        train_reward_model(model=folder, train_groups=pairs[:4], output_dir=folder, overrides=FAST, resume=True)


def test_held_out_ties_are_evaluated_and_held_out_rows_accounted_for(
    base_model: Path, tmp_path: Path, pairs: list[PromptGroup]
) -> None:
    """A pair whose sides give the same ids is a tie in an evaluation, here and in `rewardlab evaluate`."""
    tie = PromptGroup("Hi", ["same", "same"], [Pair()])
    too_long = PromptGroup("Hi", ["good", "word " * 400], [Pair()])
    held_out = [*pairs[8:12], tie, too_long]
    ledger, eval_ledger = ledger_of(pairs[:8]), ledger_of(held_out)
    result = train_reward_model(
        model=base_model,
        train_groups=pairs[:8],
        eval_groups=held_out,
        output_dir=tmp_path / "rm",
        overrides={**FAST, "max_steps": 1},
        max_bad_fraction=0.5,
        ledger=ledger,
        eval_ledger=eval_ledger,
    )
    assert result.saved.held_out is not None
    found = result.saved.held_out.pairs
    assert found is not None
    assert (found.num_pairs, found.ties) == (5, 1)
    assert eval_ledger.to_dict()["reasons"] == {"completion too long": 1}
    assert ledger.to_dict()["rows"]["used"] == 8


@pytest.mark.parametrize(
    ("options", "message"),
    [({"mode": "LoRA"}, "unknown mode 'LoRA'"), ({"overrides": {"lerning_rate": 1}}, "no field 'lerning_rate'")],
)
def test_wrong_options_are_named(
    base_model: Path, tmp_path: Path, pairs: list[PromptGroup], options: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        train_reward_model(model=base_model, train_groups=pairs[:4], output_dir=tmp_path / "rm", **options)  # type: ignore[arg-type]


def test_max_length_beyond_the_positions_is_refused(base_model: Path, tmp_path: Path, pairs: list[PromptGroup]) -> None:
    with pytest.raises(ConfigError, match="max_length 9999 is beyond the model's 512 positions"):
        train_reward_model(
            model=base_model, train_groups=pairs[:4], output_dir=tmp_path / "rm", overrides={"max_length": 9999}
        )


def test_bfloat16_probe_answers() -> None:
    assert bfloat16_is_faster() in (True, False)
    if not torch.cuda.is_available() and not torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
        assert not bfloat16_is_faster()

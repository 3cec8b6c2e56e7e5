"""What cannot be trusted is refused with its reason; what others saved loads, and transformers' rule is matched."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from rewardlab.errors import CheckpointError, ConfigError, ContractError
from rewardlab.modeling.contract import FILE_NAME
from rewardlab.modeling.engine import score_sequences
from rewardlab.modeling.loading import load_reward_model, resolve_folder


@pytest.fixture
def copy(reward_model: Path, tmp_path: Path) -> Path:
    """A copy of a trained reward model, to be damaged."""
    folder = tmp_path / "copy"
    shutil.copytree(reward_model, folder, ignore=shutil.ignore_patterns("training"))
    return folder


def edit_config(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def edit_weights(folder: Path, change) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_our_own_checkpoint_loads_without_assumptions(reward_model: Path) -> None:
    loaded = load_reward_model(reward_model)
    assert loaded.notes == ()
    assert loaded.contract is not None
    assert loaded.max_length == loaded.contract.max_length == 128
    assert loaded.model.config.problem_type == "regression"
    assert loaded.model.config.architectures == ["Qwen3ForSequenceClassification"]
    assert loaded.model.config.pad_token_id != loaded.tokenizer.eos_token_id
    assert not loaded.model.training


def test_a_base_model_has_no_trained_head(base_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "base"
    shutil.copytree(base_model, folder)
    edit_config(folder, num_labels=1)
    with pytest.raises(CheckpointError, match=r"no trained head.*score\.weight"):
        load_reward_model(folder)


def test_a_language_model_is_told_from_a_classifier(base_model: Path) -> None:
    """As most are, without a word on labels: two, says the config."""
    with pytest.raises(CheckpointError, match=r"a language model \(Qwen3ForCausalLM\) without a reward model's head"):
        load_reward_model(base_model)


def test_a_lost_head_is_refused(copy: Path) -> None:
    """What a LoRA run without modules_to_save leaves behind: all weights but the head's."""
    edit_weights(copy, lambda weights: weights.pop("score.weight"))
    with pytest.raises(CheckpointError, match="no trained head"):
        load_reward_model(copy)


def test_missing_trunk_weights_are_refused(copy: Path) -> None:
    edit_weights(copy, lambda weights: weights.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(CheckpointError, match="weights are missing"):
        load_reward_model(copy)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(copy: Path, value: float) -> None:
    def spoil(weights: dict[str, torch.Tensor]) -> None:
        weights["model.layers.0.mlp.up_proj.weight"][3, 5] = value

    edit_weights(copy, spoil)
    with pytest.raises(CheckpointError, match=r"model\.layers\.0\.mlp\.up_proj\.weight holds 1 NaN or infinite"):
        load_reward_model(copy)


def test_pickled_weights_are_refused_and_never_opened(copy: Path, tmp_path: Path) -> None:
    """The pickle would create a file when loaded; it must not exist afterwards."""
    (copy / "model.safetensors").unlink()
    trap = tmp_path / "executed"

    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (trap,))

    torch.save({"score.weight": Trap()}, copy / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pickled \(pytorch_model\.bin\)"):
        load_reward_model(copy)
    assert not trap.exists()


def test_remote_code_is_refused_and_never_run(copy: Path, tmp_path: Path) -> None:
    trap = tmp_path / "executed"
    (copy / "modeling_trap.py").write_text(f"from pathlib import Path\nPath({str(trap)!r}).touch()\n")
    edit_config(copy, model_type="trap", auto_map={"AutoConfig": "modeling_trap.TrapConfig"})
    with pytest.raises(CheckpointError, match=r"'trap' runs Python code") as error:
        load_reward_model(copy)
    assert "--trust-remote-code" in error.value.hint
    assert not trap.exists()


def test_two_labels_are_refused(copy: Path) -> None:
    edit_config(copy, id2label={"0": "a", "1": "b"})
    with pytest.raises(CheckpointError, match="2 labels"):
        load_reward_model(copy)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", "{", "not readable as JSON"),
        ("config.json", '{"model_type": "no-such-model"}', "no-such-model"),
        ("tokenizer.json", "{", "tokenizer does not load"),
        (FILE_NAME, "{", "not readable as JSON"),
        (FILE_NAME, '{"version": 99}', "version 1, got 99"),
        (FILE_NAME, '{"version": 1}', "not a whole contract"),
    ],
)
def test_broken_files_are_named(copy: Path, name: str, content: str, message: str) -> None:
    (copy / name).write_text(content)
    with pytest.raises(CheckpointError, match=message):
        load_reward_model(copy)


def test_no_weights_no_folder_no_config(copy: Path, tmp_path: Path) -> None:
    (copy / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no weights"):
        load_reward_model(copy)
    (copy / "config.json").rename(copy / "adapter_config.json")
    with pytest.raises(CheckpointError, match="only a PEFT adapter"):
        load_reward_model(copy)
    with pytest.raises(CheckpointError, match="no such folder"):
        resolve_folder(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="not to be had from the hub"):
        resolve_folder("nobody/no-such-model")


def test_unknown_dtype_is_refused(reward_model: Path) -> None:
    with pytest.raises(ConfigError, match="unknown dtype 'int4'"):
        load_reward_model(reward_model, dtype="int4")


def test_a_contract_without_the_dtype_says_so(reward_model: Path) -> None:
    contract = load_reward_model(reward_model).contract
    assert contract is not None
    with pytest.raises(ContractError, match="no tolerance for dtype int4"):
        contract.tolerance("int4")


def test_bfloat16_keeps_the_float32_head(reward_model: Path) -> None:
    saved = load_file(reward_model / "model.safetensors")["score.weight"]
    loaded = load_reward_model(reward_model, dtype="bfloat16")
    assert loaded.dtype == "bfloat16"
    assert torch.equal(loaded.model.score.weight.cpu(), saved)


def test_fingerprint_follows_the_content(reward_model: Path, copy: Path) -> None:
    assert load_reward_model(copy).fingerprint == load_reward_model(reward_model).fingerprint
    edit_weights(copy, lambda weights: weights["score.weight"].mul_(2))
    assert load_reward_model(copy).fingerprint != load_reward_model(reward_model).fingerprint


def test_a_model_of_others_whose_pad_is_its_eos(copy: Path) -> None:
    """TRL's fallback. transformers reads one token before the end; we match it, and say so."""
    (copy / FILE_NAME).unlink()
    tokenizer = AutoTokenizer.from_pretrained(copy)
    edit_config(copy, pad_token_id=tokenizer.eos_token_id)
    loaded = load_reward_model(copy)
    assert any("pad_token_id" in note and "end token" in note for note in loaded.notes)
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Paris"}], return_dict=False
    )
    model = AutoModelForSequenceClassification.from_pretrained(copy).eval()
    with torch.inference_mode():
        theirs = model(torch.tensor([ids])).logits[0, 0].item()
    sequences = [ids, [*ids[:-1], *ids[3:]]]
    assert score_sequences(loaded.model, sequences)[0] == pytest.approx(theirs, abs=1e-5)


def test_a_model_of_others_without_a_pad_or_template(copy: Path) -> None:
    """Transformers reads the last id of an unpadded row; batches of ours must give the same."""
    (copy / FILE_NAME).unlink()
    (copy / "chat_template.jinja").unlink()
    edit_config(copy, pad_token_id=None)
    loaded = load_reward_model(copy)
    assert any("no pad_token_id" in note for note in loaded.notes)
    assert any("no chat template" in note for note in loaded.notes)
    model = AutoModelForSequenceClassification.from_pretrained(copy).eval()
    sequences = [[1, 9, 10, 2], [1, 9, 10, 11, 12, 13, 2]]
    with torch.inference_mode():
        theirs = [model(torch.tensor([ids])).logits[0, 0].item() for ids in sequences]
    assert score_sequences(loaded.model, sequences) == pytest.approx(theirs, abs=1e-5)


def test_a_model_of_others_whose_template_asks_the_clock(copy: Path) -> None:
    """Their template is left as it is, and that scores will change with the day is told."""
    (copy / FILE_NAME).unlink()
    path = copy / "chat_template.jinja"
    template = "{{ strftime_now('%d %b %Y') }}" + path.read_text()
    path.write_text(template)
    loaded = load_reward_model(copy)
    assert loaded.tokenizer.chat_template == template
    assert any("on another day" in note for note in loaded.notes)

"""Importing: checkpoints are written here as each framework writes them, scored here by its rule, and imported.

The oracle of every score is in this file, in plain torch, transformers or PEFT: none of the importer's code.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    LlamaConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

from rewardlab.errors import CheckpointError, ConfigError, ContractError
from rewardlab.modeling import importing
from rewardlab.modeling.contract import FILE_NAME, load_contract
from rewardlab.modeling.importing import import_reward_model
from rewardlab.scoring.scorer import Scorer

peft = pytest.importorskip("peft")

QUESTION = "What is the capital of France?"
ANSWERS = ["The capital of France is Paris.", "No.", "I am sorry, but I cannot help with that request. " * 3]
MESSAGES = [[{"role": "user", "content": QUESTION}, {"role": "assistant", "content": answer}] for answer in ANSWERS]
ENDS_WITH_EOS = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
)


def tiny(config_class: type, auto: Any = AutoModelForCausalLM, *, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A tiny model whose weights are large enough for scores to differ between texts."""
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    if config_class is not BertConfig:
        shape["num_key_value_heads"] = 2
    special = {"vocab_size": 320, "max_position_embeddings": 512, "bos_token_id": 1, "eos_token_id": 2}
    torch.manual_seed(seed)
    model = auto.from_config(config_class(**{**shape, **special, "pad_token_id": None, **changes}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def rendered(tokenizer: Any, messages: Any) -> list[int]:
    return tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)


def scores_of(folder: Path) -> list[float]:
    scorer = Scorer.from_pretrained(folder, device="cpu")
    return scorer.score([QUESTION] * len(ANSWERS), ANSWERS)


def value_head(hidden_size: int = 32) -> dict[str, torch.Tensor]:
    """What TRL's ValueHead keeps, with a bias that nobody could overlook."""
    draw = torch.Generator().manual_seed(7)
    return {
        "v_head.summary.weight": torch.randn(1, hidden_size, generator=draw),
        "v_head.summary.bias": torch.tensor([0.75]),
    }


@torch.inference_mode()
def value_head_score(model: torch.nn.Module, head: dict[str, torch.Tensor], ids: list[int]) -> float:
    hidden = model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states[-1][0, -1]
    return float(hidden @ head["v_head.summary.weight"][0] + head["v_head.summary.bias"][0])


@pytest.fixture
def llama_factory(chat_tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> tuple[Path, list[float]]:
    """A full LLaMA-Factory reward model and its scores; its template ends in a new line, where it is read."""
    folder = tmp_path / "lf"
    model = tiny(LlamaConfig)
    model.save_pretrained(folder)
    save_file(value_head(), folder / "value_head.safetensors", metadata={"format": "pt"})
    chat_tokenizer.save_pretrained(folder)
    return folder, [value_head_score(model, value_head(), rendered(chat_tokenizer, m)) for m in MESSAGES]


def test_llama_factory(llama_factory: tuple[Path, list[float]], tmp_path: Path) -> None:
    """Their scores are ours plus the bias, exactly as stated; nothing in the template had to change."""
    folder, theirs = llama_factory
    result = import_reward_model(folder, tmp_path / "out", device="cpu")
    assert result.framework == "llama-factory"
    assert result.score_offset == 0.75
    assert result.num_conversations >= 8
    assert result.max_difference <= result.tolerance
    assert result.changes == ()
    assert [s + 0.75 for s in scores_of(tmp_path / "out")] == pytest.approx(theirs, rel=1e-5, abs=1e-5)
    contract = load_contract(tmp_path / "out")
    assert contract is not None
    assert contract.objective == {"name": "imported", "from": "llama-factory"}
    assert contract.training["score_offset"] == 0.75
    assert contract.template_changes == []
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert plain.config.problem_type == "regression"
    assert plain.score.bias is None


def test_llama_factory_adapter(chat_tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    """An adapter with the value head beside it, on a base named by hand."""
    base = tiny(Qwen3Config, head_dim=8)
    base.save_pretrained(tmp_path / "base")
    adapted = with_lora(base, "CAUSAL_LM")
    adapted.save_pretrained(tmp_path / "lf")
    save_file(value_head(), tmp_path / "lf" / "value_head.safetensors")
    chat_tokenizer.save_pretrained(tmp_path / "lf")
    theirs = [value_head_score(adapted, value_head(), rendered(chat_tokenizer, m)) for m in MESSAGES]
    result = import_reward_model(tmp_path / "lf", tmp_path / "out", base=tmp_path / "base", device="cpu")
    assert result.framework == "llama-factory"
    assert [s + 0.75 for s in scores_of(tmp_path / "out")] == pytest.approx(theirs, rel=1e-5, abs=1e-5)


def with_lora(model: PreTrainedModel, task: str, **options: Any) -> Any:
    """A LoRA adapter that has learned something."""
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type=task, **options)
    adapted = peft.get_peft_model(model, config)
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name or "modules_to_save" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return adapted.eval()


@pytest.fixture
def openrlhf(chat_tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Callable[..., tuple[Path, list[float]]]:
    """Writes an OpenRLHF reward model as its ``RewardModel.save_pretrained`` does; with it, its raw scores."""

    def write(prefix: str, **config: Any) -> tuple[Path, list[float]]:
        folder = tmp_path / "openrlhf"
        model = tiny(LlamaConfig)
        head = torch.randn(1, 32, generator=torch.Generator().manual_seed(5))
        model.save_pretrained(folder)
        trunk = {name: t for name, t in load_file(folder / "model.safetensors").items() if name.startswith("model.")}
        save_file({**trunk, f"{prefix}.weight": head}, folder / "model.safetensors", metadata={"format": "pt"})
        record = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**record, "architectures": ["RewardModel"], **config}))
        chat_tokenizer.save_pretrained(folder)
        theirs = []
        for messages in MESSAGES:
            text = chat_tokenizer.apply_chat_template(messages, tokenize=False).rstrip("\n")
            assert text.endswith("<eos>")
            ids = torch.tensor([chat_tokenizer(text, add_special_tokens=False)["input_ids"]])
            with torch.inference_mode():
                theirs.append(float(model.model(ids).last_hidden_state[0, -1] @ head[0]))
        return folder, theirs

    return write


@pytest.mark.parametrize("prefix", ["score", "value_head"])
def test_openrlhf(openrlhf: Callable[..., Any], prefix: str, tmp_path: Path) -> None:
    """Scores are raw; (score - mean) / std, both from the contract, is what OpenRLHF gives in eval mode."""
    folder, theirs = openrlhf(prefix, value_head_prefix=prefix, normalize_reward=True, mean=1.5, std=2.0)
    result = import_reward_model(folder, tmp_path / "out", device="cpu")
    assert result.framework == "openrlhf"
    ours = scores_of(tmp_path / "out")
    assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-5)
    contract = load_contract(tmp_path / "out")
    assert contract is not None
    assert contract.reference is not None
    assert (contract.reference.mean, contract.reference.std) == (1.5, 2.0)
    assert contract.reference.source == "openrlhf config"
    assert contract.end_token == "<eos>"
    assert "new lines at the end removed" in contract.template_changes[0]


def test_openrlhf_puts_eos_after_a_template_that_does_not(
    openrlhf: Callable[..., Any], chat_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """OpenRLHF writes a space and EOS after what does not end with EOS, and reads the score there."""
    folder, _ = openrlhf("score", normalize_reward=False)
    chat_tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"
    chat_tokenizer.save_pretrained(folder)
    import_reward_model(folder, tmp_path / "out", device="cpu")
    encoder = Scorer.from_pretrained(tmp_path / "out", device="cpu").encoder
    ids = rendered(encoder.tokenizer, MESSAGES[0])
    expected = chat_tokenizer(f"{QUESTION}\n{ANSWERS[0]} <eos>", add_special_tokens=False)["input_ids"]
    assert ids == expected


@torch.inference_mode()
def classifier_score(model: torch.nn.Module, ids: list[int]) -> float:
    return float(model(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids))).logits[0, 0])


@pytest.fixture
def adapter(chat_tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> tuple[Path, Path, list[float]]:
    """A LoRA adapter with its trained head, the base without one, and the scores of the unmerged model."""
    base = tiny(Qwen3Config, head_dim=8)
    base.save_pretrained(tmp_path / "base")
    chat_tokenizer.save_pretrained(tmp_path / "base")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=1)
    model.config.pad_token_id = 0
    adapted = with_lora(model, "SEQ_CLS")
    adapted.save_pretrained(tmp_path / "adapter")
    return (
        tmp_path / "adapter",
        tmp_path / "base",
        [classifier_score(adapted, rendered(chat_tokenizer, m)) for m in MESSAGES],
    )


@pytest.mark.parametrize("named", ["by hand", "by the adapter"])
def test_adapter_with_a_head(adapter: tuple[Path, Path, list[float]], named: str, tmp_path: Path) -> None:
    folder, base, unmerged = adapter
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == str(base)
    result = import_reward_model(folder, tmp_path / "out", base=base if named == "by hand" else None, device="cpu")
    assert result.framework == "peft"
    assert scores_of(tmp_path / "out") == pytest.approx(unmerged, rel=1e-5, abs=1e-5)
    assert not (tmp_path / "out" / "adapter_config.json").exists()


def test_adapter_of_a_reward_model_s_own_head(chat_tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    """The base has the trained head, and the adapter holds a low-rank change of it."""
    write_classifier(tmp_path / "base", chat_tokenizer, pad_id=0)
    base = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base")
    adapted = peft.get_peft_model(base, peft.LoraConfig(r=1, target_modules=["q_proj", "score"]))
    unchanged = [classifier_score(adapted.eval(), rendered(chat_tokenizer, m)) for m in MESSAGES]
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.add_(torch.randn_like(parameter))
    adapted.save_pretrained(tmp_path / "adapter")
    unmerged = [classifier_score(adapted, rendered(chat_tokenizer, m)) for m in MESSAGES]
    assert max(abs(a - b) for a, b in zip(unmerged, unchanged, strict=True)) > 1e-2
    import_reward_model(tmp_path / "adapter", tmp_path / "out", device="cpu")
    assert scores_of(tmp_path / "out") == pytest.approx(unmerged, rel=1e-5, abs=1e-5)


def test_trl_adapter_whose_pad_is_its_eos(
    adapter: tuple[Path, Path, list[float]], chat_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """TRL puts the tokenizer's padding id into the config, which is not in an adapter's folder; the tokenizer is."""
    folder, base, _ = adapter
    chat_tokenizer.chat_template = ENDS_WITH_EOS
    chat_tokenizer.pad_token = "<eos>"
    chat_tokenizer.save_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    model.config.pad_token_id = 2
    unmerged = peft.PeftModel.from_pretrained(model, str(folder)).eval()
    theirs = [classifier_score(unmerged, rendered(chat_tokenizer, m)) for m in MESSAGES]
    result = import_reward_model(folder, tmp_path / "out", device="cpu")
    assert result.changes[0].startswith("<eos> at the end removed")
    assert scores_of(tmp_path / "out") == pytest.approx(theirs, rel=1e-5, abs=1e-5)


def test_an_adapter_without_a_head_is_refused(adapter: tuple[Path, Path, list[float]], tmp_path: Path) -> None:
    folder, _, _ = adapter
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file({n: t for n, t in tensors.items() if "score" not in n}, folder / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match="no trained head"):
        import_reward_model(folder, tmp_path / "out", device="cpu")


def write_classifier(folder: Path, tokenizer: Any, *, pad_id: int | None) -> PreTrainedModel:
    model = tiny(Qwen3Config, AutoModelForSequenceClassification, head_dim=8, num_labels=1)
    model.config.pad_token_id = pad_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


def test_trl_whose_pad_is_its_eos(chat_tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    """What reads before the final EOS goes on to do so when it is imported, and then pads with another token."""
    chat_tokenizer.chat_template = ENDS_WITH_EOS
    chat_tokenizer.pad_token = "<eos>"
    model = write_classifier(tmp_path / "trl", chat_tokenizer, pad_id=2)
    theirs, one_later = [], []
    for messages in MESSAGES:
        ids = rendered(chat_tokenizer, messages)
        assert ids[-1] == 2
        theirs.append(classifier_score(model, ids))
        assert theirs[-1] == pytest.approx(classifier_score(model, ids[:-1]), abs=1e-5)
        model.config.pad_token_id = None
        one_later.append(classifier_score(model, ids))
        model.config.pad_token_id = 2
    result = import_reward_model(tmp_path / "trl", tmp_path / "out", device="cpu")
    scorer = Scorer.from_pretrained(tmp_path / "out", device="cpu")
    ours = scorer.score([QUESTION] * 3, ANSWERS)
    assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-5)
    assert max(abs(a - b) for a, b in zip(ours, one_later, strict=True)) > 1e-2
    contract = scorer.contract
    assert contract is not None
    assert contract.pad_token_id != 2
    assert scorer.encoder.tokenizer.pad_token == "<|pad|>"
    assert len(result.changes) == 2
    assert contract.template_changes == list(result.changes)
    # The generation prompt is as it was, and an EOS that the answer itself ends with is passed over too.
    again = scorer.encoder.tokenizer.apply_chat_template(MESSAGES[0][:1], tokenize=False, add_generation_prompt=True)
    assert again == f"<bos><|user|>{QUESTION}"
    assert scorer.score([QUESTION], ["No.<eos>"]) == pytest.approx([ours[1]], abs=1e-6)


def test_an_end_that_is_not_the_padding_stays(chat_tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    """The template of the tests ends in a new line after EOS: that is read, and nothing behind it is passed over."""
    model = write_classifier(tmp_path / "trl", chat_tokenizer, pad_id=2)
    theirs = [classifier_score(model, rendered(chat_tokenizer, m)) for m in MESSAGES]
    result = import_reward_model(tmp_path / "trl", tmp_path / "out", device="cpu")
    assert result.changes == ()
    assert scores_of(tmp_path / "out") == pytest.approx(theirs, rel=1e-5, abs=1e-5)
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == chat_tokenizer.chat_template


@pytest.mark.parametrize("family", ["decoder without padding id", "encoder"])
def test_plain_classifier(chat_tokenizer: PreTrainedTokenizerFast, tmp_path: Path, family: str) -> None:
    if family == "encoder":
        model = tiny(BertConfig, AutoModelForSequenceClassification, num_labels=1, pad_token_id=0)
        model.save_pretrained(tmp_path / "plain")
        chat_tokenizer.save_pretrained(tmp_path / "plain")
    else:
        model = write_classifier(tmp_path / "plain", chat_tokenizer, pad_id=None)
    theirs = [classifier_score(model, rendered(chat_tokenizer, m)) for m in MESSAGES]
    result = import_reward_model(tmp_path / "plain", tmp_path / "out", device="cpu")
    assert result.framework == "transformers"
    assert scores_of(tmp_path / "out") == pytest.approx(theirs, rel=1e-5, abs=1e-5)


def test_a_model_whose_scores_are_not_equal_leaves_nothing(
    llama_factory: tuple[Path, list[float]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A conversion that moves the head by a ten-thousandth is caught, though the checkpoint agrees with itself."""
    real = importing.read_foreign

    def moved(*args: Any, **options: Any) -> Any:
        foreign = real(*args, **options)

        def converted() -> PreTrainedModel:
            model = foreign.converted()
            with torch.no_grad():
                model.score.weight.mul_(1.0001)
            return model

        return importing.ForeignModel(
            **{name: getattr(foreign, name) for name in foreign.__slots__ if name != "converted"}, converted=converted
        )

    monkeypatch.setattr(importing, "read_foreign", moved)
    with pytest.raises(ContractError, match="does not give the foreign model's scores"):
        import_reward_model(llama_factory[0], tmp_path / "out", device="cpu")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lf"]


def test_the_output_must_be_new(llama_factory: tuple[Path, list[float]], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not an empty folder"):
        import_reward_model(llama_factory[0], llama_factory[0])
    (tmp_path / "empty").mkdir()
    import_reward_model(llama_factory[0], tmp_path / "empty", device="cpu")
    assert (tmp_path / "empty" / FILE_NAME).exists()
    shutil.rmtree(tmp_path / "empty")

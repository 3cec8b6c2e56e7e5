"""Weights are read whole or refused; adapters are on the model with every tensor of their file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

from rewardlab.errors import CheckpointError
from rewardlab.modeling.foreign_weights import classifier, load_whole, with_adapter
from rewardlab.modeling.loading import load_config

peft = pytest.importorskip("peft")


def adapter(base: Path, folder: Path, *, vocabulary: int | None = None) -> torch.nn.Module:
    """A saved adapter of a base model, and the adapted model in memory."""
    model = AutoModelForCausalLM.from_pretrained(base)
    if vocabulary:
        model.resize_token_embeddings(vocabulary)
    saved = ["embed_tokens"] if vocabulary else None
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=saved, task_type="CAUSAL_LM")
    adapted = peft.get_peft_model(model, config)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.add_(torch.randn_like(parameter))
    adapted.save_pretrained(folder)
    return adapted.eval()


@pytest.mark.parametrize("auto", [AutoModel, AutoModelForCausalLM])
def test_a_missing_weight_is_refused(base_model: Path, tmp_path: Path, auto: type) -> None:
    folder = Path(shutil.copytree(base_model, tmp_path / "model"))
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"layers\.1\.mlp\.up_proj\.weight"):
        load_whole(auto, folder, load_config(folder))


def test_weights_are_float32_whatever_they_were_saved_in(base_model: Path, tmp_path: Path) -> None:
    AutoModelForCausalLM.from_pretrained(base_model, dtype=torch.bfloat16).save_pretrained(tmp_path)
    model = load_whole(AutoModel, tmp_path, load_config(tmp_path))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_a_classifier_is_the_trunk_with_the_head(base_model: Path) -> None:
    """Its score is the product of the head and the last hidden state."""
    trunk = load_whole(AutoModel, base_model, load_config(base_model)).eval()
    weight = torch.randn(1, 32, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([[5, 6, 7]])
    with torch.inference_mode():
        expected = trunk(ids).last_hidden_state[0, -1] @ weight[0]
        model = classifier(trunk, weight)
        assert float(model(ids).logits[0, 0]) == pytest.approx(float(expected), abs=1e-5)
    assert type(model).__name__ == "Qwen3ForSequenceClassification"
    assert model.model is trunk


@pytest.mark.parametrize("vocabulary", [None, 330])
def test_an_adapter_with_all_its_tensors(base_model: Path, tmp_path: Path, vocabulary: int | None) -> None:
    """Also one that was trained with tokens added, whose embeddings are in its file."""
    expected = adapter(base_model, tmp_path, vocabulary=vocabulary)
    base = load_whole(AutoModelForCausalLM, base_model, load_config(base_model))
    ids = torch.tensor([[5, 6, 7] if vocabulary is None else [5, 329, 7]])
    with torch.inference_mode():
        plain = base(ids).logits if vocabulary is None else None
        loaded = with_adapter(tmp_path, base).eval()
        torch.testing.assert_close(loaded(ids).logits[..., :300], expected(ids).logits[..., :300])
        assert plain is None or not torch.allclose(loaded(ids).logits, plain, atol=1e-2)


def test_an_adapter_of_another_base_is_refused(base_model: Path, tmp_path: Path) -> None:
    adapter(base_model, tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if "layers.1" in name and "lora_A" in name)
    save_file({**tensors, name.replace("layers.1", "layers.7"): tensors[name].clone()}, path)
    with pytest.raises(CheckpointError, match="have no place in the base model"):
        with_adapter(tmp_path, load_whole(AutoModelForCausalLM, base_model, load_config(base_model)))
    save_file({name: torch.ones(2, 16)} | {n: t for n, t in tensors.items() if n != name}, path)
    with pytest.raises(CheckpointError, match="does not fit its base model"):
        with_adapter(tmp_path, load_whole(AutoModelForCausalLM, base_model, load_config(base_model)))


def test_an_adapter_that_is_not_lora_is_refused(base_model: Path, tmp_path: Path) -> None:
    adapter(base_model, tmp_path)
    record = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**record, "peft_type": "PREFIX_TUNING"}))
    with pytest.raises(CheckpointError, match="type PREFIX_TUNING, expected LORA"):
        with_adapter(tmp_path, load_whole(AutoModelForCausalLM, base_model, load_config(base_model)))


def test_a_head_may_lack_only_where_the_caller_says_so(base_model: Path) -> None:
    config = load_config(base_model)
    config.num_labels = 1
    load_whole(AutoModelForSequenceClassification, base_model, config, head_may_lack=True)
    with pytest.raises(CheckpointError, match=r"score\.weight"):
        load_whole(AutoModelForSequenceClassification, base_model, config)

"""A base model becomes a trainable reward model: pad, head, dropout, adapters."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoTokenizer, BertConfig

from rewardlab.errors import CheckpointError, ConfigError
from rewardlab.modeling.checkpoint import Provenance, save_reward_model
from rewardlab.modeling.engine import score_sequences
from rewardlab.modeling.head import Float32Head
from rewardlab.modeling.preparing import (
    LoraOptions,
    inner_model,
    merged,
    prepare_for_training,
    require_fitting_head,
)
from rewardlab.types import ReadOut

SEQUENCES = [[1, 9, 10, 11, 2], [1, 20, 21, 2]]


def test_pad_becomes_distinct_and_is_in_the_vocabulary(base_model: Path) -> None:
    """The base model pads with its EOS, as most base models do."""
    before = AutoTokenizer.from_pretrained(base_model)
    assert before.pad_token_id == before.eos_token_id
    prepared = prepare_for_training(base_model, seed=0)
    pad = prepared.model.config.pad_token_id
    assert pad == prepared.tokenizer.pad_token_id
    assert pad not in (prepared.tokenizer.eos_token_id, prepared.tokenizer.bos_token_id)
    assert pad < prepared.model.get_input_embeddings().weight.shape[0]


def test_a_pad_that_is_distinct_already_stays(base_model: Path, tmp_path: Path) -> None:
    shutil.copytree(base_model, tmp_path / "m")
    tokenizer = AutoTokenizer.from_pretrained(base_model)
    tokenizer.pad_token = "<pad>"
    tokenizer.save_pretrained(tmp_path / "m")
    prepared = prepare_for_training(tmp_path / "m", seed=0)
    assert prepared.tokenizer.pad_token == "<pad>"
    assert len(prepared.tokenizer) == len(tokenizer)


def test_head_is_seeded_and_float32(base_model: Path) -> None:
    heads = [prepare_for_training(base_model, seed=seed).model.score for seed in (3, 3, 4)]
    assert all(isinstance(head, Float32Head) and head.weight.dtype == torch.float32 for head in heads)
    assert torch.equal(heads[0].weight, heads[1].weight)
    assert not torch.equal(heads[0].weight, heads[2].weight)


@pytest.mark.parametrize("disable", [True, False])
def test_dropout_is_off_by_default(base_model: Path, disable: bool) -> None:
    """The base config has attention_dropout 0.1: with it two forwards of one text in training mode differ."""
    model = prepare_for_training(base_model, seed=0, disable_dropout=disable).model.train()
    ids = torch.tensor([SEQUENCES[0]])
    scores = {model(ids).logits.item() for _ in range(4)}
    assert (len(scores) == 1) == disable


def test_problem_type_keeps_servers_from_squashing_the_score(base_model: Path) -> None:
    assert prepare_for_training(base_model, seed=0).model.config.problem_type == "regression"


def test_head_only_trains_the_head_alone(base_model: Path) -> None:
    model = prepare_for_training(base_model, seed=0, mode="head_only").model
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["score.weight"]


def test_a_reward_model_is_trained_further_with_its_head(reward_model: Path) -> None:
    prepared = prepare_for_training(reward_model, seed=99)
    assert not prepared.new_head
    saved = prepare_for_training(reward_model, seed=1).model.score.weight
    assert torch.equal(prepared.model.score.weight, saved)


@pytest.mark.parametrize("base", ["decoder", "encoder"])
def test_lora_trains_and_keeps_the_head(base_model: Path, minilm_path: Path, base: str) -> None:
    """The head starts anew, so an adapter that leaves it out gives random scores after a reload (peft#2367)."""
    source = base_model if base == "decoder" else minilm_path
    prepared = prepare_for_training(source, seed=0, mode="lora", lora=LoraOptions(rank=4, alpha=8))
    head = "score" if base == "decoder" else "classifier"
    trained = [name for name, p in prepared.model.named_parameters() if p.requires_grad]
    assert any(f"{head}.modules_to_save" in name for name in trained)
    assert all("lora_" in name or f"{head}.modules_to_save" in name for name in trained)
    with torch.no_grad():  # a step of training, in effect
        for name, parameter in prepared.model.named_parameters():
            if name in trained:
                parameter.add_(0.02)
    before = score_sequences(inner_model(prepared.model), SEQUENCES)
    plain = merged(prepared.model)
    assert not any("lora" in name or "modules_to_save" in name for name in plain.state_dict())
    assert score_sequences(plain, SEQUENCES) == pytest.approx(before, abs=1e-4)


def test_merging_a_plain_model_is_the_model(base_model: Path) -> None:
    model = prepare_for_training(base_model, seed=0).model
    assert merged(model) is model
    assert inner_model(model) is model


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_qlora_without_a_gpu_says_so(base_model: Path) -> None:
    with pytest.raises(ConfigError, match="needs a CUDA device"):
        prepare_for_training(base_model, seed=0, mode="lora", lora=LoraOptions(load_in_4bit=True))


def test_a_family_without_a_classification_class_is_refused(base_model: Path, tmp_path: Path) -> None:
    shutil.copytree(base_model, tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    (tmp_path / "m" / "config.json").write_text(json.dumps({**config, "model_type": "granite"}))
    with pytest.raises(CheckpointError, match=r"no \*ForSequenceClassification class for model type 'granite'"):
        prepare_for_training(tmp_path / "m", seed=0)


def test_a_base_model_with_missing_layers_is_refused(base_model: Path, tmp_path: Path) -> None:
    shutil.copytree(base_model, tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    config["num_hidden_layers"] = 3
    config["layer_types"] = ["full_attention"] * 3
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="weights of the trunk are missing"):
        prepare_for_training(tmp_path / "m", seed=0)


def test_an_encoder_without_pooler_gets_a_new_one(tmp_path: Path, minilm_path: Path, caplog: object) -> None:
    """A masked-language model has no pooler; it starts anew with the head, and the log says so."""
    tokenizer = AutoTokenizer.from_pretrained(minilm_path)
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=len(tokenizer), **shape)
    model = AutoModel.from_config(config, add_pooling_layer=False)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    prepared = prepare_for_training(tmp_path, seed=0)
    assert prepared.new_head
    assert "pooler" in caplog.text  # type: ignore[attr-defined]


def test_a_head_of_another_kind_is_drawn_anew(
    base_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An outcome model's head has the shape of a reward model's, and means something else."""
    outcome = prepare_for_training(base_model, seed=1, read_out=ReadOut("token", "mean"))
    save_reward_model(
        tmp_path / "orm",
        inner_model(outcome.model),
        outcome.tokenizer,
        outcome.template,
        max_length=64,
        provenance=Provenance({"name": "outcome"}),
        read_out=ReadOut("token", "mean"),
    )
    again = prepare_for_training(tmp_path / "orm", seed=2, read_out=ReadOut("token", "mean"))
    assert not again.new_head
    assert "of the objective outcome" in caplog.text
    other = prepare_for_training(tmp_path / "orm", seed=2)
    assert other.new_head
    assert "a head of the kind token with 1 outputs, which does not fit" in caplog.text
    assert not torch.equal(inner_model(other.model).score.weight, inner_model(again.model).score.weight)


@pytest.mark.parametrize("separator", ["<eos>", "<bos>"])
def test_a_token_with_another_meaning_is_no_separator(base_model: Path, separator: str) -> None:
    with pytest.raises(ConfigError, match="a token with another meaning"):
        prepare_for_training(base_model, seed=0, read_out=ReadOut("step", "min", 2, separator))


def test_a_model_with_another_number_of_heads_cannot_be_trained(base_model: Path) -> None:
    model = prepare_for_training(base_model, seed=0, ensemble_heads=3).model
    require_fitting_head(model, ReadOut(), ensemble_heads=3)
    with pytest.raises(ConfigError, match="with 3 labels cannot be read per sequence with 1"):
        require_fitting_head(model, ReadOut())


def test_a_head_of_another_kind_cannot_be_trained(base_model: Path) -> None:
    model = inner_model(prepare_for_training(base_model, seed=0).model)
    require_fitting_head(model, ReadOut())
    for read_out in (ReadOut("token", "mean"), ReadOut("step", "min", 3, "<|step|>")):
        with pytest.raises(ConfigError, match=r"cannot be read per (token|step)"):
            require_fitting_head(model, read_out)

"""A saved checkpoint is what vLLM takes for a reward model, and what vLLM would answer is the Scorer's number.

vLLM itself is not run here. Each rule is stated with the vLLM 0.33 source that has it, and checked on the files; then
vLLM's way from request to number is walked with plain transformers: text -> ids, all tokens through the model, the head
at the last token, the activation. Nothing of rewardlab is on that way.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from tests.serving.protocols.conversations import ANSWERS, PROMPT
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoTokenizer

from rewardlab.modeling.checkpoint import POOLER_FILE_NAME, write_contract
from rewardlab.modeling.contract import load_contract
from rewardlab.types import PromptGroup, Step

CHATS = [[{"role": "user", "content": PROMPT}, {"role": "assistant", "content": one}] for one in ANSWERS]


@pytest.fixture(scope="module")
def config(reward_model: Path) -> dict:
    return json.loads((reward_model / "config.json").read_text())


@pytest.fixture(scope="module")
def tokenizer(reward_model: Path):
    return AutoTokenizer.from_pretrained(reward_model)


@pytest.fixture(scope="module")
def expected(scorer) -> list[float]:
    return scorer.score([PROMPT] * 3, list(ANSWERS))


def last_token_logit(folder: Path, ids: list[int]) -> float:
    """The head at the last token, whichever that is (``model_executor/layers/pooler/seqwise/methods.py``)."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        hidden = model.model(input_ids=torch.tensor([ids])).last_hidden_state
        return float(model.score(hidden[0, -1])[0])


def test_the_architecture_is_served_as_a_classifier(config):
    """``config/model.py``: ``*ForSequenceClassification`` gives runner "pooling" and convert "classify" by itself."""
    assert config["architectures"] == ["Qwen3ForSequenceClassification"]


def test_one_label_opens_score_and_rerank(config):
    """``/score`` and ``/rerank`` are there for ``num_labels == 1`` alone; transformers tells it by ``id2label``."""
    assert config["id2label"] == {"0": "LABEL_0"}


def test_the_activation_is_the_identity(config):
    """``pooler/activations.py``: a single logit goes through a sigmoid unless ``problem_type`` is "regression"."""
    assert config["problem_type"] == "regression"


def test_the_head_is_one_row_without_bias(reward_model, config):
    """``model_executor/models/adapters.py``: ``score`` is a linear layer from the hidden size to the labels."""
    with safe_open(reward_model / "model.safetensors", "pt") as weights:
        assert tuple(weights.get_tensor("score.weight").shape) == (1, config["hidden_size"])
        assert "score.bias" not in weights.keys()  # noqa: SIM118 - the handle is no dict


def test_weights_are_safetensors_and_nothing_else_looks_like_weights(reward_model):
    """Every ``*.safetensors`` of the folder is loaded, and pickles where there is none."""
    assert [path.name for path in reward_model.glob("*.safetensors")] == ["model.safetensors"]
    assert not [*reward_model.glob("*.bin"), *reward_model.glob("*.pt"), *reward_model.glob("*.pth")]


def test_padding_is_no_end(config, tokenizer):
    """Where pad is eos, transformers reads the last token that is not eos, and vLLM the last."""
    assert config["pad_token_id"] == tokenizer.pad_token_id
    assert tokenizer.pad_token_id != tokenizer.eos_token_id


def test_the_tokenizer_brings_the_template(tokenizer):
    """Without one, ``messages`` would need ``--chat-template``."""
    assert tokenizer.chat_template


def test_messages_and_text_without_its_begin_token_become_the_scorers_ids(tokenizer, scorer):
    """Messages: rendered, nothing added. Text: ``add_special_tokens`` is true by default, and adds the begin token."""
    for chat, one in zip(CHATS, ANSWERS, strict=True):
        own = list(scorer.encoder.encode(PromptGroup(PROMPT, (one,))).sequences[0])
        text = tokenizer.apply_chat_template(chat, tokenize=False)
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == own
        assert tokenizer(text.removeprefix(tokenizer.bos_token))["input_ids"] == own
        assert own.count(tokenizer.bos_token_id) == 1
        # The trap: the whole text, with the default, begins twice.
        assert tokenizer(text)["input_ids"][:2] == [tokenizer.bos_token_id] * 2


def test_vllms_number_is_the_scorers(reward_model, tokenizer, expected):
    for chat, value in zip(CHATS, expected, strict=True):
        ids = tokenizer(tokenizer.apply_chat_template(chat, tokenize=False), add_special_tokens=False)["input_ids"]
        assert last_token_logit(reward_model, ids) == pytest.approx(value, abs=1e-5)


def test_with_the_pooler_settings_it_is_the_calibrated_score(reward_model, tokenizer, scorer, expected, tmp_path):
    """``config/pooler.py``: activation((logit - logit_mean) / logit_sigma)."""
    write_contract(tmp_path, dataclasses.replace(scorer.contract, temperature=0.7))
    settings = json.loads((tmp_path / POOLER_FILE_NAME).read_text())
    assert set(settings) == {"logit_mean", "logit_sigma"}
    calibrated = load_contract(tmp_path).scale.transform(expected, "calibrated")
    for chat, value in zip(CHATS, calibrated, strict=True):
        ids = tokenizer(tokenizer.apply_chat_template(chat, tokenize=False), add_special_tokens=False)["input_ids"]
        logit = last_token_logit(reward_model, ids)
        assert (logit - settings["logit_mean"]) / settings["logit_sigma"] == pytest.approx(value, abs=1e-5)


def test_a_process_model_gives_its_steps_per_token(process_model, process_scorer):
    """``config/model.py``: ``*ForTokenClassification`` is served as token_classify, a softmax at every token.

    The client reads the rows of the step separators; P(correct) is last in each.
    """
    config = json.loads((process_model / "config.json").read_text())
    assert config["architectures"] == ["Qwen3ForTokenClassification"]
    assert [*config["id2label"].values()] == ["incorrect", "neutral", "correct"]
    group = PromptGroup("What is 2 + 2?", ("4 so 4",), steps=((Step("2 + 2 = 4"), Step("4 + 1 = 5")),))
    encoded = process_scorer.encoder.encode(group)
    tokenizer = AutoTokenizer.from_pretrained(process_model)
    separator = tokenizer.convert_tokens_to_ids(process_scorer.read_out.separator)
    model = AutoModelForTokenClassification.from_pretrained(process_model, dtype=torch.float32).eval()
    with torch.no_grad():
        rows = model(input_ids=torch.tensor([encoded.sequences[0]])).logits[0].softmax(-1)
    at_steps = [row[-1].item() for own, row in zip(encoded.sequences[0], rows, strict=True) if own == separator]
    assert at_steps == pytest.approx(process_scorer.step_scores([group])[0][0], abs=1e-5)

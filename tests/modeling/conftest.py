"""Tiny models of many families, from configs, with random weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForSequenceClassification, PreTrainedModel

_DECODER = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
_ENCODER = {k: v for k, v in _DECODER.items() if k != "num_key_value_heads"}
_CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", _DECODER),
    "qwen2": ("Qwen2Config", _DECODER),
    "qwen3": ("Qwen3Config", {**_DECODER, "head_dim": 8}),
    "mistral": ("MistralConfig", _DECODER),
    "gemma2": ("Gemma2Config", {**_DECODER, "head_dim": 8}),
    "gemma3": ("Gemma3TextConfig", {**_DECODER, "head_dim": 8}),
    "gpt2": ("GPT2Config", {"vocab_size": 300, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}),
    "gpt_neox": ("GPTNeoXConfig", _ENCODER),
    "phi3": ("Phi3Config", _DECODER),
    "olmo2": ("Olmo2Config", _DECODER),
    "bert": ("BertConfig", _ENCODER),
    "deberta_v2": ("DebertaV2Config", _ENCODER),
    "modernbert": ("ModernBertConfig", {**_ENCODER, "cls_token_id": 2, "sep_token_id": 1}),
}


@pytest.fixture(scope="session")
def make_model() -> Callable[[str], PreTrainedModel]:
    """A function: family name -> a model with random weights, pad 0 and end token 1."""

    def make(family: str) -> PreTrainedModel:
        name, shape = _CONFIGS[family]
        special = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2, "num_labels": 1, "use_cache": False}
        config = getattr(transformers, name)(**shape, **special)
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_config(config)
        # Biases start at 0 and weights small; a trained model is neither, and its scores differ between texts.
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        return model.eval()

    return make

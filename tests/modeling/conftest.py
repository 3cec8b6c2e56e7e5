"""Tiny models of many families, from configs, with random weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedModel,
)

_SMALL = {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
_ENCODER = {**_SMALL, "intermediate_size": 64, "max_position_embeddings": 128}
_DECODER = {**_ENCODER, "num_key_value_heads": 2}
_HEADED = {**_DECODER, "head_dim": 8}  # families whose default head size does not follow from the hidden size
_GPT = {"vocab_size": 300, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
_WINDOW = {"sliding_window": 8}
_LATENT = {
    **_DECODER,
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "head_dim": 8,  # of the rotary part
}
_ROUTED = {"moe_intermediate_size": 16, "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "num_experts_per_tok": 2}
_EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16, "num_experts": 4}
_LOCAL_EXPERTS = {"num_experts_per_tok": 2, "num_local_experts": 4}
_BLOOM = {"vocab_size": 300, "hidden_size": 32, "n_layer": 2, "n_head": 4}

_CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    # decoders whose attention goes through transformers' interface
    "arcee": ("ArceeConfig", _DECODER),
    "biogpt": ("BioGptConfig", _ENCODER),
    "cohere": ("CohereConfig", _DECODER),
    "ctrl": ("CTRLConfig", {**_GPT, "dff": 64}),
    "deepseek_v2": ("DeepseekV2Config", {**_LATENT, **_ROUTED}),
    "deepseek_v3": ("DeepseekV3Config", {**_LATENT, **_ROUTED, "first_k_dense_replace": 1}),
    "diffllama": ("DiffLlamaConfig", _DECODER),
    "exaone4": ("Exaone4Config", {**_DECODER, **_WINDOW}),
    "gemma": ("GemmaConfig", _HEADED),
    "gemma2": ("Gemma2Config", {**_HEADED, **_WINDOW}),
    "gemma3": ("Gemma3TextConfig", {**_HEADED, **_WINDOW}),
    "glm": ("GlmConfig", _HEADED),
    "glm4": ("Glm4Config", _HEADED),
    "gpt2": ("GPT2Config", _GPT),
    "gpt_bigcode": ("GPTBigCodeConfig", _GPT),
    "gpt_neox": ("GPTNeoXConfig", _ENCODER),
    "gpt_oss": ("GptOssConfig", {**_HEADED, **_WINDOW, **_LOCAL_EXPERTS}),
    "granite": ("GraniteConfig", _DECODER),
    "helium": ("HeliumConfig", _HEADED),
    "hunyuan_dense": ("HunYuanDenseV1Config", _HEADED),
    "jetmoe": ("JetMoeConfig", {**_ENCODER, **_LOCAL_EXPERTS, "num_key_value_heads": 2, "kv_channels": 8}),
    "llama": ("LlamaConfig", _DECODER),
    "minicpm3": ("MiniCPM3Config", _LATENT),
    "ministral": ("MinistralConfig", {**_HEADED, **_WINDOW}),
    "mistral": ("MistralConfig", {**_DECODER, **_WINDOW}),
    "mixtral": ("MixtralConfig", {**_DECODER, **_LOCAL_EXPERTS}),
    "olmo": ("OlmoConfig", _DECODER),
    "olmo2": ("Olmo2Config", _DECODER),
    "olmo3": ("Olmo3Config", {**_DECODER, **_WINDOW}),
    "opt": ("OPTConfig", {**_ENCODER, "ffn_dim": 64, "word_embed_proj_dim": 32}),
    "persimmon": ("PersimmonConfig", _ENCODER),
    "phi": ("PhiConfig", _DECODER),
    "phi3": ("Phi3Config", {**_DECODER, **_WINDOW}),
    "qwen2": ("Qwen2Config", _DECODER),
    "qwen2_moe": ("Qwen2MoeConfig", {**_DECODER, **_EXPERTS, "shared_expert_intermediate_size": 16}),
    "qwen3": ("Qwen3Config", _HEADED),
    "qwen3_moe": ("Qwen3MoeConfig", {**_HEADED, **_EXPERTS}),
    "seed_oss": ("SeedOssConfig", _HEADED),
    "smollm3": ("SmolLM3Config", _DECODER),
    "starcoder2": ("Starcoder2Config", {**_DECODER, **_WINDOW}),
    # decoders with something that packed rows cannot have
    "bloom": ("BloomConfig", _BLOOM),
    "falcon": ("FalconConfig", {**_SMALL, "alibi": True, "new_decoder_architecture": False}),
    "gptj": ("GPTJConfig", {**_GPT, "rotary_dim": 4}),
    "jamba": ("JambaConfig", {**_DECODER, "attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 2}),
    "minimax": ("MiniMaxConfig", {**_HEADED, **_LOCAL_EXPERTS, "block_size": 16}),
    "modernbert_decoder": ("ModernBertDecoderConfig", {**_ENCODER, "cls_token_id": 2, "sep_token_id": 1}),
    "nemotron": ("NemotronConfig", _HEADED),
    "phimoe": ("PhimoeConfig", {**_DECODER, **_WINDOW, **_LOCAL_EXPERTS}),
    "qwen3_next": ("Qwen3NextConfig", {**_HEADED, **_EXPERTS, "shared_expert_intermediate_size": 16}),
    "stablelm": ("StableLmConfig", _DECODER),
    # encoders
    "albert": ("AlbertConfig", {**_ENCODER, "embedding_size": 16}),
    "bert": ("BertConfig", _ENCODER),
    "camembert": ("CamembertConfig", _ENCODER),
    "deberta_v2": ("DebertaV2Config", _ENCODER),
    "distilbert": ("DistilBertConfig", {"vocab_size": 300, "dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 4}),
    "electra": ("ElectraConfig", {**_ENCODER, "embedding_size": 16}),
    "modernbert": ("ModernBertConfig", {**_ENCODER, "cls_token_id": 2, "sep_token_id": 1}),
    "roberta": ("RobertaConfig", _ENCODER),
}


_CLASSES: dict[str, Any] = {
    "sequence": AutoModelForSequenceClassification,
    "token": AutoModelForTokenClassification,
    "language": AutoModelForCausalLM,
}


@pytest.fixture(scope="session")
def make_model() -> Callable[..., PreTrainedModel]:
    """A function: family name, head, changes to its config -> a model with random weights, pad 0 and end token 1."""

    def make(family: str, head: str = "sequence", **changes: Any) -> PreTrainedModel:
        name, shape = _CONFIGS[family]
        special = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2, "num_labels": 1, "use_cache": False}
        config = getattr(transformers, name)(**{**shape, **special, **changes})
        torch.manual_seed(0)
        model = _CLASSES[head].from_config(config)
        # Biases start at 0 and weights small; a trained model is neither, and its scores differ between texts.
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        return model.eval()

    return make

"""Scores equal transformers' own forward, on every family, however sequences are padded, batched and ordered."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rewardlab.modeling.engine import score_sequences
from rewardlab.modeling.forward import length_buckets, model_inputs, pad, takes_position_ids
from rewardlab.modeling.head import use_float32_head

DECODERS = ["llama", "qwen2", "qwen3", "mistral", "gemma2", "gemma3", "gpt2", "gpt_neox", "phi3", "olmo2"]
ENCODERS = ["bert", "deberta_v2", "modernbert"]
SEQUENCES = [[2, 5, 6, 7, 1], [2, 8, 9, 10, 11, 12, 13, 14, 1], [2, 4, 1], [2, *range(20, 60), 1]]


def own_forward(model, ids: list[int]) -> float:
    """Transformers alone: one sequence, nothing padded, nothing of ours."""
    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids])).logits[0, 0].item()


@pytest.mark.parametrize("family", DECODERS + ENCODERS)
def test_scores_equal_transformers_own_forward(make_model, family: str) -> None:
    model = make_model(family)
    expected = [own_forward(model, ids) for ids in SEQUENCES]
    assert max(expected) - min(expected) > 1e-3  # else nothing would be compared
    use_float32_head(model)
    assert takes_position_ids(model) == (family in DECODERS)
    sides = ["right", "left"] if family in DECODERS else ["right"]
    ways = {
        "batched": score_sequences(model, SEQUENCES),
        "alone": [score_sequences(model, [ids])[0] for ids in SEQUENCES],
        "reversed": score_sequences(model, SEQUENCES[::-1])[::-1],
        "small budget": score_sequences(model, SEQUENCES, tokens_per_batch=20),
    }
    for side in sides:
        with torch.inference_mode():
            batch = model_inputs(model, pad(SEQUENCES, 0, side=side, extra=5))
            ways[f"padded {side}"] = model(**batch).logits.squeeze(-1).tolist()
    for way, scores in ways.items():
        assert scores == pytest.approx(expected, abs=1e-5), way


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_left_padding_needs_explicit_positions(make_model, family: str) -> None:
    """What the explicit position ids prevent: without them GPT-2's learned positions start inside the padding."""
    model = make_model(family)
    batch = pad([SEQUENCES[0]], 0, side="left", extra=9)
    with torch.inference_mode():
        wrong = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[0, 0].item()
    moved = abs(wrong - own_forward(model, SEQUENCES[0])) > 1e-4
    assert moved == (family == "gpt2")  # rotary positions are relative


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 120))
def test_buckets_hold_each_sequence_once_and_keep_the_budget(lengths: list[int], budget: int) -> None:
    buckets = list(length_buckets(lengths, budget))
    assert sorted(i for bucket in buckets for i in bucket) == list(range(len(lengths)))
    for bucket in buckets:
        width = max(lengths[i] for i in bucket)
        assert len(bucket) == 1 or width * len(bucket) <= budget


@given(st.permutations(range(len(SEQUENCES))), st.integers(4, 200))
def test_order_and_batch_size_do_not_matter(make_model, order: list[int], budget: int) -> None:
    model = _cached(make_model)
    expected = score_sequences(model, SEQUENCES)
    scores = score_sequences(model, [SEQUENCES[i] for i in order], tokens_per_batch=budget)
    assert scores == pytest.approx([expected[i] for i in order], abs=1e-5)


def test_scoring_restores_the_training_mode(make_model) -> None:
    model = _cached(make_model).train()
    score_sequences(model, SEQUENCES[:1])
    assert model.training
    model.eval()


def test_padding_layout() -> None:
    batch = pad([[5, 6], [7]], 0, side="left", extra=1)
    assert batch["input_ids"].tolist() == [[0, 5, 6], [0, 0, 7]]
    assert batch["attention_mask"].tolist() == [[0, 1, 1], [0, 0, 1]]
    assert batch["position_ids"].tolist() == [[0, 0, 1], [0, 0, 0]]


_MODELS: dict[str, object] = {}


def _cached(make_model):
    if "qwen3" not in _MODELS:
        _MODELS["qwen3"] = make_model("qwen3")
    return _MODELS["qwen3"]

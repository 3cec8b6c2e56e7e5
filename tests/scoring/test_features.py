"""The features of a completion are transformers' own hidden state at the token that the head reads."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    LlamaConfig,
)

from rewardlab.errors import CheckpointError
from rewardlab.modeling.engine import Engine
from rewardlab.scoring.ensemble import EnsembleScorer
from rewardlab.scoring.features import completion_features
from rewardlab.scoring.implicit import ImplicitRewardScorer
from rewardlab.scoring.scorer import Scorer
from rewardlab.types import PromptGroup

GROUPS = [
    PromptGroup("Write about the sea.", ["the sea and the wind", "a long poem about the sea and the wind", "x"]),
    PromptGroup("Hi", ["hello there, how are you?"]),
    PromptGroup("Write about the sea.", ["the sea and the wind"]),
]


@pytest.fixture(scope="module")
def scorer(reward_model: Path) -> Scorer:
    return Scorer.from_pretrained(reward_model)


def conversation_ids(tokenizer: Any, prompt: str, completion: str) -> torch.Tensor:
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]
    return tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=False)


def test_they_are_transformers_last_hidden_state_at_the_last_token(scorer: Scorer, reward_model: Path) -> None:
    """Ten lines that know nothing of rewardlab; each sequence alone, without padding."""
    tokenizer = AutoTokenizer.from_pretrained(reward_model)
    model = AutoModelForSequenceClassification.from_pretrained(reward_model).eval()
    for group, found in zip(GROUPS, scorer.features(GROUPS), strict=True):
        with torch.inference_mode():
            ids = [conversation_ids(tokenizer, group.prompt, completion) for completion in group.completions]
            expected = torch.stack([model.base_model(one).last_hidden_state[0, -1] for one in ids]).numpy()
        assert found.dtype == np.float32
        assert found.shape == (len(group.completions), model.config.hidden_size)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        head = model.score.weight.detach().numpy()[0]
        np.testing.assert_allclose(found @ head, scorer.score_groups([group])[0], atol=1e-4)


@pytest.mark.parametrize("engine", ["tree", "packed"])
def test_neighbours_order_and_budget_do_not_matter(scorer: Scorer, reward_model: Path, engine: str) -> None:
    expected = [scorer.features([group])[0] for group in GROUPS]
    other = Scorer.from_pretrained(reward_model, engine=engine, tokens_per_batch=8)
    for found, alone in zip(other.features(GROUPS[::-1])[::-1], expected, strict=True):
        np.testing.assert_allclose(found, alone, atol=1e-5)
    same = other.features(GROUPS)
    np.testing.assert_array_equal(same[0][0], same[2][0])


def test_the_padded_layout_has_none(reward_model: Path) -> None:
    with pytest.raises(CheckpointError, match="reads every token"):
        Scorer.from_pretrained(reward_model, engine="padded").features(GROUPS)


def test_of_an_ensemble_they_are_the_first_members(scorer: Scorer, reward_model: Path) -> None:
    ensemble = EnsembleScorer([scorer, Scorer.from_pretrained(reward_model)], on="raw")
    for found, first in zip(ensemble.features(GROUPS), scorer.features(GROUPS), strict=True):
        np.testing.assert_array_equal(found, first)


def test_of_an_implicit_reward_they_are_the_policys_mean_over_what_it_predicts(base_model: Path) -> None:
    scorer = ImplicitRewardScorer.from_pretrained(base_model)
    model = AutoModelForCausalLM.from_pretrained(base_model).eval()
    group = GROUPS[0]
    encoded = scorer.encoder.encode(group)
    found = scorer.features([group])[0]
    for ids, positions, one in zip(encoded.sequences, encoded.readouts, found, strict=True):
        with torch.inference_mode():
            hidden = model.base_model(torch.tensor([ids])).last_hidden_state[0].numpy()
        np.testing.assert_allclose(one, hidden[list(positions)].mean(axis=0), atol=1e-5)


@pytest.mark.parametrize("layout", ["tree", "packed", "padded"])
def test_where_several_tokens_are_read_it_is_their_mean(layout: Any) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_labels=2,
        pad_token_id=0,
    )
    model = AutoModelForTokenClassification.from_config(config).eval()
    sequences = [(1, 2, 3, 4, 5), (1, 2, 9), (7, 8, 9, 10)]
    readouts = [[2, 4], [2], [0, 1, 3]]
    groups: Any = [
        SimpleNamespace(sequences=sequences[:2], readouts=readouts[:2]),
        SimpleNamespace(sequences=sequences[2:], readouts=readouts[2:]),
    ]
    plain = []
    for ids, positions in zip(sequences, readouts, strict=True):
        with torch.inference_mode():
            plain.append(model.base_model(torch.tensor([ids])).last_hidden_state[0, positions].mean(dim=0).numpy())
    told: list[int] = []
    engine = Engine(model, layout, tokens_per_batch=6)
    found = completion_features(engine, groups, lambda item: item.readouts, told.append)
    assert [len(of_group) for of_group in found] == [2, 1]
    np.testing.assert_allclose(np.concatenate(found), np.stack(plain), atol=1e-5)
    assert sum(told) == 3


def test_nothing_has_none(scorer: Scorer) -> None:
    assert scorer.features([]) == []

"""Called as trlX's ``make_experience`` does: texts with the end token behind them, metadata as keyword arguments."""

from __future__ import annotations

import numpy as np
import pytest

from rewardlab.adapters.trlx import make_reward_fn
from rewardlab.errors import DataError


def called(reward_fn, six, tokenizer, **metadata):
    outputs = [f"{answer}<eos>" for answer in six[1]]
    samples = [prompt + output for prompt, output in zip(six[0], outputs, strict=True)]
    return reward_fn(samples=samples, prompts=six[0], outputs=outputs, tokenizer=tokenizer, **metadata)


def test_rewards_are_the_scorers_scores_of_the_answers_alone(scorer, tokenizer, six):
    expected = scorer.score(*six)
    assert called(make_reward_fn(scorer), six, tokenizer) == pytest.approx(expected, abs=1e-5)
    assert called(make_reward_fn(scorer), six, None, model_tok=tokenizer) == pytest.approx(expected, abs=1e-5)


def test_the_delta_reward_of_trlx_examples(scorer, tokenizer, six):
    reward_fn = make_reward_fn(scorer, transforms=["delta"], baseline="original_output")
    found = called(reward_fn, six, tokenizer, original_output=["a short poem"] * 6)
    assert found == pytest.approx(np.subtract(scorer.score(*six), scorer.score(six[0], ["a short poem"] * 6)), abs=1e-5)
    with pytest.raises(DataError, match="no 'original_output'"):
        called(reward_fn, six, tokenizer)


def test_what_has_no_score_raises_or_is_what_was_said(scorer, tokenizer, too_long):
    with pytest.raises(DataError, match="completion too long"):
        called(make_reward_fn(scorer), (["p"], [too_long]), tokenizer)
    assert called(make_reward_fn(scorer, unscored=-1.0), (["p"], [too_long]), tokenizer) == [-1.0]

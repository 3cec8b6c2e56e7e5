from __future__ import annotations

import copy
import json
import logging
import pickle

import numpy as np
import pytest

from rewardlab.adapters.rewarding import Rewarder
from rewardlab.errors import ConfigError, DataError
from rewardlab.rewards.chain import RewardChain
from rewardlab.scoring.ensemble import EnsembleScorer


def test_without_transforms_rewards_are_scores_and_none_is_none(scorer, six, too_long, caplog):
    """A failure is told once and counted, and never becomes a number."""
    prompts, completions = six
    rewarder = Rewarder(scorer)
    completions[1] = too_long
    with caplog.at_level(logging.WARNING):
        first = rewarder.reward(prompts, completions).rewards_or_none()
        rewarder.reward(prompts, completions)
    assert first[1] is None
    kept = [0, 2, 3, 4, 5]
    expected = scorer.score([prompts[i] for i in kept], [completions[i] for i in kept])
    assert [first[i] for i in kept] == pytest.approx(expected, abs=1e-5)
    assert rewarder.num_unscored == 2
    assert sum("no score" in record.message for record in caplog.records) == 1


def test_what_a_trainer_without_none_is_given_must_be_said(scorer, too_long):
    rewards = Rewarder(scorer).reward(["p", "p"], ["a poem", too_long])
    assert rewards.rewards_or(-7.0)[1] == -7.0
    with pytest.raises(DataError, match="completion 1 has no reward: completion too long"):
        rewards.rewards_or(None)


def test_delta_subtracts_the_reference_completions_score_which_is_scored_once(scorer, six, monkeypatch):
    prompts, completions = six
    references = {prompt: f"a short poem about {prompt}" for prompt in prompts}
    rewarder = Rewarder(scorer, transforms=["delta"], baseline=references.get)
    expected = np.subtract(scorer.score(prompts, completions), scorer.score(prompts, [references[p] for p in prompts]))
    counts = []
    score = scorer.score_encoded
    monkeypatch.setattr(scorer, "score_encoded", lambda e: counts.append(sum(len(g.sequences) for g in e)) or score(e))
    assert rewarder.reward(prompts, completions).rewards_or_none() == pytest.approx(expected, abs=1e-5)
    assert rewarder.reward(prompts, completions).rewards_or_none() == pytest.approx(expected, abs=1e-5)
    assert counts == [8, 6]  # two prompts with one reference each, then none


def test_the_cache_of_references_is_bounded(scorer):
    rewarder = Rewarder(scorer, transforms=["delta"], baseline=lambda prompt: "a poem", cache_size=2)
    rewarder.reward(["a", "b", "c", "d"], ["the sea"] * 4)
    assert len(rewarder._cache) == 2


def test_delta_without_a_reference_is_refused_and_optional_delta_is_not(scorer):
    with pytest.raises(ConfigError, match="delta needs each prompt's reference"):
        Rewarder(scorer, transforms=["delta"]).reward(["p"], ["a"])
    Rewarder(scorer, transforms="default").reward(["p"], ["a"])


def test_missing_eos_needs_to_know_who_ended(scorer):
    rewarder = Rewarder(scorer, transforms=[{"missing_eos": {"penalty": 1.0}}])
    with pytest.raises(ConfigError, match="which completions ended"):
        rewarder.reward(["p"], ["a"])
    ended, cut = rewarder.reward(["p", "p"], ["a", "a"], ended=[True, False]).rewards_or_none()
    assert ended - cut == pytest.approx(1.0)


def test_evaluation_uses_the_running_statistics_and_leaves_them(scorer, six):
    rewarder = Rewarder(scorer, transforms=["running"])
    rewarder.reward(*six)
    before = rewarder.state_dict()
    rewarder.reward(six[0][:3], six[1][:3], update=False)
    assert rewarder.state_dict() == before
    rewarder.reward(six[0][:3], six[1][:3])
    assert rewarder.state_dict() != before


def test_a_state_goes_through_json_and_the_rewards_go_on_bit_equal(scorer, six):
    first, second = Rewarder(scorer, transforms="default"), Rewarder(scorer, transforms="default")
    first.reward(*six)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert second.reward(*six).rewards_or_none() == first.reward(*six).rewards_or_none()
    with pytest.raises(ConfigError, match="another chain: delta, clip, running; this one is empty"):
        Rewarder(scorer).load_state_dict(first.state_dict())


def test_what_has_a_state_to_keep(scorer, six):
    """Running moments from the start; a first batch once it came; without transforms nothing."""
    waiting = Rewarder(scorer, transforms=["ref"])
    before = waiting.has_state
    waiting.reward(*six)
    kept = [Rewarder(scorer).has_state, Rewarder(scorer, transforms="default").has_state, before, waiting.has_state]
    assert kept == [False, True, False, True]


def test_the_contracts_reference_set_is_for_raw_scores(reward_model, scorer, six):
    """(s - mean) / std by the transform is the scale z by the scorer."""
    spec = [{"ref": {"source": "contract", "shift_mean": True}}]
    by_transform = Rewarder(scorer, transforms=spec).reward(*six).rewards_or_none()
    by_scale = Rewarder(reward_model, scale="z").reward(*six).rewards_or_none()
    assert by_transform == pytest.approx(by_scale, abs=1e-4)
    with pytest.raises(ConfigError, match="the model has none"):
        Rewarder(reward_model, scale="z", transforms=spec)


def test_options_are_for_scorers_that_are_opened_here(scorer):
    with pytest.raises(ConfigError, match="scale cannot be changed"):
        Rewarder(scorer, scale="z")
    with pytest.raises(ConfigError, match="cache_size"):
        Rewarder(scorer, cache_size=0)


def test_special_tokens_of_the_policy_do_not_reach_the_reward_model(scorer, six, tokenizer):
    prompts, completions = six
    leaked = [f"{completion}<eos><pad>" for completion in completions]
    clean = Rewarder(scorer).reward(prompts, completions).rewards_or_none()
    assert Rewarder(scorer, policy_tokenizer=tokenizer).reward(prompts, leaked).rewards_or_none() == clean
    assert Rewarder(scorer, strip=["<eos>", "<pad>"]).reward(prompts, leaked).rewards_or_none() == clean


def test_an_ensembles_rewards_and_disagreements_are_of_its_members(scorer, other_scorer, six):
    """Mean and standard deviation (ddof 0) of what the two give, each by itself."""
    both = np.array([scorer.score(*six), other_scorer.score(*six)])
    assert np.ptp(both, axis=0).min() > 1e-3
    rewards = Rewarder(EnsembleScorer([scorer, other_scorer], "mean", on="raw")).reward(*six)
    assert rewards.rewards_or_none() == pytest.approx(both.mean(axis=0), abs=1e-5)
    assert rewards.scored.disagreements == pytest.approx(both.std(axis=0), abs=1e-5)


def test_a_copy_opens_its_own_model_and_gives_the_same_rewards(reward_model, six):
    rewarder = Rewarder(reward_model, transforms="default")
    rewarder.reward(*six)
    for other in (copy.deepcopy(rewarder), pickle.loads(pickle.dumps(rewarder))):
        assert other.scorer is not rewarder.scorer
        assert other.state_dict() == rewarder.state_dict()
        assert (
            other.reward(*six, update=False).rewards_or_none() == rewarder.reward(*six, update=False).rewards_or_none()
        )


def test_a_chain_may_be_given_as_it_is(scorer, six):
    chain = RewardChain.from_config([{"clip": {"limit": 0.001}}])
    assert max(map(abs, Rewarder(scorer, transforms=chain).reward(*six).rewards_or_none())) <= 0.001

from __future__ import annotations

import math

import pytest

from rewardlab.adapters.single_rewards import Single, SingleRewards
from rewardlab.errors import ConfigError, DataError
from rewardlab.scoring.ensemble import EnsembleScorer


def test_single_completions_are_scored_together_and_get_the_scorers_scores(scorer, six, monkeypatch):
    sizes = []
    score = scorer.score_encoded
    monkeypatch.setattr(scorer, "score_encoded", lambda e: sizes.append(sum(len(g.sequences) for g in e)) or score(e))
    rewards = SingleRewards(scorer, max_wait_ms=200)
    futures = [rewards.submit(Single(*pair)) for pair in zip(*six, strict=True)]
    found = [future.result() for future in futures]
    assert len(sizes) < 6
    monkeypatch.undo()
    assert [answer.reward for answer in found] == pytest.approx(scorer.score(*six), abs=1e-5)
    assert found[0].extras() == {"reward_model_score": found[0].score}


def test_an_ensembles_disagreement_stands_beside_the_reward(scorer, other_scorer):
    found = SingleRewards(EnsembleScorer([scorer, other_scorer], "min", on="raw"))
    members = [one.score(["p"], ["a poem"])[0] for one in (scorer, other_scorer)]
    extras = found.submit(Single("p", "a poem")).result().extras()
    assert extras["disagreement"] == pytest.approx(abs(members[0] - members[1]) / 2, abs=1e-5)


def test_what_has_no_score_fails_alone_or_is_given_what_was_said(scorer, too_long):
    rewards = SingleRewards(scorer, max_wait_ms=50)
    good, bad = rewards.submit(Single("p", "a poem")), rewards.submit(Single("p", too_long))
    assert good.result().reward == pytest.approx(scorer.score(["p"], ["a poem"])[0], abs=1e-5)
    with pytest.raises(DataError, match="completion too long"):
        bad.result()
    said = SingleRewards(scorer, unscored=-3.0).submit(Single("p", too_long)).result()
    assert (said.reward, said.extras()) == (-3.0, {"reward_model_score": pytest.approx(math.nan, nan_ok=True)})


def test_a_batch_has_the_same_names_for_every_completion(scorer, other_scorer, too_long):
    """As verl collects them: the names of the first, asked of all."""
    rewards = SingleRewards(EnsembleScorer([scorer, other_scorer], "min", on="raw"), unscored=-3.0)
    for texts in (("a poem", too_long), (too_long, "a poem")):
        infos = [rewards.submit(Single("p", text)).result().extras() for text in texts]
        columns = {name: [info[name] for info in infos] for name in infos[0]}
        assert sorted(columns) == ["disagreement", "reward_model_score"]
        assert [math.isnan(value) for value in columns["disagreement"]] == [text == too_long for text in texts]


def test_a_running_state_moves_once_though_an_item_fails(scorer, too_long):
    rewards = SingleRewards(scorer, transforms=["running"], max_wait_ms=50)
    futures = [rewards.submit(Single("p", text)) for text in ("a poem", "the sea", too_long)]
    assert [type(future.exception()) for future in futures] == [type(None), type(None), DataError]
    (state,) = rewards.rewarder.state_dict()["transforms"]
    assert state["state"]["count"] == pytest.approx(2)


@pytest.mark.parametrize("transform", ["whiten", "group", "center", "ref", {"missing_eos": {"penalty": 1.0}}])
def test_transforms_that_need_a_batch_are_refused(scorer, transform):
    with pytest.raises(ConfigError, match=r"one completion at a time|does not say"):
        SingleRewards(scorer, transforms=[transform])


def test_the_contracts_reference_is_no_batch(scorer):
    spec = [{"ref": {"source": "contract"}}, {"clip": {"limit": 5}}, {"temperature": {"value": 2.0}}]
    answer = SingleRewards(scorer, transforms=spec).submit(Single("p", "a poem")).result()
    std = scorer.reference_scale.reference.std
    assert answer.reward == pytest.approx(min(max(answer.score / std, -5), 5) / 2, rel=1e-5)


def test_a_reward_does_not_depend_on_what_came_with_it(scorer):
    """Gathered with an item that has a baseline, one that has none fails as it does alone, or has the function's."""
    with_one, without = Single("p", "a poem", "the sea"), Single("p", "a poem")
    rewards = SingleRewards(scorer, transforms=["delta"], max_wait_ms=50)
    good, bad = rewards.submit(with_one), rewards.submit(without)
    a_poem, the_sea = scorer.score(["p", "p"], ["a poem", "the sea"])
    assert good.result().reward == pytest.approx(a_poem - the_sea, abs=1e-5)
    for future in (bad, rewards.submit(without)):
        with pytest.raises(DataError, match="needs a baseline"):
            future.result()
    rewards = SingleRewards(scorer, transforms=["delta"], baseline=lambda _: "the sea", max_wait_ms=50)
    futures = [rewards.submit(one) for one in (with_one, without)]
    assert [future.result().reward for future in futures] == pytest.approx([a_poem - the_sea] * 2, abs=1e-5)

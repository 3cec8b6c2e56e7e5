"""The reward functions in TRL's own trainers, on a CPU: a small random policy, a small trained reward model."""

from __future__ import annotations

import asyncio
import copy
import math
import shutil

import numpy as np
import pytest
import torch
from trl.trainer.utils import get_callable_name, is_async_callable

from rewardlab.adapters import trl
from rewardlab.adapters.trl import AsyncRewardFunction, RewardFunction, keep_reward_state
from rewardlab.calibration.scale import ScoreScale
from rewardlab.errors import ConfigError, DataError
from rewardlab.scoring.ensemble import EnsembleScorer
from rewardlab.scoring.scorer import Scorer


class Recorded(RewardFunction):
    """Remembers what TRL gave and got."""

    calls: list[tuple[list, list, list]]

    def __call__(self, prompts, completions, *args, **kwargs):
        rewards = super().__call__(prompts, completions, *args, **kwargs)
        self.calls.append((copy.deepcopy(prompts), copy.deepcopy(completions), list(rewards)))
        return rewards


@pytest.mark.parametrize(("rloo", "conversational"), [(False, True), (False, False), (True, True)])
def test_a_real_run_trains_on_the_scorers_numbers(reward_model, make_trainer, rloo, conversational):
    """Every call re-scored by a Scorer of its own; TRL's logged mean is the mean of those scores."""
    function = Recorded(reward_model, name="rm")
    function.calls = []
    trainer = make_trainer(function, rloo=rloo, conversational=conversational)
    used = []
    calculate = trainer._calculate_rewards
    trainer._calculate_rewards = lambda *args: used.append(calculate(*args)) or used[-1]
    before = [p.clone() for p in trainer.model.parameters()]
    trainer.train()

    scorer = Scorer.from_pretrained(reward_model)
    history = [row for row in trainer.state.log_history if "reward" in row]
    assert len(function.calls) == len(history) == 2
    for (prompts, completions, rewards), gathered, row in zip(function.calls, used, history, strict=True):
        assert isinstance(prompts[0], list) is conversational
        expected = scorer.score(prompts, completions)
        assert rewards == pytest.approx(expected, abs=1e-5)
        assert gathered[:, 0].tolist() == pytest.approx(expected, abs=1e-5)
        assert row["rewards/rm/mean"] == pytest.approx(np.mean(expected), abs=1e-5)
        assert row["rewards/rm/score_mean"] == pytest.approx(np.mean(expected), abs=1e-5)
        assert row["rewards/rm/score_std"] == pytest.approx(np.std(expected), abs=1e-5)
        percentile = np.mean(scorer.reference_scale.transform(expected, "percentile"))
        assert row["rewards/rm/percentile"] == pytest.approx(percentile, rel=1e-3)
        assert row["rewards/rm/truncated"] == row["rewards/rm/unscored"] == 0
    assert list(trainer._logs["extra"]["rm/score"]) == pytest.approx(function.calls[-1][2], abs=1e-6)
    assert any(not torch.equal(a, b) for a, b in zip(before, trainer.model.parameters(), strict=True))


class Trainer:
    """What a reward function sees of a trainer: the owner of ``log_metric``."""

    def __init__(self, training: bool = True) -> None:
        self.model = torch.nn.Linear(1, 1).train(training)
        self.eos_token_ids = [2, 7]
        self.metrics: dict[str, float] = {}

    def log_metric(self, name: str, value: float) -> None:
        self.metrics[name] = value


def test_sync_and_async_are_what_trl_takes_them_for_and_give_the_same(scorer, six):
    function, coroutine = RewardFunction(scorer, name="a"), AsyncRewardFunction(scorer, name="b")
    assert not is_async_callable(function)
    assert is_async_callable(coroutine)
    assert (get_callable_name(function), get_callable_name(coroutine)) == ("a", "b")
    assert asyncio.run(coroutine(*six)) == function(*six)


def test_by_default_it_is_called_as_its_folder(scorer, reward_model):
    assert RewardFunction(scorer).__name__ == reward_model.name == "rm"
    assert RewardFunction(f"{reward_model},{reward_model}").__name__ == "ensemble"


def test_a_folder_with_a_comma_or_a_colon_in_its_name_is_one_model(reward_model, tmp_path):
    for name in ("rm,v2", "rm:v2"):
        shutil.copytree(reward_model, tmp_path / name)
        function = RewardFunction(tmp_path / name)
        assert (function.__name__, function.scorer.is_ensemble) == (name, False)


def test_an_ensembles_disagreement_is_logged(scorer, other_scorer, six):
    trainer, columns = Trainer(), {}
    function = RewardFunction(EnsembleScorer([scorer, other_scorer], "min", on="raw"))
    function(*six, log_metric=trainer.log_metric, log_extra=columns.__setitem__)
    spread = np.std([scorer.score(*six), other_scorer.score(*six)], axis=0)
    assert columns["ensemble/disagreement"] == pytest.approx(spread, abs=1e-5)
    assert trainer.metrics["rewards/ensemble/disagreement"] == pytest.approx(spread.mean(), abs=1e-5)


def test_several_functions_one_async_with_weights_and_a_missing_reward(reward_model, make_trainer, too_long):
    """Weights 2 and 1; the completion that does not fit is None for the model, and keeps the other's reward."""

    def length(completions, **_):
        return [float(len(completion)) for completion in completions]

    class Lengthened(AsyncRewardFunction):
        async def __call__(self, prompts, completions, *args, **kwargs):
            return await super().__call__(prompts, [too_long, *completions[1:]], *args, **kwargs)

    function = Lengthened(reward_model, name="rm")
    trainer = make_trainer([function, length], max_steps=1, reward_weights=[2.0, 1.0])
    used = []
    calculate = trainer._calculate_rewards
    trainer._calculate_rewards = lambda *args: used.append(calculate(*args)) or used[-1]
    trainer.train()
    (row,) = [row for row in trainer.state.log_history if "reward" in row]
    rewards = used[0].tolist()
    assert math.isnan(rewards[0][0])
    assert not any(math.isnan(model) for model, _ in rewards[1:])
    total = [rewards[0][1], *(2 * model + other for model, other in rewards[1:])]
    assert row["reward"] == pytest.approx(np.mean(total), rel=1e-5)
    assert row["rewards/rm/unscored"] == 1


def test_where_nothing_has_a_score_there_is_no_number(scorer, too_long):
    trainer = Trainer()
    assert RewardFunction(scorer)(["p", "q"], [too_long] * 2, log_metric=trainer.log_metric) == [None, None]
    assert trainer.metrics == {
        "rewards/rm/unscored": 2.0,
        "rewards/rm/truncated": 0.0,
        "rewards/rm/offences": 2.0,
    }


def test_transforms_and_their_statistics_are_logged_with_one_prefix(scorer, six):
    trainer, columns = Trainer(), {}
    function = RewardFunction(scorer, transforms="default", baseline_column="reference")
    rewards = function(
        *six, reference=["a poem"] * 6, log_metric=trainer.log_metric, log_extra=columns.__setitem__, trainer_state=None
    )
    delta = np.subtract(scorer.score(*six), scorer.score(six[0], ["a poem"] * 6))
    running = np.std(delta, ddof=1)  # the first update's
    assert rewards == pytest.approx(np.clip(delta, -10, 10) / running, rel=1e-3, abs=1e-5)
    assert trainer.metrics["rewards/rm/running_std"] == pytest.approx(running, rel=1e-3)
    assert all(name.startswith("rewards/rm/") for name in trainer.metrics)
    assert columns["rm/score"] == pytest.approx(scorer.score(*six), abs=1e-5)


def test_what_the_contract_calibrates_is_logged_calibrated(scorer, six, monkeypatch):
    """(s - mean) / T, with the reference's mean; of scores that are on a scale already, nothing more."""
    trainer, reference = Trainer(), scorer.reference_scale.reference
    monkeypatch.setattr(scorer, "reference_scale", ScoreScale(reference, 2.0))
    RewardFunction(scorer)(*six, log_metric=trainer.log_metric)
    expected = (np.mean(scorer.score(*six)) - reference.mean) / 2.0
    assert trainer.metrics["rewards/rm/calibrated"] == pytest.approx(expected, abs=1e-5)
    monkeypatch.setattr(scorer, "scale", "z")
    trainer = Trainer()
    RewardFunction(scorer)(*six, log_metric=trainer.log_metric)
    assert not trainer.metrics.keys() & {"rewards/rm/calibrated", "rewards/rm/percentile"}


def test_evaluation_is_told_by_the_trainers_model_and_moves_no_state(scorer, six):
    function = RewardFunction(scorer, transforms=["running"])
    function(*six, log_metric=Trainer(training=True).log_metric)
    learned = function.state_dict()
    function(*six, log_metric=Trainer(training=False).log_metric)
    assert function.state_dict() == learned
    function(*six)  # nobody says: training
    assert function.state_dict() != learned


def test_an_evaluation_in_trl_moves_no_state(reward_model, make_trainer):
    function = RewardFunction(reward_model, transforms=["running"], name="rm")
    trainer = make_trainer(function, max_steps=1, per_device_eval_batch_size=8)
    keep_reward_state(trainer)
    trainer.train()
    learned = function.state_dict()
    metrics = trainer.evaluate(trainer.train_dataset)
    assert function.state_dict() == learned
    assert "eval_rewards/rm/score_mean" in trainer.state.log_history[-1] or "eval_rewards/rm/score_mean" in metrics


def test_who_ended_is_told_by_the_trainers_end_tokens(scorer):
    function = RewardFunction(scorer, transforms=[{"missing_eos": {"penalty": 1.0}}])
    given = {"prompts": ["p"] * 3, "completions": ["a"] * 3, "completion_ids": [[5, 7], [7, 5], []]}
    one, two, three = function(**given, log_metric=Trainer().log_metric)
    assert one - two == pytest.approx(1.0)
    assert two == three
    with pytest.raises(ConfigError, match="which completions ended"):
        function(**given)
    own = RewardFunction(scorer, transforms=[{"missing_eos": {"penalty": 1.0}}], eos_token_id=5)
    assert own(**given)[1] - own(**given)[0] == pytest.approx(1.0)


def test_a_column_that_is_not_there_is_named(scorer):
    function = RewardFunction(scorer, transforms=["delta"], baseline_column="reference")
    with pytest.raises(DataError, match=r"no column 'reference' .* answer"):
        function(["p"], ["a"], answer=["b"])
    with pytest.raises(ConfigError, match="give one"):
        RewardFunction(scorer, baseline_column="a", baseline=str)


def test_a_state_that_nobody_keeps_is_warned_about_once(scorer, six, caplog):
    function = RewardFunction(scorer, transforms="default")
    for _ in range(2):
        function(*six, log_metric=Trainer().log_metric)
    assert sum("not saved in checkpoints" in record.message for record in caplog.records) == 1


def test_each_rank_has_its_model_on_its_own_gpu(monkeypatch):
    """Made before the trainer sets the current device, all ranks' models would be on the first."""
    seen = []
    monkeypatch.setattr(trl, "Rewarder", lambda scorer, **options: seen.append(options.get("device")))
    RewardFunction("rm", name="rm")
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    RewardFunction("rm", name="rm")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    RewardFunction("rm", name="rm")
    RewardFunction("rm", name="rm", device="cpu")
    assert seen == [None, None, "cuda:3", "cpu"]


def test_a_reward_function_can_be_copied(reward_model, six):
    function = RewardFunction(reward_model, transforms="default", name="rm")
    other = copy.deepcopy(function)
    assert other.__name__ == "rm"
    assert other(*six) == function(*six)

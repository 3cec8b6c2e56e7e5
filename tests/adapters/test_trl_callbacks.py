"""The callbacks in real runs of TRL; what they must keep is compared over a stop and a resumption."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from rewardlab.adapters.trl import RewardFunction, keep_reward_state, use_kl_control
from rewardlab.adapters.trl_callbacks import KLCallback
from rewardlab.errors import ConfigError
from rewardlab.rewards.combining import CombinedReward, RewardPart
from rewardlab.rewards.kl import AdaptiveKL, FixedKL


def rows(trainer) -> list[dict]:
    return [row for row in trainer.state.log_history if "kl" in row]


@pytest.mark.parametrize(("rloo", "unit", "target"), [(False, "token", 0.05), (True, "sequence", 2.0)])
def test_beta_follows_the_logged_kl(scorer, make_trainer, rloo, unit, target):
    """Recomputed by hand: value *= 1 + clip(kl / target - 1, -0.2, 0.2) * 8 / 100, of 8 new completions a step."""
    trainer = make_trainer(RewardFunction(scorer), rloo=rloo, beta=0.5, max_steps=3)
    callback = use_kl_control(trainer, AdaptiveKL(0.1, target=target, horizon=100), unit=unit)
    assert trainer.beta == 0.1  # the controller's, from the first step on
    trainer.train()
    value = 0.1
    for row in rows(trainer):
        assert row["kl_coef"] == pytest.approx(value, rel=1e-12)
        assert row["kl_target"] == target
        kl = row["kl"] * (row["completions/mean_length"] if unit == "sequence" else 1.0)
        assert row[f"kl_per_{unit}"] == pytest.approx(kl)
        value *= 1 + min(max(kl / target - 1, -0.2), 0.2) * 8 / 100
    assert len(rows(trainer)) == 3
    assert trainer.beta == callback.controller.value == pytest.approx(value, rel=1e-12)
    assert value != 0.1


def test_a_fixed_coefficient_stays_and_is_logged(scorer, make_trainer):
    trainer = make_trainer(RewardFunction(scorer), beta=0.5)
    use_kl_control(trainer, FixedKL(0.03))
    trainer.train()
    assert [row["kl_coef"] for row in rows(trainer)] == [0.03, 0.03]
    assert trainer.beta == 0.03


def test_a_resumed_run_goes_on_with_coefficient_and_transforms_as_they_were(scorer, make_trainer, tmp_path):
    """Where the stopped run's checkpoint is read again, everything is as at the stop, bit for bit."""

    def make(folder: Path, steps: int, **options):
        function = RewardFunction(scorer, transforms="default", name="rm")
        trainer = make_trainer(function, output_dir=str(folder), beta=0.5, max_steps=steps, **options)
        keep_reward_state(trainer)
        callback = use_kl_control(trainer, AdaptiveKL(0.1, target=0.05, horizon=100), unit="token")
        return trainer, function, callback

    trainer, function, callback = make(tmp_path / "first", 2, save_strategy="steps", save_steps=2)
    trainer.train()
    learned, value = function.state_dict(), callback.controller.value
    checkpoint = tmp_path / "first" / "checkpoint-2"
    kept = json.loads((checkpoint / "trainer_state.json").read_text())["stateful_callbacks"]
    assert kept["KLCallback"]["attributes"] == {"controller": {"value": value}, "step": 2}
    assert kept["RewardStateCallback"]["attributes"] == {"rm": learned}

    checkpoint = checkpoint.rename(tmp_path / "moved")  # it is found wherever it lies
    trainer, function, callback = make(tmp_path / "second", 3)
    seen = []
    trainer._calculate_rewards = _watched(trainer, lambda: seen.append((function.state_dict(), trainer.beta)))
    trainer.train(resume_from_checkpoint=str(checkpoint))
    assert seen == [(learned, value)]
    row = rows(trainer)[-1]
    assert row["kl_coef"] == value
    change = min(max(row["kl"] / 0.05 - 1, -0.2), 0.2) * 8 / 100
    assert callback.controller.value == pytest.approx(value * (1 + change), rel=1e-12)


def _watched(trainer, watch):
    calculate = trainer._calculate_rewards

    def watched(*args):
        watch()
        return calculate(*args)

    return watched


def test_a_checkpoint_from_before_starts_the_state_anew_and_saves_it(scorer, make_trainer, tmp_path, caplog):
    trainer = make_trainer(RewardFunction(scorer), max_steps=1, beta=0.1, save_strategy="steps", save_steps=1)
    trainer.train()
    trainer = make_trainer(RewardFunction(scorer), beta=0.1, save_strategy="steps", save_steps=1)
    use_kl_control(trainer, FixedKL(0.2))
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert "no state of KLCallback" in caplog.text
    kept = json.loads((tmp_path / "checkpoint-2" / "trainer_state.json").read_text())["stateful_callbacks"]
    assert kept["KLCallback"]["attributes"]["controller"] == {"value": 0.2}


def _log(callback: KLCallback, logs: dict, step: int = 1, **arguments) -> dict:
    state = SimpleNamespace(global_step=step, log_history=[{}])
    given = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "world_size": 3, "num_iterations": 1}
    callback.on_log(SimpleNamespace(**{**given, **arguments}), state, None, logs=logs)
    return state.log_history[-1]


def test_completions_are_counted_over_ranks_steps_and_iterations():
    """4 x 2 x 3 = 24 a step; of 5 steps 120; each used 2 times: 60. Error clipped to 0.2: 1 + 0.2 * 60 / 1000."""
    trainer = SimpleNamespace(beta=1.0)
    callback = KLCallback(trainer, AdaptiveKL(1.0, target=0.1, horizon=1000), "token")
    told = _log(callback, {"kl": 9.0}, step=5, num_iterations=2)
    assert told == {"kl_coef": 1.0, "kl_target": 0.1, "kl_per_token": 9.0}
    assert trainer.beta == pytest.approx(1 + 0.2 * 60 / 1000, rel=1e-12)


def test_by_default_a_target_is_of_whole_completions():
    """TRL's 0.05 a token times 120 tokens are the target's 6: the coefficient stays."""
    trainer = SimpleNamespace(beta=1.0)
    told = _log(KLCallback(trainer, AdaptiveKL(1.0, target=6.0)), {"kl": 0.05, "completions/mean_length": 120.0})
    assert told["kl_per_sequence"] == pytest.approx(6.0)
    assert trainer.beta == pytest.approx(1.0)


@pytest.mark.filterwarnings("ignore:n_steps is 2400")
def test_a_log_that_comes_late_ends_no_run():
    """2400 completions are 24 horizons, after which the rule by itself would turn the coefficient's sign."""
    trainer = SimpleNamespace(beta=1.0)
    callback = KLCallback(trainer, AdaptiveKL(1.0, target=6.0, horizon=100))
    _log(callback, {"kl": 0.0, "completions/mean_length": 120.0}, step=100)
    assert 0 < trainer.beta < 1


def test_a_resumed_run_without_a_coefficient_counts_from_where_it_starts():
    """Not from step 0: those completions were never measured with this controller."""
    trainer = SimpleNamespace(beta=1.0)
    callback = KLCallback(trainer, AdaptiveKL(1.0, target=0.1, horizon=1000), "token")
    callback.on_train_begin(None, SimpleNamespace(global_step=900, stateful_callbacks={}), None)
    _log(callback, {"kl": 9.0}, step=905)
    assert trainer.beta == pytest.approx(1 + 0.2 * 120 / 1000, rel=1e-12)


def test_what_has_no_kl_moves_nothing(caplog):
    trainer = SimpleNamespace(beta=1.0)
    callback = KLCallback(trainer, AdaptiveKL(1.0, target=0.1))
    assert _log(callback, {"eval_kl": 3.0}) == {}
    assert _log(callback, {"kl": None}) == {}
    _log(callback, {"kl": float("nan"), "completions/mean_length": 10.0})
    assert trainer.beta == 1.0
    assert "stays as it is" in caplog.text


def test_what_cannot_be_controlled_is_refused(scorer, make_trainer):
    trainer = make_trainer(RewardFunction(scorer), beta=0.0)
    with pytest.raises(ConfigError, match="beta is 0"):
        use_kl_control(trainer, FixedKL(0.1))
    with pytest.raises(ConfigError, match="GRPOTrainer and RLOOTrainer, got Linear"):
        use_kl_control(torch.nn.Linear(1, 1), FixedKL(0.1))
    trainer.beta = 0.1  # as if made with it
    with pytest.raises(ConfigError, match="coefficient of 0"):
        use_kl_control(trainer, FixedKL(0.0))
    with pytest.raises(ConfigError, match="no unit 'batch'"):
        use_kl_control(trainer, FixedKL(0.1), unit="batch")
    trainer.liger_grpo_loss = object()
    with pytest.raises(ConfigError, match="Liger"):
        use_kl_control(trainer, FixedKL(0.1))
    del trainer.liger_grpo_loss
    trainer.args.restore_callback_states_from_checkpoint = True
    with pytest.raises(ConfigError, match="restore_callback_states"):
        use_kl_control(trainer, FixedKL(0.1))
    trainer.args.restore_callback_states_from_checkpoint = False
    use_kl_control(trainer, FixedKL(0.1))
    with pytest.raises(ConfigError, match="already"):
        use_kl_control(trainer, FixedKL(0.1))


def test_the_parts_of_a_combined_reward_keep_their_state_too(scorer, make_trainer, six):
    part = RewardFunction(scorer, transforms="default", name="rm")
    combined = CombinedReward([RewardPart("model", part, transforms=["running"])])
    callback = keep_reward_state(make_trainer([combined, len]))
    combined(*six)
    assert callback.kept() == {"combined": combined.state_dict(), "combined/model": part.state_dict()}


def test_parts_of_parts_keep_their_state(scorer, make_trainer):
    part = RewardFunction(scorer, transforms="default", name="rm")
    inner = CombinedReward([RewardPart("rm", part)], name="inner")
    outer = CombinedReward([RewardPart("inner", inner)], name="outer")
    assert sorted(keep_reward_state(make_trainer([outer])).kept()) == ["outer", "outer/inner", "outer/inner/rm"]


def test_two_functions_of_one_name_cannot_be_kept_apart(scorer, make_trainer):
    functions = [RewardFunction(scorer), RewardFunction(scorer)]
    with pytest.raises(ConfigError, match="two reward functions are called 'rm'"):
        keep_reward_state(make_trainer(functions))

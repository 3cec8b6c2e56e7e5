"""A short GRPO run through TRL's own trainer: what it gives back, and that it moves where the reward says."""

from __future__ import annotations

import sys
import warnings

import pytest

from rewardlab.errors import ConfigError, MissingDependencyError
from rewardlab.rewards.kl import AdaptiveKL
from rewardlab.studies.grpo import run_grpo
from rewardlab.studies.policy import PolicySize, build_policy, load_policy_model, log_probs

pytest.importorskip("trl")

TINY = PolicySize(num_pairs=300, vocabulary=300, hidden_size=32, num_heads=2, num_layers=1, batch_size=16)
PROMPTS = [f"What is {a} plus {b}?" for a in (2, 3, 4) for b in (5, 6, 7)]
HELD_OUT = ["What is 8 plus 9?", "Where is a kettle kept?"]
SHORT = {"prompts_per_step": 2, "num_generations": 4, "max_completion_length": 8, "samples_per_prompt": 3}


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return build_policy(tmp_path_factory.mktemp("policy") / "tiny", seed=3, size=TINY)


def brevity(prompts, completions, **_):
    """Fewer characters are better; what comes is what TRL makes of conversational prompts."""
    assert all(prompt[0]["role"] == "user" for prompt in prompts)
    return [-float(len(completion[0]["content"])) for completion in completions]


@pytest.fixture(scope="module")
def run(policy, tmp_path_factory):
    seen = []
    found = run_grpo(
        policy,
        brevity,
        PROMPTS,
        tmp_path_factory.mktemp("run"),
        held_out=HELD_OUT,
        steps=3,
        beta=0.05,
        every=2,
        learning_rate=1e-2,
        on_measure=seen.append,
        **SHORT,
    )
    return found, seen


def test_history_holds_each_step(run):
    found, _ = run
    assert [entry["step"] for entry in found.history] == [1, 2, 3]
    assert all({"reward", "kl", "rewards/brevity/mean"} <= entry.keys() for entry in found.history)


def test_measures_are_taken_at_the_start_on_the_way_and_at_the_end(run):
    found, seen = run
    assert [measure.step for measure in found.measures] == [0, 2, 3]
    assert list(found.measures) == seen
    for measure in found.measures:
        assert [len(own) for own in measure.samples] == [3, 3]
        assert [len(own) for own in measure.log_ratios] == [3, 3]


def test_the_kl_is_zero_before_the_first_step_and_not_after(run):
    """The policy is the reference then, so each single log-ratio is 0."""
    found, _ = run
    assert all(abs(ratio) < 1e-4 for own in found.measures[0].log_ratios for ratio in own)
    assert found.measures[0].kl == pytest.approx(0, abs=1e-4)
    assert max(abs(ratio) for own in found.measures[-1].log_ratios for ratio in own) > 0.01


def test_the_saved_policy_is_the_measured_one(run, policy):
    """The last measure's KL, recomputed from the two folders."""
    found, _ = run
    last = found.measures[-1]
    under = []
    for folder in (found.folder, policy):
        model, tokenizer = load_policy_model(folder)
        under.append([v for own in log_probs(model, tokenizer, HELD_OUT, last.samples) for v in own])
    assert sum(a - b for a, b in zip(*under, strict=True)) / 6 == pytest.approx(last.kl, abs=1e-4)


def test_nothing_is_printed_to_stdout_and_no_rename_is_told(policy, tmp_path, capsys):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        run_grpo(policy, [brevity], PROMPTS, tmp_path, held_out=HELD_OUT, steps=1, beta=0.0, **SHORT)
    assert capsys.readouterr().out == ""


def test_a_controller_sets_beta(policy, tmp_path):
    """KL 0 is under the target: the first step of 8 completions lowers beta by 0.2 x 8 / 40 of itself, to 0.48."""
    controller = AdaptiveKL(0.5, target=100.0, horizon=40)
    found = run_grpo(
        policy,
        brevity,
        PROMPTS,
        tmp_path,
        held_out=HELD_OUT,
        steps=2,
        beta=0.0,
        controller=controller,
        every=1,
        **SHORT,
    )
    assert [entry["kl_coef"] for entry in found.history] == pytest.approx([0.5, 0.48])
    assert controller.value == pytest.approx(0.5 * 0.96**2)


def test_too_few_prompts_are_refused(policy, tmp_path):
    with pytest.raises(ConfigError, match="1 prompts to train on and 2 held-out"):
        run_grpo(policy, brevity, PROMPTS[:1], tmp_path, held_out=HELD_OUT, steps=1, beta=0.0)


def test_without_trl_the_message_says_what_to_install(policy, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "trl", None)
    with pytest.raises(MissingDependencyError) as raised:
        run_grpo(policy, brevity, PROMPTS, tmp_path, held_out=HELD_OUT, steps=1, beta=0.0)
    assert raised.value.hint == 'pip install "rewardlab[rl]"'

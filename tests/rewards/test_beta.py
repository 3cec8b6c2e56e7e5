"""The law of reward scale and beta, on the closed form ``reference exp(r / beta)``, and the proposals that follow."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import rel_entr, softmax

from rewardlab.calibration.reference import ReferenceStatistics, reference_statistics
from rewardlab.errors import ConfigError
from rewardlab.rewards.beta import TARGET_KL, expected_kl, propose_beta

REFERENCE = ReferenceStatistics("held-out", 100, mean=3.0, std=4.0, quantiles={})


def best_policy(ref: np.ndarray, rewards: np.ndarray, beta: float) -> np.ndarray:
    return softmax(np.log(ref) + rewards / beta)


def categorical(seed: int, size: int = 40) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return softmax(generator.normal(size=size)), generator.normal(size=size)


@given(st.floats(1e-3, 1e3), st.floats(0.05, 20.0), st.floats(-100, 100))
def test_scaled_rewards_with_a_scaled_beta_have_the_same_policy(scale, beta, shift):
    ref, rewards = categorical(0)
    policy = best_policy(ref, rewards, beta)
    scaled = best_policy(ref, scale * (rewards + shift), scale * beta)
    np.testing.assert_allclose(scaled, policy, rtol=1e-9)


def test_the_closed_form_is_the_best_policy():
    """No other of 500 random policies has a larger E[r] - beta KL; without this the law says nothing about training."""
    ref, rewards = categorical(1)

    def objective(policy: np.ndarray) -> float:
        return float(policy @ rewards - 0.3 * rel_entr(policy, ref).sum())

    best = best_policy(ref, rewards, 0.3)
    generator = np.random.default_rng(0)
    others = [softmax(np.log(best) + generator.normal(size=40) * 10 ** generator.uniform(-3, 0.5)) for _ in range(500)]
    assert max(objective(other) for other in others) < objective(best)


def test_a_larger_beta_stays_nearer():
    ref, rewards = categorical(2)
    kls = [rel_entr(best_policy(ref, rewards, beta), ref).sum() for beta in np.geomspace(0.05, 20, 30)]
    assert (np.diff(kls) < 0).all()


@pytest.mark.parametrize(("std", "beta"), [(1.0, 0.5), (2.0, 3.0), (0.3, 0.2)])
def test_the_kl_of_gaussian_rewards_by_quadrature(std, beta):
    """KL = E_policy[r / beta] - log E_ref[exp(r / beta)], both integrals done numerically."""

    def under_ref(of):
        return quad(lambda z: of(z) * math.exp(-z * z / 2) / math.sqrt(2 * math.pi), -30, 30, points=[0, std / beta])[0]

    normaliser = under_ref(lambda z: math.exp(std * z / beta))
    mean = under_ref(lambda z: std * z / beta * math.exp(std * z / beta)) / normaliser
    assert expected_kl(std, beta) == pytest.approx(mean - math.log(normaliser), rel=1e-6)


def test_the_proposal_for_a_target_gives_that_kl_on_many_gaussian_completions():
    """A prompt with 200,000 equally likely completions whose raw scores have spread 2.5."""
    rewards = np.random.default_rng(0).normal(7.0, 2.5, size=200_000)
    ref = np.full(rewards.size, 1 / rewards.size)
    proposal = propose_beta(target_kl=0.8, std=2.5)
    policy = best_policy(ref, rewards, proposal.beta)
    assert rel_entr(policy, ref).sum() == pytest.approx(0.8, rel=0.03)
    gain = float(policy @ rewards - rewards.mean())
    assert gain == pytest.approx(2.5 * math.sqrt(2 * 0.8), rel=0.03)


@pytest.mark.parametrize(
    ("options", "factor"),
    [
        ({"scale": "raw"}, 1.0),
        ({"scale": "centered"}, 1.0),
        ({"scale": "z", "reference": REFERENCE}, 1 / 4.0),
        ({"scale": "calibrated", "temperature": 0.5}, 2.0),
        ({"scale": "raw", "divisor": 3.0}, 1 / 3.0),
        ({"scale": "z", "reference": REFERENCE, "divisor": 2.0}, 1 / 8.0),
        ({"scale": "z", "reference": REFERENCE, "scale_rewards": "group"}, 1 / 1.7),
        ({"scale": "raw", "divisor": 9.0, "scale_rewards": "batch"}, 1 / 1.7),
    ],
)
def test_in_every_scale_the_proposal_has_the_same_policy(options, factor):
    """The rewards that RL sees are ``factor`` times the raw scores; the policy at the proposed beta must not move.

    Under group or batch scaling that factor is 1 / std, of raw scores with spread 1.7.
    """
    ref, rewards = categorical(3)
    raw = propose_beta(target_kl=1.0, std=1.7)
    proposal = propose_beta(target_kl=1.0, std=1.7, **options)
    np.testing.assert_allclose(
        best_policy(ref, rewards * factor, proposal.beta), best_policy(ref, rewards, raw.beta), rtol=1e-9
    )
    assert proposal.beta_raw == raw.beta
    assert proposal.kl == 1.0


def test_an_agreed_beta_in_logits_goes_through_every_scale():
    """beta_raw = beta T, beta_z = beta T / std, by hand with beta 0.1, T 0.5, std 4; calibrated it is itself."""
    known = {"beta_calibrated": 0.1, "temperature": 0.5, "reference": REFERENCE}
    assert propose_beta(**known, scale="raw").beta == pytest.approx(0.05)
    assert propose_beta(**known, scale="z").beta == pytest.approx(0.0125)
    assert propose_beta(**known, scale="calibrated").beta == pytest.approx(0.1)
    proposal = propose_beta(**known)
    assert proposal.beta_calibrated == pytest.approx(0.1)
    assert proposal.kl == pytest.approx(4.0**2 / (2 * 0.05**2))
    assert propose_beta(beta_calibrated=0.1, temperature=0.5).kl is None


def test_under_group_scaling_it_depends_on_the_target_alone():
    for std in (None, 0.1, 1.0, 30.0):
        proposal = propose_beta(target_kl=2.0, std=std, scale_rewards="group")
        assert proposal.beta == pytest.approx(0.5)
        assert proposal.beta_raw == (None if std is None else pytest.approx(std / 2))
        assert any("cancels" in line for line in proposal.explanation)
        assert any("noise" in line for line in proposal.warnings)


def test_under_batch_scaling_prompts_of_different_levels_are_warned_about():
    """TRL divides by the std of all rewards of the batch, not of the prompt's."""
    assert any("mixes prompts" in line for line in propose_beta(scale_rewards="batch").warnings)
    assert not any("mixes prompts" in line for line in propose_beta(scale_rewards="group").warnings)


def test_it_says_where_it_comes_from_and_what_makes_it_doubtful():
    proposal = propose_beta(reference=REFERENCE)
    assert proposal.kl == TARGET_KL
    assert any("reference set's (4)" in line for line in proposal.warnings)
    assert any("loads no reference model" in line for line in proposal.explanation)
    assert any("mean per token" in line for line in proposal.explanation)
    assert propose_beta(std=1.0).warnings == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "needs a spread"),
        ({"beta_calibrated": 0.1}, "needs a temperature"),
        ({"beta_calibrated": 0, "temperature": 1.0}, "loads no reference model"),
        ({"beta_calibrated": 0.1, "target_kl": 1.0}, "not both"),
        ({"std": 1.0, "scale": "percentile"}, "no factor"),
        ({"std": 1.0, "scale": "z"}, "'z' needs a reference"),
        ({"std": 1.0, "scale": "calibrated"}, "needs a temperature"),
        ({"std": 1.0, "scale": "percentile", "scale_rewards": "group"}, "no factor"),
        ({"std": 1.0, "scale": "bogus", "scale_rewards": "batch"}, "do not exist"),
        ({"std": -1.0}, "std must be finite"),
        ({"std": "1"}, "std must be a number, got '1'"),
        ({"std": 1.0, "target_kl": True}, "target_kl must be a number"),
        ({"std": 1.0, "target_kl": 0.0}, "target_kl must be"),
        ({"std": 1.0, "divisor": 0.0}, "divisor must be"),
        ({"std": 1.0, "scale_rewards": "prompt"}, "scale_rewards must be"),
        ({"beta_calibrated": 0.1, "temperature": 1.0, "scale_rewards": "group"}, "needs a spread"),
    ],
)
def test_what_is_missing_or_wrong_is_named(options, message):
    with pytest.raises(ConfigError) as caught:
        propose_beta(**options)
    assert message in str(caught.value)


def test_a_proposal_reads_line_by_line_and_doubts_a_gain_that_no_score_reaches():
    reference = reference_statistics([-1.0, 0.0, 1.0], "held-out")
    told = str(propose_beta(beta_calibrated=0.1, temperature=1.0, reference=reference, std=1.0))
    assert told.splitlines()[0] == "beta = 0.1"
    assert "a gain of 10 is more than the 1 between" in told  # std^2 / beta
    assert "more than" not in str(propose_beta(target_kl=0.4, reference=reference, std=1.0))

"""KL estimators against exact sums over a vocabulary; controllers against their formula and a policy that answers."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax

from rewardlab.errors import ConfigError, DataError
from rewardlab.rewards.beta import TARGET_KL
from rewardlab.rewards.kl import ESTIMATORS, AdaptiveKL, FixedKL, kl_per_token, sequence_kl

VOCABULARY = 7


def two_policies(seed: int, spread: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of a policy and of its reference over the vocabulary, float64; the policy's take a gradient."""
    generator = torch.Generator().manual_seed(seed)
    ref = torch.randn(VOCABULARY, generator=generator, dtype=torch.float64)
    policy = ref + spread * torch.randn(VOCABULARY, generator=generator, dtype=torch.float64)
    return policy.requires_grad_(), ref


def exact_kl(policy: torch.Tensor, ref: torch.Tensor) -> float:
    return float(rel_entr(softmax(policy.detach().numpy()), softmax(ref.detach().numpy())).sum())


def mean_estimate(policy: torch.Tensor, ref: torch.Tensor, estimator: str) -> float:
    """The estimator's mean under the policy: a sum over every token that it could sample."""
    logprobs, ref_logprobs = policy.detach().log_softmax(0), ref.log_softmax(0)
    return float((logprobs.exp() * kl_per_token(logprobs, ref_logprobs, estimator)).sum())


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_k1_and_k3_are_unbiased(estimator, seed):
    policy, ref = two_policies(seed, spread=2.0)
    assert mean_estimate(policy, ref, estimator) == pytest.approx(exact_kl(policy, ref), rel=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_k2_is_biased_by_a_term_of_third_order(seed):
    """With d small, E[d^2]/2 - KL = O(d^3): a tenth of the distance has a thousandth of the bias."""
    generator = torch.Generator().manual_seed(seed)
    ref = torch.randn(VOCABULARY, generator=generator, dtype=torch.float64)
    direction = torch.randn(VOCABULARY, generator=generator, dtype=torch.float64)
    biases = [
        mean_estimate(policy, ref, "k2") - exact_kl(policy, ref)
        for policy in (ref + 0.1 * direction, ref + 0.01 * direction)
    ]
    assert abs(biases[0]) > 1e-6
    assert biases[1] / biases[0] == pytest.approx(1e-3, rel=0.5)


def test_abs_is_no_kl():
    policy, ref = two_policies(0)
    assert mean_estimate(policy, ref, "abs") > exact_kl(policy, ref) * 1.2


@pytest.mark.parametrize(
    ("estimator", "of"), [("k1", "nothing"), ("k2", "policy || reference"), ("k3", "reference || policy")]
)
@pytest.mark.parametrize("seed", range(3))
def test_what_each_estimator_teaches_as_a_loss(estimator, of, seed):
    """The mean gradient over sampled tokens, ``sum_y p(y) grad k(y)`` with p held fixed, as a trainer's loss has it.

    k1: sum p grad log p = 0. k2: sum p d grad log p = grad KL(p || ref). k3: sum (p - ref) grad log p = - sum ref grad
    log p = grad KL(ref || p). The right-hand sides come from differentiating the exact sums.
    """
    policy, ref = two_policies(seed)
    logprobs, ref_logprobs = policy.log_softmax(0), ref.log_softmax(0)
    loss = (logprobs.detach().exp() * kl_per_token(logprobs, ref_logprobs, estimator)).sum()
    (gradient,) = torch.autograd.grad(loss, policy)
    exact = {
        "nothing": lambda p: (p.log_softmax(0).exp() * 0).sum(),
        "policy || reference": lambda p: (p.softmax(0) * (p.log_softmax(0) - ref_logprobs)).sum(),
        "reference || policy": lambda p: (ref_logprobs.exp() * (ref_logprobs - p.log_softmax(0))).sum(),
    }[of]
    (wanted,) = torch.autograd.grad(exact(policy), policy)
    torch.testing.assert_close(gradient, wanted, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize(("estimator", "is_right"), [("k1", True), ("k2", False), ("k3", False)])
def test_subtracted_from_the_reward_k1_alone_is_right(estimator, is_right):
    """The policy gradient of a reward r is ``sum p r grad log p``; with r the estimate it must be grad KL(p || ref)."""
    policy, ref = two_policies(0)
    logprobs, ref_logprobs = policy.log_softmax(0), ref.log_softmax(0)
    reward = kl_per_token(logprobs, ref_logprobs, estimator).detach()
    (gradient,) = torch.autograd.grad((logprobs.detach().exp() * reward * logprobs).sum(), policy)
    kl = (policy.softmax(0) * (policy.log_softmax(0) - ref_logprobs)).sum()
    (wanted,) = torch.autograd.grad(kl, policy)
    assert torch.allclose(gradient, wanted, atol=1e-12) == is_right


def test_formulas_as_trl_writes_them():
    """TRL 1.16: ``exp(ref - logp) - (ref - logp) - 1``; a value by hand: d = ln 2 gives 1/2 - 1 + 0.6931."""
    logprobs, ref = torch.tensor([-1.0, -2.5]), torch.tensor([-2.0, -2.0])
    torch.testing.assert_close(kl_per_token(logprobs, ref, "k3"), torch.exp(ref - logprobs) - (ref - logprobs) - 1)
    hand = kl_per_token(torch.tensor([0.0]), torch.tensor([-np.log(2.0)]), "k3")
    assert hand.item() == pytest.approx(0.1931, abs=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_low_precision_is_computed_in_float32(dtype):
    logprobs, ref = torch.tensor([-3.0, -1.0], dtype=dtype), torch.tensor([-1.0, -3.5], dtype=dtype)
    for estimator in ESTIMATORS:
        assert kl_per_token(logprobs, ref, estimator).dtype == torch.float32
    assert kl_per_token(logprobs.double(), ref, "k3").dtype == torch.float64


def test_k3_keeps_its_digits_where_policies_are_almost_equal():
    """exp(-d) - 1 + d = d^2/2 to 4 digits at d = 1e-3; the plain formula in float32 has an error of 1e-7, a fifth."""
    logprobs = torch.tensor([1e-3])
    assert kl_per_token(logprobs, torch.zeros(1), "k3").item() == pytest.approx(5e-7, rel=2e-3)


def test_masked_positions_give_nothing_whatever_stands_there():
    logprobs = torch.tensor([[-1.0, float("nan")], [-2.0, float("-inf")]], requires_grad=True)
    ref = torch.tensor([[-2.0, float("nan")], [-1.0, float("-inf")]])
    mask = torch.tensor([[1, 0], [1, 0]])
    for estimator in ESTIMATORS:
        summed = sequence_kl(logprobs, ref, estimator, mask=mask)
        assert summed.tolist() == kl_per_token(logprobs[:, 0], ref[:, 0], estimator).tolist()
        (gradient,) = torch.autograd.grad(summed.sum(), logprobs)
        assert gradient[:, 1].tolist() == [0.0, 0.0]
        assert torch.isfinite(gradient).all()


def test_a_sequence_s_kl_is_the_sum_over_its_tokens():
    assert sequence_kl(torch.tensor([[-1.0, -1.0]]), torch.tensor([[-2.0, -4.0]])).tolist() == [4.0]


def test_clamping_is_on_the_estimate():
    estimate = kl_per_token(torch.tensor([-50.0, -1.0]), torch.tensor([-1.0, -30.0]), "k1", clamp=10)
    assert estimate.tolist() == [-10.0, 10.0]
    assert kl_per_token(torch.tensor([-50.0]), torch.tensor([-1.0]), "k3", clamp=10).tolist() == [10.0]


def test_what_cannot_be_used_is_refused():
    ones = torch.ones(2, 3)
    with pytest.raises(ConfigError, match="k4"):
        kl_per_token(ones, ones, "k4")
    with pytest.raises(DataError, match=r"\(2, 3\).*ref_logprobs \(3,\)"):
        kl_per_token(ones, torch.ones(3))
    with pytest.raises(DataError, match="mask"):
        kl_per_token(ones, ones, mask=torch.ones(3))
    with pytest.raises(ConfigError, match="clamp"):
        kl_per_token(ones, ones, clamp=0)


def test_the_adaptive_rule_is_ziegler_s():
    """By hand: error 7/6 - 1 = 1/6, so 0.2 (1 + 256 / 60000); then the clip: 0.2 and -0.2 of 256 / 10000."""
    control = AdaptiveKL(init_kl_coef=0.2, target=6.0, horizon=10_000)
    assert control.update(7.0, 256) == pytest.approx(0.2 * (1 + 256 / 60_000), rel=1e-15)
    before = control.value
    assert control.update(1e9, 256) == pytest.approx(before * 1.00512, rel=1e-15)
    before = control.value
    assert control.update(-0.01, 256) == pytest.approx(before * 0.99488, rel=1e-15)
    before = control.value
    assert control.update(6.0, 256) == before


def test_the_state_goes_through_json_exactly():
    first, second = AdaptiveKL(0.1, target=1.0, horizon=1000), AdaptiveKL(0.7, target=1.0, horizon=1000)
    for kl in (0.3, 2.0, 1.1):
        first.update(kl, 64)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    later = [(a.update(0.9, 64), a.update(1.4, 64)) for a in (first, second)]
    assert later[0] == later[1]
    fixed = FixedKL(0.0)
    fixed.load_state_dict(FixedKL(0.05).state_dict())
    assert fixed.update(3.0, 10) == 0.05


@pytest.mark.parametrize("kl", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("control", [AdaptiveKL(0.2), FixedKL(0.2)])
def test_a_kl_that_is_no_number_is_told_and_moves_nothing(control, kl):
    with pytest.raises(DataError, match=r"stays 0\.2"):
        control.update(kl, 256)
    assert control.value == 0.2


@pytest.mark.filterwarnings("error")
def test_a_kl_far_below_zero_is_warned_about_once():
    """k1 over few completions is below minus the target now and then, so it is said once and not in every step."""
    control = AdaptiveKL(0.2, target=1.0)
    with pytest.warns(UserWarning, match="may be noise.*swapped"):
        control.update(-3.0, 1)
    control.update(-3.0, 1)  # a warning is an error here
    assert control.value == pytest.approx(0.2 * (1 - 0.2 / 10_000) ** 2)


@pytest.mark.filterwarnings("error")
def test_an_update_counts_four_horizons_at_most():
    """A run logs so seldom that 5 horizons come at once: the rule would make the coefficient 0. 1 - 0.2 x 4 = 0.2."""
    control = AdaptiveKL(1.0, target=1.0, horizon=100)
    assert control.update(0.0, 400) == pytest.approx(0.2, rel=1e-15)
    with pytest.warns(UserWarning, match="raise horizon"):
        control.update(0.0, 500)
    assert control.value == pytest.approx(0.2**2, rel=1e-15)
    assert control.update(9.0, 10**9) == pytest.approx(0.2**2 * 1.8, rel=1e-15)  # and is not warned about again


def test_the_target_is_the_one_that_proposals_are_made_for():
    assert AdaptiveKL().target == TARGET_KL == 6.0


def test_what_an_adaptive_coefficient_cannot_start_from():
    with pytest.raises(ConfigError, match="it would stay 0"):
        AdaptiveKL(0.0)
    with pytest.raises(ConfigError, match="it would stay 0"):
        AdaptiveKL(0.1).load_state_dict({"value": 0.0})
    for bad in ({"init_kl_coef": -1.0}, {"init_kl_coef": float("nan")}, {"target": 0.0}, {"horizon": 0.0}):
        with pytest.raises(ConfigError):
            AdaptiveKL(**bad)
    with pytest.raises(ConfigError, match="n_steps"):
        AdaptiveKL(0.1, horizon=100).update(0.0, -1)
    with pytest.raises(ConfigError, match="state"):
        FixedKL(0.1).load_state_dict({"coef": 0.1})
    with pytest.raises(ConfigError):
        FixedKL(-0.1)


NO_NUMBERS = [True, "0.1", None, [0.1], torch.tensor(0.1)]


@pytest.mark.parametrize("wrong", NO_NUMBERS, ids=lambda wrong: type(wrong).__name__)
def test_what_is_no_number_is_refused_by_name_and_moves_nothing(wrong):
    for name in ("init_kl_coef", "target", "horizon"):
        with pytest.raises(ConfigError, match=f"{name} must be a number"):
            AdaptiveKL(**{name: wrong})
    with pytest.raises(ConfigError, match="coef must be a number"):
        FixedKL(wrong)
    for control in (AdaptiveKL(0.3), FixedKL(0.3)):
        with pytest.raises(ConfigError, match="kl must be a number"):
            control.update(wrong, 10)
        for state in ({"value": wrong}, wrong):
            with pytest.raises(ConfigError):
                control.load_state_dict(state)
        assert control.value == 0.3
    with pytest.raises(ConfigError, match="n_steps must be a number"):
        AdaptiveKL(0.3).update(1.0, wrong)


def test_numpy_s_numbers_are_numbers():
    control = AdaptiveKL(0.2, horizon=100)
    assert type(control.update(np.float32(9.0), np.int64(10))) is float
    with pytest.raises(ConfigError, match="value must be finite"):
        control.load_state_dict({"value": 10**400})


@pytest.mark.parametrize("start", [0.01, 0.2, 20.0])
@pytest.mark.parametrize("target", [0.1, 0.5, 1.5])
def test_in_a_closed_loop_the_kl_comes_to_its_target(start, target):
    """The policy answers every coefficient at once with its optimum, ``ref exp(r / beta)``; 50 rewards of spread 1."""
    generator = np.random.default_rng(0)
    rewards, ref = generator.normal(size=50), softmax(generator.normal(size=50))

    def kl_at(beta: float) -> float:
        policy = softmax(np.log(ref) + rewards / beta)
        return float(rel_entr(policy, ref).sum())

    control = AdaptiveKL(start, target=target, horizon=100)
    for _ in range(1000):
        control.update(kl_at(control.value), 20)
    assert kl_at(control.value) == pytest.approx(target, rel=0.02)

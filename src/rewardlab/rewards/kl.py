"""How far a policy has moved from its reference: KL estimates per token, and what keeps the KL at a target.

Estimates are of KL(policy || reference), in nats, at tokens that the *policy* sampled. This file knows
log-probabilities and coefficients; it knows neither models nor rewards. How a coefficient goes with a reward's scale is
:mod:`rewardlab.rewards.beta`'s.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor

from rewardlab.errors import ConfigError, DataError
from rewardlab.rewards.beta import TARGET_KL, number_of

Estimator: TypeAlias = Literal["k1", "k2", "k3", "abs"]
"""How the KL is estimated from one sampled token; :func:`kl_per_token` says what each is."""

ESTIMATORS: tuple[Estimator, ...] = get_args(Estimator)
"""Names of the estimators."""

_STEP = 0.2
"""Largest relative error that an adaptive coefficient answers, as in Ziegler et al."""

_MOST_HORIZONS = 4.0
"""Most that one update counts: a coefficient falls to a fifth at most; at 5 horizons it would be 0."""


def kl_per_token(
    logprobs: Tensor,
    ref_logprobs: Tensor,
    estimator: Estimator = "k1",
    *,
    mask: Tensor | None = None,
    clamp: float | None = None,
) -> Tensor:
    """KL(policy || reference) estimated at each sampled token, with ``d = logprobs - ref_logprobs``.

    ========= ================ ========================= ====== ============================= =================
    estimator formula          mean over policy's tokens sign   gradient as a loss, on average same in
    ========= ================ ========================= ====== ============================= =================
    k1        d                the KL, exactly           either zero: it teaches nothing      verl ``kl``
    k2        d^2 / 2          near the KL where that is >= 0   of KL(policy || reference)    verl ``mse``
                               small, else biased
    k3        exp(-d) - 1 + d  the KL, exactly           >= 0   of KL(reference || policy)    TRL; verl
                                                                                              ``low_var_kl``
    abs       abs(d)           another quantity, larger  >= 0   of no KL                      verl ``abs``
    ========= ================ ========================= ====== ============================= =================

    k1 is the plain estimate, and the noisiest. k3 is k1 plus a control variate, ``exp(-d) - 1``, whose mean over the
    policy's own tokens is zero: unbiased as well, never negative, and less noisy while the policy is close. Where it is
    far, single tokens that the reference likes much better dominate k3; ``clamp`` is for those. OpenRLHF has k1, k2 and
    k3.

    Args:
        logprobs: Log-probability of each token under the policy, any shape, nats.
        ref_logprobs: The same tokens under the reference, same shape.
        estimator: One of :data:`ESTIMATORS`.
        mask: Which positions count, same shape, bool or 0/1; the others give 0 and no gradient, whatever stands there
            (NaN too). None: all.
        clamp: Estimates are clamped to [-clamp, clamp], as OpenRLHF does with 10, and verl with k3; None, as in TRL:
            not at all. A clamped estimate is biased, and has no gradient beyond the limit.

    Returns:
        One estimate per token, as ``logprobs`` is shaped; float32, or float64 where both are.

    Raises:
        ConfigError: No such estimator, or a clamp that is not positive.
        DataError: Shapes differ, which broadcasting would hide.

    References:
        Schulman 2020, http://joschu.net/blog/kl-approx.html (k1, k2, k3); the gradients: Tang and Munos 2025,
        arXiv:2506.09477. OpenRLHF, ``openrlhf/models/utils.py``: ``compute_approx_kl``. verl,
        ``verl/trainer/ppo/core_algos.py``: ``kl_penalty``. TRL 1.16, ``grpo_trainer.py``: ``per_token_kl``.
    """
    if estimator not in ESTIMATORS:
        raise ConfigError(f"there is no KL estimator {estimator!r}", hint=f"take one of {', '.join(ESTIMATORS)}")
    if clamp is not None and not clamp > 0:
        raise ConfigError(f"a clamp must be > 0, got {clamp}", hint="OpenRLHF clamps to 10")
    for name, other in (("ref_logprobs", ref_logprobs), ("mask", mask)):
        if other is not None and other.shape != logprobs.shape:
            raise DataError(f"logprobs have the shape {tuple(logprobs.shape)}, {name} {tuple(other.shape)}")
    dtype = torch.promote_types(torch.promote_types(logprobs.dtype, ref_logprobs.dtype), torch.float32)
    difference = logprobs.to(dtype) - ref_logprobs.to(dtype)
    if mask is not None:  # before anything is computed: the gradient of exp(NaN) x 0 is NaN
        difference = torch.where(mask.bool(), difference, torch.zeros_like(difference))
    if estimator == "k1":
        estimate = difference
    elif estimator == "k2":
        estimate = difference.square() / 2
    elif estimator == "k3":
        estimate = torch.expm1(-difference) + difference  # expm1: exp(-d) - 1 loses its digits where d is small
    else:
        estimate = difference.abs()
    return estimate if clamp is None else estimate.clamp(-clamp, clamp)


def sequence_kl(
    logprobs: Tensor,
    ref_logprobs: Tensor,
    estimator: Estimator = "k1",
    *,
    mask: Tensor | None = None,
    clamp: float | None = None,
) -> Tensor:
    """The KL of whole completions: :func:`kl_per_token` summed over the last dimension.

    This is the KL of ``r - beta * KL``, of a target, and of best-of-N. TRL's metric ``kl`` is a mean over tokens: it is
    this one's mean divided by the mean number of completion tokens.

    Args:
        logprobs: Shape (..., tokens).
        ref_logprobs: The same shape.
        estimator: One of :data:`ESTIMATORS`.
        mask: Which positions count, same shape; None: all.
        clamp: As in :func:`kl_per_token`.

    Returns:
        Shape (...), nats.
    """
    return kl_per_token(logprobs, ref_logprobs, estimator, mask=mask, clamp=clamp).sum(dim=-1)


class FixedKL:
    """A KL coefficient that stays what it is.

    Args:
        coef: The coefficient, >= 0, in units of reward per nat.
    """

    def __init__(self, coef: float) -> None:
        self.value = _coefficient(coef, "coef")

    def update(self, kl: float, n_steps: int) -> float:
        """The coefficient; what came is only looked at for being a KL at all.

        Args:
            kl: KL of whole completions, nats per completion.
            n_steps: How many completions it is the mean of.

        Raises:
            DataError: A KL that is not finite.
            ConfigError: What is no number.
        """
        _checked_kl(kl, self.value)
        return self.value

    def state_dict(self) -> dict[str, float]:
        """``{"value"}``."""
        return {"value": self.value}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the coefficient out of a state.

        Raises:
            ConfigError: It is no state of a controller; nothing has been changed.
        """
        self.value = _coefficient(_value_of(state), "value")


class AdaptiveKL:
    """A KL coefficient that brings the KL to a target: raised where it is above, lowered where it is below.

        value *= 1 + clip(kl / target - 1, -0.2, 0.2) * min(n_steps / horizon, 4)

    Args:
        init_kl_coef: Where the coefficient starts, > 0, in units of reward per nat.
            :func:`rewardlab.rewards.beta.propose_beta` gives one that is near its end already.
        target: The wanted KL, > 0, in the unit in which :meth:`update` is given it: nats per completion, by default
            :data:`rewardlab.rewards.beta.TARGET_KL`.
        horizon: How slowly the coefficient follows, > 0, counted as ``n_steps`` is: the coefficient changes by at most
            ``0.2 * n_steps / horizon`` of itself in an update.

    Raises:
        ConfigError: A start at 0, which multiplication never leaves, or what is no positive number.

    Note:
        The limit of 4 horizons is this library's: the rule itself makes a coefficient of 0 or below from 5 horizons on.

        The rule is multiplicative, so where the target cannot be reached at all (the rewards hardly differ, or the
        policy is too weak) the coefficient goes on falling: watch it, not the KL alone.

    References:
        Ziegler et al. 2019, arXiv:1909.08593, section 2.2; the same rule and defaults in TRL <= 0.11, OpenRLHF, trlX
        and verl.
    """

    def __init__(self, init_kl_coef: float = 0.2, target: float = TARGET_KL, horizon: float = 10_000) -> None:
        for name, number in (("target", target), ("horizon", horizon)):
            if not 0 < number_of(number, name) < math.inf:
                raise ConfigError(f"{name} must be finite and > 0, got {number}")
        self.value = _adaptable(init_kl_coef, "init_kl_coef")
        self.target = float(target)
        self.horizon = float(horizon)
        self._warned: set[str] = set()

    def update(self, kl: float, n_steps: int) -> float:
        """Move the coefficient, and return it.

        Args:
            kl: The KL that was measured, in the unit of ``target``: nats per completion. k1's estimates may be
                negative, and count as the rule has it.
            n_steps: How many completions it is the mean of (trlX, TRL <= 0.11: the batch size).

        Raises:
            DataError: A KL that is not finite; the coefficient stays as it was.
            ConfigError: What is no number, or an ``n_steps`` below 0; the coefficient stays as it was.

        Warns:
            UserWarning: A KL below minus the target, or an ``n_steps`` above 4 horizons; each once per controller.
        """
        kl = _checked_kl(kl, self.value)
        count = number_of(n_steps, "n_steps")
        if not 0 <= count < math.inf:
            raise ConfigError(f"n_steps must be finite and >= 0, got {n_steps}")
        if count > _MOST_HORIZONS * self.horizon:
            self._warn_once(
                "n_steps",
                f"n_steps is {n_steps}, and the horizon {self.horizon:g}: more than {_MOST_HORIZONS:g} horizons in one "
                "update count as that many, so that the coefficient stays positive; both count completions: raise "
                "horizon, or update (log) more often",
            )
        if kl < -self.target:
            self._warn_once(
                "kl",
                f"the KL is {kl:g}, below minus the target. A single one may be noise: k1 (RLOO's) over few "
                "completions. If most are, log-probabilities of policy and reference are swapped, or of other tokens",
            )
        error = min(max(kl / self.target - 1.0, -_STEP), _STEP)
        self.value *= 1.0 + error * min(count, _MOST_HORIZONS * self.horizon) / self.horizon
        return self.value

    def _warn_once(self, kind: str, message: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            warnings.warn(f"{message} (said once)", stacklevel=3)

    def state_dict(self) -> dict[str, float]:
        """``{"value"}``: the coefficient is all there is to remember; JSON keeps it exactly."""
        return {"value": self.value}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the coefficient out of a state; target and horizon stay those of this controller.

        Raises:
            ConfigError: It is no state of a controller; nothing has been changed.
        """
        self.value = _adaptable(_value_of(state), "value")


def _value_of(state: Mapping[str, Any]) -> Any:
    if not isinstance(state, Mapping) or set(state) != {"value"}:
        raise ConfigError(f"a KL controller's state is {{'value': number}}, got {state!r}")
    return state["value"]


def _coefficient(number: float, name: str) -> float:
    if not 0 <= number_of(number, name) < math.inf:
        raise ConfigError(f"{name} must be finite and >= 0, got {number}")
    return float(number)


def _adaptable(number: float, name: str) -> float:
    coefficient = _coefficient(number, name)
    if coefficient == 0:
        raise ConfigError(
            f"{name} is 0, and an adaptive coefficient is multiplied: it would stay 0 whatever the KL is",
            hint="start above 0, see rewardlab.rewards.beta.propose_beta; for no KL at all take FixedKL(0)",
        )
    return coefficient


def _checked_kl(kl: float, value: float) -> float:
    number = number_of(kl, "kl")
    if not math.isfinite(number):
        raise DataError(
            f"the KL is {kl}; the coefficient stays {value:g}",
            hint="look for log-probabilities that are NaN or -inf at positions that count; pass the completions' mask",
        )
    return number

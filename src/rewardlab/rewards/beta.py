"""Which KL coefficient goes with a reward's scale.

The policy that maximises ``E[r] - beta KL(policy || reference)`` is, for each prompt,

    policy(y)  =  reference(y) exp(r(y) / beta) / Z

so only ``r / beta`` matters: **rewards scaled by a need a beta scaled by a**. A beta taken over from somebody else's
run says nothing before both rewards are in one unit. This file brings them into one: it knows temperatures, spreads
and divisors, as numbers; the model they belong to, and the trainer that gets the beta, it does not know.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Literal, TypeAlias, get_args

from rewardlab.calibration.reference import ReferenceStatistics
from rewardlab.calibration.scale import SCALES
from rewardlab.errors import ConfigError
from rewardlab.types import Scale

AdvantageScale: TypeAlias = Literal["none", "batch", "group"]
"""What the trainer divides advantages by, TRL's ``scale_rewards``: nothing, the batch's or the group's std."""

TARGET_KL = 6.0
"""The target KL where none is given, nats per completion: the default of Ziegler et al., and of ``AdaptiveKL``."""


@dataclass(frozen=True, slots=True)
class BetaProposal:
    """A coefficient, and where it comes from.

    Attributes:
        beta: For the rewards (or, under a ``scale_rewards``, the advantages) as they were described: per nat of
            KL of a whole completion.
        beta_raw: The same for raw scores; None without a spread.
        beta_calibrated: The same for calibrated logits, comparable between models; None without a temperature, or a
            spread.
        kl: The KL at which the policy is expected to end, nats per completion; None without a spread.
        explanation: How it was found, line by line.
        warnings: What makes it doubtful.
    """

    beta: float
    beta_raw: float | None
    beta_calibrated: float | None
    kl: float | None
    explanation: tuple[str, ...]
    warnings: tuple[str, ...]

    def __str__(self) -> str:
        """The coefficient, how it was found, and what makes it doubtful, a line each."""
        lines = [f"beta = {self.beta:.4g}", *(f"  {line}" for line in self.explanation)]
        return "\n".join([*lines, *(f"  doubtful: {warning}" for warning in self.warnings)])


def expected_kl(std: float, beta: float) -> float:
    """KL(policy || reference) at the optimum, ``std^2 / (2 beta^2)``, where a prompt's rewards are Gaussian.

    Let a prompt's rewards under the reference be N(m, std^2). Tilting a Gaussian by ``exp(r / beta)`` shifts it by
    ``std^2 / beta`` and keeps its spread, and two Gaussians of one spread that far apart have the KL
    ``(std^2 / beta)^2 / (2 std^2)``. Completions matter through their reward alone, so that is the policies' KL too.
    The mean reward rises by ``std^2 / beta = std sqrt(2 KL)``, the square root in Gao et al. 2022.

    Args:
        std: Standard deviation of the rewards of one prompt's completions under the reference policy, > 0.
        beta: The coefficient, > 0, in the same unit.
    """
    return std**2 / (2 * beta**2)


def propose_beta(
    *,
    target_kl: float | None = None,
    beta_calibrated: float | None = None,
    std: float | None = None,
    reference: ReferenceStatistics | None = None,
    temperature: float | None = None,
    scale: Scale = "raw",
    divisor: float = 1.0,
    scale_rewards: AdvantageScale = "none",
) -> BetaProposal:
    """A KL coefficient that fits the scale in which rewards are given.

    Either of two things fixes it:

    - **a beta in calibrated logits** (``beta_calibrated``), agreed once for all models. A calibrated logit means the
      same for each of them (a difference of d wins with probability sigmoid(d)), and ``calibrated = (s - mean) / T``
      gives ``beta_raw = beta_calibrated T``, ``beta_z = beta_calibrated T / reference std``;
    - **the KL at which the policy should end** (``target_kl``): :func:`expected_kl` turned round, ``beta = std /
      sqrt(2 KL)``. Assumed: rewards of one prompt's completions are near Gaussian under the reference policy, with much
      the same spread for all prompts, and the run reaches its optimum. A run that is stopped early ends at a smaller
      KL, and so does one whose best completions have the probability p under the reference, if -log p is smaller. It
      is where an :class:`~rewardlab.rewards.kl.AdaptiveKL` should start.

    Args:
        target_kl: Nats per whole completion, > 0; :data:`TARGET_KL` where neither it nor ``beta_calibrated`` is given.
        beta_calibrated: Coefficient per calibrated logit, > 0.
        std: Standard deviation of *raw* scores among completions of one prompt, sampled from the reference policy. What
            an RL trainer sees, and the better number to give: score a few hundred prompts with 4 or 8 samples each, and
            take the root of the mean variance (ddof 1) within prompts.
        reference: The model's reference statistics (``contract.reference``): the unit of scale ``z``, and the spread
            where no ``std`` is given.
        temperature: The model's fitted temperature, of preferences (``contract.temperature_of("pair")``).
        scale: The scale in which scores leave the model, ``Scorer(scale=...)``. Not ``percentile``: no factor makes it
            of raw scores, and no division takes it away.
        divisor: What the transforms divide scores of that scale by: a running std, a temperature; 1 for none.
        scale_rewards: TRL's setting of that name (its default is ``"group"``): under ``"group"`` and ``"batch"``
            advantages are divided by the rewards' own std, all factors cancel, and beta stands against advantages
            of std 1: ``1 / sqrt(2 KL)``, for which a target KL needs no spread.

    Returns:
        The coefficient with its derivation.

    Raises:
        ConfigError: Something that is needed is missing or not positive, both ways were taken at once, or the scale has
            no factor. A beta of 0 is refused as well: TRL then loads no reference model, so that there is no KL to
            measure and nothing to adapt later.

    References:
        The closed form: Korbak et al. 2022, arXiv:2205.11275; Rafailov et al. 2023, arXiv:2305.18290, eq. 4. KL and
        gain: Gao et al. 2022, arXiv:2210.10760. GRPO's scaling: TRL 1.16, ``GRPOConfig.scale_rewards``.

    Example:
        >>> propose_beta(target_kl=8.0, std=2.0).beta
        0.5
        >>> propose_beta(target_kl=8.0, std=2.0, temperature=2.0, scale="calibrated").beta
        0.25
    """
    if target_kl is not None and beta_calibrated is not None:
        raise ConfigError("give target_kl or beta_calibrated, not both: either fixes the other")
    if beta_calibrated == 0:
        raise ConfigError(
            "beta is 0: there is no KL control",
            hint="with beta = 0 TRL loads no reference model, so the KL is not measured and beta cannot be adapted "
            "later; start above 0",
        )
    given = {"target_kl": target_kl, "beta_calibrated": beta_calibrated, "std": std, "temperature": temperature}
    for name, number in {**given, "divisor": divisor}.items():
        if number is not None and not 0 < number_of(number, name) < math.inf:
            raise ConfigError(f"{name} must be finite and > 0, got {number}")
    if scale_rewards not in get_args(AdvantageScale):
        raise ConfigError(f"scale_rewards must be 'none', 'batch' or 'group', got {scale_rewards!r}")
    if scale not in SCALES or scale == "percentile":
        came = "have no factor against raw scores" if scale == "percentile" else "do not exist"
        linear = ", ".join(s for s in SCALES if s != "percentile")
        raise ConfigError(f"rewards in the scale {scale!r} {came}", hint=f"take one that is linear in it: {linear}")

    lines: list[str] = []
    doubts: list[str] = []
    spread = std
    if spread is None and reference is not None and reference.std > 0:
        spread = reference.std
        doubts.append(
            f"the spread is the reference set's ({reference.std:.4g}), which mixes prompts and other policies: among "
            "completions of one prompt it is mostly smaller, and the policy then ends at a smaller KL; measure it and "
            "give std"
        )

    raw: float | None
    if beta_calibrated is not None:
        unit = _needed(temperature, "beta_calibrated", "a temperature", "rewardlab calibrate DIR --data F")
        raw = beta_calibrated * unit
        lines.append(f"raw: beta_calibrated x T = {beta_calibrated:.4g} x {unit:.4g} = {raw:.4g}")
        kl = None if spread is None else expected_kl(spread, raw)
        if kl is not None:
            lines.append(f"expected KL: std^2 / (2 beta^2) = {kl:.4g} nats per completion, at the optimum")
    else:
        kl = TARGET_KL if target_kl is None else target_kl
        raw = None if spread is None else spread / math.sqrt(2 * kl)
        if raw is not None:
            lines.append(f"raw: std / sqrt(2 KL) = {spread:.4g} / sqrt(2 x {kl:.4g}) = {raw:.4g}")
    if kl is not None and spread is not None:
        gain = spread * math.sqrt(2 * kl)
        lines.append(f"expected gain: std x sqrt(2 KL) = {gain:.4g} of raw score")
        if reference is not None and reference.quantiles and gain > (room := _room(reference)):
            doubts.append(
                f"a gain of {gain:.4g} is more than the {room:.4g} between the reference set's mean and its best "
                "score: no such completion was seen, and the KL will end below the expected one, or the model be "
                "exploited"
            )

    if scale_rewards == "none":
        known = _needed(raw, "a target KL", "a spread: std, or a reference whose std is > 0", "see the argument std")
        factor, why = _factor(scale, reference, temperature)
        beta = known * factor / divisor
        lines.append(f"rewards are {why}, divided by {divisor:.4g}: beta = {beta:.4g}")
    else:
        ends = _needed(kl, f"scale_rewards={scale_rewards!r}", "a spread: std, or a reference", "give std")
        beta = 1 / math.sqrt(2 * ends)
        lines.append(
            f"scale_rewards={scale_rewards!r}: advantages are divided by the rewards' own std, so the reward's scale "
            f"({scale}, divisor {divisor:.4g}) cancels and beta stands against advantages of std 1: "
            f"1 / sqrt(2 KL) = 1 / sqrt(2 x {ends:.4g}) = {beta:.4g}"
        )
        doubts.append(
            f"under scale_rewards={scale_rewards!r} the std is that of the moment: where a prompt's completions hardly "
            "differ, noise is blown up to std 1 as well; scale_rewards='none' keeps the reward's own scale"
        )
        if scale_rewards == "batch":
            doubts.append(
                "the batch's std mixes prompts: where these differ in level, a prompt's advantages have a std below 1, "
                "and the policy ends at a smaller KL"
            )
    lines.append("the KL is of whole completions, as use_kl_control's; TRL's metric `kl` is its mean per token")
    lines.append("with beta = 0 TRL loads no reference model, so beta could not be adapted later: start above 0")
    calibrated = None if temperature is None or raw is None else raw / temperature
    return BetaProposal(beta, raw, calibrated, kl, tuple(lines), tuple(doubts))


def number_of(value: object, name: str) -> float:
    """What was given as a number, as a float; infinite and NaN pass.

    Args:
        value: What came, e.g. out of a state or a configuration.
        name: What it is called.

    Raises:
        ConfigError: It is no number: a text, a bool, None, a tensor.
    """
    if isinstance(value, bool) or not isinstance(value, Real):  # numpy's numbers are Real
        raise ConfigError(
            f"{name} must be a number, got {value!r} ({type(value).__name__})", hint="of a tensor take .item()"
        )
    try:
        return float(value)
    except OverflowError:  # an int of hundreds of digits
        return math.inf


def _room(reference: ReferenceStatistics) -> float:
    """From the reference set's mean to its highest score."""
    return max(reference.quantiles.values()) - reference.mean


def _factor(scale: Scale, reference: ReferenceStatistics | None, temperature: float | None) -> tuple[float, str]:
    """What a difference of raw scores is multiplied by in a scale, and in words."""
    if scale in ("raw", "centered"):
        return 1.0, f"{scale} scores, factor 1"
    if scale == "calibrated":
        unit = _needed(temperature, "scale 'calibrated'", "a temperature", "rewardlab calibrate DIR --data F")
        return 1.0 / unit, f"calibrated logits, factor 1 / T = 1 / {unit:.4g}"
    std = None if reference is None or not reference.std > 0 else reference.std
    unit = _needed(std, "scale 'z'", "a reference whose std is > 0", "rewardlab calibrate DIR --data F")
    return 1.0 / unit, f"z scores, factor 1 / reference std = 1 / {unit:.4g}"


def _needed(number: float | None, what: str, missing: str, hint: str) -> float:
    if number is None:
        raise ConfigError(f"{what} needs {missing}, and there is none", hint=hint)
    return number

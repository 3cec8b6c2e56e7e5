"""The transforms from score to reward, and the table of their names. Each states its formula, its ddof and its eps.

They know finite scores and what belongs to them (``entries.py``); masks, refused scores, ranks and files are the
chain's. Statistics of per-token rewards are over all unmasked tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from rewardlab.errors import ConfigError
from rewardlab.rewards.batch import FloatArray
from rewardlab.rewards.entries import Entries, Known, Transform, require
from rewardlab.rewards.moments import mean_and_std
from rewardlab.rewards.scaling import Norm, RefScale, Running, from_contract


@dataclass
class Center(Transform):
    """Subtract a mean: ``s <- s - mean``. The batch's, or the reference set's. One score and its batch's mean give 0.

    Args:
        by: ``"batch"`` (all ranks' scores of this step) or ``"reference"``.
        mean: The reference set's mean; from the contract where the configuration does not say.
    """

    name: ClassVar[str] = "center"
    by: Literal["batch", "reference"] = "batch"
    mean: float | None = None

    def __post_init__(self) -> None:
        """Refuse options that do not go together."""
        require(self.by in ("batch", "reference"), self, "by", "batch or reference")
        require(self.mean is None or math.isfinite(self.mean), self, "mean", "a finite number")
        if (self.mean is None) != (self.by == "batch"):
            raise ConfigError(
                f"center: by={self.by!r} with mean={self.mean!r}",
                hint="a mean goes with by='reference', and only there; from_config(..., reference=...) fills it in",
            )

    @classmethod
    def resolved(cls, options: dict[str, Any], known: Known) -> dict[str, Any]:
        """``by: reference`` takes the mean of the reference set."""
        if options.get("by") != "reference":
            return options
        return from_contract(cls.name, options, known.reference, ("mean",))

    @property
    def by_batch(self) -> bool:
        """Whether the mean is the batch's."""
        return self.mean is None

    def apply(self, entries: Entries) -> tuple[FloatArray, dict[str, float]]:
        """Subtract."""
        mean = mean_and_std(entries.values, 0)[0] if self.mean is None else self.mean
        return entries.values - mean, {"mean": mean}


@dataclass
class Whiten(Transform):
    """Mean 0 and standard deviation 1 over the batch (all ranks' scores of this step).

    ========= ========================================= ==== =======================
    style     formula                                   ddof eps
    ========= ========================================= ==== =======================
    ``plain`` ``(s - mean) / (std + 1e-8)``             0    beside std
    ``trl``   ``(s - mean) * rsqrt(var + 1e-8)``        1    beside var
    ========= ========================================= ==== =======================

    Without ``shift_mean`` the mean is added back. One score, and scores all equal, have std 0: they give 0 (or the
    mean).

    Args:
        style: ``"plain"`` or ``"trl"``.
        shift_mean: Whether the mean goes.

    References:
        trl: TRL's PPO, ``masked_whiten(rewards, mask, shift_mean=False)`` where ``whiten_rewards`` is set; trlX,
        ``whiten`` in ``trlx/utils/modeling.py`` (there, ddof 0 as soon as there are several processes).
    """

    name: ClassVar[str] = "whiten"
    style: Literal["plain", "trl"] = "plain"
    shift_mean: bool = True

    def __post_init__(self) -> None:
        """Refuse an unknown style."""
        require(self.style in ("plain", "trl"), self, "style", "plain or trl")

    @property
    def by_batch(self) -> bool:
        """Always."""
        return True

    def apply(self, entries: Entries) -> tuple[FloatArray, dict[str, float]]:
        """Shift and divide."""
        mean, std = mean_and_std(entries.values, 0 if self.style == "plain" else 1)
        divisor = std + 1e-8 if self.style == "plain" else math.sqrt(std**2 + 1e-8)
        whitened = (entries.values - mean) / divisor
        return whitened if self.shift_mean else whitened + mean, {"mean": mean, "std": std}


GroupScale = Literal["group", "batch", "none"]
GroupBaseline = Literal["mean", "leave_one_out"]


@dataclass
class Group(Transform):
    """Compare each completion with the others of its prompt, wherever they are (also on other ranks).

    ``s <- (s - baseline) / (std + eps)``, std with ddof 1. A group with one score gives 0; one whose scores are all
    equal gives 0. Tokens: all unmasked tokens of the prompt's completions (process supervision in DeepSeekMath,
    section 4.1.3).

    Args:
        scale: Whose std: the ``"group"``'s, the whole ``"batch"``'s, or ``"none"``: nothing is divided (Dr. GRPO).
        baseline: The group's ``"mean"``, or the mean of the other scores, ``"leave_one_out"`` (RLOO):
            ``s - (sum - s) / (n - 1)``.
        eps: Added to std. 1e-4 in TRL's GRPO, 1e-9 in OpenRLHF's ``group_norm``.

    References:
        TRL 1.16, ``grpo_trainer.py``: ``scale_rewards``. Shao et al. 2024 (arXiv:2402.03300); Dr. GRPO: Liu et al. 2025
        (arXiv:2503.20783); RLOO: Ahmadian et al. 2024 (arXiv:2402.14740).
    """

    name: ClassVar[str] = "group"
    scale: GroupScale = "group"
    baseline: GroupBaseline = "mean"
    eps: float = 1e-4

    def __post_init__(self) -> None:
        """Refuse options out of range."""
        require(self.scale in get_args(GroupScale), self, "scale", "group, batch or none")
        require(self.baseline in get_args(GroupBaseline), self, "baseline", "mean or leave_one_out")
        require(math.isfinite(self.eps) and self.eps > 0, self, "eps", "a number above 0")

    @property
    def needs(self) -> frozenset[str]:
        """The prompts."""
        return frozenset({"prompts"})

    @property
    def by_batch(self) -> bool:
        """Always: a group is of one batch."""
        return True

    def apply(self, entries: Entries) -> tuple[FloatArray, dict[str, float]]:
        """Subtract each group's baseline, and divide."""
        result = np.zeros_like(entries.values)
        of_batch = mean_and_std(entries.values, 1)[1]
        number = flat = 0
        for members in _groups(entries):
            of_group = entries.values[members]
            mean, std = mean_and_std(of_group, 1)
            centered = of_group - mean
            if self.baseline == "leave_one_out" and len(members) > 1:
                centered = centered * (len(members) / (len(members) - 1))
            divisor = {"group": std + self.eps, "batch": of_batch + self.eps, "none": 1.0}[self.scale]
            result[members] = centered / divisor
            number, flat = number + 1, flat + (std == 0.0)
        return result, {"number": float(number), "share_without_spread": flat / number}


def _groups(entries: Entries) -> Iterator[NDArray[np.intp]]:
    """Which values are of each prompt, prompts in the order in which they first come."""
    assert entries.prompts is not None
    numbers: dict[Any, int] = {}
    of_row = np.array([numbers.setdefault(prompt, len(numbers)) for prompt in entries.prompts], dtype=np.intp)
    of_value = of_row[entries.rows]
    order = np.argsort(of_value, kind="stable")
    ends = np.flatnonzero(np.diff(of_value[order])) + 1
    yield from np.split(order, ends)


@dataclass
class Clip(Transform):
    """Clip to ``[-limit, limit]``.

    Args:
        limit: Above 0.

    References:
        trlX: ``cliprange_reward``, 10 by default. TRL <= 0.11: ``score_clip``. OpenRLHF: ``reward_clip_range``, (-10,
            10).
    """

    name: ClassVar[str] = "clip"
    limit: float = 10.0

    def __post_init__(self) -> None:
        """Refuse a limit that clips everything, or nothing."""
        require(math.isfinite(self.limit) and self.limit > 0, self, "limit", "a number above 0")

    def apply(self, entries: Entries) -> tuple[FloatArray, dict[str, float]]:
        """Clip, and say how many were."""
        share = float(np.mean(np.abs(entries.values) > self.limit))
        return np.clip(entries.values, -self.limit, self.limit), {"share_clipped": share}


@dataclass
class Delta(Transform):
    """Subtract the score of the prompt's reference completion: ``s <- s - baseline``.

    A completion whose prompt has no baseline (NaN) keeps its score, and is counted in ``delta/share_without_baseline``.
    Of per-token rewards the last token's is lowered, so that the sum falls by the baseline.

    Args:
        optional: Whether a batch without any baselines may pass unchanged; else it is an error.

    References:
        trlX, ``examples/summarize_rlhf/trlx_gptj_text_summarization.py``: r(new) - r(original).
    """

    name: ClassVar[str] = "delta"
    optional: bool = False

    @property
    def needs(self) -> frozenset[str]:
        """The baselines, unless they are optional."""
        return frozenset() if self.optional else frozenset({"baselines"})

    @property
    def uses(self) -> frozenset[str]:
        """The baselines."""
        return frozenset({"baselines"})

    def apply(self, entries: Entries) -> tuple[FloatArray, dict[str, float]]:
        """Subtract where there is a baseline."""
        if entries.baselines is None:
            return entries.values, {"share_without_baseline": 1.0}
        baselines = entries.baselines[entries.rows]
        there = ~np.isnan(baselines)
        without = float(np.mean(~there[entries.last]))
        return entries.values - np.where(there & entries.last, baselines, 0.0), {"share_without_baseline": without}


@dataclass
class Temperature(Transform):
    """Divide by a temperature: ``s <- s / T``, after which a difference of d wins with probability sigmoid(d).

    Args:
        value: T, above 0; from the contract where the configuration does not say.
    """

    name: ClassVar[str] = "temperature"
    value: float

    def __post_init__(self) -> None:
        """Refuse what is no temperature."""
        require(math.isfinite(self.value) and self.value > 0, self, "value", "a number above 0")

    @classmethod
    def resolved(cls, options: dict[str, Any], known: Known) -> dict[str, Any]:
        """Without a value, the model's."""
        if "value" in options:
            return options
        if known.temperature is None:
            raise ConfigError(
                "temperature: no value is given, and no model's temperature",
                hint="write temperature: {value: 0.7}, or pass temperature=contract.temperature",
            )
        return options | {"value": known.temperature}

    def apply(self, entries: Entries) -> tuple[FloatArray, dict[str, float]]:
        """Divide."""
        return entries.values / self.value, {}


@dataclass
class MissingEos(Transform):
    """Subtract a penalty where a completion did not end by itself: ``s <- s - penalty``. Tokens: from the last one.

    Args:
        penalty: From 0 on. TRL has no default.

    References:
        TRL, ``missing_eos_penalty`` (PPO and RLOO of earlier versions; online DPO in 1.16).
    """

    name: ClassVar[str] = "missing_eos"
    penalty: float

    def __post_init__(self) -> None:
        """Refuse a bonus."""
        require(math.isfinite(self.penalty) and self.penalty >= 0, self, "penalty", "a number from 0 on")

    @property
    def needs(self) -> frozenset[str]:
        """Whether completions ended."""
        return frozenset({"ended"})

    def apply(self, entries: Entries) -> tuple[FloatArray, dict[str, float]]:
        """Subtract where the end is missing."""
        assert entries.ended is not None
        cut = ~entries.ended[entries.rows] & entries.last
        share = float(np.mean(cut[entries.last]))
        return entries.values - np.where(cut, self.penalty, 0.0), {"share_not_ended": share}


TRANSFORMS: dict[str, type[Transform]] = {
    kind.name: kind for kind in (Center, Running, Norm, RefScale, Whiten, Group, Clip, Delta, Temperature, MissingEos)
}
"""Name in configurations to transform."""

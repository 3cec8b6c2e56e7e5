"""Transforms with a memory: scores divided by the standard deviation of all scores so far, or of the first ones.

They know numbers; the merge formula stands in ``moments.py``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from rewardlab.calibration.reference import ReferenceStatistics
from rewardlab.errors import ConfigError, DataError
from rewardlab.rewards.batch import FloatArray
from rewardlab.rewards.entries import Entries, Known, Of, Transform, require
from rewardlab.rewards.moments import DAMAGED, RunningMoments, finite_numbers, mean_and_std

FLOAT32_EPS = float(np.finfo(np.float32).eps)
"""1.1920929e-07, what TRL <= 0.11 adds to the standard deviation of its float32 scores."""


@dataclass
class Running(Transform):
    """Divide by the running standard deviation; the mean is not shifted.

    ``update with the batch; s <- s / (std + eps)``, std with ddof 1 over all scores so far, this batch included. One
    score, and scores all equal, leave std at 1.

    Args:
        eps: Added to std. 0 as in trlX; TRL <= 0.11 adds float32's 1.1920929e-07.
        of: Whether the moments of per-token rewards are of ``"tokens"`` or of each completion's sum (``"sequences"``).

    References:
        trlX, ``accelerate_ppo_trainer.py``: ``scale_reward="running"`` (there, of sequences). TRL <= 0.11,
        ``ppo_trainer.py``: ``use_score_scaling`` without ``use_score_norm``.
    """

    name: ClassVar[str] = "running"
    eps: float = 0.0
    of: Of = "tokens"
    moments: RunningMoments = field(default_factory=RunningMoments, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse options out of range."""
        require(math.isfinite(self.eps) and self.eps >= 0, self, "eps", "a number from 0 on")
        require(self.of in get_args(Of), self, "of", "tokens or sequences")

    def apply(self, entries: Entries) -> tuple[FloatArray, dict[str, float]]:
        """Update, then divide."""
        self.moments.update(entries.observations(self.of))
        return entries.values / (self.moments.std + self.eps), self._statistics()

    def _statistics(self) -> dict[str, float]:
        return {"mean": self.moments.mean, "std": self.moments.std, "count": self.moments.count}

    def state_dict(self) -> dict[str, Any]:
        """The moments."""
        return self.moments.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the moments."""
        self.moments.load_state_dict(state)


@dataclass
class Norm(Running):
    """Subtract the running mean and divide by the running standard deviation.

    ``update with the batch; s <- (s - mean) / (std + eps)``, std with ddof 1, this batch included. One score, and
    scores all equal, give 0.

    Args:
        eps: Added to std.
        of: As :class:`Running`.

    References:
        TRL <= 0.11, ``ppo_trainer.py``: ``use_score_scaling`` with ``use_score_norm``; eps is
        ``torch.finfo(float32).eps``.
    """

    name: ClassVar[str] = "norm"
    eps: float = FLOAT32_EPS

    def apply(self, entries: Entries) -> tuple[FloatArray, dict[str, float]]:
        """Update, then shift and divide."""
        self.moments.update(entries.observations(self.of))
        shifted = entries.shifted(self.moments.mean, self.of)
        return shifted / (self.moments.std + self.eps), self._statistics()


Source = Literal["first_batch", "contract"]


@dataclass
class RefScale(Transform):
    """Divide by a fixed standard deviation: of the first batch, or of the reference set in the model's contract.

    ``s <- s / std``, with ``shift_mean`` ``s <- (s - mean) / std``; no eps. Of the first batch std has ddof 1, and it
    is the first batch of all ranks together (trlX takes each rank's own, which then differ). The contract's has ddof
    0. The first batch that counts is the first with two scores that differ: scores before it stay as they are.

    Args:
        source: ``"first_batch"`` or ``"contract"``.
        mean: A given mean, for ``shift_mean``.
        std: A given standard deviation, above 0: no batch is waited for (trlX: ``ref_std``).
        shift_mean: Whether the mean is subtracted; trlX does not.
        of: As :class:`Running`.

    References:
        trlX, ``accelerate_ppo_trainer.py``: ``scale_reward="ref"`` (there, of sequences).
    """

    name: ClassVar[str] = "ref"
    source: Source = "first_batch"
    mean: float | None = None
    std: float | None = None
    shift_mean: bool = False
    of: Of = "tokens"
    first: tuple[float, float] | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse options out of range."""
        require(self.source in get_args(Source), self, "source", "first_batch or contract")
        require(self.std is None or (math.isfinite(self.std) and self.std > 0), self, "std", "a number above 0")
        require(self.mean is None or math.isfinite(self.mean), self, "mean", "a finite number")
        require(self.of in get_args(Of), self, "of", "tokens or sequences")
        if self.std is None and (self.mean is not None or self.source == "contract"):
            raise ConfigError(
                f"ref: std is missing for source={self.source!r} with mean={self.mean!r}",
                hint="RefScale.from_reference(contract.reference), or RewardChain.from_config(..., reference=...)",
            )
        if self.std is not None and self.mean is None and self.shift_mean:
            raise ConfigError("ref: shift_mean needs a mean beside the given std", hint="give mean too")

    @classmethod
    def from_reference(cls, reference: ReferenceStatistics, *, shift_mean: bool = False) -> RefScale:
        """The scale of a model's reference set.

        Args:
            reference: As its contract has it.
            shift_mean: Whether the mean is subtracted.

        Raises:
            ConfigError: All its scores are equal.
        """
        return cls(source="contract", mean=reference.mean, std=reference.std, shift_mean=shift_mean)

    @classmethod
    def resolved(cls, options: dict[str, Any], known: Known) -> dict[str, Any]:
        """``source: contract`` takes mean and std of the reference set."""
        if options.get("source") != "contract":
            return options
        return from_contract(cls.name, options, known.reference, ("mean", "std"))

    @property
    def by_batch(self) -> bool:
        """Whether a first batch is waited for."""
        return self.std is None

    def apply(self, entries: Entries) -> tuple[FloatArray, dict[str, float]]:
        """Take the reference where there is none yet, then divide."""
        if self.std is None and self.first is None:
            mean, std = mean_and_std(entries.observations(self.of), 1)
            self.first = (mean, std) if std > 0 else None
        mean, std = (self.mean or 0.0, self.std) if self.std is not None else self.first or (0.0, 1.0)
        shifted = entries.shifted(mean, self.of) if self.shift_mean else entries.values
        return shifted / std, {"mean": mean, "std": std}

    def state_dict(self) -> dict[str, Any]:
        """Mean and std of the first batch, once there was one."""
        return {} if self.first is None else {"mean": self.first[0], "std": self.first[1]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore them."""
        if self.std is not None or state == {}:
            super().load_state_dict(state)
            self.first = None
            return
        numbers = finite_numbers(state, ("mean", "std"), "the first batch's statistics")
        if numbers["std"] <= 0:
            raise DataError(f"the first batch's std must be above 0, got {numbers['std']}", hint=DAMAGED)
        self.first = (numbers["mean"], numbers["std"])


def from_contract(
    name: str, options: dict[str, Any], reference: ReferenceStatistics | None, which: tuple[str, ...]
) -> dict[str, Any]:
    """Options completed by a reference set's statistics.

    Args:
        name: The transform's.
        options: As given.
        reference: The contract's, or None.
        which: Which of its fields, ``"mean"`` and ``"std"``.

    Raises:
        ConfigError: There is no reference set, or the options have numbers of another one.
    """
    if reference is None:
        if all(option in options for option in which):
            return options
        raise ConfigError(
            f"{name}: the reference set is asked for, and the model has none",
            hint="rewardlab calibrate DIR --data F stores one; pass reference=contract.reference",
        )
    for option in which:
        if options.get(option, getattr(reference, option)) != getattr(reference, option):
            raise ConfigError(
                f"{name}: {option} is {options[option]!r}, and the reference set's is {getattr(reference, option)!r}",
                hint="this configuration was written for another model: leave the number out",
            )
    return options | {option: getattr(reference, option) for option in which}

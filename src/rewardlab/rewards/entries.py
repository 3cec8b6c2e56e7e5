"""What a transform sees: the finite scores of all ranks in one flat list, whether one per completion or one per token.

This file knows how scores and completions belong together, and what every transform has; it knows no formula.
"""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from rewardlab.calibration.reference import ReferenceStatistics
from rewardlab.errors import ConfigError, DataError
from rewardlab.rewards.batch import FloatArray

Of = Literal["tokens", "sequences"]
"""What statistics of per-token rewards are of: single tokens, or each completion's sum. Alike for one score each."""


@dataclass(frozen=True, slots=True)
class Entries:
    """The scores that can be used, of all ranks in their order; masked positions and refused completions are left out.

    Attributes:
        values: The scores, shape (m,), float64, all finite: one per completion, or one per unmasked token.
        rows: Which completion each is of, shape (m,), rising.
        last: Whether it is its completion's last, shape (m,), bool (one score per completion: all are).
        num_rows: How many completions there are, refused ones included.
        prompts: One key per completion, or None.
        baselines: One per completion, shape (num_rows,), NaN where there is none; or None.
        ended: One per completion, shape (num_rows,), bool; or None.
    """

    values: FloatArray
    rows: NDArray[np.intp]
    last: NDArray[np.bool_]
    num_rows: int
    prompts: Sequence[Hashable] | None = None
    baselines: FloatArray | None = None
    ended: NDArray[np.bool_] | None = None

    def observations(self, of: Of) -> FloatArray:
        """What statistics are taken of: the values, or one sum per completion that has any."""
        if of == "tokens":
            return self.values
        sums = np.asarray(np.bincount(self.rows, weights=self.values, minlength=self.num_rows), dtype=np.float64)
        return sums[np.bincount(self.rows, minlength=self.num_rows) > 0]

    def shifted(self, mean: float, of: Of) -> FloatArray:
        """The values less the mean of such observations: a sum's mean is taken off each completion's last value."""
        return self.values - mean if of == "tokens" else self.values - np.where(self.last, mean, 0.0)


@dataclass(frozen=True, slots=True)
class Known:
    """What a model's contract says, for transforms that are told to take it from there.

    Attributes:
        reference: The statistics of its reference set.
        temperature: Its fitted temperature.
    """

    reference: ReferenceStatistics | None = None
    temperature: float | None = None


class Transform:
    """One step of a chain. Subclasses are dataclasses whose init fields are the options of the configuration.

    Class attributes:
        name: As the configuration calls it.
        needs: Which of ``prompts``, ``baselines`` and ``ended`` it cannot do without.
        uses: Which it takes where they are there.
    """

    name: ClassVar[str]

    @property
    def needs(self) -> frozenset[str]:
        """What of a batch it cannot do without."""
        return frozenset()

    @property
    def uses(self) -> frozenset[str]:
        """What of a batch it looks at, needed or not."""
        return self.needs

    @property
    def by_batch(self) -> bool:
        """Whether a reward depends on the other completions of the same call, beyond what a state keeps of them."""
        return False

    def apply(self, entries: Entries) -> tuple[FloatArray, dict[str, float]]:
        """The values after this step, shape (m,), all finite, and what is worth logging.

        Called on every batch that has at least one value, with the same entries on every rank.
        """
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """What it has learned from batches so far, in plain JSON values; empty where it learns nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another of the same options left off.

        Raises:
            DataError: This is no state of it.
        """
        if not isinstance(state, Mapping) or state:
            came = sorted(state) if isinstance(state, Mapping) else type(state).__name__
            raise DataError(f"{self.name} has no state, got {came}", hint="load the state of this very chain")

    @classmethod
    def resolved(cls, options: dict[str, Any], known: Known) -> dict[str, Any]:
        """The options, with what they say is to be taken from the contract.

        Raises:
            ConfigError: The contract does not have it, or has another number than the options.
        """
        return options

    def options(self) -> dict[str, Any]:
        """All options by name, defaults included, in plain JSON values (numbers of NumPy are floats)."""
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        options = {field.name: getattr(self, field.name) for field in fields if field.init}
        return {
            name: float(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else value
            for name, value in options.items()
        }


def require(fits: bool, transform: Transform, option: str, expected: str) -> None:
    """Refuse an option's value.

    Raises:
        ConfigError: It does not fit.
    """
    if not fits:
        value = getattr(transform, option)
        raise ConfigError(f"{transform.name}: {option} must be {expected}, got {value!r}")

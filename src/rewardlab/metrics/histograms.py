"""Counts on fixed grids: how a server keeps the distribution of millions of scores in a few hundred numbers.

Counts only grow, so that the difference of two readings is the window between them, whoever else reads too. The grids
are fixed beforehand, so that two distributions counted in two places are of the same bins. Pure numpy in float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rewardlab.errors import DataError

_Z_REACH, _Z_STEP = 8.0, 0.1  # standard deviations of the reference set
_PER_DOUBLING = 4  # bins between x and 2x


def score_grid(mean: float | None = None, std: float | None = None) -> tuple[float, ...]:
    """Edges of the bins for raw scores.

    Args:
        mean: Of the model's reference set; None where it has none.
        std: Of it.

    Returns:
        With a reference: 0.1 of its standard deviations wide, from 8 below its mean to 8 above. Without: narrow around
        zero and in proportion to the score elsewhere, a quarter of a doubling each, to 4,096 on either side.
    """
    if mean is not None and std is not None and math.isfinite(mean) and 0 < std < math.inf:
        count = round(_Z_REACH / _Z_STEP)
        return tuple(mean + std * _Z_STEP * step for step in range(-count, count + 1))
    positive = _doublings(2.0**-10, 2.0**12)
    return (*(-edge for edge in reversed(positive)), 0.0, *positive)


def _doublings(first: float, last: float) -> tuple[float, ...]:
    return tuple(
        first * 2 ** (step / _PER_DOUBLING) for step in range(round(math.log2(last / first)) * _PER_DOUBLING + 1)
    )


TOKEN_GRID = (0.0, *_doublings(1.0, 2.0**20))
"""Edges for lengths of sequences, in tokens."""

DISAGREEMENT_GRID = (0.0, *_doublings(2.0**-10, 2.0**10))
"""Edges for the disagreement of an ensemble's members, on their common scale."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many values lay in each bin.

    Attributes:
        edges: E edges, rising.
        counts: E + 1 counts: up to and with the first edge, (edge, next edge], ..., above the last.
        total: Sum of the values.
        squares: Sum of their squares.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    total: float = 0.0
    squares: float = 0.0

    def __post_init__(self) -> None:
        """Refuse counts that are of other bins.

        Raises:
            ValueError: Edges do not rise, counts are not one more than edges or below 0, or a sum is not finite.
        """
        if not self.edges or any(not low < high for low, high in zip(self.edges, self.edges[1:], strict=False)):
            raise ValueError("a histogram's edges must rise")
        if len(self.counts) != len(self.edges) + 1 or min(self.counts) < 0:
            raise ValueError(f"{len(self.edges)} edges need {len(self.edges) + 1} counts of at least 0")
        if not (math.isfinite(self.total) and math.isfinite(self.squares)):
            raise ValueError(f"a histogram's sums must be finite, got {self.total} and {self.squares}")

    @classmethod
    def of(cls, edges: Iterable[float], values: ArrayLike = ()) -> Histogram:
        """The histogram of some values.

        Args:
            edges: Rising.
            values: Finite numbers, any shape.

        Raises:
            ValueError: A value is not finite.
        """
        rising, numbers = tuple(edges), np.asarray(values, dtype=np.float64).ravel()
        if not np.isfinite(numbers).all():
            raise ValueError("only finite values have a bin")
        counts = np.bincount(np.searchsorted(rising, numbers, side="left"), minlength=len(rising) + 1)
        return cls(rising, tuple(counts.tolist()), float(numbers.sum()), float((numbers**2).sum()))

    @property
    def num(self) -> int:
        """Values counted."""
        return sum(self.counts)

    @property
    def mean(self) -> float | None:
        """Their mean; None of none."""
        return self.total / self.num if self.num else None

    @property
    def std(self) -> float | None:
        """Their standard deviation (ddof 0); None of none."""
        if not self.num:
            return None
        return math.sqrt(max(0.0, self.squares / self.num - (self.total / self.num) ** 2))

    def __add__(self, other: Histogram) -> Histogram:
        """Both together."""
        self._require_same_bins(other)
        counts = tuple(a + b for a, b in zip(self.counts, other.counts, strict=True))
        return Histogram(self.edges, counts, self.total + other.total, self.squares + other.squares)

    def __sub__(self, earlier: Histogram) -> Histogram:
        """What was counted since an earlier reading of the same counts.

        Raises:
            ValueError: The earlier reading counted more: it is not of these counts.
        """
        self._require_same_bins(earlier)
        counts = tuple(a - b for a, b in zip(self.counts, earlier.counts, strict=True))
        if min(counts) < 0:
            raise ValueError("a count is lower than it was")
        return Histogram(self.edges, counts, self.total - earlier.total, self.squares - earlier.squares)

    def _require_same_bins(self, other: Histogram) -> None:
        if self.edges != other.edges:
            raise ValueError("the two histograms are of other bins")

    def to_dict(self) -> dict[str, Any]:
        """``{"edges", "counts", "total", "squares"}``."""
        return {
            "edges": list(self.edges),
            "counts": list(self.counts),
            "total": self.total,
            "squares": self.squares,
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Histogram:
        """The histogram that :meth:`to_dict` wrote.

        Raises:
            DataError: It is none.
        """
        try:
            edges = tuple(float(edge) for edge in record["edges"])
            counts = tuple(int(count) for count in record["counts"])
            return cls(edges, counts, float(record["total"]), float(record["squares"]))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"not a histogram: {error}") from error


def expected_shares(edges: tuple[float, ...], quantiles: Mapping[str, float]) -> NDArray[np.float64]:
    """The share of each bin that stored quantiles imply, straight lines between them.

    Args:
        edges: E rising edges.
        quantiles: Level (``"0.05"``) -> value.

    Returns:
        Shape (E + 1,), sums to 1.
    """
    levels = np.array(sorted(float(level) for level in quantiles))
    values = np.array(sorted(quantiles.values()))
    below = np.interp(edges, values, levels, left=0.0, right=1.0)
    shares: NDArray[np.float64] = np.diff(np.concatenate([[0.0], below, [1.0]]))
    return shares

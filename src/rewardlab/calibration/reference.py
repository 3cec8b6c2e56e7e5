"""The reference scale: how a model's scores are spread over a fixed set of completions.

Bradley-Terry fixes score differences alone; where zero lies, and how large a unit is, every training run chooses anew.
What a score is worth is therefore said against the scores of a fixed set, the reference set, by the model that gave it.
This file knows scores and whose they are; it knows no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from rewardlab.data.fingerprints import completions_fingerprint
from rewardlab.types import PromptGroup

LEVELS = (0.0, 0.001, 0.005, *(i / 100 for i in range(1, 100)), 0.995, 0.999, 1.0)
"""The quantile levels that are stored: each hundredth, and more in the tails."""


@dataclass(frozen=True, slots=True)
class ReferenceStatistics:
    """The distribution of scores on the reference set.

    Attributes:
        source: Which completions were scored: ``"held-out"``, ``"training"``, or the name of a reference file.
        num_scores: How many; 0 where only mean and std are known (some imported models).
        mean: Their mean.
        std: Their standard deviation (ddof 0).
        quantiles: Quantile level (as text, ``"0.5"``) -> score; empty where they are not known.
        sha256: Fingerprint of the prompts and completions that were scored: the same for two models exactly where their
            statistics can be compared. None where it is not known.
    """

    source: str
    num_scores: int
    mean: float
    std: float
    quantiles: dict[str, float]
    sha256: str | None = None

    def __post_init__(self) -> None:
        """Refuse a spread or quantiles that would turn scores round.

        Raises:
            ValueError: The deviation is below 0, a level is no number in [0, 1], or scores fall as levels rise.
        """
        if self.std < 0:
            raise ValueError(f"the standard deviation of the reference set must be at least 0, got {self.std}")
        levels = sorted((float(level), score) for level, score in self.quantiles.items())
        if not all(0 <= level <= 1 for level, _ in levels):
            raise ValueError("the levels of the reference set's quantiles must be numbers from 0 to 1")
        if any(later < earlier for (_, earlier), (_, later) in pairwise(levels)):
            raise ValueError("the reference set's quantiles must rise with their levels")


def reference_statistics(scores: Sequence[float], source: str, sha256: str | None = None) -> ReferenceStatistics:
    """Mean, std (ddof 0) and quantiles of some scores.

    Args:
        scores: At least one score.
        source: Which completions they are of, ``"held-out"`` or ``"training"``, or a file's name.
        sha256: Fingerprint of these completions.
    """
    values = np.asarray(scores, dtype=np.float64)
    low, high = float(values.min()), float(values.max())
    # Of equal scores the mean, and with it the deviation, would be wrong by a rounding, and a scale divides by it.
    mean, std = (low, 0.0) if low == high else (float(values.mean()), float(values.std()))
    levels = np.quantile(values, LEVELS)
    quantiles = {f"{level:g}": float(score) for level, score in zip(LEVELS, levels, strict=True)}
    return ReferenceStatistics(source, len(values), mean, std, quantiles, sha256)


def statistics_of(groups: Sequence[PromptGroup], scores: Sequence[Sequence[float]], source: str) -> ReferenceStatistics:
    """The statistics of a reference set's scores, with the fingerprint of its completions.

    Args:
        groups: The reference set.
        scores: Per group, one score per completion.
        source: What the set is called.
    """
    every = [score for of_group in scores for score in of_group]
    return reference_statistics(every, source, completions_fingerprint(groups))

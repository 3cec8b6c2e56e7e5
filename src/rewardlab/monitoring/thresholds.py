"""When the monitor raises an alarm: what a thresholds file may say, with the defaults and what each guards against."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from rewardlab.config import build


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """The limits of every watch.

    Attributes:
        false_alarm_rate: Most runs of ``horizon`` quiet fresh windows in which any of the sequential watches (accuracy,
            calibration, gap) raises an alarm. Each has its equal share of it.
        horizon: Windows for which that rate is stated; on average ``horizon / false_alarm_rate`` quiet windows lie
            between two false alarms, however long one looks.
        accuracy_drops: Drops of accuracy that are bet on; others are found too, most quickly those near one of these.
            The calibration watch bets on changes of (confidence - right) of the same sizes, either way.
        fewest_pairs: New comparisons below which fresh windows wait, to be tested together with those that follow.
        new_version_p: Level at which a new version is called worse on the canary, shared by its comparisons with the
            last good version and with the best one.
        canary_tolerance: Largest difference of a canary score from the same model's earlier one, raw; None takes the
            contract's tolerance for the dtype, and 1e-5 where there is no contract.
        psi_warning: Population stability index at which a live distribution is worth a look.
        psi_alarm: Population stability index at which it is an alarm.
        ks_p: P-value of the Kolmogorov-Smirnov or chi-square test below which a difference counts as one at all. A
            large sample makes every difference significant, so it raises no alarm by itself.
        fewest_scores: Scores below which a live window is left to grow. Completions of one prompt score alike: with 16
            of each, 200 scores are hardly more than 13 independent ones, and drift is seen where there is none.
        gap_steps: Rises of the mean gap between proxy and ensemble that are bet on, in standard deviations of a
            comparison's gap in the first window (or baseline).
    """

    false_alarm_rate: float = 0.05
    horizon: int = 200
    accuracy_drops: tuple[float, ...] = (0.02, 0.05, 0.1)
    fewest_pairs: int = 30
    new_version_p: float = 0.05
    canary_tolerance: float | None = None
    psi_warning: float = 0.1
    psi_alarm: float = 0.25
    ks_p: float = 0.001
    fewest_scores: int = 1000
    gap_steps: tuple[float, ...] = field(default=(0.1, 0.25, 0.5))

    def __post_init__(self) -> None:
        """Refuse limits that would never or always raise an alarm.

        Raises:
            ValueError: A limit is out of its range.
        """
        for name in ("false_alarm_rate", "new_version_p", "ks_p"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must be above 0 and below 1, got {getattr(self, name)}")
        for name in ("horizon", "fewest_pairs", "fewest_scores"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("psi_warning", "psi_alarm"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be a number of at least 0, got {value}")
        for name in ("accuracy_drops", "gap_steps"):
            sizes = getattr(self, name)
            if not sizes or not all(math.isfinite(size) and size > 0 for size in sizes):
                raise ValueError(f"{name} must be one or more numbers above 0, got {list(sizes)}")
        if max(self.accuracy_drops) >= 1:
            raise ValueError(f"accuracy_drops must be below 1 (0.05 is 5 points), got {list(self.accuracy_drops)}")
        if self.psi_warning > self.psi_alarm:
            raise ValueError(f"psi_warning {self.psi_warning} is above psi_alarm {self.psi_alarm}")
        if self.canary_tolerance is not None and not (
            math.isfinite(self.canary_tolerance) and self.canary_tolerance >= 0
        ):
            raise ValueError(f"canary_tolerance must be a number of at least 0, got {self.canary_tolerance}")


def load_thresholds(path: Path | None) -> Thresholds:
    """The defaults, with what a YAML file says otherwise.

    Args:
        path: The file; None takes the defaults.

    Raises:
        ConfigError: It cannot be read, a key is unknown, or a value cannot be.
    """
    return build(Thresholds, recipe=path)

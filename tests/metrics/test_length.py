"""rewardlab.metrics.length: the always-longer and always-shorter baselines."""

from __future__ import annotations

import numpy as np

from rewardlab.metrics import longer_is_chosen, shorter_is_chosen


def test_equal_lengths_win_for_neither() -> None:
    """Lengths (9, 4, 5, 5, 2) against (3, 8, 5, 5, 1): longer, shorter, equal, equal, longer.

    Always-longer is right on 2 of 5, always-shorter on 1 of 5; the two equal ones are nobody's.
    """
    chosen, rejected = [9, 4, 5, 5, 2], [3, 8, 5, 5, 1]
    assert longer_is_chosen(chosen, rejected) == 0.4
    assert shorter_is_chosen(chosen, rejected) == 0.2


def test_unsigned_lengths() -> None:
    """Negating an unsigned array would wrap around and swap the baselines."""
    lengths = np.array([3, 1], dtype=np.uint8), np.array([2, 2], dtype=np.uint8)
    assert longer_is_chosen(*lengths) == 0.5
    assert shorter_is_chosen(*lengths) == 0.5

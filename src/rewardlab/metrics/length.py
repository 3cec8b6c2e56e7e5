"""The baseline every reward model has to beat: choosing by length alone.

"Always the longer completion" is a scorer whose score is the length, so its accuracy is :func:`pairwise_accuracy` of
the lengths, and the same rule holds: completions of equal length are a tie, and a tie is a win for neither baseline, so
the two need not add up to 1. This file knows lengths; what a length is (characters of the completion's text) is decided
by who measures it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from rewardlab.metrics.accuracy import pairwise_accuracy


def longer_is_chosen(chosen_lengths: ArrayLike, rejected_lengths: ArrayLike) -> float:
    """Accuracy of always choosing the longer completion.

    Args:
        chosen_lengths: Lengths of the chosen completions, shape (pairs,), characters.
        rejected_lengths: Lengths of the rejected completions, shape (pairs,), characters.

    Returns:
        Share of pairs whose chosen completion is strictly longer, in [0, 1].

    Raises:
        ValueError: No pairs, or shapes differ.

    Example:
        >>> longer_is_chosen([120, 80, 50, 50], [100, 90, 40, 50])
        0.5
    """
    return pairwise_accuracy(chosen_lengths, rejected_lengths)


def shorter_is_chosen(chosen_lengths: ArrayLike, rejected_lengths: ArrayLike) -> float:
    """Accuracy of always choosing the shorter completion.

    Args:
        chosen_lengths: Lengths of the chosen completions, shape (pairs,), characters.
        rejected_lengths: Lengths of the rejected completions, shape (pairs,), characters.

    Returns:
        Share of pairs whose chosen completion is strictly shorter, in [0, 1].

    Raises:
        ValueError: No pairs, or shapes differ.

    Example:
        >>> shorter_is_chosen([120, 80, 50, 50], [100, 90, 40, 50])
        0.25
    """
    return pairwise_accuracy(np.negative(chosen_lengths), np.negative(rejected_lengths))

"""Per-token rewards as one table, shape (n, tokens), ``-inf`` where a completion has no token.

This file knows where numbers go; which tokens they are of, its callers know.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rewardlab.errors import DataError
from rewardlab.rewards.batch import FloatArray


def on_last_token(rewards: Sequence[float] | FloatArray, lengths: Sequence[int]) -> FloatArray:
    """One reward per completion, on its last token; 0 on its others, ``-inf`` behind it.

    The last token of a completion that ended is its EOS. The reward must not land behind it, on padding, where TRL's
    PPO once put it (trl#3750).

    Args:
        rewards: One per completion, shape (n,); NaN where a completion has none: all its tokens have none then.
        lengths: How many tokens each completion has, at least 1.

    Returns:
        Shape (n, max(lengths)), float64.

    Raises:
        DataError: As many lengths as rewards are expected, each a number above 0; or a reward is infinite.

    Example:
        >>> on_last_token([2.0, 3.0], [1, 3]).tolist()
        [[2.0, -inf, -inf], [0.0, 0.0, 3.0]]
    """
    values = np.asarray(rewards, dtype=np.float64)
    counts = np.asarray(lengths)
    if values.ndim != 1 or counts.shape != values.shape:
        raise DataError(f"one length per reward is expected: rewards {values.shape}, lengths {counts.shape}")
    if not values.size:
        return np.zeros((0, 0))
    if not np.issubdtype(counts.dtype, np.integer) or counts.min() < 1:
        raise DataError(f"lengths must be whole numbers above 0, got {list(lengths)}", hint="leave empty ones out")
    if np.isinf(values).any():
        number = int(np.argmax(np.isinf(values)))
        raise DataError(f"reward {number} is {values[number]}", hint="give NaN where there is no reward")
    inside = np.arange(counts.max()) < counts[:, None]
    table = np.where(inside, np.where(np.isnan(values), np.nan, 0.0)[:, None], -np.inf)
    table[np.arange(values.size), counts - 1] = values
    return table


def to_token_rewards(rows: Sequence[Sequence[float]]) -> FloatArray:
    """Lists of different lengths as one table, such as ``Scorer.token_logits`` or ``Scorer.step_scores`` of one group.

    Args:
        rows: One list of numbers per completion; an empty one is a row that is masked whole.

    Returns:
        Shape (n, longest), float64, ``-inf`` behind each list's end.

    Raises:
        DataError: A number is ``-inf``, which would pass for a masked position.

    Example:
        >>> to_token_rewards([[0.5], [0.25, 1.0]]).tolist()
        [[0.5, -inf], [0.25, 1.0]]
    """
    table = np.full((len(rows), max(map(len, rows), default=0)), -np.inf)
    for number, row in enumerate(rows):
        values = np.asarray(row, dtype=np.float64)
        if np.isneginf(values).any():
            raise DataError(
                f"row {number} has -inf, which would mask the token", hint="give NaN where there is no reward"
            )
        table[number, : len(row)] = values
    return table

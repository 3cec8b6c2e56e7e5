"""Many worthwhile comparisons that are not all the same: prompts take turns, then farthest first. Numbers only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def by_turns(values: NDArray[Any], prompts: Sequence[str], k: int) -> NDArray[np.int64]:
    """The candidates among which k can be chosen with as few of one prompt as can be.

    No prompt has a second comparison where k prompts have one, and so on; of each prompt, those of highest value stay.

    Args:
        values: Value of each candidate, shape (n,).
        prompts: Which prompt each belongs to.
        k: How many will be chosen.

    Returns:
        Numbers of the candidates that stay, at least ``min(k, n)``, the most valuable first; equal values in order.
    """
    order = np.argsort(-values, kind="stable")
    seen: Counter[str] = Counter()
    turns = np.empty(len(values), dtype=np.int64)
    for index in order:
        turns[index] = seen[prompts[index]]
        seen[prompts[index]] += 1
    fewest = np.sort(turns)[min(k, len(turns)) - 1] if len(turns) else 0
    return order[turns[order] <= fewest]


def farthest_first(values: NDArray[Any], directions: NDArray[Any], k: int) -> list[int]:
    """A greedy choice of valuable candidates that differ.

    The first is the one of highest value; each further one has the highest product of its value and its distance from
    the nearest that is chosen. The distance of two directions is the chord between the lines along them (0 to sqrt(2)):
    which completion of a comparison is the first means nothing.

    Args:
        values: Value of each candidate, above 0, shape (n,); of equal ones the earlier is taken.
        directions: Difference of the features of its two completions, shape (n, hidden).
        k: How many to choose.

    Returns:
        ``min(k, n)`` numbers of candidates, in the order of the choice.

    References:
        Gonzalez 1985, farthest-first traversal for k-centre; as core sets for active learning: Sener & Savarese 2018
        (arXiv:1708.00489). Value and diversity at once: Ash et al. 2020 (arXiv:1906.03671), whose sampling is random.
    """
    if not len(values):
        return []
    lengths = np.linalg.norm(directions, axis=1, keepdims=True)
    lines = (directions / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    nearest = np.full(len(values), np.inf)
    chosen = [int(np.argmax(values))]
    taken = np.zeros(len(values), dtype=bool)
    while True:
        taken[chosen[-1]] = True
        if len(chosen) == min(k, len(values)):
            return chosen
        alike = np.abs(lines @ lines[chosen[-1]])
        nearest = np.minimum(nearest, np.sqrt(np.maximum(2 - 2 * alike, 0)))
        chosen.append(int(np.argmax(np.where(taken, -1.0, values * nearest))))

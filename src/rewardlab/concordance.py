"""How many pairs two rows of numbers order alike, and how many the other way, without looking at each pair.

This file knows numbers alone; whose they are is known by who asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby


def count_concordance(first: Sequence[float], second: Sequence[float]) -> tuple[int, int]:
    """Pairs of places that both rows order alike, and pairs that they order the other way; ties are neither.

    Args:
        first: n finite numbers.
        second: As many.

    Returns:
        Concordant and discordant pairs, counted in n log n steps.

    References:
        Fenwick 1994 (Software: Practice and Experience 24:327), the tree of partial sums.

    Example:
        >>> count_concordance([1, 2, 3], [1, 3, 2])
        (2, 1)
    """
    level = {value: number for number, value in enumerate(sorted(set(second)), start=1)}
    tree = [0] * (len(level) + 1)  # how many of those seen have each level of the second row

    def up_to(place: int) -> int:
        found = 0
        while place:
            found += tree[place]
            place &= place - 1
        return found

    concordant = discordant = seen = 0
    order = sorted(range(len(first)), key=first.__getitem__)
    for _, tied in groupby(order, key=first.__getitem__):
        levels = [level[second[index]] for index in tied]
        for place in levels:
            concordant += up_to(place - 1)
            discordant += seen - up_to(place)
        for place in levels:
            while place < len(tree):
                tree[place] += 1
                place += place & -place
        seen += len(levels)
    return concordant, discordant

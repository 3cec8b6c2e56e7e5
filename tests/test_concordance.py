"""Pairs counted without being looked at, against looking at each."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from rewardlab.concordance import count_concordance

NUMBERS = st.integers(-3, 3) | st.sampled_from([0.5, -1e300, 1e300])


@given(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=30))
def test_the_count_is_that_of_all_pairs(rows: list[tuple[float, float]]) -> None:
    def sign(number: float) -> int:
        return (number > 0) - (number < 0)

    products = [sign(a[0] - b[0]) * sign(a[1] - b[1]) for a, b in combinations(rows, 2)]
    first, second = [row[0] for row in rows], [row[1] for row in rows]
    assert count_concordance(first, second) == (products.count(1), products.count(-1))


def test_a_hundred_thousand_numbers_are_counted() -> None:
    """Five thousand million pairs."""
    size = 100_000
    assert count_concordance(range(size), range(size)) == (size * (size - 1) // 2, 0)

"""Prompts take turns, and the farthest comes first: small cases by hand, and what must hold of any."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardlab.monitoring.diversity import by_turns, farthest_first


@pytest.mark.parametrize(
    ("k", "expected"),
    [
        (1, [0, 3]),  # one of each prompt
        (2, [0, 3]),
        (3, [0, 1, 3, 4]),  # the second of each prompt too: three cannot be had with one of each
        (4, [0, 1, 3, 4]),
        (5, [0, 1, 2, 3, 4]),
        (9, [0, 1, 2, 3, 4]),
    ],
)
def test_prompts_take_turns(k: int, expected: list[int]) -> None:
    values = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    assert by_turns(values, ["p", "p", "p", "q", "q"], k).tolist() == expected


def test_of_a_prompt_the_most_valuable_stay_and_ties_go_by_order() -> None:
    assert by_turns(np.array([0.1, 0.9, 0.5, 0.5]), ["p", "p", "q", "q"], 2).tolist() == [1, 2]
    assert by_turns(np.zeros(0), [], 3).tolist() == []


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 9)), min_size=1, max_size=20), st.integers(1, 25))
def test_enough_stay_and_no_more_of_a_prompt_than_needed(rows: list[tuple[str, int]], k: int) -> None:
    prompts, values = [row[0] for row in rows], np.array([float(row[1]) for row in rows])
    stay = by_turns(values, prompts, k)
    assert len(stay) >= min(k, len(rows))
    counts, most = Counter(prompts), max(Counter(prompts[i] for i in stay).values())
    assert sum(min(most - 1, count) for count in counts.values()) < min(k, len(rows))
    assert (np.diff(values[stay]) <= 0).all()


def test_the_farthest_comes_first_by_hand() -> None:
    """Lines at 0, 5 and 90 degrees: after the first, the second is nearly the same line and the third is not."""
    angles = np.radians([0, 5, 90])
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    assert farthest_first(np.array([0.9, 0.8, 0.7]), directions, 2) == [0, 2]
    assert farthest_first(np.array([0.9, 0.8, 0.7]), directions, 3) == [0, 2, 1]
    # A value so low that no distance makes up for it: sqrt(2) * 0.01 < 2 sin(2.5 degrees) * 0.8.
    assert farthest_first(np.array([0.9, 0.8, 0.01]), directions, 2) == [0, 1]


@given(st.integers(0, 100), st.integers(1, 12))
def test_sides_and_lengths_of_directions_mean_nothing(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    values, directions = rng.uniform(0.1, 1, 10), rng.normal(size=(10, 3))
    chosen = farthest_first(values, directions, k)
    assert chosen == farthest_first(values, directions * rng.choice([-4, 2], size=(10, 1)), k)
    assert len(chosen) == len(set(chosen)) == min(k, 10)
    assert chosen[0] == values.argmax()


def test_equal_and_empty_directions_are_chosen_last_by_order() -> None:
    directions = np.array([[1.0, 0], [1, 0], [-1, 0], [0, 0]])
    assert farthest_first(np.ones(4), directions, 4) == [0, 3, 1, 2]
    assert farthest_first(np.zeros(0), np.zeros((0, 2)), 3) == []

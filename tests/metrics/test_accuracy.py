"""rewardlab.metrics.accuracy: what a win, a tie and a margin are."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardlab.metrics import mean_margin, pairwise_accuracy, score_margins, tie_rate

SCORES = st.floats(-1000, 1000, width=32)
PAIRS = st.lists(st.tuples(SCORES, SCORES), min_size=1, max_size=30)


def test_win_tie_loss() -> None:
    """The margins of (3, 1, 0, 2) against (1, 1, 4, 1.5) are 2, 0, -4, 0.5.

    Wins 2 of 4; ties 1 of 4; mean (2 + 0 - 4 + 0.5) / 4 = -0.375.
    """
    chosen, rejected = [3.0, 1.0, 0.0, 2.0], [1.0, 1.0, 4.0, 1.5]
    assert pairwise_accuracy(chosen, rejected) == 0.5
    assert tie_rate(chosen, rejected) == 0.25
    assert mean_margin(chosen, rejected) == -0.375
    np.testing.assert_array_equal(score_margins(chosen, rejected), [2.0, 0.0, -4.0, 0.5])


def test_a_collapsed_model_has_accuracy_zero() -> None:
    """The silent failure this prevents: one score for everything reads as chance when ties are half a win."""
    assert pairwise_accuracy([7.0] * 5, [7.0] * 5) == 0.0
    assert tie_rate([7.0] * 5, [7.0] * 5) == 1.0


@given(PAIRS)
def test_swapping_sides(pairs: list[tuple[float, float]]) -> None:
    """Each pair is a win one way, a win the other way, or a tie; margins change sign."""
    chosen, rejected = zip(*pairs, strict=True)
    forth, back = pairwise_accuracy(chosen, rejected), pairwise_accuracy(rejected, chosen)
    assert math.isclose(forth + back + tie_rate(chosen, rejected), 1.0)
    assert mean_margin(chosen, rejected) == -mean_margin(rejected, chosen)


@given(PAIRS, st.integers(-(2**20), 2**20))
def test_only_differences_count(pairs: list[tuple[float, float]], shift: int) -> None:
    """Halves are exact in float64 under an integer shift, so the margins must not move at all."""
    chosen, rejected = np.round(2 * np.array(pairs).T) / 2
    np.testing.assert_array_equal(score_margins(chosen + shift, rejected + shift), score_margins(chosen, rejected))


@given(SCORES, SCORES)
def test_the_margin_is_zero_only_for_equal_scores(chosen: float, rejected: float) -> None:
    """Also for neighbouring floats, whose difference is tiny but not zero."""
    assert (pairwise_accuracy([chosen], [rejected]) == 1.0) == (chosen > rejected)
    assert (tie_rate([chosen], [rejected]) == 1.0) == (chosen == rejected)


@pytest.mark.parametrize("metric", [pairwise_accuracy, tie_rate, mean_margin])
@pytest.mark.parametrize(
    ("chosen", "rejected", "said"),
    [
        ([1.0, 2.0], [1.0], "must both have the shape"),
        ([[1.0], [2.0]], [[1.0], [0.0]], "must both have the shape"),
        (3.0, 1.0, "must both have the shape"),
        ([], [], "no pairs"),
        ([1.0, math.nan], [0.0, 0.0], "pair 1 has a score that is not finite: nan"),
        ([1.0, 2.0], [math.inf, 0.0], "pair 0 has a score that is not finite"),
    ],
)
def test_what_cannot_be_compared_is_refused(metric, chosen, rejected, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        metric(chosen, rejected)

"""Members' scores combined, against numpy and by hand."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from rewardlab.errors import ConfigError
from rewardlab.scoring.combining_scores import HOWS, combine, disagreement, normalised

SCORES = arrays.arrays(
    np.float64,
    st.tuples(st.integers(1, 5), st.integers(1, 6)),
    elements=st.floats(-1e3, 1e3, allow_nan=False, allow_subnormal=False),
)


def weights_for(how: str, members: int) -> list[float] | None:
    return [float(number + 1) for number in range(members)] if how == "weighted" else None


def test_by_hand() -> None:
    """Of 1, 2, 6: mean 3, median 2, deviations -2, -1, 3 whose squares are 14, so std (ddof 0) is sqrt(14 / 3)."""
    row = [1.0, 2.0, 6.0]
    std = (14 / 3) ** 0.5
    assert combine(row, "mean") == 3
    assert combine(row, "min") == 1
    assert combine(row, "median") == 2
    assert combine([1.0, 2.0, 6.0, 7.0], "median") == 4
    assert combine(row, "mean-std") == pytest.approx(3 - std, abs=1e-15)
    assert combine(row, "mean-std", k=0.5) == pytest.approx(3 - 0.5 * std, abs=1e-15)
    assert combine(row, "weighted", weights=[2, 1, 1]) == pytest.approx(2.5, abs=1e-15)
    assert disagreement(row) == pytest.approx(std, abs=1e-15)


@given(SCORES)
def test_each_row_is_what_the_standard_library_gives(scores: np.ndarray) -> None:
    for row, *found in zip(
        scores,
        *(combine(scores, how, k=0.7, weights=weights_for(how, scores.shape[1])) for how in HOWS),
        disagreement(scores),
        strict=True,
    ):
        values = [float(value) for value in row]
        mean, std = statistics.fmean(values), statistics.pstdev(values)
        weight = range(1, len(values) + 1)
        weighted = sum(w * v for w, v in zip(weight, values, strict=True)) / sum(weight)
        expected = [mean, min(values), statistics.median(values), mean - 0.7 * std, weighted, std]
        assert found == pytest.approx(expected, abs=1e-10)


@given(SCORES, st.floats(0.1, 10), st.floats(-10, 10), st.integers(0, 2**16))
def test_order_shift_and_unit(scores: np.ndarray, unit: float, shift: float, seed: int) -> None:
    """Members are a set; and (why k multiplies the std, not the variance) a x s + b is combined to a x combined + b."""
    order = np.random.default_rng(seed).permutation(scores.shape[1])
    for how in HOWS:
        weights = weights_for(how, scores.shape[1])
        found = combine(scores, how, weights=weights)
        shuffled = None if weights is None else [weights[number] for number in order]
        assert combine(scores[:, order], how, weights=shuffled) == pytest.approx(found, abs=1e-9)
        moved = combine(unit * scores + shift, how, weights=weights)
        assert moved == pytest.approx(unit * found + shift, abs=1e-7)
    assert disagreement(unit * scores + shift) == pytest.approx(unit * disagreement(scores), abs=1e-7)


@given(SCORES)
def test_caution_only_lowers(scores: np.ndarray) -> None:
    mean = combine(scores, "mean")
    assert (combine(scores, "min") <= mean + 1e-9).all()
    assert (combine(scores, "mean-std", k=2) <= combine(scores, "mean-std", k=1) + 1e-9).all()
    assert combine(scores, "mean-std", k=0) == pytest.approx(mean)
    assert combine(scores, "weighted", weights=[3.0] * scores.shape[1]) == pytest.approx(mean)


def test_one_member_is_itself() -> None:
    for how in HOWS:
        assert combine([[0.3], [-1.7]], how, weights=weights_for(how, 1)).tolist() == [0.3, -1.7]
    assert disagreement([[0.3], [-1.7]]).tolist() == [0, 0]


def test_weights_are_divided_by_their_sum() -> None:
    assert normalised([1, 0, 3]).tolist() == [0.25, 0, 0.75]


@pytest.mark.parametrize(
    ("how", "options", "message"),
    [
        ("max", {}, "no ensemble is combined by 'max'"),
        ("mean-std", {"k": -1.0}, "k must be at least 0, got -1"),
        ("mean-std", {"k": float("nan")}, "k must be at least 0, got nan"),
        ("weighted", {}, "'weighted' needs weights"),
        ("mean", {"weights": [1, 1]}, "weights mean nothing to 'mean'"),
        ("weighted", {"weights": [1, 1, 1]}, "3 weights for 2 members"),
        ("weighted", {"weights": [1, -1]}, "each must be at least 0"),
        ("weighted", {"weights": [1, float("inf")]}, "each must be at least 0"),
        ("weighted", {"weights": [0, 0]}, "one above 0"),
    ],
)
def test_what_cannot_be_combined_is_refused(how: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        combine([[1.0, 2.0]], how, **options)  # type: ignore[arg-type]


def test_no_members_are_refused() -> None:
    with pytest.raises(ConfigError, match="without members"):
        combine(np.empty((3, 0)))

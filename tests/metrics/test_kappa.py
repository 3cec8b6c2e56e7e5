"""Cohen's kappa against scikit-learn and statsmodels, its interval against the analytic standard error."""

from __future__ import annotations

import json
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import cohens_kappa

from rewardlab.metrics.kappa import agreement, cohen_kappa

CHOICES = ("first", "second", "tie")


def prompts(number: int, each: int = 1) -> list[str]:
    return [f"p{i // each}" for i in range(number)]


def test_by_hand() -> None:
    """Of 50, 20 are yes for both and 15 no: observed 35/50 = 0.7, kappa (0.7 - 0.5) / (1 - 0.5) = 0.4.

    By chance: yes 25/50 and 30/50, no 25/50 and 20/50, so 0.5 * 0.6 + 0.5 * 0.4 = 0.5.
    """
    first = ["yes"] * 25 + ["no"] * 25
    second = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    found = agreement(first, second, prompts(50), resamples=200)
    assert found.kappa is not None
    assert (found.observed.value, found.expected, found.kappa.value) == pytest.approx((0.7, 0.5, 0.4))
    assert found.labels == ("no", "yes")
    assert found.confusion == ((15, 10), (5, 20))
    assert found.kappa.low < 0.4 < found.kappa.high
    out = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert out["kappa"]["value"] == found.kappa.value
    assert out["bootstrap"] == {"unit": "prompt", "confidence": 0.95, "resamples": 200, "seed": 0}


@given(st.lists(st.tuples(st.sampled_from(CHOICES), st.sampled_from(CHOICES)), min_size=1, max_size=40))
def test_nominal_equals_scikit_learn(rows: list[tuple[str, str]]) -> None:
    first, second = ([row[rater] for row in rows] for rater in range(2))
    ours = cohen_kappa(first, second)
    if len({*first, *second}) == 1:
        assert ours is None
    else:
        assert ours == pytest.approx(cohen_kappa_score(first, second), abs=1e-12)
        assert ours == pytest.approx(cohen_kappa(second, first), abs=1e-12)


@given(st.lists(st.tuples(st.integers(1, 10), st.integers(1, 10)), min_size=2, max_size=40))
@pytest.mark.parametrize("weights", ["linear", "quadratic"])
def test_weighted_equals_scikit_learn(weights: str, rows: list[tuple[int, int]]) -> None:
    first, second = ([row[rater] for row in rows] for rater in range(2))
    ours = cohen_kappa(first, second, weights=weights)  # type: ignore[arg-type]
    if len({*first, *second}) == 1:
        assert ours is None
    else:
        theirs = cohen_kappa_score(first, second, weights=weights, labels=list(range(1, 11)))
        assert ours == pytest.approx(theirs, abs=1e-12)


def test_value_and_interval_against_statsmodels() -> None:
    """The analytic standard error is asymptotic and counts items as independent; so are these items."""
    generator = np.random.default_rng(0)
    first = generator.integers(0, 3, 600)
    second = np.where(generator.random(600) < 0.7, first, generator.integers(0, 3, 600))
    found = agreement(first.tolist(), second.tolist(), prompts(600))
    theirs = cohens_kappa(np.array(found.confusion))
    assert found.kappa is not None
    assert found.kappa.value == pytest.approx(theirs.kappa, abs=1e-12)
    half = NormalDist().inv_cdf(0.975) * theirs.std_kappa
    assert found.kappa.low == pytest.approx(theirs.kappa - half, abs=0.15 * half)
    assert found.kappa.high == pytest.approx(theirs.kappa + half, abs=0.15 * half)
    weighted = agreement(first.tolist(), second.tolist(), prompts(600), weights="quadratic", resamples=50)
    assert weighted.kappa is not None
    theirs = cohens_kappa(np.array(found.confusion), wt="quadratic")
    assert weighted.kappa.value == pytest.approx(theirs.kappa, abs=1e-12)


def test_items_of_one_prompt_count_as_one() -> None:
    """Each item four times under one prompt: the same kappa and the interval of the items once, not of four times."""
    generator = np.random.default_rng(1)
    first = generator.integers(0, 2, 100).tolist()
    second = [a if generator.random() < 0.8 else 1 - a for a in first]
    once = agreement(first, second, prompts(100))
    again = agreement(np.repeat(first, 4).tolist(), np.repeat(second, 4).tolist(), prompts(400, 4))
    alone = agreement(np.repeat(first, 4).tolist(), np.repeat(second, 4).tolist(), prompts(400))
    widths = [found.kappa.high - found.kappa.low for found in (once, again, alone)]
    assert again.num_prompts == 100
    assert widths[1] == pytest.approx(widths[0], rel=0.1)
    assert widths[2] < 0.6 * widths[0]


def test_one_category_has_agreement_and_no_kappa() -> None:
    found = agreement(["tie"] * 5, ["tie"] * 5, prompts(5), resamples=20)
    assert (found.observed.value, found.expected, found.kappa) == (1.0, 1.0, None)
    assert found.to_dict()["kappa"] is None


def test_too_few_of_a_category_give_a_kappa_without_bounds() -> None:
    """One item in 20 differs: a resample leaves it out with probability 0.95 ** 20 = 36 %, where kappa is undefined."""
    found = agreement(["a"] * 20, ["a"] * 19 + ["b"], prompts(20))
    assert found.kappa is not None
    assert (found.kappa.value, found.kappa.low, found.kappa.high) == (0.0, None, None)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match="2 and 1 items"):
        cohen_kappa(["a", "b"], ["a"])
    with pytest.raises(ValueError, match="no items"):
        cohen_kappa([], [])
    with pytest.raises(ValueError, match="some labels are text"):
        cohen_kappa(["a"], [1])
    with pytest.raises(ValueError, match="expected 'linear' or 'quadratic', for labels that are numbers"):
        cohen_kappa(["a"], ["b"], weights="linear")
    with pytest.raises(ValueError, match="not a finite number"):
        cohen_kappa([1.0], [float("nan")])
    with pytest.raises(ValueError, match="2 items but 1 prompts"):
        agreement([1, 2], [1, 2], ["p"])

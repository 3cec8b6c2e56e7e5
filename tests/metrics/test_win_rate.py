"""Win rates by hand; the length-controlled fit against scikit-learn and statsmodels, and on data of a known truth."""

from __future__ import annotations

import json

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from rewardlab.metrics.probability import sigmoid
from rewardlab.metrics.win_rate import fit_logistic, length_feature, win_rate


def drawn(number: int, advantage: float, of_length: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Hard outcomes of a system that is better by ``advantage``, and how many characters it is longer by."""
    generator = np.random.default_rng(seed)
    longer = generator.normal(80, 120, number).round()
    lengths = np.tanh(longer / longer.std(ddof=1))
    return (generator.random(number) < sigmoid(advantage + of_length * lengths)).astype(float), longer


def measured(preferences, longer, prompts=None, **more):
    longer = np.asarray(longer, dtype=float)
    prompts = prompts or [f"p{i}" for i in range(len(longer))]
    return win_rate(preferences, 500 + longer, np.full(len(longer), 500.0), prompts, **{"resamples": 200, **more})


def test_a_tie_is_half_a_win() -> None:
    """5 wins, 2 ties, 1 loss: (5 + 2/2) / 8 = 0.75."""
    found = measured([1, 1, 1, 1, 1, 0.5, 0.5, 0], np.arange(8))
    assert (found.wins, found.ties, found.losses) == (5, 2, 1)
    assert found.win_rate.value == 0.75
    assert found.length_controlled is None
    assert found.notes == ("no length control: 8 comparisons, fewer than 30",)


def test_probabilities_have_a_rate_of_their_own() -> None:
    found = measured([1, 0.5, 0], np.arange(3), probabilities=[0.9, 0.6, 0.3])
    assert (found.wins, found.win_rate.value) == (1, 0.5)
    assert found.soft_win_rate.value == pytest.approx(0.6)
    assert measured([1, 0], np.arange(2)).soft_win_rate is None
    with pytest.raises(ValueError, match="soft_win_rate: a value is outside"):
        measured([1, 0], np.arange(2), probabilities=[0.5, 1.5])


def test_the_fit_equals_scikit_learn_on_hard_outcomes() -> None:
    chosen, longer = drawn(400, 0.3, 1.2)
    lengths = length_feature(longer)
    theirs = LogisticRegression(C=np.inf, tol=1e-12, max_iter=1000).fit(lengths[:, None], chosen)
    found = measured(chosen, longer)
    assert found.length_coefficient.value == pytest.approx(theirs.coef_[0, 0], abs=1e-6)
    assert found.length_controlled.value == pytest.approx(float(sigmoid(theirs.intercept_)[0]), abs=1e-6)


def test_the_fit_equals_statsmodels_on_soft_targets_with_weights() -> None:
    generator = np.random.default_rng(3)
    features = np.column_stack([np.ones(200), generator.uniform(-1, 1, (200, 1))])
    targets, weights = generator.random(200), generator.integers(0, 4, 200).astype(float)
    theirs = sm.GLM(targets, features, family=sm.families.Binomial(), freq_weights=weights).fit(tol=1e-12)
    assert fit_logistic(features, targets, weights[None])[0] == pytest.approx(theirs.params, abs=1e-8)


def test_length_is_taken_out() -> None:
    """Equal systems, one longer, a judge that likes length: it wins 60 %, and 50 % once length is taken out."""
    chosen, longer = drawn(3000, 0.0, 1.5)
    found = measured(chosen, longer)
    assert found.win_rate.low > 0.55
    assert found.length_controlled.low < 0.5 < found.length_controlled.high
    assert found.length_coefficient.low < 1.5 < found.length_coefficient.high
    assert found.length_coefficient.low > 1


def test_length_that_is_no_help_changes_little() -> None:
    chosen, longer = drawn(3000, 0.7, 0.0, seed=1)
    found = measured(chosen, longer)
    assert found.length_controlled.value == pytest.approx(float(sigmoid(np.array(0.7))), abs=0.03)
    assert found.length_coefficient.low < 0 < found.length_coefficient.high


@given(st.integers(0, 50))
def test_the_other_system_has_the_rest(seed: int) -> None:
    """Exchanging the systems turns p into 1 - p and the length's sign; both rates become their complements."""
    chosen, longer = drawn(60, 0.2, 0.5, seed)
    one, other = measured(chosen, longer, resamples=2), measured(1 - chosen, -longer, resamples=2)
    assert other.win_rate.value == pytest.approx(1 - one.win_rate.value)
    assert other.length_controlled.value == pytest.approx(1 - one.length_controlled.value, abs=1e-9)
    assert other.length_coefficient.value == pytest.approx(one.length_coefficient.value, abs=1e-8)


def test_intervals_are_by_prompt() -> None:
    chosen, longer = drawn(200, 0.3, 1.0)
    once = measured(chosen, longer, resamples=500)
    again = measured(np.repeat(chosen, 3), np.repeat(longer, 3), [f"p{i // 3}" for i in range(600)], resamples=500)
    widths = [found.length_controlled.high - found.length_controlled.low for found in (once, again)]
    assert widths[1] == pytest.approx(widths[0], rel=0.05)
    assert (again.num_comparisons, again.num_prompts) == (600, 200)


@pytest.mark.parametrize(
    ("preferences", "longer", "why"),
    [
        (np.ones(40), np.arange(40), "always the same system"),
        ((np.arange(40) > 20).astype(float), np.arange(40) - 20.5, "length alone"),
        (np.arange(40) % 2, np.full(40, 7), "always the same"),
    ],
)
def test_a_fit_that_has_no_maximum_is_not_given(preferences, longer, why) -> None:
    found = measured(preferences, longer)
    assert (found.length_controlled, found.length_coefficient) == (None, None)
    assert why in found.notes[0]
    out = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert out["length_controlled"] is None


def test_flat_and_separated_fits_are_nan_and_the_others_are_not() -> None:
    features = np.column_stack([np.ones(4), [-1.0, -0.5, 0.5, 1.0]])
    targets = np.array([0.0, 1.0, 0.0, 1.0])
    found = fit_logistic(features, targets, np.array([[1, 1, 1, 1], [1, 0, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0]], float))
    assert np.isfinite(found).all(axis=1).tolist() == [True, False, False, False]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="outside"):
        measured([1.5, 0.0], [1, 2])
    with pytest.raises(ValueError, match=r"shape \(3,\), length differences \(2,\)"):
        measured([1, 0, 1], [1, 2])
    with pytest.raises(ValueError, match="shape"):
        measured([], [])

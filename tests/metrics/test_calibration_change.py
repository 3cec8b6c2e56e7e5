"""rewardlab.metrics.calibration_change: the ECE it watches is the ECE, and what it expects is what resampling gives."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from rewardlab.metrics import expected_calibration_error
from rewardlab.metrics.calibration_change import (
    _folded_normal,
    calibration_bets,
    calibration_moments,
    error_residuals,
    expected_error,
)


def draw(generator, count: int, scale: float = 1.0) -> np.ndarray:
    """Signed margins of a model that states ``scale`` times what is true."""
    margins = np.abs(generator.normal(0, 2, count))
    return scale * np.where(generator.random(count) < 1 / (1 + np.exp(-margins)), margins, -margins)


def moments(margins, temperature: float = 1.0) -> np.ndarray:
    return calibration_moments(
        margins, temperature, [f"prompt {number}" for number in range(len(margins))], [len(margins)]
    )[0]


def test_the_error_is_the_ece() -> None:
    margins = draw(np.random.default_rng(0), 300)
    found = moments(margins, 1.7)
    assert np.abs(found[:-1, 1]).sum() / 300 == pytest.approx(expected_calibration_error(margins, 1.7))
    confidence = 1 / (1 + np.exp(-np.abs(margins) / 1.7))
    assert found[-1, 1] / 300 == pytest.approx((confidence - (margins > 0)).mean())


@pytest.mark.parametrize("mean", [0.0, 0.3, -2.0, 50.0])
def test_folded_normal_is_scipys(mean) -> None:
    first, second, third = _folded_normal(np.array([mean]), np.array([0.49]))
    reference = scipy.stats.foldnorm(abs(mean) / 0.7, scale=0.7)
    _, variance, skewness = reference.stats("mvs")
    assert first[0] == pytest.approx(reference.mean())
    assert second[0] == pytest.approx(variance, rel=1e-6)
    assert third[0] == pytest.approx(skewness * variance**1.5, abs=1e-6)
    assert _folded_normal(np.array([-0.2]), np.array([0.0]))[0][0] == 0.2


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_expected_error_is_that_of_resampled_comparisons(scale) -> None:
    """200 comparisons drawn 2,000 times out of 20,000. Bins with hardly any make it expect a little more, not less."""
    generator = np.random.default_rng(1)
    pool = draw(generator, 20_000, scale)
    errors = [expected_calibration_error(generator.choice(pool, 200)) for _ in range(2000)]
    mean, deviation, skewness = expected_error(moments(pool[:200])[np.newaxis], moments(pool))
    assert 0 <= mean[0] - np.mean(errors) < 0.25 * np.std(errors)
    assert deviation[0] == pytest.approx(np.std(errors), rel=0.06)
    assert skewness[0] == pytest.approx(scipy.stats.skew(errors), abs=0.15)


def test_quiet_residuals_are_standard_normal_or_lower() -> None:
    generator = np.random.default_rng(2)
    windows = np.stack([moments(draw(generator, 200)) for _ in range(800)])
    values = error_residuals(windows, moments(draw(generator, 5000))).values
    assert -0.25 < values.mean() < 0.1
    assert values.std() == pytest.approx(1, abs=0.07)
    assert (values > 2).mean() < 0.035  # 2.3 % of standard normal ones


def test_scaled_margins_move_both_and_hidden_miscalibration_the_error() -> None:
    """Too sure above, not sure enough below: the mean confidence is right, the calibration is not."""
    generator = np.random.default_rng(3)
    baseline = moments(draw(generator, 5000))
    error, overconfidence = calibration_bets(moments(draw(generator, 1000, 3.0))[np.newaxis], baseline, (0.05,))
    assert error.residuals.values[0] > 4
    assert overconfidence.residuals.values[0] > 4
    assert overconfidence.sizes == (0.05, -0.05)
    margins = np.where(np.arange(1000) % 2, 3.0, 0.5)  # states 0.953 and 0.622; 0.795 and 0.78 come true
    right = np.concatenate([np.arange(500) < 390, np.arange(500) < 397])
    hidden = np.where(right, *(sign * np.concatenate([margins[::2], margins[1::2]]) for sign in (1, -1)))
    error, overconfidence = calibration_bets(moments(hidden)[np.newaxis], baseline, (0.05,))
    assert error.residuals.values[0] > 4
    assert abs(overconfidence.residuals.values[0]) < 1


def test_nothing_before_says_nothing() -> None:
    windows = moments(draw(np.random.default_rng(4), 50))[np.newaxis]
    found = error_residuals(windows, None)
    assert found.values.tolist() == [0.0]
    assert found.rates.tolist() == [0.0]
    assert found.levels.tolist() == [0.0]
    assert error_residuals(np.repeat(windows, 2, axis=0), None).levels.tolist() == [0.0, 1.0]

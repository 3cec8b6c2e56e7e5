"""Mahalanobis distance against scipy's and scikit-learn's, and where they have none."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import EmpiricalCovariance

from rewardlab.monitoring import novelty
from rewardlab.monitoring.novelty import KnownTexts

RNG = np.random.default_rng(0)
KNOWN = (RNG.normal(size=(400, 5)) @ RNG.normal(size=(5, 5)) + 3).astype(np.float32)
NEW = (RNG.normal(size=(20, 5)) * 4).astype(np.float32)


def test_distances_are_scipys(monkeypatch: pytest.MonkeyPatch) -> None:
    covariance = np.cov(KNOWN.astype(np.float64).T, ddof=0)
    covariance += novelty.RIDGE * np.trace(covariance) / 5 * np.eye(5)
    mean, inverse = KNOWN.mean(axis=0, dtype=np.float64), np.linalg.inv(covariance)
    expected = [mahalanobis(row, mean, inverse) for row in NEW.astype(np.float64)]
    assert KnownTexts(KNOWN).distances(NEW) == pytest.approx(expected, rel=1e-9)
    monkeypatch.setattr(novelty, "_BLOCK", 7)  # blocks change nothing
    assert KnownTexts(KNOWN).distances(NEW) == pytest.approx(expected, rel=1e-9)


def test_without_the_ridge_they_are_scikit_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(novelty, "RIDGE", 0.0)
    squared = EmpiricalCovariance().fit(KNOWN.astype(np.float64)).mahalanobis(NEW)
    assert KnownTexts(KNOWN).distances(NEW) ** 2 == pytest.approx(squared, rel=1e-6)
    assert np.mean(KnownTexts(KNOWN).distances(KNOWN) ** 2) == pytest.approx(5)


@pytest.mark.parametrize("known", [KNOWN[:1], KNOWN[:3], np.ones((4, 5), dtype=np.float32)])
def test_few_or_equal_texts_have_a_distance_too(known: np.ndarray) -> None:
    far, near = KnownTexts(known).distances(np.stack([known[0] + 100, known[0]]))
    assert np.isfinite([far, near]).all()
    assert far > near + 1


def test_nothing_is_no_reference() -> None:
    with pytest.raises(ValueError, match="shape"):
        KnownTexts(np.zeros((0, 5)))
    assert KnownTexts(KNOWN).distances(np.zeros((0, 5))).shape == (0,)

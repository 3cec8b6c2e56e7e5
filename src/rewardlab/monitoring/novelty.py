"""How far texts lie from those that a model knows, by the model's own features. Numbers only, in blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

RIDGE = 0.01
"""Added to the diagonal, as a share of the mean variance: directions in which the known texts hardly vary would else
count without limit, and fewer texts than dimensions would have no distance at all."""

_BLOCK = 8192  # rows at once in float64


class KnownTexts:
    """Mean and covariance of features, and the Mahalanobis distance from them.

    Args:
        features: Features of known texts, shape (texts, hidden), at least one row.

    References:
        Lee et al. 2018 (arXiv:1807.03888), "A simple unified framework for detecting out-of-distribution samples and
        adversarial attacks": distance from a Gaussian in feature space; here of one class, with a ridge.
    """

    def __init__(self, features: NDArray[Any]) -> None:
        if features.ndim != 2 or not len(features):
            raise ValueError(f"features of known texts must have shape (texts, hidden), got {features.shape}")
        self._mean = features.mean(axis=0, dtype=np.float64)
        covariance = np.zeros((features.shape[1],) * 2)
        for block in _blocks(features):
            centred = block - self._mean
            covariance += centred.T @ centred
        covariance /= len(features)
        variance = float(np.trace(covariance)) / len(covariance)
        covariance[np.diag_indices_from(covariance)] += RIDGE * (variance or 1.0)
        self._factor = np.linalg.cholesky(covariance)

    def distances(self, features: NDArray[Any]) -> NDArray[np.float64]:
        """Mahalanobis distances of some texts, shape (texts,); the known ones have a mean square near ``hidden``.

        Args:
            features: Shape (texts, hidden).
        """
        found = [
            np.linalg.norm(solve_triangular(self._factor, (block - self._mean).T, lower=True), axis=0)
            for block in _blocks(features)
        ]
        return np.concatenate(found) if found else np.zeros(0)


def _blocks(features: NDArray[Any]) -> list[NDArray[np.float64]]:
    return [features[i : i + _BLOCK].astype(np.float64) for i in range(0, len(features), _BLOCK)]

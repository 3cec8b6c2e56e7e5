"""Do two raters agree more than by chance? Cohen's kappa, with intervals by prompt.

Two raters who both say "first" nine times in ten agree on 82 % of the items without looking at any. Kappa is how much
of what chance leaves open they do agree on. Pure numpy in float64; this file knows labels, and not who gave them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rewardlab.metrics.bootstrap import Bootstrapped, FloatArray, Interval, Statistic, bootstrap_by_cluster, mean_of

Label: TypeAlias = str | int | float
Weights: TypeAlias = Literal["linear", "quadratic"]


@dataclass(frozen=True, slots=True)
class Agreement(Bootstrapped):
    """How two raters agree on the same items.

    Attributes:
        num_items: Items that both labelled.
        num_prompts: Clusters that the intervals resample.
        observed: Share of the items with the same label.
        expected: What that share would be by chance: sum over labels of the product of both raters' shares of it.
        kappa: Cohen's kappa, weighted if ``weights`` says so; None where all labels of both are one and the same.
        weights: How far apart two ratings are; None: two labels are the same or not.
        labels: All labels, sorted.
        confusion: Items by the first rater's label (rows) and the second's (columns), in the order of ``labels``.
    """

    num_items: int
    num_prompts: int
    observed: Interval
    expected: float
    kappa: Interval | None
    weights: Weights | None
    labels: tuple[Label, ...]
    confusion: tuple[tuple[int, ...], ...]

    def to_dict(self) -> dict[str, Any]:
        """Numbers, text and None only; intervals as ``{"value", "low", "high"}``."""
        return {
            "num_items": self.num_items,
            "num_prompts": self.num_prompts,
            "observed": self.observed.to_dict(),
            "expected": self.expected,
            "kappa": self.kappa.to_dict() if self.kappa else None,
            "weights": self.weights,
            "labels": list(self.labels),
            "confusion": [list(row) for row in self.confusion],
            "bootstrap": self.bootstrap,
        }


def agreement(
    first: Sequence[Label],
    second: Sequence[Label],
    prompts: Sequence[str],
    *,
    weights: Weights | None = None,
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Agreement:
    """Observed agreement, agreement by chance, and kappa.

    Args:
        first: The first rater's labels, length items: all text, or all numbers.
        second: The second rater's, of the same items.
        prompts: Label of each item's prompt; the intervals are by prompt.
        weights: For ratings: a disagreement counts as the difference of the two numbers (``"linear"``) or as its
            square (``"quadratic"``). None: every disagreement counts the same.
        resamples: Bootstrap resamples behind the intervals.
        seed: Seed of the resamples.
        confidence: Coverage of the intervals, in (0, 1).

    Raises:
        ValueError: No items, lists of different lengths, text among numbers, or weights for labels that are text.

    Relations:
        Equals ``sklearn.metrics.cohen_kappa_score``. Its weights count places in the sorted labels, these the numbers
        themselves, which is the same where every rating of a scale 1, 2, 3, ... is among its ``labels``.

    References:
        Cohen 1960 (Educational and Psychological Measurement 20:37); weighted: Cohen 1968 (Psychological Bulletin
        70:213).
    """
    labels, cells = _cells(first, second, weights)
    if len(prompts) != len(first):
        raise ValueError(f"{len(first)} items but {len(prompts)} prompts")
    same = cells[:, 0] == cells[:, 1]
    kinds, kind_of = np.unique(cells, axis=0, return_inverse=True)
    columns = np.zeros((len(cells), 2 + len(kinds)))
    columns[:, 0], columns[:, 1] = 1, same
    columns[np.arange(len(cells)), 2 + kind_of.reshape(-1)] = 1
    statistic = _kappa_of(kinds, _distances(labels, weights), 2)
    statistics: dict[str, Statistic] = {"observed": mean_of(1)}
    if np.isfinite(statistic(columns.sum(axis=0, keepdims=True))[0]):
        statistics["kappa"] = statistic
    found = bootstrap_by_cluster(
        columns,
        prompts,
        statistics,
        resamples=resamples,
        seed=seed,
        confidence=confidence,
        skip_undefined=True,
    )
    confusion = np.zeros((len(labels), len(labels)), dtype=np.int64)
    np.add.at(confusion, (cells[:, 0], cells[:, 1]), 1)
    expected = float(confusion.sum(axis=1) @ confusion.sum(axis=0)) / len(cells) ** 2
    return Agreement(
        num_items=len(cells),
        num_prompts=len(set(prompts)),
        observed=found["observed"],
        expected=expected,
        kappa=found.get("kappa"),
        weights=weights,
        labels=labels,
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        resamples=resamples,
        seed=seed,
        confidence=confidence,
    )


def cohen_kappa(first: Sequence[Label], second: Sequence[Label], *, weights: Weights | None = None) -> float | None:
    """Kappa alone, see :func:`agreement`; None where all labels of both raters are one and the same.

    Example:
        >>> cohen_kappa(["a", "a", "b", "b"], ["a", "b", "b", "b"])  # (3/4 - 1/2) / (1 - 1/2)
        0.5
    """
    labels, cells = _cells(first, second, weights)
    kinds, counts = np.unique(cells, axis=0, return_counts=True)
    value = float(_kappa_of(kinds, _distances(labels, weights), 0)(counts[None].astype(np.float64))[0])
    return value if np.isfinite(value) else None


def _cells(
    first: Sequence[Label], second: Sequence[Label], weights: Weights | None
) -> tuple[tuple[Label, ...], NDArray[np.intp]]:
    """The labels, sorted, and each item's two as their places in it, shape (items, 2)."""
    if len(first) != len(second):
        raise ValueError(f"the raters labelled {len(first)} and {len(second)} items")
    if not len(first):
        raise ValueError("there are no items that both raters labelled")
    every = {*first, *second}
    are_text = {isinstance(label, str) for label in every}
    if len(are_text) > 1:
        raise ValueError("some labels are text and some are numbers")
    if weights is not None and (weights not in ("linear", "quadratic") or True in are_text):
        raise ValueError(f"weights {weights!r}: expected 'linear' or 'quadratic', for labels that are numbers")
    if False in are_text and not all(np.isfinite(float(label)) for label in every):
        raise ValueError("a label is not a finite number")
    labels = tuple(sorted(every))
    place = {label: number for number, label in enumerate(labels)}
    return labels, np.array([(place[one], place[other]) for one, other in zip(first, second, strict=True)])


def _distances(labels: tuple[Label, ...], weights: Weights | None) -> FloatArray:
    """How far apart two labels are, shape (labels, labels)."""
    if weights is None:
        return 1 - np.eye(len(labels))
    values = np.array([float(label) for label in labels])
    apart: FloatArray = np.abs(values[:, None] - values) ** (1 if weights == "linear" else 2)
    return apart


def _kappa_of(kinds: NDArray[np.intp], distances: FloatArray, start: int) -> Statistic:
    """Kappa as a function of how many items have each kind of labels: ``1 - observed / expected`` disagreement.

    Args:
        kinds: The pairs of labels that occur, shape (kinds, 2).
        distances: Of the labels, shape (labels, labels).
        start: Number of the column that counts the first kind.
    """
    rows, columns = (np.eye(len(distances))[kinds[:, rater]] for rater in range(2))
    apart = distances[kinds[:, 0], kinds[:, 1]]

    def kappa(sums: FloatArray) -> FloatArray:
        counts = sums[:, start:]
        by_chance = np.einsum("dl,lm,dm->d", counts @ rows, distances, counts @ columns, optimize=True)
        observed = (counts @ apart) * counts.sum(axis=1)
        found: FloatArray = 1 - np.divide(observed, by_chance, out=np.full(len(sums), np.nan), where=by_chance > 0)
        return found

    return kappa

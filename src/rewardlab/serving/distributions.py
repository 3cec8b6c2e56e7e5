"""How scores, lengths and disagreements of a server are distributed, for drift: counts on fine, fixed grids.

Prometheus' histograms say the same in a few coarse bins for all models alike; here the bins are narrow and those of
scores lie around the model's own reference set. Counts only grow while one model serves, so any number of readers can
take windows of their own (``rewardlab monitor --live``). No text and no id is kept.
"""

from __future__ import annotations

import uuid
from bisect import bisect_left
from datetime import UTC, datetime
from typing import Any

from rewardlab.metrics.histograms import DISAGREEMENT_GRID, TOKEN_GRID, Histogram, score_grid
from rewardlab.serving.items import Answer, ItemScore, ModelInfo


class _Counts:
    """A histogram that grows."""

    def __init__(self, edges: tuple[float, ...]) -> None:
        self.edges = edges
        self.counts = [0] * (len(edges) + 1)
        self.total = self.squares = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.edges, value)] += 1
        self.total += value
        self.squares += value * value

    def to_dict(self) -> dict[str, Any]:
        return Histogram(self.edges, tuple(self.counts), self.total, self.squares).to_dict()


class Distributions:
    """The counts of the model that serves; another model begins anew."""

    def __init__(self) -> None:
        self._model: ModelInfo | None = None
        self._begin(None)

    def model(self, info: ModelInfo) -> None:
        """This model answers from now on.

        Args:
            info: The model; the one that answered before keeps its counts.
        """
        before, self._model = self._model, info
        if before is None or before.fingerprint != info.fingerprint:
            self._begin(info)

    def scored(self, answer: Answer) -> None:
        """The items of a request were answered; those of a model that serves no more are not counted.

        Args:
            answer: Their results.
        """
        if self._model is None:
            self.model(answer.model)
        if self._model is None or answer.model.fingerprint != self._model.fingerprint:
            return
        for result in answer.results:
            if isinstance(result, ItemScore):
                self._scores.add(result.score)
                self._tokens.add(result.num_tokens)
                if result.disagreement is not None:
                    self._disagreements.add(result.disagreement)

    def to_dict(self) -> dict[str, Any]:
        """What was counted, as JSON values.

        Returns:
            ``id``, another one whenever counting began anew; ``since``, when it did; the model's ``fingerprint``, None
            before one is loaded; and the histograms ``scores`` (raw), ``tokens`` and ``disagreement``.
        """
        return {
            "id": self._id,
            "since": self._since,
            "fingerprint": None if self._model is None else self._model.fingerprint,
            "scores": self._scores.to_dict(),
            "tokens": self._tokens.to_dict(),
            "disagreement": self._disagreements.to_dict(),
        }

    def _begin(self, info: ModelInfo | None) -> None:
        reference = None if info is None else info.reference
        self._id = uuid.uuid4().hex
        self._since = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self._scores = _Counts(score_grid(*(() if reference is None else (reference.mean, reference.std))))
        self._tokens = _Counts(TOKEN_GRID)
        self._disagreements = _Counts(DISAGREEMENT_GRID)

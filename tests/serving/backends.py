"""A backend without a process and without a queue: the real item scorer, called in place."""

from __future__ import annotations

from collections.abc import Sequence

from tests.serving.fixed_backend import FixedBackend

from rewardlab.scoring.scorer import Scorer
from rewardlab.serving.item_scoring import ItemScorer
from rewardlab.serving.items import Item, Result


class InProcessBackend(FixedBackend):
    """Implements :class:`rewardlab.serving.backend.Backend` around a scorer of this process."""

    def __init__(self, scorer: Scorer, name: str = "rm") -> None:
        super().__init__()
        self._scorer = ItemScorer(scorer, name=name, path="in-process")
        self.info = self._scorer.info

    def results_of(self, items: Sequence[Item]) -> tuple[Result, ...]:
        return self._scorer.score(items)[0]

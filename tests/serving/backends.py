"""A backend without a process and without a queue: the real item scorer, called in place."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from rewardlab.scoring.scorer import Scorer
from rewardlab.serving.backend import State
from rewardlab.serving.failures import Unavailable
from rewardlab.serving.item_scoring import ItemScorer
from rewardlab.serving.items import Answer, Item, ModelInfo


class InProcessBackend:
    """Implements :class:`rewardlab.serving.backend.Backend` around a scorer of this process.

    Attributes:
        batches: The items of every call so far.
    """

    def __init__(self, scorer: Scorer, name: str = "rm") -> None:
        self.scorer = ItemScorer(scorer, name=name, path="in-process")
        self.state: State = "ready"
        self.reason = ""
        self.waiting = 0
        self.batches: list[tuple[Item, ...]] = []

    @property
    def model(self) -> ModelInfo | None:
        return None if self.state == "loading" else self.scorer.info

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        self.state = "draining"

    async def score(self, items: Sequence[Item]) -> Answer:
        if self.state != "ready":
            raise Unavailable(f"the model is {self.state}", retry_after=3)
        self.batches.append(tuple(items))
        await asyncio.sleep(0)
        return Answer(self.scorer.score(items)[0], self.scorer.info)

    async def sleep(self, level: int) -> None:
        self.state = "sleeping"

    async def wake_up(self) -> None:
        self.state = "ready"

    async def reload(self, path: str | None) -> ModelInfo:
        return self.scorer.info

"""A backend without a model, for tests of what lies before one: it answers what it is told to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tests.serving.fake_worker import MODEL

from rewardlab.serving.backend import State
from rewardlab.serving.failures import Unavailable
from rewardlab.serving.items import Answer, Item, ItemScore, ModelInfo, Result


class FixedBackend:
    """Implements :class:`rewardlab.serving.backend.Backend` without scoring.

    Args:
        results: The items' results in the order of the items of all calls; by default 0, 1, 2, ... per call.
        failure: Raised by every call of ``score``.
        about: Fields of the model.

    Attributes:
        asked: The items of every call so far that was not refused.
        levels: The levels of every sleep so far.
        reloads: The paths of every reload so far.
    """

    def __init__(self, results: Sequence[Result] = (), failure: Exception | None = None, **about: Any) -> None:
        self.results, self.failure = list(results), failure
        self.info = replace(MODEL, **{"path": "/models/secret-place", "max_length": 128, **about})
        self.state: State = "ready"
        self.reason = ""
        self.started = self.stopped = 0
        self.asked: list[tuple[Item, ...]] = []
        self.levels: list[int] = []
        self.reloads: list[str | None] = []

    @property
    def model(self) -> ModelInfo | None:
        return None if self.state == "loading" else self.info

    async def start(self) -> None:
        self.started += 1

    async def stop(self) -> None:
        self.stopped += 1

    async def score(self, items: Sequence[Item]) -> Answer:
        if self.state != "ready":
            raise Unavailable(f"the model is {self.state}", retry_after=3)
        self.asked.append(tuple(items))
        if self.failure is not None:
            raise self.failure
        return Answer(self.results_of(items), self.info)

    def results_of(self, items: Sequence[Item]) -> tuple[Result, ...]:
        """What it answers; other backends for tests compute it."""
        taken = self.results[: len(items)] or [ItemScore(float(number), 3) for number in range(len(items))]
        del self.results[: len(items)]
        return tuple(taken)

    async def sleep(self, level: int) -> None:
        self.levels.append(level)
        self.state = "sleeping"

    async def wake_up(self) -> None:
        self.state = "ready"

    async def reload(self, path: str | None) -> ModelInfo:
        self.reloads.append(path)
        return self.info

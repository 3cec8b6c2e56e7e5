"""Time that passes only where somebody waits for it."""

from __future__ import annotations

import asyncio

from rewardlab.judge.retrying import Waiting


class FakeTime:
    """A clock that its own sleeps move.

    Args:
        real: Seconds that a wait takes in truth, so that others can come in between.

    Attributes:
        now: Seconds.
        slept: Every wait so far, seconds.
    """

    def __init__(self, real: float = 0.0) -> None:
        self._real = real
        self.now = 1000.0
        self.slept: list[float] = []

    def waiting(self, *, jitter: float = 1.0) -> Waiting:
        """Waits by this clock; the jitter is the share of its ceiling that is drawn."""
        return Waiting(clock=lambda: self.now, sleep=self.sleep, draw=lambda low, high: low + jitter * (high - low))

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        until = self.now + seconds
        await asyncio.sleep(self._real)
        self.now = max(self.now, until)

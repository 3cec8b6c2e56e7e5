"""Calls for one item each, made at the same time from many threads or tasks -> few calls for many items.

A trainer that asks for one reward at a time would leave the model computing one sequence at a time. Items wait a few
milliseconds for others; where a batch fails, each of its items is tried alone, so that one bad item fails alone. This
file knows threads; it knows no rewards.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

from rewardlab.errors import ConfigError

Item = TypeVar("Item")
Result = TypeVar("Result")


class GatheredCalls(Generic[Item, Result]):
    """Brings concurrent calls together.

    Args:
        call: Results of some items, in order; an exception in place of one is that item's own. Where it raises, it is
            called again for each item alone.
        max_wait_ms: How long the first item waits for others.
        max_items: Most items in one call.

    Raises:
        ConfigError: Numbers that mean nothing.
    """

    def __init__(
        self,
        call: Callable[[Sequence[Item]], Sequence[Result | Exception]],
        *,
        max_wait_ms: float = 5.0,
        max_items: int = 256,
    ) -> None:
        if max_wait_ms < 0 or max_items < 1:
            raise ConfigError(f"max_wait_ms must be >= 0 and max_items >= 1, got {max_wait_ms} and {max_items}")
        self._call = call
        self._max_wait = max_wait_ms / 1000
        self._max_items = max_items
        self._waiting: queue.Queue[tuple[Item, Future[Result]]] = queue.Queue()
        self._start = threading.Lock()
        self._worker: threading.Thread | None = None

    def submit(self, item: Item) -> Future[Result]:
        """Have one item computed with others.

        Returns:
            Its result, or its own error, in a future.
        """
        future: Future[Result] = Future()
        self._waiting.put((item, future))
        with self._start:
            if self._worker is None or not self._worker.is_alive():
                self._worker = threading.Thread(target=self._work, name="rewardlab-gathered-calls", daemon=True)
                self._worker.start()
        return future

    def _work(self) -> None:
        while True:
            portion = [self._waiting.get()]
            end = time.monotonic() + self._max_wait
            while len(portion) < self._max_items:
                try:
                    portion.append(self._waiting.get(timeout=max(0.0, end - time.monotonic())))
                except queue.Empty:
                    break
            # One that was cancelled meanwhile (its task ended) is not computed.
            self._answer([(item, future) for item, future in portion if future.set_running_or_notify_cancel()])

    def _answer(self, portion: list[tuple[Item, Future[Result]]]) -> None:
        if not portion:
            return
        try:
            results = self._call([item for item, _ in portion])
        except Exception as error:  # of whatever kind: it belongs to the item that made it, and to no other
            if len(portion) == 1:
                portion[0][1].set_exception(error)
                return
            for one in portion:
                self._answer([one])
            return
        for (_, future), result in zip(portion, results, strict=True):
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)

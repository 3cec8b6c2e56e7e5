"""An event loop in a thread of its own, so that plain functions can wait for coroutines.

A client's connections belong to one loop, so everything that uses one client goes through one :class:`EventLoop`. It
works inside a running loop too (a notebook, a server), where ``asyncio.run`` is refused. It knows no judge.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from concurrent.futures import CancelledError
from types import TracebackType
from typing import Any, Generic, TypeVar

A = TypeVar("A")
T = TypeVar("T")

_PATIENCE_S = 10.0  # for what is cancelled to put its things away


class EventLoop:
    """A running event loop; a context manager that stops it at the end.

    Example:
        >>> async def answer() -> int:
        ...     return 42
        >>> with EventLoop() as loop:
        ...     loop.run(answer())
        42
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="judge", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Wait for a coroutine, and give what it gives.

        An interruption (Ctrl-C) cancels it, and is raised when it has ended.
        """
        ended = threading.Event()

        async def watched() -> T:
            try:
                return await coroutine
            finally:
                ended.set()

        future = asyncio.run_coroutine_threadsafe(watched(), self._loop)
        try:
            return future.result()
        except CancelledError:
            raise
        except BaseException:
            if not future.done():
                future.cancel()
                ended.wait(_PATIENCE_S)
            raise

    def close(self) -> None:
        """Cancel what still runs, and stop."""
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(_cancel_all(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> EventLoop:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Shared(Generic[T]):
    """What several wait for: it is cancelled with the last of them, not with the first.

    Args:
        task: Brings it.
    """

    def __init__(self, task: asyncio.Future[T]) -> None:
        self.task = task
        self._waiting = 0

    async def wait(self) -> T:
        """What it brings."""
        self._waiting += 1
        try:
            return await asyncio.shield(self.task)
        except asyncio.CancelledError:
            if self._waiting == 1:
                self.task.cancel()
                await asyncio.gather(self.task, return_exceptions=True)
            raise
        finally:
            self._waiting -= 1


async def both(first: Coroutine[Any, Any, T], second: Coroutine[Any, Any, T]) -> tuple[T, T]:
    """Two at once; where one fails the other is cancelled, and what failed is raised as it is."""
    tasks = [asyncio.ensure_future(first), asyncio.ensure_future(second)]
    try:
        one, other = await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
    return one, other


async def as_finished(
    ask: Callable[[A], Coroutine[Any, Any, T]], arguments: Iterable[A], limit: int
) -> AsyncGenerator[list[tuple[A, T]], None]:
    """What is said of many things, as it comes, with few of them under way at once however many there are.

    Args:
        ask: Asks about one.
        arguments: What is asked about; taken as there is room.
        limit: Most that are under way at once.

    Yields:
        What has just been finished. Where one fails, the rest is cancelled and its error raised, after what was
        finished with it has been given. Close it (``contextlib.aclosing``) where it may be left early.
    """
    waiting = iter(arguments)
    running: dict[asyncio.Task[T], A] = {}
    try:
        while True:
            while len(running) < limit and (some := next(waiting, _NOTHING)) is not _NOTHING:
                running[asyncio.create_task(ask(some))] = some
            if not running:
                return
            ended, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            given = [(task, running.pop(task)) for task in ended]
            errors = [error for task, _ in given if (error := task.exception()) is not None]
            yield [(some, task.result()) for task, some in given if task.exception() is None]
            for error in errors:
                raise error
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


_NOTHING: Any = object()


async def _cancel_all() -> None:
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()

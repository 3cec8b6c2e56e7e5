"""Coroutines awaited from plain functions; many at once, but few together."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from rewardlab.judge.event_loop import EventLoop, Shared, as_finished, both


async def twice(value: int) -> int:
    await asyncio.sleep(0)
    return 2 * value


def test_a_plain_function_waits_for_a_coroutine_also_inside_a_running_loop() -> None:
    with EventLoop() as loop:
        assert loop.run(twice(21)) == 42

        async def inside() -> int:
            return loop.run(twice(4))

        assert asyncio.run(inside()) == 8
        with pytest.raises(ZeroDivisionError):
            loop.run(fails())


async def fails() -> int:
    raise ZeroDivisionError


def test_closing_cancels_what_still_runs_and_can_be_done_twice() -> None:
    ended = []

    async def forever() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            ended.append(True)

    async def begin() -> asyncio.Task[None]:
        task = asyncio.create_task(forever())
        await asyncio.sleep(0)
        return task

    loop = EventLoop()
    loop.run(begin())
    loop.close()
    loop.close()
    assert ended == [True]


def test_an_interruption_ends_the_coroutine_before_it_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C comes while the main thread waits for the result."""
    import concurrent.futures

    ended = []

    async def forever() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            ended.append(True)

    def interrupted(future: object, timeout: float | None = None) -> None:
        import time

        time.sleep(0.05)
        raise KeyboardInterrupt

    loop = EventLoop()
    with monkeypatch.context() as patch:
        patch.setattr(concurrent.futures.Future, "result", interrupted)
        with pytest.raises(KeyboardInterrupt):
            loop.run(forever())
    assert ended == [True]
    loop.close()


def test_both_give_what_they_give_and_one_failure_cancels_the_other() -> None:
    assert asyncio.run(both(twice(1), twice(2))) == (2, 4)
    cancelled = []

    async def slow() -> int:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise
        return 0

    with pytest.raises(ZeroDivisionError):
        asyncio.run(both(slow(), fails()))
    assert cancelled == [True]


def test_many_are_asked_with_few_under_way_and_none_lost() -> None:
    running, most = 0, 0

    async def one(number: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001 * (number % 3))
        running -= 1
        return number * number

    async def gathered() -> dict[int, int]:
        found: dict[int, int] = {}
        async with aclosing(as_finished(one, range(50), 4)) as batches:
            async for batch in batches:
                found.update(batch)
        return found

    assert asyncio.run(gathered()) == {n: n * n for n in range(50)}
    assert most == 4


def test_a_failure_is_raised_after_what_was_finished_with_it() -> None:
    async def one(number: int) -> int:
        if number == 1:
            raise ZeroDivisionError
        return number

    async def gathered() -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        try:
            async with aclosing(as_finished(one, range(100), 2)) as batches:
                async for batch in batches:
                    found += batch
        except ZeroDivisionError:
            found.append((-1, -1))
        return found

    assert asyncio.run(gathered()) == [(0, 0), (-1, -1)]


@pytest.mark.parametrize("leave", [1, 2])
def test_what_is_shared_ends_with_the_last_who_waits_for_it(leave: int) -> None:
    async def run() -> bool:
        shared = Shared(asyncio.ensure_future(asyncio.sleep(0.05, "done")))
        waiting = [asyncio.ensure_future(shared.wait()) for _ in range(2)]
        await asyncio.sleep(0)
        for one in waiting[:leave]:
            one.cancel()
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert found[leave:] == ["done"] * (2 - leave)
        return shared.task.cancelled()

    assert asyncio.run(run()) == (leave == 2)

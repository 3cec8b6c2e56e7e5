"""Who is refused before it waits, and that who is admitted is answered in time."""

from __future__ import annotations

import asyncio

import pytest
from tests.serving.fake_worker import FakeWorkers
from tests.serving.test_batching import item, numbers, run, serving

from rewardlab.serving.backend import ARRIVED
from rewardlab.serving.batching import BatchingBackend
from rewardlab.serving.failures import DeadlineExceeded, Overloaded, Unavailable
from rewardlab.serving.items import Answer, Conversation, ItemScore
from rewardlab.serving.messages import Done, Work


class LeapingLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock leaps to the next timer when nothing is left to do.

    Hours pass at once, and no other process's load shows in them.
    """

    now = 0.0

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:
            self.now = max(self.now, self._scheduled[0]._when)
        super()._run_once()


def test_a_request_that_came_long_ago_has_less_time_left():
    """Two that come now wait for 0.3 s, and the deadline is 0.5 s: what came 0.3 s ago would come too late."""

    async def test() -> None:
        async with serving(FakeWorkers(batch_s=0.1), deadline_s=0.5, max_wait_ms=0.0) as (backend, _):
            for n in range(3):
                await backend.score([item(n, "p" * 290)])
            others = [asyncio.create_task(backend.score([item(n, f"{n}" * 300)])) for n in range(2)]
            await asyncio.sleep(0)
            arrived = ARRIVED.set(asyncio.get_running_loop().time() - 0.3)
            try:
                with pytest.raises(Overloaded, match="long, and the deadline is"):
                    await backend.score([item(9, "9" * 300)])
            finally:
                ARRIVED.reset(arrived)
            assert numbers(await backend.score([item(9, "9" * 300)])) == [9.0]
            await asyncio.gather(*others)

    run(test())


def test_a_server_that_is_told_to_end_finishes_at_once_what_had_arrived_and_refuses_what_comes():
    """Without the word, the first would wait its 10 s for others. What arrived before may still have to be parsed."""

    async def test() -> None:
        async with serving(FakeWorkers(), max_wait_ms=10_000.0) as (backend, _):
            loop = asyncio.get_running_loop()
            waiting = asyncio.create_task(backend.score([item(1)]))
            await asyncio.sleep(0.02)
            arrived_before = loop.time()
            assert not waiting.done()
            backend.begin_to_end()
            assert numbers(await asyncio.wait_for(waiting, 1)) == [1.0]
            assert backend.state == "draining"
            arrived = ARRIVED.set(arrived_before)
            try:
                assert numbers(await asyncio.wait_for(backend.score([item(2)]), 1)) == [2.0]
            finally:
                ARRIVED.reset(arrived)
            for late in (None, loop.time()):
                arrived = ARRIVED.set(late)
                with pytest.raises(Unavailable, match="the server is ending"):
                    await backend.score([item(3)])
                ARRIVED.reset(arrived)

    run(test())


def test_the_deadline_counts_from_when_the_request_came():
    """It came 0.4 s ago, and the deadline is 0.5 s: it is answered after 0.1 s, not after 0.5 s."""

    async def test() -> None:
        workers = FakeWorkers(on_batch=lambda worker, batch: True)
        async with serving(workers, deadline_s=0.5, drain_s=0.1) as (backend, _):
            loop = asyncio.get_running_loop()
            ARRIVED.set(loop.time() - 0.4)
            begin = loop.time()
            with pytest.raises(DeadlineExceeded):
                await backend.score([item(1)])
            assert 0.05 < loop.time() - begin < 0.35

    run(test())


def shed(backend: BatchingBackend) -> float:
    return backend._metrics._shed._value.get()


def test_a_full_queue_is_told_before_a_request_is_read():
    async def test() -> None:
        workers = FakeWorkers(on_batch=lambda worker, batch: True)
        async with serving(workers, queue_items=4, max_items=4, max_wait_ms=0.0, drain_s=0.1) as (backend, _):
            assert backend.overload(0) is None
            tasks = [asyncio.create_task(backend.score([item(n)])) for n in range(2)]
            await asyncio.sleep(0.01)  # the one is computed, the others wait: 4 more than 2 do not fit
            tasks.append(asyncio.create_task(backend.score([item(n) for n in range(4 - len(backend._queue))])))
            await asyncio.sleep(0.01)
            refusal = backend.overload(3)
            assert refusal is not None
            assert refusal.message == "the queue is full: 4 items wait"
            assert refusal.retry_after >= 1
            assert shed(backend) == 1
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    run(test())


def test_a_queue_too_long_for_the_deadline_is_told_before_a_request_is_read():
    """A batch of 90 tokens takes 0.1 s: 10 of them that wait take 1 s, and the deadline is 0.5 s."""

    async def test() -> None:
        async with serving(FakeWorkers(batch_s=0.1), deadline_s=0.5, max_wait_ms=0.0) as (backend, _):
            for n in range(3):
                await backend.score([item(n, "p" * 290)])
            assert backend.overload(1) is None
            answer = asyncio.create_task(backend.score([item(n, f"{n}" * 300) for n in range(10)]))
            await asyncio.sleep(0.01)
            refusal = backend.overload(2)
            assert refusal is not None
            assert "the deadline is 0.5 s" in refusal.message
            assert shed(backend) == 1
            answer.cancel()
            await asyncio.gather(answer, return_exceptions=True)
            assert backend.overload(1) is None
            assert shed(backend) == 1

    run(test())


def test_too_many_that_are_yet_to_be_read_are_no_more_and_who_waits_is_not_among_them():
    async def test() -> None:
        workers = FakeWorkers(on_batch=lambda worker, batch: True)
        async with serving(workers, max_wait_ms=0.0, drain_s=0.1) as (backend, _):
            assert backend.overload(1024) is None
            refusal = backend.overload(1025)
            assert refusal is not None
            assert refusal.message == "more than 1024 requests are yet to be read"
            waits = asyncio.create_task(backend.score([item(1)]))
            await asyncio.sleep(0.01)
            assert backend.overload(1025) is None
            waits.cancel()
            await asyncio.gather(waits, return_exceptions=True)

    run(test())


def test_asleep_it_is_not_overload_that_refuses():
    async def test() -> None:
        async with serving() as (backend, _):
            await backend.sleep(1)
            assert backend.overload(10_000) is None
            assert shed(backend) == 0
            await backend.wake_up()
            assert backend.overload(10_000) is not None

    run(test())


@pytest.mark.parametrize("prompts", [1, 10_000], ids=["one long prompt", "a prompt each"])
def test_under_overload_nobody_is_admitted_only_to_wait_in_vain(prompts: int):
    """The worker needs 1 ms for 10 tokens and 2 ms for a batch, of 200 tokens at most; it is asked for far more.

    A prompt of 120 tokens is computed in each batch of its completions, of 15 tokens each, of which 5 fit.
    """

    async def test() -> None:
        def compute(worker, batch):
            tokens = 0.3 * sum(map(len, {one.prompt for one in batch.items})) + 15 * len(batch.items)
            loop = asyncio.get_running_loop()
            worker._free_at = max(worker._free_at, loop.time()) + 0.002 + tokens / 10_000
            results = tuple(ItemScore(0.0, 135) for _ in batch.items)
            loop.call_at(worker._free_at, worker.say, Done(batch.number, results, Work(1, 1, 0.1)))
            return True

        workers = FakeWorkers(on_batch=compute, budget=200)
        async with serving(workers, deadline_s=0.8, max_wait_ms=0.0) as (backend, _):
            tasks = []
            for n in range(2000):
                prompt = f"{n % prompts:06}".ljust(400, "p")
                tasks.append(asyncio.create_task(backend.score([Conversation(prompt, "x" * 50)])))
                await asyncio.sleep(0.002)
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            late = sum(isinstance(outcome, DeadlineExceeded) for outcome in outcomes)
            refused = sum(isinstance(outcome, Overloaded) for outcome in outcomes)
            scored = sum(isinstance(outcome, Answer) for outcome in outcomes)
            assert late + refused + scored == 2000
            assert refused > 0
            assert late <= 0.02 * scored
            assert scored >= (800 if prompts == 1 else 240)  # in 4 s: 5 in 21.5 ms, or one in 15.5 ms

    with asyncio.Runner(loop_factory=LeapingLoop) as runner:
        runner.run(test())

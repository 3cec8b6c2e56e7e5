"""The backend: who waits, what goes together, and that every request gets its own answer or one failure, in time."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.serving.fake_worker import FakeWorkers

from rewardlab.serving.batching import BatchingBackend, Throughput
from rewardlab.serving.failures import DeadlineExceeded, Overloaded, RequestRefused, Unavailable
from rewardlab.serving.items import Answer, Conversation
from rewardlab.serving.messages import Alive, WorkerSpec
from rewardlab.serving.metrics import Metrics
from rewardlab.serving.settings import ServerSettings
from rewardlab.serving.worker_process import WorkerProcess

SPEC = WorkerSpec("old")


def item(number: int, prompt: str = "p") -> Conversation:
    return Conversation(prompt, str(number))


def numbers(answer: Answer) -> list[float]:
    return [result.score for result in answer.results]


def run(test: Coroutine[Any, Any, None]) -> None:
    """Run a test in a loop of its own; what an event loop only logs fails it."""
    faults: list[str] = []

    async def watched() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: faults.append(str(context)))
        await asyncio.wait_for(test, 60)

    asyncio.run(watched())
    assert faults == []


@asynccontextmanager
async def serving(
    workers: FakeWorkers | None = None,
    *,
    ready: bool = True,
    backoff_s: Sequence[float] = (0.0,),
    **settings: Any,
) -> AsyncIterator[tuple[BatchingBackend, FakeWorkers]]:
    workers = workers or FakeWorkers()
    chosen = {"max_wait_ms": 1.0, "deadline_s": 5.0, "drain_s": 5.0, **settings}
    backend = BatchingBackend(SPEC, ServerSettings(**chosen), Metrics(), worker_factory=workers, backoff_s=backoff_s)
    await backend.start()
    if ready:
        await backend.wait_ready()
    try:
        yield backend, workers
    finally:
        await backend.stop()
        await asyncio.sleep(0.01)
        assert workers.alive == []


def test_each_request_gets_its_own_scores_in_its_order():
    async def test() -> None:
        async with serving(FakeWorkers(batch_s=0.001)) as (backend, workers):
            requests = [[item(100 * n + k, f"prompt {n % 7}") for k in range(1 + n % 5)] for n in range(100)]
            answers = await asyncio.gather(*(backend.score(request) for request in requests))
            for request, answer in zip(requests, answers, strict=True):
                assert numbers(answer) == [float(one.completion) for one in request]
            assert len(workers.made[0].batches) < 100
            assert len(backend._queue) == 0

    run(test())


def test_what_comes_within_the_wait_goes_in_one_batch():
    async def test() -> None:
        async with serving(max_wait_ms=30.0) as (backend, workers):
            first = asyncio.create_task(backend.score([item(1)]))
            await asyncio.sleep(0.005)
            second = asyncio.create_task(backend.score([item(2)]))
            start = time.monotonic()
            await asyncio.gather(first, second)
            assert 0.005 < time.monotonic() - start < 1.0
            assert [len(batch.items) for batch in workers.made[0].batches] == [2]

    run(test())


def test_a_whole_budget_does_not_wait():
    async def test() -> None:
        async with serving(max_wait_ms=10_000.0) as (backend, workers):
            await asyncio.wait_for(backend.score([item(n, "p" * 330) for n in range(3)]), 2)
            assert sum(len(batch.items) for batch in workers.made[0].batches) == 3

    run(test())


def test_one_batch_is_sent_ahead_and_only_when_a_whole_budget_waits():
    async def test() -> None:
        async with serving(FakeWorkers(batch_s=0.1), max_wait_ms=0.0) as (backend, workers):
            tasks = [asyncio.create_task(backend.score([item(1)]))]
            await asyncio.sleep(0.02)
            tasks.append(asyncio.create_task(backend.score([item(2)])))
            await asyncio.sleep(0.02)
            (worker,) = workers.made
            assert [len(batch.items) for batch in worker.batches] == [1]
            tasks += [asyncio.create_task(backend.score([item(n, f"{n}" * 200)])) for n in range(3, 9)]
            await asyncio.sleep(0.02)
            assert len(worker.batches) == 2
            assert len(backend._queue) > 0
            answers = await asyncio.gather(*tasks)
            assert [numbers(answer) for answer in answers] == [[float(n)] for n in range(1, 9)]

    run(test())


def test_a_full_queue_refuses_at_once():
    async def test() -> None:
        async with serving(FakeWorkers(batch_s=0.3), queue_items=4, max_items=4, max_wait_ms=0.0) as (backend, _):
            computed = asyncio.create_task(backend.score([item(0)]))
            await asyncio.sleep(0.01)
            waits = asyncio.create_task(backend.score([item(n) for n in range(3)]))
            await asyncio.sleep(0.01)
            with pytest.raises(Overloaded, match="2 items do not fit the queue: 3 of 4 wait") as caught:
                await backend.score([item(1), item(2)])
            assert caught.value.retry_after >= 1
            assert len((await computed).results) == 1
            assert len((await waits).results) == 3

    run(test())


def test_a_queue_longer_than_the_deadline_refuses_at_once_and_says_how_long_it_is():
    """100 tokens take 0.1 s, hence 1000 a second: 20 requests of 91 would take 1.8 s, and 5 of them 0.5 s."""

    async def test() -> None:
        async with serving(FakeWorkers(batch_s=0.1), deadline_s=0.5, max_wait_ms=0.0) as (backend, _):
            big = "p" * 290
            for n in range(3):
                await backend.score([item(n, big)])
            start = time.monotonic()
            outcomes = await asyncio.gather(
                *(backend.score([item(n, f"{n:03}" * 100)]) for n in range(20)), return_exceptions=True
            )
            refused = [outcome for outcome in outcomes if isinstance(outcome, Overloaded)]
            scored = [outcome for outcome in outcomes if isinstance(outcome, Answer)]
            assert len(refused) + len(scored) == 20
            assert 2 <= len(scored) <= 5
            assert time.monotonic() - start < 1.0
            assert all(1 <= outcome.retry_after <= 60 for outcome in refused)

    run(test())


def test_throughput_weighs_new_batches_more():
    """After 100 tokens in 1 s and 300 in 1 s: (0.8 * 100 + 300) / 1.8 = 211 tokens a second."""
    throughput = Throughput()
    assert throughput.seconds_for(100) is None
    throughput.add(100, 1.0)
    assert throughput.seconds_for(50) == pytest.approx(0.5)
    throughput.add(300, 1.0)
    assert throughput.seconds_for(380) == pytest.approx(1.8)


def test_a_worker_that_was_slow_once_is_not_thought_slow_for_ever():
    """A first batch of 100 tokens takes 0.5 s; the many small ones after it, a millisecond each, correct that."""

    async def test() -> None:
        async with serving(FakeWorkers(batch_s=0.5), deadline_s=2.0, max_wait_ms=0.0) as (backend, workers):
            await backend.score([item(1, "p" * 320)])
            slow = backend._throughput.seconds_for(1000)
            workers.batch_s = 0.001
            for n in range(20):
                await backend.score([item(n, "p" * 30)])
            assert backend._throughput.seconds_for(1000) < slow / 2

    run(test())


def test_the_deadline_holds_for_what_waits_and_for_what_is_computed():
    async def test() -> None:
        workers = FakeWorkers(on_batch=lambda worker, batch: True)
        async with serving(workers, deadline_s=0.1, max_wait_ms=0.0, drain_s=0.1) as (backend, _):
            computed = asyncio.create_task(backend.score([item(1)]))
            await asyncio.sleep(0.01)
            waits = asyncio.create_task(backend.score([item(2)]))
            start = time.monotonic()
            for task in (computed, waits):
                with pytest.raises(DeadlineExceeded, match=r"0\.1 s"):
                    await task
            assert time.monotonic() - start < 1.0
            assert len(backend._queue) == 0
            assert [[one.completion for one in batch.items] for batch in workers.made[0].batches] == [["1"]]

    run(test())


def test_who_goes_away_takes_back_what_waits_and_what_is_computed_is_forgotten():
    async def test() -> None:
        held = []

        def hold(worker, batch):
            held.append(batch)
            return len(held) <= 2

        async with serving(FakeWorkers(on_batch=hold), max_wait_ms=0.0) as (backend, workers):
            computed = asyncio.create_task(backend.score([item(1)]))
            await asyncio.sleep(0.01)
            gone = [asyncio.create_task(backend.score([item(n), item(n)])) for n in range(2, 1002)]
            stays = asyncio.create_task(backend.score([item(7)]))
            await asyncio.sleep(0.01)
            for task in [computed, *gone]:
                task.cancel()
            await asyncio.gather(computed, *gone, return_exceptions=True)
            assert len(backend._queue) == 1
            for batch in held:
                workers.made[0].answer(batch)
            assert numbers(await stays) == [7.0]
            # One was being computed, one sent ahead: nothing else of those who went was.
            assert [len(batch.items) for batch in held] == [1, len(held[1].items), 1]

    run(test())


def test_a_worker_that_dies_fails_what_it_computed_and_the_next_one_serves_the_rest():
    async def test() -> None:
        async with serving(FakeWorkers(batch_s=0.05), max_wait_ms=0.0) as (backend, workers):
            computed = asyncio.create_task(backend.score([item(1)]))
            await asyncio.sleep(0.01)
            waits = asyncio.create_task(backend.score([item(2)]))
            await asyncio.sleep(0.01)
            workers.made[0].die()
            with pytest.raises(Unavailable, match="killed by SIGKILL") as caught:
                await computed
            assert caught.value.retry_after == 1
            assert numbers(await waits) == [2.0]
            assert len(workers.made) == 2
            assert backend.state == "ready"
            assert b'rewardlab_worker_restarts_total{reason="died"} 1.0' in backend._metrics.render()

    run(test())


def test_a_worker_that_says_nothing_is_killed_and_one_that_is_slow_is_not():
    async def test() -> None:
        def hang(worker, batch):
            if batch.items[0].completion == "1":
                return True
            loop = asyncio.get_running_loop()
            for beat in range(8):  # slow, but heard
                loop.call_later(0.05 * beat, worker.say, Alive())
            loop.call_later(0.4, worker.answer, batch)
            return True

        async with serving(FakeWorkers(on_batch=hang), stall_s=0.15, max_wait_ms=0.0) as (backend, workers):
            with pytest.raises(Unavailable, match=r"nothing was heard of it for 0\.15 s"):
                await backend.score([item(1)])
            assert numbers(await backend.score([item(2)])) == [2.0]
            assert len(workers.made) == 2
            assert b'rewardlab_worker_restarts_total{reason="stalled"} 1.0' in backend._metrics.render()

    run(test())


def test_what_comes_while_the_first_model_loads_waits_for_it():
    async def test() -> None:
        async with serving(FakeWorkers(load_s=0.1), ready=False) as (backend, _):
            assert (backend.state, backend.model) == ("loading", None)
            assert numbers(await backend.score([item(1)])) == [1.0]
            assert backend.state == "ready"

    run(test())


def test_asleep_everything_is_refused_at_once_and_what_waited_too():
    async def test() -> None:
        async with serving(FakeWorkers(batch_s=0.1), max_wait_ms=0.0) as (backend, _):
            computed = asyncio.create_task(backend.score([item(1)]))
            await asyncio.sleep(0.01)
            waits = asyncio.create_task(backend.score([item(2)]))
            await asyncio.sleep(0.01)
            asleep = asyncio.create_task(backend.sleep(1))
            with pytest.raises(Unavailable, match="sleeps"):
                await waits
            assert not computed.done()
            assert numbers(await computed) == [1.0]
            await asleep
            with pytest.raises(Unavailable, match="sleeps"):
                await backend.score([item(3)])
            await backend.wake_up()
            assert numbers(await backend.score([item(3)])) == [3.0]

    run(test())


def test_a_change_of_model_never_mixes_two_models_in_one_answer():
    """A request of 6 items, one to a batch: it is half done when the model changes, and all of it is done anew."""

    async def test() -> None:
        async with serving(FakeWorkers(batch_s=0.05), max_wait_ms=0.0) as (backend, workers):
            request = [item(n, f"{n}" * 400) for n in range(6)]
            answer = asyncio.create_task(backend.score(request))
            late = asyncio.create_task(backend.score([item(9)]))
            await asyncio.sleep(0.07)
            assert (await backend.reload("new")).path == "new"
            assert numbers(await answer) == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
            assert (await answer).model.path == "new"
            assert numbers(await late) == [9.0]
            old, new = workers.made
            assert 0 < len(old.batches) < 6
            assert len([one for batch in new.batches for one in batch.items]) >= 6
            await asyncio.sleep(0.2)
            assert old.is_dead

    run(test())


def test_the_end_finishes_what_was_accepted_and_refuses_the_rest():
    async def test() -> None:
        async with serving(FakeWorkers(batch_s=0.05), max_wait_ms=10_000.0) as (backend, _):
            tasks = [asyncio.create_task(backend.score([item(n)])) for n in range(5)]
            await asyncio.sleep(0.01)
            end = asyncio.create_task(backend.stop())
            await asyncio.sleep(0)
            assert backend.state == "draining"
            with pytest.raises(Unavailable, match="ending"):
                await backend.score([item(9)])
            assert [numbers(await task) for task in tasks] == [[float(n)] for n in range(5)]
            await asyncio.wait_for(end, 2)

    run(test())


def test_the_end_comes_even_when_the_worker_hangs():
    async def test() -> None:
        workers = FakeWorkers(on_batch=lambda worker, batch: True)
        async with serving(workers, drain_s=0.1, max_wait_ms=0.0) as (backend, _):
            computed = asyncio.create_task(backend.score([item(1)]))
            await asyncio.sleep(0.01)
            waits = asyncio.create_task(backend.score([item(2)]))
            await asyncio.sleep(0.01)
            await backend.stop()
            for task in (computed, waits):
                with pytest.raises(Unavailable):
                    await task

    run(test())


def test_a_worker_that_fails_too_often_answers_what_waits():
    async def test() -> None:
        async with serving(FakeWorkers(load=["ok", "die"])) as (backend, workers):
            workers.made[0].die()
            await asyncio.sleep(0)
            with pytest.raises(Unavailable, match="cannot be served any more; the server's log says why"):
                await backend.score([item(1)])
            assert backend.state == "failed"
            with pytest.raises(Unavailable):
                await backend.score([item(1)])

    run(test())


def test_a_thousand_requests_at_once_are_admitted_and_answered_quickly():
    async def test() -> None:
        async with serving(FakeWorkers(budget=2000)) as (backend, _):
            start = time.process_time()
            answers = await asyncio.gather(*(backend.score([item(n, f"{n % 50}")]) for n in range(4000)))
            assert time.process_time() - start < 15  # some 0.5 s; each looking through all others, minutes
            assert [numbers(answer) for answer in answers] == [[float(n)] for n in range(4000)]

    run(test())


def test_a_killed_and_a_hung_process_cost_only_what_they_computed(monkeypatch: pytest.MonkeyPatch):
    """Real processes, sockets and signals, without torch; tests/serving/test_faults.py has the whole server's."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))

    async def test() -> None:
        backend = BatchingBackend(
            SPEC,
            ServerSettings(stall_s=2.0, max_wait_ms=0.0),
            Metrics(),
            worker_factory=partial(WorkerProcess, module="tiny_worker"),
        )
        await backend.start()
        await backend.wait_ready()
        pids = set()
        try:
            for fault, said in (("DIE", "killed by SIGKILL"), ("HANG", "nothing was heard")):
                assert numbers(await backend.score([item(1)])) == [1.0]
                pids.add(backend._supervisor.worker._process.pid)
                computed = asyncio.create_task(backend.score([Conversation(fault, "1")]))
                await asyncio.sleep(0.01)
                waits = asyncio.create_task(backend.score([item(2)]))
                with pytest.raises(Unavailable, match=said):
                    await computed
                assert numbers(await waits) == [2.0]
            pids.add(backend._supervisor.worker._process.pid)
            with pytest.raises(RequestRefused, match="'broken' is not taken") as caught:
                await backend.reload("broken")
            assert caught.value.status == 409
            assert (await backend.reload("new")).path == "new"
            pids.add(backend._supervisor.worker._process.pid)
            await backend.sleep(2)
            await backend.wake_up()
            assert numbers(await backend.score([item(3)])) == [3.0]
            pids.add(backend._supervisor.worker._process.pid)
        finally:
            await backend.stop()
        assert len(pids) == 5
        for pid in pids:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)

    run(test())


@pytest.mark.slow
def test_the_real_worker_gives_the_scorers_numbers_through_every_change(reward_model: Path):
    """Loaded, asleep and awake on both levels, reloaded under load, killed while asleep: the same scores each time."""
    from rewardlab.scoring.scorer import Scorer

    direct = Scorer.from_pretrained(reward_model).score(["What is 2 + 2?"] * 2, ["4", "a fish"])
    request = [Conversation("What is 2 + 2?", completion) for completion in ("4", "a fish")]

    async def test() -> None:
        backend = BatchingBackend(WorkerSpec(str(reward_model)), ServerSettings(), Metrics())

        async def still_right() -> None:
            assert numbers(await backend.score(request)) == pytest.approx(direct, abs=1e-5)

        async def load() -> None:
            while True:
                await still_right()

        await backend.start()
        await backend.wait_ready()
        try:
            await still_right()
            client = asyncio.create_task(load())
            await backend.reload(None)
            await asyncio.sleep(0.2)
            assert not client.done()
            client.cancel()
            await asyncio.gather(client, return_exceptions=True)
            for level in (1, 2):
                await backend.sleep(level)
                await backend.wake_up()
                await still_right()
            await backend.sleep(1)
            os.kill(backend._supervisor._worker._process.pid, signal.SIGKILL)
            await asyncio.sleep(0.5)
            assert backend.state == "sleeping"
            await backend.wake_up()
            await still_right()
        finally:
            await backend.stop()

    asyncio.run(test())

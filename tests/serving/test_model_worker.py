"""One worker as the loop sees it: ready, idle, stalled, asked, ended; and whatever it says out of turn."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from tests.serving.fake_worker import FakeWorker, FakeWorkers, batch_of

from rewardlab.errors import CheckpointError, ConfigError, RewardLabError
from rewardlab.serving.messages import Alive, Done, Sleep, Stop, WakeUp, Work, WorkerSpec
from rewardlab.serving.model_worker import Ended, ModelWorker, SentBatch


class Told:
    """Who is told what became of a worker."""

    def __init__(self) -> None:
        self.done: list[int] = []
        self.ended: list[Ended | None] = []

    def batch(self, worker: ModelWorker, batch: SentBatch, done: Done) -> None:
        self.done.append(done.number)

    def end(self, worker: ModelWorker) -> None:
        self.ended.append(worker.ended)


def run(
    test: Callable[[ModelWorker, FakeWorker, Told], Awaitable[None]],
    workers: FakeWorkers | None = None,
    stall_s: float = 5.0,
) -> None:
    async def started() -> None:
        told, made = Told(), workers or FakeWorkers()
        worker = ModelWorker(WorkerSpec("old"), stall_s, made, told.batch, told.end)
        await test(worker, made.made[0], told)
        await worker.stop()
        assert made.made[0].is_dead
        assert len(told.ended) == 1

    asyncio.run(asyncio.wait_for(started(), 20))


def test_loaded_it_computes_and_is_idle_again():
    async def test(worker: ModelWorker, process: FakeWorker, told: Told) -> None:
        assert await worker.until_loaded(1.0) is None
        assert worker.model.path == "old"
        worker.send(0, batch_of(2))
        worker.send(1, batch_of(1))
        assert sorted(worker.in_flight) == [0, 1]
        await worker.until_idle()
        assert told.done == [0, 1]
        assert worker.in_flight == {}
        assert worker.ended is None

    run(test)


@pytest.mark.parametrize(
    ("load", "cause", "said", "error", "refused"),
    [
        ("refuse", "load_failed", "old is broken", CheckpointError, True),
        ("misuse", "load_failed", "there is no beta", ConfigError, True),
        ("die", "died", "it was killed by SIGKILL", RewardLabError, False),
        ("hang", "load_failed", r"the model was not loaded within 0\.05 s", RewardLabError, False),
    ],
)
def test_what_is_not_loaded_has_ended_and_says_why(load, cause, said, error, refused):
    async def test(worker: ModelWorker, process: FakeWorker, told: Told) -> None:
        ended = await worker.until_loaded(0.05)
        assert ended is not None
        assert (ended.cause, ended.refused) == (cause, refused)
        assert type(ended.error) is error
        with pytest.raises(error, match=said):
            raise ended.error
        assert process.is_dead

    run(test, FakeWorkers(load=[load]))


def test_who_no_longer_waits_for_a_load_kills_it():
    async def test(worker: ModelWorker, process: FakeWorker, told: Told) -> None:
        task = asyncio.create_task(worker.until_loaded(10.0))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert process.is_dead

    run(test, FakeWorkers(load=["hang"]))


def test_silence_while_it_computes_kills_it_and_silence_while_it_does_not_is_rest():
    async def test(worker: ModelWorker, process: FakeWorker, told: Told) -> None:
        await worker.until_loaded(1.0)
        await asyncio.sleep(0.15)
        assert not process.is_dead
        worker.send(0, batch_of(1))
        for _ in range(6):  # 0.18 s, but never 0.1 s without a word
            await asyncio.sleep(0.03)
            process.say(Alive())
        assert not process.is_dead
        await asyncio.sleep(0.2)
        assert [ended.cause for ended in told.ended] == ["stalled"]
        assert list(worker.in_flight) == [0]
        await worker.until_idle()  # or who waits for it would wait for ever

    run(test, FakeWorkers(on_batch=lambda process, batch: True), stall_s=0.1)


def test_it_sleeps_and_wakes_when_it_says_so_and_not_when_it_dies():
    async def test(worker: ModelWorker, process: FakeWorker, told: Told) -> None:
        await worker.until_loaded(1.0)
        assert await worker.ask(Sleep())
        assert await worker.ask(WakeUp())
        process.is_deaf = True
        assert not await worker.ask(Sleep())
        assert [ended.cause for ended in told.ended] == ["stalled"]
        assert not await worker.ask(Sleep())

    run(test, stall_s=0.1)


@pytest.mark.parametrize(
    "said",
    [Done(5, (), Work(0, 0, 0.0)), Done(0, (), Work(0, 0, 0.0)), "hello"],
    ids=["another batch", "too few results", "no message"],
)
def test_a_worker_that_says_what_it_was_not_asked_is_not_believed(said):
    async def test(worker: ModelWorker, process: FakeWorker, told: Told) -> None:
        await worker.until_loaded(1.0)
        worker.send(0, batch_of(1))
        process.say(said)
        await asyncio.sleep(0.02)
        assert process.is_dead
        assert told.done == []
        assert list(worker.in_flight) == [0]

    run(test, FakeWorkers(on_batch=lambda process, batch: True))


def test_one_that_is_told_to_end_does_and_one_that_does_not_obey_is_killed(monkeypatch):
    monkeypatch.setattr("rewardlab.serving.model_worker._STOP_SECONDS", 0.05)

    async def obeys(worker: ModelWorker, process: FakeWorker, told: Told) -> None:
        await worker.until_loaded(1.0)
        await worker.stop()
        assert process.got == [Stop()]

    async def does_not(worker: ModelWorker, process: FakeWorker, told: Told) -> None:
        await worker.until_loaded(1.0)
        process.is_deaf = True
        await worker.stop()
        assert process.is_dead

    run(obeys)
    run(does_not)

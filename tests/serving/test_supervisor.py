"""The supervisor: restarts with backoff, gives up, sleeps on two levels, reloads, ends, and leaves no process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from tests.serving.fake_worker import FakeWorker, FakeWorkers, batch_of

from rewardlab.errors import CheckpointError, RewardLabError
from rewardlab.serving.failures import RequestRefused, Unavailable
from rewardlab.serving.messages import Done, Sleep, WakeUp, WorkerSpec
from rewardlab.serving.metrics import Metrics
from rewardlab.serving.model_worker import ModelWorker, SentBatch
from rewardlab.serving.settings import ServerSettings
from rewardlab.serving.supervisor import MOST_DEATHS, Supervisor


class User:
    """Records what it is told."""

    def __init__(self) -> None:
        self.ready = 0
        self.done = 0
        self.lost: list[str] = []
        self.refused: list[str] = []

    def worker_is_ready(self) -> None:
        self.ready += 1

    def batch_is_done(self, worker: ModelWorker, batch: SentBatch, done: Done) -> None:
        self.done += 1

    def batches_are_lost(self, batches: Sequence[SentBatch], failure: Unavailable) -> None:
        self.lost.append(failure.message)

    def nothing_is_served(self, failure: Unavailable) -> None:
        self.refused.append(failure.message)


def run(
    test: Callable[[Supervisor, FakeWorkers, User], Awaitable[None]],
    workers: FakeWorkers | None = None,
    *,
    backoff_s: Sequence[float] = (0.0,),
    ready: bool = True,
    **settings: Any,
) -> None:
    """Run a test on a started supervisor; afterwards no process lives, and the loop has nothing to complain of."""
    faults: list[str] = []

    async def started() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(str(context)))
        made, user = workers or FakeWorkers(), User()
        supervisor = Supervisor(
            WorkerSpec("old"), ServerSettings(**settings), Metrics(), user, factory=made, backoff_s=backoff_s
        )
        supervisor.start()
        if ready:
            await supervisor.wait_ready()
        await test(supervisor, made, user)
        await supervisor.stop()
        assert made.alive == []
        assert supervisor._background == set()

    asyncio.run(asyncio.wait_for(started(), 15))
    assert faults == []


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.002)


def test_loading_then_ready():
    async def test(supervisor: Supervisor, workers: FakeWorkers, user: User) -> None:
        assert (supervisor.state, supervisor.worker, supervisor.model) == ("loading", None, None)
        assert supervisor.reason
        await supervisor.wait_ready()
        assert (supervisor.state, supervisor.reason, user.ready) == ("ready", "", 1)
        assert supervisor.model is not None
        assert supervisor.model.path == "old"

    run(test, ready=False)


@pytest.mark.parametrize(("load", "kind"), [("refuse", CheckpointError), ("die", RewardLabError)])
def test_a_first_load_that_fails_is_not_tried_again(load, kind):
    async def test(supervisor: Supervisor, workers: FakeWorkers, user: User) -> None:
        with pytest.raises(kind) as caught:
            await supervisor.wait_ready()
        assert supervisor.load_error is caught.value
        assert supervisor.state == "failed"
        assert supervisor.reason == "the model cannot be loaded; the server's log says why"  # no path for strangers
        assert user.refused == [supervisor.reason]
        assert len(workers.made) == 1

    run(test, FakeWorkers(load=[load]), ready=False)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(11, "Resource temporarily unavailable"), "could not be started"),
        (RuntimeError("can't start new thread"), "could not be started: can't start new thread"),
        (ValueError("what nobody thought of"), "loading the model raised ValueError"),
    ],
)
def test_a_worker_that_cannot_be_started_at_all_is_a_first_load_that_fails(error, said):
    async def test() -> None:
        def factory(*_: object) -> Any:
            raise error

        supervisor = Supervisor(WorkerSpec("old"), ServerSettings(), Metrics(), User(), factory=factory)
        supervisor.start()
        with pytest.raises(RewardLabError, match=said):
            await supervisor.wait_ready()
        assert supervisor.state == "failed"
        await supervisor.stop()

    asyncio.run(test())


def test_a_restart_that_finds_no_thread_is_tried_again():
    class Scarce(FakeWorkers):
        refusals = 2

        def __call__(self, *arguments: Any) -> FakeWorker:
            if self.made and self.refusals:
                self.refusals -= 1
                raise RuntimeError("can't start new thread")
            return super().__call__(*arguments)

    async def test(supervisor: Supervisor, workers: FakeWorkers, user: User) -> None:
        workers.made[0].die()
        await until(lambda: user.ready == 2)
        assert supervisor.state == "ready"

    run(test, Scarce())


def test_a_worker_that_was_killed_and_does_not_go_gets_no_more_batches():
    """A process that the kernel holds, in a driver's call, outlives SIGKILL."""

    async def test(supervisor: Supervisor, workers: FakeWorkers, user: User) -> None:
        held = workers.made[0]
        held.kill = lambda: None
        assert supervisor.worker is not None
        supervisor.worker.send(0, batch_of(1))
        await until(lambda: supervisor.state == "restarting")
        assert (supervisor.worker, supervisor.reason) == (None, "the worker is started again")
        assert not held.is_dead
        held.die()
        await until(lambda: supervisor.state == "ready")
        assert len(workers.made) == 2

    run(test, FakeWorkers(on_batch=lambda worker, batch: True), stall_s=0.05)


def test_a_worker_that_never_goes_does_not_hold_up_the_end(monkeypatch):
    """It stalled, and a reload took over; what waits for it to be idle is given up."""

    async def test(supervisor: Supervisor, workers: FakeWorkers, user: User) -> None:
        for module in ("model_worker._STOP_SECONDS", "supervisor.STOP_SECONDS"):
            monkeypatch.setattr(f"rewardlab.serving.{module}", 0.05)
        held = workers.made[0]
        held.kill = lambda: None
        assert supervisor.worker is not None
        supervisor.worker.send(0, batch_of(1))
        await until(lambda: supervisor.state == "restarting")
        held.is_deaf = True
        await supervisor.reload("new")
        assert supervisor.state == "ready"
        await asyncio.wait_for(supervisor.stop(), 2)
        held.die()
        await until(lambda: not supervisor._background)

    run(test, FakeWorkers(on_batch=lambda worker, batch: True), stall_s=0.05)


def test_an_operation_that_fails_is_logged_only_when_nobody_hears_it(caplog):
    async def test(supervisor: Supervisor, workers: FakeWorkers, user: User) -> None:
        with pytest.raises(RequestRefused):
            await supervisor.reload("new")
        assert "new is broken" not in caplog.text
        unheard = asyncio.create_task(supervisor.reload("new"))
        await asyncio.sleep(0.01)
        unheard.cancel()
        await until(lambda: "new is broken" in caplog.text)
        assert caplog.text.count("new is broken") == 1

    run(test, FakeWorkers(load=["ok", "refuse"], load_s=0.03))


def test_deaths_are_followed_by_restarts_after_longer_and_longer_waits():
    """Backoff 0, 0.2, 0.4: three deaths in a row cost at least 0.6 s, and the first restart next to nothing."""

    async def test(supervisor: Supervisor, workers: FakeWorkers, user: User) -> None:
        loop = asyncio.get_running_loop()
        begin = loop.time()
        for number in range(3):
            workers.made[-1].die()
            await until(lambda n=number: user.ready == n + 2)
            if not number:
                assert loop.time() - begin < 0.2
        assert loop.time() - begin >= 0.6
        assert len(workers.made) == 4

    run(test, backoff_s=(0.0, 0.2, 0.4))


def test_a_minute_of_health_makes_restarts_quick_again(monkeypatch):
    async def test(supervisor: Supervisor, workers: FakeWorkers, user: User) -> None:
        monkeypatch.setattr("rewardlab.serving.supervisor.HEALTHY_S", -1.0)
        for number in range(3):
            workers.made[-1].die()
            await until(lambda n=number: user.ready == n + 2)

    run(test, backoff_s=(0.0, 1000.0))


def test_five_deaths_without_an_answer_are_enough(caplog):
    async def test(supervisor: Supervisor, workers: FakeWorkers, user: User) -> None:
        for number in range(1, MOST_DEATHS):
            workers.made[-1].die()
            await until(lambda n=number: user.ready == n + 1)
        workers.made[-1].die()
        await until(lambda: supervisor.state == "failed")
        assert supervisor.reason == "the model cannot be served any more; the server's log says why"
        assert "5 workers ended and none answered between; the last: it was killed by SIGKILL" in caplog.text
        assert user.refused == [supervisor.reason]
        assert len(workers.made) == MOST_DEATHS

    run(test)


def test_an_answer_between_deaths_keeps_it_at_work():
    async def test(supervisor: Supervisor, workers: FakeWorkers, user: User) -> None:
        for number in range(2 * MOST_DEATHS):
            await until(lambda n=number: user.ready == n + 1)
            assert supervisor.worker is not None
            supervisor.worker.send(number, batch_of(1))
            await until(lambda n=number: user.done == n + 1)
            workers.made[-1].die()
        await until(lambda: user.ready == 2 * MOST_DEATHS + 1)

    run(test)


def test_a_death_takes_along_what_was_computed():
    async def test(supervisor: Supervisor, workers: FakeWorkers, user: User) -> None:
        assert supervisor.worker is not None
        supervisor.worker.send(0, batch_of(2))
        workers.made[0].die()
        await until(lambda: user.lost)
        assert "killed by SIGKILL" in user.lost[0]

    run(test, FakeWorkers(on_batch=lambda worker, batch: True))


def test_a_load_that_takes_too_long_is_a_death(caplog):
    async def test(supervisor: Supervisor, workers: FakeWorkers, user: User) -> None:
        workers.made[0].die()
        await until(lambda: "not loaded within" in caplog.text)
        assert supervisor.reason == "the worker is started again"
        await until(lambda: user.ready == 2)
        assert len(workers.made) == 3

    run(test, FakeWorkers(load=["ok", "hang", "ok"]), load_s=0.1, backoff_s=(0.0, 0.1))


@pytest.mark.parametrize("level", [1, 2])
def test_it_sleeps_and_wakes(level):
    async def test(supervisor: Supervisor, workers: FakeWorkers, user: User) -> None:
        await supervisor.wake_up()  # does nothing
        assert user.ready == 1
        for _ in range(2):
            await supervisor.sleep(level)
            assert (supervisor.state, supervisor.worker) == ("sleeping", None)
        assert len(workers.alive) == (1 if level == 1 else 0)
        assert len(user.refused) == 1
        await asyncio.gather(supervisor.wake_up(), supervisor.wake_up())
        assert (supervisor.state, user.ready) == ("ready", 2)
        assert len(workers.made) == level
        if level == 1:
            assert workers.made[0].got == [Sleep(), WakeUp()]

    run(test)


def test_the_second_level_after_the_first_ends_the_worker():
    async def test(supervisor: Supervisor, workers: FakeWorkers, user: User) -> None:
        await supervisor.sleep(1)
        await supervisor.sleep(2)
        assert workers.alive == []
        await supervisor.sleep(1)  # no deeper, no lighter
        assert workers.alive == []
        await supervisor.wake_up()
        assert supervisor.state == "ready"

    run(test)


def test_it_sleeps_after_what_is_being_computed():
    async def test(supervisor: Supervisor, workers: FakeWorkers, user: User) -> None:
        assert supervisor.worker is not None
        supervisor.worker.send(0, batch_of(1))
        await supervisor.sleep(2)
        assert user.done == 1
        assert user.lost == []

    run(test, FakeWorkers(batch_s=0.1))


def test_a_worker_that_dies_asleep_is_replaced_when_it_is_woken():
    async def test(supervisor: Supervisor, workers: FakeWorkers, user: User) -> None:
        await supervisor.sleep(1)
        workers.made[0].die()
        await asyncio.sleep(0.02)
        assert supervisor.state == "sleeping"
        assert len(workers.made) == 1
        await supervisor.wake_up()
        assert (supervisor.state, len(workers.made)) == ("ready", 2)

    run(test)


def test_a_worker_that_dies_waking_is_replaced():
    async def test(supervisor: Supervisor, workers: FakeWorkers, user: User) -> None:
        await supervisor.sleep(1)
        workers.made[0].is_deaf = True
        await supervisor.wake_up()
        assert (supervisor.state, len(workers.made)) == ("ready", 2)

    run(test, stall_s=0.05)


def test_waking_that_fails_says_why_and_can_be_tried_again():
    """The accelerator may not be free yet: the policy beside it still has the memory."""

    async def test(supervisor: Supervisor, workers: FakeWorkers, user: User) -> None:
        await supervisor.sleep(2)
        with pytest.raises(Unavailable, match="cannot be woken: old is broken"):
            await supervisor.wake_up()
        assert supervisor.state == "sleeping"
        await supervisor.wake_up()
        assert supervisor.state == "ready"

    run(test, FakeWorkers(load=["ok", "refuse", "ok"]))


def test_sleep_while_it_restarts_gives_the_restart_up():
    async def test(supervisor: Supervisor, workers: FakeWorkers, user: User) -> None:
        workers.made[0].die()
        await until(lambda: len(workers.made) == 2)
        await supervisor.sleep(1)
        await asyncio.sleep(0.02)
        assert workers.alive == []
        assert supervisor.state == "sleeping"
        await supervisor.wake_up()
        assert supervisor.state == "ready"

    run(test, FakeWorkers(load=["ok", "hang", "ok"]))


def test_what_cannot_be_slept_is_refused():
    async def test(supervisor: Supervisor, workers: FakeWorkers, user: User) -> None:
        with pytest.raises(Unavailable, match="being loaded"):
            await supervisor.sleep(1)
        with pytest.raises(Unavailable, match="being loaded"):
            await supervisor.reload("new")

    run(test, FakeWorkers(load=["hang"]), ready=False)


def test_a_reload_takes_over_and_the_old_worker_finishes():
    async def test(supervisor: Supervisor, workers: FakeWorkers, user: User) -> None:
        assert supervisor.worker is not None
        supervisor.worker.send(0, batch_of(1))
        model = await supervisor.reload("new")
        assert (model.path, supervisor.state) == ("new", "ready")
        assert supervisor.model is model
        assert supervisor.spec.require_contract
        assert user.done == 0
        assert len(workers.alive) == 2
        await until(lambda: user.done == 1)
        await until(lambda: len(workers.alive) == 1)
        assert user.lost == []
        workers.made[1].die()  # what is started again is the new one
        await until(lambda: len(workers.made) == 3)
        assert workers.made[2].spec.path == "new"

    run(test, FakeWorkers(batch_s=0.1))


@pytest.mark.parametrize(("load", "said"), [("refuse", "new is broken"), ("hang", "not loaded within"), ("die", "SIG")])
def test_a_reload_that_fails_leaves_the_old_one_at_work(load, said):
    async def test(supervisor: Supervisor, workers: FakeWorkers, user: User) -> None:
        with pytest.raises(RequestRefused, match=said) as caught:
            await supervisor.reload("new")
        assert caught.value.status == 409
        assert (supervisor.state, supervisor.spec.path) == ("ready", "old")
        assert not supervisor.spec.require_contract
        assert workers.alive == [workers.made[0]]
        assert user.ready == 1

    run(test, FakeWorkers(load=["ok", load]), load_s=0.1)


def test_a_reload_brings_a_failed_server_back():
    async def test(supervisor: Supervisor, workers: FakeWorkers, user: User) -> None:
        workers.made[0].die()
        await until(lambda: supervisor.state == "failed")
        assert len(user.refused) == 1
        await supervisor.reload(None)
        assert supervisor.state == "ready"

    run(test, FakeWorkers(load=["ok", "die", "die", "die", "die", "ok"]))


def test_a_reload_asleep_is_refused():
    async def test(supervisor: Supervisor, workers: FakeWorkers, user: User) -> None:
        await supervisor.sleep(1)
        with pytest.raises(RequestRefused, match="sleeps"):
            await supervisor.reload("new")

    run(test)


def test_operations_come_one_after_another_and_to_their_end_when_the_client_goes():
    async def test(supervisor: Supervisor, workers: FakeWorkers, user: User) -> None:
        reload = asyncio.create_task(supervisor.reload("new"))
        await asyncio.sleep(0.01)
        reload.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reload
        await supervisor.wake_up()  # after the reload
        assert supervisor.model is not None
        assert supervisor.model.path == "new"

    run(test, FakeWorkers(load_s=0.05))


def test_one_model_is_loaded_at_a_time_and_one_that_nobody_waits_for_gives_way_to_sleep(caplog):
    async def test(supervisor: Supervisor, workers: FakeWorkers, user: User) -> None:
        reload = asyncio.create_task(supervisor.reload("new"))
        await until(lambda: len(workers.made) == 2)
        for _ in range(3):
            with pytest.raises(RequestRefused, match="a model is being loaded already") as caught:
                await supervisor.reload("newer")
            assert caught.value.status == 409
        reload.cancel()
        await asyncio.wait([reload])
        with pytest.raises(RequestRefused, match="already"):
            await supervisor.reload("newer")
        await asyncio.wait_for(supervisor.sleep(1), 1)
        assert (supervisor.state, supervisor.spec.path) == ("sleeping", "old")
        assert workers.alive == [workers.made[0]]
        await supervisor.wake_up()
        assert (await supervisor.reload("newest")).path == "newest"
        assert len(workers.made) == 3

    run(test, FakeWorkers(load=["ok", "hang", "ok"]))
    assert caplog.text.count("the reload is given up") == 1


def test_sleep_waits_for_a_reload_that_somebody_waits_for():
    async def test(supervisor: Supervisor, workers: FakeWorkers, user: User) -> None:
        reload = asyncio.create_task(supervisor.reload("new"))
        await asyncio.sleep(0.01)
        await supervisor.sleep(1)
        assert (await reload).path == "new"
        assert (supervisor.state, supervisor.spec.path) == ("sleeping", "new")

    run(test, FakeWorkers(load_s=0.05))


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("", 400, "'' is not taken: '' names no model; the model in use serves on"),
        (" ", 400, "names no model"),
        ("a\0b", 400, "names no model"),
        ("/", 409, "'/' is not taken: /: no config.json; the model in use serves on"),
        ("/no/such/folder", 409, "no such folder: /no/such/folder"),
        ("x/" * 5000, 409, "no such folder"),
        (__file__, 409, "is a file, expected a model folder"),
    ],
)
def test_a_path_that_holds_no_model_is_refused_before_a_process_is_started(path: str, status: int, said: str):
    async def test(supervisor: Supervisor, workers: FakeWorkers, user: User) -> None:
        with pytest.raises(RequestRefused) as caught:
            await supervisor.reload(path)
        assert (caught.value.status, caught.value.param) == (status, "path")
        assert said in caught.value.message
        assert len(workers.made) == 1

    run(test)


def test_why_the_first_load_failed_is_told_once(caplog):
    """To who waits for it, who will say it; to the log where nobody does."""

    async def nobody(supervisor: Supervisor, workers: FakeWorkers, user: User) -> None:
        await until(lambda: supervisor.state == "failed")

    async def somebody(supervisor: Supervisor, workers: FakeWorkers, user: User) -> None:
        with pytest.raises(CheckpointError, match="old is broken"):
            await supervisor.wait_ready()

    run(somebody, FakeWorkers(load=["refuse"]), ready=False)
    assert "old is broken" not in caplog.text
    run(nobody, FakeWorkers(load=["refuse"]), ready=False)
    assert caplog.text.count("old is broken") == 1


def test_the_end_comes_in_the_middle_of_everything():
    """While it loads, restarts, reloads, sleeps or wakes: stop() returns, and no process lives."""

    async def loads(supervisor: Supervisor, workers: FakeWorkers, user: User) -> None:
        waiting = asyncio.create_task(supervisor.wait_ready())
        await asyncio.sleep(0.01)
        await supervisor.stop()
        with pytest.raises(Unavailable, match="ended before"):
            await waiting

    async def restarts(supervisor: Supervisor, workers: FakeWorkers, user: User) -> None:
        workers.made[0].die()
        await until(lambda: len(workers.made) == 2)

    async def reloads(supervisor: Supervisor, workers: FakeWorkers, user: User) -> None:
        reload = asyncio.create_task(supervisor.reload("new"))
        waits = asyncio.create_task(supervisor.sleep(1))
        await until(lambda: len(workers.made) == 2)
        await supervisor.stop()
        with pytest.raises(RequestRefused):
            await reload
        with pytest.raises(Unavailable):
            await waits

    async def wakes(supervisor: Supervisor, workers: FakeWorkers, user: User) -> None:
        await supervisor.sleep(2)
        wake = asyncio.create_task(supervisor.wake_up())
        await until(lambda: len(workers.made) == 2)
        await supervisor.stop()
        with pytest.raises(Unavailable):
            await wake

    run(loads, FakeWorkers(load=["hang"]), ready=False)
    for test in (restarts, reloads, wakes):
        run(test, FakeWorkers(load=["ok", "hang"]))


def test_a_stop_that_is_cancelled_kills(monkeypatch):
    async def test(supervisor: Supervisor, workers: FakeWorkers, user: User) -> None:
        workers.made[0].is_deaf = True
        stop = asyncio.create_task(supervisor.stop())
        await asyncio.sleep(0.01)
        stop.cancel()
        await asyncio.wait([stop])
        assert workers.alive == []

    run(test)

"""Keeps one worker at work: loads, restarts, lets it sleep, changes its model, ends it. Knows no request and no queue.

    loading ──> ready <──> sleeping
       │         │  ^
       v         v  │
    failed <── restarting          and draining, from any of them, when the server ends

A worker that dies is started again at once, then after 1, 2, 4 ... seconds, until it has been well for a minute. Five
deaths without one answered batch between them are taken for a fault that no restart mends.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from rewardlab.errors import ConfigError, RewardLabError
from rewardlab.scoring.names import require_models
from rewardlab.serving.backend import State
from rewardlab.serving.failures import RequestRefused, Unavailable
from rewardlab.serving.fault_log import log_fault
from rewardlab.serving.items import ModelInfo
from rewardlab.serving.messages import Done, Sleep, WakeUp, WorkerSpec
from rewardlab.serving.metrics import Metrics
from rewardlab.serving.model_worker import Ended, ModelWorker, SentBatch
from rewardlab.serving.settings import ServerSettings
from rewardlab.serving.worker_process import WorkerFactory, WorkerProcess

logger = logging.getLogger(__name__)

T = TypeVar("T")

STOP_SECONDS = 5.0
"""How long operations may take to end once every worker was ended."""

_RESTARTING = "the worker is started again"
_LOG_SAYS = "the server's log says why"

MOST_DEATHS = 5
BACKOFF_S = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
HEALTHY_S = 60.0


class WorkerUser(Protocol):
    """Who gives the worker its batches, and is told what becomes of it."""

    def worker_is_ready(self) -> None:
        """There is a worker that takes batches."""

    def batch_is_done(self, worker: ModelWorker, batch: SentBatch, done: Done) -> None:
        """A batch has its results."""

    def batches_are_lost(self, batches: Sequence[SentBatch], failure: Unavailable) -> None:
        """A worker died with these."""

    def nothing_is_served(self, failure: Unavailable) -> None:
        """What waits will not be computed: asleep, or failed."""


class Supervisor:
    """Keeps one worker at work.

    Args:
        spec: What it loads.
        settings: Its times.
        metrics: Where restarts and models are told.
        user: Who is told what happens.
        factory: Starts a worker process.
        backoff_s: Seconds before the first, second ... restart; the last stands for all further ones.

    Attributes:
        spec: What the worker in use was made of.
        model: The model in use, be it that its worker is gone; None before the first.
        load_error: Why the first load failed.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        settings: ServerSettings,
        metrics: Metrics,
        user: WorkerUser,
        *,
        factory: WorkerFactory = WorkerProcess,
        backoff_s: Sequence[float] = BACKOFF_S,
    ) -> None:
        self.spec = replace(spec, scale=settings.scale)
        self.model: ModelInfo | None = None
        self.load_error: RewardLabError | None = None
        self._settings, self._metrics, self._user = settings, metrics, user
        self._factory, self._backoff_s = factory, backoff_s
        self._state: State = "loading"
        self._reason = "the model is being loaded"
        self._worker: ModelWorker | None = None  # the one in use; may be asleep
        self._workers: set[ModelWorker] = set()  # every one whose process lives
        self._starting: asyncio.Task[None] | None = None  # the first load, or a restart
        self._first_load = asyncio.Event()
        self._num_waiting = 0  # for the end of the first load
        self._lock = asyncio.Lock()
        self._reloading: asyncio.Task[ModelInfo] | None = None
        self._reload_is_awaited = False
        self._background: set[asyncio.Task[Any]] = set()
        self._is_ending = False
        self._is_stopped = False
        self._deaths = 0  # since a batch was answered
        self._restarts = 0  # since it was well

    @property
    def state(self) -> State:
        """What it is doing."""
        if self._is_ending:
            return "draining"
        return "restarting" if self._is_condemned else self._state

    @property
    def reason(self) -> str:
        """Why it is not ready; empty where it is. Every client reads it: details are the log's."""
        if self._is_ending:
            return "the server is ending"
        return _RESTARTING if self._is_condemned else self._reason

    @property
    def worker(self) -> ModelWorker | None:
        """The worker that takes batches; None where none does."""
        return self._worker if self._state == "ready" and not self._is_condemned else None

    @property
    def _is_condemned(self) -> bool:
        """Whether the worker in use was killed and is not gone yet: while the kernel holds it, that can take long."""
        return self._state == "ready" and self._worker is not None and self._worker.is_condemned

    def start(self) -> None:
        """Begin to load the model."""
        self._starting = asyncio.get_running_loop().create_task(self._load_first())

    async def wait_ready(self) -> None:
        """Wait for the end of the first load.

        Raises:
            RewardLabError: It failed, or the server ended before.
        """
        self._num_waiting += 1
        try:
            await self._first_load.wait()
        finally:
            self._num_waiting -= 1
        if self.load_error is not None:
            raise self.load_error

    def unavailable(self) -> Unavailable:
        """Why nothing is scored now, as a request is told."""
        wait = {"loading": 5.0, "restarting": 2.0, "sleeping": 10.0, "draining": 10.0, "failed": 60.0}
        return Unavailable(self.reason or "no model is ready", retry_after=wait.get(self.state, 1.0))

    async def sleep(self, level: int) -> None:
        """Free the accelerator, after the batches that are being computed; a reload nobody waits for is given up.

        Args:
            level: 1 keeps the worker with its weights in main memory, 2 ends it; there is no other.

        Raises:
            Unavailable: There is nothing that could sleep.
        """
        if self._reloading is not None and not self._reload_is_awaited:
            logger.warning("the reload is given up: who asked for it has gone, and the model is to sleep")
            self._reloading.cancel()
        await self._until_done(self._begin(lambda: self._sleep(level)))

    async def wake_up(self) -> None:
        """Take the accelerator back; returns when the model is ready.

        Raises:
            Unavailable: It cannot, with the reason; it goes on sleeping.
        """
        await self._until_done(self._begin(self._wake_up))

    async def reload(self, path: str | None) -> ModelInfo:
        """Load a model beside the one in use, and change to it.

        Args:
            path: What to load; None for what is in use.

        Raises:
            RequestRefused: It cannot be loaded, and the old one serves on; or one is being loaded.
            Unavailable: Not now.
        """
        if self._reloading is not None:
            raise RequestRefused("a model is being loaded already", hint="ask again when it is", status=409)
        self._reloading = self._begin(lambda: self._reload(path))
        self._reloading.add_done_callback(self._reload_has_ended)
        self._reload_is_awaited = True
        try:
            return await self._until_done(self._reloading)
        except asyncio.CancelledError:
            self._reload_is_awaited = False
            raise

    def begin_to_end(self) -> None:
        """From now on it is draining; its worker serves on."""
        self._is_ending = True

    async def stop(self) -> None:
        """End every process, that of a load half done too."""
        self._is_ending = self._is_stopped = True
        if not self._first_load.is_set():
            self.load_error = Unavailable("the server ended before its model was loaded")
            self._first_load.set()
        self._give_up_starting()
        try:
            await asyncio.gather(*(worker.stop() for worker in self._workers))
            if self._background:  # one may wait for a worker that even SIGKILL does not end
                await asyncio.wait(self._background, timeout=STOP_SECONDS)
        finally:
            for worker in self._workers:
                worker.kill(Ended("died", "the server ended"))

    # Loading and dying

    async def _load_first(self) -> None:
        try:
            loaded = await self._load(self.spec)
            if isinstance(loaded, ModelWorker):
                self._use(loaded)
            else:
                self._fail_first(loaded.error)
        except Exception as error:
            log_fault(logger, "loading the model", error)
            self._fail_first(RewardLabError(f"loading the model raised {type(error).__name__}", hint=_LOG_SAYS))
        finally:
            self._first_load.set()

    async def _restart(self, ended: Ended) -> None:
        while True:
            self._deaths += 1
            if self._deaths >= MOST_DEATHS:
                why = f"{self._deaths} workers ended and none answered between; the last: {ended.message}"
                logger.error("the model cannot be served any more: %s", why)
                self._fail("the model cannot be served any more")
                return
            delay = self._backoff_s[min(self._restarts, len(self._backoff_s) - 1)]
            self._restarts += 1
            self._state, self._reason = "restarting", _RESTARTING
            logger.error("the worker ended: %s; it is started again in %g s", ended.message, delay)
            self._metrics.worker_restarted(ended.cause)
            await asyncio.sleep(delay)
            loaded = await self._load(self.spec)
            if isinstance(loaded, ModelWorker):
                self._use(loaded)
                return
            ended = loaded

    async def _load(self, spec: WorkerSpec) -> ModelWorker | Ended:
        """A new worker with its model; or how that ended."""
        if self._is_stopped:
            return Ended("died", "the server ended")
        try:
            worker = ModelWorker(spec, self._settings.stall_s, self._factory, self._batch_is_done, self._worker_ended)
        except (OSError, RuntimeError) as error:  # RuntimeError: no thread can be started
            return Ended("died", f"it could not be started: {error}")
        self._workers.add(worker)
        return await worker.until_loaded(self._settings.load_s) or worker.ended or worker

    def _use(self, worker: ModelWorker) -> None:
        self._worker, self.model, self.spec = worker, worker.model, worker.spec
        self._state, self._reason = "ready", ""
        self._metrics.model(worker.model)
        self._user.worker_is_ready()

    def _fail_first(self, error: RewardLabError) -> None:
        """Fail for good before there was a model; the log is told why only where nobody waits to tell it."""
        self.load_error = error
        if not self._num_waiting:
            logger.error("the model cannot be loaded: %s", error.message)
        self._fail("the model cannot be loaded")

    def _fail(self, reason: str) -> None:
        self._state, self._reason = "failed", f"{reason}; {_LOG_SAYS}"
        self._user.nothing_is_served(self.unavailable())

    def _batch_is_done(self, worker: ModelWorker, batch: SentBatch, done: Done) -> None:
        self._deaths = 0
        self._user.batch_is_done(worker, batch, done)

    def _worker_ended(self, worker: ModelWorker) -> None:
        self._workers.discard(worker)
        ended = worker.ended
        assert ended is not None
        if worker.in_flight:
            lost = list(worker.in_flight.values())
            worker.in_flight.clear()
            failure = Unavailable(f"the worker ended while it computed this: {ended.message}", retry_after=1)
            self._user.batches_are_lost(lost, failure)
        if worker is not self._worker:
            return
        self._worker = None
        if self._is_stopped:
            return
        if self._state != "ready":
            logger.warning("the worker ended while it slept: %s; waking up starts a new one", ended.message)
            return
        if asyncio.get_running_loop().time() - worker.ready_at > HEALTHY_S:
            self._restarts = 0
        self._starting = asyncio.get_running_loop().create_task(self._restart(ended))

    # Operations: one at a time, and each to its end, even when the client that asked for it has gone

    def _begin(self, operation: Callable[[], Awaitable[T]]) -> asyncio.Task[T]:
        async def one_at_a_time() -> T:
            async with self._lock:
                return await operation()

        return self._in_background(one_at_a_time())

    async def _until_done(self, task: asyncio.Task[T]) -> T:
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:  # who asked has gone: only the log is told how it ends
            task.add_done_callback(_log_error)
            raise

    def _in_background(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    async def _sleep(self, level: int) -> None:
        if self.state in ("loading", "failed", "draining"):
            raise self.unavailable()
        self._give_up_starting()
        if self._state != "sleeping":
            self._state, self._reason = "sleeping", "the model sleeps; POST /wake_up wakes it"
            self._user.nothing_is_served(self.unavailable())
            if self._worker is not None:
                await self._worker.until_idle()
                if level == 1 and self._worker is not None:
                    await self._worker.ask(Sleep())
        if level == 2 and self._worker is not None:
            worker, self._worker = self._worker, None
            await worker.stop()

    async def _wake_up(self) -> None:
        if self.state in ("loading", "failed", "draining"):
            raise self.unavailable()
        if self._state == "restarting":
            assert self._starting is not None
            await asyncio.wait([self._starting])
        if self._state == "sleeping":
            await self._wake()
        if self.state != "ready":
            raise self.unavailable()

    async def _wake(self) -> None:
        asleep = self._worker
        if asleep is not None and await asleep.ask(WakeUp()) and asleep.ended is None:
            woken: ModelWorker | Ended = asleep
        else:
            woken = await self._load(self.spec)
        if isinstance(woken, Ended):
            raise Unavailable(f"the model cannot be woken: {woken.message}", hint=woken.hint, retry_after=10)
        self._use(woken)

    async def _reload(self, path: str | None) -> ModelInfo:
        if self.state in ("loading", "draining"):
            raise self.unavailable()
        if self._state == "sleeping":
            raise RequestRefused(
                "the server sleeps, and loading a model would take the accelerator", hint="wake it up first", status=409
            )
        spec = replace(self.spec, path=self.spec.path if path is None else path, require_contract=True)
        try:
            require_models(spec.path, contract=True)
        except RewardLabError as error:
            raise self._not_taken(spec.path, error, 400 if isinstance(error, ConfigError) else 409) from error
        loaded = await self._load(spec)
        if isinstance(loaded, Ended):
            raise self._not_taken(spec.path, loaded.error, 409)
        self._give_up_starting()
        old = self._worker
        self._deaths = self._restarts = 0
        self._use(loaded)
        if old is not None:
            self._in_background(self._retire(old)).add_done_callback(_log_error)
        return loaded.model

    def _not_taken(self, path: str, why: RewardLabError, status: int) -> RequestRefused:
        serving = "the model in use serves on" if self._state == "ready" else self._reason
        message = f"{path!r} is not taken: {why.message}; {serving}"
        return RequestRefused(message, hint=why.hint, status=status, param="path")

    def _reload_has_ended(self, task: asyncio.Task[ModelInfo]) -> None:
        self._reloading = None

    async def _retire(self, worker: ModelWorker) -> None:
        await worker.until_idle()
        await worker.stop()

    def _give_up_starting(self) -> None:
        if self._starting is not None:
            self._starting.cancel()  # which kills the worker that it was loading


def _log_error(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.warning("%s", error)

"""The backend that serves: requests of all connections are gathered into batches for one worker process.

What is here is who may wait, when a batch goes, and which request an answer belongs to. What goes together is
:mod:`rewardlab.serving.batch_queue`'s matter, that there is a worker :mod:`rewardlab.serving.supervisor`'s. The queue
lies in the server, so a worker that dies takes along only the requests of which it had an item.

A batch goes when the worker is idle and the oldest item has waited ``max_wait_ms``, or a whole budget waits. One more
batch may be sent ahead while one is computed, so that the worker encodes it meanwhile, but only when a whole budget
waits: what is sent can no longer be joined by items of the same prompt.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Sequence

from rewardlab.errors import RewardLabError
from rewardlab.serving.backend import ARRIVED, State
from rewardlab.serving.batch_queue import BatchQueue, Job
from rewardlab.serving.failures import DeadlineExceeded, Overloaded, RequestFailure, Unavailable
from rewardlab.serving.items import Answer, Item, ItemScore, ModelInfo
from rewardlab.serving.messages import Done, WorkerSpec
from rewardlab.serving.metrics import Metrics
from rewardlab.serving.model_worker import ModelWorker, SentBatch
from rewardlab.serving.settings import ServerSettings
from rewardlab.serving.supervisor import BACKOFF_S, Supervisor
from rewardlab.serving.worker_process import WorkerFactory, WorkerProcess

_MOST_UNREAD = 1024
"""Most requests that have come and do not wait yet: they are being read, parsed and checked."""

_CERTAIN = 0.85
"""Share of the time that a request has left, beyond which its expected wait is too long: the wait is an estimate, and
who is refused at once can ask again, while who waits for nothing has lost the deadline."""

_AHEAD = 2
"""Batches that the worker may have: one computed, one encoded meanwhile."""


class BatchingBackend:
    """Implements :class:`rewardlab.serving.backend.Backend` with a queue and a supervised worker process.

    Args:
        spec: What the worker loads.
        settings: The server's settings.
        metrics: Where what happens is counted.
        worker_factory: Starts a worker process.
        backoff_s: As the supervisor's.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        settings: ServerSettings,
        metrics: Metrics,
        *,
        worker_factory: WorkerFactory = WorkerProcess,
        backoff_s: Sequence[float] = BACKOFF_S,
    ) -> None:
        self._settings, self._metrics = settings, metrics
        self._queue = BatchQueue(settings.queue_items)
        self._answers: dict[Job, asyncio.Future[Answer]] = {}  # of every accepted request, the oldest first
        self._numbers = itertools.count()
        self._throughput = Throughput()
        self._busy_since = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._ends_at: float | None = None
        self._all_answered = asyncio.Event()
        self._all_answered.set()
        self._supervisor = Supervisor(spec, settings, metrics, self, factory=worker_factory, backoff_s=backoff_s)

    @property
    def state(self) -> State:
        """What it is doing."""
        return self._supervisor.state

    @property
    def reason(self) -> str:
        """Why it is not ready, in words; empty where it is."""
        return self._supervisor.reason

    @property
    def model(self) -> ModelInfo | None:
        """The model that answers now; None before the first is loaded."""
        return self._supervisor.model

    @property
    def load_error(self) -> RewardLabError | None:
        """Why the first load failed; None while it has not."""
        return self._supervisor.load_error

    async def start(self) -> None:
        """Begin to load the model; returns at once."""
        self._supervisor.start()

    async def wait_ready(self) -> None:
        """Wait for the end of the first load.

        Raises:
            RewardLabError: It failed, or the server ended before.
        """
        await self._supervisor.wait_ready()

    def begin_to_end(self) -> None:
        """The server was told to end: what has arrived is finished without waiting for more, what comes is refused."""
        if self._ends_at is None:
            self._ends_at = asyncio.get_running_loop().time()
        self._supervisor.begin_to_end()
        self._dispatch()

    async def stop(self) -> None:
        """Refuse new requests, finish what was accepted, up to the drain time; then end the worker."""
        self.begin_to_end()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.drain_s):
                    await self._all_answered.wait()
        finally:
            self.nothing_is_served(Unavailable("the server ended before this was computed", retry_after=10))
            await self._supervisor.stop()

    async def score(self, items: Sequence[Item]) -> Answer:
        """Score the items of one request; cancelling the call takes back those that still wait.

        Args:
            items: The items.

        Raises:
            Overloaded: They do not fit the queue, or would wait for more than the deadline.
            DeadlineExceeded: They waited the whole deadline.
            Unavailable: Nothing can be scored now; those in computation when a worker dies fail so too.
        """
        loop = asyncio.get_running_loop()
        self._require_admission(items)
        now = loop.time()
        since = ARRIVED.get()
        job = Job(tuple(items), deadline=(now if since is None else since) + self._settings.deadline_s, since=now)
        answer = self._answers[job] = loop.create_future()
        self._all_answered.clear()
        try:
            self._queue.put(job)
            # A request that is alone is tried: only an estimate says that it takes too long.
            if len(self._answers) > 1 and (refusal := self._too_long(job.deadline - now)) is not None:
                raise refusal
            self._dispatch()
            async with asyncio.timeout_at(job.deadline):
                return await answer
        except TimeoutError:
            raise DeadlineExceeded(
                f"no score within the deadline of {self._settings.deadline_s:g} s", retry_after=self._retry_after()
            ) from None
        finally:
            del self._answers[job]
            self._queue.remove(job)
            self._metrics.waiting(len(self._queue))
            if not self._answers:
                self._all_answered.set()

    async def sleep(self, level: int) -> None:
        """Free the accelerator, after the batches being computed; what waits is answered 503.

        Args:
            level: 1 keeps the weights in main memory, 2 ends the worker.

        Raises:
            RequestRefused: There is no such level.
            Unavailable: There is nothing that could sleep.
        """
        await self._supervisor.sleep(level)

    async def wake_up(self) -> None:
        """Take the accelerator back; returns when scores can be given.

        Raises:
            Unavailable: It cannot, with the reason; it goes on sleeping.
        """
        await self._supervisor.wake_up()

    async def reload(self, path: str | None) -> ModelInfo:
        """Load a checkpoint beside the one that serves and change to it when its contract holds.

        Args:
            path: A folder or hub id; None for the one in use, which may have been replaced on disk.

        Raises:
            RequestRefused: It cannot be trusted, with the reason; the old model serves on.
            Unavailable: Not now.
        """
        return await self._supervisor.reload(path)

    def overload(self, in_progress: int) -> Overloaded | None:
        """Why a request would be refused as things are, whatever it asks; None where it may try.

        Asked before a request is read: reading one only to refuse it costs more than half of what serving it would.

        Args:
            in_progress: Requests whose heads were read and that have no answer yet.
        """
        if self.state in ("sleeping", "draining", "failed"):
            return None  # which is told in other words
        refusal = self._too_long(self._settings.deadline_s) if self._answers else None
        if not self._queue.has_room(1):
            refusal = Overloaded(f"the queue is full: {len(self._queue)} items wait", retry_after=self._retry_after())
        elif in_progress - len(self._answers) > _MOST_UNREAD:
            refusal = Overloaded(f"more than {_MOST_UNREAD} requests are yet to be read", retry_after=2)
        if refusal is not None:
            self._metrics.shed()
        return refusal

    # What the supervisor tells

    def worker_is_ready(self) -> None:
        """There is a worker that takes batches, maybe with another model: none of its scores stand beside the old's."""
        worker = self._supervisor.worker
        assert worker is not None
        fingerprint = worker.model.fingerprint
        for job in reversed(self._answers):
            if job.begun_with not in (None, fingerprint) and self._queue.is_waiting(job):
                self._queue.begin_anew(job)
        self._busy_since = asyncio.get_running_loop().time()
        self._throughput = Throughput()
        self._dispatch()

    def batch_is_done(self, worker: ModelWorker, batch: SentBatch, done: Done) -> None:
        """A batch has its results.

        Args:
            worker: Whose.
            batch: The batch.
            done: Its results.
        """
        num_bytes = num_tokens = 0
        for entry, result in zip(batch.entries, done.results, strict=True):
            if entry.num_bytes and isinstance(result, ItemScore):
                num_bytes += entry.num_bytes
                num_tokens += result.num_tokens
            if entry.settle(result) and (answer := self._answers.get(entry.job)) and not answer.done():
                answer.set_result(Answer(entry.job.answered(), worker.model))
        self._queue.learn(num_bytes, num_tokens)
        fill = batch.tokens / worker.model.tokens_per_batch
        self._metrics.batch(len(batch.entries), fill, done.work)
        now = asyncio.get_running_loop().time()
        seconds = now - max(batch.sent_at, self._busy_since)
        expected = self._throughput.seconds_for(batch.relief)
        # A small batch is mostly overhead, and would make a worker look slow that is only idle; but one that was faster
        # than expected tells that the worker is not as slow as it once was, which else might never be found out.
        if fill >= 0.5 or (expected is not None and seconds < expected):
            self._throughput.add(batch.relief, seconds)
        self._busy_since = now
        self._dispatch()

    def batches_are_lost(self, batches: Sequence[SentBatch], failure: Unavailable) -> None:
        """A worker died with these: their requests fail, what else waits goes on waiting.

        Args:
            batches: The batches.
            failure: What their requests are answered.
        """
        for job in {entry.job for batch in batches for entry in batch.entries if entry.is_awaited}:
            self._refuse(job, failure)

    def nothing_is_served(self, failure: Unavailable) -> None:
        """What waits will not be computed.

        Args:
            failure: What its requests are answered.
        """
        for job in self._answers:
            if self._queue.is_waiting(job):
                self._refuse(job, failure)

    def _refuse(self, job: Job, failure: RequestFailure) -> None:
        self._queue.remove(job)
        answer = self._answers.get(job)
        if answer is not None and not answer.done():
            answer.set_exception(failure)

    # Who may wait, and when a batch goes

    def _require_admission(self, items: Sequence[Item]) -> None:
        arrived = ARRIVED.get()
        is_late = self._ends_at is None or arrived is None or arrived > self._ends_at
        can_finish = not is_late and self._supervisor.worker is not None
        if self.state in ("sleeping", "failed") or (self.state == "draining" and not can_finish):
            raise self._supervisor.unavailable()
        if not self._queue.has_room(len(items)):
            raise Overloaded(
                f"{len(items)} items do not fit the queue: {len(self._queue)} of {self._settings.queue_items} wait",
                retry_after=self._retry_after(),
            )

    def _too_long(self, left: float) -> Overloaded | None:
        """The refusal of a request that has so many seconds left, if they will probably not be enough."""
        expected = self._expected_wait()
        if expected is None or expected <= _CERTAIN * left:
            return None
        return Overloaded(
            f"the queue is {expected:.0f} s long, and the deadline is {self._settings.deadline_s:g} s",
            retry_after=self._retry_after(),
        )

    def _expected_wait(self) -> float | None:
        """Seconds until what waits and what is computed is done; None where that is not known."""
        worker = self._supervisor.worker
        computed = sum(batch.relief for batch in worker.in_flight.values()) if worker else 0
        return self._throughput.seconds_for(self._queue.tokens + computed)

    def _retry_after(self) -> float:
        return min(60.0, max(1.0, self._expected_wait() or 1.0))

    def _dispatch(self) -> None:
        """Send what is due, or set the timer for when it will be."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        worker = self._supervisor.worker
        while worker is not None and len(self._queue) and len(worker.in_flight) < _AHEAD:
            loop = asyncio.get_running_loop()
            budget = worker.model.tokens_per_batch
            if self._queue.tokens < budget:
                if worker.in_flight:
                    break
                due = (self._queue.oldest_since or 0.0) + self._settings.max_wait_ms / 1000
                if loop.time() < due and self.state != "draining":  # nobody else will come then
                    self._timer = loop.call_at(due, self._dispatch)
                    break
            taken = self._queue.next_batch(budget, loop.time())
            if taken.entries:
                fingerprint = worker.model.fingerprint
                for job in {entry.job for entry in taken.entries}:
                    job.begun_with = fingerprint
                batch = SentBatch(tuple(taken.entries), taken.tokens, taken.relief, loop.time())
                worker.send(next(self._numbers), batch)
        self._metrics.waiting(len(self._queue))


class Throughput:
    """Tokens a second by which what waits falls, the newer batches weighing more.

    A prompt whose completions fill several batches is computed in each of them, and waits as tokens once: so what the
    worker computes a second would make the queue look shorter than it is.
    """

    def __init__(self) -> None:
        self._tokens = self._seconds = 0.0

    def add(self, tokens: int, seconds: float) -> None:
        """A batch was computed.

        Args:
            tokens: Estimated tokens by which what waits fell for it.
            seconds: What it took.
        """
        self._tokens = 0.8 * self._tokens + tokens
        self._seconds = 0.8 * self._seconds + seconds

    def seconds_for(self, tokens: int) -> float | None:
        """How long so many tokens will take.

        Args:
            tokens: Estimated tokens.

        Returns:
            Seconds; None before the first batch.
        """
        return tokens * self._seconds / self._tokens if self._tokens else None

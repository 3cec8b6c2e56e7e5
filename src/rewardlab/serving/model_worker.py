"""One worker process as the event loop sees it: its model, the batches it has, whether it hangs, and how it ended.

Everything here runs in the event loop; what the process's threads report is brought over. It does not restart itself
(:mod:`rewardlab.serving.supervisor` does) and knows neither requests nor the queue.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from rewardlab.errors import CheckpointError, ConfigError, RewardLabError
from rewardlab.serving.batch_queue import Entry
from rewardlab.serving.items import ModelInfo
from rewardlab.serving.messages import Alive, Batch, Done, Loaded, LoadFailed, Sleep, Stop, WakeUp, WorkerSpec
from rewardlab.serving.worker_process import WorkerFactory

logger = logging.getLogger(__name__)

_STOP_SECONDS = 5.0
"""How long a worker may take to end when it is told to, before it is killed."""

Cause: TypeAlias = Literal["died", "stalled", "load_failed"]
"""Why a worker is no more, in one word, as the metrics count it."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a worker ended.

    Attributes:
        cause: In one word.
        message: In words.
        hint: How to mend it.
        refused: Whether it said itself that its model cannot be loaded.
        used_wrongly: Whether an option is to blame for that.
    """

    cause: Cause
    message: str
    hint: str = ""
    refused: bool = False
    used_wrongly: bool = False

    @property
    def error(self) -> RewardLabError:
        """As an exception."""
        kind = ConfigError if self.used_wrongly else CheckpointError if self.refused else RewardLabError
        return kind(self.message, hint=self.hint)


@dataclass(frozen=True, slots=True)
class SentBatch:
    """A batch that the worker has.

    Attributes:
        entries: Its items.
        tokens: Their estimated tokens.
        relief: By how much what waits fell, in the same.
        sent_at: When it was sent, on the loop's clock.
    """

    entries: tuple[Entry, ...]
    tokens: int
    relief: int
    sent_at: float


class ModelWorker:
    """A worker process, being loaded from the moment it is made.

    Args:
        spec: What it loads.
        stall_s: Seconds without a word, while it computes, after which it is killed.
        factory: Starts the process.
        on_done: Called with each batch that is done; not with those of a worker that has ended.
        on_end: Called once, when the process is gone; :attr:`in_flight` then holds the batches that it has lost.

    Attributes:
        spec: What it loads.
        in_flight: Batches that it has, by number, in the order they were sent.
        ready_at: When its model was loaded, on the loop's clock.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        stall_s: float,
        factory: WorkerFactory,
        on_done: Callable[[ModelWorker, SentBatch, Done], None],
        on_end: Callable[[ModelWorker], None],
    ) -> None:
        self.spec = spec
        self.in_flight: dict[int, SentBatch] = {}
        self.ready_at = 0.0
        self._stall_s, self._on_done, self._on_end = stall_s, on_done, on_end
        self._loop = asyncio.get_running_loop()
        self._loaded: asyncio.Future[ModelInfo | None] = self._loop.create_future()
        self._ended: asyncio.Future[Ended] = self._loop.create_future()
        self._answered: asyncio.Future[bool] | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._verdict: Ended | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        self._process = factory(spec, self._bring(self._heard), self._bring(self._exited))

    @property
    def model(self) -> ModelInfo:
        """Its model, once it is loaded."""
        model = self._loaded.result()
        assert model is not None, "it has ended without a model"
        return model

    @property
    def ended(self) -> Ended | None:
        """How it ended; None while it lives."""
        return self._ended.result() if self._ended.done() else None

    @property
    def is_condemned(self) -> bool:
        """Whether it was killed, be it that its process is not gone yet; it answers nothing any more."""
        return self._verdict is not None

    async def until_loaded(self, load_s: float) -> Ended | None:
        """Wait for its model; cancelling kills the worker.

        Args:
            load_s: Seconds after which it is killed.

        Returns:
            None when it is ready; else how it ended.
        """
        try:
            async with asyncio.timeout(load_s):
                model = await asyncio.shield(self._loaded)
        except TimeoutError:
            self.kill(Ended("load_failed", f"the model was not loaded within {load_s:g} s", "allow more with load_s"))
            return await asyncio.shield(self._ended)
        except asyncio.CancelledError:
            self.kill(Ended("died", "it was not waited for"))
            raise
        return await asyncio.shield(self._ended) if model is None else None

    def send(self, number: int, batch: SentBatch) -> None:
        """Give it a batch.

        Args:
            number: The batch's number, never used before.
            batch: The batch.
        """
        self.in_flight[number] = batch
        self._idle.clear()
        self._process.send(Batch(number, tuple(entry.item for entry in batch.entries)))
        if self._stall_timer is None:
            self._expect_a_word()

    async def until_idle(self) -> None:
        """Wait until it has no batch, be it that it has ended."""
        await self._idle.wait()

    async def ask(self, message: Sleep | WakeUp) -> bool:
        """Let it sleep or wake; it must be idle.

        Args:
            message: Which.

        Returns:
            Whether it did; if not, it has ended.
        """
        if self._ended.done():
            return False
        self._answered = self._loop.create_future()
        self._process.send(message)
        self._expect_a_word()
        return await self._answered

    def kill(self, why: Ended) -> None:
        """End it at once.

        Args:
            why: What is said of it, unless it had a verdict already.
        """
        self._verdict = self._verdict or why
        self._process.kill()

    async def stop(self) -> None:
        """Tell it to end, and wait until it is gone; a worker that does not obey is killed."""
        if not self._ended.done():
            self._verdict = self._verdict or Ended("died", "it was stopped")
            self._process.send(Stop())
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STOP_SECONDS):
                    await asyncio.shield(self._ended)
        finally:
            if not self._ended.done():
                self._process.kill()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_SECONDS):
                await asyncio.shield(self._ended)

    def _bring(self, function: Callable[..., None]) -> Callable[..., None]:
        """A function for the process's threads to call in the loop; nothing once the loop is closed."""

        def call(*arguments: object) -> None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(function, *arguments)

        return call

    def _heard(self, message: object) -> None:
        if self._verdict is not None:
            return
        self._expect_a_word()
        match message:
            case Loaded(model, seconds):
                logger.info("the worker has loaded %s in %.1f s", model.path, seconds)
                self.ready_at = self._loop.time()
                if not self._loaded.done():
                    self._loaded.set_result(model)
            case LoadFailed(text, hint, used_wrongly):
                self.kill(Ended("load_failed", text, hint, refused=True, used_wrongly=used_wrongly))
            case Alive():
                self._answer(True)
            case Done(number, results):
                batch = self.in_flight.pop(number, None)
                if batch is None or len(batch.entries) != len(results):
                    if batch is not None:
                        self.in_flight[number] = batch
                    self.kill(Ended("died", f"it answered batch {number} with {len(results)} results, unasked"))
                    return
                if not self.in_flight:
                    self._idle.set()
                self._on_done(self, batch, message)
            case _:
                self.kill(Ended("died", f"it said {type(message).__name__}, which means nothing"))
        if not self._is_busy:
            self._forget_stall()

    def _exited(self, text: str) -> None:
        self._forget_stall()
        self._ended.set_result(self._verdict or Ended("died", f"it {text}"))
        if not self._loaded.done():
            self._loaded.set_result(None)
        self._answer(False)
        self._idle.set()
        self._on_end(self)

    def _answer(self, did: bool) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(did)
        self._answered = None

    @property
    def _is_busy(self) -> bool:
        return bool(self.in_flight) or self._answered is not None

    def _expect_a_word(self) -> None:
        self._forget_stall()
        if self._is_busy:
            self._stall_timer = self._loop.call_later(self._stall_s, self._stalled)

    def _forget_stall(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def _stalled(self) -> None:
        logger.error("nothing was heard of the worker for %g s while it computed; it is killed", self._stall_s)
        self.kill(Ended("stalled", f"nothing was heard of it for {self._stall_s:g} s while it computed"))

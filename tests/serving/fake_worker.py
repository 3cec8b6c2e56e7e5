"""A worker process that is none: it answers from the event loop, as fast, slow, wrong or mortal as a test wants it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from rewardlab.serving.batch_queue import BatchQueue, Job
from rewardlab.serving.items import Conversation, Item, ItemScore, ModelInfo
from rewardlab.serving.messages import Alive, Batch, Done, Loaded, LoadFailed, Sleep, Stop, WakeUp, Work, WorkerSpec
from rewardlab.serving.model_worker import SentBatch

MODEL = ModelInfo(
    name="rm",
    path="old",
    fingerprint="f-old",
    contract_sha256=None,
    kind="sequence",
    architecture="Fake",
    max_length=1024,
    dtype="float32",
    device="cpu",
    layout="tree",
    tokens_per_batch=100,
)


def score_of(item: Item) -> ItemScore:
    """A score that tells items apart, so that a crossed answer shows."""
    assert isinstance(item, Conversation)
    assert isinstance(item.completion, str)
    return ItemScore(float(item.completion), round(0.3 * (len(item.prompt) + len(item.completion))))


def batch_of(count: int) -> SentBatch:
    """A batch of so many items, as the queue gives it."""
    queue = BatchQueue(count)
    queue.put(Job(tuple(Conversation("p", str(n)) for n in range(count)), deadline=1e9, since=0.0))
    taken = queue.next_batch(10**6, 0.0)
    return SentBatch(tuple(taken.entries), taken.tokens, taken.relief, 0.0)


@dataclass
class FakeWorkers:
    """The factory of fake workers; pass it as ``worker_factory``.

    Attributes:
        load: What a worker says in the place of Loaded: "ok", "refuse", "misuse", "die", "hang"; by number, else the
            last.
        load_s: How long it takes.
        batch_s: How long a batch takes.
        on_batch: Called in place of answering; returns whether it has dealt with the batch.
        budget: Tokens per batch.
        made: All that were made.
    """

    load: list[str] = field(default_factory=lambda: ["ok"])
    load_s: float = 0.0
    batch_s: float = 0.0
    on_batch: Callable[[FakeWorker, Batch], bool] = lambda worker, batch: False
    budget: int = 100
    made: list[FakeWorker] = field(default_factory=list)

    def __call__(
        self, spec: WorkerSpec, on_message: Callable[[Any], None], on_exit: Callable[[str], None]
    ) -> FakeWorker:
        worker = FakeWorker(self, spec, on_message, on_exit)
        plan = self.load[min(len(self.made), len(self.load) - 1)]
        self.made.append(worker)
        worker.begin(plan)
        return worker

    @property
    def alive(self) -> list[FakeWorker]:
        """Those whose process lives."""
        return [worker for worker in self.made if not worker.is_dead]


class FakeWorker:
    """One of them.

    Attributes:
        got: Every message it was sent.
    """

    def __init__(
        self,
        factory: FakeWorkers,
        spec: WorkerSpec,
        on_message: Callable[[Any], None],
        on_exit: Callable[[str], None],
    ) -> None:
        self.factory, self.spec = factory, spec
        self._on_message, self._on_exit = on_message, on_exit
        self.got: list[Any] = []
        self.is_dead = False
        self.is_deaf = False
        self._free_at = 0.0

    @property
    def batches(self) -> list[Batch]:
        return [message for message in self.got if isinstance(message, Batch)]

    def begin(self, plan: str) -> None:
        info = replace(
            MODEL, path=self.spec.path, fingerprint=f"f-{self.spec.path}", tokens_per_batch=self.factory.budget
        )
        say = {
            "ok": lambda: self.say(Loaded(info, 0.0)),
            "misuse": lambda: self.say(LoadFailed("there is no beta", used_wrongly=True)),
            "refuse": lambda: self.say(LoadFailed(f"{self.spec.path} is broken", "train it again")),
            "die": lambda: self.die("was killed by SIGKILL"),
            "hang": lambda: None,
        }[plan]
        asyncio.get_running_loop().call_later(self.factory.load_s, say)

    def say(self, message: Any) -> None:
        if not self.is_dead:
            self._on_message(message)

    def die(self, text: str = "was killed by SIGKILL") -> None:
        if not self.is_dead:
            self.is_dead = True
            asyncio.get_running_loop().call_soon(self._on_exit, text)

    def send(self, message: object) -> None:
        self.got.append(message)
        if self.is_dead or self.is_deaf:
            return
        loop = asyncio.get_running_loop()
        if isinstance(message, Stop):
            loop.call_soon(self.die, "ended with status 0")
        elif isinstance(message, Sleep | WakeUp):
            loop.call_soon(self.say, Alive())
        elif isinstance(message, Batch) and not self.factory.on_batch(self, message):
            self.answer(message)

    def answer(self, batch: Batch) -> None:
        loop = asyncio.get_running_loop()
        self._free_at = max(self._free_at, loop.time()) + self.factory.batch_s
        work = Work(10 * len(batch.items), 10 * len(batch.items), self.factory.batch_s)
        loop.call_at(self._free_at, self.say, Done(batch.number, tuple(map(score_of, batch.items)), work))

    def kill(self) -> None:
        self.die("was killed by SIGKILL")

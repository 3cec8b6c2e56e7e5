"""What the HTTP side needs of whatever scores: one interface, so that protocols never see processes or queues."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Literal, Protocol, TypeAlias

from rewardlab.serving.items import Answer, Item, ModelInfo

State: TypeAlias = Literal["loading", "ready", "restarting", "sleeping", "draining", "failed"]
"""``failed``: the model cannot be loaded, or died too often; the server says so and does not try again by itself."""

ARRIVED: ContextVar[float | None] = ContextVar("arrived", default=None)
"""When the request that is worked on was begun, on the event loop's clock: its head was read, those before it on its
connection were answered. Its deadline counts from then, for its body comes later, and a busy loop may come to it
late. None where nobody has said."""


class Backend(Protocol):
    """Scores items; :class:`~rewardlab.serving.batching.BatchingBackend` is the one that serves."""

    @property
    def state(self) -> State:
        """What it is doing."""

    @property
    def reason(self) -> str:
        """Why it is not ready, in words; empty where it is."""

    @property
    def model(self) -> ModelInfo | None:
        """The model that answers now; None before the first is loaded."""

    async def start(self) -> None:
        """Begin to load the model; returns at once."""

    async def stop(self) -> None:
        """Finish what was accepted, up to the drain time; then end the worker."""

    async def score(self, items: Sequence[Item]) -> Answer:
        """Score the items of one request; cancelling the call takes back those that still wait.

        Raises:
            Overloaded: They do not fit the queue.
            DeadlineExceeded: They waited the whole deadline.
            Unavailable: Nothing can be scored now; those in computation when a worker dies fail so too.
        """

    async def sleep(self, level: int) -> None:
        """Free the accelerator: 1 keeps the weights in main memory, 2 ends the worker."""

    async def wake_up(self) -> None:
        """Take the accelerator back; returns when scores can be given."""

    async def reload(self, path: str | None) -> ModelInfo:
        """Load a checkpoint beside the one that serves and change to it when its contract holds.

        Args:
            path: A folder or hub id; None for the one in use, which may have been replaced on disk.

        Raises:
            RequestRefused: It cannot be trusted, with the reason, and the old model serves on; or one is being loaded.
        """

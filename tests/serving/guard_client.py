"""Calls a guard as a server would, with an application of a few lines behind it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

from rewardlab.serving.guard import Guard
from rewardlab.serving.metrics import Metrics
from rewardlab.serving.settings import ServerSettings

KEY = "s3cret-key"
JSON = [(b"content-type", b"application/json")]


class Route:
    path = "/v1/{name}"


@dataclass
class Echo:
    """Answers with the body that it was given; waits where told to, and says what became of it."""

    wait: float = 0.0
    error: Exception | None = None
    bodies: list[bytes] = field(default_factory=list)
    cancelled: bool = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        scope["route"] = Route()
        message = await receive()
        self.bodies.append(message["body"])
        try:
            await asyncio.sleep(self.wait)
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        if self.error is not None:
            raise self.error
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": message["body"]})


class CountingMetrics(Metrics):
    """Remembers requests."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[tuple[str, int]] = []

    def request(self, route: str, status: int, seconds: float) -> None:
        self.requests.append((route, status))
        super().request(route, status, seconds)


@dataclass
class Reply:
    """What a client got."""

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    complete: bool = False

    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Calls a guard as a server would.

    Args:
        app: What stands behind it.
        **settings: Of the guard.
    """

    def __init__(self, app: Callable[..., Awaitable[None]] | None = None, **settings: Any) -> None:
        self.app = Echo() if app is None else app
        self.metrics = CountingMetrics()
        self.guard = Guard(self.app, replace(ServerSettings(), **settings), self.metrics)
        self.parts_taken = 0

    def __call__(
        self,
        body: bytes | list[bytes] = b"",
        *,
        method: str = "POST",
        path: str = "/v1/rewards",
        headers: list[tuple[bytes, bytes]] | None = None,
        chunked: bool = False,
        ends: bool = True,
        leaves_after: float | None = None,
        cancelled_after: float | None = None,
    ) -> Reply:
        reply = Reply()
        parts = [body] if isinstance(body, bytes) else list(body)
        given = list(JSON if headers is None else headers)
        if chunked:
            given.append((b"transfer-encoding", b"chunked"))
        elif parts != [b""] and not any(name == b"content-length" for name, _ in given):
            given.append((b"content-length", str(sum(map(len, parts))).encode()))
        scope = {"type": "http", "method": method, "path": path, "headers": given, "client": ("10.0.0.1", 1234)}
        scope["query_string"] = b"api_key=in-the-url"

        async def run() -> None:
            left = asyncio.Event()
            if leaves_after is not None:
                asyncio.get_running_loop().call_later(leaves_after, left.set)

            async def receive() -> dict[str, Any]:
                if self.parts_taken < len(parts):
                    self.parts_taken += 1
                    more = self.parts_taken < len(parts) or not ends
                    return {"type": "http.request", "body": parts[self.parts_taken - 1], "more_body": more}
                await left.wait()
                return {"type": "http.disconnect"}

            async def send(message: dict[str, Any]) -> None:
                if message["type"] == "http.response.start":
                    assert reply.status is None, "answered twice"
                    reply.status = message["status"]
                    reply.headers = {name.decode(): value.decode() for name, value in message["headers"]}
                else:
                    reply.body += message.get("body", b"")
                    reply.complete = not message.get("more_body", False)

            task = asyncio.ensure_future(self.guard(scope, receive, send))
            if cancelled_after is not None:
                asyncio.get_running_loop().call_later(cancelled_after, task.cancel)
            await asyncio.wait_for(task, 10)
            assert asyncio.all_tasks() == {asyncio.current_task()}, "a task is left behind"

        asyncio.run(run())
        return reply

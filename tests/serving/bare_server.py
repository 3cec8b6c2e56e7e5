"""A real server of the limited protocol in a thread, with an application of a few lines, and bare sockets to it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import socket
import threading
import time
from typing import Any

import uvicorn

from rewardlab.serving.backend import ARRIVED
from rewardlab.serving.failures import Overloaded
from rewardlab.serving.guard import Guard
from rewardlab.serving.http_protocol import LimitedProtocol
from rewardlab.serving.metrics import Metrics
from rewardlab.serving.settings import ServerSettings

KEPT_GET = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
KEPT_POST = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
GET = KEPT_GET.replace(b"Host", b"Connection: close\r\nHost")
POST = KEPT_POST.replace(b"Host", b"Connection: close\r\nHost")
CHUNKED = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"

SETTINGS = ServerSettings(
    header_timeout_s=0.4, body_timeout_s=0.6, max_connections=20, max_body_bytes=100_000, max_header_bytes=4096
)


class App:
    """``/echo`` gives the body back, ``/slow`` takes a while, ``/large`` gives 16 MiB, ``/arrived`` says how long ago.

    Attributes:
        cancelled: How many requests were cancelled.
        begun: Their paths, in order.
    """

    def __init__(self) -> None:
        self.cancelled = 0
        self.begun: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.begun.append(scope["path"])
        body = (await receive())["body"] if scope["path"] == "/echo" else b'"ok"'
        if scope["path"] == "/arrived":
            arrived = ARRIVED.get()
            assert arrived is not None
            body = b"%.3f" % (asyncio.get_running_loop().time() - arrived)
        if scope["path"] == "/large":
            body = b"x" * 2**24
        try:
            await asyncio.sleep(1.0 if scope["path"] == "/slow" else 0)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class Server:
    """A real server in a thread.

    Args:
        settings: Its limits.
        loop: uvicorn's name of the event loop.

    Attributes:
        refusal: What the backend says of further requests.
        in_progress: What it was told with each.
    """

    def __init__(self, settings: ServerSettings, loop: str) -> None:
        self.app = App()
        self.refusal: Overloaded | None = None
        self.in_progress: list[int] = []
        config = uvicorn.Config(
            Guard(self.app, settings, Metrics()),
            http=functools.partial(LimitedProtocol, settings=settings, overload=self.overload),  # type: ignore[arg-type]
            loop=loop,
            port=0,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level=logging.ERROR,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=1,
        )
        self.server = uvicorn.Server(config)
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self.server.run, args=([self.listener],))

    def __enter__(self) -> Server:
        self.thread.start()
        while not self.server.started:
            time.sleep(0.005)
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join(10)
        assert not self.thread.is_alive()

    def overload(self, in_progress: int) -> Overloaded | None:
        self.in_progress.append(in_progress)
        return self.refusal

    @property
    def connections(self) -> int:
        return len(self.server.server_state.connections)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=5)

    def exchange(self, *parts: bytes, pause: float = 0.0) -> bytes:
        """Send, in parts, and read until the server closes or nothing comes for half a second."""
        with self.connect() as connection:
            for part in parts:
                with contextlib.suppress(OSError):
                    connection.sendall(part)
                time.sleep(pause)
            return read(connection)


def read(connection: socket.socket, timeout: float = 0.5) -> bytes:
    """What comes until the other side closes, or nothing comes any more."""
    connection.settimeout(timeout)
    found = b""
    with contextlib.suppress(TimeoutError, ConnectionResetError):
        while part := connection.recv(65536):
            found += part
    return found


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


def wait_until(condition: Any, seconds: float = 3.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "does not come true"
        time.sleep(0.01)

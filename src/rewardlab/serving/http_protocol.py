"""uvicorn's HTTP protocol with limits on what comes before a request reaches the application: its head.

uvicorn waits for a head for ever and takes it at any length, and so a few thousand idle sockets, or one endless header,
would be enough to stop it. Bodies are :mod:`rewardlab.serving.guard`'s.
"""

from __future__ import annotations

import asyncio
import json
from asyncio import TimerHandle
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from rewardlab.serving.failures import RequestFailure, RequestRefused, Unavailable, error_body, headers_of
from rewardlab.serving.settings import ServerSettings

MAX_PIPELINED = 16
"""Most requests that a connection may send ahead of their answers; uvicorn queues them without end."""

CLOSE_S = 1.0
"""How long a refused connection stays half open: closed at once, it would be reset under the answer."""


class LimitedProtocol(HttpToolsProtocol):
    """One connection.

    Args:
        settings: The limits.
        **uvicorns: What uvicorn gives.
    """

    def __init__(self, *, settings: ServerSettings, **uvicorns: Any) -> None:
        super().__init__(**uvicorns)
        self.settings = settings
        self._in_progress: RequestResponseCycle | None = None
        self._refusal: RequestFailure | None = None
        self._deaf = False
        self._head_is_due = True
        self._head_timer: TimerHandle | None = None
        self._write_timer: TimerHandle | None = None
        self._close_timer: TimerHandle | None = None
        self._head_bytes = self._silent_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Take a connection, or mark it as one too many: it is told so when its request has come."""
        super().connection_made(transport)
        if len(self.connections) > self.settings.max_connections:
            self._refusal = Unavailable(f"{self.settings.max_connections} connections are open", retry_after=2)
        seconds = CLOSE_S if self._refusal else self.settings.header_timeout_s
        self._head_timer = self.loop.call_later(seconds, self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        for timer in (self._head_timer, self._write_timer, self._close_timer):
            if timer is not None:
                timer.cancel()
        if self._in_progress is not None and not self._in_progress.response_complete:
            self._in_progress.disconnected = True
            self._in_progress.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, in pieces, so that a header is refused before all of it is held."""
        limit = self.settings.max_header_bytes
        for start in range(0, len(data), limit):
            if self._deaf or self.transport.is_closing():
                return
            if self._head_is_due:
                self._await_head()
            super().data_received(piece := data[start : start + limit])
            self._silent_bytes += len(piece)
            if self._silent_bytes > 2 * limit:  # one header, or trailer, that does not end
                self._refuse(RequestRefused(f"a header of more than {limit} bytes", status=431))

    def on_message_begin(self) -> None:
        """A request begins, perhaps in the middle of what came."""
        super().on_message_begin()
        self._head_bytes = self._silent_bytes = 0
        self._await_head()

    def on_url(self, url: bytes) -> None:
        """A part of its target."""
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer."""
        self._count_head(len(name) + len(value))
        if len(self.headers) >= self.settings.max_headers:
            self._stop(RequestRefused(f"more than {self.settings.max_headers} headers", status=431))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Its head is complete."""
        if self._refusal is not None:
            raise self._refusal
        if len(self.pipeline) >= MAX_PIPELINED:
            self._stop(RequestRefused(f"more than {MAX_PIPELINED} requests ahead of their answers", status=429))
        self._head_is_due = False
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of its body."""
        self._silent_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Its body is complete; what follows is the next request."""
        self._head_is_due = True
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, or what a limit has stopped the parser at."""
        self._refuse(self._refusal or RequestRefused("this is no HTTP/1.1 request"))

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Remember which request is worked on: of several sent ahead uvicorn tells the last alone of a disconnect."""
        self._in_progress = cycle
        super()._start_asgi_task(cycle, app)

    def _unsupported_upgrade_warning(self) -> None:
        """Answer as if no upgrade had been asked for; what follows on the connection can no longer be told."""
        self._deaf = True
        if self.cycle is not None:
            self.cycle.keep_alive = False

    def pause_writing(self) -> None:
        """The client does not read: it may do so for as long as a body may take."""
        super().pause_writing()
        self._write_timer = self.loop.call_later(self.settings.body_timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        """The client reads again."""
        if self._write_timer is not None:
            self._write_timer.cancel()
        super().resume_writing()

    def _await_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.settings.header_timeout_s, self._head_is_late)

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self.cycle is not None and not self.cycle.response_complete:
            self._await_head()  # it may send the next one while it waits for an answer
        elif self.scope is None or self._refusal is not None:
            self.transport.close()
        else:
            seconds = self.settings.header_timeout_s
            self._refuse(RequestRefused(f"the headers did not come within {seconds:g} s", status=408))

    def _count_head(self, number: int) -> None:
        self._head_bytes += number
        if self._head_bytes > (limit := self.settings.max_header_bytes):
            self._stop(RequestRefused(f"target and headers of more than {limit} bytes", status=431))

    def _stop(self, refusal: RequestRefused) -> None:
        """Stop the parser, which then has :meth:`send_400_response` called."""
        self._refusal = refusal
        raise refusal

    def _refuse(self, failure: RequestFailure) -> None:
        """Answer and close."""
        self._deaf = True
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if cycle.response_started or not cycle.more_body:
                self.transport.close()  # an answer is due, or under way, that another one would be taken for
                return
            cycle.disconnected = True
            cycle.message_event.set()
        body = json.dumps(error_body("openai", failure)).encode()
        headers = {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "Connection": "close",
            **headers_of(failure),
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.transport.write(STATUS_LINE[failure.status] + head.encode() + b"\r\n" + body)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._close_timer = self.loop.call_later(CLOSE_S, self.transport.close)

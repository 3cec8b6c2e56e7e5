"""uvicorn's HTTP protocol with limits on what comes before a request reaches the application: its head.

uvicorn waits for a head for ever and takes it at any length, and so a few thousand idle sockets, or one endless header,
would be enough to stop it. Bodies are :mod:`rewardlab.serving.guard`'s. Under overload requests are refused here too,
unread: an application would need more time to refuse one than a worker to score it.
"""

from __future__ import annotations

import asyncio
from asyncio import TimerHandle
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import unquote_to_bytes

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from rewardlab.serving.backend import ARRIVED
from rewardlab.serving.failures import (
    Overloaded,
    RequestFailure,
    RequestRefused,
    Unavailable,
    answer_of,
    shape_of,
)
from rewardlab.serving.guard import ANSWER_HEADERS, has_key
from rewardlab.serving.settings import ServerSettings

MAX_PIPELINED = 16
"""Most requests that a connection may send ahead of their answers; uvicorn queues them without end."""

CLOSE_S = 1.0
"""How long a refused connection stays half open: closed at once, it would be reset under the answer."""

NEVER_SHED = (b"/sleep", b"/wake_up", b"/reload", b"/ping")
"""What is posted to steer the server or to see whether it lives, above all when it has too much to do."""

_HEADERS = b"".join(b"%s: %s\r\n" % header for header in ANSWER_HEADERS)


class LimitedProtocol(HttpToolsProtocol):
    """One connection.

    Args:
        settings: The limits.
        overload: Given the number of requests in progress, says why further ones are refused; None while they are not.
            Only those are told that have the key; others go on, and the guard refuses them.
        **uvicorns: What uvicorn gives.
    """

    def __init__(
        self, *, settings: ServerSettings, overload: Callable[[int], Overloaded | None], **uvicorns: Any
    ) -> None:
        super().__init__(**uvicorns)
        self.parser = cast(Any, _WithoutUpgrades(self, self.parser))
        self.settings = settings
        self._overload = overload
        self._shedding: Overloaded | None = None
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
        self._cancel_timers()
        if self._write_timer is not None:
            self._write_timer.cancel()
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
        """A request begins, perhaps in the middle of what came.

        Raises:
            RequestRefused: To stop the parser: the connection closes, with the answer to an earlier request.
        """
        if self._deaf:
            raise RequestRefused("this connection closes")
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
        if self.will_come_again():
            return
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (hosts == 0 and self.parser.get_http_version() == "1.1"):
            self._stop(RequestRefused(f"{hosts} Host headers, expected one"))
        if len(self.pipeline) >= MAX_PIPELINED:
            self._stop(RequestRefused(f"more than {MAX_PIPELINED} requests ahead of their answers", status=429))
        self._head_is_due = False
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        if self._may_be_shed():
            self._shedding = self._overload(len(self.tasks))
        if self._shedding is None:
            super().on_headers_complete()
        else:  # answered when its body is here, or when that takes long
            self._close_timer = self.loop.call_later(CLOSE_S, self._refuse, self._shedding)

    def will_come_again(self) -> bool:
        """Whether the head that was just parsed offers an upgrade, for then it is parsed again without it."""
        return bool(self.parser.should_upgrade()) and self.parser.get_method() != b"CONNECT"

    def on_body(self, body: bytes) -> None:
        """A part of its body."""
        self._silent_bytes = 0
        if self._shedding is None:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Its body is complete; what follows is the next request."""
        if self.will_come_again():
            return
        self._head_is_due = True
        if self._shedding is None:
            super().on_message_complete()
            return
        self._deaf = True
        self._cancel_timers()
        self.transport.write(self._answer_of(self._shedding))
        self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, or what a limit has stopped the parser at."""
        if not self._deaf:
            self._refuse(self._refusal or RequestRefused("this is no HTTP/1.1 request"))

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Remember which request is worked on: of several sent ahead uvicorn tells the last alone of a disconnect."""
        self._in_progress = cycle
        ARRIVED.set(self.loop.time())  # the task is made with a copy of this context
        super()._start_asgi_task(cycle, app)

    def _unsupported_upgrade_warning(self) -> None:
        """Answer CONNECT, the one that is left of them; what follows on the connection is no HTTP."""
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

    def _may_be_shed(self) -> bool:
        """Whether the request whose head is complete may be refused for overload: it would score, and is not queued."""
        is_first = self.cycle is None or self.cycle.response_complete
        if not is_first or self.parser.get_method() != b"POST" or self._path() in NEVER_SHED:
            return False
        return has_key(self.headers, self.settings.api_key)

    def _path(self) -> bytes:
        """The path that is asked for, be its target written with an address in front or with escapes."""
        try:
            return unquote_to_bytes(httptools.parse_url(self.url).path or b"")
        except httptools.HttpParserError:
            return b""

    def _cancel_timers(self) -> None:
        """Forget what a connection that is answered for the last time would have been told, or closed, for."""
        for timer in (self._head_timer, self._close_timer):
            if timer is not None:
                timer.cancel()

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
        self._cancel_timers()
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if cycle.response_started or not cycle.more_body:
                self.transport.close()  # an answer is due, or under way, that another one would be taken for
                return
            cycle.disconnected = True
            cycle.message_event.set()
        self.transport.write(self._answer_of(failure))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._close_timer = self.loop.call_later(CLOSE_S, self.transport.close)

    def _answer_of(self, failure: RequestFailure) -> bytes:
        """A whole answer, after which the connection closes."""
        shape = shape_of(self._path().decode("latin-1") if self.scope else "")
        status, headers, body = answer_of(shape, failure)
        head = "".join(f"{name}: {value}\r\n" for name, value in {**headers, "Connection": "close"}.items())
        return STATUS_LINE[status] + head.encode() + _HEADERS + b"\r\n" + body


class _WithoutUpgrades:
    """httptools' parser for a client that offers to go on in another protocol, as Java's does with every request.

    A server that has no other ignores the offer (RFC 9110, 7.8), but httptools would skip the body. So the head is
    parsed again without it.

    Args:
        protocol: Is called back.
        parser: The parser of its first request.
    """

    def __init__(self, protocol: LimitedProtocol, parser: Any) -> None:
        self._protocol, self._parser = protocol, parser

    def feed_data(self, data: bytes) -> None:
        """Parse.

        Raises:
            HttpParserError: It is no HTTP, or a callback has raised.
            HttpParserUpgrade: It was CONNECT.
        """
        while True:
            try:
                self._parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                if not self._protocol.will_come_again():
                    raise
                data = data[upgrade.args[0] :]
            version, method = self._parser.get_http_version().encode(), self._parser.get_method()
            head = [method + b" " + self._protocol.url + b" HTTP/" + version]
            head += [name + b": " + value for name, value in self._protocol.headers if name != b"upgrade"]
            self._parser = httptools.HttpRequestParser(self._protocol)
            self._parser.set_dangerous_leniencies(lenient_data_after_close=True)
            self._parser.feed_data(b"\r\n".join([*head, b"", b""]))

    def __getattr__(self, name: str) -> Any:
        """What else uvicorn asks of it."""
        return getattr(self._parser, name)

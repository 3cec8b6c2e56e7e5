"""Around the whole application: keys, limits, strict JSON, disconnects, and one line and one count per request.

Pure ASGI, so that every route is guarded, those of others and those that do not exist too. It knows no route but
``/health``, which answers without a key, and the two pages, where a browser asks for one.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hmac
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, MutableMapping
from typing import Any, TypeAlias

from rewardlab.serving.access_log import RequestRecord, body_hash, failure_in_short, log_request, record_of
from rewardlab.serving.failures import (
    Overloaded,
    RequestFailure,
    RequestRefused,
    Unavailable,
    answer_of,
    shape_of,
)
from rewardlab.serving.fault_log import log_fault
from rewardlab.serving.metrics import Metrics
from rewardlab.serving.settings import ServerSettings, is_loopback
from rewardlab.serving.strict_json import parse

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Any, Receive, Send], Awaitable[None]]

OPEN = "/health"
"""The route that answers without a key."""

FAILURE = "failure"
"""Where in a request's state the application leaves the failure that it has answered, for the log."""

PAGES = ("/", "/docs")
"""What a browser opens: it asks its user for a key where Basic authentication is offered."""

BODIES_IN_MEMORY = 64
"""So many bodies of the largest size may be held at a time, all connections together, read or half read; a body is held
until its request is answered."""

LINGER_S = 2.0
"""How long what a refused client still sends is read: closing at once would reset its connection under the answer."""

ANSWER_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)
"""What every answer has, in which a browser must guess nothing and keep nothing."""

_REQUEST_ID = re.compile(rb"[!#-\[\]-~]{1,64}")
_LOCAL_NAME = re.compile(rb"(?:[^.:]*|[0-9.]+|\[[^\]]*\]|(?:[^:]*\.)?localhost\.?)(?::[0-9]*)?", re.IGNORECASE)
_KEY = re.compile(rb"(?:bearer|basic) +\S+", re.IGNORECASE)
_MEDIA_TYPE = re.compile(r"application/(?:json|[a-z0-9.!#$&^_-]+\+json)")

_logger = logging.getLogger("rewardlab.serving")


class _ClientLeft(Exception):
    """The client closed its connection before it had an answer."""


class Guard:
    """ASGI middleware.

    Args:
        app: The application.
        settings: Its limits and its key.
        metrics: Where requests are counted.
        routes: The application's paths, for requests that never come to it to be counted under; others are ``unknown``.
    """

    def __init__(
        self, app: App, settings: ServerSettings, metrics: Metrics, *, routes: Collection[str] = frozenset()
    ) -> None:
        self.app, self.settings, self.metrics, self._routes = app, settings, metrics, routes
        self._is_local = is_loopback(settings.host) and settings.api_key is None
        self._buffered = 0

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Answer one request; lifespans pass, websockets are closed."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1000})
            return
        answer = _Answer(scope, send)
        start = time.perf_counter()
        try:
            await self._answer(scope, receive, answer)
        except _ClientLeft:
            answer.record.status = 499
        except asyncio.CancelledError:
            # The server's drain time is over, and it ends this task, which is its own: nobody else waits for the word.
            answer.body_is_coming = False
            await answer.fail(Unavailable("the server is stopping", retry_after=5), receive)
        except RequestFailure as failure:
            await answer.fail(failure, receive)
        except Exception as error:
            log_fault(_logger, f"request {answer.record.request_id}: {answer.record.path}", error)
            await answer.fail(RequestFailure("internal error", hint="the server's log says more"), receive)
        finally:
            answer.record.seconds = time.perf_counter() - start
            told = scope.get("state", {}).get(FAILURE)  # by the application
            if told is not None and answer.record.status != 499:
                answer.record.failure = failure_in_short(told)
            path = scope["path"]
            route = getattr(scope.get("route"), "path", path if path in self._routes else "unknown")
            self.metrics.request(route, answer.record.status, answer.record.seconds)
            log_request(answer.record)

    async def _answer(self, scope: Any, receive: Receive, answer: _Answer) -> None:
        """Check one request, and have it answered."""
        if scope["path"] != OPEN and not has_key(scope["headers"], self.settings.api_key):
            raise _Unauthorized(scope)
        if self._is_local:
            _require_local_name(scope)
        body = b""
        if answer.body_is_coming:
            _require_readable(scope)
            body = await self._read(scope, receive)
            answer.body_is_coming = False
        try:
            answer.record.bytes_in, answer.record.body = len(body), body_hash(body)
            if body:
                parse(body, self.settings.max_json_depth)
            elif scope["method"] == "POST":
                _require_own_page(scope)
            await self._run(scope, receive, answer, body)
        finally:
            self._buffered -= len(body)

    async def _read(self, scope: Any, receive: Receive) -> bytes:
        """The whole body, within its limits; it counts as held until the caller has done with it."""
        limit = self.settings.max_body_bytes
        if int(_header(scope, b"content-length") or 0) > limit:  # the parser has refused what is no number
            raise _too_large(limit)
        body = bytearray()
        is_whole = False
        try:
            async with asyncio.timeout(self.settings.body_timeout_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _ClientLeft
                    part = message.get("body", b"")
                    body += part
                    self._buffered += len(part)
                    if len(body) > limit:
                        raise _too_large(limit)
                    if self._buffered > BODIES_IN_MEMORY * limit:
                        raise Overloaded("too many large bodies are on their way", retry_after=2)
                    if not message.get("more_body", False):
                        is_whole = True
                        return bytes(body)
        except TimeoutError:
            raise RequestRefused(
                f"the body did not come within {self.settings.body_timeout_s:g} s", status=408
            ) from None
        finally:
            if not is_whole:
                self._buffered -= len(body)

    async def _run(self, scope: Any, receive: Receive, answer: _Answer, body: bytes) -> None:
        """Run the application; a client that goes cancels it, by which items that wait are taken back."""
        messages = [{"type": "http.request", "body": body, "more_body": False}]
        gone = asyncio.ensure_future(_disconnect(receive))

        async def replay() -> Message:
            return messages.pop() if messages else await asyncio.shield(gone)

        work = asyncio.ensure_future(self.app(scope, replay, answer.send))
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
            if not work.done() and not answer.complete:
                raise _ClientLeft
            await work  # an answer that is complete looks like a disconnect, while the application still tidies up
        finally:
            for task in (work, gone):
                task.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)


class _Answer:
    """What is sent to the client, with the headers that every answer has, and what is recorded of it."""

    def __init__(self, scope: Any, send: Send) -> None:
        given = _header(scope, b"x-request-id") or b""
        request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8).encode()
        self.record: RequestRecord = record_of(scope, request_id.decode("ascii"))
        self.started = self.complete = False
        self.body_is_coming = _header(scope, b"content-length") not in (None, b"0") or (
            _header(scope, b"transfer-encoding") is not None
        )
        self._shape = shape_of(scope["path"])
        self._send = send
        self._headers = (*ANSWER_HEADERS, (b"x-request-id", request_id))

    async def send(self, message: Message) -> None:
        """Pass a message on."""
        if message["type"] == "http.response.start":
            self.started, self.record.status = True, message["status"]
            headers = list(message.get("headers", []))
            known = {name.lower() for name, _ in headers}
            message["headers"] = headers + [(name, value) for name, value in self._headers if name not in known]
        elif message["type"] == "http.response.body":
            self.record.bytes_out += len(message.get("body", b""))
            self.complete = not message.get("more_body", False)
        await self._send(message)

    async def fail(self, failure: RequestFailure, receive: Receive) -> None:
        """Answer with a failure, unless an answer has begun."""
        if self.started:
            return
        self.record.failure = failure_in_short(failure)
        status, headers, body = answer_of(self._shape, failure)
        if isinstance(failure, _Unauthorized):
            headers["WWW-Authenticate"] = failure.challenge
        if self.body_is_coming:
            headers["Connection"] = "close"
        await self.send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
            }
        )
        await self.send({"type": "http.response.body", "body": body, "more_body": self.body_is_coming})
        if self.body_is_coming:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LINGER_S):
                    while (await receive()).get("more_body", False):
                        pass
            await self.send({"type": "http.response.body", "body": b""})


class _Unauthorized(RequestRefused):
    """No key came with a request, or another one."""

    status = 401

    def __init__(self, scope: Any) -> None:
        authorization = _header(scope, b"authorization")
        if authorization is not None and not _KEY.fullmatch(authorization):
            message, hint = "Authorization is not `Bearer KEY`", "send `Authorization: Bearer KEY`"
        elif authorization is not None or _header(scope, b"x-api-key") is not None:
            message, hint = "the API key is wrong", "send the one that the server was started with"
        else:
            message = "this server asks for an API key"
            hint = "send it as `Authorization: Bearer KEY`, or as `X-API-Key: KEY`"
        super().__init__(message, hint=hint)
        is_page = scope["method"] == "GET" and scope["path"] in PAGES
        self.challenge = 'Basic realm="rewardlab: the key is the password", charset="UTF-8"' if is_page else "Bearer"


def _header(scope: Any, name: bytes) -> bytes | None:
    """The first header of a name."""
    return next((value for key, value in scope["headers"] if key == name), None)


def has_key(headers: Iterable[tuple[bytes, bytes]], key: str | None) -> bool:
    """Whether a request shows the key; every one that it shows is compared, each in constant time.

    Args:
        headers: The request's, names in small letters.
        key: The key, printable ASCII; None where none is asked for.
    """
    if key is None:
        return True
    shown = []
    for name, value in headers:
        if name == b"x-api-key":
            shown.append(value)
        elif name == b"authorization":
            scheme, _, token = value.partition(b" ")
            if scheme.lower() == b"bearer":
                shown.append(token.strip())
            elif scheme.lower() == b"basic":
                with contextlib.suppress(binascii.Error):
                    shown.append(base64.b64decode(token.strip(), validate=True).partition(b":")[2])
    found = False
    for candidate in shown:
        found |= hmac.compare_digest(candidate, key.encode("ascii"))
    return found


def _require_readable(scope: Any) -> None:
    """Refuse a body that is packed, or does not say that it is JSON, before it is read.

    A page of another origin can post text or a form to this server from its visitor's browser without asking, but not
    JSON: for that the browser asks first, and this server never permits it.
    """
    encoding = (_header(scope, b"content-encoding") or b"identity").decode("latin-1").strip().lower()
    if encoding != "identity":
        raise RequestRefused(
            f"Content-Encoding {encoding[:40]!r} is not read", hint="send the body as it is", status=415
        )
    given = (_header(scope, b"content-type") or b"").decode("latin-1")
    media, *parameters = (part.strip().lower() for part in given.split(";"))
    if not _MEDIA_TYPE.fullmatch(media):
        raise RequestRefused(
            f"Content-Type {given[:80]!r}: expected application/json",
            hint="with curl: -H 'Content-Type: application/json'",
            status=415,
        )
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "charset" and value.strip().strip('"') not in ("utf-8", "utf8"):
            raise RequestRefused(f"charset {value[:40]!r} is not read", hint="send UTF-8", status=415)


def _require_own_page(scope: Any) -> None:
    """Refuse a post without a body from a page of another origin, which its browser sends without asking."""
    origin = _header(scope, b"origin")
    if origin is None or _header(scope, b"sec-fetch-site") == b"same-origin":
        return
    if origin.partition(b"://")[2] != (_header(scope, b"host") or b"none"):
        raise RequestRefused("a page of another origin may not use this server", status=403)


def _require_local_name(scope: Any) -> None:
    """Refuse a public name for this machine's own address: that is how a page's browser is turned against it.

    The page's own name is made to mean 127.0.0.1 (DNS rebinding), by which its origin and this server's become one.
    """
    name = _header(scope, b"host") or b""
    if not _LOCAL_NAME.fullmatch(name):
        raise RequestRefused(
            f"Host {name.decode('latin-1')[:80]!r} is no name of this machine, where alone this server listens",
            hint="ask for localhost; behind a proxy give the server a key (--api-key)",
            status=403,
        )


def _too_large(limit: int) -> RequestRefused:
    return RequestRefused(
        f"the body is larger than {limit} bytes", hint="send several requests, or raise --max-body-mb", status=413
    )


async def _disconnect(receive: Receive) -> Message:
    """Wait until the client goes."""
    while (message := await receive())["type"] != "http.disconnect":
        pass
    return message

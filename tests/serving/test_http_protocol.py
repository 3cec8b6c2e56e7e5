"""The protocol on real sockets: what clients send wrong, slowly, endlessly or too often."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gzip
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import uvicorn

from rewardlab.serving.guard import Guard
from rewardlab.serving.http_protocol import MAX_PIPELINED, LimitedProtocol
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
    """``/echo`` gives the body back, ``/slow`` takes a while, ``/large`` gives 16 MiB; counts what is cancelled."""

    def __init__(self) -> None:
        self.cancelled = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = (await receive())["body"] if scope["path"] == "/echo" else b'"ok"'
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
    """

    def __init__(self, settings: ServerSettings, loop: str) -> None:
        self.app = App()
        config = uvicorn.Config(
            Guard(self.app, settings, Metrics()),
            http=functools.partial(LimitedProtocol, settings=settings),  # type: ignore[arg-type]
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


@pytest.fixture(scope="module", params=[pytest.param("asyncio", marks=pytest.mark.slow), "uvloop"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    with Server(SETTINGS, request.param) as running:
        yield running


@pytest.fixture(autouse=True)
def _nothing_is_logged_and_the_server_lives(server: Server, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever a client does is no event of ours, holds no connection, and harms nobody else."""
    yield
    assert status(server.exchange(GET)) == 200
    wait_until(lambda: server.connections == 0, 8)
    assert [record.getMessage() for record in caplog.records if record.name != "rewardlab.serving.access"] == []


def test_an_ordinary_exchange_and_the_next_on_the_same_connection(server: Server) -> None:
    with server.connect() as connection:
        for number in range(3):
            connection.sendall(KEPT_POST % (1, b"%d" % number))
            wait = b""
            while not wait.endswith(b"\r\n\r\n%d" % number):
                wait += connection.recv(65536)
            assert status(wait) == 200
            assert b"server:" not in wait.lower()


def test_requests_sent_ahead_are_answered_in_order(server: Server) -> None:
    answers = server.exchange(b"".join(KEPT_POST % (1, b"%d" % number) for number in range(5)))
    assert [part[-1:] for part in answers.split(b"HTTP/1.1 ")[1:]] == [b"0", b"1", b"2", b"3", b"4"]


def test_too_many_sent_ahead_are_refused(server: Server) -> None:
    """The connection closes; the one that is worked on is cancelled, and nothing is written to a closed connection."""
    before = server.app.cancelled
    assert server.exchange(KEPT_GET.replace(b"/health", b"/slow") + KEPT_GET * (MAX_PIPELINED + 2)) == b""
    wait_until(lambda: server.app.cancelled == before + 1, 0.9)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
        b"hello\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET  HTTP/1.1\r\n\r\n",
        b"CONNECT example.org:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://x HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\na: \x00\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n1",
        b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n",
    ],
)
def test_what_is_no_http_is_400(server: Server, garbage: bytes) -> None:
    answer = server.exchange(garbage)
    assert status(answer) == 400
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == 400


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 10_000 + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 64 + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\na: " + b"b" * 2**20 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"b" * 2**20 + b": x\r\n\r\n",
        b"GET /" + b"x" * 2**20 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /" + b"x" * 3000 + b" HTTP/1.1\r\nHost: x\r\na: " + b"b" * 2000 + b"\r\n\r\n",
        CHUNKED + b"2\r\n{}\r\n0\r\n" + b"a: b\r\n" * 10_000,
        CHUNKED + b"0\r\na: " + b"b" * 2**20,
    ],
    ids=["10k headers", "one header too many", "long value", "long name", "long target", "sum", "trailers", "trailer"],
)
def test_a_head_over_the_limits_is_431(server: Server, head: bytes) -> None:
    answer = server.exchange(head)
    assert status(answer) in ((431, 200) if head.startswith(CHUNKED + b"2") else (431,))
    assert b"connection: close" in answer.lower() or b"{}" in answer


def test_a_head_within_the_limits_is_taken(server: Server) -> None:
    start = GET[:-2]
    assert status(server.exchange(start + b"a: b\r\n" * 62 + b"\r\n")) == 200
    assert status(server.exchange(start + b"a: " + b"b" * 4000 + b"\r\n\r\n")) == 200


def test_a_large_body_behind_a_small_head_is_no_head(server: Server) -> None:
    body = b'"' + b"x" * 90_000 + b'"'
    answer = server.exchange(POST % (len(body), body))
    assert status(answer) == 200
    assert answer.endswith(body)


def test_a_slow_head_is_cut_off(server: Server) -> None:
    """A byte now and then (slow loris) does not extend the time for the whole head."""
    start = time.monotonic()
    with server.connect() as connection:
        connection.settimeout(0.05)
        for byte in GET.replace(b"\r\n\r\n", b"\r\nA: ") + b"x" * 100:
            connection.sendall(bytes([byte]))
            with contextlib.suppress(TimeoutError):
                answer = connection.recv(65536)
                break
    assert status(answer) == 408
    assert time.monotonic() - start < 2


@pytest.mark.parametrize("noise", [b"", b"\r\n"])
def test_a_connection_that_asks_nothing_is_closed(server: Server, noise: bytes) -> None:
    with server.connect() as connection:
        connection.settimeout(0.1)
        for _ in range(30):
            with contextlib.suppress(TimeoutError):
                connection.sendall(noise)
                assert connection.recv(10) == b""
                return
    pytest.fail("is still open after 3 s")


def test_the_second_request_of_a_connection_has_the_same_time(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(KEPT_GET)
        assert status(connection.recv(65536)) == 200
        connection.sendall(b"GET / HT")
        assert status(read(connection, 2)) == 408


def test_a_body_that_trickles_is_cut_off(server: Server) -> None:
    start = time.monotonic()
    answer = server.exchange(POST % (100, b'"x'), *[b"x"] * 25, pause=0.03)
    assert status(answer) == 408
    assert time.monotonic() - start < 5


def test_a_chunked_body_without_end_is_cut_at_the_limit(server: Server) -> None:
    answer = server.exchange(CHUNKED, *[b"4000\r\n" + b"x" * 0x4000 + b"\r\n"] * 200)
    assert status(answer) == 413


def test_a_body_that_says_it_is_too_large_is_refused_before_it_comes(server: Server) -> None:
    answer = server.exchange(POST % (10**9, b""))
    assert status(answer) == 413
    assert b"connection: close" in answer


def test_a_client_that_sends_all_of_a_large_body_reads_its_refusal(server: Server) -> None:
    """Closed at once, its connection would be reset before it has read why."""
    body = b"x" * 10_000_000
    with server.connect() as connection:
        connection.sendall(POST % (len(body), body))
        assert status(read(connection, 3)) == 413


def test_packed_bodies_are_refused(server: Server) -> None:
    body = gzip.compress(b"{}" * 1000)
    head = (POST % (len(body), b"")).replace(b"Host", b"Content-Encoding: gzip\r\nHost")
    assert status(server.exchange(head + body)) == 415


def test_a_client_that_asks_whether_to_send_is_told(server: Server) -> None:
    head = (POST % (2, b"")).replace(b"Host", b"Expect: 100-continue\r\nHost")
    with server.connect() as connection:
        connection.sendall(head)
        assert connection.recv(65536).startswith(b"HTTP/1.1 100")
        connection.sendall(b"{}")
        assert status(connection.recv(65536)) == 200


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket"])
def test_upgrades_are_not_taken_and_not_an_error(server: Server, protocol: bytes) -> None:
    head = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n" % protocol
    assert status(server.exchange(head)) == 200
    posted = (KEPT_POST % (2, b"{}")).replace(b"Host", b"Connection: Upgrade\r\nUpgrade: %s\r\nHost" % protocol)
    assert status(server.exchange(posted)) == 200


def test_more_connections_than_allowed_are_503(server: Server) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(SETTINGS.max_connections):
            stack.enter_context(server.connect())
        wait_until(lambda: server.connections == SETTINGS.max_connections)
        answer = server.exchange(GET)
        assert status(answer) == 503
        assert b"Retry-After: 2" in answer
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["type"] == "service_unavailable"


def test_clients_that_go_cancel_the_application(server: Server) -> None:
    before = server.app.cancelled
    for _ in range(10):
        with server.connect() as connection:
            connection.sendall(GET.replace(b"/health", b"/slow"))
            time.sleep(0.02)
    wait_until(lambda: server.app.cancelled == before + 10, 0.9)


def test_a_client_that_does_not_read_is_cut_off(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(GET.replace(b"/health", b"/large"))
        wait_until(lambda: server.connections == 1)
        wait_until(lambda: server.connections == 0)


def test_other_limits_are_other_protocols() -> None:
    with Server(replace(SETTINGS, max_headers=2), "asyncio") as strict:
        assert status(strict.exchange(GET)) == 200
        assert status(strict.exchange(GET.replace(b"\r\n\r\n", b"\r\na: b\r\n\r\n"))) == 431

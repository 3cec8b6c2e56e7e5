"""The protocol on real sockets: what clients send wrong, slowly, endlessly or too often."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from tests.serving.bare_server import (
    CHUNKED,
    GET,
    KEPT_GET,
    KEPT_POST,
    POST,
    SETTINGS,
    Server,
    read,
    status,
    wait_until,
)

from rewardlab.serving import http_protocol
from rewardlab.serving.failures import Overloaded
from rewardlab.serving.guard import ANSWER_HEADERS
from rewardlab.serving.http_protocol import MAX_PIPELINED


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
    records = caplog.get_records("call") + caplog.records  # each phase has its own
    assert [record.getMessage() for record in records if record.name != "rewardlab.serving.access"] == []


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
    body = b'{"a": 1}'
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\nUPGRADE: %s\r\nHost" % protocol
    posted = (KEPT_POST % (len(body), body)).replace(b"Host", offer)
    for sent in ((posted + POST % (2, b"{}"),), tuple(bytes([byte]) for byte in posted + POST % (2, b"{}"))):
        first, second = server.exchange(*sent).split(b"HTTP/1.1 ")[1:]
        assert (first[:3], second[:3]) == (b"200", b"200")
        assert first.endswith(b"\r\n\r\n" + body)
    chunked = CHUNKED.replace(b"Host", offer) + b"8\r\n" + body + b"\r\n0\r\n\r\n"
    assert body in server.exchange(chunked)
    assert server.exchange(posted * 5).count(body) == 5
    large = b'"' + b"x" * 60_000 + b'"'
    assert large in server.exchange((KEPT_POST % (len(large), large)).replace(b"Host", offer))


def test_an_offer_to_upgrade_is_no_way_around_the_limits(server: Server) -> None:
    offer = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
    assert status(server.exchange(offer + b"a: b\r\n" * 64 + b"\r\n")) == 431
    assert status(server.exchange(offer + b"a: " + b"b" * 2**20 + b"\r\n\r\n")) == 431
    assert status(server.exchange(offer.replace(b"Host: x\r\n", b"") + b"\r\n")) == 400
    assert status(server.exchange(offer + b"Connection: close\r\n\r\n" + b"no HTTP")) == 200


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"GET /health HTTP/1.1\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", 400),
        (b"GET /health HTTP/1.0\r\nHost: x\r\nhost: y\r\n\r\n", 400),
        (b"GET /health HTTP/1.0\r\n\r\n", 200),
        (b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", 200),
    ],
)
def test_a_request_names_its_host_once(server: Server, head: bytes, expected: int) -> None:
    """RFC 9112, 3.2; HTTP/1.0 knows no Host."""
    answer = server.exchange(head)
    assert status(answer) == expected
    assert (b" Host headers, expected one" in answer) == (expected == 400)


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


# Overload

CLOSE_S = 0.4
"""For these tests; else a second."""


@pytest.fixture
def busy(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The server while it refuses what scores."""
    monkeypatch.setattr(http_protocol, "CLOSE_S", CLOSE_S)
    server.refusal = Overloaded("the queue is 70 s long", retry_after=2.5)
    server.app.begun.clear()
    server.in_progress.clear()
    yield server
    server.refusal = None


def head_and_body(answer: bytes) -> tuple[int, dict[str, str], Any]:
    """One answer, of which nothing follows its body."""
    head, _, body = answer.partition(b"\r\n\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head.decode().split("\r\n"))}
    assert int(headers["content-length"]) == len(body)
    return status(answer), headers, json.loads(body)


@pytest.mark.parametrize("packets", ["together", "apart"])
@pytest.mark.parametrize(
    ("path", "expected", "body"),
    [
        (
            b"/v1/rewards?a=b",
            503,
            {"error": {"message": "the queue is 70 s long", "type": "overloaded", "param": None, "code": 503}},
        ),
        (b"/predict", 429, {"error": "the queue is 70 s long", "error_type": "Overloaded"}),
    ],
)
def test_what_would_wait_too_long_is_refused_unread(
    busy: Server, path: bytes, expected: int, body: Any, packets: str
) -> None:
    """Once its body is here, in its head's packet or a later one: 2.5 s to wait are 3, and the connection closes."""
    head = (KEPT_POST % (2, b"")).replace(b"/echo", path)
    parts = [head + b"{}"] if packets == "together" else [head, b"{", b"}"]
    with busy.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        start = time.monotonic()
        for part in parts:
            connection.sendall(part)
            time.sleep(0.03)
        answer = read(connection, 5)
        assert time.monotonic() - start < CLOSE_S, "it does not wait for a body that is here"
        assert connection.recv(10) == b""
    found, headers, words = head_and_body(answer)
    assert (found, words) == (expected, body)
    assert (headers["retry-after"], headers["connection"]) == ("3", "close")
    assert all(headers[name.decode()] == value.decode() for name, value in ANSWER_HEADERS)
    assert busy.app.begun == []


def test_a_body_that_never_comes_is_not_waited_for(busy: Server) -> None:
    with busy.connect() as connection:
        connection.sendall(KEPT_POST % (100, b"{"))
        start = time.monotonic()
        assert head_and_body(read(connection, 5))[0] == 503
        assert CLOSE_S / 2 < time.monotonic() - start < 4 * CLOSE_S
    assert busy.app.begun == []


def test_what_is_no_http_after_a_refused_head_is_answered_once(busy: Server) -> None:
    """The refusal that waits for the body must not follow the one of the body's form: nothing is written to an end."""
    with busy.connect() as connection:
        connection.sendall(CHUNKED + b"zz\r\n")
        assert head_and_body(read(connection))[0] == 400
        time.sleep(1.5 * CLOSE_S)  # the client keeps its half open
    with busy.connect() as connection:
        connection.sendall(CHUNKED + b"0\r\na: " + b"b" * 20_000)
        assert head_and_body(read(connection))[0] == 431
        time.sleep(1.5 * CLOSE_S)  # the client keeps its half open


@pytest.mark.parametrize(
    "request_line",
    [
        *(b"GET /v1/models", b"GET /metrics", b"POST /sleep?level=1", b"POST /wake_up", b"POST /reload", b"POST /ping"),
        *(b"POST http://x/wake_up", b"POST /w%61ke_up"),
    ],
)
def test_what_does_not_score_is_never_refused_so(busy: Server, request_line: bytes) -> None:
    answer = busy.exchange(request_line + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert status(answer) == 200
    assert busy.in_progress == []


def test_a_request_sent_ahead_behind_a_refused_one_is_not_run(busy: Server) -> None:
    """Its client was told that the connection closes, and sends it again: it would be scored twice."""
    post = KEPT_POST % (2, b"{}")
    for sent in (post + KEPT_GET, post * 5, post + b"no HTTP"):
        assert head_and_body(busy.exchange(sent))[0] == 503
    time.sleep(0.05)
    assert busy.app.begun == []
    assert len(busy.in_progress) == 3


def test_a_kept_connection_is_refused_at_its_second_request(busy: Server) -> None:
    refusal, busy.refusal = busy.refusal, None
    with busy.connect() as connection:
        connection.sendall(KEPT_POST % (2, b"{}"))
        assert status(connection.recv(65536)) == 200
        busy.refusal = refusal
        connection.sendall(KEPT_POST % (2, b"{}"))
        assert head_and_body(read(connection, 5))[0] == 503
    assert busy.app.begun == ["/echo"]


def test_what_a_connection_has_queued_is_not_refused(busy: Server) -> None:
    """The answer to it would come before the one that is worked on."""
    refusal, busy.refusal = busy.refusal, None
    with busy.connect() as connection:
        connection.sendall(KEPT_GET.replace(b"/health", b"/slow"))
        wait_until(lambda: busy.app.begun == ["/slow"])
        busy.refusal = refusal
        connection.sendall(POST % (2, b"{}"))
        answers = read(connection, 5)
    assert [int(part[:3]) for part in answers.split(b"HTTP/1.1 ")[1:]] == [200, 200]


def test_the_backend_is_told_how_many_requests_are_in_progress(server: Server) -> None:
    server.in_progress.clear()
    with server.connect() as slow:
        slow.sendall(GET.replace(b"/health", b"/slow"))
        time.sleep(0.1)
        assert status(server.exchange(POST % (2, b"{}"))) == 200
    assert server.in_progress == [1]


def test_who_has_no_key_is_told_nothing_of_the_load() -> None:
    """But that a key is missing, by the guard."""
    with Server(replace(SETTINGS, api_key="k"), "asyncio") as guarded:
        guarded.refusal = Overloaded("the queue is 70 s long", retry_after=2)
        for header in (b"A: b", b"X-API-Key: K", b"Authorization: Bearer"):
            answer = guarded.exchange((POST % (2, b"{}")).replace(b"Host", header + b"\r\nHost"))
            assert status(answer) == 401
            assert b"70 s" not in answer
        assert guarded.in_progress == []
        for header in (b"X-API-Key: k", b"Authorization: Bearer k"):
            answer = guarded.exchange((POST % (2, b"{}")).replace(b"Host", header + b"\r\nHost"))
            assert head_and_body(answer)[0] == 503
        assert guarded.app.begun == []


def test_a_request_counts_its_time_from_its_head(server: Server) -> None:
    """Its body comes 0.3 s later, and is waited for in the time that its deadline leaves."""
    head = (POST % (2, b"")).replace(b"/echo", b"/arrived")
    elapsed = float(server.exchange(head, b"{}", pause=0.3).rpartition(b"\r\n\r\n")[2])
    assert 0.25 < elapsed < 0.6
    assert float(server.exchange(head + b"{}").rpartition(b"\r\n\r\n")[2]) < 0.2


def test_an_answer_to_what_came_late_is_the_last(server: Server) -> None:
    """A head of 0.3 s ends as no HTTP: the time for it ends 0.1 s later, before the connection is closed for good."""
    with server.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n")
        time.sleep(0.3)
        connection.sendall(b"bad header\r\n\r\n")
        assert head_and_body(read(connection, 0.5))[0] == 400
        time.sleep(0.3)

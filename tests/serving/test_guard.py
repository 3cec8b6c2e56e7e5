"""What stands between the network and the application, with an application of a few lines behind it."""

from __future__ import annotations

import asyncio
import base64
import logging
from typing import Any

import pytest
from tests.serving.guard_client import JSON, KEY, Client, Echo

from rewardlab.serving import guard as guard_module
from rewardlab.serving.fault_log import log_fault
from rewardlab.serving.guard import Guard
from rewardlab.serving.metrics import Metrics
from rewardlab.serving.settings import ServerSettings


@pytest.fixture(autouse=True)
def _short_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard_module, "LINGER_S", 0.05)


def basic(user: bytes, password: bytes) -> bytes:
    return b"Basic " + base64.b64encode(user + b":" + password)


# Keys

RIGHT = {
    "bearer": [(b"authorization", b"Bearer s3cret-key")],
    "bearer in small letters": [(b"authorization", b"bearer s3cret-key")],
    "x-api-key": [(b"x-api-key", b"s3cret-key")],
    "basic": [(b"authorization", basic(b"", b"s3cret-key"))],
    "basic with a user": [(b"authorization", basic(b"someone", b"s3cret-key"))],
    "a wrong one before it": [(b"x-api-key", b"wrong"), (b"authorization", b"Bearer s3cret-key")],
}
WRONG = {
    "none": [],
    "empty": [(b"authorization", b"")],
    "scheme alone": [(b"authorization", b"Bearer")],
    "no key": [(b"authorization", b"Bearer ")],
    "another": [(b"authorization", b"Bearer s3cret-keY")],
    "a part": [(b"x-api-key", b"s3cret")],
    "longer": [(b"x-api-key", b"s3cret-keyy")],
    "without scheme": [(b"authorization", b"s3cret-key")],
    "another scheme": [(b"authorization", b"Token s3cret-key")],
    "not ascii": [(b"x-api-key", "schlüssel".encode())],
    "bytes": [(b"authorization", b"Bearer \xff\xfe\x00")],
    "basic as user": [(b"authorization", basic(b"s3cret-key", b""))],
    "basic without colon": [(b"authorization", b"Basic " + base64.b64encode(b"s3cret-key"))],
    "basic that is no base64": [(b"authorization", b"Basic !!!\xff")],
    "basic cut": [(b"authorization", b"Basic czNjcmV0LWt")],
    "long": [(b"authorization", b"Bearer " + b"x" * 100_000)],
    "repeated": [(b"authorization", b"Bearer wrong")] * 200,
    "in the query": [(b"x-other", b"s3cret-key")],
    "cookie": [(b"cookie", b"key=s3cret-key")],
}


@pytest.mark.parametrize("headers", RIGHT.values(), ids=RIGHT)
def test_the_key_opens(headers: list[tuple[bytes, bytes]]) -> None:
    reply = Client(api_key=KEY)(b"{}", headers=JSON + headers)
    assert (reply.status, reply.body) == (200, b"{}")


@pytest.mark.parametrize("headers", WRONG.values(), ids=WRONG)
def test_anything_else_does_not(headers: list[tuple[bytes, bytes]]) -> None:
    client = Client(api_key=KEY)
    reply = client(b"{}", headers=JSON + headers)
    assert reply.status == 401
    assert reply.headers["www-authenticate"] == "Bearer"
    assert reply.json()["error"]["code"] == 401
    assert client.app.bodies == []
    assert client.metrics.requests == [("unknown", 401)]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none", "this server asks for an API key"),
        ("in the query", "this server asks for an API key"),
        ("another", "the API key is wrong"),
        ("longer", "the API key is wrong"),
        ("basic as user", "the API key is wrong"),
        ("without scheme", "Authorization is not `Bearer KEY`"),
        ("scheme alone", "Authorization is not `Bearer KEY`"),
        ("another scheme", "Authorization is not `Bearer KEY`"),
    ],
)
def test_who_is_refused_is_told_what_is_wrong(name: str, message: str) -> None:
    """A missing key, a wrong one, and one in the wrong form are mended in three ways."""
    said = Client(api_key=KEY)(b"{}", headers=JSON + WRONG[name]).json()["error"]["message"]
    assert said.startswith(f"{message}; send")


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/metrics", "/v1/rewards", "/nothing", "/health/", "/Health", "//health"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "OPTIONS", "DELETE"])
def test_every_route_but_health_asks_for_it(path: str, method: str) -> None:
    assert Client(api_key=KEY)(method=method, path=path, headers=[]).status == 401


def test_health_does_not() -> None:
    assert Client(api_key=KEY)(method="GET", path="/health", headers=[]).status == 200


def test_without_a_key_nothing_asks() -> None:
    assert Client()(method="GET", path="/nothing", headers=[]).status == 200


@pytest.mark.parametrize(("path", "offered"), [("/", "Basic "), ("/docs", "Basic "), ("/metrics", "Bearer")])
def test_a_browser_is_asked_for_the_key_on_pages(path: str, offered: str) -> None:
    assert Client(api_key=KEY)(method="GET", path=path, headers=[]).headers["www-authenticate"].startswith(offered)


def test_pages_have_no_head() -> None:
    """They are GET's alone, and so is the browser's question."""
    assert Client(api_key=KEY)(method="HEAD", path="/", headers=[]).headers["www-authenticate"] == "Bearer"


def test_a_refused_body_is_not_read_before_the_answer_and_the_connection_closes() -> None:
    reply = Client(api_key=KEY)([b"{"], headers=JSON, ends=False)
    assert (reply.status, reply.headers["connection"], reply.complete) == (401, "close", True)


# Bodies


@pytest.mark.parametrize(
    "given",
    [
        b"application/json",
        b"application/json; charset=utf-8",
        b'Application/JSON;charset="UTF-8"',
        b"application/vnd.api+json",
        b"application/json; profile=x",
    ],
)
def test_json_is_taken(given: bytes) -> None:
    assert Client()(b'{"a": 1}', headers=[(b"content-type", given)]).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"content-type", b"text/plain")],
        [(b"content-type", b"application/x-www-form-urlencoded")],
        [(b"content-type", b"multipart/form-data; boundary=json")],
        [(b"content-type", b"text/plain; application/json")],
        [(b"content-type", b"application/jsonp")],
        [(b"content-type", b"application/json; charset=latin-1")],
        [(b"content-type", b"\xff\xfe")],
        [*JSON, (b"content-encoding", b"gzip")],
        [*JSON, (b"content-encoding", b"\xff")],
    ],
)
def test_what_is_not_plain_json_is_415(headers: list[tuple[bytes, bytes]]) -> None:
    client = Client()
    reply = client(b"{}", headers=headers)
    assert reply.status == 415
    assert reply.json()["error"]["type"] == "invalid_request_error"
    assert client.app.bodies == []


def test_identity_is_no_encoding() -> None:
    assert Client()(b"{}", headers=[*JSON, (b"content-encoding", b"Identity")]).status == 200


def test_a_declared_length_over_the_limit_is_refused_without_reading() -> None:
    client = Client(max_body_bytes=100)
    reply = client([], headers=[*JSON, (b"content-length", b"101")], leaves_after=0.5)
    assert (reply.status, client.parts_taken) == (413, 0)
    assert "100 bytes" in reply.json()["error"]["message"]
    assert Client(max_body_bytes=100)(b'"' + b"x" * 98 + b'"').status == 200


def test_a_body_without_length_is_cut_at_the_limit() -> None:
    client = Client(max_body_bytes=100)
    reply = client([b"x" * 40] * 1000, chunked=True)
    assert reply.status == 413
    assert client.app.bodies == []


def test_a_body_in_parts_arrives_whole() -> None:
    client = Client()
    assert client([b'{"a"', b": ", b"1}"], chunked=True).body == b'{"a": 1}'
    assert client.app.bodies == [b'{"a": 1}']


def test_a_body_that_does_not_come_is_408() -> None:
    reply = Client(body_timeout_s=0.05)([b"{"], headers=[*JSON, (b"content-length", b"9")], ends=False)
    assert (reply.status, reply.headers["connection"]) == (408, "close")


def test_bodies_of_all_connections_together_are_bounded_until_their_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two bodies of 10 bytes may be held: while they wait for their answers a third one of 2 bytes may not.

    Read is not gone: the body is held, and what was parsed of it, for as long as its items wait.
    """
    monkeypatch.setattr(guard_module, "BODIES_IN_MEMORY", 2)
    release = asyncio.Event()
    replies: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await release.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def ask(body: bytes) -> None:
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Any:
            return messages.pop() if messages else await asyncio.Event().wait()

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                replies.append(message["status"])

        headers = [*JSON, (b"content-length", str(len(body)).encode())]
        scope = {"type": "http", "method": "POST", "path": "/", "headers": headers}
        await asyncio.wait_for(guard(scope, receive, send), 2)

    async def run() -> None:
        waiting = [asyncio.create_task(ask(b'"12345678"')) for _ in range(2)]
        await asyncio.sleep(0.02)
        await ask(b"{}")
        assert replies == [503]
        release.set()
        await asyncio.gather(*waiting)
        await ask(b"{}")
        assert replies == [503, 200, 200, 200]

    guard = Guard(app, ServerSettings(max_body_bytes=10), Metrics())
    asyncio.run(run())


@pytest.mark.parametrize(
    ("body", "options", "status"),
    [
        (b"{}", {}, 200),
        (b"{", {}, 400),
        ([b"x" * 60] * 3, {"chunked": True}, 413),
        ([b"{", b"}"], {"ends": False, "chunked": True}, 408),
        ([b"{"], {"ends": False, "chunked": True, "leaves_after": 0.02}, None),
        (b"{}", {"leaves_after": 0.02}, None),
        (b"{}", {"cancelled_after": 0.05}, 503),
    ],
)
def test_no_body_is_counted_for_ever(body: Any, options: dict[str, Any], status: int | None) -> None:
    waits = Echo(wait=5.0 if "cancelled_after" in options or options.keys() == {"leaves_after"} else 0.0)
    client = Client(waits, max_body_bytes=100, body_timeout_s=0.1)
    assert client(body, **options).status == status
    assert client.guard._buffered == 0


@pytest.mark.parametrize("path", ["/v1/rewards", "/predict"])
@pytest.mark.parametrize("body", [b"{", b'{"a": NaN}', b"\xff", b'{"a": 1, "a": 2}', b"[" * 50, b'"\\ud800"'])
def test_a_body_that_is_no_json_is_refused_in_the_dialects_shape(path: str, body: bytes) -> None:
    reply = Client()(body, path=path)
    if path == "/predict":
        assert (reply.status, reply.json()["error_type"]) == (422, "Validation")
    else:
        assert (reply.status, reply.json()["error"]["code"]) == (400, 400)
    assert "connection" not in reply.headers


def test_a_method_without_a_body_may_have_none() -> None:
    assert Client()(b"", headers=[]).status == 200
    assert Client()(b"", headers=[(b"content-length", b"0")]).status == 200


def test_a_body_is_checked_whatever_the_method() -> None:
    assert Client()(b"[", method="GET").status == 400
    assert Client()(b"[", method="DELETE", headers=[]).status == 415


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([(b"origin", b"http://evil.example"), (b"host", b"127.0.0.1:8000")], 403),
        ([(b"origin", b"null"), (b"host", b"127.0.0.1:8000")], 403),
        ([(b"origin", b"http://[")], 403),
        ([(b"origin", b"http://127.0.0.1:9000"), (b"host", b"127.0.0.1:8000")], 403),
        ([(b"origin", b"http://127.0.0.1:8000"), (b"host", b"127.0.0.1:8000")], 200),
        ([(b"origin", b"https://rm.example"), (b"host", b"internal"), (b"sec-fetch-site", b"same-origin")], 200),
        ([(b"host", b"127.0.0.1:8000")], 200),
    ],
)
def test_another_page_cannot_post_without_a_body(headers: list[tuple[bytes, bytes]], status: int) -> None:
    """Such a request needs no preflight: ``POST /sleep`` from any page in the operator's browser."""
    assert Client()(path="/sleep", headers=headers).status == status


@pytest.mark.parametrize(
    ("host", "local"),
    [
        (b"127.0.0.1:8000", True),
        (b"localhost:8000", True),
        (b"rm.localhost", True),
        (b"localhost.", True),
        (b"RM.LocalHost.:8000", True),
        (b"evil.example.", False),
        (b"notlocalhost.", False),
        (b"evil.localhost.example", False),
        (b"[::1]:8000", True),
        (b"10.0.0.7", True),
        (b"workstation:8000", True),
        (b"", True),
        (b"evil.example:8000", False),
        (b"localhost.evil.example", False),
        (b"127.0.0.1.evil.example", False),
        (b"\xff.example", False),
    ],
)
def test_a_public_name_does_not_mean_this_machine(host: bytes, local: bool) -> None:
    """DNS rebinding: a page whose own name is made to mean 127.0.0.1 could use a server that asks for no key."""
    assert Client()(b"{}", headers=[*JSON, (b"host", host)]).status == (200 if local else 403)
    assert Client(host="0.0.0.0")(b"{}", headers=[*JSON, (b"host", host)]).status == 200
    with_key = [*JSON, *RIGHT["bearer"], (b"host", host)]
    assert Client(api_key=KEY)(b"{}", headers=with_key).status == 200


# Clients that go, applications that fail, servers that end


def test_an_application_is_cancelled_when_its_client_goes(caplog: pytest.LogCaptureFixture) -> None:
    client = Client(Echo(wait=5))
    with caplog.at_level(logging.WARNING):
        reply = client(b"{}", leaves_after=0.05)
    assert reply.status is None
    assert client.app.cancelled
    assert client.metrics.requests == [("/v1/{name}", 499)]
    assert caplog.records == []


def test_a_client_that_goes_with_its_body_half_sent_is_no_error() -> None:
    client = Client()
    assert client([b"{"], chunked=True, ends=False, leaves_after=0.02).status is None
    assert client.metrics.requests == [("unknown", 499)]
    assert client.app.bodies == []


def test_an_application_may_tidy_up_after_its_answer() -> None:
    """The server says ``http.disconnect`` once the answer is complete; that is no reason to cancel."""
    done = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})
        await asyncio.sleep(0.1)
        done.append(True)

    assert Client(app)(b"{}", leaves_after=0.03).body == b"ok"
    assert done == [True]


def test_an_application_can_wait_for_the_disconnect() -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        try:
            seen.append(await receive())
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    Client(app)(b"{}", leaves_after=0.03)
    assert len(seen) == 1


def test_an_exception_that_escapes_is_500_without_details(caplog: pytest.LogCaptureFixture) -> None:
    client = Client(Echo(error=RuntimeError("a user's text")))
    reply = client(b"{}")
    assert reply.status == 500
    assert b"user" not in reply.body
    assert "a user's text" not in caplog.text
    assert f"request {reply.headers['x-request-id']}: /v1/rewards raised RuntimeError" in caplog.text
    assert "raise self.error" in caplog.text, "where it was raised"
    assert client.metrics.requests == [("/v1/{name}", 500)]


def test_an_exception_after_the_answer_began_is_logged_alone(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError

    reply = Client(app)(b"{}")
    assert (reply.status, reply.complete) == (200, False)
    assert "raised RuntimeError" in caplog.text


def test_a_task_that_the_server_ends_is_told_so() -> None:
    client = Client(Echo(wait=5))
    reply = client(b"{}", cancelled_after=0.05)
    assert (reply.status, reply.headers["retry-after"]) == (503, "5")
    assert client.app.cancelled


# What every answer and every line has


def test_every_answer_has_the_headers() -> None:
    for reply in (Client()(b"{}"), Client()(b"{"), Client(api_key=KEY)(b"{}")):
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["referrer-policy"] == "no-referrer"
        assert reply.headers["cache-control"] == "no-store"
        assert len(reply.headers["x-request-id"]) == 16


def test_what_the_application_says_itself_stands_once() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"Cache-Control", b"max-age=60")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    reply = Client(app)(b"{}")
    assert [value for name, value in reply.headers.items() if name.lower() == "cache-control"] == ["max-age=60"]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (b"abc-123", True),
        (b"x" * 64, True),
        (b"x" * 65, False),
        (b"", False),
        (b"a b", False),
        (b"a\nb", False),
        ("é".encode(), False),
        (b'a"b', False),
    ],
)
def test_a_request_id_is_the_clients_where_it_can_be(given: bytes, kept: bool) -> None:
    reply = Client()(b"{}", headers=[*JSON, (b"x-request-id", given)])
    assert (reply.headers["x-request-id"].encode() == given) is kept


def test_the_log_has_neither_text_nor_key_nor_query(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        Client(api_key=KEY)(b'{"prompt": "a secret"}', headers=JSON + RIGHT["bearer"])
    (line,) = (record.getMessage() for record in caplog.records)
    assert " POST /v1/rewards 200 " in line
    assert "in=22 out=22" in line
    assert [word for word in ("secret", KEY, "in-the-url") if word in line] == []


def test_lifespans_pass_and_websockets_are_closed() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    async def send(message: Any) -> None:
        seen.append(message["type"])

    async def run() -> None:
        guard = Guard(app, ServerSettings(), Metrics())
        await guard({"type": "lifespan"}, send, send)
        await guard({"type": "websocket", "path": "/"}, send, send)

    asyncio.run(run())
    assert seen == ["lifespan", "websocket.close"]


def test_a_fault_is_logged_by_its_type_and_place(caplog: pytest.LogCaptureFixture) -> None:
    """Never by its words, which may quote a client's text."""
    try:
        raise ValueError("a user's text")
    except ValueError as error:
        log_fault(logging.getLogger("rewardlab.serving"), "computing", error)
    (record,) = caplog.records
    first, *_, place = record.getMessage().splitlines()
    assert (record.levelname, first) == ("ERROR", "computing raised ValueError")
    assert 'raise ValueError("a user' in place, "the source's line, which is ours"
    assert record.exc_info is None

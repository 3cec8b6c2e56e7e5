"""Bad input to the whole server over real sockets: 4xx at once, in the dialect's own shape, and the server lives on.

The server has a key, so that what it says to those without one is seen on every route of its own OpenAPI document. The
bound on seconds is that of a machine that does much else; on a quiet one each answer takes milliseconds.
"""

from __future__ import annotations

import gzip
import http.client
import json
import re
import socket
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.serving.server_process import HOST, Reply, ServerProcess

from rewardlab.serving.settings import ServerSettings

KEY = "sesame-open-sesame"
SECONDS = 10.0
LIMITS = ServerSettings()
TIME_OUTS = {"header_timeout_s": 2.0, "body_timeout_s": 2.0}
JSON_ROUTES = ["/classify", "/predict", "/v1/rewards"]
"""One of each error shape, and the native one."""
CHANGES_THE_SERVER = {"/sleep", "/wake_up", "/reload"}


@pytest.fixture(scope="module")
def server(reward_model: Path) -> Iterator[ServerProcess]:
    with ServerProcess(reward_model, api_key=KEY, **TIME_OUTS) as started:
        yield started.wait_until_ready()


@pytest.fixture(scope="module")
def memory(server: ServerProcess) -> float:
    """Resident memory before anything bad was sent, in MB."""
    ask(server, "POST", "/classify", b'{"input": "a"}')
    return server.rss_mb


@pytest.fixture(scope="module")
def document(server: ServerProcess) -> dict[str, Any]:
    """The server's own OpenAPI document."""
    return server.get("/openapi.json", Authorization=f"Bearer {KEY}").json()


@pytest.fixture(autouse=True)
def _lives_on(server: ServerProcess, memory: float) -> Iterator[None]:
    """After every test the server is there, answers rightly, and has kept nothing."""
    yield
    assert server.process.poll() is None
    reply = ask(server, "POST", "/classify", b'{"input": "a"}')
    assert reply.status == 200
    assert server.rss_mb < memory + 50


def ask(server: ServerProcess, method: str, path: str, body: bytes | None = None, **headers: str) -> Reply:
    """One request with the key."""
    given = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    return server.request(method, path, body, given | {name.replace("_", "-"): text for name, text in headers.items()})


def send(server: ServerProcess, head: str, content: bytes = b"") -> Reply:
    """Bare bytes; the server may answer and close before it has read them all."""
    begin = time.perf_counter()
    with server.connect() as connection:
        with suppress(OSError):  # it may have said no already
            connection.sendall(head.encode() + content)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        named = {name.lower(): value for name, value in answer.getheaders()}
        return Reply(answer.status, named, answer.read(), time.perf_counter() - begin)


def head_of(path: str, *lines: str) -> str:
    given = [f"POST {path} HTTP/1.1", f"Host: {HOST}", f"Authorization: Bearer {KEY}", "Content-Type: application/json"]
    return "\r\n".join([*given, *lines]) + "\r\n\r\n"


def require_shape(reply: Reply, path: str) -> None:
    """The body is the dialect's own error body."""
    told = reply.json()
    if path == "/predict":
        assert set(told) == {"error", "error_type"}
        assert isinstance(told["error"], str)
    else:
        assert set(told["error"]) == {"message", "type", "param", "code"}
        assert told["error"]["code"] == reply.status
    assert reply.headers["content-type"].startswith("application/json")


def require_refused(reply: Reply, path: str, *statuses: int) -> None:
    """4xx, soon, in the dialect's own shape."""
    assert reply.status in (statuses or range(400, 500)), (reply.status, reply.content[:300])
    assert reply.seconds < SECONDS
    require_shape(reply, path)


BAD_BODIES = {
    "empty": b"",
    "not JSON": b"what?",
    "cut short": b'{"input": "a',
    "more behind": b'{"input": "a"} {"input": "b"}',
    "deep lists": b'{"input": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "deep and cut short": b"[" * 1_000_000,
    "duplicate keys": b'{"input": "a", "input": "b"}',
    "duplicate keys, escaped": b'{"input": "a", "\\u0069nput": "b"}',
    "NaN": b'{"input": "a", "x": NaN}',
    "Infinity": b'{"input": "a", "x": [-Infinity]}',
    "a number that overflows": b'{"input": "a", "x": 1e999}',
    "an integer above 2^63": b'{"input": "a", "x": 9223372036854775808}',
    "an integer of 100,000 digits": b'{"input": "a", "x": ' + b"9" * 100_000 + b"}",
    "not UTF-8": b'{"input": "\xff\xfe"}',
    "UTF-16": '{"input": "a"}'.encode("utf-16"),
    "half a surrogate pair": b'{"input": "\\ud800", "inputs": "\\ud800", "prompt": "\\ud800", "completions": ["a"]}',
    "a bare string": b'"input"',
    "null": b"null",
}


@pytest.mark.parametrize("path", JSON_ROUTES)
@pytest.mark.parametrize("name", BAD_BODIES)
def test_a_body_that_cannot_be_read_is_refused(server, name, path):
    require_refused(ask(server, "POST", path, BAD_BODIES[name]), path, 400, 413, 422)


@pytest.mark.parametrize("path", JSON_ROUTES)
def test_a_body_over_the_limit_is_refused_before_it_is_sent(server, path):
    reply = send(server, head_of(path, f"Content-Length: {LIMITS.max_body_bytes + 1}"))
    require_refused(reply, path, 413)


@pytest.mark.parametrize("path", JSON_ROUTES)
def test_a_body_over_the_limit_that_told_no_length_is_refused(server, path):
    chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    reply = send(server, head_of(path, "Transfer-Encoding: chunked"), chunk * (LIMITS.max_body_bytes // 2**20 + 2))
    require_refused(reply, path, 413)


def test_a_body_without_end_is_cut(server):
    reply = send(server, head_of("/classify", "Transfer-Encoding: chunked"), b'5\r\n{"inp\r\n')
    require_refused(reply, "/classify", 408)
    assert reply.seconds > TIME_OUTS["body_timeout_s"] / 2


def test_a_compressed_body_is_refused(server):
    bomb = gzip.compress(b'{"input": "' + b"a" * 10_000_000 + b'"}')
    for coding in ("gzip", "deflate", "br", "gzip, gzip"):
        reply = ask(server, "POST", "/classify", bomb, Content_Encoding=coding)
        require_refused(reply, "/classify", 400, 415)


def test_a_body_of_another_kind_is_refused(server):
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/html"):
        reply = ask(server, "POST", "/classify", b'{"input": "a"}', Content_Type=kind)
        require_refused(reply, "/classify", 400, 415)


@pytest.mark.parametrize("path", ["/classify", "/predict"])
@pytest.mark.parametrize(
    "lines",
    [
        [f"X-{number}: 1" for number in range(10_000)],
        [f"X-{number}: 1" for number in range(LIMITS.max_headers + 1)],
        ["X-Long: " + "a" * 1_000_000],
        ["X-Long: " + "a" * LIMITS.max_header_bytes],
    ],
    ids=["10,000 headers", "one header too many", "a header of 1 MB", "a header over the limit"],
)
def test_a_head_over_the_limit_is_refused(server, path, lines):
    require_refused(send(server, head_of(path, *lines, "Content-Length: 2"), b"{}"), path, 400, 431)


def test_a_target_over_the_limit_is_refused(server):
    reply = send(server, head_of("/classify?" + "a" * 1_000_000, "Content-Length: 2"), b"{}")
    assert reply.status in (400, 414, 431)
    assert reply.seconds < SECONDS


@pytest.mark.parametrize(
    "head",
    [
        "what is this\r\n\r\n",
        "\x16\x03\x01\x02 a TLS hello\r\n\r\n",
        head_of("/classify", "Content-Length: -1"),
        head_of("/classify", "Content-Length: 2x"),
        head_of("/classify", "Content-Length: 99999999999999999999999999"),
        head_of("/classify", "Content-Length: 2", "Content-Length: 3"),
        head_of("/classify", "Content-Length: 2", "Transfer-Encoding: chunked"),
        head_of("/classify", "Transfer-Encoding: gzip, chunked"),
        head_of("/classify", "Bad Name: 1", "Content-Length: 2"),
    ],
    ids=lambda head: repr(head[-60:]),
)
def test_what_is_not_http_is_refused(server, head):
    """Two readers of such a request may take it for two different ones: it is not answered as a request."""
    reply = send(server, head, b"{}\r\n")
    assert 400 <= reply.status < 500, reply.content
    assert reply.seconds < SECONDS


def test_wrong_types_on_every_route_are_refused(server, document):
    """Every field of every body, given what it cannot be, alone and beside what the route needs."""
    asked = 0
    for path, _, schema in _bodies(document):
        for wrong in ([], "text", 7, True, {"unknown": 1}):
            require_refused(ask(server, "POST", path, json.dumps(wrong).encode()), path, 400, 422)
        for name in _fields(document, schema):
            for value in ({"a": {"b": 1}}, [[[[]]]], 1e300, -(2**62), "\x00", True, [None], {"a": None}):
                reply = ask(server, "POST", path, json.dumps({name: value}).encode())
                if reply.status != 200:
                    require_refused(reply, _shape_path(path, name), 400, 413, 422)
                asked += 1
    assert asked > 100, "the document names few fields"


def test_a_reload_of_what_is_no_path_is_refused(server):
    for wrong in (b"{}x", b'{"path": 7}', b'{"path": ["a"]}', b'{"folder": "a"}', b"[]"):
        require_refused(ask(server, "POST", "/reload", wrong), "/reload", 400, 422)


def test_a_wrong_method_and_an_unknown_route_are_told_in_the_error_shape(server):
    require_refused(ask(server, "DELETE", "/classify"), "/classify", 405)
    require_refused(ask(server, "GET", "/nothing"), "/nothing", 404)
    require_refused(ask(server, "GET", "/../../etc/passwd"), "/nothing", 400, 404)
    require_refused(ask(server, "GET", "/%2e%2e/%2e%2e/etc/passwd"), "/nothing", 400, 404)


WRONG_KEYS: dict[str, list[tuple[str, bytes]]] = {
    "none": [],
    "wrong": [("Authorization", b"Bearer sesame")],
    "a prefix": [("Authorization", f"Bearer {KEY[:-1]}".encode())],
    "longer": [("X-API-Key", f"{KEY}a".encode())],
    "empty": [("Authorization", b"Bearer "), ("X-API-Key", b"")],
    "long": [("Authorization", b"Bearer " + b"a" * 8_000)],
    "unicode": [("Authorization", "Bearer sésame-öpen-☃".encode())],
    "no text": [("X-API-Key", bytes(range(128, 256)))],
    "another scheme": [("Authorization", f"Digest {KEY}".encode())],
    "half of Basic": [("Authorization", b"Basic ????")],
    "wrong Basic": [("Authorization", b"Basic " + b64encode(b"user:sesame"))],
    "in the target": [],
}


@pytest.mark.parametrize("name", WRONG_KEYS)
def test_every_route_but_health_needs_the_key(server, document, name):
    routes = [(method.upper(), path) for path, methods in document["paths"].items() for method in methods]
    assert len(routes) > 20, "the document names few routes"
    further = ["/", "/docs", "/openapi.json", "/redoc", "/nothing", "/metrics", "/health/", "//health", "/health/x"]
    further += ["/HEALTH", "/health%2f", "/%68ealth/../info", "/info/../health", "/info?x=/health"]
    routes += [("GET", path) for path in further]
    routes += [("POST", "/nothing"), ("OPTIONS", "/classify"), ("HEAD", "/info"), ("DELETE", "/v1/rewards")]
    open_to_strangers = []
    for method, path in routes:
        if path == "/health":
            continue
        target = re.sub(r"\{\w+\}", "x", path) + (f"?api_key={KEY}&key={KEY}" if name == "in the target" else "")
        status = _status_with(server, method, target, WRONG_KEYS[name])
        if status != 401:
            open_to_strangers.append((method, path, status))
    assert open_to_strangers == []


def test_a_stranger_is_told_in_the_error_shape_and_health_names_nothing(server):
    refused = server.request("POST", "/classify", b"{}", {"Content-Type": "application/json"})
    require_refused(refused, "/classify", 401)
    require_refused(server.request("POST", "/predict", b"{}", {"Content-Type": "application/json"}), "/predict", 401)
    assert server.get("/").headers["www-authenticate"].startswith("Basic")
    health = server.get("/health")
    assert health.status == 200
    assert b"rm" not in health.content.lower().replace(b"normal", b"")


@pytest.mark.parametrize(
    "header",
    [("Authorization", f"Bearer {KEY}"), ("X-API-Key", KEY)]
    + [("Authorization", "Basic " + b64encode(f"{user}:{KEY}".encode()).decode()) for user in ("", "me")],
    ids=["bearer", "x-api-key", "basic without a name", "basic"],
)
def test_the_key_opens(server, header):
    assert server.request("GET", "/info", headers=dict([header])).status == 200


def _status_with(server: ServerProcess, method: str, target: str, headers: list[tuple[str, bytes]]) -> int:
    connection = http.client.HTTPConnection(HOST, server.port, timeout=30)
    try:
        connection.putrequest(method, target)
        for name, value in headers:
            connection.putheader(name, value)
        if method == "POST":
            connection.putheader("Content-Type", "application/json")
            connection.putheader("Content-Length", "2")
        connection.endheaders(b"{}" if method == "POST" else None)
        return connection.getresponse().status
    finally:
        connection.close()


def _bodies(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Path, method and schema of every route that reads a body and does not change the server."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if "requestBody" in operation and path not in CHANGES_THE_SERVER:
                yield path, method, operation["requestBody"]["content"]["application/json"]["schema"]


def _fields(document: dict[str, Any], schema: dict[str, Any]) -> set[str]:
    """Names of all fields that a schema, or any of its alternatives, has."""
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    found = set(schema.get("properties", {}))
    for key in ("anyOf", "oneOf", "allOf"):
        for one in schema.get(key, []):
            found |= _fields(document, one)
    return found


def _shape_path(path: str, name: str) -> str:
    """`/rerank` answers a body with TEI's `texts` as TEI does."""
    return "/predict" if path == "/rerank" and name == "texts" else path


def test_sockets_that_say_nothing_are_closed(server):
    with socket.create_connection((HOST, server.port), timeout=SECONDS + 10) as silent:
        begin = time.perf_counter()
        while silent.recv(4096):
            pass
        assert time.perf_counter() - begin < TIME_OUTS["header_timeout_s"] + SECONDS

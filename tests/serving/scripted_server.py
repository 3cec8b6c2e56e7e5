"""Servers for tests of the client: one that does what a script says, faults included, and the real application."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import uvicorn

Act = Callable[["Handler"], None]
"""What is done with one request."""


class Handler(BaseHTTPRequestHandler):
    """Reads a request whole, notes it, and does the script's next act; the last one again and again."""

    protocol_version = "HTTP/1.1"
    body: Any
    server: ScriptedServer

    def do_POST(self) -> None:
        self.body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"null")
        with self.server.lock:
            number = len(self.server.bodies)
            self.server.bodies.append(self.body)
            self.server.headers.append(dict(self.headers))
            self.server.times.append(time.monotonic())
        self.server.script[min(number, len(self.server.script) - 1)](self)

    do_GET = do_POST

    def send(self, status: int, content: bytes, headers: Mapping[str, str] | None = None) -> None:
        """One answer."""
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def reset(self) -> None:
        """End the connection with a TCP reset."""
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def log_message(self, *_: Any) -> None:
        pass


class ScriptedServer(ThreadingHTTPServer):
    """Listens on a free port of loopback.

    Attributes:
        bodies: JSON of every request so far.
        headers: Headers likewise.
        times: When each came, seconds.
    """

    daemon_threads = True

    def __init__(self, script: Sequence[Act]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script = list(script)
        self.lock = threading.Lock()
        self.bodies: list[Any] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_: Any) -> None:
        """A client that went away is no news."""


@contextmanager
def scripted(*script: Act) -> Iterator[ScriptedServer]:
    """A server that does one act after the other."""
    server = ScriptedServer(script)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def score_of(completion: Any) -> float:
    """What the scripted server says of a completion: its length, as text."""
    return float(len(completion if isinstance(completion, str) else completion[-1]["content"]))


def native_answer(body: Any, fingerprint: str = "f" * 16) -> dict[str, Any]:
    """A right answer of /v1/rewards; a completion "bad" has an error in place of a score."""
    results: list[dict[str, Any]] = []
    for index, completion in enumerate(body["completions"]):
        if completion == "bad":
            error = {"kind": "too_long", "message": "it needs 900 tokens", "hint": "shorten it"}
            results.append({"index": index, "error": error})
            continue
        nothing = dict.fromkeys(("calibrated", "z", "centered", "percentile", "step_scores", "disagreement"))
        scores = {"index": index, "raw": score_of(completion), **nothing, "num_tokens": 3, "truncated": False}
        results.append(scores)
    return {"object": "list", "model": "rm", "fingerprint": fingerprint, "results": results}


def right(handler: Handler) -> None:
    """Answer as the real server does."""
    handler.send(200, json.dumps(native_answer(handler.body)).encode())


def answering(change: Callable[[dict[str, Any]], Any]) -> Act:
    """Answer with what a function makes of the right answer: another value, or None where it changed it in place."""

    def act(handler: Handler) -> None:
        answer = native_answer(handler.body)
        changed = change(answer)
        content = answer if changed is None else changed
        handler.send(200, content if isinstance(content, bytes) else json.dumps(content).encode())

    return act


def failing(status: int, message: str = "no", headers: Mapping[str, str] | None = None) -> Act:
    """Answer with an error as the real server words it."""
    body = {"error": {"message": message, "type": "x", "param": None, "code": status}}
    return lambda handler: handler.send(status, json.dumps(body).encode(), headers)


def hanging(seconds: float) -> Act:
    """Say nothing for a while, then end the connection."""

    def act(handler: Handler) -> None:
        time.sleep(seconds)
        handler.reset()

    return act


def resetting(handler: Handler) -> None:
    """Begin a right answer, and reset the connection in its middle."""
    content = json.dumps(native_answer(handler.body)).encode()
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content[: len(content) // 2])
    handler.reset()


@contextmanager
def served(app: Any, port: int = 0) -> Iterator[str]:
    """The address of an ASGI application under uvicorn, in a thread, on a port of loopback (0: a free one)."""
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", access_log=False, lifespan="on"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    end = time.monotonic() + 20
    while not server.started and time.monotonic() < end:
        time.sleep(0.01)
    assert server.started
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()

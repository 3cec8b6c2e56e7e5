"""An OpenAI-compatible server that does what a script says, faults included, over real HTTP in a thread.

    with fake_server(lambda body, call: reply("fine")) as server:
        client = OpenAIClient("fake", base_url=server.base_url)

A script gets the body of a request to /chat/completions and its number from 0, and says what is done with it. The
scripted judges that find their way in a question are in :mod:`tests.judge.fake_judges`.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "fake-judge"


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What the server does with one request; made by the functions below.

    Attributes:
        text: The answer; None is a JSON null.
        finish: Why it ended.
        refusal: The message's refusal field.
        reasoning: The message's reasoning_content field.
        logprobs: ``(token, logprob, ((token, logprob), ...))`` of each token of the answer.
        usage: Prompt and completion tokens; None: the server does not say.
        status: HTTP status; over 299 the body is an error.
        error: The error object of such a body.
        headers: Further headers.
        raw: The whole body, as it is sent instead.
        send_only: Bytes of the body after which the connection is closed.
        wait: Seconds before anything is sent.
        drop: Close the connection without an answer.
    """

    text: str | None = ""
    finish: str = "stop"
    refusal: str | None = None
    reasoning: str | None = None
    logprobs: Sequence[tuple[str, float, Sequence[tuple[str, float]]]] | None = None
    usage: tuple[int, int] | None = (20, 5)
    status: int = 200
    error: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    send_only: int | None = None
    wait: float = 0.0
    drop: bool = False


Script = Callable[[dict[str, Any], int], Behaviour]


def reply(text: str | None, **fields: Any) -> Behaviour:
    """An answer."""
    return Behaviour(text=text, **fields)


def refuse(words: str = "I cannot help with that.") -> Behaviour:
    """A refusal in the field that the API has for it."""
    return Behaviour(text=None, refusal=words)


def status(number: int, message: str = "no", *, headers: Mapping[str, str] | None = None, **error: Any) -> Behaviour:
    """An error status with an OpenAI-style error object; further fields such as code=, type=, param= go into it."""
    return Behaviour(status=number, error={"message": message, **error}, headers=headers or {})


def rate_limited(retry_after: str | None = "1", **headers: str) -> Behaviour:
    """429, with a Retry-After header of any form."""
    asked = {} if retry_after is None else {"Retry-After": retry_after}
    return status(429, "slow down", headers={**asked, **headers}, code="rate_limit_exceeded")


def hang(seconds: float = 30.0) -> Behaviour:
    """No answer for so long; the end of the server ends it too."""
    return Behaviour(text="late", wait=seconds)


def drop() -> Behaviour:
    """The connection is reset without an answer."""
    return Behaviour(drop=True)


def garbage(raw: bytes = b"<html>bad gateway</html>") -> Behaviour:
    """Status 200 and a body that is no chat completion."""
    return Behaviour(raw=raw)


def truncated_body(text: str = "fine") -> Behaviour:
    """Half of a good body, and its length said to be that half: JSON that breaks off."""
    return Behaviour(
        raw=b'{"id": "x", "object": "chat.completion", "choices": [{"message": {"content": "' + text.encode()
    )


def broken_off(text: str = "fine") -> Behaviour:
    """Half of a good body, after which the connection is closed."""
    return Behaviour(text=text, send_only=40)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"null")
        if not self.path.endswith("/chat/completions"):
            self._send(404, {"error": {"message": f"no route {self.path}"}})
            return
        server = self.server
        with server.lock:
            call = len(server.requests)
            server.requests.append(body)
            server.headers.append({name.lower(): value for name, value in self.headers.items()})
            server.times.append(time.monotonic())
            server.running += 1
            server.most_at_once = max(server.most_at_once, server.running)
        try:
            behaviour = server.script(body, call)
            if behaviour.wait:
                server.ending.wait(behaviour.wait)
        finally:
            with server.lock:
                server.running -= 1
        self._behave(behaviour, body)

    def do_GET(self) -> None:
        if self.path.endswith("/models"):
            self._send(200, {"object": "list", "data": [{"id": MODEL, "object": "model"}]})
        else:
            self._send(404, {"error": {"message": f"no route {self.path}"}})

    def _behave(self, behaviour: Behaviour, body: dict[str, Any]) -> None:
        if behaviour.drop:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
        elif behaviour.status > 299:
            self._send(behaviour.status, {"error": behaviour.error}, behaviour.headers)
        elif behaviour.raw is not None:
            self._send_bytes(200, behaviour.raw, behaviour.headers)
        else:
            content = json.dumps(completion_of(behaviour, body)).encode()
            self._send_bytes(200, content, behaviour.headers, send_only=behaviour.send_only)

    def _send(self, code: int, content: Any, headers: Mapping[str, str] | None = None) -> None:
        self._send_bytes(code, json.dumps(content).encode(), headers or {})

    def _send_bytes(
        self, code: int, content: bytes, headers: Mapping[str, str], *, send_only: int | None = None
    ) -> None:
        with suppress(OSError):  # a client that has gone, as one that timed out, hears nothing
            self.send_response(code)
            given = {"Content-Type": "application/json", "Content-Length": str(len(content)), **headers}
            for name, value in given.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content[:send_only])
            self.close_connection = self.close_connection or send_only is not None

    def log_message(self, *_: Any) -> None:
        pass


def completion_of(behaviour: Behaviour, body: Mapping[str, Any]) -> dict[str, Any]:
    """A chat completion as the API has it; log-probabilities only where they were asked for."""
    message: dict[str, Any] = {"role": "assistant", "content": behaviour.text, "refusal": behaviour.refusal}
    if behaviour.reasoning is not None:
        message["reasoning_content"] = behaviour.reasoning
    choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": behaviour.finish, "logprobs": None}
    if body.get("logprobs") and behaviour.logprobs is not None:
        most = body.get("top_logprobs") or 0
        choice["logprobs"] = {
            "content": [
                {
                    "token": token,
                    "logprob": logprob,
                    "bytes": None,
                    "top_logprobs": [{"token": t, "logprob": lp, "bytes": None} for t, lp in top[:most]],
                }
                for token, logprob, top in behaviour.logprobs
            ]
        }
    found: dict[str, Any] = {"id": "x", "object": "chat.completion", "created": 0, "choices": [choice]}
    found["model"] = body.get("model", MODEL)
    if behaviour.usage is not None:
        prompt, completion = behaviour.usage
        found["usage"] = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return found


class FakeServer(ThreadingHTTPServer):
    """Listens on a free port of loopback.

    Attributes:
        requests: Body of every question so far, in order of arrival.
        headers: Headers likewise, names in lower case.
        times: When each came, seconds.
        most_at_once: Most questions that were open at the same time.
        ending: Set when the server ends; hanging answers end with it.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, script: Script) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script = script
        self.lock = threading.Lock()
        self.ending = threading.Event()
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.running = self.most_at_once = 0

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a connection that a client, or a script, has reset


@contextmanager
def fake_server(script: Script) -> Iterator[FakeServer]:
    """A running server."""
    server = FakeServer(script)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.ending.set()
        server.shutdown()
        server.server_close()
        thread.join(5.0)


def in_turn(*behaviours: Behaviour) -> Script:
    """One behaviour after another; the last one again and again."""
    return lambda body, call: behaviours[min(call, len(behaviours) - 1)]


def failing_first(script: Script, *faults: Behaviour) -> Script:
    """Each different question meets these faults before the script answers it."""
    seen: dict[str, int] = {}
    lock = threading.Lock()

    def answer(body: dict[str, Any], call: int) -> Behaviour:
        key = json.dumps(body["messages"], sort_keys=True)
        with lock:
            attempt = seen.get(key, 0)
            seen[key] = attempt + 1
        return faults[attempt] if attempt < len(faults) else script(body, call)

    return answer


def with_logprobs(script: Script, logprobs: Sequence[tuple[str, float, Sequence[tuple[str, float]]]]) -> Script:
    """The script's answers, with these log-probabilities."""
    return lambda body, call: replace(script(body, call), logprobs=logprobs)

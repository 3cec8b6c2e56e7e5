"""One request over real HTTP; what becomes of it over several attempts is test_client's."""

from __future__ import annotations

import asyncio
import builtins
import subprocess
import sys

import pytest
from tests.judge.fake_server import (
    Behaviour,
    broken_off,
    drop,
    fake_server,
    garbage,
    hang,
    rate_limited,
    reply,
    status,
    truncated_body,
)

from rewardlab.errors import MissingDependencyError
from rewardlab.judge.chat import ChatReply
from rewardlab.judge.faults import Fault
from rewardlab.judge.transport import Transport, key_for

SENT = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5, "seed": 0}


def send(behaviour: Behaviour, *, key: str | None = None, content: str = "hi", timeout_s: float = 5.0):
    """What comes of one request, and the headers that the server saw."""

    async def run(base_url: str) -> ChatReply | Fault:
        transport = Transport(base_url, api_key=key, timeout_s=timeout_s, extra_body={"top_k": 1})
        try:
            return await transport.send({**SENT, "messages": [{"role": "user", "content": content}]})
        finally:
            await transport.close()

    with fake_server(lambda body, call: behaviour) as server:
        found = asyncio.run(run(server.base_url))
        return found, server


def test_an_answer_and_what_was_sent_for_it():
    found, server = send(reply("fine", usage=(7, 3)))
    assert found == ChatReply("fine", model="m", prompt_tokens=7, completion_tokens=3)
    assert server.requests == [{**SENT, "top_k": 1}]


@pytest.mark.parametrize(
    ("behaviour", "kind", "words"),
    [
        (status(500, "boom"), "server_error", "status 500: boom"),
        (rate_limited("3"), "rate_limited", "slow down"),
        (status(401), "endpoint", "401"),
        (drop(), "connection", "connection failed"),
        (broken_off(), "connection", "connection failed"),
        (garbage(), "bad_answer", "no JSON"),
        (truncated_body(), "bad_answer", "no JSON"),
        (garbage(b"\xff\xfe\x00"), "bad_answer", "no JSON"),
        (garbage(b'{"error": {"code": 502, "message": "upstream"}}'), "server_error", "status 502: upstream"),
        (hang(), "timeout", "no answer within 0.3 s"),
        (status(307, headers={"Location": "/v1/chat/completions"}), "connection", "connection failed"),  # in a circle
    ],
)
def test_each_fault_is_told(behaviour, kind, words):
    found, _ = send(behaviour, timeout_s=0.3 if kind == "timeout" else 5.0)
    assert isinstance(found, Fault)
    assert found.kind == kind
    assert words in found.message
    assert not found.message.endswith(": ")


def test_the_wait_that_the_server_asks_for_comes_along():
    assert send(rate_limited("3"))[0].asked == 3.0
    assert send(rate_limited("3", **{"retry-after-ms": "1500"}))[0].asked == 1.5


def test_a_text_that_cannot_be_sent_is_no_crash():
    found, server = send(reply("fine"), content="half \ud800")
    assert found.kind == "bad_request"
    assert server.requests == []


def test_the_key_is_sent_and_never_repeated():
    key = "sk-very-secret-0123"
    found, server = send(status(401, f"Incorrect API key provided: {key}"), key=key)
    assert server.headers[0]["authorization"] == f"Bearer {key}"
    assert "***" in found.message
    assert key not in repr(found)
    assert send(reply("fine"))[1].headers[0]["authorization"] == "Bearer none"


def test_openais_key_goes_to_openai_alone(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "theirs")
    assert key_for("https://api.openai.com/v1") == "theirs"
    assert key_for("https://mine.openai.azure.com/openai/v1") == "theirs"
    for elsewhere in ("http://127.0.0.1:8000/v1", "https://openai.com.example.org/v1", "https://notopenai.com/v1"):
        assert key_for(elsewhere) == "none"
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1/")
    assert key_for("http://127.0.0.1:8000/v1") == "theirs"
    monkeypatch.setenv("REWARDLAB_JUDGE_KEY", "ours")
    assert {key_for("https://api.openai.com/v1"), key_for("http://127.0.0.1:1/v1")} == {"ours"}


def test_without_the_package_the_way_to_it_is_told(monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == "openai":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingDependencyError) as told:
        Transport("http://x/v1", api_key=None, timeout_s=1.0, extra_body={})
    assert "rewardlab[judge]" in told.value.hint


def test_the_package_is_imported_only_when_it_is_needed():
    code = "import sys, rewardlab.judge.client; sys.exit('openai' in sys.modules or 'httpx2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""One request over real HTTP; what becomes of it over several attempts is test_client's."""

from __future__ import annotations

import asyncio
import builtins
import gzip
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

from rewardlab.errors import ConfigError, MissingDependencyError
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
        (garbage(), "web_page", "web page"),
        (truncated_body(), "bad_answer", "no JSON"),
        (garbage(b"\xff\xfe\x00"), "bad_answer", "no JSON"),
        (garbage(b'{"error": {"code": 502, "message": "upstream"}}'), "server_error", "status 502: upstream"),
        (hang(), "timeout", "no answer within 0.1 s"),
        (status(307, headers={"Location": "http://elsewhere/v1"}), "endpoint", "moved to http://elsewhere/v1"),
        (reply("fine", finish="error"), "bad_answer", "broke"),
        (Behaviour(raw=b"nonsense", headers={"Content-Encoding": "gzip"}), "bad_answer", "rror"),
        (rate_limited("Mon, 01 Jan 99999999999 00:00:00 GMT"), "rate_limited", "slow down"),
        (
            Behaviour(raw=gzip.compress(b" " * 20_000_000), headers={"Content-Encoding": "gzip"}),
            "bad_answer",
            "the answer is longer",
        ),
    ],
)
def test_each_fault_is_told(behaviour, kind, words):
    found, _ = send(behaviour, timeout_s=0.1 if kind == "timeout" else 5.0)
    assert isinstance(found, Fault)
    assert found.kind == kind
    assert words in found.message
    assert not found.message.endswith(": ")
    assert "cannot be read" not in found.message


COMPLETION = '{"choices": [{"message": {"content": %s}, "finish_reason": "stop"}]}'


@pytest.mark.parametrize("charset", ["utf-7", "latin-1", "idna", "hex", "no such one"])
def test_an_answer_is_utf8_whatever_its_header_says(charset):
    """In UTF-7 +AFsAWwBB- is [[A."""
    raw = (COMPLETION % '"é +AFsAWwBB-"').encode()
    found, _ = send(Behaviour(raw=raw, headers={"Content-Type": f"application/json; charset={charset}"}))
    assert found.text == "é +AFsAWwBB-"


@pytest.mark.parametrize("number", ["1" + "0" * 400, "-1" + "0" * 400, "1" + "0" * 5000])
def test_numbers_of_any_size_are_no_crash(number):
    logprobs = f'"logprobs": {{"content": [{{"token": "A", "logprob": {number}, "top_logprobs": []}}]}}'
    usage = f'"usage": {{"prompt_tokens": {number}, "completion_tokens": 1}}'
    raw = f'{{"choices": [{{"message": {{"content": "A"}}, "finish_reason": "stop", {logprobs}}}], {usage}}}'
    found, _ = send(garbage(raw.encode()))
    if isinstance(found, Fault):  # Python reads no integer of over 4300 digits
        assert (found.kind, len(number)) == ("bad_answer", 5001)
    else:
        assert (found.prompt_tokens, found.completion_tokens, found.logprobs) == (None, 1, ())


def test_any_exception_is_the_fault_of_one_attempt(monkeypatch):
    def broken(body: str) -> ChatReply:
        raise RecursionError("too deep")

    monkeypatch.setattr("rewardlab.judge.transport.reply_of", broken)
    found, _ = send(reply("fine"))
    assert (found.kind, found.message) == ("bad_answer", "the answer cannot be read: too deep")


def test_only_a_connection_that_was_never_open_cannot_be_billed():
    assert send(drop())[0].reached
    assert send(broken_off())[0].reached

    async def run() -> ChatReply | Fault:
        transport = Transport("http://127.0.0.1:9/v1", api_key=None, timeout_s=5.0, extra_body={})
        try:
            return await transport.send(SENT)
        finally:
            await transport.close()

    found = asyncio.run(run())
    assert (found.kind, found.reached) == ("connection", False)


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
    for cut in (280, 290, 299):  # where the words that are kept end within it
        assert key[:8] not in send(status(401, "x" * cut + key), key=key)[0].message
    assert send(reply(f"your key is {key}"), key=key)[0].text == "your key is ***"
    assert send(reply("an EMPTY answer"), key="EMPTY")[0].text == "an EMPTY answer"  # no secret but a word
    assert send(reply("fine"))[1].headers[0]["authorization"] == "Bearer none"


@pytest.mark.parametrize("key", ["sk-very-secret\n0123", "sk-very-sécret"])
def test_a_key_that_is_none_is_told_but_not_shown(key):
    with pytest.raises(ConfigError) as told:
        Transport("http://x/v1", api_key=key, timeout_s=1.0, extra_body={})
    assert "secret" not in str(told.value)
    assert send(reply("fine"), key="sk-0123456\n")[1].headers[0]["authorization"] == "Bearer sk-0123456"


def test_the_organisation_is_told_to_openai_alone(monkeypatch):
    monkeypatch.setenv("OPENAI_ORG_ID", "org-private")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-private")
    headers = send(reply("fine"))[1].headers[0]
    assert "private" not in str(headers)
    theirs = Transport("https://api.openai.com/v1", api_key=None, timeout_s=1.0, extra_body={})
    assert theirs._openai.organization == "org-private"


def test_the_models_of_a_server_are_named():
    async def run(base_url: str) -> tuple[str, ...]:
        transport = Transport(base_url, api_key=None, timeout_s=5.0, extra_body={})
        try:
            return await transport.models()
        finally:
            await transport.close()

    with fake_server(lambda body, call: reply("x")) as server:
        assert asyncio.run(run(server.base_url)) == ("fake-judge",)
        assert asyncio.run(run(server.base_url + "/no")) == ("fake-judge",)
    assert asyncio.run(run(server.base_url)) == ()  # it has gone


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

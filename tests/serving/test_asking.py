"""What both clients share: addresses, the key that nobody sees, and what the statuses of a server mean."""

from __future__ import annotations

import copy
import json
import logging
import pickle
from typing import Any

import httpx2
import pytest
from tests.serving.scripted_server import right, scripted

from rewardlab.errors import ConfigError, DataError
from rewardlab.serving.asking import Asking, Pause, Received, checked_url
from rewardlab.serving.client import AsyncRewardClient, RewardClient
from rewardlab.serving.client_errors import BadAnswer, ServerFailed, ServerRefused, ServerUnavailable

KEY = "s3cret-key"


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REWARDLAB_API_KEY", raising=False)


@pytest.mark.parametrize(
    ("url", "read"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000"),
        ("https://rm.example/models/one/", "https://rm.example/models/one"),
        ("http://[::1]:9", "http://[::1]:9"),
    ],
)
def test_an_address_may_have_a_path_in_front_of_the_routes(url: str, read: str):
    assert checked_url(url) == read


@pytest.mark.parametrize(
    "url",
    ["127.0.0.1:8000", "localhost", "ftp://x", "http://", "", "http://x/?a=1", "http://x/#a", "file:///etc", None, 3],
)
def test_what_is_no_http_address_is_refused(url: Any):
    with pytest.raises(ConfigError, match="address"):
        checked_url(url)


@pytest.mark.parametrize(
    ("url", "right"),
    [("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000"), ("https://rm.example/one/v1/", "https://rm.example/one")],
)
def test_an_address_with_the_v1_of_other_clients_is_refused_with_the_right_one(url: str, right: str):
    """OpenAI's clients want it there; here it would ask for /v1/v1/rewards, and for /v1/health."""
    with pytest.raises(ConfigError, match="ends with /v1, which the client adds itself") as caught:
        checked_url(url)
    assert caught.value.hint == f"give {right}"
    assert checked_url(f"{right}/rm-v1") == f"{right}/rm-v1"


def test_credentials_in_an_address_are_refused_and_not_repeated():
    with pytest.raises(ConfigError) as caught:
        checked_url(f"http://me:{KEY}@127.0.0.1:8000")
    assert KEY not in str(caught.value)
    assert "api_key" in caught.value.hint


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": 0},
        {"retries": -1},
        {"deadline": 0},
        {"max_items": 0},
        {"max_bytes": 0},
        {"concurrency": 0},
        {"concurrency": 1.5},
        {"api_key": ""},
        {"api_key": "schlüssel"},
        {"api_key": "two\nlines"},
        {"api_key": " spaces "},
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any]):
    with pytest.raises(ConfigError) as caught:
        Asking("http://x", **options)
    assert "schlüssel" not in str(caught.value)


@pytest.mark.parametrize("kind", [RewardClient, AsyncRewardClient])
def test_the_key_is_sent_and_never_shown(kind: Any, caplog: pytest.LogCaptureFixture):
    """The server repeats the header in its error, and the HTTP library logs all it can."""
    caplog.set_level(logging.DEBUG)
    client = kind("http://127.0.0.1:9", api_key=KEY)
    assert KEY not in repr(client)
    words = client.judged
    with pytest.raises(ServerRefused) as caught:
        words(Received(401, None, f'{{"error": "Bearer {KEY} is wrong"}}'.encode()), client.tries("GET", "/"))
    assert "Bearer *** is wrong" in caught.value.message
    with scripted(right) as server, RewardClient(server.url, api_key=KEY) as sync:
        sync.score(["p"], ["c"])
        assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    sync = RewardClient("http://127.0.0.1:9", api_key=KEY, retries=0)
    with pytest.raises(ServerUnavailable) as gone:
        sync.judged(Received(503, None, f'{{"detail": "{KEY}"}}'.encode()), sync.tries("GET", "/"))
    assert KEY not in f"{gone.value}{gone.value.attempts}"
    assert KEY not in caplog.text


def test_the_environment_gives_the_key_where_none_is_given(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("REWARDLAB_API_KEY", "of-the-environment")
    with scripted(right) as server:
        for options in ({}, {"api_key": "given"}):
            with RewardClient(server.url, **options) as client:
                client.score(["p"], ["c"])
        assert [h["Authorization"] for h in server.headers] == ["Bearer of-the-environment", "Bearer given"]
    monkeypatch.setenv("REWARDLAB_API_KEY", "")
    with scripted(right) as server, RewardClient(server.url) as client:
        client.score(["p"], ["c"])
        assert "Authorization" not in server.headers[0]


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, lambda client: pickle.loads(pickle.dumps(client))])
def test_a_client_can_be_copied_to_another_process(how: Any):
    client = how(RewardClient("http://127.0.0.1:9/x", api_key=KEY, max_items=7, retries=2, deadline=3.0))
    assert (client.url, client.max_items, client.policy.retries, client.policy.deadline) == (
        "http://127.0.0.1:9/x",
        7,
        2,
        3,
    )
    assert client.request("GET", "/", None, 1.0)["url"] == "http://127.0.0.1:9/x/"


def judged(outcome: Any, **options: Any) -> Any:
    client = Asking("http://x", **options)
    return client.judged(outcome, client.tries("POST", "/v1/rewards"))


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_these_statuses_are_tried_again(status: int):
    found = judged(Received(status, "7", b""))
    assert isinstance(found, Pause)
    assert 7 <= found.seconds <= 7.5


def error_of(kind: str, message: str) -> bytes:
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": 503}}).encode()


ASLEEP = Received(503, "0", error_of("service_unavailable", "the model sleeps; POST /wake_up wakes it"))
FULL = Received(503, "0", error_of("overloaded", "the queue is full"))


def test_who_meets_a_sleeping_server_is_told_to_wake_it_and_not_to_ask_less():
    for outcome, hint in (
        (ASLEEP, "POST /wake_up"),
        (FULL, "lower"),
        (Received(503, None, b""), "lower"),
    ):
        with pytest.raises(ServerUnavailable) as caught:
            judged(outcome, retries=0)
        assert hint in caught.value.hint
        assert ("concurrency" in caught.value.hint) is (outcome is not ASLEEP)


@pytest.mark.parametrize("outcome", [httpx2.ConnectError("[Errno 111] refused"), httpx2.ConnectTimeout("slow"), ASLEEP])
def test_a_wait_for_a_server_that_is_not_there_is_told_once(outcome: Any, caplog: pytest.LogCaptureFixture):
    """Once until the server has answered, however many requests wait; a busy one is no news."""
    client = Asking("http://x", api_key=KEY)
    for _ in range(3):
        client.judged(outcome, client.tries("POST", "/v1/rewards"))
        client.judged(FULL, client.tries("POST", "/v1/rewards"))
    (told,) = caplog.records
    assert told.levelname == "WARNING"
    assert told.getMessage().startswith("POST http://x/v1/rewards: ")
    assert told.getMessage().endswith("; asking again, 8 times at most within 600 s")
    client.judged(Received(200, None, b"{}"), client.tries("POST", "/v1/rewards"))
    client.judged(outcome, client.tries("POST", "/v1/rewards"))
    assert len(caplog.records) == 2


def test_the_last_try_is_an_exception_and_no_warning(caplog: pytest.LogCaptureFixture):
    with pytest.raises(ServerUnavailable, match="1 try"):
        judged(httpx2.ConnectError("refused"), retries=0)
    assert not caplog.records


@pytest.mark.parametrize("status", [301, 302, 400, 401, 403, 404, 408, 413, 422])
def test_these_are_the_request_s_own_fault(status: int):
    with pytest.raises(ServerRefused, match=f"POST http://x/v1/rewards: {status}: too deep") as caught:
        judged(Received(status, None, b'{"error": {"message": "too deep", "code": 1}}'))
    assert caught.value.status == status


@pytest.mark.parametrize("status", [201, 204, 206, 500, 501, 505])
def test_these_are_failures_that_asking_again_does_not_mend(status: int):
    with pytest.raises(ServerFailed, match=str(status)):
        judged(Received(status, None, b'{"detail": "broken"}'))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"error": {"message": "m"}}', "m"),
        (b'{"error": "tei", "error_type": "x"}', "tei"),
        (b'{"detail": "fastapi"}', "fastapi"),
        (b"<html>", ""),
        (b"[1]", ""),
        (b'{"error": {"message": 3}}', ""),
    ],
)
def test_a_server_s_words_are_read_in_any_dialect(body: bytes, words: str):
    with pytest.raises(ServerRefused) as caught:
        judged(Received(400, None, body))
    assert caught.value.message == f"POST http://x/v1/rewards: 400{': ' if words else ''}{words}"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (httpx2.ConnectError("refused"), None),
        (httpx2.ConnectTimeout("slow"), None),
        (httpx2.ReadTimeout("slow"), None),
        (httpx2.WriteError("broken"), None),
        (httpx2.RemoteProtocolError("half"), None),
        (httpx2.DecodingError("gzip"), BadAnswer),
        (httpx2.UnsupportedProtocol("x"), ServerFailed),
        (httpx2.LocalProtocolError("x"), ServerFailed),
    ],
)
def test_only_errors_of_the_network_are_tried_again(error: Exception, kind: type[Exception] | None):
    if kind is None:
        assert isinstance(judged(error), Pause)
    else:
        with pytest.raises(kind):
            judged(error)


@pytest.mark.parametrize(
    ("prompts", "completions", "steps"),
    [(["a"], ["b", "c"], None), (["a"], ["b"], []), ("a", ["b"], None), (["a"], "b", None)],
)
def test_lists_that_do_not_belong_together_are_refused(prompts: Any, completions: Any, steps: Any):
    with pytest.raises(DataError):
        Asking("http://x").prepared(prompts, completions, steps)


def test_one_prompt_for_many_completions_is_told_how_to_write_it():
    with pytest.raises(DataError, match="1 prompts for 3 completions") as caught:
        Asking("http://x").prepared(["p"], ["a", "b", "c"], None)
    assert "[prompt] * 3 gives all the same" in caught.value.hint


@pytest.mark.parametrize(
    ("url", "trusts"), [("http://127.0.0.1:1", False), ("http://localhost", False), ("http://rm", True)]
)
def test_no_proxy_of_the_environment_stands_before_loopback(url: str, trusts: bool):
    assert Asking(url)._options["trust_env"] is trusts

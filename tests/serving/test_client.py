"""Both clients against a server that does what a script says, and against the real application."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import httpx2
import pytest
from tests.serving.backends import InProcessBackend
from tests.serving.fixed_backend import FixedBackend
from tests.serving.scripted_server import (
    Act,
    Handler,
    ScriptedServer,
    answering,
    failing,
    hanging,
    native_answer,
    resetting,
    right,
    score_of,
    scripted,
    served,
)

from rewardlab.errors import ConfigError
from rewardlab.scoring.scorer import Scorer
from rewardlab.serving import asking, retrying
from rewardlab.serving.app import create_app
from rewardlab.serving.client import (
    AsyncRewardClient,
    BadAnswer,
    ModelChanged,
    Reward,
    RewardClient,
    ScoringError,
    ServerFailed,
    ServerRefused,
    ServerUnavailable,
    Unscored,
)
from rewardlab.serving.items import Answer
from rewardlab.serving.settings import ServerSettings

Call = Callable[..., Any]


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying, "FIRST_WAIT", 0.02)


def quick(client: Any, retries: int) -> Any:
    client.policy = retrying.RetryPolicy(retries=retries, deadline=20.0)
    return client


def blocking(url: str, method: str, *args: Any, retries: int = 3, **options: Any) -> Any:
    with quick(RewardClient(url, **options), retries) as client:
        return getattr(client, method)(*args)


def in_a_loop(url: str, method: str, *args: Any, retries: int = 3, **options: Any) -> Any:
    async def run() -> Any:
        async with quick(AsyncRewardClient(url, **options), retries) as client:
            return await getattr(client, method)(*args)

    return asyncio.run(run())


@pytest.fixture(params=[blocking, in_a_loop])
def call(request: pytest.FixtureRequest) -> Call:
    """Calls one method of a new client, blocking or in an event loop."""
    function: Call = request.param
    return function


def test_long_lists_are_cut_and_come_back_in_order(call: Call):
    prompts = [f"p{number % 5}" for number in range(50)]
    completions = ["x" * (number * 7 % 41) for number in range(50)]
    with scripted(right) as server:
        found = call(server.url, "score", prompts, completions, max_items=8, concurrency=3)
        assert found == [float(len(completion)) for completion in completions]
        assert max(len(body["completions"]) for body in server.bodies) == 8
        assert sum(len(body["completions"]) for body in server.bodies) == 50


def test_no_more_requests_are_under_way_than_allowed(call: Call):
    lock, now, most = threading.Lock(), [0], [0]

    def slow(handler: Handler) -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.03)
        with lock:
            now[0] -= 1
        right(handler)

    with scripted(slow) as server:
        call(server.url, "score", list("abcdefghij"), list("abcdefghij"), max_items=1, concurrency=3)
    assert most[0] == 3


def test_nothing_to_score_asks_nobody(call: Call):
    assert call("http://127.0.0.1:9", "rewards", [], []) == []


def test_an_item_without_a_score_leaves_the_others_theirs(call: Call):
    with scripted(right) as server:
        args = (["p"] * 4, ["one", "bad", "\ud800", "three"])
        found = call(server.url, "rewards", *args)
        assert [type(one) for one in found] == [Reward, Unscored, Unscored, Reward]
        assert [found[1].kind, found[2].kind] == ["too_long", "invalid"]
        with pytest.raises(ScoringError, match="2 of 4 items have no score: item 1: it needs 900 tokens") as caught:
            call(server.url, "score", *args)
        assert sorted(caught.value.unscored) == [1, 2]


MENDED: dict[str, tuple[Act, ...]] = {
    "503": (failing(503, headers={"Retry-After": "0"}),),
    "429, 502, 504": (failing(429), failing(502), failing(504)),
    "a reset": (lambda handler: handler.reset(),),
    "half an answer": (resetting,),
    "silence": (hanging(1.2),),
}


@pytest.mark.parametrize("name", MENDED)
def test_what_asking_again_may_mend_is_asked_again(call: Call, name: str):
    with scripted(*MENDED[name], right) as server:
        assert call(server.url, "score", ["p"], ["four"], timeout=0.4) == [4.0]
        assert len(server.bodies) == len(MENDED[name]) + 1
        assert all(body == server.bodies[0] for body in server.bodies)


def test_the_server_s_own_wish_is_kept(call: Call):
    with scripted(failing(503, headers={"Retry-After": "1"}), right) as server:
        assert call(server.url, "score", ["p"], ["four"]) == [4.0]
        assert server.times[1] - server.times[0] >= 1.0


@pytest.mark.parametrize(
    ("status", "kind"), [(400, ServerRefused), (401, ServerRefused), (413, ServerRefused), (500, ServerFailed)]
)
def test_what_asking_again_cannot_mend_is_asked_once(call: Call, status: int, kind: type[Exception]):
    with scripted(failing(status, "the words of the server"), right) as server:
        with pytest.raises(kind, match="the words of the server"):
            call(server.url, "score", ["p"], ["four"])
        assert len(server.bodies) == 1


def test_a_refusal_tells_which_items_of_the_call_were_asked_for(call: Call):
    with scripted(right, failing(400)) as server, pytest.raises(ServerRefused, match="which begin with item 3"):
        call(server.url, "score", list("abcde"), list("abcde"), max_items=3, concurrency=1)


def test_a_redirect_is_not_followed_with_the_key(call: Call):
    with scripted(right) as other, scripted(failing(307, headers={"Location": other.url + "/v1/rewards"})) as server:
        with pytest.raises(ServerRefused, match="307"):
            call(server.url, "score", ["p"], ["c"], api_key="k")
        assert not other.bodies


def test_after_the_last_try_every_one_is_told(call: Call):
    acts = (failing(503, "full"), hanging(1.0), lambda handler: handler.reset())
    with scripted(*acts) as server, pytest.raises(ServerUnavailable) as caught:
        call(server.url, "score", ["p"], ["c"], retries=2, timeout=0.3)
    kinds = [attempt.kind for attempt in caught.value.attempts]
    assert kinds[:2] == ["503", "ReadTimeout"]
    assert kinds[2] in ("ReadError", "RemoteProtocolError")
    assert "503, full" in caught.value.message


def test_nobody_there_is_told_so(call: Call):
    with scripted(right) as server:
        url = server.url
    with pytest.raises(ServerUnavailable, match="ConnectError") as caught:
        call(url, "score", ["p"], ["c"], retries=1)
    assert [attempt.status for attempt in caught.value.attempts] == [None, None]
    assert not call(url, "health")


def test_the_wait_for_a_server_that_is_down_is_not_silent(call: Call, caplog: pytest.LogCaptureFixture):
    with scripted(right) as server:
        url = server.url
    with pytest.raises(ServerUnavailable):
        call(url, "score", ["p", "q"], ["c", "d"], retries=2, max_items=1)
    told = [record.getMessage() for record in caplog.records if record.name.startswith("rewardlab")]
    assert len(told) == 1
    assert url in told[0]
    assert "asking again, 2 times at most within 20 s" in told[0]


def test_asleep_the_server_is_healthy_and_its_info_says_that_it_sleeps(call: Call):
    backend = FixedBackend()
    backend.state = "sleeping"
    with served(create_app(backend, ServerSettings())) as address:
        assert call(address, "health") is True
        assert call(address, "info")["state"] == "sleeping"
        with pytest.raises(ServerUnavailable, match="503, the model is sleeping") as caught:
            call(address, "score", ["p"], ["c"], retries=0)
        assert "the server is not ready (the model is sleeping)" in caught.value.hint


def test_an_answer_that_drips_is_not_waited_for_beyond_the_time(call: Call):
    """The library's own time-out is of silence, and a byte every 0.1 s breaks it."""

    def dripping(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        for _ in range(30):
            time.sleep(0.1)
            handler.wfile.write(b" ")
            handler.wfile.flush()

    start = time.monotonic()
    with scripted(dripping) as server, pytest.raises(ServerUnavailable, match="too slowly"):
        call(server.url, "score", ["p"], ["c"], timeout=0.5, retries=0)
    assert time.monotonic() - start < 2.5


WRONG: dict[str, Act] = {
    "garbage": answering(lambda answer: b"<html>welcome</html>"),
    "a list": answering(lambda answer: [1.0]),
    "too few": answering(lambda answer: answer["results"].pop() and None),
    "NaN": answering(lambda answer: answer["results"][0].update(raw=float("nan"))),
    "huge": answering(lambda answer: answer["results"][0].update(raw=10**400)),
    "null": answering(lambda answer: answer["results"][0].update(raw=None)),
    "another order": answering(lambda answer: answer["results"].reverse()),
    "no model": answering(lambda answer: answer.pop("fingerprint") and None),
    "no gzip": lambda handler: handler.send(200, b"plain", {"Content-Encoding": "gzip"}),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_answer_is_an_error_and_no_number(call: Call, name: str):
    with scripted(WRONG[name], right) as server:
        with pytest.raises(BadAnswer):
            call(server.url, "score", ["p", "p"], ["one", "three"])
        assert len(server.bodies) == 1


def test_two_models_within_one_call_are_an_error(call: Call):
    other = answering(lambda answer: answer.update(fingerprint="another-model"))
    with scripted(right, other) as server, pytest.raises(ModelChanged):
        call(server.url, "score", list("ab"), list("ab"), max_items=1, concurrency=1)


def test_a_reload_within_one_call_is_an_error_and_the_next_call_has_the_new_model(call: Call):
    """The real application changes its model between two requests of one call."""

    class Reloaded(FixedBackend):
        async def score(self, items: Any) -> Answer:
            answer = await super().score(items)
            self.info = replace(self.info, fingerprint="e" * 16)
            return answer

    with served(create_app(Reloaded(fingerprint="f" * 16), ServerSettings())) as address:
        with pytest.raises(ModelChanged, match="the models ffffffffffff and eeeeeeeeeeee answered within one call"):
            call(address, "score", list("ab"), list("ab"), max_items=1, concurrency=1)
        assert call(address, "score", list("ab"), list("ab"), max_items=1, concurrency=1) == [0.0, 0.0]


@pytest.mark.parametrize(("method", "args"), [("score", (["p"], ["c"])), ("info", ()), ("health", ())])
def test_a_closed_client_says_that_it_is_closed(method: str, args: Any):
    async def in_a_loop(url: str) -> None:
        async with AsyncRewardClient(url) as client:
            pass
        await getattr(client, method)(*args)

    with scripted(right) as server:
        with RewardClient(server.url) as client:
            pass
        with pytest.raises(ConfigError, match="the client was closed"):
            getattr(client, method)(*args)
        with pytest.raises(ConfigError, match="the client was closed"):
            asyncio.run(in_a_loop(server.url))
        assert not server.bodies


def test_a_model_can_be_asked_for():
    with scripted(right) as server, RewardClient(server.url) as client:
        assert client.rewards(["p"], ["c"], fingerprint="f" * 16)[0].raw == 1.0  # type: ignore[union-attr]
        with pytest.raises(ModelChanged):
            client.rewards(["p"], ["c"], fingerprint="e" * 16)


@pytest.mark.parametrize(
    "others", [failing(503, "later", {"Retry-After": "1"}), hanging(2.5)], ids=["told to wait", "silent"]
)
def test_one_failure_ends_the_call_at_once(call: Call, others: Act):
    """Nine requests wait, or are not answered; the one that is refused is not held up, and none is sent again."""

    def act(handler: Handler) -> None:
        refuse = handler.body["completions"] == ["j"]
        if refuse:
            time.sleep(0.2)
        (failing(400) if refuse else others)(handler)

    start = time.monotonic()
    with scripted(act) as server:
        with pytest.raises(ServerRefused):
            call(server.url, "score", list("abcdefghij"), list("abcdefghij"), max_items=1, concurrency=10)
        assert time.monotonic() - start < 2
        sent = len(server.bodies)
        time.sleep(1.3)
        assert len(server.bodies) == sent


def test_health_is_asked_once(call: Call):
    for act, healthy in ((failing(200), True), (failing(503), False)):
        with scripted(act) as server:
            assert call(server.url, "health") is healthy
            assert len(server.bodies) == 1
    with scripted(failing(404)) as server, pytest.raises(ServerRefused):
        call(server.url, "health")


def test_an_answer_that_cannot_be_decompressed_is_said_to_be_that(call: Call):
    def garbled(handler: Handler) -> None:
        handler.send(200, b"no gzip", {"Content-Encoding": "gzip"})

    for method, args in (("health", ()), ("score", (["p"], ["c"]))):
        with scripted(garbled) as server, pytest.raises(BadAnswer, match=r"cannot be read: .*incorrect header"):
            call(server.url, method, *args)


def test_an_answer_without_an_end_is_said_to_be_that(call: Call, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(asking, "_MAX_ANSWER", 1000)

    def long(handler: Handler) -> None:
        handler.send(200, b" " * 2000)

    for method, args in (("health", ()), ("score", (["p"], ["c"]))):
        with scripted(long) as server, pytest.raises(BadAnswer, match="cannot be read: it does not end"):
            call(server.url, method, *args)


def test_threads_share_a_client_without_crossing_answers():
    with scripted(right) as server, RewardClient(server.url, max_items=3) as client:
        texts = [["x" * (start + i) for i in range(10)] for start in range(0, 200, 10)]
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda own: client.score(["p"] * 10, own), texts))
        assert found == [[score_of(text) for text in own] for own in texts]


def test_progress_counts_every_completion_that_was_answered():
    counts: list[int] = []
    with scripted(right) as server, RewardClient(server.url, max_items=4) as client:
        client.rewards(["p"] * 10, list("abcdefghij"), on_progress=counts.append)
    assert sum(counts) == 10
    assert len(counts) == 3


def test_a_cancelled_task_takes_back_its_requests():
    async def run(server: ScriptedServer) -> None:
        async with AsyncRewardClient(server.url, max_items=1) as client:
            task = asyncio.create_task(client.score(list("abcdefgh"), list("abcdefgh")))
            await asyncio.sleep(0.3)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert len(asyncio.all_tasks()) == 1

    with scripted(hanging(1.0)) as server:
        asyncio.run(run(server))
        assert len(server.bodies) == 4


# -- the real application ----------------------------------------------------------------------------------------------

PROMPTS = ["Write about the sea.", [{"role": "user", "content": "Write about Paris."}], "Write about the sea."]
COMPLETIONS = ["the sea is long", [{"role": "assistant", "content": "a poem"}], "but the wind of Paris"]


@pytest.fixture(scope="module")
def url(scorer: Scorer) -> Iterator[str]:
    """The real application, under uvicorn, with a key."""
    with served(create_app(InProcessBackend(scorer), ServerSettings(api_key="k3y", max_items=4))) as address:
        yield address


def test_the_server_s_scores_are_the_scorer_s(call: Call, url: str, scorer: Scorer):
    expected = scorer.score(PROMPTS, COMPLETIONS)
    assert call(url, "score", PROMPTS, COMPLETIONS, api_key="k3y") == pytest.approx(expected, abs=1e-6)
    rewards = call(url, "rewards", PROMPTS, COMPLETIONS, api_key="k3y", max_items=1)
    for scale in ("z", "centered", "percentile"):
        same = scorer.reference_scale.transform(expected, scale)
        assert [reward.on(scale) for reward in rewards] == pytest.approx(same, abs=1e-4)


def test_two_completions_are_compared(call: Call, url: str, scorer: Scorer):
    a, b = scorer.score(["p", "p"], ["the sea is long and the wind is short", "a poem"])
    found = call(url, "compare", "p", "the sea is long and the wind is short", "a poem", api_key="k3y")
    assert (found.a.raw, found.b.raw) == pytest.approx((a, b), abs=1e-6)
    assert (found.probability > 0.5) == (a > b)
    assert found.fingerprint == scorer.fingerprint


def test_the_server_tells_what_it_serves(call: Call, url: str, scorer: Scorer):
    info = call(url, "info", api_key="k3y")
    assert info["model"]["fingerprint"] == scorer.fingerprint
    assert info["limits"]["max_items"] == 4
    assert call(url, "health")


def test_a_wrong_key_and_too_many_items_are_refused(call: Call, url: str):
    with pytest.raises(ServerRefused, match="401") as caught:
        call(url, "score", ["p"], ["c"], api_key="wrong")
    assert "REWARDLAB_API_KEY" in caught.value.hint
    with pytest.raises(ServerRefused, match="413"):
        call(url, "score", ["p"] * 5, list("abcde"), api_key="k3y")


def test_a_completion_that_does_not_fit_is_told_alone(call: Call, url: str):
    found = call(url, "rewards", ["p", "p"], ["short", "the sea and the wind " * 60], api_key="k3y")
    assert [type(one) for one in found] == [Reward, Unscored]
    assert found[1].kind == "too_long"


def test_an_app_can_be_asked_without_a_network(scorer: Scorer):
    async def run() -> list[float]:
        app: Any = create_app(InProcessBackend(scorer), ServerSettings())
        async with AsyncRewardClient("http://app", transport=httpx2.ASGITransport(app=app)) as client:
            return await client.score(PROMPTS, COMPLETIONS)

    assert asyncio.run(run()) == pytest.approx(scorer.score(PROMPTS, COMPLETIONS), abs=1e-6)


def test_the_scripted_server_answers_as_the_real_one(url: str):
    """Same fields, so that what the script tests is what there is."""
    with RewardClient(url, api_key="k3y") as client:
        real = client._ask("POST", "/v1/rewards", b'{"prompt":"p","completions":["c"]}')
    assert real["results"][0].keys() == native_answer({"completions": ["c"]})["results"][0].keys()

"""The client before a real HTTP server that does what a script says; waits pass on a clock of their own."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from tests.judge.fake_server import (
    Behaviour,
    FakeServer,
    Script,
    broken_off,
    drop,
    fake_server,
    garbage,
    hang,
    in_turn,
    rate_limited,
    refuse,
    reply,
    status,
    truncated_body,
)
from tests.judge.fake_time import FakeTime

from rewardlab.errors import ConfigError, JudgeEndpointError
from rewardlab.judge.cache import ReplyCache
from rewardlab.judge.chat import Capabilities, ChatFailure, ChatReply, ChatRequest
from rewardlab.judge.client import OpenAIClient


def question(text: str = "hi", **fields: Any) -> ChatRequest:
    return ChatRequest(({"role": "user", "content": text},), 10, **fields)


def text_of(body: dict[str, Any]) -> str:
    return body["messages"][-1]["content"]


def run(script: Script, use: Callable[[OpenAIClient, FakeServer], Awaitable[Any]], **options: Any) -> Any:
    """What ``use`` gives, with a client of a server that runs the script."""

    async def inside(server: FakeServer) -> Any:
        async with OpenAIClient("m", base_url=server.base_url, **options) as client:
            return await use(client, server)

    with fake_server(script) as server:
        return asyncio.run(inside(server))


def time_for(fault: Behaviour) -> float:
    """Seconds: a machine that is busy takes its time, and only a server that hangs is worth no patience."""
    return 0.2 if fault.wait else 30.0


async def ask_once(client: OpenAIClient, server: FakeServer) -> tuple[ChatReply | ChatFailure, int]:
    return await client.complete(question()), len(server.requests)


@pytest.mark.parametrize(
    ("fault", "waits"),
    [
        (rate_limited("2"), [2.5, 0.0]),  # what was asked and the jitter; then no wait is left
        (rate_limited("2", **{"retry-after-ms": "1500"}), [2.0, 0.0]),
        (rate_limited(None), [0.5, 0.0]),
        (status(500), [0.5]),
        (status(503, headers={"Retry-After": "4"}), [4.5]),
        (status(409), [0.5]),
        (status(408), [0.5]),
        (drop(), [0.5]),
        (broken_off(), [0.5]),
        (garbage(b"{}"), [0.5]),
        (truncated_body(), [0.5]),
        (reply(None), [0.5]),
        (hang(), [0.5]),
    ],
)
def test_what_asking_again_may_mend_is_asked_again(fault, waits):
    time = FakeTime()
    reply_, requests = run(in_turn(fault, reply("fine")), ask_once, waiting=time.waiting(), timeout_s=time_for(fault))
    assert isinstance(reply_, ChatReply)
    assert (reply_.text, requests) == ("fine", 2)
    assert time.slept == [wait for wait in waits if wait]


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (rate_limited("0"), "rate_limited"),
        (status(500), "server_error"),
        (drop(), "connection"),
        (garbage(b"{}"), "bad_answer"),
        (hang(), "timeout"),
    ],
)
def test_after_the_last_attempt_there_is_a_reason_and_no_reply(fault, kind):
    time = FakeTime()
    failure, requests = run(in_turn(fault), ask_once, waiting=time.waiting(), max_attempts=3, timeout_s=time_for(fault))
    assert isinstance(failure, ChatFailure)
    assert (failure.kind, failure.attempts, requests) == (kind, 3, 3)
    assert time.slept == [0.5, 1.0]


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (status(400, "maximum context length is 10 tokens"), "too_long"),
        (status(400, "roles must alternate"), "bad_request"),
        (status(413, "too large"), "bad_request"),
        (status(422, "no"), "bad_request"),
        (rate_limited("7200"), "rate_limited"),  # nobody waits two hours
    ],
)
def test_what_asking_again_cannot_mend_is_asked_once(fault, kind):
    time = FakeTime()
    failure, requests = run(in_turn(fault, reply("fine")), ask_once, waiting=time.waiting())
    assert isinstance(failure, ChatFailure)
    assert (failure.kind, failure.attempts, requests, time.slept) == (kind, 1, 1, [])


def test_refusal_length_and_filter_are_replies():
    refused, _ = run(in_turn(refuse("no")), ask_once)
    assert (refused.refusal, refused.text) == ("no", "")
    cut, _ = run(in_turn(reply("half", finish="length")), ask_once)
    assert (cut.text, cut.finish) == ("half", "length")
    filtered, requests = run(in_turn(status(400, "filtered", code="content_filter")), ask_once)
    assert (filtered.finish, filtered.text, requests) == ("content_filter", "", 1)


@pytest.mark.parametrize(
    "fault",
    [status(401), status(403), status(404), status(429, "quota", code="insufficient_quota"), status(402)],
    ids=["401", "403", "404", "quota", "402"],
)
def test_what_no_question_survives_ends_them_all_at_once(fault):
    async def ask_many(client: OpenAIClient, server: FakeServer) -> tuple[list[Any], int]:
        found = await asyncio.gather(*(client.complete(question(str(i))) for i in range(40)), return_exceptions=True)
        with pytest.raises(JudgeEndpointError):
            await client.complete(question("later"))
        return found, len(server.requests)

    # Real time: those that wait after a 500 would wait half a minute, were they not called off.
    script: Script = lambda body, call: status(500, headers={"Retry-After": "30"}) if call < 2 else fault  # noqa: E731
    found, requests = run(script, ask_many, concurrency=4)
    assert all(isinstance(one, JudgeEndpointError) for one in found)
    assert requests <= 2 + 4
    assert found[0].hint


def test_a_hint_fits_what_came():
    def hint(fault: Behaviour) -> str:
        with pytest.raises(JudgeEndpointError) as told:
            run(in_turn(fault), ask_once)
        return told.value.hint or ""

    assert "$REWARDLAB_JUDGE_KEY" in hint(status(401))
    assert "fake-judge" in hint(status(404))
    assert "/v1" in hint(garbage())


def test_a_web_page_ends_the_run_only_where_nothing_else_ever_came():
    time = FakeTime()
    with pytest.raises(JudgeEndpointError, match="web page"):
        run(in_turn(garbage()), ask_once, waiting=time.waiting())
    assert time.slept == []

    async def ask_twice(client: OpenAIClient, server: FakeServer) -> Any:
        return await client.complete(question("1")), await client.complete(question("2"))

    found = run(in_turn(reply("fine"), garbage(), reply("again")), ask_twice, waiting=time.waiting())
    assert [one.text for one in found] == ["fine", "again"]


@pytest.mark.parametrize(("fault", "booked"), [(broken_off(), 19), (drop(), 19), (status(500), 0)])
def test_what_the_server_may_have_worked_for_is_booked_at_its_most(fault, booked):
    """Two bytes and one message reserve 1 + 8 tokens, and 10 for the answer."""

    async def ask(client: OpenAIClient, server: FakeServer) -> Any:
        await client.complete(question())
        return client.usage

    usage = run(in_turn(fault), ask, max_attempts=1)
    assert (usage.prompt_tokens + usage.completion_tokens, usage.estimated) == (booked, booked > 0)


def test_a_429_slows_all_questions_down():
    time = FakeTime(real=0.02)

    async def both(client: OpenAIClient, server: FakeServer) -> float:
        first = asyncio.ensure_future(client.complete(question("first")))
        while not client.usage.retries:
            await asyncio.sleep(0.001)
        before = time.now
        second = await client.complete(question("second"))  # alone it would be answered at once
        assert isinstance(second, ChatReply)
        assert isinstance(await first, ChatReply)
        return time.now - before

    script: Script = lambda body, call: rate_limited("20") if call == 0 else reply("fine")  # noqa: E731
    assert run(script, both, waiting=time.waiting(jitter=0.0)) >= 20.0


@pytest.mark.parametrize(
    ("refusal", "parameter", "then"),
    [
        (status(400, "Use 'max_completion_tokens' instead of 'max_tokens'"), "max_tokens", "max_completion_tokens"),
        (status(400, "Unsupported value: 'temperature'", param="temperature"), "temperature", None),
        (status(422, "Unknown field: seed"), "seed", None),
        (status(400, "logprobs are not supported"), "logprobs", None),
    ],
)
def test_a_parameter_that_is_refused_is_left_out_from_then_on_and_said_once(refusal, parameter, then):
    told: list[str] = []

    async def ask_many(client: OpenAIClient, server: FakeServer) -> tuple[Any, ...]:
        questions = (question(str(i), top_logprobs=3) for i in range(12))
        found = await asyncio.gather(*(client.complete(one) for one in questions))
        assert all(isinstance(one, ChatReply) for one in found)
        return client.usage, client.notes, server.requests

    script: Script = lambda body, call: refusal if parameter in body else reply("fine")  # noqa: E731
    usage, notes, requests = run(script, ask_many, on_retry=told.append, concurrency=3)
    assert (usage.calls, usage.retries, usage.failures) == (12, 0, {})
    assert len(requests) <= 12 + 3
    assert then is None or then in requests[-1]
    assert len([words for words in told if f"refuses {parameter}" in words]) == 1
    assert bool(notes) == (parameter != "max_tokens")


def test_a_server_that_refuses_everything_optional_is_still_asked():
    def picky(body: dict[str, Any], call: int) -> Behaviour:
        for name in ("max_tokens", "temperature", "seed", "top_logprobs", "logprobs"):
            if name in body:
                return status(400, f"Unrecognized request argument supplied: {name}")
        return reply("fine")

    async def ask(client: OpenAIClient, server: FakeServer) -> Any:
        return await client.complete(question(top_logprobs=20))

    assert run(picky, ask).text == "fine"


def test_every_question_ends_in_exactly_one_reply_or_failure():
    """80 questions, 8 at once, half of all attempts fail: each answer is that of its own question."""
    draw = random.Random(0)
    faults = (rate_limited("0.01"), status(500), drop(), garbage(), truncated_body(), broken_off(), reply(None))

    def script(body: dict[str, Any], call: int) -> Behaviour:
        number = int(text_of(body))
        if number % 20 == 7:
            return status(400, "roles must alternate")
        if number % 20 == 13:
            return status(503)
        fault = draw.choice(faults) if draw.random() < 0.5 else None
        return fault or reply(f"answer {number}")

    async def ask_many(client: OpenAIClient, server: FakeServer) -> Any:
        found = await asyncio.gather(*(client.complete(question(str(i))) for i in range(80)))
        return found, client.usage, server

    found, usage, server = run(script, ask_many, waiting=FakeTime().waiting(jitter=0.0), concurrency=8)
    kinds: list[str] = []
    for number, one in enumerate(found):
        if isinstance(one, ChatReply):
            assert one.text == f"answer {number}"
            assert number % 20 not in (7, 13)
        else:
            kinds.append(one.kind)
            assert number % 20 != 7 or (one.kind, one.attempts) == ("bad_request", 1)
            assert number % 20 != 13 or (one.kind, one.attempts) == ("server_error", 6)
    assert sum(usage.failures.values()) == len(kinds) >= 8
    assert (usage.calls, len(server.requests)) == (80, 80 + usage.retries)
    assert server.most_at_once <= 8


def test_no_more_than_so_many_are_under_way():
    async def ask_many(client: OpenAIClient, server: FakeServer) -> int:
        await asyncio.gather(*(client.complete(question(str(i))) for i in range(12)))
        return server.most_at_once

    assert run(in_turn(reply("fine", wait=0.05)), ask_many, concurrency=3) == 3


def test_the_same_question_under_way_is_sent_once_and_outlives_one_who_asked():
    async def ask_many(client: OpenAIClient, server: FakeServer) -> Any:
        tasks = [asyncio.ensure_future(client.complete(question())) for _ in range(5)]
        await asyncio.sleep(0.05)
        tasks[0].cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        return found, len(server.requests), client.usage

    found, requests, usage = run(in_turn(reply("fine", wait=0.2)), ask_many)
    assert isinstance(found[0], asyncio.CancelledError)
    assert [one.text for one in found[1:]] == ["fine"] * 4
    assert all(one.cached for one in found[1:])  # the one that it was sent for has gone
    assert (requests, usage.calls, usage.cached) == (1, 1, 4)


def test_what_nobody_waits_for_any_more_is_given_up():
    async def ask(client: OpenAIClient, server: FakeServer) -> Any:
        task = asyncio.ensure_future(client.complete(question()))
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return client.usage, await client.complete(question("other"))

    script: Script = lambda body, call: hang() if call == 0 else reply("fine")  # noqa: E731
    usage, other = run(script, ask, concurrency=1)
    assert other.text == "fine"
    assert (usage.calls, usage.estimated) == (1, True)  # the server may have answered it, so it is booked


def test_closing_calls_off_what_is_under_way():
    async def ask(client: OpenAIClient, server: FakeServer) -> Any:
        tasks = [asyncio.ensure_future(client.complete(question(str(i)))) for i in range(4)]
        await asyncio.sleep(0.1)
        await client.close()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        with pytest.raises(RuntimeError, match="closed"):
            await client.complete(question())
        return found

    found = run(in_turn(hang()), ask, concurrency=2)
    assert all(isinstance(one, asyncio.CancelledError) for one in found)


def test_a_reply_is_kept_over_a_restart(tmp_path):
    def again(cache: ReplyCache, base_url: str, seed: int = 0) -> tuple[ChatReply, Any]:
        async def inside() -> Any:
            async with OpenAIClient("m", base_url=base_url, cache=cache) as client:
                return await client.complete(question(seed=seed)), client.usage

        return asyncio.run(inside())

    with fake_server(lambda body, call: reply(f"call {call}")) as server:
        with ReplyCache(tmp_path / "c") as cache:
            first, usage = again(cache, server.base_url)
            assert (first.text, first.cached, usage.calls, usage.cached) == ("call 0", False, 1, 0)
        with ReplyCache(tmp_path / "c") as cache:
            kept, usage = again(cache, server.base_url)
            assert (kept.text, kept.cached) == ("call 0", True)
            assert (usage.calls, usage.cached, usage.prompt_tokens) == (0, 1, 0)
            assert again(cache, server.base_url, seed=1)[0].text == "call 1"
            assert again(cache, server.base_url + "/")[0].cached
    assert len(server.requests) == 2


def test_a_failure_is_never_kept(tmp_path):
    with ReplyCache(tmp_path / "c") as cache:
        script = in_turn(status(400, "no"), reply("fine"))

        async def ask_twice(client: OpenAIClient, server: FakeServer) -> list[Any]:
            return [await client.complete(question()), await client.complete(question())]

        found = run(script, ask_twice, cache=cache)
    assert [type(one) for one in found] == [ChatFailure, ChatReply]


def test_what_a_server_refuses_is_remembered_so_that_replies_are_found_again(tmp_path):
    script: Script = lambda body, call: status(400, "Unsupported: seed") if "seed" in body else reply("fine")  # noqa: E731

    def ask(base_url: str) -> Any:
        async def inside() -> Any:
            with ReplyCache(tmp_path / "c") as cache:
                async with OpenAIClient("m", base_url=base_url, cache=cache) as client:
                    return await client.complete(question()), client.notes

        return asyncio.run(inside())

    with fake_server(script) as server:
        first, notes = ask(server.base_url)
        again, notes_again = ask(server.base_url)
    assert (first.cached, again.cached, len(server.requests)) == (False, True, 2)
    assert notes == notes_again == ("the server refuses a seed",)


def test_a_reply_is_filed_under_what_was_sent_for_it(tmp_path):
    """The first question goes out with a seed and is answered; meanwhile the second learns to go without."""

    def script(body: dict[str, Any], call: int) -> Behaviour:
        if text_of(body) == "slow":
            return reply("with a seed" if "seed" in body else "without", wait=0.0 if call > 1 else 0.2)
        return status(400, "Unsupported: seed") if "seed" in body else reply("fine")

    async def ask(client: OpenAIClient, server: FakeServer) -> Any:
        slow = asyncio.ensure_future(client.complete(question("slow")))
        while not server.requests:
            await asyncio.sleep(0.005)
        await client.complete(question("quick"))
        return (await slow).text, (await client.complete(question("slow"))).text

    with ReplyCache(tmp_path / "c") as cache:
        assert run(script, ask, cache=cache) == ("with a seed", "without")


def test_a_cache_that_can_no_longer_be_written_costs_no_reply(tmp_path):
    told: list[str] = []
    with ReplyCache(tmp_path / "c") as cache:
        cache._database.execute("PRAGMA query_only = 1")
        found, _ = run(in_turn(reply("fine")), ask_once, cache=cache, on_retry=told.append)
    assert found.text == "fine"
    assert "not kept" in told[0]


LOGPROBS = [("hello", -0.1, [("hello", -0.1), ("hi", -3.0)])]


@pytest.mark.parametrize(
    ("script", "found"),
    [
        (in_turn(reply("hello")), Capabilities()),
        (in_turn(reply('{"greeting": "hello"}', logprobs=LOGPROBS)), Capabilities(True, 2)),
        (
            lambda body, call: (
                status(400, "Unknown field: response_format") if "response_format" in body else reply("x")
            ),
            Capabilities(),
        ),
        (
            lambda body, call: (
                status(400, "top_logprobs must be less than or equal to 5")
                if body.get("top_logprobs", 0) > 5
                else reply("hello", logprobs=[("hello", -0.1, [(str(i), -1.0 * i) for i in range(20)])])
            ),
            Capabilities(False, 5),
        ),
        (lambda body, call: status(400, "not with this model") if "logprobs" in body else reply("x"), Capabilities()),
    ],
    ids=["ignores both", "does both", "refuses schemas", "gives five alternatives", "refuses by no name"],
)
def test_what_an_endpoint_can_do_is_found_out_once(script, found, tmp_path):
    async def probe(client: OpenAIClient, server: FakeServer) -> tuple[Any, int]:
        both = await asyncio.gather(client.capabilities(), client.capabilities())
        assert both == [found, found]
        return server.base_url, len(server.requests)

    async def remembered(base_url: str) -> Any:
        async with OpenAIClient("m", base_url=base_url, cache=cache) as client:
            return await client.capabilities()

    with ReplyCache(tmp_path / "c") as cache:
        base_url, requests = run(script, probe, cache=cache)
        assert requests <= 4
        assert asyncio.run(remembered(base_url)) == found  # the server has gone


def test_a_passing_fault_is_no_finding(tmp_path):
    ok = reply('{"greeting": "hello"}', logprobs=LOGPROBS)
    broken: Script = lambda body, call: status(500) if "response_format" in body else ok  # noqa: E731

    def found(base_url: str) -> Any:
        async def inside() -> Any:
            async with OpenAIClient("m", base_url=base_url, cache=cache, max_attempts=1) as client:
                return await client.capabilities()

        return asyncio.run(inside())

    with ReplyCache(tmp_path / "c") as cache, fake_server(broken) as server:
        with pytest.raises(JudgeEndpointError, match="small question"):
            found(server.base_url)
        server.script = in_turn(ok)
        assert found(server.base_url) == Capabilities(True, 2)


def test_what_is_not_wanted_is_not_asked():
    async def ask(client: OpenAIClient, server: FakeServer) -> Any:
        found = [await client.capabilities(schema=False, logprobs=False), len(server.requests)]
        found += [await client.capabilities(logprobs=False), len(server.requests)]
        return [*found, await client.capabilities(), len(server.requests), client.usage.probe_calls]

    script = in_turn(reply('{"greeting": "hello"}', logprobs=LOGPROBS))
    assert run(script, ask) == [Capabilities(), 0, Capabilities(True, 0), 1, Capabilities(True, 2), 2, 2]


def test_odd_findings_in_a_cache_are_found_out_anew(tmp_path):
    async def ask(client: OpenAIClient, server: FakeServer) -> Any:
        return await client.capabilities()

    with ReplyCache(tmp_path / "c") as cache:
        cache.recall = lambda name: {"capabilities": {"schema": 1, "top_logprobs": -3}, "accepted": [1]}  # type: ignore[method-assign]
        assert run(in_turn(reply("x")), ask, cache=cache) == Capabilities()


def test_what_an_endpoint_can_do_may_be_said():
    async def ask(client: OpenAIClient, server: FakeServer) -> Any:
        return await client.capabilities(), len(server.requests)

    assert run(in_turn(reply("x")), ask, capabilities=Capabilities(True, 3)) == (Capabilities(True, 3), 0)


def test_an_address_where_nobody_answers_is_told_by_the_probe():
    async def inside() -> None:
        async with OpenAIClient(
            "m", base_url="http://127.0.0.1:9/v1", max_attempts=2, waiting=FakeTime().waiting()
        ) as client:
            with pytest.raises(JudgeEndpointError, match="2 tries"):
                await client.capabilities()

    asyncio.run(inside())


def test_limits_end_what_is_asked_and_not_what_was():
    async def ask_many(client: OpenAIClient, server: FakeServer) -> Any:
        found = await asyncio.gather(*(client.complete(question(str(i))) for i in range(20)))
        return found, client.usage, len(server.requests)

    def split(found: Sequence[Any]) -> tuple[int, int]:
        over = [one for one in found if isinstance(one, ChatFailure)]
        assert {(one.kind, one.attempts) for one in over} <= {("budget", 0)}
        return len(found) - len(over), len(over)

    found, usage, requests = run(in_turn(reply("fine")), ask_many, max_calls=6)
    assert (*split(found), usage.calls, requests) == (6, 14, 6, 6)
    assert usage.failures == {"budget": 14}
    # A question of one or two bytes reserves 1 + 8 tokens and 10 for the answer, and costs 9 + 5.
    script = in_turn(reply("fine", usage=(9, 5)))
    found, usage, requests = run(script, ask_many, max_tokens_total=100)
    assert usage.prompt_tokens + usage.completion_tokens <= 100
    assert split(found)[0] == requests == 6  # 5 * 14 + 19 <= 100 < 6 * 14 + 19
    found, usage, _ = run(script, ask_many, prices=(1.0, 1.0), max_cost=100e-6)
    assert usage.cost is not None
    assert usage.cost <= 100e-6


def test_the_key_is_in_no_log_error_record_or_file(tmp_path, caplog):
    key = "sk-very-secret-0123"
    caplog.set_level(logging.DEBUG)
    told: list[str] = []

    async def ask(client: OpenAIClient, server: FakeServer) -> Any:
        reply_ = await client.complete(question())
        with pytest.raises(JudgeEndpointError) as error:
            await client.complete(question("other"))
        return [repr(client), client.name, repr(client.usage), repr(reply_), str(error.value), repr(error.value)]

    script = in_turn(status(500, f"your key {key}"), reply("fine"), status(401, f"wrong key: {key}"))
    with ReplyCache(tmp_path / "c") as cache:
        said = run(script, ask, api_key=key, cache=cache, on_retry=told.append, waiting=FakeTime().waiting())
        files = [path.read_bytes() for path in tmp_path.iterdir()]
    for text in (*said, *told, caplog.text):
        assert key not in text
    assert len(files) >= 2
    assert all(key.encode() not in content for content in files)
    assert all(b"127.0.0.1" not in content for content in files)


@pytest.mark.parametrize(
    "wrong",
    [
        {"model": ""},
        {"base_url": "127.0.0.1:8000"},
        {"base_url": "ftp://x"},
        {"concurrency": 0},
        {"max_attempts": True},
        {"timeout_s": 0},
        {"timeout_s": float("nan")},
        {"extra_body": {"stream": True}},
        {"extra_body": {"temperature": 1}},
        {"max_cost": 1.0},
    ],
)
def test_arguments_that_cannot_be_used_are_refused(wrong):
    options = {"model": "m", "base_url": "http://x/v1", **wrong}
    with pytest.raises(ConfigError):
        OpenAIClient(options.pop("model"), **options)


def test_a_password_in_an_address_is_not_repeated():
    with pytest.raises(ConfigError) as told:
        OpenAIClient("m", base_url="htp://user:PASS@word@127.0.0.1:9/v1?key=QUERY")
    assert "htp://***@127.0.0.1:9/v1" in str(told.value)
    assert not any(secret in str(told.value) for secret in ("PASS", "word", "QUERY"))

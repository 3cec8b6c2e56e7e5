from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from tests.judge.fake_time import FakeTime

from rewardlab.judge.retrying import FIRST_WAIT, LONGEST_WAIT, Waiting, seconds_asked, seconds_told

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "Mon, 01 Jan 99999999999 00:00:00 GMT"}, None),
        ({"retry-after": "Sat, 21 Nov 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Sat, 21 Nov 2026 12:00:30"}, 30.0),
        ({"retry-after": "Sat, 21 Nov 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "x", "retry-after": "9"}, 9.0),
    ],
)
def test_what_a_server_asks_for_is_read_in_every_form(headers, seconds):
    assert seconds_asked(headers, NOW) == seconds


@pytest.mark.parametrize(
    ("words", "seconds"),
    [
        ("Please retry in 33.8s.", 33.8),
        ('{"details": [{"retryDelay": "33s"}]}', 33.0),
        ("Please try again in 6m1.5s. Visit", 361.5),
        ("try again in 250ms", 0.25),
        ("Please retry after 20 seconds.", 20.0),
        ("try again in a while", None),
        ("", None),
    ],
)
def test_what_words_ask_for_is_read(words, seconds):
    assert seconds_told(words) == seconds


def test_the_longest_wait_doubles_to_a_limit_and_all_below_it_may_be_drawn():
    """Full jitter: between 0 and 0.5 * 2^(attempt - 1), at most 60 s."""
    most = FakeTime().waiting(jitter=1.0)
    assert [most.wait_after(attempt, None) for attempt in (1, 2, 3, 4)] == [0.5, 1.0, 2.0, 4.0]
    assert most.wait_after(500, None) == LONGEST_WAIT
    assert FakeTime().waiting(jitter=0.0).wait_after(9, None) == 0.0
    draws = [Waiting().wait_after(3, None) for _ in range(200)]
    assert all(0 <= draw <= 4 * FIRST_WAIT for draw in draws)
    assert len(set(draws)) > 100


def test_a_wait_is_never_shorter_than_was_asked():
    assert FakeTime().waiting(jitter=0.0).wait_after(1, 20.0) == 20.0
    assert FakeTime().waiting(jitter=1.0).wait_after(1, 20.0) == 20.5


async def _cooled_after(seconds: list[float]) -> FakeTime:
    time = FakeTime()
    waiting = time.waiting(jitter=0.0)
    for each in seconds:
        waiting.cool_down(each)
    await waiting.cooled()
    return time


def test_a_cool_down_holds_for_all_and_the_longest_counts():
    assert asyncio.run(_cooled_after([5.0, 2.0])).slept == [5.0]
    assert asyncio.run(_cooled_after([])).slept == []


def test_the_end_of_everything_ends_every_wait():
    async def run() -> None:
        waiting = Waiting()
        waiting.cool_down(3600.0)
        waits = [asyncio.ensure_future(waiting.cooled()), asyncio.ensure_future(waiting.pause(3600.0))]
        await asyncio.sleep(0)
        waiting.stop()
        await asyncio.wait_for(asyncio.gather(*waits), 5.0)
        await asyncio.wait_for(waiting.pause(3600.0), 5.0)

    asyncio.run(run())

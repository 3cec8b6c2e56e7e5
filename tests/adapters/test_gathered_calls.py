from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from rewardlab.adapters.gathered_calls import GatheredCalls
from rewardlab.errors import ConfigError


def test_calls_made_at_the_same_time_are_one_call_and_each_gets_its_own_result():
    sizes = []
    calls = GatheredCalls(lambda items: sizes.append(len(items)) or [item**2 for item in items], max_wait_ms=200)
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(lambda number: calls.submit(number).result(), range(16))) == [n**2 for n in range(16)]
    assert len(sizes) < 16
    assert sum(sizes) == 16


def test_no_call_is_larger_than_the_most():
    sizes = []
    calls = GatheredCalls(lambda items: sizes.append(len(items)) or items, max_wait_ms=100, max_items=3)
    futures = [calls.submit(number) for number in range(8)]
    assert [future.result() for future in futures] == list(range(8))
    assert sizes == [3, 3, 2]


def test_a_full_call_does_not_wait():
    calls = GatheredCalls(lambda items: items, max_wait_ms=60_000, max_items=2)
    start = time.monotonic()
    futures = [calls.submit(1), calls.submit(2)]
    assert [future.result(timeout=10) for future in futures] == [1, 2]
    assert time.monotonic() - start < 10


def test_a_poisoned_item_fails_alone():
    """Once because the call raises, once because it gives an exception in the item's place."""

    def inverse(items):
        return [1 / item for item in items]

    def told(items):
        return [ValueError("none") if item == 0 else 1 / item for item in items]

    for call, error in ((inverse, ZeroDivisionError), (told, ValueError)):
        calls = GatheredCalls(call, max_wait_ms=50)
        futures = [calls.submit(number) for number in (1, 0, 2)]
        assert futures[0].result() == 1
        assert futures[2].result() == 0.5
        with pytest.raises(error):
            futures[1].result()


def test_what_was_cancelled_is_not_computed():
    going, seen = threading.Event(), []

    def call(items):
        going.wait(5)
        seen.extend(items)
        return items

    calls = GatheredCalls(call, max_wait_ms=0)
    first = calls.submit(1)
    time.sleep(0.05)  # the worker is in the first call
    second = calls.submit(2)
    assert second.cancel()
    going.set()
    assert first.result() == 1
    assert calls.submit(3).result() == 3
    assert seen == [1, 3]


def test_numbers_that_mean_nothing_are_refused():
    with pytest.raises(ConfigError, match="max_items"):
        GatheredCalls(list, max_items=0)

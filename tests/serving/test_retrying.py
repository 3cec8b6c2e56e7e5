"""When a request is tried again: waits, the server's own wish, the number of tries and the deadline."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardlab.errors import ConfigError
from rewardlab.serving.client_errors import ServerUnavailable
from rewardlab.serving.retrying import RetryPolicy, Tries, seconds_of

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def tries(policy: RetryPolicy, clock: Clock, share: float = 1.0) -> Tries:
    """Tries whose jitter always draws the same share of the longest wait."""
    return Tries("POST url", policy, clock=clock, draw=lambda low, high: low + share * (high - low))


def test_the_longest_waits_double_up_to_the_ceiling():
    """0.5, 1, 2, 4, 8, 16, then the ceiling of 30 s."""
    one = tries(RetryPolicy(), Clock())
    found = [one.wait_after("503", "full", status=503) for _ in range(8)]
    assert found == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


@given(share=st.floats(0, 1), asked=st.floats(0, 60))
def test_a_wait_is_never_shorter_than_the_server_asked_for(share: float, asked: float):
    """Full jitter stands on top of it: clients that were told the same second do not all come in it."""
    wait = tries(RetryPolicy(), Clock(), share).wait_after("503", "", status=503, retry_after=asked)
    assert wait == pytest.approx(asked + 0.5 * share)


def test_after_the_last_try_every_one_is_told():
    clock = Clock()
    one = tries(RetryPolicy(retries=2), clock)
    one.wait_after("ConnectError", "refused")
    clock.now += 1.5
    one.wait_after("503", "the queue is full", status=503)
    clock.now += 2
    with pytest.raises(ServerUnavailable) as caught:
        one.wait_after("429", "too many", status=429)
    told = [(attempt.kind, attempt.status, attempt.at) for attempt in caught.value.attempts]
    assert told == [("ConnectError", None, 0.0), ("503", 503, 1.5), ("429", 429, 3.5)]
    assert caught.value.status == 429
    for part in ("POST url", "3 tries", "ConnectError, refused", "503, the queue is full", "429, too many"):
        assert part in caught.value.message


def test_no_retries_is_one_try():
    with pytest.raises(ServerUnavailable, match="1 try"):
        tries(RetryPolicy(retries=0), Clock()).wait_after("503", "", status=503)


def test_a_wait_that_would_end_after_the_deadline_is_not_begun():
    clock = Clock()
    one = tries(RetryPolicy(deadline=10.0), clock)
    assert one.left == 10
    clock.now += 8
    assert one.wait_after("503", "", status=503) == 0.5
    clock.now += 1.5
    with pytest.raises(ServerUnavailable, match="deadline of 10 s"):
        one.wait_after("503", "", status=503)


def test_a_server_that_asks_for_a_day_is_not_waited_for():
    with pytest.raises(ServerUnavailable, match="asks to wait 86400 s"):
        tries(RetryPolicy(), Clock()).wait_after("503", "", status=503, retry_after=86400)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("3", 3.0),
        ("0", 0.0),
        ("1.5", 1.5),
        ("-4", 0.0),
        ("Sat, 21 Nov 2026 12:00:30 GMT", 30.0),
        ("Sat, 21 Nov 2026 11:00:00 GMT", 0.0),
        ("Sat, 21 Nov 2026 12:00:30 -0000", 30.0),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ("", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, seconds: float | None):
    assert seconds_of(header, NOW) == seconds


def test_a_date_is_read_against_this_machine_s_clock():
    assert (seconds_of("Fri, 31 Dec 2100 23:59:59 GMT") or 0) > 1e6


@pytest.mark.parametrize(
    "options", [{"retries": -1}, {"retries": 1.5}, {"retries": True}, {"deadline": 0}, {"deadline": float("inf")}]
)
def test_numbers_that_mean_nothing_are_refused(options: dict[str, float]):
    with pytest.raises(ConfigError):
        RetryPolicy(**options)  # type: ignore[arg-type]


@given(text=st.text(max_size=30))
def test_no_header_breaks_the_reading(text: str):
    found = seconds_of(text, NOW)
    assert found is None or found >= 0

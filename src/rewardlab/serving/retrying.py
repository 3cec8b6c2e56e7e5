"""When a request is tried again, and when it is given up: exponential backoff with full jitter under one deadline.

Tried again is what asking again may mend: no connection, no answer in time, a connection that broke, 429, 502, 503 and
504. Scoring changes nothing on the server, so that a request that may have been computed can be sent again. This file
knows numbers and words; it knows no HTTP library.

References:
    Full jitter: AWS Architecture Blog, "Exponential Backoff And Jitter" (2015). Retry-After: RFC 9110, section 10.2.3.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from rewardlab.errors import ConfigError
from rewardlab.serving.client_errors import Attempt, ServerUnavailable

RETRIED = (429, 502, 503, 504)
"""Statuses after which a request is sent again."""

FIRST_WAIT = 0.5
"""Longest wait before the first retry, seconds; each next one may be twice as long."""

LONGEST_WAIT = 30.0
"""Longest wait that is chosen here, seconds. A server may ask for a longer one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how long a request is tried.

    Attributes:
        retries: Tries after the first.
        deadline: Most seconds for a request, with all its tries and the waits between them.
    """

    retries: int = 8
    deadline: float = 600.0

    def __post_init__(self) -> None:
        """Refuse numbers that mean nothing."""
        if isinstance(self.retries, bool) or not isinstance(self.retries, int) or self.retries < 0:
            raise ConfigError(f"retries must be a whole number of at least 0, got {self.retries!r}")
        if not (isinstance(self.deadline, int | float) and math.isfinite(self.deadline) and self.deadline > 0):
            raise ConfigError(f"deadline must be a number of seconds above 0, got {self.deadline!r}")


class Tries:
    """The tries of one request.

    Args:
        what: The request in words, ``"POST http://127.0.0.1:8000/v1/rewards"``.
        policy: How often and how long.
        clock: Seconds, rising.
        draw: A number between two, evenly.
    """

    def __init__(
        self,
        what: str,
        policy: RetryPolicy,
        *,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.what, self._policy, self._clock, self._draw = what, policy, clock, draw
        self._start = clock()
        self.attempts: list[Attempt] = []

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return self._start + self._policy.deadline - self._clock()

    def wait_after(
        self,
        kind: str,
        message: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        not_ready: bool = False,
    ) -> float:
        """Note a try that failed, and say how long to wait before the next.

        Args:
            kind: What became of it, in a word.
            message: The same in words.
            status: HTTP status, if there was an answer.
            retry_after: Seconds after which the server wants to be asked again.
            not_ready: Whether the server says that it is loading, asleep or the like, and not that it is busy.

        Returns:
            Seconds. Never less than the server asked for, and never the same for all clients that it asked.

        Raises:
            ServerUnavailable: There is no try left, or no time for one.
        """
        self.attempts.append(Attempt(kind, status, message, self._clock() - self._start))
        number = len(self.attempts)
        if number > self._policy.retries:
            raise self._given_up(f"{number} {'try' if number == 1 else 'tries'}", not_ready)
        ceiling = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(number - 1, 60))
        wait = self._draw(0.0, ceiling) + (retry_after or 0.0)
        if wait >= self.left:
            asked = f"; the server asks to wait {retry_after:g} s" if retry_after else ""
            raise self._given_up(f"the deadline of {self._policy.deadline:g} s{asked}", not_ready)
        return wait

    def _given_up(self, why: str, not_ready: bool) -> ServerUnavailable:
        tries, last = "; ".join(map(str, self.attempts)), self.attempts[-1]
        hint = "is the server running, and is this its address? /health tells whether it is ready"
        if not_ready:
            hint = f"the server is not ready ({last.message}): ask once it is, or raise retries and the deadline"
        elif last.status is not None:
            hint = "the server is overloaded, or not ready: lower the concurrency, or raise retries and the deadline"
        return ServerUnavailable(
            f"{self.what}: no answer within {why} ({tries})", hint=hint, status=last.status, attempts=self.attempts
        )


def seconds_of(retry_after: str | None, now: datetime | None = None) -> float | None:
    """What a ``Retry-After`` header asks for.

    Args:
        retry_after: The header: seconds, or an HTTP date; None where there is none.
        now: The time; by default this machine's.

    Returns:
        Seconds from now, at least 0; None where it cannot be read.

    Example:
        >>> seconds_of("3"), seconds_of("soon")
        (3.0, None)
    """
    if retry_after is None:
        return None
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            date = parsedate_to_datetime(retry_after)
        except (ValueError, OverflowError):  # a year that no date has
            return None
        if date.tzinfo is None:  # RFC 9110: an HTTP date is always in GMT
            date = date.replace(tzinfo=UTC)
        seconds = (date - (now or datetime.now(UTC))).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else None

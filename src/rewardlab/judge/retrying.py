"""How long to wait before a question is asked again: exponential backoff with full jitter, and one cool-down for all.

A server that says 429 means the account, not the one question, so its wait holds for every question of the client. This
file knows seconds; it knows no HTTP library and no question.

References:
    Full jitter: AWS Architecture Blog, "Exponential Backoff And Jitter" (2015). Retry-After: RFC 9110, section 10.2.3;
    ``retry-after-ms`` is what OpenAI's own clients read.
"""

from __future__ import annotations

import asyncio
import math
import random
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

FIRST_WAIT = 0.5
"""Longest wait before the first retry, seconds; each next one may be twice as long."""

LONGEST_WAIT = 60.0
"""Longest wait that is chosen here, seconds. A server may ask for a longer one."""

LONGEST_ASKED = 600.0
"""Longest wait that a server is granted, seconds: who asks for more, as at the end of a day's share, is given up."""

_TOLD = re.compile(
    r"try (?:again )?(?:in|after) ((?:\d{1,9}(?:\.\d{1,9})? ?(?:h|ms|m|s)[a-z]* ?)+)"
    r'|"retryDelay": ?"(\d{1,9}(?:\.\d{1,9})?s)"',
    re.IGNORECASE,
)
_TIME = re.compile(r"([\d.]+) ?(h|ms|m|s)", re.IGNORECASE)
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3}

_SPREAD = 0.5
"""Seconds over which the questions that waited for a cool-down set out again, so that they do not come all at once."""


class Waiting:
    """The waits of one client.

    Args:
        clock: Seconds, rising.
        sleep: Sleeps so many seconds.
        draw: A number between two, evenly.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        draw: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.clock, self._sleep, self._draw = clock, sleep, draw
        self._until = -math.inf
        self._stopped = asyncio.Event()

    def stop(self) -> None:
        """End every wait, and all that come: there is nothing left to wait for."""
        self._stopped.set()

    def wait_after(self, attempt: int, asked: float | None) -> float:
        """Seconds to wait after an attempt that failed.

        Args:
            attempt: Its number, from 1.
            asked: Seconds that the server asks for.

        Returns:
            Never less than was asked, and never the same for all that were.
        """
        ceiling = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(attempt - 1, 60))
        return self._draw(0.0, ceiling) + (asked or 0.0)

    def cool_down(self, seconds: float) -> None:
        """Nobody asks for so long from now."""
        self._until = max(self._until, self.clock() + seconds)

    async def cooled(self) -> None:
        """Wait until anybody may ask."""
        while not self._stopped.is_set() and (left := self._until - self.clock()) > 0:
            await self.pause(left + self._draw(0.0, _SPREAD))

    async def pause(self, seconds: float) -> None:
        """Wait so long, or until there is nothing left to wait for."""
        if seconds <= 0 or self._stopped.is_set():
            return
        tasks = [asyncio.ensure_future(self._sleep(seconds)), asyncio.ensure_future(self._stopped.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()


def seconds_asked(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """What ``retry-after-ms`` or ``Retry-After`` asks for.

    Args:
        headers: Of the answer, names in lower case or a mapping that does not tell cases apart.
        now: The time; by default this machine's.

    Returns:
        Seconds from now, at least 0; None where nothing, or nothing readable, is asked.

    Example:
        >>> seconds_asked({"retry-after": "3"}), seconds_asked({"retry-after-ms": "250"}), seconds_asked({})
        (3.0, 0.25, None)
    """
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) * unit
        except ValueError:
            try:
                date = parsedate_to_datetime(value)
                date = date.replace(tzinfo=UTC) if date.tzinfo is None else date  # an HTTP date is always in GMT
                seconds = (date - (now or datetime.now(UTC))).total_seconds()
            except (ValueError, OverflowError):
                continue
        if math.isfinite(seconds):
            return max(0.0, seconds)
    return None


def seconds_told(body: str) -> float | None:
    """What the words of an answer ask for, where no header does: Gemini and OpenAI name the wait in the message.

    Args:
        body: As it came.

    Returns:
        Seconds; None where nothing is asked.

    Example:
        >>> seconds_told("Please retry in 33.5s."), seconds_told("Please try again in 1m30s."), seconds_told("later")
        (33.5, 90.0, None)
    """
    if (found := _TOLD.search(body)) is None:
        return None
    return sum(float(number) * _UNITS[unit.lower()] for number, unit in _TIME.findall(found[1] or found[2]))

"""A load generator: posts on raw asyncio streams, so that no client library's pool, retry or queue hides the server's.

An open loop sends at a rate whatever becomes of the answers, and counts each answer's time from when its request was
due: a server that stalls is seen to stall (no coordinated omission). A closed loop keeps a number in flight. Nothing
is ever sent again. This file knows HTTP/1.1 and time; what a request asks and whether an answer is right, it does not.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one request.

    Attributes:
        number: Which of the requests it was, by its place in the list.
        due: Seconds from the run's start to when it was to be sent.
        seconds: From then to the answer's last byte, or to the failure.
        status: HTTP status; 0 where there was no whole answer.
        body: The answer's body.
        retry_after: Its ``Retry-After`` header.
        error: Why there was no whole answer, as an exception's name.
        late: Seconds, part of ``seconds``, from when it was due to when the generator began to send it: where that is
            much, the generator is what was overloaded.
    """

    number: int
    due: float
    seconds: float
    status: int
    body: bytes = b""
    retry_after: str = ""
    error: str = ""
    late: float = 0.0


def post(path: str, body: Any, *, keep_alive: bool = False) -> bytes:
    """A whole POST request with a JSON body, as bytes.

    Args:
        path: The route.
        body: What goes through ``json.dumps``.
        keep_alive: Whether the connection is to stay open afterwards.
    """
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n"
        f"Connection: {'keep-alive' if keep_alive else 'close'}\r\n\r\n"
    )
    return head.encode() + content


class Hammer:
    """Sends requests to one port.

    Args:
        port: The port, on loopback.
        keep_alive: Use connections again; else each request has its own.
        timeout: Seconds after which an answer is given up, as lost.
    """

    def __init__(self, port: int, *, keep_alive: bool = False, timeout: float = 120.0) -> None:
        self._port, self._keep_alive, self._timeout = port, keep_alive, timeout
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def open_loop(self, requests: Sequence[bytes], rate: float, seconds: float) -> list[Outcome]:
        """Send the requests in turn, over and over, at a steady rate.

        Args:
            requests: Of :func:`post`.
            rate: Requests per second.
            seconds: How long to send; answers are waited for beyond it.

        Returns:
            One outcome per request sent, in the order of sending; ``number`` counts on beyond the list's length.
        """
        begin, tasks = time.perf_counter(), []
        for number in range(math.ceil(rate * seconds)):
            due = number / rate
            if (wait := begin + due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            elif number % 64 == 0:
                await asyncio.sleep(0)  # a generator that is late must still read answers
            request = requests[number % len(requests)]
            tasks.append(asyncio.create_task(self._outcome(request, number, begin, due)))
        return list(await asyncio.gather(*tasks))

    async def closed_loop(self, requests: Sequence[bytes], in_flight: int) -> list[Outcome]:
        """Send each request once, so many at a time.

        Args:
            requests: Of :func:`post`.
            in_flight: How many wait for their answer at any time.

        Returns:
            One outcome per request, in their order.
        """
        begin, numbers, outcomes = time.perf_counter(), iter(range(len(requests))), []

        async def work() -> None:
            for number in numbers:
                outcomes.append(await self._outcome(requests[number], number, begin, time.perf_counter() - begin))

        await asyncio.gather(*(work() for _ in range(in_flight)))
        return sorted(outcomes, key=lambda outcome: outcome.number)

    def close(self) -> None:
        """Close the connections that were kept."""
        while self._idle:
            self._idle.pop()[1].close()

    async def _outcome(self, request: bytes, number: int, begin: float, due: float) -> Outcome:
        status, body, retry_after, error = 0, b"", "", ""
        late = time.perf_counter() - begin - due
        try:
            async with asyncio.timeout(self._timeout):
                status, body, retry_after = await self._exchange(request)
        except (OSError, EOFError, TimeoutError, ValueError) as failure:
            error = type(failure).__name__
        return Outcome(number, due, time.perf_counter() - begin - due, status, body, retry_after, error, late)

    async def _exchange(self, request: bytes) -> tuple[int, bytes, str]:
        if self._keep_alive and self._idle:
            reader, writer = self._idle.pop()
        else:
            reader, writer = await asyncio.open_connection(HOST, self._port)
        keep = False
        try:
            writer.write(request)
            await writer.drain()
            first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            body = await reader.readexactly(int(headers["content-length"]))
            keep = self._keep_alive and headers.get("connection", "").lower() != "close"
        except KeyError as error:
            raise ValueError("an answer without a length") from error
        finally:
            if keep:
                self._idle.append((reader, writer))
            else:
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()
        return int(first.split()[1]), body, headers.get("retry-after", "")


def hammer(
    port: int, work: Callable[[Hammer], Awaitable[list[Outcome]]], *, keep_alive: bool = False, timeout: float = 120.0
) -> list[Outcome]:
    """Run one loop in an event loop of its own.

    Args:
        port: The port.
        work: Given the hammer, what to do with it.
        keep_alive: As :class:`Hammer`.
        timeout: As :class:`Hammer`.
    """

    async def run() -> list[Outcome]:
        opened = Hammer(port, keep_alive=keep_alive, timeout=timeout)
        try:
            return await work(opened)
        finally:
            opened.close()

    return asyncio.run(run())


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of the values does not exceed; NaN of none."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)] if values else math.nan


def statuses(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """How many of each status; of requests without a whole answer, of each reason."""
    counted = Counter(str(outcome.status) if outcome.status else outcome.error for outcome in outcomes)
    return dict(sorted(counted.items()))


def latencies(outcomes: Sequence[Outcome], status: int = 200, *, since_sent: bool = False) -> dict[str, float]:
    """Median, 99th percentile and longest time of the answers with one status, in seconds.

    Args:
        outcomes: The outcomes.
        status: The status.
        since_sent: Count from when a request was begun to be sent, not from when it was due.
    """
    seconds = [one.seconds - one.late * since_sent for one in outcomes if one.status == status]
    return {
        "p50": round(percentile(seconds, 0.5), 4),
        "p99": round(percentile(seconds, 0.99), 4),
        "max": round(max(seconds, default=math.nan), 4),
    }

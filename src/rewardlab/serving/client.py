"""Clients of a reward server: scores over HTTP, one blocking and one for asyncio.

    with RewardClient("http://127.0.0.1:8000") as client:
        client.score(["What is 2 + 2?"], ["4"])                        # [1.73]

    async with AsyncRewardClient("http://127.0.0.1:8000") as client:
        await client.rewards(prompts, completions)                     # [Reward(raw=1.73, ...), Unscored(...)]

Long lists are cut into requests, several of which are under way at a time. What asking again may mend is asked again
(:mod:`rewardlab.serving.retrying`); what is left is an exception (:mod:`rewardlab.serving.client_errors`), never a
number. This file sends and waits, with threads and with tasks; all else is :mod:`rewardlab.serving.asking`'s and
:mod:`rewardlab.serving.reward_answers`'.
"""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from types import TracebackType
from typing import Any, cast

import httpx2

from rewardlab.serving.asking import (
    AnyText,
    Asking,
    Outcome,
    Pause,
    Received,
    Result,
    comparison_body,
    placed,
    require_bounds,
    require_open,
    same_model,
    scores_of,
)
from rewardlab.serving.client_errors import (
    Attempt,
    BadAnswer,
    ModelChanged,
    ScoringError,
    ServerError,
    ServerFailed,
    ServerRefused,
    ServerUnavailable,
)
from rewardlab.serving.reward_answers import Comparison, Reward, Unscored, read_comparison, read_rewards
from rewardlab.serving.reward_requests import Portion
from rewardlab.types import Scale

__all__ = [
    "AsyncRewardClient",
    "Attempt",
    "BadAnswer",
    "Comparison",
    "ModelChanged",
    "Reward",
    "RewardClient",
    "ScoringError",
    "ServerError",
    "ServerFailed",
    "ServerRefused",
    "ServerUnavailable",
    "Unscored",
]


class RewardClient(Asking):
    """A blocking client, which any number of threads can share; a context manager, which closes its connections.

    Args:
        url: The server's address, ``"http://127.0.0.1:8000"``, with the path in front of its routes if it has one.
        api_key: The server's key; by default the environment variable ``REWARDLAB_API_KEY``.
        timeout: Most seconds for one try. More than the server's own deadline, or its 503 is never heard.
        retries: Tries of a request after the first.
        deadline: Most seconds for one request with all its tries and waits.
        max_items: Most items in one request; the server's own limit is in :meth:`info`.
        max_bytes: Most bytes of texts in one request, but for an item that is larger alone.
        concurrency: Requests of one call that are under way at a time.
        transport: What sends instead of the network, an ``httpx2.BaseTransport``: for tests and tunnels.

    Raises:
        ConfigError: No http(s) address, credentials in it, or a number that means nothing.
    """

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self._http = httpx2.Client(**self._options)
        weakref.finalize(
            self, self._http.close
        )  # whoever is given a scorer over HTTP does not know that it needs closing

    def __enter__(self) -> RewardClient:
        """The client."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def rewards(
        self,
        prompts: Sequence[AnyText],
        completions: Sequence[AnyText],
        steps: Sequence[Sequence[str] | None] | None = None,
        *,
        fingerprint: str | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[Result]:
        """What the model says of each completion, in order; or why it says nothing.

        Args:
            prompts: One per completion: text (one user turn; an hh-rlhf transcript is read as its turns), or messages.
            completions: Text, or messages.
            steps: For process models, one per completion: its steps, or None where the model's contract splits it.
            fingerprint: Of the model that must answer; by default whichever does, but one for the whole call.
            on_progress: Called with the number of completions just answered.

        Raises:
            DataError: Numbers differ, or an item is neither text nor messages.
            ServerError: A request has no answer, by its kind (:mod:`rewardlab.serving.client_errors`).
            ModelChanged: Not one model answered for all.
        """
        results, requests = self.prepared(prompts, completions, steps)
        stop = threading.Event()
        pool = ThreadPoolExecutor(min(self.concurrency, len(requests)) or 1, thread_name_prefix="rewardlab-client")
        try:
            under_way = {pool.submit(self._answers, one, fingerprint, stop): one for one in requests}
            for future in as_completed(under_way):
                found, fingerprint = same_model(future.result(), fingerprint, self.url)
                for place, result in zip(under_way[future].places, found, strict=True):
                    results[place] = result
                if on_progress is not None:
                    on_progress(len(found))
        finally:  # of one request's failure the others wait no longer
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
        return cast(list[Result], results)

    def score(self, prompts: Sequence[AnyText], completions: Sequence[AnyText], *, scale: Scale = "raw") -> list[float]:
        """Scores of completions, each to its own prompt.

        Args:
            prompts: As for :meth:`rewards`.
            completions: Likewise.
            scale: What they are given in.

        Raises:
            ScoringError: Some have no score; names them. There is no score for any then.
            ConfigError: The model cannot give the scale.
            ServerError: As :meth:`rewards`.
        """
        return scores_of(self.rewards(prompts, completions), scale)

    def compare(self, prompt: AnyText, a: AnyText, b: AnyText) -> Comparison:
        """How probably one completion is preferred to another.

        Args:
            prompt: Text or messages.
            a: The one completion.
            b: The other.

        Raises:
            ServerError: As :meth:`rewards`; ServerRefused also where one of them cannot be scored.
        """
        return read_comparison(self._ask("POST", "/v1/compare", comparison_body(prompt, a, b)), self.url)

    def info(self) -> dict[str, Any]:
        """What the server says of its model (``model``), its limits (``limits``) and its dialects.

        Raises:
            ServerError: As :meth:`rewards`.
        """
        return self._ask("GET", "/info")

    def health(self) -> bool:
        """Whether the server answers and is ready or asleep; asked once. ``info()["state"]`` tells which of both.

        Raises:
            ServerRefused: There is something else at this address.
            BadAnswer: Likewise.
            ServerFailed: It cannot even be asked.
        """
        try:
            outcome: Outcome = self._received("GET", "/health", None, self.timeout)
        except httpx2.HTTPError as error:
            outcome = error
        return self.health_of(outcome)

    def _answers(self, portion: Portion, fingerprint: str | None, stop: threading.Event) -> tuple[list[Result], str]:
        what = f"{self.url}/v1/rewards"
        try:
            answer = self._ask("POST", "/v1/rewards", portion.body(), stop)
        except ServerRefused as error:
            raise placed(error, portion) from error
        return read_rewards(answer, len(portion.items), what, fingerprint)

    def _ask(
        self, method: str, path: str, body: bytes | None = None, stop: threading.Event | None = None
    ) -> dict[str, Any]:
        tries, stop = self.tries(method, path), stop or threading.Event()
        while True:
            try:
                outcome: Outcome = self._received(method, path, body, self.seconds_for_one(tries))
            except httpx2.HTTPError as error:
                outcome = error
            found = self.judged(outcome, tries)
            if not isinstance(found, Pause):
                return found
            if stop.wait(found.seconds):  # another request of the call has failed: nobody hears this one
                raise ServerUnavailable(f"{tries.what}: given up with the call", attempts=tries.attempts)

    def _received(self, method: str, path: str, body: bytes | None, seconds: float) -> Received:
        require_open(self._http.is_closed)
        until = time.monotonic() + seconds
        with self._http.stream(**self.request(method, path, body, seconds)) as response:
            read = bytearray()
            for chunk in response.iter_bytes():
                read += chunk
                require_bounds(read, until)
            return Received(response.status_code, response.headers.get("Retry-After"), bytes(read))


class AsyncRewardClient(Asking):
    """The same for asyncio, within one event loop; an async context manager.

    Args:
        url: As for :class:`RewardClient`.
        **options: Likewise; ``transport`` is an ``httpx2.AsyncBaseTransport``.

    Raises:
        ConfigError: As for :class:`RewardClient`.
    """

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self._http = httpx2.AsyncClient(**self._options)

    async def __aenter__(self) -> AsyncRewardClient:
        """The client."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def rewards(
        self,
        prompts: Sequence[AnyText],
        completions: Sequence[AnyText],
        steps: Sequence[Sequence[str] | None] | None = None,
        *,
        fingerprint: str | None = None,
    ) -> list[Result]:
        """As :meth:`RewardClient.rewards`; cancelling it takes back what is under way."""
        results, requests = self.prepared(prompts, completions, steps)
        free = asyncio.Semaphore(self.concurrency)
        tasks = [asyncio.create_task(self._answers(one, fingerprint, free)) for one in requests]
        try:
            answers = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for one, answer in zip(requests, answers, strict=True):
            found, fingerprint = same_model(answer, fingerprint, self.url)
            for place, result in zip(one.places, found, strict=True):
                results[place] = result
        return cast(list[Result], results)

    async def score(
        self, prompts: Sequence[AnyText], completions: Sequence[AnyText], *, scale: Scale = "raw"
    ) -> list[float]:
        """As :meth:`RewardClient.score`."""
        return scores_of(await self.rewards(prompts, completions), scale)

    async def compare(self, prompt: AnyText, a: AnyText, b: AnyText) -> Comparison:
        """As :meth:`RewardClient.compare`."""
        return read_comparison(await self._ask("POST", "/v1/compare", comparison_body(prompt, a, b)), self.url)

    async def info(self) -> dict[str, Any]:
        """As :meth:`RewardClient.info`."""
        return await self._ask("GET", "/info")

    async def health(self) -> bool:
        """As :meth:`RewardClient.health`."""
        try:
            outcome: Outcome = await self._received("GET", "/health", None, self.timeout)
        except httpx2.HTTPError as error:
            outcome = error
        return self.health_of(outcome)

    async def _answers(
        self, portion: Portion, fingerprint: str | None, free: asyncio.Semaphore
    ) -> tuple[list[Result], str]:
        async with free:
            try:
                answer = await self._ask("POST", "/v1/rewards", portion.body())
            except ServerRefused as error:
                raise placed(error, portion) from error
        return read_rewards(answer, len(portion.items), f"{self.url}/v1/rewards", fingerprint)

    async def _ask(self, method: str, path: str, body: bytes | None = None) -> dict[str, Any]:
        tries = self.tries(method, path)
        while True:
            try:
                outcome: Outcome = await self._received(method, path, body, self.seconds_for_one(tries))
            except httpx2.HTTPError as error:
                outcome = error
            found = self.judged(outcome, tries)
            if not isinstance(found, Pause):
                return found
            await asyncio.sleep(found.seconds)

    async def _received(self, method: str, path: str, body: bytes | None, seconds: float) -> Received:
        require_open(self._http.is_closed)
        until = time.monotonic() + seconds
        async with self._http.stream(**self.request(method, path, body, seconds)) as response:
            read = bytearray()
            async for chunk in response.aiter_bytes():
                read += chunk
                require_bounds(read, until)
            return Received(response.status_code, response.headers.get("Retry-After"), bytes(read))

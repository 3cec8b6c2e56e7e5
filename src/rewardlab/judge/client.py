"""The client of a judge: one question to any OpenAI-compatible endpoint, until there is a reply or a reason for none.

It goes through the cache, the limits, the retries and what the server accepts, each of which lives in a file of its
own; what is here is their order.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from rewardlab.errors import ConfigError, DataError, JudgeEndpointError
from rewardlab.judge.cache import ReplyCache
from rewardlab.judge.chat import Capabilities, ChatFailure, ChatReply, ChatRequest, FailureKind, Usage
from rewardlab.judge.event_loop import Shared
from rewardlab.judge.faults import RETRIED, Fault, hint_for
from rewardlab.judge.limits import Account, Limits
from rewardlab.judge.probing import probe_schema, probe_top_logprobs
from rewardlab.judge.retrying import LONGEST_ASKED, Waiting
from rewardlab.judge.transport import Transport
from rewardlab.judge.wire import Accepted, key_of, parameters_of, unusable_extra

Answer: TypeAlias = ChatReply | ChatFailure


class OpenAIClient:
    """Asks one model at one address; implements :class:`~rewardlab.judge.chat.ChatClient`. For one event loop.

    Args:
        model: The model's name at the server.
        base_url: The address to which ``/chat/completions`` is added, usually ending in ``/v1``.
        api_key: By default ``$REWARDLAB_JUDGE_KEY``, and at OpenAI's own address ``$OPENAI_API_KEY``; a server that
            needs none gets the word ``none``.
        concurrency: Most questions under way.
        timeout_s: Longest time for one attempt, seconds.
        max_attempts: Most attempts at one question.
        max_cost: As :class:`~rewardlab.judge.limits.Limits`.
        max_calls: Likewise.
        max_tokens_total: Likewise.
        prices: Likewise.
        cache: Where replies are kept; the caller closes it. None: none are.
        extra_body: Further fields of the body, of the server's own.
        capabilities: What the endpoint can do, if that need not be found out.
        on_retry: Told in words of every attempt that failed and of what the server refuses.
        waiting: The waits; for tests.

    Raises:
        ConfigError: An argument that cannot be used.
        MissingDependencyError: The ``openai`` package is not there.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str,
        api_key: str | None = None,
        concurrency: int = 8,
        timeout_s: float = 120.0,
        max_attempts: int = 6,
        max_cost: float | None = None,
        max_calls: int | None = None,
        max_tokens_total: int | None = None,
        prices: tuple[float, float] | None = None,
        cache: ReplyCache | None = None,
        extra_body: Mapping[str, Any] | None = None,
        capabilities: Capabilities | None = None,
        on_retry: Callable[[str], None] | None = None,
        waiting: Waiting | None = None,
    ) -> None:
        _check(model, base_url, concurrency, timeout_s, max_attempts, extra_body or {})
        limits = Limits(max_cost=max_cost, max_calls=max_calls, max_tokens_total=max_tokens_total, prices=prices)
        self._model, self._base_url = model, base_url.rstrip("/")
        self._extra, self._max_attempts = dict(extra_body or {}), max_attempts
        self._transport = Transport(self._base_url, api_key=api_key, timeout_s=timeout_s, extra_body=self._extra)
        self._account, self._waiting = Account(limits), waiting or Waiting()
        self._cache = cache
        self._tell = on_retry or (lambda words: None)
        self._slots = asyncio.Semaphore(concurrency)
        self._probing = asyncio.Lock()
        self._under_way: dict[str, Shared[Answer]] = {}
        self._fatal: tuple[Fault, asyncio.Future[str]] | None = None
        self._answered = False
        self._closed = False
        self._known_as = f"endpoint {key_of(self._base_url, {'model': model}, self._extra)}"
        known = (cache.recall(self._known_as) if cache else None) or {}
        self._accepted = Accepted.from_dict(known.get("accepted"))
        self._schema, self._top_logprobs = _capabilities_in(known.get("capabilities"))
        if capabilities is not None:
            self._schema, self._top_logprobs = capabilities.schema, capabilities.top_logprobs

    def __repr__(self) -> str:
        """The model alone: neither the address, which may hold a password, nor the key."""
        return f"OpenAIClient({self._model!r})"

    async def __aenter__(self) -> OpenAIClient:
        """Itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        await self.close()

    @property
    def name(self) -> str:
        """The model's name."""
        return self._model

    @property
    def usage(self) -> Usage:
        """What was used so far, the probe's questions among it."""
        return self._account.usage

    @property
    def notes(self) -> tuple[str, ...]:
        """What the server was found to refuse, as far as a reader of the verdicts must know it; for the records."""
        return self._accepted.notes

    async def capabilities(self, *, schema: bool = True, logprobs: bool = True) -> Capabilities:
        """What the endpoint can do; asked once, by small questions, then remembered, in the cache file too.

        Where a limit does not let it ask, nothing else will be asked either, and nothing is remembered.

        Args:
            schema: Whether to find out about schemas; False leaves them out, as a thing it cannot do.
            logprobs: Likewise about log-probabilities.

        Raises:
            JudgeEndpointError: It does not answer.
        """
        async with self._probing:
            known = self._schema, self._top_logprobs
            if logprobs and self._top_logprobs is None:
                self._top_logprobs = await probe_top_logprobs(self._probe)
            if schema and self._schema is None:
                self._schema = await probe_schema(self._probe)
            if known != (self._schema, self._top_logprobs):
                self._remember()
        return Capabilities(
            schema=schema and bool(self._schema), top_logprobs=(self._top_logprobs or 0) if logprobs else 0
        )

    async def complete(self, request: ChatRequest) -> Answer:
        """Ask.

        Args:
            request: What is asked. The same, asked again while the first is under way, is not sent again.

        Returns:
            The reply; or why there is none, after as many attempts as may mend it.

        Raises:
            JudgeEndpointError: Nothing that is asked can be answered: the key is refused, the model is not there, the
                account is empty. Questions that wait then, and all that follow, raise it too.
            RuntimeError: The client is closed.
        """
        if self._closed:
            raise RuntimeError("the judge's client is closed")
        key = self._key_of(request)
        if (kept := self._kept(key)) is not None:
            self._account.note_cached()
            return kept
        flight = self._under_way.get(key)
        first = flight is None
        if flight is None:
            flight = self._under_way[key] = Shared(asyncio.ensure_future(self._ask(request)))
            flight.task.add_done_callback(lambda _: self._under_way.pop(key, None))
        answer = await flight.wait()
        if isinstance(answer, ChatFailure):
            self._account.note_failure(answer.kind)
        elif not first:
            self._account.note_cached()
            return replace(answer, cached=True)
        return answer

    async def close(self) -> None:
        """Cancel what is under way and close connections; it may be closed twice."""
        self._closed = True
        tasks = [flight.task for flight in self._under_way.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._transport.close()

    async def _ask(self, request: ChatRequest) -> Answer:
        """Attempts until one is final."""
        parts = [message["content"] for message in request.messages]
        text = "\n".join(parts if request.schema is None else [*parts, json.dumps(request.schema)])
        attempt = 0
        while True:
            attempt += 1
            await self._waiting.cooled()
            async with self._slots:
                await self._waiting.cooled()  # another question may have met a 429 while this one waited for its turn
                await self._raise_if_ended()
                found = await self._attempt(request, text, first=attempt == 1)
            if isinstance(found, ChatReply):
                self._answered = True
                return found
            if found.kind == "endpoint" or (found.kind == "web_page" and not self._answered):
                self._fatal = self._fatal or (found, asyncio.ensure_future(self._hint(found)))
                self._waiting.stop()  # it ends the run, for this question and all that wait
                await self._raise_if_ended()
            if found.kind not in RETRIED or attempt == self._max_attempts or (found.asked or 0.0) > LONGEST_ASKED:
                tried = attempt - (found.kind == "budget")  # what no limit lets through is no attempt
                return ChatFailure(_failure_kind(found), found.message, tried)
            wait = self._waiting.wait_after(attempt, found.asked)
            if found.kind == "rate_limited":
                self._waiting.cool_down(wait)
            self._account.note_retry()
            self._tell(f"attempt {attempt} of {self._max_attempts} failed ({found.message}); the next in {wait:.1f} s")
            await self._waiting.pause(wait)

    async def _attempt(self, request: ChatRequest, text: str, *, first: bool) -> ChatReply | Fault:
        """One attempt; more than one request only where the server refuses a parameter that can be left out."""
        reserved = await self._account.reserve(text, request.max_tokens, messages=len(request.messages), new_call=first)
        if isinstance(reserved, str):
            return Fault("budget", reserved)
        sent_off = False
        try:
            await self._raise_if_ended()  # while it waited for room
            while True:
                sent = parameters_of(request, self._model, self._accepted)
                sent_off = True
                found = await self._transport.send(sent)
                sent_off = False
                if not (isinstance(found, Fault) and found.kind == "unsupported" and found.parameter):
                    break
                self._learn(found.parameter, sent[found.parameter], found.message)
        except BaseException:
            # Cancelled under way: the server may have answered it. Before that, nothing was used.
            await (self._account.settle_unknown(reserved) if sent_off else self._account.release(reserved))
            raise
        if isinstance(found, ChatReply):
            await self._account.settle(reserved, found.prompt_tokens, found.completion_tokens, found.text)
        elif found.kind in ("timeout", "bad_answer", "connection") and found.reached:
            await self._account.settle_unknown(reserved)
        else:
            await self._account.release(reserved)
        if isinstance(found, Fault) and found.kind == "filtered":
            found = ChatReply(text="", finish="content_filter")
        if isinstance(found, ChatReply):
            self._keep(sent, found)
        return found

    def _learn(self, parameter: str, value: object, said: str) -> None:
        """Do without a parameter from now on; said once, though several questions may meet it at once."""
        learned = self._accepted.without(parameter, value)
        if learned == self._accepted:
            return
        self._accepted = learned
        self._tell(f"the server refuses {parameter} ({said}): asked without it, or by another name, from now on")
        self._remember()

    async def _raise_if_ended(self) -> None:
        if self._fatal:
            fault, hint = self._fatal
            raise JudgeEndpointError(
                f"the judge's endpoint cannot answer for {self._model!r}: {fault.message}",
                hint=await asyncio.shield(hint),
            )

    async def _hint(self, fault: Fault) -> str:
        return hint_for(fault, await self._transport.models() if fault.status == 404 else ())

    def _key_of(self, request: ChatRequest) -> str:
        """Under which a reply is kept, as far as is known now what will be sent."""
        return key_of(self._base_url, parameters_of(request, self._model, self._accepted), self._extra)

    def _kept(self, key: str) -> ChatReply | None:
        return self._cache.get(key) if self._cache else None

    def _keep(self, sent: Mapping[str, Any], reply: ChatReply) -> None:
        """Under the key of what was sent. A full disk costs the file, not the reply that was paid for."""
        if self._cache is None:
            return
        try:
            self._cache.put(key_of(self._base_url, sent, self._extra), reply)
        except DataError as error:
            self._tell(f"a reply was not kept: {error.message}")

    async def _probe(self, request: ChatRequest) -> Answer:
        answer = await self.complete(request)
        if not answer.cached if isinstance(answer, ChatReply) else answer.attempts > 0:
            self._account.note_probe()
        return answer

    def _remember(self) -> None:
        if self._cache is None:
            return
        found = {"schema": self._schema, "top_logprobs": self._top_logprobs}
        known = {"accepted": self._accepted.to_dict(), "capabilities": found}
        try:
            self._cache.remember(self._known_as, known)
        except DataError as error:
            self._tell(f"what the server refuses was not kept: {error.message}")


def _failure_kind(found: Fault) -> FailureKind:
    match found.kind:
        case "endpoint" | "filtered" | "unsupported":  # the first two never come here
            return "bad_request"
        case "web_page":
            return "bad_answer"
        case kind:
            return kind


def _capabilities_in(known: object) -> tuple[bool | None, int | None]:
    """What was remembered, each None where nothing was or it is no finding."""
    if not isinstance(known, dict):
        return None, None
    schema, top_logprobs = known.get("schema"), known.get("top_logprobs")
    counted = isinstance(top_logprobs, int) and not isinstance(top_logprobs, bool) and top_logprobs >= 0
    return schema if isinstance(schema, bool) else None, top_logprobs if counted else None


def _check(
    model: str, base_url: str, concurrency: int, timeout_s: float, max_attempts: int, extra: Mapping[str, Any]
) -> None:
    if not model:
        raise ConfigError("the judge's model has no name", hint="--model: its name at the server, see its /v1/models")
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(
            f"base_url must be an http or https address, got {re.sub('//.*@', '//***@', base_url.split('?')[0])!r}",
            hint="for example http://127.0.0.1:8000/v1",
        )
    for name, value in (("concurrency", concurrency), ("max_attempts", max_attempts)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigError(f"{name} must be a whole number of at least 1, got {value!r}")
    if not 0 < timeout_s < float("inf"):
        raise ConfigError(f"timeout_s must be a number of seconds above 0, got {timeout_s!r}")
    if reserved := unusable_extra(extra):
        raise ConfigError(
            f"extra_body may not set {', '.join(reserved)}: the judge sets them itself",
            hint="the length of an answer and the seed have options of their own",
        )

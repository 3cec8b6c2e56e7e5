"""What both clients do with a server, but for sending and waiting: the address, the key, requests, what tries became.

This file knows HTTP's words; it opens no connection.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import httpx2

from rewardlab.errors import ConfigError, DataError
from rewardlab.serving.client_errors import (
    BadAnswer,
    ModelChanged,
    ScoringError,
    ServerError,
    ServerFailed,
    ServerRefused,
)
from rewardlab.serving.failures import Unavailable
from rewardlab.serving.retrying import RETRIED, RetryPolicy, Tries, seconds_of
from rewardlab.serving.reward_answers import Reward, Unscored, parsed
from rewardlab.serving.reward_requests import ItemText, Portion, item_text, portions
from rewardlab.serving.settings import checked_key
from rewardlab.types import Message, Scale

API_KEY = "REWARDLAB_API_KEY"
"""The environment variable that holds the key where none is given."""

AnyText: TypeAlias = str | Sequence[Message]
"""A prompt or a completion: text, or a list of messages."""

Result: TypeAlias = Reward | Unscored
"""What is known of a completion."""

NO_ANSWER = (httpx2.TimeoutException, httpx2.NetworkError, httpx2.RemoteProtocolError, httpx2.ProxyError)
"""Errors of the network after which a request is sent again."""

logger = logging.getLogger(__name__)

_NOT_READY = Unavailable.kind  # of a 503's error: loading, asleep, draining; a busy server's is another
_MAX_ANSWER = 256 * 2**20  # bytes; an answer beyond it is not one to 1,024 items
_KEPT_ALIVE = 3.0  # seconds an idle connection is kept: less than servers do, so that none is used that just closed


@dataclass(frozen=True, slots=True)
class Received:
    """An answer, read to its end."""

    status: int
    retry_after: str | None
    body: bytes


@dataclass(frozen=True, slots=True)
class Pause:
    """Ask again after so many seconds."""

    seconds: float


Outcome: TypeAlias = Received | httpx2.HTTPError


class Asking:
    """What both clients share: all but how they send and wait.

    Args:
        url: As for :class:`~rewardlab.serving.client.RewardClient`; the other arguments likewise.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout: float = 120.0,
        retries: int = 8,
        deadline: float = 600.0,
        max_items: int = 128,
        max_bytes: int = 4 * 2**20,
        concurrency: int = 4,
        transport: Any = None,
    ) -> None:
        self.url = checked_url(url)
        key = checked_key(api_key if api_key is not None else os.environ.get(API_KEY) or None)
        if not timeout > 0:
            raise ConfigError(f"timeout must be a number of seconds above 0, got {timeout!r}")
        counts = {"max_items": max_items, "max_bytes": max_bytes, "concurrency": concurrency}
        for name, value in counts.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name} must be a whole number of at least 1, got {value!r}")
        self.timeout, self.policy = timeout, RetryPolicy(retries=retries, deadline=deadline)
        self.max_items, self.max_bytes, self.concurrency = max_items, max_bytes, concurrency
        self._key, self._transport = key, transport
        self._told = False  # that the server is not there, since it last answered
        self._options: dict[str, Any] = {
            "headers": {"User-Agent": "rewardlab", **({"Authorization": f"Bearer {key}"} if key else {})},
            "limits": httpx2.Limits(max_keepalive_connections=64, keepalive_expiry=_KEPT_ALIVE),
            "follow_redirects": False,  # the key is for this address alone
            "trust_env": httpx2.URL(self.url).host not in ("127.0.0.1", "::1", "localhost"),  # no proxy leads there
            "transport": transport,
            "verify": _certificates(),
        }

    def __repr__(self) -> str:
        """The address; never the key."""
        return f"{type(self).__name__}({self.url!r})"

    def __reduce__(self) -> Any:
        """What is pickled or copied opens its own connections. A pickle holds the key."""
        options = {
            "api_key": self._key,
            "timeout": self.timeout,
            "retries": self.policy.retries,
            "deadline": self.policy.deadline,
            "max_items": self.max_items,
            "max_bytes": self.max_bytes,
            "concurrency": self.concurrency,
            "transport": self._transport,
        }
        return _opened, (type(self), self.url, options)

    def tries(self, method: str, path: str) -> Tries:
        """The tries of one request, from now on."""
        return Tries(f"{method} {self.url}{path}", self.policy)

    def request(self, method: str, path: str, body: bytes | None, seconds: float) -> dict[str, Any]:
        """The arguments of the HTTP library's ``stream``."""
        return {
            "method": method,
            "url": self.url + path,
            "content": body,
            "headers": {"Content-Type": "application/json"} if body is not None else {},
            "timeout": httpx2.Timeout(seconds, connect=min(seconds, 15.0)),
        }

    def seconds_for_one(self, tries: Tries) -> float:
        """Most seconds for the next try."""
        return max(0.001, min(self.timeout, tries.left))

    def judged(self, outcome: Outcome, tries: Tries) -> dict[str, Any] | Pause:
        """What became of one try: the answer, or when to ask again.

        Raises:
            ServerRefused: 3xx or 4xx.
            ServerFailed: 500 and the like, or something that cannot even be sent.
            ServerUnavailable: It was the last try.
            BadAnswer: No JSON, a broken compression, or no end.
        """
        if isinstance(outcome, NO_ANSWER):
            return self._pause(tries, type(outcome).__name__, self._hidden(str(outcome)))
        if isinstance(outcome, httpx2.HTTPError):
            raise self._error_of(outcome, tries.what)
        if outcome.status == 200:
            self._told = False
            return parsed(outcome.body, tries.what)
        words, kind = _words(outcome.body)
        status, words = outcome.status, self._hidden(words)
        if status in RETRIED:
            after = seconds_of(outcome.retry_after)
            return self._pause(
                tries, str(status), words, status=status, retry_after=after, not_ready=kind == _NOT_READY
            )
        message = f"{tries.what}: {status}{': ' if words else ''}{words}"
        if 300 <= status < 500:
            raise ServerRefused(message, hint=_HINTS.get(status, ""), status=status)
        raise ServerFailed(
            message, hint="the server's own log tells more; asking again will not mend it", status=status
        )

    def _pause(self, tries: Tries, kind: str, words: str, *, not_ready: bool = False, **answer: Any) -> Pause:
        """Ask again later. That the server is not there, or not ready, is told once, lest the wait be a silent one."""
        pause = Pause(tries.wait_after(kind, words, not_ready=not_ready, **answer))
        if (not_ready or kind in _NO_CONNECTION) and not self._told:
            self._told = True
            often, told = self.policy.retries, words or kind
            logger.warning("%s: %s; asking again, %d times at most within %.0f s", tries.what, told, often, tries.left)
        return pause

    def health_of(self, outcome: Outcome) -> bool:
        """What ``/health`` says.

        Raises:
            ServerRefused: It is not its answer.
            BadAnswer: It cannot be read.
            ServerFailed: It cannot even be asked.
        """
        what = f"GET {self.url}/health"
        if isinstance(outcome, NO_ANSWER):
            return False
        if isinstance(outcome, httpx2.HTTPError):
            raise self._error_of(outcome, what)
        if outcome.status not in (200, 503):
            raise ServerRefused(
                f"{what}: {outcome.status}", hint="is this the address of a rewardlab server?", status=outcome.status
            )
        return outcome.status == 200

    def _error_of(self, error: httpx2.HTTPError, what: str) -> ServerError:
        """An error of the HTTP library that asking again will not mend, in our words."""
        words = self._hidden(str(error))
        if isinstance(error, httpx2.DecodingError):
            return BadAnswer(f"{what}: the answer cannot be read: {words}")
        return ServerFailed(f"{what}: {type(error).__name__}: {words}")

    def _hidden(self, text: str) -> str:
        """Words of others, without the key should they repeat it."""
        return text.replace(self._key, "***") if self._key else text

    def prepared(
        self,
        prompts: Sequence[AnyText],
        completions: Sequence[AnyText],
        steps: Sequence[Sequence[str] | None] | None,
    ) -> tuple[list[Result | None], list[Portion]]:
        """The results known before anything is sent, and the requests for the others."""
        for name, value in (("prompts", prompts), ("completions", completions)):
            if isinstance(value, str):
                raise DataError(f"{name} is one text, expected a list of them", hint=f"pass [{name[:-1]}]")
        given = [None] * len(completions) if steps is None else steps
        for name, values in (("prompts", prompts), ("lists of steps", given)):
            if len(values) != len(completions):
                alike = f"; [prompt] * {len(completions)} gives all the same" if name == "prompts" else ""
                raise DataError(
                    f"{len(values)} {name} for {len(completions)} completions",
                    hint=f"give one for each completion{alike}",
                )
        results: list[Result | None] = [None] * len(completions)
        items: list[ItemText] = []
        for place, (prompt, completion, own) in enumerate(zip(prompts, completions, given, strict=True)):
            item = item_text(place, prompt, completion, own)
            if isinstance(item, Unscored):
                results[place] = item
            else:
                items.append(item)
        return results, portions(items, self.max_items, self.max_bytes)


_NO_CONNECTION = (httpx2.ConnectError.__name__, httpx2.ConnectTimeout.__name__)

_HINTS = {
    401: "the server wants its key: api_key=..., or the environment variable REWARDLAB_API_KEY",
    403: "the server keeps this route closed",
    404: "is this the address of a rewardlab server, with the path in front of its routes?",
    413: "lower max_items or max_bytes; the server's limits are in info()['limits']",
}


@functools.cache
def _certificates() -> ssl.SSLContext:
    """What https is checked by; reading the authorities takes a tenth of a second, so once."""
    return httpx2.create_ssl_context()


def checked_url(url: str) -> str:
    """An address as routes are appended to it, without a slash at its end.

    Args:
        url: As it was given.

    Raises:
        ConfigError: It is no http(s) address, ends with /v1, or holds credentials, a query or a fragment.
    """
    try:
        read = httpx2.URL(url)
    except (httpx2.InvalidURL, TypeError) as error:
        raise ConfigError(f"no address: {error}", hint="such as http://127.0.0.1:8000") from None
    if read.userinfo:  # which is not repeated here
        raise ConfigError("the address holds credentials, which end up in logs", hint="give them as api_key")
    if read.scheme not in ("http", "https") or not read.host:
        raise ConfigError(f"no http address: {url!r}", hint="such as http://127.0.0.1:8000")
    if read.query or read.fragment:
        raise ConfigError(f"an address without ? and # is expected, got {url!r}")
    address = str(read).rstrip("/")
    if read.path.rstrip("/").endswith("/v1"):
        raise ConfigError(
            f"the address ends with /v1, which the client adds itself: {address}",
            hint=f"give {address.removesuffix('/v1')}",
        )
    return address


def _opened(kind: type[Asking], url: str, options: dict[str, Any]) -> Asking:
    return kind(url, **options)


def require_bounds(read: bytearray, until: float) -> None:
    """Stop reading an answer that does not end, or drips; the library's own timeouts are of silence alone."""
    if len(read) > _MAX_ANSWER:
        raise httpx2.DecodingError("it does not end")
    if time.monotonic() > until:
        raise httpx2.ReadTimeout("the answer comes too slowly")


def _words(body: bytes) -> tuple[str, str]:
    """What a server says in an error's body, in any dialect's shape; and the error's type, of those that have one."""
    try:
        found: Any = json.loads(body)
    except (ValueError, RecursionError):
        return "", ""
    kind: Any = ""
    for name in ("error", "message", "detail"):
        if isinstance(found, dict) and name in found:
            kind, found = found.get("type", kind), found[name]
    return (found[:500] if isinstance(found, str) else ""), (kind if isinstance(kind, str) else "")


def require_open(closed: bool) -> None:
    """Refuse to ask through connections that were closed."""
    if closed:
        raise ConfigError("the client was closed", hint="open a new one, or ask within its `with` block")


def placed(error: ServerRefused, portion: Portion) -> ServerRefused:
    """The server counts the items of a request; the caller, those of the call."""
    first, count = portion.places[0], len(portion.items)
    where = f"item {first} of the call" if count == 1 else f"{count} items of the call, which begin with item {first}"
    return ServerRefused(f"{error.message} (a request for {where})", hint=error.hint, status=error.status)


def same_model(answer: tuple[list[Result], str], fingerprint: str | None, url: str) -> tuple[list[Result], str]:
    """The results of one request and their model, which must be that of the others."""
    results, found = answer
    if fingerprint is not None and found != fingerprint:
        raise ModelChanged(
            f"{url}: the models {fingerprint[:12]} and {found[:12]} answered within one call",
            hint="the server has loaded another model meanwhile: ask again for all",
        )
    return results, found


def scores_of(results: Sequence[Result], scale: Scale) -> list[float]:
    """The scores, of all or of none: ScoringError names the items without."""
    if unscored := {place: one for place, one in enumerate(results) if isinstance(one, Unscored)}:
        raise ScoringError.of(unscored, len(results))
    return [cast(Reward, result).on(scale) for result in results]


def comparison_body(prompt: AnyText, a: AnyText, b: AnyText) -> bytes:
    """The body of ``/v1/compare``; ScoringError where JSON cannot carry a text."""
    sides = [item_text(place, prompt, completion, None) for place, completion in enumerate((a, b))]
    if unscored := {place: side for place, side in enumerate(sides) if isinstance(side, Unscored)}:
        raise ScoringError.of(unscored, 2)
    first, second = (cast(ItemText, side) for side in sides)
    return b'{"prompt":' + first.prompt + b',"a":' + first.completion + b',"b":' + second.completion + b"}"

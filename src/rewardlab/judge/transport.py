"""One request over HTTP, by the ``openai`` package: what was sent -> a reply, or what its absence means.

It tries once, and whatever goes wrong with it is one fault of one attempt. The key goes into the Authorization header
and nowhere else: a server that repeats it is not repeated.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from rewardlab.errors import ConfigError, MissingDependencyError
from rewardlab.judge.answers import BadAnswer, reply_of
from rewardlab.judge.chat import ChatReply
from rewardlab.judge.faults import Fault, fault_of_status, said_by

_NO_KEY = "none"  # the package wants a key, a local server wants none
_SHORTEST_SECRET = 8  # characters: shorter keys are words such as "EMPTY", and may well stand in an answer
_MOST_BYTES = 16_000_000  # of an answer, unpacked
_HEADERS = frozenset(
    {"content-type", "retry-after", "retry-after-ms", "location"}
)  # that are read; others no longer hold
_MOST_MODELS = 20  # that are named
_MODELS_TIMEOUT_S = 10.0
_NOT_OPENED = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "UnsupportedProtocol"})


class Transport:
    """Sends to one address, and follows it to no other.

    Args:
        base_url: To it ``/chat/completions`` is added.
        api_key: None: by the environment, see :func:`key_for`.
        timeout_s: Longest time for one request, seconds.
        extra_body: Further fields of the body.

    Raises:
        ConfigError: The key cannot be one.
        MissingDependencyError: The ``openai`` package is not there.
    """

    def __init__(self, base_url: str, *, api_key: str | None, timeout_s: float, extra_body: Mapping[str, Any]) -> None:
        try:
            from openai import AsyncOpenAI, DefaultAsyncHttpxClient
        except ImportError as error:
            raise MissingDependencyError(
                "the judge speaks through the openai package, which is not installed",
                hint='pip install "rewardlab[judge]"',
            ) from error
        self._key = (api_key or key_for(base_url)).strip()
        if not (self._key.isascii() and self._key.isprintable()):
            raise ConfigError("the judge's key has characters that no key has", hint="copy it again, on one line")
        self._timeout_s, self._extra = timeout_s, dict(extra_body)
        hidden = self._hidden

        class Bounded(DefaultAsyncHttpxClient):
            """Reads an answer up to so many bytes, and without the key."""

            async def send(self, request: Any, *, stream: bool = False, **options: Any) -> Any:
                response = await super().send(request, stream=True, **options)
                content = bytearray()
                try:
                    async for part in response.aiter_bytes():
                        content += part
                        if len(content) > _MOST_BYTES:
                            raise BadAnswer(f"the answer is longer than {_MOST_BYTES:,} bytes")
                finally:
                    await response.aclose()
                headers = {name: value for name, value in response.headers.items() if name in _HEADERS}
                text = hidden(content.decode("utf-8", "replace"))  # JSON is UTF-8, whatever a header says
                return type(response)(
                    response.status_code, headers=headers, content=text.encode(), request=response.request
                )

        # The package's own retries know neither our cool-down nor our kinds of failure.
        self._openai = AsyncOpenAI(
            base_url=base_url,
            api_key=self._key,
            max_retries=0,
            timeout=timeout_s,
            http_client=Bounded(follow_redirects=False),
        )
        if not _of_openai(base_url):  # the package takes them from the environment, for whatever address
            self._openai.organization = self._openai.project = None

    async def send(self, sent: Mapping[str, Any]) -> ChatReply | Fault:
        """Send parameters of /chat/completions, once."""
        import openai

        try:
            return await self._send(sent)
        except (TimeoutError, openai.APITimeoutError) as error:
            return Fault("timeout", f"no answer within {self._timeout_s:g} s", reached=_may_have_reached(error))
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            if type(cause).__name__ == "DecodingError":
                return Fault("bad_answer", self._said(cause))
            return Fault("connection", f"the connection failed: {self._said(cause)}", reached=_may_have_reached(error))
        except BadAnswer as error:
            return Fault("bad_answer", str(error))
        except UnicodeEncodeError:
            return Fault("bad_request", "a message has half of a UTF-16 pair in it, which cannot be sent")
        except Exception as error:  # whatever one answer does to the package or to us, it is that answer's fault
            return Fault("bad_answer", f"the answer cannot be read: {self._said(error)}")

    async def models(self) -> tuple[str, ...]:
        """Names of the models that the server says it has; none where it does not say."""
        try:
            async with asyncio.timeout(min(_MODELS_TIMEOUT_S, self._timeout_s)):
                found = await self._openai.get("/models", cast_to=object)
        except Exception:  # it is only for a hint
            return ()
        listed = found.get("data") if isinstance(found, dict) else None
        names = [one.get("id") for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
        return tuple(said_by(name) for name in names if isinstance(name, str))[:_MOST_MODELS]

    async def close(self) -> None:
        """Close connections."""
        await self._openai.close()

    async def _send(self, sent: Mapping[str, Any]) -> ChatReply | Fault:
        import openai

        try:
            async with asyncio.timeout(self._timeout_s):  # the package's own limit is per read: a trickle would pass it
                raw = await self._openai.chat.completions.with_raw_response.create(
                    **sent, extra_body=self._extra or None
                )
        except openai.APIStatusError as error:
            return fault_of_status(error.status_code, _text_of(error.response), error.response.headers, sent)
        body = _text_of(raw.http_response)
        try:
            return reply_of(body)
        except BadAnswer as error:
            if error.status is not None:  # a router's answer of 200 that says in its body which status it means
                return fault_of_status(error.status, body, {}, sent)
            return Fault("web_page" if error.web_page else "bad_answer", str(error))

    def _said(self, error: BaseException) -> str:
        return said_by(self._hidden(str(error) or type(error).__name__))

    def _hidden(self, text: str) -> str:
        """The text without the key, plain or as JSON may write it."""
        if len(self._key) >= _SHORTEST_SECRET:
            for form in (self._key, self._key.replace("/", "\\/")):
                text = text.replace(form, "***")
        return text


def _text_of(response: Any) -> str:
    return str(response.content, "utf-8")


def _may_have_reached(error: BaseException) -> bool:
    """Whether a connection was open when it failed: the server may have worked, and may charge for it."""
    return not any(type(one).__name__ in _NOT_OPENED for one in _causes(error))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _of_openai(base_url: str) -> bool:
    host = urlsplit(base_url).hostname or ""
    return host == "openai.com" or host.endswith(".openai.com")


def key_for(base_url: str) -> str:
    """The key in the environment: ours for any address, OpenAI's for theirs alone.

    Whoever answers at an address is told the key, so ``$OPENAI_API_KEY`` goes to OpenAI and Azure, and to the address
    that ``$OPENAI_BASE_URL`` names.
    """
    at_home = _of_openai(base_url) or (urlsplit(base_url).hostname or "").endswith(".openai.azure.com")
    at_home = at_home or base_url == os.environ.get("OPENAI_BASE_URL", "").rstrip("/")
    return os.environ.get("REWARDLAB_JUDGE_KEY") or (os.environ.get("OPENAI_API_KEY") if at_home else None) or _NO_KEY

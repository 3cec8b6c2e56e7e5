"""One request over HTTP, by the ``openai`` package: what was sent -> a reply, or what its absence means.

It tries once. The key goes into the Authorization header and nowhere else: a server that repeats it is not repeated.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from rewardlab.errors import MissingDependencyError
from rewardlab.judge.answers import BadAnswer, reply_of
from rewardlab.judge.chat import ChatReply
from rewardlab.judge.faults import Fault, fault_of_status, said_by

_NO_KEY = "none"  # the package wants a key, a local server wants none


class Transport:
    """Sends to one address.

    Args:
        base_url: To it ``/chat/completions`` is added.
        api_key: None: by the environment, see :func:`key_for`.
        timeout_s: Longest time for one request, seconds.
        extra_body: Further fields of the body.

    Raises:
        MissingDependencyError: The ``openai`` package is not there.
    """

    def __init__(self, base_url: str, *, api_key: str | None, timeout_s: float, extra_body: Mapping[str, Any]) -> None:
        try:
            from openai import AsyncOpenAI
        except ImportError as error:
            raise MissingDependencyError(
                "the judge speaks through the openai package, which is not installed",
                hint='pip install "rewardlab[judge]"',
            ) from error
        self._key = api_key or key_for(base_url)
        self._timeout_s, self._extra = timeout_s, dict(extra_body)
        # Its own retries know neither our cool-down nor our kinds of failure.
        self._openai = AsyncOpenAI(base_url=base_url, api_key=self._key, max_retries=0, timeout=timeout_s)

    async def send(self, sent: Mapping[str, Any]) -> ChatReply | Fault:
        """Send parameters of /chat/completions, once."""
        found = await self._send(sent)
        if isinstance(found, Fault) and self._key != _NO_KEY:
            return replace(found, message=found.message.replace(self._key, "***"))
        return found

    async def close(self) -> None:
        """Close connections."""
        await self._openai.close()

    async def _send(self, sent: Mapping[str, Any]) -> ChatReply | Fault:
        import openai

        body = ""
        try:
            async with asyncio.timeout(self._timeout_s):  # the package's own limit is per read: a trickle would pass it
                raw = await self._openai.chat.completions.with_raw_response.create(
                    **sent, extra_body=self._extra or None
                )
                body = raw.http_response.text
            return reply_of(body)
        except (TimeoutError, openai.APITimeoutError):
            return Fault("timeout", f"no answer within {self._timeout_s:g} s")
        except openai.APIStatusError as error:
            return fault_of_status(error.status_code, error.response.text, error.response.headers, sent)
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            return Fault("connection", f"the connection failed: {said_by(str(cause) or type(cause).__name__)}")
        except BadAnswer as error:
            told = error.status  # a router's answer of 200 that says in its body which status it means
            return Fault("bad_answer", str(error)) if told is None else fault_of_status(told, body, {}, sent)
        except UnicodeEncodeError:
            return Fault("bad_request", "a message has half of a UTF-16 pair in it, which cannot be sent")
        except openai.OpenAIError as error:
            return Fault("bad_answer", said_by(str(error)))


def key_for(base_url: str) -> str:
    """The key in the environment: ours for any address, OpenAI's for theirs alone.

    Whoever answers at an address is told the key, so ``$OPENAI_API_KEY`` goes to OpenAI and Azure, and to the address
    that ``$OPENAI_BASE_URL`` names.
    """
    host = urlsplit(base_url).hostname or ""
    at_home = host == "openai.com" or host.endswith((".openai.com", ".openai.azure.com"))
    at_home = at_home or base_url == os.environ.get("OPENAI_BASE_URL", "").rstrip("/")
    return os.environ.get("REWARDLAB_JUDGE_KEY") or (os.environ.get("OPENAI_API_KEY") if at_home else None) or _NO_KEY

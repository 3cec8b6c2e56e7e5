"""One line per request, in the log ``rewardlab.serving.access``: who asked for what and what became of it.

Never a text, never a key, never a query string: of a body its length and the first digits of its hash, by which a
client can prove which request it means. What a client chose is escaped, so that no line can be forged.
"""

from __future__ import annotations

import hashlib
import logging
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from rewardlab.serving.failures import RequestFailure

logger = logging.getLogger("rewardlab.serving.access")

_MOST_OF_A_PATH = 120
_FIELD = re.compile(r"[A-Za-z0-9_.\[\]-]{1,60}")


@dataclass(slots=True)
class RequestRecord:
    """What is told of one request.

    Attributes:
        request_id: As in its answer's ``X-Request-Id``.
        client: Address and port; ``-`` where unknown.
        method: HTTP method.
        path: Path without the query string.
        body: Hash of its body, as :func:`body_hash` gives it; ``-`` without one.
        bytes_in: Length of its body.
        status: HTTP status; 499: the client went before it had an answer.
        bytes_out: Length of the answer's body.
        seconds: From its head to the end of its answer.
        failure: Why it has no answer, as :func:`failure_in_short` says it; ``-`` where it has one.
    """

    request_id: str
    client: str
    method: str
    path: str
    body: str = "-"
    bytes_in: int = 0
    status: int = 499
    bytes_out: int = 0
    seconds: float = 0.0
    failure: str = "-"


def record_of(scope: dict[str, Any], request_id: str) -> RequestRecord:
    """What is known of a request from its head.

    Args:
        scope: Its ASGI scope.
        request_id: Its id, printable and without spaces.
    """
    address = scope.get("client")
    path = quote(scope["path"][:_MOST_OF_A_PATH], safe="/:@!$&'()*+,;=~", errors="replace")
    client = f"{address[0]}:{address[1]}" if address else "-"
    return RequestRecord(request_id, client, scope["method"], path)


def body_hash(body: bytes) -> str:
    """The first 12 hex digits of a body's SHA-256; ``-`` where there is no body, or nobody reads the log."""
    return hashlib.sha256(body).hexdigest()[:12] if body and logger.isEnabledFor(logging.INFO) else "-"


def failure_in_short(failure: RequestFailure) -> str:
    """A failure's kind and field, ``"invalid_request_error:completions.3"``; never its message, which may quote a text.

    A field that is no plain name is not told either, for a client may have chosen it.

    Args:
        failure: The failure.
    """
    if failure.param is None:
        return failure.kind
    return f"{failure.kind}:{failure.param if _FIELD.fullmatch(failure.param) else '?'}"


def log_request(record: RequestRecord) -> None:
    """Write the line."""
    logger.info(
        "%s %s %s %s %d %.1f ms in=%d out=%d body=%s failure=%s",
        record.request_id,
        record.client,
        record.method,
        record.path,
        record.status,
        1000 * record.seconds,
        record.bytes_in,
        record.bytes_out,
        record.body,
        record.failure,
    )

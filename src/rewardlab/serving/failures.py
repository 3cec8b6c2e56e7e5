"""Why a request has no answer, drawn once, and how each dialect words it.

    RequestRefused       4xx: the request cannot be answered as it is; the client must change it
    Unavailable          503: it could be answered later (loading, restarting, asleep, draining)
    ├── Overloaded       503, 429 on TEI's routes: the queue is full, or too long for the deadline
    └── DeadlineExceeded 503: it waited its whole deadline
    ScoringFailed        500: the model failed on it, which asking again will not mend

A failure is never a number, and never 200. 503 carries ``Retry-After``, for verl gives up at any 4xx and repeats 5xx.
"""

from __future__ import annotations

import json
import math
from typing import Any, Literal

from rewardlab.errors import RewardLabError

ErrorShape = Literal["openai", "tei"]
"""How an error's body is worded: ``{"error": {"message", "type", "param", "code"}}`` as vLLM, SGLang and OpenAI do;
``{"error", "error_type"}`` as text-embeddings-inference does."""


class RequestFailure(RewardLabError):
    """A request without an answer.

    Args:
        message: What came and what was expected.
        hint: How to fix it.
        status: HTTP status.
        param: The field that it is about, such as ``"completions.3"``.
        retry_after: Seconds after which to ask again.
    """

    status = 500
    kind = "internal_error"

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        status: int | None = None,
        param: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status or self.status
        self.param = param
        self.retry_after = retry_after


class RequestRefused(RequestFailure):
    """The request cannot be answered as it is."""

    status = 400
    kind = "invalid_request_error"


class Unavailable(RequestFailure):
    """The request could be answered later."""

    status = 503
    kind = "service_unavailable"


class Overloaded(Unavailable):
    """The queue is full."""

    kind = "overloaded"


class DeadlineExceeded(Unavailable):
    """The request waited its whole deadline."""

    kind = "deadline_exceeded"


class ScoringFailed(RequestFailure):
    """The model failed on it."""

    kind = "scoring_failed"


_TEI_TYPES = {401: "Unauthorized", 424: "Backend", 429: "Overloaded", 503: "Unhealthy"}
"""TEI's words for a status; any other one below 500 is ``Validation``."""


def error_body(shape: ErrorShape, failure: RequestFailure) -> dict[str, Any]:
    """The body of an error, in a dialect's own shape.

    Args:
        shape: The dialect's.
        failure: The failure.
    """
    text = f"{failure.message}; {failure.hint}" if failure.hint else failure.message
    if shape == "tei":
        status = status_of(shape, failure)
        return {"error": text, "error_type": _TEI_TYPES.get(status, "Validation" if status < 500 else "Backend")}
    return {"error": {"message": text, "type": failure.kind, "param": failure.param, "code": failure.status}}


def status_of(shape: ErrorShape, failure: RequestFailure) -> int:
    """The HTTP status of a failure in a dialect: TEI's is 422 where others say 400, 429 for overload, 424 for ours."""
    if shape != "tei":
        return failure.status
    if isinstance(failure, Overloaded):
        return 429
    return {400: 422, 500: 424}.get(failure.status, failure.status)


def headers_of(failure: RequestFailure) -> dict[str, str]:
    """``Retry-After`` in whole seconds, at least 1, where asking again makes sense."""
    if not isinstance(failure, Unavailable):
        return {}
    return {"Retry-After": str(max(1, math.ceil(failure.retry_after or 1.0)))}


def answer_of(shape: ErrorShape, failure: RequestFailure) -> tuple[int, dict[str, str], bytes]:
    """A failure as it goes over the wire, for those that answer without the application.

    Args:
        shape: The dialect's.
        failure: The failure.

    Returns:
        Status, headers and body.
    """
    body = json.dumps(error_body(shape, failure)).encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers_of(failure)}
    return status_of(shape, failure), headers, body


def shape_of(path: str) -> ErrorShape:
    """The error shape of a route, where its body has not told (``/rerank`` is vLLM's unless the body has ``texts``)."""
    return "tei" if path == "/predict" else "openai"

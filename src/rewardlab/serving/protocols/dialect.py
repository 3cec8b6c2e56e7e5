"""What a dialect is: its routes, what its numbers are, and the errors its routes document. No scoring, no settings."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Union

from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict

from rewardlab.serving.failures import ErrorShape


@dataclass(frozen=True, slots=True)
class Dialect:
    """One dialect.

    Attributes:
        name: What it is called: in ``/info``, and as the tag of its routes in the OpenAPI document.
        routes: Its routes with their methods, ``"POST /v1/rewards"``.
        scale: What its numbers are, in one sentence.
        note: What a client of it must know beside; empty where nothing.
    """

    name: str
    routes: tuple[str, ...]
    scale: str
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """For ``/info``: plain JSON values."""
        return {"name": self.name, "routes": list(self.routes), "scale": self.scale, "note": self.note}


class Json(JSONResponse):
    """A body as ASCII JSON: faster than UTF-8, and half a UTF-16 pair that a client sent can be quoted in it."""

    def render(self, content: Any) -> bytes:
        """The body.

        Raises:
            ValueError: A number is not finite.
        """
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


class OpenAIErrorDetail(BaseModel):
    """What went wrong."""

    model_config = ConfigDict(extra="forbid")

    message: str
    type: str
    param: str | None
    code: int


class OpenAIError(BaseModel):
    """An error as vLLM, SGLang and OpenAI word it."""

    model_config = ConfigDict(extra="forbid")

    error: OpenAIErrorDetail


class TEIError(BaseModel):
    """An error as text-embeddings-inference words it."""

    model_config = ConfigDict(extra="forbid")

    error: str
    error_type: str


_MEANINGS = {
    400: "The request cannot be answered as it is.",
    401: "The key is missing or wrong.",
    403: "Closed to strangers: the server has no key and does not listen on loopback.",
    408: "The request took too long to arrive.",
    413: "The body, the number of items, or one of them is over the server's limits.",
    415: "The body is not JSON, or is compressed.",
    422: "The request cannot be answered as it is.",
    424: "The model failed on it; asking again will not mend it.",
    429: "The queue is full; ask again after Retry-After.",
    431: "The head is over the server's limits.",
    500: "The model failed on it; asking again will not mend it.",
    503: "Loading, restarting, asleep, draining, or too busy; ask again after Retry-After.",
}
_STATUSES: dict[ErrorShape, tuple[int, ...]] = {
    "openai": (400, 401, 403, 408, 413, 415, 431, 500, 503),
    "tei": (400, 401, 403, 408, 413, 415, 422, 424, 429, 431, 500, 503),
}
_MODELS: dict[ErrorShape, Any] = {"openai": OpenAIError, "tei": TEIError}


def errors(*shapes: ErrorShape) -> dict[int | str, dict[str, Any]]:
    """The errors that a route documents, for its ``responses=``.

    Args:
        shapes: In which shapes it words them; by default ``"openai"`` alone.
    """
    shapes = shapes or ("openai",)
    model: Any = Union[tuple(_MODELS[shape] for shape in shapes)]  # noqa: UP007 - built at run time
    statuses = sorted({status for shape in shapes for status in _STATUSES[shape]})
    return {status: {"model": model, "description": _MEANINGS[status]} for status in statuses}

"""What a dialect is: its routes, what its numbers are, the errors its routes document, and what several dialects say.

No scoring, no settings.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated, Any, ClassVar, TypeAlias, Union

from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, model_validator

from rewardlab.serving.failures import ErrorShape

logger = logging.getLogger(__name__)

LABEL = "LABEL_0"
"""What the one output is called where a label is asked for, as transformers calls a reward model's."""

ModelName: TypeAlias = Annotated[str | None, Field(description="Any name: the one model that is served answers.")]
"""The ``model`` of a request."""


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
    """A body as ASCII JSON, which is faster than UTF-8; of finite numbers alone."""

    def render(self, content: Any) -> bytes:
        """The body.

        Raises:
            ValueError: A number is not finite.
        """
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


class StrictModel(BaseModel):
    """A body of which each field is known: others are refused, and no value is turned into another type."""

    model_config = ConfigDict(extra="forbid", strict=True)


_MOST_NAMES = 100
_LONGEST_NAME = 60
_ignored: set[str] = set()  # names of fields that the log has told of already, in this process


class OpenModel(BaseModel):
    """A body whose unknown fields are ignored, as the servers of its dialect ignore them; the log names each once.

    Attributes:
        without_effect: Fields of the dialect that have no part in a score, and are passed over in silence.
    """

    model_config = ConfigDict(extra="ignore", strict=True)

    without_effect: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _tell_of_unknown_fields(cls, data: Any) -> Any:
        if not isinstance(data, dict) or len(_ignored) == _MOST_NAMES:
            return data
        known = cls.model_fields.keys() | cls.without_effect
        for name in {name[:_LONGEST_NAME] for name in data if name not in known} - _ignored:
            if len(_ignored) < _MOST_NAMES:
                _ignored.add(name)
                meant = get_close_matches(name, cls.model_fields, 1)
                hint = f"; did it mean {meant[0]}?" if meant else ""
                logger.warning("ignored the field %s of a request: there is none%s", ascii(name), hint)
        return data


class OpenAIErrorDetail(StrictModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: int


class OpenAIError(StrictModel):
    """An error as vLLM, SGLang and OpenAI word it."""

    error: OpenAIErrorDetail


class TEIError(StrictModel):
    """An error as text-embeddings-inference words it."""

    error: str
    error_type: str


_MEANINGS = {
    400: "The request cannot be answered as it is.",
    401: "The key is missing or wrong.",
    403: "Closed to strangers: the server has no key and does not listen on loopback.",
    408: "The request took too long to arrive.",
    409: "The server sleeps, or the checkpoint is not taken; what was served before is still served.",
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
    "tei": (401, 403, 408, 413, 415, 422, 424, 429, 431, 503),
}
_MODELS: dict[ErrorShape, Any] = {"openai": OpenAIError, "tei": TEIError}


def errors(
    *shapes: ErrorShape, more: Sequence[int] = (), only: Sequence[int] | None = None
) -> dict[int | str, dict[str, Any]]:
    """The errors that a route documents, for its ``responses=``.

    Args:
        shapes: In which shapes it words them; by default ``"openai"`` alone.
        more: Statuses that this route alone answers, in any of its shapes.
        only: The statuses of a route that neither reads a body nor scores.
    """
    models: dict[int, list[Any]] = {}
    for shape in shapes or ("openai",):
        for status in (*(_STATUSES[shape] if only is None else only), *more):
            models.setdefault(status, []).append(_MODELS[shape])
    return {
        status: {"model": Union[tuple(models[status])], "description": _MEANINGS[status]}  # noqa: UP007 - at run time
        for status in sorted(models)
    }

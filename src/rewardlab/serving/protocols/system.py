"""The routes about the server itself: is it well, what is it, what has it done; and those that change it.

``/sleep`` frees the accelerator, ``/wake_up`` takes it back, ``/reload`` changes the checkpoint.

Words are vLLM's (``/health``, ``/ping``, ``/v1/models``, ``/version``, ``/sleep``, ``/wake_up``, ``/is_sleeping``) and
text-embeddings-inference's (``/info``).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from enum import IntEnum
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from fastapi.responses import Response
from pydantic import ConfigDict, Field

import rewardlab
from rewardlab.calibration.comparison import Unit
from rewardlab.serving.backend import State
from rewardlab.serving.failures import RequestRefused, Unavailable
from rewardlab.serving.items import ModelInfo
from rewardlab.serving.metrics import CONTENT_TYPE
from rewardlab.serving.protocols.dialect import LABEL, Dialect, Json, StrictModel, errors
from rewardlab.serving.service import Service
from rewardlab.serving.settings import ServerSettings
from rewardlab.types import Kind, Scale

DIALECT = Dialect(
    "System",
    (
        "GET /health",
        "GET /ping",
        "POST /ping",
        "GET /v1/models",
        "GET /info",
        "GET /version",
        "GET /metrics",
        "GET /v1/distributions",
        "POST /sleep",
        "POST /wake_up",
        "GET /is_sleeping",
        "POST /reload",
    ),
    "About the server itself: no scores.",
)


class SleepLevel(IntEnum):
    """How deep: 1 keeps the weights in main memory, 2 ends the worker."""

    KEEPS_WEIGHTS = 1
    ENDS_WORKER = 2


class Health(StrictModel):
    """What the server is doing."""

    status: State


class ModelCard(StrictModel):
    """A model as OpenAI's list has it, and what it accepts."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    max_model_len: int
    fingerprint: str


class Models(StrictModel):
    """The one model."""

    object: Literal["list"]
    data: list[ModelCard]


class Version(StrictModel):
    """Which rewardlab."""

    version: str


class Sleeping(StrictModel):
    """Whether the accelerator is free."""

    is_sleeping: bool


class Labels(StrictModel):
    """The outputs of the head, as TEI lists them."""

    id2label: dict[str, str]
    label2id: dict[str, int]


class ModelType(StrictModel):
    """TEI's kinds of models; ours are classifiers to it."""

    classifier: Labels


class ReloadRequest(StrictModel):
    """Which checkpoint to change to."""

    path: str | None = Field(
        None, description="A folder or hub id; null for the one in use, which may have been replaced on disk."
    )


class DialectDescription(StrictModel):
    """One dialect: its routes, and what its numbers are."""

    name: str
    routes: list[str]
    scale: str
    note: str


class Limits(StrictModel):
    """What one request may hold, and how long it may take."""

    max_items: int
    max_chars: int
    max_body_bytes: int
    max_json_depth: int
    max_headers: int
    max_header_bytes: int
    queue_items: int
    max_wait_ms: float
    deadline_s: float


class Reference(StrictModel):
    """The scores of the reference set."""

    num_scores: int
    mean: float
    std: float


class ModelDescription(StrictModel):
    """What the server knows of a model; the fields are those of :class:`~rewardlab.serving.items.ModelInfo`."""

    name: str
    fingerprint: str
    contract_sha256: str | None
    kind: Kind
    architecture: str
    max_length: int
    dtype: str
    device: str
    layout: str
    tokens_per_batch: int
    activation: Literal["identity", "sigmoid"]
    reads_rendered_text: bool
    members: list[str]
    how: str | None
    members_scale: str | None
    rendered_example: str | None
    reference: Reference | None
    temperature: float | None
    unit: Unit
    versions: dict[str, str]


class Info(StrictModel):
    """What serves: TEI's keys first, then our own."""

    # pydantic keeps the names that begin with "model_" for itself.
    model_config = ConfigDict(protected_namespaces=())

    model_id: str
    model_dtype: str
    model_type: ModelType
    max_input_length: int
    max_batch_tokens: int
    max_client_batch_size: int
    max_concurrent_requests: int
    version: str
    state: State
    scale: Scale
    model: ModelDescription
    dialects: list[DialectDescription]
    limits: Limits


class Counted(StrictModel):
    """How many values lay in each bin: up to and with the first edge, between each two, above the last."""

    edges: list[float]
    counts: list[int]
    total: float
    squares: float


class DistributionsBody(StrictModel):
    """What was scored since ``since``; counts only grow while ``id`` stays."""

    id: str
    since: str
    fingerprint: str | None
    scores: Counted
    tokens: Counted
    disagreement: Counted


_OF_NO_BODY = errors(only=(400, 401, 403, 431, 503))
_WITHOUT_KEY = errors(only=(400, 403, 431, 503))

_METRICS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Prometheus' text format.",
        "content": {"text/plain": {"schema": {"type": "string"}}},
    }
}


def router(service: Service, dialects: Sequence[Dialect]) -> APIRouter:
    """The routes about the server.

    Args:
        service: What scores.
        dialects: What ``/info`` lists.
    """
    routes = APIRouter()
    backend, settings = service.backend, service.settings
    started = int(time.time())

    @routes.get("/health", response_model=Health, responses=_WITHOUT_KEY)
    async def health() -> Json:
        """200 while scores can be given, or could be after /wake_up; the one route that never needs a key."""
        if backend.state not in ("ready", "sleeping"):
            raise Unavailable(f"the server is {backend.state}")
        return Json({"status": backend.state})

    @routes.get("/ping", response_model=Health, responses=_OF_NO_BODY)
    @routes.post("/ping", response_model=Health, responses=errors())
    async def ping() -> Json:
        """As /health, but for the key, which a server that has one asks for here."""
        return await health()

    @routes.get("/v1/models", response_model=Models, responses=_OF_NO_BODY)
    async def models() -> Json:
        """The model, as OpenAI's list."""
        model = service.model()
        card = {
            "id": model.name,
            "object": "model",
            "created": started,
            "owned_by": "rewardlab",
            "max_model_len": model.max_length,
            "fingerprint": model.fingerprint,
        }
        return Json({"object": "list", "data": [card]})

    @routes.get("/info", response_model=Info, responses=_OF_NO_BODY)
    async def info() -> Json:
        """The model, the scale of each dialect's numbers, and the limits."""
        return Json({**_described(service.model(), settings, dialects), "state": backend.state})

    @routes.get("/version", response_model=Version, responses=_OF_NO_BODY)
    async def version() -> Json:
        """Which rewardlab."""
        return Json({"version": rewardlab.__version__})

    @routes.get("/metrics", response_class=Response, responses={**_OF_NO_BODY, **_METRICS})
    async def metrics() -> Response:
        """What was counted, for Prometheus."""
        return Response(service.metrics.render(), headers={"Content-Type": CONTENT_TYPE})

    @routes.get("/v1/distributions", response_model=DistributionsBody, responses=_OF_NO_BODY)
    async def distributions() -> Json:
        """How scores, lengths and disagreements are distributed, for `rewardlab monitor --live`."""
        return Json(service.metrics.distributions.to_dict())

    @routes.post("/sleep", response_model=Sleeping, responses=errors())
    async def sleep(
        level: Annotated[
            SleepLevel, Query(description="1 keeps the weights in main memory, 2 ends the worker.")
        ] = SleepLevel.KEEPS_WEIGHTS,
    ) -> Json:
        """Free the accelerator."""
        require_guarded(service)
        await backend.sleep(int(level))
        return Json({"is_sleeping": backend.state == "sleeping"})

    @routes.post("/wake_up", response_model=Sleeping, responses=errors())
    async def wake_up() -> Json:
        """Take the accelerator back; answers once scores can be given."""
        require_guarded(service)
        await backend.wake_up()
        return Json({"is_sleeping": backend.state == "sleeping"})

    @routes.get("/is_sleeping", response_model=Sleeping, responses=_OF_NO_BODY)
    async def is_sleeping() -> Json:
        """Whether the accelerator is free."""
        return Json({"is_sleeping": backend.state == "sleeping"})

    @routes.post("/reload", response_model=ModelDescription, responses=errors(more=(409,)))
    async def reload(body: ReloadRequest | None = None) -> Json:
        """Change to another checkpoint, if its contract holds; the old one serves on until then, and if it does not."""
        require_guarded(service)
        return Json((await backend.reload(None if body is None else body.path)).to_dict())

    return routes


def require_guarded(service: Service) -> None:
    """Close a route that changes the server to strangers.

    Raises:
        RequestRefused: 403: the server has no key, and others than this machine can reach it.
    """
    if not service.settings.is_guarded:
        raise RequestRefused(
            f"this route is closed: the server listens on {service.settings.host} and has no API key",
            hint="start it with --api-key, or on 127.0.0.1",
            status=403,
        )


def _described(model: ModelInfo, settings: ServerSettings, dialects: Sequence[Dialect]) -> dict[str, Any]:
    return {
        "model_id": model.name,
        "model_dtype": model.dtype,
        "model_type": {"classifier": {"id2label": {"0": LABEL}, "label2id": {LABEL: 0}}},
        "max_input_length": model.max_length,
        "max_batch_tokens": model.tokens_per_batch,
        "max_client_batch_size": settings.max_items,
        "max_concurrent_requests": settings.queue_items,
        "version": rewardlab.__version__,
        "scale": settings.scale,
        "model": model.to_dict(),
        "dialects": [dialect.to_dict() for dialect in dialects],
        "limits": {name: getattr(settings, name) for name in Limits.model_fields},
    }

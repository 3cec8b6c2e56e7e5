"""The application: every dialect over one service, errors in each dialect's own words, and the guard around it.

This file knows FastAPI and which protocols there are. It knows neither how scores come about nor what a process is.
"""

from __future__ import annotations

import difflib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

import rewardlab
from rewardlab.serving import page
from rewardlab.serving.backend import Backend
from rewardlab.serving.failures import (
    ErrorShape,
    RequestFailure,
    RequestRefused,
    error_body,
    headers_of,
    shape_of,
    status_of,
)
from rewardlab.serving.guard import FAILURE, Guard
from rewardlab.serving.metrics import Metrics
from rewardlab.serving.openapi import complete
from rewardlab.serving.protocols import llamafactory, native, openrlhf, sglang, shared_routes, slime, system, tei, vllm
from rewardlab.serving.protocols.dialect import Dialect, Json
from rewardlab.serving.service import Service
from rewardlab.serving.settings import ServerSettings
from rewardlab.serving.validation import refusal_of

DIALECTS: tuple[Dialect, ...] = tuple(
    module.DIALECT for module in (native, vllm, sglang, openrlhf, slime, llamafactory, tei)
)
"""What ``/info`` lists."""

ROUTED = (native, vllm, sglang, llamafactory, tei, shared_routes)
"""The modules with routes that score; OpenRLHF's and slime's only one is shared."""


def create_app(backend: Backend, settings: ServerSettings, metrics: Metrics | None = None) -> ASGIApp:
    """The ASGI application of one server.

    Args:
        backend: Scores items; started and stopped with the application.
        settings: The server's settings.
        metrics: Where what happens is counted: the backend's, if it counts; by default new ones.
    """
    metrics = metrics or Metrics()
    service = Service(backend, settings, metrics)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await backend.start()
        try:
            yield
        finally:
            await backend.stop()

    app = _App(settings, lifespan=lifespan)
    app.state.service = service
    routers = [module.router(service) for module in ROUTED]
    for router in (*routers, system.router(service, DIALECTS), page.router(settings)):
        app.include_router(router)
        app.know(router)
    app.add_exception_handler(RequestFailure, _answer_failure)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_exception_handler(Exception, _answer_fault)
    return Guard(app, settings, metrics, routes=app.methods.keys())


class _App(FastAPI):
    """FastAPI with this server's OpenAPI document, and without its pages, which load scripts from elsewhere.

    Attributes:
        methods: The methods of every path.
    """

    def __init__(self, settings: ServerSettings, **options: Any) -> None:
        super().__init__(
            title="rewardlab",
            summary="One reward model, in the dialects that RL frameworks and reranking clients speak.",
            version=rewardlab.__version__,
            docs_url=None,
            redoc_url=None,
            redirect_slashes=False,
            default_response_class=Json,
            **options,
        )
        self._settings = settings
        self.methods: dict[str, set[str]] = {}
        self.know(self)

    def know(self, routes: FastAPI | APIRouter) -> None:
        """Take note of routes, for requests that miss them."""
        for route in routes.routes:
            if isinstance(route, Route):
                self.methods.setdefault(route.path, set()).update((route.methods or set()) - {"HEAD"})

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document, made once."""
        if self.openapi_schema is None:
            complete(super().openapi(), (*DIALECTS, system.DIALECT), has_key=self._settings.api_key is not None)
        assert self.openapi_schema is not None
        return self.openapi_schema


def _shape(request: Request) -> ErrorShape:
    shape: ErrorShape | None = getattr(request.state, "error_shape", None)
    return shape or shape_of(request.url.path)


async def _answer_failure(request: Request, failure: Exception) -> Response:
    assert isinstance(failure, RequestFailure)
    setattr(request.state, FAILURE, failure)
    shape = _shape(request)
    return Json(error_body(shape, failure), status_of(shape, failure), headers_of(failure))


async def _answer_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return await _answer_failure(request, refusal_of(error.errors(), error.body))


async def _answer_http(request: Request, error: Exception) -> Response:
    """Routes and methods that do not exist, and bodies that starlette cannot read."""
    assert isinstance(error, HTTPException)
    methods, path, status = request.app.methods, request.url.path, error.status_code
    message, hint, headers = str(error.detail), "", dict(error.headers or {})
    if status == 404:
        message, hint = f"there is no route {path[:80]}", "see /docs for the routes"
        if nearest := difflib.get_close_matches(path[:80], methods, n=1, cutoff=0.75):
            hint = f"did you mean {nearest[0]}? See /docs for the routes"
    elif status == 405:
        allowed = sorted(methods.get(path, ()))
        message, hint = f"{path} does not take {request.method}", f"send {' or '.join(allowed)}"
        headers["Allow"] = ", ".join(allowed)
    failure = RequestRefused(message, hint=hint, status=status)
    setattr(request.state, FAILURE, failure)
    return Json(error_body(_shape(request), failure), status, headers)


async def _answer_fault(request: Request, error: Exception) -> Response:
    """A fault of ours, of which the client learns nothing: starlette raises it again, and the guard logs it."""
    return await _answer_failure(request, RequestFailure("the server failed on this request"))

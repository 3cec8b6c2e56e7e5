"""The server's pages: the playground at ``/`` and the description of the API at ``/docs``, for people with a browser.

Each is one HTML file with its style and script inside. Its Content-Security-Policy names the two by their hashes, so
that nothing else could run or load, whatever a text says. They use the public API alone; nothing here scores.
"""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from rewardlab import __version__
from rewardlab.serving.docs_page import errors_of, sections_of
from rewardlab.serving.settings import ServerSettings

MOST_COMPLETIONS = 26
"""Completions that the playground takes: they are named by letters."""

_ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'%3E%3Crect width='32' height='32' "
    "rx='7' fill='%231f5fa8'/%3E%3Cpath d='M8 24V16M16 24V8M24 24V12' stroke='white' stroke-width='4' "
    "stroke-linecap='round'/%3E%3C/svg%3E"
)


def router(settings: ServerSettings) -> APIRouter:
    """``GET /`` and ``GET /docs``.

    Args:
        settings: Tells whether a key is asked for, and how many items a request may have.
    """
    routes = APIRouter(include_in_schema=False)
    has_key = settings.api_key is not None
    playground = _page(
        "page.html",
        ("page_examples.js", "page.js", "page_results.js"),
        has_key=has_key,
        most_completions=min(MOST_COMPLETIONS, settings.max_items),
    )
    made: list[HTMLResponse] = []

    @routes.get("/")
    async def playground_page() -> HTMLResponse:
        return playground

    @routes.get("/docs")
    async def docs_page(request: Request) -> HTMLResponse:
        if not made:
            document = request.app.openapi()
            made.append(
                _page(
                    "docs.html",
                    ("docs.js",),
                    has_key=has_key,
                    sections=sections_of(document),
                    errors=errors_of(document),
                    summary=document["info"].get("summary", ""),
                )
            )
        return made[0]

    return routes


def _page(template: str, scripts: tuple[str, ...], **values: Any) -> HTMLResponse:
    """A template with style and scripts inside, and the headers that keep everything else out of a page.

    Those that every answer has are the guard's (:mod:`rewardlab.serving.guard`).
    """
    style = _text("evaluation", "page.css") + _text("serving", "page.css")
    script = "".join(_text("serving", name) for name in scripts)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["ticked"] = _ticked
    body = environment.from_string(_text("serving", template)).render(
        style=Markup(style), script=Markup(script), icon=Markup(_ICON), version=__version__, **values
    )
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'"
    )
    return HTMLResponse(
        body,
        headers={
            "Content-Security-Policy": policy,
            "X-Frame-Options": "DENY",
            "Cross-Origin-Opener-Policy": "same-origin",
        },
    )


def _text(*path: str) -> str:
    """A file of the package, read without importing the room it lies in: ``evaluation`` needs torch."""
    return files("rewardlab").joinpath(*path).read_text(encoding="utf-8")


def _ticked(text: str) -> Markup:
    """Text as HTML, what stands between backticks as code."""
    parts = enumerate(text.split("`"))
    return Markup("").join(Markup("<code>{}</code>").format(part) if n % 2 else escape(part) for n, part in parts)


def _hash(text: str) -> str:
    """The text as Content-Security-Policy names it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

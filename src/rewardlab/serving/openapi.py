"""The OpenAPI document: what FastAPI says of the routes, made true of this server.

Routes are tagged with the dialects that speak them, FastAPI's own 422 is left out, for no route answers it, and the key
is asked for where there is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rewardlab.serving.protocols.dialect import Dialect

_NOT_OURS = ("HTTPValidationError", "ValidationError")


def complete(document: dict[str, Any], dialects: Sequence[Dialect], *, has_key: bool) -> None:
    """Change FastAPI's document in place.

    Args:
        document: The document.
        dialects: Every dialect; each of their routes is in the document.
        has_key: Whether every route but ``/health`` needs the key.
    """
    document["tags"] = [
        {"name": dialect.name, "description": " ".join(filter(None, (dialect.scale, dialect.note)))}
        for dialect in dialects
    ]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            route = f"{method.upper()} {path}"
            operation["tags"] = [dialect.name for dialect in dialects if route in dialect.routes]
            if _is_not_ours(operation["responses"].get("422", {})):
                del operation["responses"]["422"]
    components = document["components"]
    for name in _NOT_OURS:
        components["schemas"].pop(name, None)
    if has_key:
        components["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
        document["security"] = [{"bearer": []}, {"key": []}]
        document["paths"]["/health"]["get"]["security"] = []


def _is_not_ours(response: dict[str, Any]) -> bool:
    schema = response.get("content", {}).get("application/json", {}).get("schema", {})
    return str(schema.get("$ref", "")).rpartition("/")[2] in _NOT_OURS

"""The OpenAPI document against the application: bodies that schemathesis makes of it, right ones and wrong ones.

Whatever is sent, no answer is a fault of ours, every status is documented, and every body has the documented shape of
its status: of the errors too, each in its dialect's own. The models are real ones, so that what a text does to the
encoder counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.python.asgi import get_client
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)
from tests.serving.backends import InProcessBackend
from tests.serving.fixed_backend import FixedBackend

from rewardlab.scoring.scorer import Scorer
from rewardlab.serving.app import DIALECTS, create_app
from rewardlab.serving.protocols import system
from rewardlab.serving.settings import ServerSettings

ROUTES = sorted({route for dialect in (*DIALECTS, system.DIALECT) for route in dialect.routes})
WITHOUT_INPUT = [route for route in ROUTES if route.startswith("GET")] + ["POST /ping", "POST /wake_up"]
WITH_INPUT = [route for route in ROUTES if route not in WITHOUT_INPUT]
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
REFUSED = {400, 413, 415, 422}
RIGHT, WRONG = GenerationMode.POSITIVE, GenerationMode.NEGATIVE


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    with TestClient(create_app(FixedBackend(), ServerSettings())) as client:
        return client.get("/openapi.json").json()


def test_the_document_has_the_routes_that_the_dialects_name_and_no_others(document: dict[str, Any]) -> None:
    documented = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}
    named = {route for dialect in (*DIALECTS, system.DIALECT) for route in dialect.routes}
    assert documented == named
    assert len(DIALECTS) == 7


def test_every_operation_is_of_a_dialect_is_described_and_documents_its_errors(document: dict[str, Any]) -> None:
    tags = {tag["name"]: tag["description"] for tag in document["tags"]}
    assert all(tags.values())
    ids = []
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert operation["tags"], path
            assert set(operation["tags"]) <= set(tags)
            assert operation["description"]
            refused, failed = ("422", "424") if path == "/predict" else ("400", "500")
            expected = {"200", refused, "503"}
            if "requestBody" in operation:
                expected |= {"401", "413", "415", failed}
            assert expected <= set(operation["responses"]), path
            assert all("content" in response for response in operation["responses"].values()), path
            ids.append(operation["operationId"])
    assert len(ids) == len(set(ids))
    assert "HTTPValidationError" not in document["components"]["schemas"]
    assert "422" not in document["paths"]["/v1/rewards"]["post"]["responses"]
    assert "422" in document["paths"]["/predict"]["post"]["responses"]


def test_keys_are_in_the_document_where_there_is_one(document: dict[str, Any]) -> None:
    assert "security" not in document
    with TestClient(create_app(FixedBackend(), ServerSettings(api_key="k"))) as client:
        assert client.get("/openapi.json").status_code == 401
        guarded = client.get("/openapi.json", headers={"X-API-Key": "k"}).json()
    assert guarded["security"] == [{"bearer": []}, {"key": []}]
    assert set(guarded["components"]["securitySchemes"]) == {"bearer", "key"}
    assert guarded["paths"]["/health"]["get"]["security"] == []
    assert guarded["paths"].keys() == document["paths"].keys()


# -- what is sent, and what comes back ---------------------------------------------------------------------------------


@dataclass
class Application:
    """One application under test, with what schemathesis made of its document."""

    backend: InProcessBackend
    document: Any
    client: Any

    def check(self, route: str, mode: GenerationMode, num_examples: int) -> set[int]:
        """Send bodies; the statuses that came."""
        self.backend.state = "ready"
        method, path = route.split(" ")
        checks = CHECKS if mode is RIGHT else [*CHECKS, negative_data_rejection]
        statuses = set()

        @settings(
            max_examples=num_examples,
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=self.document[path][method].as_strategy(generation_mode=mode))
        def answers_conform(case: schemathesis.Case) -> None:
            statuses.add(case.call_and_validate(session=self.client, checks=checks).status_code)

        answers_conform()
        return statuses


def application_of(scorer: Scorer) -> Iterator[Application]:
    backend = InProcessBackend(scorer)
    app = create_app(backend, ServerSettings(max_items=20, max_chars=200))
    with get_client(app) as client:
        yield Application(backend, schemathesis.openapi.from_asgi("/openapi.json", app), client)


@pytest.fixture(scope="module")
def application(scorer: Scorer) -> Iterator[Application]:
    yield from application_of(scorer)


@pytest.fixture(scope="module")
def process_application(process_scorer: Scorer) -> Iterator[Application]:
    yield from application_of(process_scorer)


@pytest.mark.parametrize("route", WITHOUT_INPUT)
def test_routes_without_input_answer_as_documented(application: Application, route: str) -> None:
    assert application.check(route, RIGHT, 1) == {200}


@pytest.mark.parametrize("route", WITH_INPUT)
def test_answers_to_what_the_document_allows_are_as_documented(application: Application, route: str) -> None:
    assert application.check(route, RIGHT, 6) <= {200, *REFUSED}


@pytest.mark.parametrize("route", WITH_INPUT)
def test_what_the_document_forbids_is_refused_as_documented(application: Application, route: str) -> None:
    assert application.check(route, WRONG, 8) & REFUSED


@pytest.mark.slow
@pytest.mark.parametrize("mode", [RIGHT, WRONG])
@pytest.mark.parametrize("route", WITH_INPUT)
def test_many_more_bodies(
    application: Application, process_application: Application, route: str, mode: GenerationMode
) -> None:
    for each in (application, process_application):
        assert each.check(route, mode, 60) <= {200, *REFUSED}

"""The application as a whole: which routes there are, how errors are worded, what is loaded."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from tests.serving.fixed_backend import FixedBackend

from rewardlab.serving.app import DIALECTS, create_app
from rewardlab.serving.failures import DeadlineExceeded, Overloaded, RequestRefused, ScoringFailed, Unavailable
from rewardlab.serving.metrics import Metrics
from rewardlab.serving.protocols import system
from rewardlab.serving.settings import ServerSettings


@pytest.fixture(scope="module")
def failing() -> FixedBackend:
    return FixedBackend()


@pytest.fixture(scope="module")
def open_client(failing: FixedBackend) -> Iterator[TestClient]:
    with TestClient(create_app(failing, ServerSettings()), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def document(open_client: TestClient) -> dict[str, Any]:
    return open_client.get("/openapi.json").json()


def test_the_backend_is_started_and_stopped_with_the_application() -> None:
    backend = FixedBackend()
    with TestClient(create_app(backend, ServerSettings())) as client:
        assert (backend.started, backend.stopped) == (1, 0)
        assert client.get("/health").status_code == 200
    assert (backend.started, backend.stopped) == (1, 1)


def test_the_backends_metrics_are_the_applications() -> None:
    metrics = Metrics()
    metrics.worker_restarted("died")
    with TestClient(create_app(FixedBackend(), ServerSettings(), metrics)) as client:
        assert 'rewardlab_worker_restarts_total{reason="died"} 1.0' in client.get("/metrics").text


# -- errors ----------------------------------------------------------------------------------------------------------

OPENAI = ("/v1/rewards", {"prompt": "p", "completions": ["a"]})
TEI = ("/predict", {"inputs": "a"})
TEI_BY_BODY = ("/rerank", {"query": "q", "texts": ["a"]})


@pytest.mark.parametrize(
    ("failure", "status", "tei_status", "retry_after"),
    [
        (RequestRefused("because"), 400, 422, None),
        (RequestRefused("because", status=413), 413, 413, None),
        (ScoringFailed("because"), 500, 424, None),
        (Overloaded("because", retry_after=7.4), 503, 429, "8"),
        (DeadlineExceeded("because"), 503, 503, "1"),
        (Unavailable("because", retry_after=0.2), 503, 503, "1"),
    ],
)
def test_failures_have_the_status_and_the_shape_of_their_dialect(
    open_client: TestClient,
    failing: FixedBackend,
    monkeypatch: pytest.MonkeyPatch,
    failure: Exception,
    status: int,
    tei_status: int,
    retry_after: str | None,
) -> None:
    monkeypatch.setattr(failing, "failure", failure)
    response = open_client.post(OPENAI[0], json=OPENAI[1])
    assert response.status_code == response.json()["error"]["code"] == status
    assert response.json()["error"]["message"] == "because"
    assert response.headers.get("retry-after") == retry_after
    for path, body in (TEI, TEI_BY_BODY):
        response = open_client.post(path, json=body)
        assert response.status_code == tei_status
        assert response.json().keys() == {"error", "error_type"}
        assert response.json()["error"] == "because"
        assert response.headers.get("retry-after") == retry_after


def test_a_fault_of_ours_is_500_without_its_words(
    open_client: TestClient, failing: FixedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failing, "failure", RuntimeError("/models/secret-place"))
    response = open_client.post(OPENAI[0], json=OPENAI[1])
    assert response.status_code == 500
    assert response.json()["error"]["type"] == "internal_error"
    assert "secret" not in response.text
    response = open_client.post(TEI[0], json=TEI[1])
    assert (response.status_code, response.json()["error_type"]) == (424, "Backend")


def test_a_number_that_json_has_not_is_never_sent(monkeypatch: pytest.MonkeyPatch, failing: FixedBackend) -> None:
    from rewardlab.serving.items import ItemScore

    backend = FixedBackend([ItemScore(float("nan"), 1)])
    with TestClient(create_app(backend, ServerSettings()), raise_server_exceptions=False) as client:
        response = client.post(OPENAI[0], json=OPENAI[1])
    assert response.status_code == 500
    assert "NaN" not in response.text


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [("/v1/rewards", {"prompt": "p"}, 400), ("/predict", {}, 422), ("/rerank", {"texts": ["a"]}, 422)],
)
def test_bodies_that_are_not_as_they_should_be_are_refused_in_the_dialects_shape(
    open_client: TestClient, path: str, body: Any, status: int
) -> None:
    response = open_client.post(path, json=body)
    assert response.status_code == status
    error = response.json()["error"]
    assert ": missing" in (error if status == 422 else error["message"])
    assert "detail" not in response.json()


def test_routes_and_methods_that_do_not_exist(open_client: TestClient) -> None:
    response = open_client.get("/nowhere")
    assert (response.status_code, response.json()["error"]["code"]) == (404, 404)
    response = open_client.get("/v1/rewards")
    assert (response.status_code, response.json()["error"]["code"]) == (405, 405)
    assert response.headers["allow"] == "POST"
    assert response.json()["error"]["message"] == "/v1/rewards does not take GET; send POST"
    assert open_client.delete("/ping").headers["allow"] == "GET, POST"
    message = open_client.post("/v1/rewards/", json={}).json()["error"]["message"]
    assert message == "there is no route /v1/rewards/; did you mean /v1/rewards? See /docs for the routes"
    message = open_client.get("/nowhere").json()["error"]["message"]
    assert message == "there is no route /nowhere; see /docs for the routes"
    assert open_client.get("/predict").json() == {
        "error": "/predict does not take GET; send POST",
        "error_type": "Validation",
    }
    assert open_client.get("/health/", follow_redirects=False).status_code == 404
    assert open_client.get("/redoc").status_code == 404


def test_what_is_refused_is_told_in_the_log_and_counted_under_its_route(
    open_client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    """By whomever: the guard (415, 400), pydantic (400) or nobody (404)."""
    caplog.set_level(logging.INFO, "rewardlab.serving.access")
    open_client.post("/predict", content="{}", headers={"Content-Type": "text/plain"})
    open_client.post("/v1/compare", content="{", headers={"Content-Type": "application/json"})
    open_client.post("/v1/rewards", json={"prompt": 3, "completions": ["secret"]})
    open_client.get("/nowhere")
    lines = [record.getMessage() for record in caplog.records if record.name.endswith("access")]
    assert [line.rpartition(" ")[2] for line in lines] == [
        "failure=invalid_request_error",
        "failure=invalid_request_error",
        "failure=invalid_request_error:prompt",
        "failure=invalid_request_error",
    ]
    assert "secret" not in caplog.text
    counted = open_client.get("/metrics").text
    for route, status in (("/predict", 415), ("/v1/compare", 400), ("/v1/rewards", 400), ("unknown", 404)):
        assert f'rewardlab_requests_total{{route="{route}",status="{status}"}}' in counted


def test_without_the_key_every_route_but_health_is_closed(document: dict[str, Any]) -> None:
    backend = FixedBackend()
    with TestClient(create_app(backend, ServerSettings(api_key="k"))) as client:
        routes = [(method, path) for path, methods in document["paths"].items() for method in methods]
        routes += [("get", "/"), ("get", "/docs"), ("get", "/openapi.json"), ("get", "/nowhere"), ("post", "/health/")]
        for method, path in routes:
            for headers in ({}, {"X-API-Key": "wrong"}, {"Authorization": "Bearer wrong"}):
                response = client.request(method, path, headers=headers)
                assert response.status_code == (200 if path == "/health" else 401), path
    assert backend.asked == []
    assert backend.levels == []
    assert backend.reloads == []


def test_every_route_that_a_dialect_names_is_there_and_no_other_scores(document: dict[str, Any]) -> None:
    """A dialect whose routes are all shared has no router of its own, and one that has would be left out unseen."""
    scoring = {route for dialect in DIALECTS for route in dialect.routes}
    there = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}
    assert scoring <= there
    assert there - scoring - set(system.DIALECT.routes) == set()


# -- what is loaded --------------------------------------------------------------------------------------------------

WITHOUT_TORCH = """
import sys
from fastapi.testclient import TestClient
from rewardlab.serving.app import create_app
from rewardlab.serving.settings import ServerSettings
from tests.serving.fixed_backend import FixedBackend

with TestClient(create_app(FixedBackend(), ServerSettings())) as client:
    assert client.post("/v1/rewards", json={"prompt": "p", "completions": ["a"]}).status_code == 200
    assert client.post("/classify", json={"input": "a"}).status_code == 200
    assert client.get("/info").status_code == 200
    assert client.get("/openapi.json").status_code == 200
heavy = {"torch", "transformers", "datasets", "pyarrow", "tokenizers"} & set(sys.modules)
assert not heavy, heavy
"""


def test_the_server_loads_neither_torch_nor_transformers() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr

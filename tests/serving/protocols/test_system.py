"""The routes about the server: health, models, info, metrics, sleep."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, get_args

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from tests.serving.fixed_backend import FixedBackend
from tests.serving.protocols.conversations import answer, application, post

import rewardlab
from rewardlab.scoring.scorer import Scorer
from rewardlab.serving.app import DIALECTS, create_app
from rewardlab.serving.backend import State
from rewardlab.serving.protocols.system import Info, ModelDescription, Models
from rewardlab.serving.settings import ServerSettings


@contextmanager
def client_of(backend: FixedBackend, **settings: Any) -> Iterator[TestClient]:
    with TestClient(create_app(backend, ServerSettings(**settings)), raise_server_exceptions=False) as client:
        yield client


def test_health_and_ping_say_whether_scores_can_be_had_or_are_one_wake_up_away() -> None:
    backend = FixedBackend()
    with client_of(backend) as client:
        for state in get_args(State):
            backend.state, backend.reason = state, "cannot read /models/secret-place"
            for response in (client.get("/health"), client.get("/ping"), client.post("/ping")):
                well = state in ("ready", "sleeping")
                assert response.status_code == (200 if well else 503)
                assert response.json() == {"status": state} if well else response.headers["retry-after"]
                assert "rm" not in response.json()
                assert "secret" not in response.text


def test_the_models_are_openais_list_of_the_one(client: TestClient, scorer: Scorer) -> None:
    body = client.get("/v1/models").json()
    Models.model_validate(body)
    (card,) = body["data"]
    assert (card["id"], card["object"], card["max_model_len"]) == ("rm", "model", scorer.encoder.max_length)
    assert card["fingerprint"] == scorer.fingerprint
    assert card["created"] > 1.7e9


def test_info_describes_model_scales_and_limits(client: TestClient, scorer: Scorer) -> None:
    body = client.get("/info").json()
    Info.model_validate(body)
    assert body["model"]["fingerprint"] == scorer.fingerprint
    assert body["model"]["contract_sha256"]
    assert body["model_id"] == "rm"
    assert body["model_type"] == {"classifier": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}}
    assert body["max_input_length"] == scorer.encoder.max_length
    assert body["max_client_batch_size"] == body["limits"]["max_items"] == ServerSettings().max_items
    assert body["version"] == rewardlab.__version__
    assert body["scale"] == "raw"
    assert body["state"] == "ready"
    assert [dialect["name"] for dialect in body["dialects"]] == [dialect.name for dialect in DIALECTS]
    assert all(dialect["scale"] for dialect in body["dialects"])


def test_info_says_neither_key_nor_path() -> None:
    with client_of(FixedBackend(), api_key="hunter2") as client:
        body = client.get("/info", headers={"X-API-Key": "hunter2"}).text
    assert "hunter2" not in body
    assert "secret-place" not in body


@pytest.mark.parametrize("path", ["/v1/models", "/info"])
def test_before_a_model_is_loaded_it_cannot_be_described(path: str) -> None:
    backend = FixedBackend()
    backend.state, backend.reason = "loading", "reading the weights"
    with client_of(backend) as client:
        response = client.get(path)
    assert response.status_code == 503
    assert "reading the weights" in response.json()["error"]["message"]
    assert response.headers["retry-after"]


def test_version() -> None:
    with client_of(FixedBackend()) as client:
        assert client.get("/version").json() == {"version": rewardlab.__version__}


def test_metrics_are_prometheus_text_of_this_application() -> None:
    with client_of(FixedBackend()) as client:
        client.post("/v1/rewards", json={"prompt": "p", "completions": ["a", "b"]})
        response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=")
    families = {family.name: family for family in text_string_to_metric_families(response.text)}
    (scored,) = (s for s in families["rewardlab_items"].samples if s.name == "rewardlab_items_total")
    assert (scored.labels, scored.value) == ({"result": "scored"}, 2.0)
    routes = {s.labels["route"] for s in families["rewardlab_requests"].samples}
    assert routes == {"/v1/rewards"}


@pytest.mark.parametrize("level", [1, 2])
def test_sleep_and_wake_up(level: int) -> None:
    backend = FixedBackend()
    with client_of(backend) as client:
        assert client.get("/is_sleeping").json() == {"is_sleeping": False}
        assert client.post("/sleep", params={"level": level}).json() == {"is_sleeping": True}
        assert client.get("/is_sleeping").json() == {"is_sleeping": True}
        assert client.post("/wake_up").json() == {"is_sleeping": False}
        assert client.get("/is_sleeping").json() == {"is_sleeping": False}
    assert backend.levels == [level]


def test_sleep_is_level_1_unless_told_and_no_other_than_1_and_2() -> None:
    backend = FixedBackend()
    with client_of(backend) as client:
        client.post("/sleep")
        for level in ("0", "3", "x"):
            response = client.post("/sleep", params={"level": level})
            assert response.status_code == 400
            assert response.json()["error"]["param"] == "level"
    assert backend.levels == [1]


@pytest.mark.parametrize(("method", "path"), [("post", "/sleep"), ("post", "/wake_up"), ("post", "/reload")])
def test_what_changes_the_server_is_closed_where_strangers_could_reach_it(method: str, path: str) -> None:
    backend = FixedBackend()
    with client_of(backend, host="0.0.0.0") as client:
        response = getattr(client, method)(path)
    assert response.status_code == 403
    assert "no API key" in response.json()["error"]["message"]
    assert "--api-key" in response.json()["error"]["message"]
    assert backend.levels == backend.reloads == []
    with client_of(backend, host="0.0.0.0", api_key="k") as client:
        assert getattr(client, method)(path, headers={"Authorization": "Bearer k"}).status_code == 200


def test_whether_it_sleeps_is_told_to_whoever_reaches_it() -> None:
    """It changes nothing, and /health says the same."""
    with application(FixedBackend(), host="0.0.0.0") as client:
        assert client.get("/is_sleeping").json() == {"is_sleeping": False}


@pytest.mark.parametrize(("body", "path"), [({}, None), ({"path": None}, None), ({"path": "/new"}, "/new")])
def test_reload_asks_for_the_path_and_describes_the_new_model(body: Any, path: str | None) -> None:
    backend = FixedBackend()
    with application(backend) as client:
        ModelDescription.model_validate(answer(client, "/reload", body))
    assert backend.reloads == [path]


def test_reload_needs_no_body() -> None:
    backend = FixedBackend()
    with application(backend) as client:
        assert client.post("/reload").status_code == 200
        assert post(client, "/reload", {"file": "/new"}).status_code == 400
    assert backend.reloads == [None]


@pytest.mark.parametrize("level", ["0", "3", "x"])
def test_the_two_levels_of_sleep_are_named(level: str) -> None:
    with application(FixedBackend()) as client:
        message = client.post("/sleep", params={"level": level}).json()["error"]["message"]
    assert message == f"level: expected 1 or 2, got '{level}' (str)"


def test_what_no_body_is_read_for_documents_no_error_of_a_body() -> None:
    """``/health`` never needs the key, and is the one route that says so; ``/ping`` does the same with it."""
    with application(FixedBackend()) as client:
        paths = client.get("/openapi.json").json()["paths"]
    assert set(paths["/health"]["get"]["responses"]) == {"200", "400", "403", "431", "503"}
    for path in ("/ping", "/v1/models", "/info", "/version", "/metrics", "/is_sleeping"):
        assert set(paths[path]["get"]["responses"]) == {"200", "400", "401", "403", "431", "503"}
    assert "never needs a key" in paths["/health"]["get"]["description"]
    assert "never" not in paths["/ping"]["get"]["description"]


def test_info_shows_what_an_ensemble_combines_and_a_rendered_conversation() -> None:
    about = {"members": ("a", "b"), "how": "min", "members_scale": "calibrated", "rendered_example": "<u>Q</u><a>A</a>"}
    with application(FixedBackend(**about)) as client:
        model = client.get("/info").json()["model"]
        schema = client.get("/openapi.json").json()["components"]["schemas"]["ModelDescription"]
    assert {name: model[name] for name in about} == {**about, "members": ["a", "b"]}
    assert set(schema["properties"]) == set(model)


def test_reload_is_a_route_of_the_server_and_documents_that_a_checkpoint_may_not_be_taken() -> None:
    with application(FixedBackend()) as client:
        routes = {dialect["name"]: dialect["routes"] for dialect in client.get("/info").json()["dialects"]}
        operation = client.get("/openapi.json").json()["paths"]["/reload"]["post"]
    assert "POST /reload" not in routes["rewardlab"]
    assert operation["tags"] == ["System"]
    assert "not taken" in operation["responses"]["409"]["description"]

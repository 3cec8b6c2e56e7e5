"""What the API page shows: every route of the server's own document, in words, with examples that it answers."""

from __future__ import annotations

import json

import pytest
from fastapi.testclient import TestClient
from tests.serving.fixed_backend import FixedBackend

from rewardlab.serving.app import create_app
from rewardlab.serving.docs_examples import EXAMPLES, RENDERED
from rewardlab.serving.docs_page import Body, Field, errors_of, sections_of
from rewardlab.serving.settings import ServerSettings


@pytest.fixture(scope="module")
def served():
    with TestClient(create_app(FixedBackend(versions={"torch": "2.13.0"}), ServerSettings())) as client:
        yield client


@pytest.fixture(scope="module")
def document(served):
    return served.get("/openapi.json").json()


def a_document(schema, **operation):
    """A document of one route, ``POST /a``, tagged t."""
    body = {"content": {"application/json": {"schema": schema}}}
    parts = {"tags": ["t"], "description": "d", "requestBody": body, "responses": {"200": {}}, **operation}
    inner = {"type": "object", "properties": {"role": {"type": "string"}, "content": {"type": "string"}}}
    return {
        "tags": [{"name": "t", "description": "s"}],
        "paths": {"/a": {"post": parts}},
        "components": {"schemas": {"Inner": inner, "Outer": schema}},
    }


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "string"}, "string"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "string"),
        ({"type": "array", "items": {"type": "integer"}}, "list of integers"),
        ({"type": "array", "items": {"type": "array", "items": {"type": "integer"}}}, "list of lists of integers"),
        ({"type": "array", "items": {"$ref": "#/components/schemas/Inner"}}, "list of {role, content}"),
        (
            {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "number"}]}},
            "list of (string or number)",
        ),
        ({"oneOf": [{"type": "string"}, {"type": "array", "items": {}}]}, "string or list of anything"),
        ({"const": "text"}, '"text"'),
        ({"enum": ["a", "b"]}, '"a" or "b"'),
        ({}, "anything"),
    ],
)
def test_a_type_is_said_in_words(schema, words):
    ((section),) = sections_of(a_document({"type": "object", "properties": {"x": schema}, "required": ["x"]}))
    assert section.routes[0].bodies == (Body("", (Field("x", words, True, ""),)),)


def test_what_a_field_is_for_its_limits_and_its_default_are_said():
    inside = {"type": "integer", "minimum": 1, "maximum": 9}
    limited = {"anyOf": [inside, {"type": "null"}], "default": 3, "description": "How many."}
    ((section),) = sections_of(a_document({"type": "object", "properties": {"n": limited}}))
    (field,) = section.routes[0].bodies[0].fields
    assert field == Field("n", "integer", False, "How many. At least 1. At most 9. By default 3.")


def test_errors_are_those_that_routes_document_each_once():
    responses = {"200": {}, "503": {"description": "Busy."}, "400": {"description": "Bad."}}
    document = a_document({"type": "object"}, responses=responses)
    document["paths"]["/b"] = document["paths"]["/a"]
    assert [status for status, _ in errors_of(document)] == [400, 404, 405, 503]  # of which two no route gives
    assert {(400, "Bad."), (503, "Busy.")} <= set(errors_of(document))
    assert sections_of(document)[0].routes[0].statuses == (400, 503)


def test_every_route_of_the_server_is_shown_under_each_of_its_dialects(document):
    shown = [
        (section.name, name) for section in sections_of(document) for route in section.routes for name in route.names
    ]
    expected = [
        (tag, f"{method.upper()} {path}")
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        for tag in operation["tags"]
    ]
    assert sorted(shown) == sorted(expected)
    assert all(section.scale for section in sections_of(document))


def test_anchors_are_unique_and_every_route_says_what_it_is_for(document):
    sections = sections_of(document)
    routes = [route for section in sections for route in section.routes]
    anchors = [part.anchor for part in (*sections, *routes)]
    assert len(anchors) == len(set(anchors))
    assert all(route.purpose and route.examples and route.statuses for route in routes)


def test_every_route_that_scores_has_an_example_and_a_shared_one_that_of_its_dialect(document):
    for section in sections_of(document):
        for route in section.routes:
            if section.name != "System":
                assert all(example.body and example.answer for example in route.examples), (section.name, route.names)
    by_name = {
        (section.name, name): route
        for section in sections_of(document)
        for route in section.routes
        for name in route.names
    }
    (field,) = by_name["slime", "POST /get_reward"].bodies
    assert "response" in {one.name for one in field.fields}
    (field,) = by_name["OpenRLHF", "POST /get_reward"].bodies
    assert "query" in {one.name for one in field.fields}
    assert set(EXAMPLES) <= {(section, name.partition(" ")[2]) for section, name in by_name}


def shape(value):
    """A JSON value with its leaves left out: what a client relies on."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value and isinstance(value[0], dict) else []
    return None


def test_limits_are_written_as_people_write_them(document):
    remarks = [
        field.remark
        for section in sections_of(document)
        for route in section.routes
        for body in route.bodies
        for field in body.fields
    ]
    assert any("At least -1." in remark for remark in remarks)
    assert not any(".0." in remark for remark in remarks)


def test_every_field_says_what_it_is(document):
    silent = [
        (route.names, field.name)
        for section in sections_of(document)
        for route in section.routes
        for field in (*route.parameters, *(one for body in route.bodies for one in body.fields))
        if not field.remark
    ]
    assert silent == []


def test_two_examples_of_a_route_are_told_apart_and_say_where_their_rendered_text_is(document):
    routes = {(s.name, name): route for s in sections_of(document) for route in s.routes for name in route.names}
    with_input, with_messages = routes["vLLM", "POST /classify"].examples
    assert (with_input.field, with_messages.field) == ("input", "messages")
    before, after = with_input.around_rendered
    assert before + with_input.rendered + after == with_input.body
    assert json.loads(with_input.rendered) == RENDERED
    assert with_messages.around_rendered == [with_messages.body]
    assert not with_messages.rendered
    (alone,) = routes["SGLang", "POST /classify"].examples
    assert not alone.field


@pytest.mark.parametrize(
    ("path", "body", "answer"),
    [
        pytest.param(path, body, answer, id=f"{dialect} {path} {number}")
        for (dialect, path), known in EXAMPLES.items()
        for number, (body, answer) in enumerate(known)
    ],
)
def test_an_example_is_answered_and_its_answer_has_the_shape_that_is_shown(served, document, path, body, answer):
    served.post("/wake_up")  # after the example of /sleep
    response = served.request("GET" if "get" in document["paths"][path] else "POST", path, json=body)
    assert response.status_code == 200, response.text
    assert shape(response.json()) == shape(answer)

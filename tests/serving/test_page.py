"""The two pages as a browser gets them: whole, on their own, and with nothing allowed but what they bring."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from tests.page_checker import PageChecker
from tests.serving.fixed_backend import FixedBackend

from rewardlab.serving import page
from rewardlab.serving.app import create_app
from rewardlab.serving.guard import ANSWER_HEADERS
from rewardlab.serving.settings import ServerSettings


def get(path, **settings):
    app = FastAPI(docs_url=None, title="t")
    app.include_router(page.router(ServerSettings(**settings)))

    @app.get("/thing", tags=["t"], description="Has `ticks` & <signs>.")
    async def thing() -> int:
        return 1

    document = app.openapi()
    document["tags"] = [{"name": "t", "description": "A <scale>."}]
    with TestClient(app) as client:
        return client.get(path)


@pytest.fixture(params=["/", "/docs"])
def response(request):
    return get(request.param)


def test_a_page_is_whole_and_names_nothing_outside_itself(response):
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    checker = PageChecker(response.text)  # every tag is closed
    for tag, name, value in checker.attributes:
        if name in ("href", "src", "action") and not (tag == "link" and value.startswith("data:image/svg+xml,")):
            assert re.fullmatch(r"(?:\./|docs|openapi\.json|#[\w-]+)", value), (tag, name, value)
        assert not name.startswith("on"), "a handler in an attribute would need 'unsafe-inline'"
        assert name != "style"
    assert not re.search(r"@import|[\s:,]url\(", response.text)
    ids = checker.values("id")
    assert len(ids) == len(set(ids))
    assert set(checker.values("for", "aria-labelledby", "aria-describedby")) <= set(ids)


def test_its_policy_allows_its_own_style_and_script_by_hash_and_nothing_else(response):
    policy = dict(part.split(" ", 1) for part in response.headers["content-security-policy"].split("; "))
    for tag in ("style", "script"):
        (inside,) = re.findall(rf"<{tag}>(.*?)</{tag}>", response.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert policy[f"{tag}-src"] == f"'sha256-{digest}'"
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert response.headers["x-frame-options"] == "DENY"
    assert response.headers["cross-origin-opener-policy"] == "same-origin"


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_the_headers_of_every_answer_are_on_the_pages_too(path):
    with TestClient(create_app(FixedBackend(), ServerSettings())) as client:
        headers = client.get(path).headers
    for name, value in ANSWER_HEADERS:
        assert headers.get_list(name.decode()) == [value.decode()]


def test_no_script_could_make_html_of_a_text(response):
    (script,) = re.findall(r"<script>(.*?)</script>", response.text, re.DOTALL)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", script)
    assert not re.search(r"localStorage|document\.cookie|https?:", script)


def test_it_says_whether_a_key_is_asked_for_but_never_which():
    assert 'data-key="no"' in get("/").text
    guarded = get("/", api_key="sesame").text
    assert 'data-key="yes"' in guarded
    assert "sesame" not in guarded
    assert "REWARDLAB_API_KEY" not in get("/docs").text
    assert 'Authorization: Bearer $REWARDLAB_API_KEY"' in get("/docs", api_key="sesame").text.replace("&#34;", '"')


def test_no_more_completions_are_offered_than_a_request_may_have():
    assert 'data-most="26"' in get("/").text
    assert 'data-most="3"' in get("/", max_items=3).text


def test_what_the_document_says_is_escaped_and_its_ticks_are_code():
    text = get("/docs").text
    assert "Has <code>ticks</code> &amp; &lt;signs&gt;." in text
    assert "A &lt;scale&gt;." in text


def test_the_pages_are_no_part_of_the_document():
    app = FastAPI(docs_url=None)
    app.include_router(page.router(ServerSettings()))
    assert app.openapi()["paths"] == {}

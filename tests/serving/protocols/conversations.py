"""What the dialects' tests share: some conversations, as a client renders them, and an application of any settings."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from fastapi.testclient import TestClient
from httpx2 import Response

from rewardlab.scoring.scorer import Scorer
from rewardlab.serving.app import create_app
from rewardlab.serving.backend import Backend
from rewardlab.serving.settings import ServerSettings

PROMPT = "Write about the sea."
ANSWERS = ("the wind of the sea is long", "a poem about Paris", "sea")
MESSAGES = [{"role": "user", "content": PROMPT}, {"role": "assistant", "content": ANSWERS[0]}]

AIOHTTP = {
    "Accept": "*/*",
    "Accept-Encoding": "gzip, deflate",
    "User-Agent": "Python/3.12 aiohttp/3.13.2",
    "Content-Type": "application/json",
}
"""Headers of aiohttp's ``session.post(url, json=...)``."""

REQUESTS = {
    "User-Agent": "python-requests/2.32.5",
    "Accept-Encoding": "gzip, deflate",
    "Accept": "*/*",
    "Connection": "keep-alive",
    "Content-Type": "application/json",
}
"""Headers of ``requests.post(url, json=...)``."""


def rendered(scorer: Scorer, answer: str = ANSWERS[0], prompt: str = PROMPT) -> str:
    """A conversation as a client renders it, with the checkpoint's own tokenizer."""
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    return str(scorer.encoder.tokenizer.apply_chat_template(messages, tokenize=False))


def post(client: TestClient, route: str, payload: object, headers: Mapping[str, str] = AIOHTTP) -> Response:
    """A recorded request: bytes and headers as the client's library makes them (``json.dumps``, ASCII)."""
    return client.post(route, content=json.dumps(payload).encode(), headers=dict(headers))


def answer(client: TestClient, route: str, payload: object, headers: Mapping[str, str] = AIOHTTP) -> Any:
    """What a recorded request is answered with, parsed from the text."""
    response = post(client, route, payload, headers)
    assert response.status_code == 200, response.text
    return json.loads(response.text)


@contextmanager
def application(backend: Backend, **settings: Any) -> Iterator[TestClient]:
    """A client of the whole application with other settings."""
    with TestClient(create_app(backend, ServerSettings(**settings)), raise_server_exceptions=False) as opened:
        yield opened

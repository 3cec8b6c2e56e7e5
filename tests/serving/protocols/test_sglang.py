"""SGLang's reward model requests, and the openai client's embeddings, against the Scorer's numbers."""

from __future__ import annotations

import base64
import struct

import pytest
from tests.serving.backends import InProcessBackend
from tests.serving.protocols.conversations import ANSWERS, PROMPT, REQUESTS, answer, application, post, rendered


@pytest.fixture(scope="module")
def client(scorer):
    with application(InProcessBackend(scorer)) as opened:
        yield opened


@pytest.fixture
def texts(scorer):
    return [rendered(scorer, one) for one in ANSWERS]


@pytest.fixture
def expected(scorer):
    return scorer.score([PROMPT] * 3, list(ANSWERS))


def test_classify_as_sglangs_docs_ask_it(client, texts, expected):
    """``docs/supported_models/reward_models.md``: rendered ``text``, read as ``response["embedding"][0]``."""
    responses = answer(client, "/classify", {"model": "Skywork/Skywork-Reward", "text": texts}, REQUESTS)
    assert [response["embedding"][0] for response in responses] == pytest.approx(expected, abs=1e-5)
    assert len({response["meta_info"]["id"] for response in responses}) == 3


def test_classify_of_one_is_an_object(client, scorer, texts, expected):
    ids = scorer.encoder.tokenizer(texts[0].rstrip("\n"), add_special_tokens=False)["input_ids"]
    for body in ({"text": texts[0]}, {"input_ids": ids}):
        found = answer(client, "/classify", {**body, "rid": "mine"})
        assert found["embedding"] == [pytest.approx(expected[0], abs=1e-5)]
        assert found["meta_info"] == {"id": "mine", "prompt_tokens": len(ids)}
    assert isinstance(answer(client, "/classify", {"text": texts[:1]}), list)
    assert isinstance(answer(client, "/classify", {"input_ids": [ids]}), list)


def test_the_openai_client_reads_base64(client, texts, expected):
    """It asks for base64 when not told otherwise, read as float32 (``openai/resources/embeddings.py``)."""
    body = {"input": texts, "model": "rm", "encoding_format": "base64"}
    found = answer(client, "/v1/embeddings", body)
    for one, value in zip(found["data"], expected, strict=True):
        assert struct.unpack("<f", base64.b64decode(one["embedding"])) == (pytest.approx(value, abs=1e-5),)
    plain = answer(client, "/v1/embeddings", {**body, "encoding_format": "float", "user": "ann"})
    assert [one["embedding"] for one in plain["data"]] == [[pytest.approx(value, abs=1e-5)] for value in expected]
    assert [(one["object"], one["index"]) for one in plain["data"]] == [("embedding", index) for index in range(3)]
    assert (plain["object"], plain["model"]) == ("list", "rm")
    assert plain["usage"]["prompt_tokens"] == plain["usage"]["total_tokens"] > 0


@pytest.mark.parametrize(
    ("route", "body", "param"),
    [
        ("/classify", {"text": 1}, "text"),
        ("/classify", {"text": ["a", 1]}, "text.1"),
        ("/classify", {"input_ids": [[1], ["a"]]}, "input_ids.1.0"),
        ("/classify", {"input_ids": "a"}, "input_ids"),
        ("/classify", {"input_ids": ["a"]}, "input_ids"),
        ("/classify", {"text": "a", "image_data": "x"}, "image_data"),
        ("/v1/embeddings", {"model": "rm"}, "input"),
        ("/v1/embeddings", {"input": {}}, "input"),
        ("/v1/embeddings", {"input": "a", "dimensions": 1}, "dimensions"),
        ("/v1/embeddings", {"input": "a", "encoding_format": "hex"}, "encoding_format"),
        ("/v1/embeddings", {"input": []}, None),
        ("/classify", {"text": []}, None),
    ],
)
def test_bad_bodies_are_refused_by_field(client, route, body, param):
    response = post(client, route, body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param

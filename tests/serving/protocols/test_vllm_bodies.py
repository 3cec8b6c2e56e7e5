"""Which bodies vLLM's routes take, and how the others are refused: by field, in vLLM's error shape."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError
from tests.serving.fixed_backend import FixedBackend
from tests.serving.protocols.conversations import answer, application, post

from rewardlab.serving.failures import RequestRefused
from rewardlab.serving.protocols.vllm_bodies import (
    PoolingChatRequest,
    PoolingRequest,
    PoolingTextRequest,
    QueriesDocuments,
    QueriesItems,
    ScoreRequest,
    TextRequest,
    refuse_unless_harmless,
)


@pytest.fixture(scope="module")
def client():
    with application(FixedBackend()) as opened:
        yield opened


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("chat_template", "{{ messages }}"),
        ("chat_template_kwargs", {"enable_thinking": False}),
        ("add_generation_prompt", True),
        ("continue_final_message", True),
        ("normalize", True),
        ("dimensions", 1),
        ("instruction", "judge"),
        ("mm_processor_kwargs", {"a": 1}),
        ("max_tokens_per_doc", 10),
        ("rank_fields", ["title"]),
        ("padding", "max_length"),
        ("truncation_side", "right"),
    ],
)
def test_what_would_change_the_score_is_refused(client, field, value):
    for route, body in (("/classify", {"input": "a"}), ("/v1/rerank", {"query": "a", "documents": ["b"]})):
        response = post(client, route, {**body, field: value})
        assert response.status_code == 400
        assert response.json()["error"] == {
            "message": f"{field} would change the score, and is not taken here; leave it out",
            "type": "invalid_request_error",
            "param": field,
            "code": 400,
        }


def test_what_would_not_is_taken(client):
    """Empty values, and fields of vLLM's that have no part in a score, known here or not."""
    body = {
        "input": "a",
        "chat_template": None,
        "chat_template_kwargs": {},
        "add_generation_prompt": False,
        "padding": "do_not_pad",
        "truncation_side": "left",
        "user": "ann",
        "priority": 3,
        "cache_salt": "salt",
        "add_special_tokens": True,
        "no_such_field": [1],
    }
    assert answer(client, "/classify", body)["data"]


@pytest.mark.parametrize(
    ("route", "body", "words"),
    [
        ("/pooling", {}, "the body: expected an object with either input or messages"),
        ("/pooling", {"input": "a", "messages": []}, "the body has input and messages; give one of them"),
        ("/pooling", {"input": "a", "task": "embed"}, "task: expected 'classify' or 'token_classify'"),
        ("/pooling", {"input": "a", "encoding_format": "hex"}, "encoding_format: expected"),
        ("/pooling", {"input": "a", "embed_dtype": "float16"}, "embed_dtype: expected 'float32'"),
        ("/pooling", {"input": "a", "endianness": "big"}, "endianness: expected"),
        ("/classify", {"input": 1}, "input: expected rendered text, token ids, or a list of either, got 1"),
        ("/classify", {"input": [-1]}, "input.0: expected"),
        ("/classify", {"input": [2**31]}, "input.0: expected"),
        ("/classify", {"input": [True]}, "input.0: expected"),
        ("/classify", {"input": ["a", 1]}, "input.1: expected a string"),
        ("/classify", {"input": []}, "there is nothing to score"),
        ("/classify", {"input": "a", "use_activation": "false"}, "use_activation: expected true or false"),
        ("/classify", {"input": "a", "truncate_prompt_tokens": -2}, "truncate_prompt_tokens: expected"),
        ("/classify", {"messages": []}, "messages: expected"),
        ("/classify", {"messages": [{"content": "a"}]}, "messages.0.role: missing"),
        (
            "/classify",
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "expected 'text'",
        ),
        ("/score", {"queries": "a"}, "expected an object with queries and documents"),
        ("/score", {"documents": "a"}, "queries: missing"),
        ("/score", {"queries": "a", "documents": "b", "items": "c"}, "the body has documents and items"),
        ("/score", {"queries": "a", "documents": {"content": []}}, "documents.text: missing"),
        ("/v1/rerank", {"query": "a"}, "documents: missing"),
        ("/v1/rerank", {"query": "a", "documents": []}, "there is nothing to score"),
        ("/v2/rerank", {"query": "a", "documents": ["b"], "top_n": -1}, "top_n: expected"),
        ("/v2/rerank", {"query": ["a"], "documents": ["b"]}, "query: expected"),
        ("/v2/rerank", ["a"], "the body: expected an object"),
    ],
)
def test_bad_bodies_are_refused_by_field(client, route, body, words):
    response = post(client, route, body)
    assert response.status_code == 400
    assert words in response.json()["error"]["message"]


def test_a_body_is_of_the_kind_of_its_key():
    pooling, score = TypeAdapter(PoolingRequest), TypeAdapter(ScoreRequest)
    assert isinstance(pooling.validate_python({"input": "a"}), PoolingTextRequest)
    messages = [{"role": "user", "content": "a"}]
    assert isinstance(pooling.validate_python({"messages": messages, "input": None}), PoolingChatRequest)
    assert isinstance(score.validate_python({"queries": "a", "documents": "b"}), QueriesDocuments)
    assert isinstance(score.validate_python({"queries": "a", "items": "b"}), QueriesItems)
    with pytest.raises(ValidationError, match="either input or messages"):
        pooling.validate_python("text")


def test_types_are_strict():
    class Numbers(TextRequest):
        pass

    assert issubclass(Numbers, BaseModel)
    with pytest.raises(ValidationError):
        Numbers.model_validate({"input": "a", "truncate_prompt_tokens": "5"})


def test_refuse_unless_harmless_reads_objects_alone():
    refuse_unless_harmless(["a"], {"a": ()})
    refuse_unless_harmless({"a": 0, "b": "left"}, {"a": (), "b": ("left",)})
    with pytest.raises(RequestRefused, match="b would change the score"):
        refuse_unless_harmless({"b": "right"}, {"b": ("left",)})

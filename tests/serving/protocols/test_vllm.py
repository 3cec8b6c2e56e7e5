"""The requests of vLLM's docs and examples, and of Jina's and Cohere's rerank clients, against the Scorer's numbers."""

from __future__ import annotations

import base64
import json
import math
import struct

import pytest
from tests.serving.backends import InProcessBackend
from tests.serving.fixed_backend import FixedBackend
from tests.serving.protocols.conversations import (
    ANSWERS,
    MESSAGES,
    PROMPT,
    REQUESTS,
    answer,
    application,
    post,
    rendered,
)

from rewardlab.calibration.reference import reference_statistics
from rewardlab.serving.items import Conversation, Ids, ItemScore, Rendered
from rewardlab.serving.protocols.vllm import items_of

FIXED = (ItemScore(2.0, 5), ItemScore(-1.0, 7), ItemScore(2.0, 9))


@pytest.fixture(scope="module")
def client(scorer):
    with application(InProcessBackend(scorer)) as opened:
        yield opened


@pytest.fixture(scope="module")
def expected(scorer):
    return scorer.score([PROMPT] * 3, list(ANSWERS))


def usage(count: int) -> dict:
    return {"prompt_tokens": count, "total_tokens": count, "completion_tokens": 0, "prompt_tokens_details": None}


def test_classify_of_one_text_of_several_and_of_ids(client, scorer, expected):
    """``examples/pooling/classify``: ``{"model", "input"}`` with one text, then with several."""
    texts = [rendered(scorer, one) for one in ANSWERS]
    found = answer(client, "/classify", {"model": "rm", "input": texts}, REQUESTS)
    assert [one["probs"] for one in found["data"]] == [[pytest.approx(value, abs=1e-5)] for value in expected]
    assert [(one["index"], one["label"], one["num_classes"]) for one in found["data"]] == [
        (index, "LABEL_0", 1) for index in range(3)
    ]
    assert found["id"].startswith("classify-")
    assert (found["object"], found["model"]) == ("list", "rm")
    tokenizer = scorer.encoder.tokenizer
    ids = [tokenizer(text.rstrip("\n"), add_special_tokens=False)["input_ids"] for text in texts]
    by_ids = answer(client, "/classify", {"input": ids})
    assert [one["probs"][0] for one in by_ids["data"]] == pytest.approx(expected, abs=1e-5)
    assert by_ids["usage"] == usage(sum(map(len, ids)))
    for value in (texts[0], ids[0]):
        one = answer(client, "/classify", {"input": value, "add_special_tokens": False, "request_id": "mine"})
        assert one["data"][0]["probs"][0] == pytest.approx(expected[0], abs=1e-5)
        assert one["id"] == "classify-mine"


def test_classify_of_messages(client, expected):
    """A conversation goes through the model's own template; parts of text are one content."""
    assert answer(client, "/classify", {"messages": MESSAGES})["data"][0]["probs"][0] == pytest.approx(
        expected[0], abs=1e-5
    )
    parts = [{"type": "text", "text": PROMPT}]
    messages = [{"role": "user", "content": parts, "name": "ann"}, MESSAGES[1]]
    found = answer(client, "/classify", {"model": "rm", "messages": messages, "add_generation_prompt": False})
    assert found["data"][0]["probs"][0] == pytest.approx(expected[0], abs=1e-5)


def test_score_one_to_many_and_many_to_many(client, expected):
    """``examples/pooling/score``: ``text_1`` with ``text_2``, ``queries`` with ``documents``; each way to name them."""
    names = [("queries", "documents"), ("queries", "items"), ("text_1", "text_2"), ("data_1", "data_2")]
    for first, second in names:
        for prompts in (PROMPT, [PROMPT], [PROMPT] * 3, [{"text": PROMPT}]):
            found = answer(client, "/v1/score", {"model": "rm", first: prompts, second: list(ANSWERS)})
            assert [one["score"] for one in found["data"]] == pytest.approx(expected, abs=1e-5)
            assert [(one["index"], one["object"]) for one in found["data"]] == [(i, "score") for i in range(3)]
    one = answer(client, "/score", {"text_1": PROMPT, "text_2": ANSWERS[1], "encoding_format": "float"}, REQUESTS)
    assert one["data"][0]["score"] == pytest.approx(expected[1], abs=1e-5)


@pytest.mark.parametrize("prompts", [["a", "b"], []])
def test_score_refuses_other_numbers(client, prompts):
    response = post(client, "/score", {"queries": prompts, "documents": ["c", "d", "e"]})
    assert response.status_code == 400
    assert f"{len(prompts)} prompts and 3 completions" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("route", "payload"),
    [
        ("/rerank", {"model": "BAAI/bge-reranker-base", "query": PROMPT, "documents": list(ANSWERS)}),  # vLLM's docs
        ("/v1/rerank", {"model": "rm", "query": PROMPT, "documents": list(ANSWERS), "top_n": 3}),  # Jina
        ("/v2/rerank", {"model": "rm", "query": PROMPT, "documents": [*ANSWERS], "top_n": 0}),  # Cohere
        ("/v1/rerank", {"query": {"text": PROMPT}, "documents": [{"text": one} for one in ANSWERS], "top_n": None}),
    ],
)
def test_rerank_gives_the_best_first(client, expected, route, payload):
    found = answer(client, route, payload, REQUESTS)
    order = sorted(range(3), key=lambda index: -expected[index])
    assert [one["index"] for one in found["results"]] == order
    assert [one["relevance_score"] for one in found["results"]] == pytest.approx(
        [expected[index] for index in order], abs=1e-5
    )
    assert [one["document"]["text"] for one in found["results"]] == [ANSWERS[index] for index in order]
    assert set(found["usage"]) == {"prompt_tokens", "total_tokens"}


def test_rerank_ties_go_by_index_and_top_n_is_kept():
    body = {"query": "q", "documents": ["a", "b", "c"]}
    with application(FixedBackend(FIXED * 2)) as client:
        assert [one["index"] for one in answer(client, "/rerank", body)["results"]] == [0, 2, 1]
        best = answer(client, "/rerank", {**body, "top_n": 1, "return_documents": False})["results"]
    assert best == [{"index": 0, "relevance_score": 2.0}]


@pytest.mark.parametrize("use_activation", [None, True, False])
@pytest.mark.parametrize("activation", ["identity", "sigmoid"])
def test_the_sigmoid_is_where_vllms_would_be(activation, use_activation):
    """There is one unless problem_type is "regression" or the request says not to."""
    squashed = activation == "sigmoid" and use_activation is not False
    wanted = [1 / (1 + math.exp(-one.score)) if squashed else one.score for one in FIXED]
    options = {"use_activation": use_activation}
    pairs = {"queries": "q", "documents": ["a", "b", "c"]}
    with application(FixedBackend(FIXED * 4, activation=activation)) as client:
        classified = answer(client, "/classify", {"input": ["a", "b", "c"], **options})["data"]
        pooled = answer(client, "/pooling", {"input": ["a", "b", "c"], **options})["data"]
        scored = answer(client, "/score", {**pairs, **options})["data"]
        ranked = answer(client, "/rerank", {"query": "q", "documents": ["a", "b", "c"], **options})["results"]
    assert [one["probs"][0] for one in classified] == pytest.approx(wanted)
    assert [one["data"] for one in pooled] == [[pytest.approx(value)] for value in wanted]
    assert [one["score"] for one in scored] == pytest.approx(wanted)
    assert [one["relevance_score"] for one in ranked] == pytest.approx([wanted[0], wanted[2], wanted[1]])


def test_a_foreign_models_percentile_is_a_share_already():
    """Of the reference scores 0, 1, ..., 100 half lie below 50; the sigmoid of the percentile 50 is 1.0."""
    reference = reference_statistics([float(score) for score in range(101)], "by hand")
    backend = FixedBackend((ItemScore(50.0, 1),) * 2, activation="sigmoid", reference=reference)
    with application(backend, scale="percentile") as client:
        (share,) = answer(client, "/classify", {"input": "a"})["data"][0]["probs"]
        (percentile,) = answer(client, "/classify", {"input": "a", "use_activation": False})["data"][0]["probs"]
    assert percentile == pytest.approx(50.0, abs=0.6)
    assert share == pytest.approx(percentile / 100)


def test_bytes_of_many_items_are_refused_before_they_are_scored_for_their_header_would_be_too_long():
    """Clients with aiohttp read headers of 8190 bytes; a request_id and steps as long as may be are within."""
    backend = FixedBackend([ItemScore(0.5, 5, steps=(0.5,) * 4000)] * 50, kind="step")
    body = {"encoding_format": "bytes", "request_id": "r" * 256}
    with application(backend) as client:
        refused = post(client, "/pooling", {**body, "input": ["a"] * 51})
        assert backend.asked == []
        header = post(client, "/pooling", {**body, "input": ["a"] * 50}).headers["metadata"]
        assert len(json.loads(header)["data"]) == 50
        assert len(header) < 8000
        assert post(client, "/pooling", {"encoding_format": "bytes_only", "input": ["a"] * 51}).status_code == 200
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "encoding_format"
    assert "bytes_only" in refused.json()["error"]["message"]


def test_a_process_models_probability_is_never_squashed():
    with application(FixedBackend((ItemScore(0.25, 5, steps=(0.25,)),), activation="sigmoid", kind="step")) as client:
        assert answer(client, "/classify", {"input": "a"})["data"][0]["probs"] == [0.25]


def test_numbers_are_on_the_servers_scale(scorer, expected):
    with application(InProcessBackend(scorer), scale="centered") as client:
        found = answer(client, "/score", {"queries": PROMPT, "documents": list(ANSWERS)})
    mean = scorer.contract.reference.mean
    assert [one["score"] for one in found["data"]] == pytest.approx([value - mean for value in expected], abs=1e-5)


def test_pooling_of_a_reward_model_in_every_encoding(client, scorer, expected):
    """base64 and bytes as vLLM's ``examples/pooling/pooling`` clients read them: float32 in the machine's order."""
    body = {"model": "rm", "input": [rendered(scorer, one) for one in ANSWERS]}
    found = answer(client, "/pooling", body)
    assert [one["data"] for one in found["data"]] == [[pytest.approx(value, abs=1e-5)] for value in expected]
    assert {one["object"] for one in found["data"]} == {"pooling"}
    packed = answer(client, "/pooling", {**body, "encoding_format": "base64", "embed_dtype": "float32"})
    values = [struct.unpack("<f", base64.b64decode(one["data"]))[0] for one in packed["data"]]
    assert values == pytest.approx(expected, abs=1e-5)
    response = post(client, "/pooling", {**body, "encoding_format": "bytes", "endianness": "little"})
    assert response.headers["content-type"] == "application/octet-stream"
    metadata = json.loads(response.headers["metadata"])
    for one, value in zip(metadata["data"], expected, strict=True):
        assert (one["shape"], one["embed_dtype"], one["endianness"]) == ([1], "float32", "little")
        assert struct.unpack("<f", response.content[one["start"] : one["end"]])[0] == pytest.approx(value, abs=1e-5)
    assert metadata["usage"] == found["usage"]
    bare = post(client, "/pooling", {**body, "encoding_format": "bytes_only"})
    assert bare.content == response.content
    assert "metadata" not in bare.headers


@pytest.fixture(scope="module")
def process_client(process_scorer):
    with application(InProcessBackend(process_scorer, name="prm")) as opened:
        yield opened


def test_pooling_of_a_process_model_gives_its_steps(process_client, process_scorer):
    from rewardlab.types import PromptGroup, Step

    steps = ("2 + 2 = 4", "4 + 1 = 5")
    group = PromptGroup("What is 2 + 2 + 1?", ("\n".join(steps),), steps=(tuple(map(Step, steps)),))
    expected = process_scorer.step_scores([group])[0][0]
    assert len(expected) == 2
    tokenizer = process_scorer.encoder.tokenizer
    ids = list(process_scorer.encoder.encode(group).sequences[0])
    text = tokenizer.decode(ids)
    for value in (ids, text):
        found = answer(process_client, "/pooling", {"model": "prm", "input": value, "task": "token_classify"})
        assert found["data"][0]["data"] == [
            [pytest.approx(1 - p, abs=1e-5), pytest.approx(p, abs=1e-5)] for p in expected
        ]
    packed = answer(process_client, "/pooling", {"input": ids, "encoding_format": "base64"})["data"][0]["data"]
    flat = struct.unpack("<4f", base64.b64decode(packed))
    assert flat[1::2] == pytest.approx(expected, abs=1e-5)
    described = json.loads(
        post(process_client, "/pooling", {"input": ids, "encoding_format": "bytes"}).headers["metadata"]
    )
    assert described["data"][0]["shape"] == [2, 2]
    score = process_scorer.score_groups([group])[0][0]
    for route, body in (("/pooling", {"task": "classify"}), ("/classify", {})):
        one = answer(process_client, route, {"input": ids, **body})["data"][0]
        assert one.get("data", one.get("probs")) == [pytest.approx(score, abs=1e-5)]


def test_pooling_refuses_what_the_model_has_not(client, process_client):
    refused = post(client, "/pooling", {"input": "a", "task": "token_classify"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "task")
    refused = post(process_client, "/pooling", {"input": "a", "use_activation": False})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "use_activation")


def test_truncation_is_from_the_left_where_it_is_allowed(client, scorer):
    text = rendered(scorer, "sea", prompt="wind " * 200)
    assert post(client, "/classify", {"input": text}).status_code == 400
    ids = scorer.encoder.tokenizer(text.rstrip("\n"), add_special_tokens=False)["input_ids"]
    for asked, kept in ((-1, 128), (40, 40), (999, 128)):
        found = answer(client, "/classify", {"input": text, "truncate_prompt_tokens": asked, "truncation_side": "left"})
        by_ids = answer(client, "/classify", {"input": [ids[0], *ids[len(ids) - kept + 1 :]]})
        assert found["data"][0]["probs"] == pytest.approx(by_ids["data"][0]["probs"], abs=1e-5)
        assert found["usage"]["prompt_tokens"] == kept


@pytest.mark.parametrize(
    ("route", "body"),
    [("/classify", {"messages": MESSAGES}), ("/score", {"queries": "a", "documents": "b"})],
)
def test_a_conversation_is_cut_to_the_models_length_alone(client, route, body):
    """Which is what it is cut to anyway: the oldest turns of the prompt go."""
    assert answer(client, route, {**body, "truncate_prompt_tokens": -1})["data"]
    refused = post(client, route, {**body, "truncate_prompt_tokens": 64})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "truncate_prompt_tokens")
    assert "128 tokens, not to 64" in refused.json()["error"]["message"]


def test_a_failed_item_is_named_and_gives_no_number(client):
    response = post(client, "/score", {"queries": PROMPT, "documents": ["sea", "wind " * 200, "sea"]})
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["message"].startswith("item 1: ")
    assert (error["param"], error["code"], error["type"]) == ("1", 400, "invalid_request_error")


def test_items_of():
    assert items_of("a") == [Rendered("a")]
    assert items_of(["a", "b"], 7) == [Rendered("a", 7), Rendered("b", 7)]
    assert items_of([1, 2]) == [Ids((1, 2))]
    assert items_of([[1], [2, 3]]) == [Ids((1,)), Ids((2, 3))]
    assert items_of([]) == []


def test_messages_become_a_prompt_and_its_last_turn():
    backend = FixedBackend()
    with application(backend) as client:
        answer(client, "/classify", {"messages": [{"role": "system", "content": "s"}, *MESSAGES]})
        answer(client, "/classify", {"messages": MESSAGES[1:]})
    assert backend.asked[0] == (Conversation(({"role": "system", "content": "s"}, MESSAGES[0]), (MESSAGES[1],)),)
    assert backend.asked[1] == (Conversation("", (MESSAGES[1],)),)


@pytest.mark.parametrize(
    ("value", "probability"),
    [(-1e6, 0.0), (-50.0, math.exp(-50)), (-30.0, math.exp(-30) / (1 + math.exp(-30))), (0.0, 0.5), (1e6, 1.0)],
)
def test_small_probabilities_keep_their_digits(value, probability):
    """1 / (1 + exp(50)) is exp(-50) but for one part in exp(50)."""
    with application(FixedBackend((ItemScore(value, 1),), activation="sigmoid")) as client:
        found = answer(client, "/classify", {"input": "a"})["data"][0]["probs"][0]
    assert found == pytest.approx(probability, rel=1e-14, abs=0.0)


def test_rerank_goes_by_the_scores_where_their_sigmoids_are_equal():
    """Sigmoid(40) and sigmoid(41) are both 1.0 in float64."""
    with application(FixedBackend((ItemScore(40.0, 1), ItemScore(41.0, 1)), activation="sigmoid")) as client:
        results = answer(client, "/rerank", {"query": "q", "documents": ["a", "b"], "top_n": 1})["results"]
    assert [(one["index"], one["relevance_score"]) for one in results] == [(1, 1.0)]


@pytest.mark.parametrize(("asked", "longest"), [(2, 2), (-1, 128), (999, 128)])
@pytest.mark.parametrize("route", ["/classify", "/pooling"])
def test_token_ids_are_refused_where_they_would_have_to_be_cut(route, asked, longest):
    backend = FixedBackend()
    fits, long = [1] * longest, [1] * (longest + 1)
    with application(backend) as client:
        assert answer(client, route, {"input": fits, "truncate_prompt_tokens": asked})["data"]
        refused = post(client, route, {"input": [fits, long], "truncate_prompt_tokens": asked})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "truncate_prompt_tokens")
    assert refused.json()["error"]["message"].startswith(f"item 1 has {longest + 1} token ids, and ")
    assert len(backend.asked) == 1

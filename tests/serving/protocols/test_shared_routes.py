"""Routes that two dialects share: told by the keys, errors in the dialect's words, all in the OpenAPI document."""

from __future__ import annotations

import pytest
from tests.serving.fixed_backend import FixedBackend
from tests.serving.protocols.conversations import answer, application, post

from rewardlab.serving.failures import DeadlineExceeded, Overloaded, ScoringFailed
from rewardlab.serving.items import ItemRefusal, ItemScore
from rewardlab.serving.protocols import llamafactory, openrlhf, sglang, slime, tei, vllm

MESSAGES = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]

BODIES = [
    ("/classify", {"input": "a"}),
    ("/classify", {"messages": MESSAGES}),
    ("/classify", {"text": "a"}),
    ("/classify", {"input_ids": [1]}),
    ("/pooling", {"input": "a"}),
    ("/score", {"queries": "a", "documents": "b"}),
    ("/v1/score", {"text_1": "a", "text_2": "b"}),
    ("/rerank", {"query": "a", "documents": ["b"]}),
    ("/v1/rerank", {"query": "a", "documents": ["b"]}),
    ("/v2/rerank", {"query": "a", "documents": ["b"]}),
    ("/v1/embeddings", {"input": "a"}),
    ("/get_reward", {"query": ["a"]}),
    ("/get_reward", {"prompt": "a", "response": "b"}),
    ("/v1/score/evaluation", {"messages": ["a"]}),
]
"""A request of each kind of every dialect but TEI's, whose errors are its own."""


@pytest.fixture(scope="module")
def opened():
    backend = FixedBackend()
    with application(backend) as client:
        yield backend, client


@pytest.fixture
def client(opened):
    return opened[1]


@pytest.fixture
def backend(opened):
    """Answers 0 to everything, unless a test tells it otherwise."""
    yield opened[0]
    opened[0].results, opened[0].failure = [], None


def test_a_body_is_answered_in_the_dialect_of_its_keys(client):
    assert set(answer(client, "/classify", {"input": "a"})) == {"id", "object", "created", "model", "data", "usage"}
    assert set(answer(client, "/classify", {"text": "a", "input": None})) == {"embedding", "meta_info"}
    assert isinstance(answer(client, "/rerank", {"query": "a", "documents": ["b"]}), dict)
    assert isinstance(answer(client, "/rerank", {"query": "a", "texts": ["b"]}), list)
    assert set(answer(client, "/get_reward", {"query": ["a"]})) == {"rewards", "scores", "extra_logs"}
    assert answer(client, "/get_reward", {"prompt": "a", "response": "b"}) == 0.0


@pytest.mark.parametrize(
    ("route", "bodies", "expected"),
    [
        (
            "/classify",
            [{}, {"model": "m"}, ["a"], "a"],
            "an object with one of input or messages (vLLM), text or input_ids (SGLang)",
        ),
        ("/rerank", [{"query": "a"}, ["a"]], "an object with either documents (vLLM) or texts (TEI)"),
        (
            "/get_reward",
            [{"prompt": "a"}, {"query": None}, 3],
            "an object with either query (OpenRLHF) or response (slime)",
        ),
    ],
)
def test_bodies_without_a_key_are_refused(client, route, bodies, expected):
    for body in bodies:
        response = post(client, route, body)
        assert response.status_code == 400
        assert f"the body: expected {expected}, got" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("route", "body", "words"),
    [
        ("/classify", {"input": "a", "text": "b"}, "the body has input and text"),
        ("/classify", {"messages": MESSAGES, "input": "a"}, "the body has input and messages"),
        ("/get_reward", {"query": ["a"], "response": "b"}, "the body has query and response"),
    ],
)
def test_bodies_with_several_keys_are_told_which(client, route, body, words):
    response = post(client, route, body)
    assert response.status_code == 400
    assert response.json()["error"]["message"] == f"{words}; give one of them, and not the others"


def test_rerank_with_texts_is_refused_in_teis_words(client):
    response = post(client, "/rerank", {"query": "a", "texts": ["b"], "documents": ["c"]})
    assert response.status_code == 422
    assert response.json()["error_type"] == "Validation"
    assert client.post("/rerank").status_code == 400


@pytest.mark.parametrize(("route", "body"), BODIES)
@pytest.mark.parametrize("failure", [Overloaded, DeadlineExceeded])
def test_what_can_be_asked_again_is_503(client, backend, route, body, failure):
    backend.failure = failure("later", retry_after=3)
    response = post(client, route, body)
    assert (response.status_code, response.headers["Retry-After"]) == (503, "3")
    assert response.json()["error"]["code"] == 503


@pytest.mark.parametrize(("route", "body"), BODIES)
def test_a_failure_is_never_a_number(client, backend, route, body):
    """A refusal of the model's own and one of the client's item; both name the item."""
    refusals = {"failed": 500, "not_finite": 500, "too_long": 400, "invalid": 400, "step_boundary": 400}
    for kind, status in refusals.items():
        backend.results = [ItemRefusal(kind, "because")]
        response = post(client, route, body)
        assert response.status_code == status
        assert "item 0: because" in response.json()["error"]["message"]


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_score_that_is_not_finite_is_an_error(client, backend, wrong):
    """The worker never sends one; were it to, no body would hold it."""
    backend.results = [ItemScore(wrong, 1)]
    assert post(client, "/get_reward", {"query": ["a"]}).status_code == 500
    backend.failure = ScoringFailed("NaN")
    assert post(client, "/get_reward", {"query": ["a"]}).status_code == 500


def test_openapi_knows_every_kind_of_body_and_answer(client):
    document = client.get("/openapi.json").json()
    for module in (vllm, sglang, openrlhf, slime, llamafactory, tei):
        assert module.DIALECT.scale
        for route in module.DIALECT.routes:
            method, path = route.split()
            operation = document["paths"][path][method.lower()]
            assert module.DIALECT.name in operation["tags"]
            refused = "422" if path == "/predict" else "400"
            assert {"200", refused, "503"} <= set(operation["responses"])
            assert operation["responses"]["200"]["content"]["application/json"]["schema"]

    # pydantic puts the module before a name that two classes have.
    assert [name for name in document["components"]["schemas"] if "__" in name] == []

    def bodies(path: str) -> set[str]:
        schema = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        return {one["$ref"].removeprefix("#/components/schemas/") for one in schema["oneOf"]}

    assert bodies("/classify") == {"TextRequest", "ChatRequest", "RenderedRequest", "TokenIdsRequest"}
    assert bodies("/rerank") == {"RerankRequest", "RankRequest"}
    assert bodies("/get_reward") == {"RewardRequest", "SampleRequest"}
    assert bodies("/score") == {"QueriesDocuments", "QueriesItems", "Texts", "Data"}
    assert bodies("/pooling") == {"PoolingTextRequest", "PoolingChatRequest"}

"""The requests of text-embeddings-inference's docs, and its errors; without ``raw_scores`` the Scorer's sigmoid."""

from __future__ import annotations

import math

import pytest
from tests.serving.backends import InProcessBackend
from tests.serving.fixed_backend import FixedBackend
from tests.serving.protocols.conversations import ANSWERS, PROMPT, REQUESTS, answer, application, post, rendered

from rewardlab.calibration.reference import reference_statistics
from rewardlab.serving.failures import DeadlineExceeded, Overloaded, ScoringFailed
from rewardlab.serving.items import ItemScore


@pytest.fixture(scope="module")
def client(scorer):
    with application(InProcessBackend(scorer)) as opened:
        yield opened


@pytest.fixture
def expected(scorer):
    return scorer.score([PROMPT] * 3, list(ANSWERS))


@pytest.fixture
def squashed(expected):
    return [1 / (1 + math.exp(-value)) for value in expected]


def test_predict_of_one_text(client, scorer, expected, squashed):
    """``curl 127.0.0.1:8080/predict -d '{"inputs": "..."}'``."""
    text = rendered(scorer)
    assert answer(client, "/predict", {"inputs": text}, REQUESTS) == [
        {"score": pytest.approx(squashed[0], abs=1e-5), "label": "LABEL_0"}
    ]
    for inputs in (text, [text]):
        found = answer(client, "/predict", {"inputs": inputs, "raw_scores": True, "truncate": None})
        assert found == [{"score": pytest.approx(expected[0], abs=1e-5), "label": "LABEL_0"}]


def test_predict_of_a_pair_and_of_a_batch(client, scorer, expected, squashed):
    pair = answer(client, "/predict", {"inputs": [PROMPT, ANSWERS[1]], "raw_scores": True})
    assert pair == [{"score": pytest.approx(expected[1], abs=1e-5), "label": "LABEL_0"}]
    batch = [[rendered(scorer)], [PROMPT, ANSWERS[1]], [PROMPT, ANSWERS[2]]]
    found = answer(client, "/predict", {"inputs": batch}, REQUESTS)
    assert [len(one) for one in found] == [1, 1, 1]
    assert [one[0]["score"] for one in found] == pytest.approx(squashed, abs=1e-5)


def test_rerank(client, expected, squashed):
    """``curl 127.0.0.1:8080/rerank -d '{"query": "...", "texts": [...]}'``; the best first."""
    order = sorted(range(3), key=lambda index: -expected[index])
    found = answer(client, "/rerank", {"query": PROMPT, "texts": list(ANSWERS), "raw_scores": False}, REQUESTS)
    assert [set(one) for one in found] == [{"index", "score"}] * 3
    assert [one["index"] for one in found] == order
    assert [one["score"] for one in found] == pytest.approx([squashed[index] for index in order], abs=1e-5)
    options = {"raw_scores": True, "return_text": True, "truncate": True}
    raw = answer(client, "/rerank", {"query": PROMPT, "texts": list(ANSWERS), **options})
    assert [one["score"] for one in raw] == pytest.approx([expected[index] for index in order], abs=1e-5)
    assert [one["text"] for one in raw] == [ANSWERS[index] for index in order]


def test_ties_go_by_index():
    with application(FixedBackend((ItemScore(1.0, 1), ItemScore(2.0, 1), ItemScore(1.0, 1)))) as client:
        found = answer(client, "/rerank", {"query": "q", "texts": ["a", "b", "c"]})
    assert [one["index"] for one in found] == [1, 0, 2]


def test_rerank_goes_by_the_scores_where_their_sigmoids_are_equal():
    """Sigmoid(40) and sigmoid(41) are both 1.0 in float64; sigmoid(-50) is exp(-50) but for one part in exp(50)."""
    with application(FixedBackend((ItemScore(-50.0, 1), ItemScore(40.0, 1), ItemScore(41.0, 1)))) as client:
        found = answer(client, "/rerank", {"query": "q", "texts": ["a", "b", "c"]})
    assert [(one["index"], one["score"]) for one in found] == [
        (2, 1.0),
        (1, 1.0),
        (0, pytest.approx(math.exp(-50), rel=1e-14, abs=0.0)),
    ]


@pytest.mark.parametrize("route", ["/predict", "/rerank"])
def test_a_percentile_is_a_share_already(route):
    """Of the reference scores 0, 1, ..., 100 half lie below 50, a quarter below 25; sigmoid(50) would be 1.0."""
    reference = reference_statistics([float(score) for score in range(101)], "by hand")
    backend = FixedBackend((ItemScore(50.0, 1), ItemScore(25.0, 1)), reference=reference)
    body = {"inputs": [["a"], ["b"]]} if route == "/predict" else {"query": "q", "texts": ["a", "b"]}
    with application(backend, scale="percentile") as client:
        found = answer(client, route, body)
    assert [(one[0] if route == "/predict" else one)["score"] for one in found] == pytest.approx([0.5, 0.25], abs=0.006)


def test_too_many_inputs_are_refused_in_teis_words():
    with application(FixedBackend()) as client:
        many = [["a"]] * 1025
        for route, body in (("/predict", {"inputs": many}), ("/rerank", {"query": "q", "texts": ["a"] * 1025})):
            refused = post(client, route, body)
            assert refused.status_code == 413
            assert refused.json()["error_type"] == "Validation"
            assert "1025 items" in refused.json()["error"]
        assert len(answer(client, "/predict", {"inputs": many[:1024]})) == 1024


def test_truncation_never_takes_the_end(client, scorer):
    text = rendered(scorer, "sea", prompt="wind " * 200)
    assert post(client, "/predict", {"inputs": text}).status_code == 422
    found = answer(client, "/predict", {"inputs": text, "truncate": True, "raw_scores": True})
    ids = scorer.encoder.tokenizer(text.rstrip("\n"), add_special_tokens=False)["input_ids"]
    cut = answer(client, "/classify", {"input": [ids[0], *ids[-127:]]})
    assert found[0]["score"] == pytest.approx(cut["data"][0]["probs"][0], abs=1e-5)
    for direction in ("right", "Right"):
        options = {"truncate": True, "truncation_direction": direction}
        for route, body in (("/predict", {"inputs": "a"}), ("/rerank", {"query": "a", "texts": ["b"]})):
            refused = post(client, route, {**body, **options})
            assert refused.status_code == 422
            assert "where the score is read" in refused.json()["error"]
    assert answer(client, "/predict", {"inputs": "a", "truncation_direction": "right"})
    assert answer(client, "/predict", {"inputs": "a", "truncate": True, "truncation_direction": "Left"})


@pytest.mark.parametrize(
    ("route", "body", "words"),
    [
        ("/predict", {"inputs": ""}, "the text is empty"),
        ("/predict", {"inputs": " "}, "the text is empty"),
        ("/predict", {"inputs": [["a"], [""]]}, "item 1: the text is empty"),
        ("/predict", {"inputs": [["a", ""], ["", ""]]}, "item 1: both texts are empty"),
        ("/rerank", {"query": "", "texts": ["b", ""]}, "item 1: both texts are empty"),
        ("/predict", {"inputs": 1}, "inputs: expected a string, a pair of strings, or a batch such as"),
        ("/predict", {"inputs": []}, "inputs: expected at least 1 item"),
        ("/predict", {"inputs": ["a", "b", "c"]}, 'a batch such as [["a"], ["b"], ["c"]], got a list of 3 items'),
        ("/predict", {"inputs": ["a", ["b"]]}, "inputs.1: expected a string"),
        ("/predict", {"inputs": [["a"], ["a", "b", "c"]]}, "inputs.1: expected at most 2 items"),
        ("/predict", {"inputs": [["a"], []]}, "inputs.1: expected at least 1 item"),
        ("/predict", {"inputs": "a", "raw_scores": 1}, "raw_scores: expected true or false"),
        ("/predict", {"inputs": "a", "truncation_direction": "up"}, "truncation_direction: expected 'left'"),
        ("/rerank", {"query": "a", "texts": "b"}, "texts: expected a list"),
        ("/rerank", {"texts": ["b"]}, "query: missing"),
        ("/rerank", {"query": "a", "texts": []}, "there is nothing to score"),
        ("/rerank", {"query": "a", "texts": ["b", "wind " * 200]}, "item 1: "),
    ],
)
def test_errors_are_worded_as_teis(client, route, body, words):
    response = post(client, route, body)
    assert response.status_code == 422
    assert response.json() == {"error": response.json()["error"], "error_type": "Validation"}
    assert words in response.json()["error"]


@pytest.mark.parametrize(
    ("failure", "status", "kind"),
    [
        (Overloaded("the queue is full", retry_after=2), 429, "Overloaded"),
        (DeadlineExceeded("too late", retry_after=2), 503, "Unhealthy"),
        (ScoringFailed("the model gives NaN"), 424, "Backend"),
    ],
)
def test_overload_is_429_here(failure, status, kind):
    with application(FixedBackend(failure=failure)) as client:
        for route, body in (("/predict", {"inputs": "a"}), ("/rerank", {"query": "a", "texts": ["b"]})):
            response = post(client, route, body)
            assert (response.status_code, response.json()["error_type"]) == (status, kind)
            assert response.headers.get("Retry-After") == (None if status == 424 else "2")

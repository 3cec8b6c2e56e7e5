"""LLaMA-Factory's request as ``src/llamafactory/train/ppo/ppo_utils.py`` makes it (``get_rewards_from_server``).

Its PPO trainer decodes queries and responses with their special tokens into the texts that it sends.
"""

from __future__ import annotations

import pytest
from tests.serving.backends import InProcessBackend
from tests.serving.protocols.conversations import ANSWERS, PROMPT, REQUESTS, answer, application, post, rendered

ROUTE = "/v1/score/evaluation"


@pytest.fixture(scope="module")
def client(scorer):
    with application(InProcessBackend(scorer)) as opened:
        yield opened


def test_llamafactory_reads_the_scorers_numbers(client, scorer):
    texts = [rendered(scorer, one) for one in ANSWERS]
    found = answer(client, ROUTE, {"model": "model", "messages": texts}, REQUESTS)
    assert found["scores"] == pytest.approx(scorer.score([PROMPT] * 3, list(ANSWERS)), abs=1e-5)
    assert found["object"] == "score.evaluation"
    assert found["model"] == "rm"
    assert found["id"].startswith("scoreval-")


def test_long_text_is_refused_unless_it_may_be_cut(client, scorer):
    """Cut from the left: the end, where the score is read, stays."""
    text = rendered(scorer, "sea", prompt="wind " * 200)
    refused = post(client, ROUTE, {"model": "model", "messages": ["x", text]})
    assert refused.status_code == 400
    assert refused.json()["error"]["message"].startswith("item 1: ")
    tokenizer = scorer.encoder.tokenizer
    ids = tokenizer(text.rstrip("\n"), add_special_tokens=False)["input_ids"]
    for max_length, kept in ((50, 50), (9999, 128)):
        found = answer(client, ROUTE, {"model": "model", "messages": [text], "max_length": max_length})
        cut = answer(client, "/classify", {"input": [ids[0], *ids[len(ids) - kept + 1 :]]})
        assert found["scores"][0] == pytest.approx(cut["data"][0]["probs"][0], abs=1e-5)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"model": "m"}, "messages: missing"),
        ({"messages": [{"role": "user", "content": "x"}]}, "messages.0: expected a string"),
        ({"messages": ["x"], "max_length": 0}, "max_length"),
        ({"messages": []}, "nothing to score"),
    ],
)
def test_bad_bodies_are_refused(client, body, words):
    response = post(client, ROUTE, body)
    assert response.status_code == 400
    assert words in response.json()["error"]["message"]

"""OpenRLHF's request as ``openrlhf/utils/agent.py`` makes it (``SingleTurnAgentExecutor``), and what it reads."""

from __future__ import annotations

import dataclasses

import pytest
from tests.serving.backends import InProcessBackend
from tests.serving.protocols.conversations import ANSWERS, PROMPT, answer, application, post

from rewardlab.serving.items import Answer


@pytest.fixture(scope="module")
def backend(scorer):
    return InProcessBackend(scorer)


@pytest.fixture(scope="module")
def client(backend):
    with application(backend) as opened:
        yield opened


def query_of(tokenizer, response: str, padding: int = 0) -> str:
    """Ids of prompt and answer, decoded with their special tokens; older versions decoded padded batches so."""
    chat = [{"role": "user", "content": PROMPT}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    ids += [*tokenizer(response, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    pad = [tokenizer.pad_token_id] * padding
    return tokenizer.decode(pad + ids + pad, skip_special_tokens=False)


def read(rewards_info: dict) -> tuple[object, object, dict]:
    """What ``execute`` keeps of the answer."""
    reward, scores = rewards_info.get("rewards"), rewards_info.get("scores") or rewards_info.get("rewards")
    return reward, scores, rewards_info.get("extra_logs") or {}


@pytest.mark.parametrize("padding", [0, 3])
def test_openrlhf_reads_the_scorers_number(client, scorer, padding):
    """One item per request, as since 0.9; the padded text is that of the versions before."""
    for one, expected in zip(ANSWERS, scorer.score([PROMPT] * 3, list(ANSWERS)), strict=True):
        query = query_of(scorer.encoder.tokenizer, one, padding)
        assert query.startswith(scorer.encoder.tokenizer.pad_token * padding + "<bos>")
        found = answer(client, "/get_reward", {"query": [query], "prompts": [PROMPT], "labels": [None]})
        reward, scores, logs = read(found)
        assert reward == scores == [pytest.approx(expected, abs=1e-5)]
        assert logs == {}


def test_several_queries_and_an_ensembles_disagreement(client, scorer, backend, monkeypatch):
    given = backend.score

    async def of_an_ensemble(items):
        found = await given(items)
        results = tuple(dataclasses.replace(one, disagreement=0.5 + i) for i, one in enumerate(found.results))
        return Answer(results, found.model)

    monkeypatch.setattr(backend, "score", of_an_ensemble)
    queries = [query_of(scorer.encoder.tokenizer, one) for one in ANSWERS]
    found = answer(client, "/get_reward", {"query": queries, "prompts": [PROMPT] * 3, "labels": ["a", 1, None]})
    assert found["rewards"] == found["scores"] == pytest.approx(scorer.score([PROMPT] * 3, list(ANSWERS)), abs=1e-5)
    assert found["extra_logs"] == {"disagreement": [0.5, 1.5, 2.5]}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"query": "one text"}, "query"),
        ({"query": [1]}, "query.0"),
        ({"query": ["a"], "prompts": "b"}, "prompts"),
        ({"query": []}, "nothing to score"),
    ],
)
def test_bad_bodies_are_refused(client, body, field):
    response = post(client, "/get_reward", body)
    assert response.status_code == 400
    assert field in response.json()["error"]["message"]


def test_a_failed_item_is_named_and_gives_no_number(client, scorer):
    queries = [query_of(scorer.encoder.tokenizer, "sea"), query_of(scorer.encoder.tokenizer, "sea " * 200)]
    response = post(client, "/get_reward", {"query": queries})
    assert response.status_code == 400
    assert response.json()["error"]["message"].startswith("item 1: ")
    assert response.json()["error"]["param"] == "1"

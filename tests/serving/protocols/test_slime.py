"""slime's request as ``slime/rollout/rm_hub/__init__.py`` makes it (``remote_rm``): the body it reads is the reward."""

from __future__ import annotations

import pytest
from tests.serving.backends import InProcessBackend
from tests.serving.protocols.conversations import ANSWERS, PROMPT, answer, application, post


@pytest.fixture(scope="module")
def client(scorer):
    with application(InProcessBackend(scorer)) as opened:
        yield opened


def prompts(scorer) -> list[object]:
    """A sample's prompt: rendered (``--apply-chat-template``), plain text, messages."""
    chat = [{"role": "user", "content": PROMPT}]
    tokenizer = scorer.encoder.tokenizer
    return [tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False), PROMPT, chat]


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_slime_reads_the_scorers_number(client, scorer, kind):
    for one, expected in zip(ANSWERS, scorer.score([PROMPT] * 3, list(ANSWERS)), strict=True):
        reward = answer(client, "/get_reward", {"prompt": prompts(scorer)[kind], "response": one, "label": "4"})
        assert isinstance(reward, float)
        assert reward == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_a_response_may_end_with_its_end_token(client, scorer, kind):
    """As it does where the rollout keeps special tokens."""
    payload = {"prompt": prompts(scorer)[kind], "response": ANSWERS[0] + "<eos>", "label": None}
    assert answer(client, "/get_reward", payload) == pytest.approx(scorer.score([PROMPT], [ANSWERS[0]])[0], abs=1e-5)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"response": "a"}, "prompt: missing"),
        ({"prompt": 1, "response": "a"}, "prompt: expected a string or a list, got 1 (int)"),
        ({"prompt": "a", "response": ["b"]}, "response: expected a string, got a list of 1 item"),
        ({"prompt": [{"role": "user", "content": [{"type": "image_url"}]}], "response": "a"}, "prompt.0.content"),
    ],
)
def test_bad_bodies_are_refused(client, body, words):
    response = post(client, "/get_reward", body)
    assert response.status_code == 400
    assert words in response.json()["error"]["message"]

"""verl's two requests, as ``verl/experimental/reward_loop/reward_loop.py`` makes them and reads their answers.

Of its ``_preprocess_reward_inputs``: the answer's end token is removed, the conversation is rendered by the reward
model's tokenizer, and the begin token, which the engine would add again, is cut off in front.
"""

from __future__ import annotations

import pytest
from tests.serving.backends import InProcessBackend
from tests.serving.protocols.conversations import ANSWERS, PROMPT, answer, application, post


@pytest.fixture(scope="module")
def backend(scorer):
    return InProcessBackend(scorer)


@pytest.fixture(scope="module")
def client(backend):
    with application(backend) as opened:
        yield opened


def prompt_of(tokenizer, response: str) -> str:
    chat = [{"role": "user", "content": PROMPT}]
    chat.append({"role": "assistant", "content": response.replace(tokenizer.eos_token, "")})
    text = tokenizer.apply_chat_template(chat, add_generation_prompt=False, tokenize=False)
    return text.removeprefix(tokenizer.bos_token)


def vllm_request(model: str, text: str) -> tuple[str, dict]:
    return "/classify", {"model": model, "input": text, "use_activation": False}


def sglang_request(model: str, text: str) -> tuple[str, dict]:
    return "/v1/embeddings", {"model": model, "input": text}


READ = {
    vllm_request: lambda output: output["data"][-1]["probs"][-1],
    sglang_request: lambda output: output["data"][-1]["embedding"][-1],
}


@pytest.mark.parametrize("request_of", READ)
def test_verl_reads_the_scorers_number(client, scorer, request_of):
    tokenizer = scorer.encoder.tokenizer
    assert tokenizer.bos_token == "<bos>"
    for one, expected in zip(ANSWERS, scorer.score([PROMPT] * 3, list(ANSWERS)), strict=True):
        text = prompt_of(tokenizer, one + tokenizer.eos_token)
        assert not text.startswith("<bos>")
        output = answer(client, *request_of("/models/rm", text))
        assert READ[request_of](output) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("request_of", READ)
def test_what_can_be_asked_again_is_never_4xx(client, backend, request_of):
    """At any 4xx, 429 included, verl raises at once; it repeats 5xx up to 16 times."""
    try:
        for backend.state in ("restarting", "sleeping", "draining"):
            response = post(client, *request_of("rm", "text"))
            assert response.status_code == 503
            assert int(response.headers["Retry-After"]) >= 1
    finally:
        backend.state = "ready"

"""Called as OpenRLHF's ``SingleTurnAgentExecutor`` does: one templated prompt and query at a time, from threads."""

from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path

import pytest
import torch

from rewardlab.adapters.openrlhf import TemplatedPrompts, make_reward_func, response_of
from rewardlab.errors import ConfigError, DataError

CHATML = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are helpful.<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def test_templated_queries_get_the_scores_of_their_messages(scorer, chat_tokenizer, six):
    """Policy and reward model share no template here: special tokens are cut off, and the reward model's put on."""
    chat_tokenizer.chat_template = CHATML
    reward_func = make_reward_func(scorer, policy=chat_tokenizer, strip=["<|im_end|>"])
    prompts = [
        chat_tokenizer.apply_chat_template([user(prompt)], tokenize=False, add_generation_prompt=True)
        for prompt in six[0]
    ]
    queries = [f"{prompt}{answer}<|im_end|>" for prompt, answer in zip(prompts, six[1], strict=True)]

    async def one_at_a_time():
        calls = (asyncio.to_thread(reward_func, [q], [p], [None]) for q, p in zip(queries, prompts, strict=True))
        return await asyncio.gather(*calls)

    whole = reward_func(queries, prompts, [None] * 6)
    system = {"role": "system", "content": "You are helpful."}  # the template's own, which the policy saw
    expected = scorer.score([[system, user(prompt)] for prompt in six[0]], six[1])
    assert whole["rewards"].tolist() == pytest.approx(expected, abs=1e-5)
    assert torch.equal(whole["scores"], whole["extra_logs"]["reward_model_score"])
    single = asyncio.run(one_at_a_time())
    assert [answer["rewards"].item() for answer in single] == pytest.approx(expected, abs=1e-5)


def test_plain_prompts_need_no_policy(scorer):
    reward_func = make_reward_func(scorer, templated=False, transforms=["delta"], baseline_of=str)
    found = reward_func(["p: a poem"], ["p: "], ["the sea"])
    expected = scorer.score(["p: "] * 2, ["a poem", "the sea"])
    assert found["rewards"].tolist() == pytest.approx([expected[0] - expected[1]], abs=1e-5)
    assert found["scores"].tolist() == pytest.approx(expected[:1], abs=1e-5)
    with pytest.raises(ConfigError, match="policy is not given"):
        make_reward_func(scorer)


def test_what_has_no_score_raises_or_is_what_was_said(scorer, too_long):
    with pytest.raises(DataError, match="completion too long"):
        make_reward_func(scorer, templated=False)([f"p{too_long}"], ["p"], [None])
    found = make_reward_func(scorer, templated=False, unscored=-2.0)([f"p{too_long}"], ["p"], [None])
    assert found["rewards"].tolist() == found["scores"].tolist() == [-2.0]


def test_a_query_whose_prompt_was_cut_keeps_its_response():
    prompt = "the oldest part of it, and then the rest of the prompt"
    assert response_of(f"{prompt} answer", prompt) == " answer"
    assert response_of(f"{prompt[12:]} answer", prompt) == " answer"
    with pytest.raises(DataError, match="does not continue its prompt"):
        response_of("something else", prompt)


@pytest.mark.parametrize(
    "messages",
    [
        [user("Hello\n\nthere")],
        [{"role": "system", "content": "Be brief."}, user("Hello")],
        [user("a"), {"role": "assistant", "content": "b\nc"}, user("d")],
        [{"role": "system", "content": "s"}, user("a"), {"role": "assistant", "content": "b"}, user("d")],
    ],
)
@pytest.mark.parametrize("chatml", [True, False])
def test_templated_prompts_become_messages_again(chat_tokenizer, messages, chatml):
    if chatml:
        chat_tokenizer.chat_template = CHATML
    prompt = chat_tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    read = TemplatedPrompts(chat_tokenizer).read(prompt)
    again = chat_tokenizer.apply_chat_template(read, tokenize=False, add_generation_prompt=True)
    assert again == prompt
    assert read[-len(messages) :] == messages


def test_what_the_template_did_not_write_is_refused(chat_tokenizer, tokenizer):
    with pytest.raises(DataError, match="no prompt of the policy's chat template: 'Hello"):
        TemplatedPrompts(chat_tokenizer).read("Hello")
    tokenizer.chat_template = None
    with pytest.raises(ConfigError, match="no chat template"):
        TemplatedPrompts(tokenizer)
    tokenizer.chat_template = "{{ messages[0]['content'] | upper }}"
    with pytest.raises(ConfigError, match="does not render"):
        TemplatedPrompts(tokenizer)


def test_the_example_file_loads_as_openrlhf_loads_it(reward_model, scorer, chat_tokenizer, tmp_path, monkeypatch):
    chat_tokenizer.save_pretrained(tmp_path)
    monkeypatch.setenv("REWARD_MODEL", str(reward_model))
    monkeypatch.setenv("POLICY", str(tmp_path))
    path = Path(__file__).resolve().parents[2] / "examples" / "openrlhf_reward.py"
    spec = importlib.util.spec_from_file_location("reward_func", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    prompt = chat_tokenizer.apply_chat_template([user("p")], tokenize=False, add_generation_prompt=True)
    found = module.reward_func([f"{prompt}a poem<eos>"], [prompt], [None])
    assert found["rewards"].tolist() == pytest.approx(scorer.score(["p"], ["a poem"]), abs=1e-5)

"""The small policy: its ids, what it draws and what it says of its own draws, against plain transformers."""

from __future__ import annotations

import copy
from random import Random

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, entropy
from transformers import AutoModelForCausalLM, AutoTokenizer

from rewardlab.data.template import chat_template_of, seal_chat_template
from rewardlab.studies.policy import PolicySize, build_policy, load_policy_model, log_probs, log_ratios, sample
from rewardlab.studies.utility import true_utility
from rewardlab.studies.world import SUBSETS, sample_completion, sample_prompt

TINY = PolicySize(num_pairs=400, vocabulary=300, hidden_size=32, num_heads=2, num_layers=1, batch_size=16)
PROMPTS = ["What is 2 plus 3?", "Hello. Explain the use of a kettle.", "Tell me about a violin as a list."]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    lines: list[str] = []
    return build_policy(tmp_path_factory.mktemp("policy") / "tiny", seed=3, size=TINY, report=lines.append), lines


@pytest.fixture(scope="module")
def folder(built):
    return built[0]


@pytest.fixture(scope="module")
def policy(folder):
    return load_policy_model(folder)


def test_training_is_told_and_lowers_the_loss(built):
    """An untrained decoder gives about log(vocabulary) = 5.7 nats per token."""
    _, lines = built
    first, last = (float(line.split(", ")[1].split()[0]) for line in (lines[0], lines[-1]))
    assert 4.5 < first < 8
    assert last < first - 1


def test_a_seed_gives_the_same_draws_whatever_the_global_state(policy):
    model, tokenizer = policy
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = sample(model, tokenizer, PROMPTS, n=3, seed=5, max_new_tokens=12)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert sample(model, tokenizer, PROMPTS, n=3, seed=5, max_new_tokens=12) == first
    assert sample(model, tokenizer, PROMPTS, n=3, seed=6, max_new_tokens=12) != first
    assert [len(own) for own in first] == [3, 3, 3]


def test_a_sample_is_its_ids(policy):
    model, tokenizer = policy
    for own in sample(model, tokenizer, PROMPTS, n=8, seed=0, max_new_tokens=12):
        for drawn in own:
            assert drawn.ended == (drawn.ids[-1] == tokenizer.eos_token_id)
            assert drawn.ended or len(drawn.ids) == 12
            assert tokenizer.eos_token_id not in drawn.ids[:-1]
            assert drawn.text == tokenizer.decode(drawn.ids[:-1] if drawn.ended else drawn.ids)


@pytest.mark.parametrize("batch", [2, 256])
def test_a_samples_log_probability_is_that_of_its_ids(policy, batch):
    """The draw (left padding, a cache, rows that leave) and the forward over whole sequences give one number."""
    model, tokenizer = policy
    drawn = sample(model, tokenizer, PROMPTS, n=5, seed=1, max_new_tokens=20, batch=batch, temperature=0.7)
    found = log_probs(model, tokenizer, PROMPTS, drawn, batch=4)
    for own, values in zip(drawn, found, strict=True):
        assert [sample.log_prob for sample in own] == pytest.approx(values, abs=1e-4)


def test_log_probabilities_are_those_of_a_plain_forward(policy, folder):
    """Independent: transformers' own classes, one unpadded sequence at a time, the ids of `apply_chat_template`."""
    model, tokenizer = policy
    drawn = sample(model, tokenizer, PROMPTS, n=3, seed=2, max_new_tokens=15)
    found = log_probs(model, tokenizer, PROMPTS, drawn)
    other, its_tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    for prompt, own, values in zip(PROMPTS, drawn, found, strict=True):
        messages = [{"role": "user", "content": prompt}]
        before = its_tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
        for one, value in zip(own, values, strict=True):
            ids = torch.tensor([[*before, *one.ids]])
            with torch.no_grad():
                each = other(ids).logits[0].double().log_softmax(-1)
            expected = sum(each[len(before) - 1 + i, token].item() for i, token in enumerate(one.ids))
            assert value == pytest.approx(expected, abs=1e-4)


def test_greedy_draws_are_those_of_generate(policy):
    """At a temperature near 0 the likeliest token is drawn, which is what `generate` does without sampling."""
    model, tokenizer = policy
    drawn = sample(model, tokenizer, PROMPTS, n=1, seed=0, temperature=1e-4, max_new_tokens=16)
    for prompt, (one,) in zip(PROMPTS, drawn, strict=True):
        encoded = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, return_tensors="pt"
        )
        full = model.generate(**encoded, do_sample=False, max_new_tokens=16)[0, encoded["input_ids"].shape[1] :]
        assert list(one.ids) == full.tolist()


def test_tokens_are_drawn_as_often_as_their_probability_says(policy):
    """First tokens of 4,000 draws against the softmax at that temperature, chi-squared; rare ones are one bin."""
    model, tokenizer = policy
    ((*drawn,),) = sample(model, tokenizer, PROMPTS[:1], n=4_000, seed=0, temperature=1.5, max_new_tokens=1, batch=1000)
    encoded = tokenizer.apply_chat_template(
        [{"role": "user", "content": PROMPTS[0]}], add_generation_prompt=True, return_tensors="pt"
    )
    with torch.no_grad():
        expected = (model(**encoded).logits[0, -1].double() / 1.5).softmax(-1).numpy() * len(drawn)
    counts = np.bincount([one.ids[0] for one in drawn], minlength=len(expected))
    common = expected >= 5
    assert common.sum() > 20
    bins = [np.append(values[common], values[~common].sum()) for values in (counts, expected)]
    assert chisquare(*bins).pvalue > 1e-3


def test_the_mean_log_ratio_is_the_kl_from_the_reference(policy):
    """Of one token, from a reference that knows nothing: KL = log(vocabulary) - entropy; 2,000 draws, 4 errors."""
    model, tokenizer = policy
    reference = copy.deepcopy(model)
    with torch.no_grad():
        reference.lm_head.weight.zero_()
    drawn = sample(model, tokenizer, PROMPTS[:1], n=2_000, seed=0, max_new_tokens=1, batch=1000)
    (ratios,) = log_ratios(reference, tokenizer, PROMPTS[:1], drawn)
    encoded = tokenizer.apply_chat_template(
        [{"role": "user", "content": PROMPTS[0]}], add_generation_prompt=True, return_tensors="pt"
    )
    with torch.no_grad():
        p = model(**encoded).logits[0, -1].double().softmax(-1).numpy()
    kl, error = np.log(len(p)) - entropy(p), 4 * np.std(ratios) / np.sqrt(len(ratios))
    assert np.mean(ratios) == pytest.approx(kl, abs=error)
    assert kl > error, "a sign would be seen"


def test_a_conversation_is_its_prompt_and_what_follows(policy):
    """TRL's trainers take a completion's ids to be what the prompt's are continued with, the end token included."""
    _, tokenizer = policy
    user, answer = {"role": "user", "content": "Hi."}, {"role": "assistant", "content": "- a\n- b"}
    before = tokenizer.apply_chat_template([user], add_generation_prompt=True)["input_ids"]
    whole = tokenizer.apply_chat_template([user, answer])["input_ids"]
    assert whole[: len(before)] == before
    assert tokenizer.decode(whole[len(before) :]) == "- a\n- b<eos>"
    longer = tokenizer.apply_chat_template([user, answer, user, answer])["input_ids"]
    assert longer[: len(whole)] == whole
    assert longer.count(tokenizer.bos_token_id) == 1


def test_the_template_is_sealed_already(policy):
    _, tokenizer = policy
    before = chat_template_of(tokenizer)
    assert seal_chat_template(tokenizer).changes == ()
    assert chat_template_of(tokenizer) == before


def test_messages_are_prompts_too(policy):
    model, tokenizer = policy
    messages = tuple({"role": "user", "content": prompt} for prompt in PROMPTS[:1])
    as_text = sample(model, tokenizer, PROMPTS[:1], n=2, seed=0, max_new_tokens=8)
    assert sample(model, tokenizer, [messages], n=2, seed=0, max_new_tokens=8) == as_text


@pytest.mark.slow
def test_a_policy_of_full_size_answers_with_variety(tmp_path):
    """Near the sampler it learned from: mean true utility within 1, and nearly no two answers of a prompt equal."""
    model, tokenizer = load_policy_model(build_policy(tmp_path / "policy"))
    rng = Random(99)
    prompts = [sample_prompt(rng, kind) for kind in SUBSETS for _ in range(25)]
    drawn = sample(model, tokenizer, prompts, n=8, seed=0)
    own = [true_utility(prompt, one.text) for prompt, some in zip(prompts, drawn, strict=True) for one in some]
    sampler = [true_utility(prompt, sample_completion(rng, prompt)) for prompt in prompts for _ in range(8)]
    assert abs(sum(own) - sum(sampler)) / len(own) < 1
    assert sum(len({one.text for one in some}) for some in drawn) > 7 * len(prompts)
    assert sum(one.ended for some in drawn for one in some) > 0.98 * len(own)

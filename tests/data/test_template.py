"""Sealing: whatever the template, one begin token, one end token, and transformers alone renders the same ids."""

from __future__ import annotations

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from rewardlab.data.template import begin_token, render, seal_chat_template, template_hash, tokenize
from rewardlab.errors import CheckpointError

CONVERSATION = [{"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "It is Paris."}]

# The shapes of well-known chat templates, written for the test tokenizer's special tokens.
QWEN = """{%- for message in messages %}
    {%- if message.role == "system" %}
        {{- "<|im|>system " + message.content + "<eos>\n" }}
    {%- else %}
        {{- "<|im|>" + message.role + "\n" + message.content + "<eos>" + "\n" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- "<|im|>assistant\n" }}
{%- endif %}
"""
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}{{ '[' + m['role'] + ']\n\n' + m['content'] | trim + '<eos>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[assistant]\n\n' }}{% endif %}"
)
NO_END = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"


@pytest.mark.parametrize(
    ("template", "changed"), [(QWEN, 2), (LLAMA3, 0), (NO_END, 2), (None, 0)], ids=["qwen", "llama3", "no end", "none"]
)
def test_sealed_text_begins_once_and_ends_with_the_end_token(
    tokenizer: PreTrainedTokenizerFast, template: str | None, changed: int
) -> None:
    tokenizer.chat_template = template
    sealed = seal_chat_template(tokenizer)
    ids = tokenize(tokenizer, render(tokenizer, CONVERSATION))
    assert ids.count(tokenizer.bos_token_id) == 1
    assert ids[0] == tokenizer.bos_token_id
    assert ids[-1] == tokenizer.eos_token_id
    assert sealed.begin_token == "<bos>"
    assert sealed.end_token == "<eos>"
    assert len(sealed.changes) == changed
    assert sealed.origin == ("tokenizer" if template else "plain")


@pytest.mark.parametrize("template", [QWEN, LLAMA3, NO_END, None])
def test_plain_transformers_gives_the_same_ids_after_saving(
    tokenizer: PreTrainedTokenizerFast, template: str | None, tmp_path: object
) -> None:
    """What a stranger's script or a server does with the saved tokenizer."""
    tokenizer.chat_template = template
    seal_chat_template(tokenizer)
    tokenizer.save_pretrained(str(tmp_path))
    again = AutoTokenizer.from_pretrained(str(tmp_path))
    expected = tokenize(tokenizer, render(tokenizer, CONVERSATION))
    assert again.apply_chat_template(CONVERSATION, return_dict=False) == expected
    assert template_hash(again) == template_hash(tokenizer)


@pytest.mark.parametrize("template", [QWEN, LLAMA3, NO_END, None])
def test_sealing_twice_changes_nothing(tokenizer: PreTrainedTokenizerFast, template: str | None) -> None:
    tokenizer.chat_template = template
    seal_chat_template(tokenizer)
    once = tokenizer.chat_template
    assert seal_chat_template(tokenizer).changes == ()
    assert tokenizer.chat_template == once


@pytest.mark.parametrize("template", [QWEN, LLAMA3])
def test_sealing_touches_only_the_ends(tokenizer: PreTrainedTokenizerFast, template: str) -> None:
    """Between the two boundary tokens the text is the template's own; a generation prompt keeps its white space."""
    tokenizer.chat_template = template
    before = render(tokenizer, CONVERSATION)
    opened = tokenizer.apply_chat_template(CONVERSATION[:1], tokenize=False, add_generation_prompt=True)
    seal_chat_template(tokenizer)
    assert render(tokenizer, CONVERSATION).removeprefix("<bos>") == before.removeprefix("<bos>").rstrip()
    after = tokenizer.apply_chat_template(CONVERSATION[:1], tokenize=False, add_generation_prompt=True)
    assert after.removeprefix("<bos>") == opened.removeprefix("<bos>")


def test_a_real_encoder_is_read_between_cls_and_sep(minilm_path: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(minilm_path)
    sealed = seal_chat_template(tokenizer)
    tokens = tokenizer.convert_ids_to_tokens(tokenize(tokenizer, render(tokenizer, CONVERSATION)))
    assert tokens[0] == sealed.begin_token == "[CLS]"
    assert tokens[-1] == sealed.end_token == "[SEP]"
    assert tokens.count("[SEP]") == 1
    assert begin_token(tokenizer) == "[CLS]"


def test_a_tokenizer_without_an_end_token_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.eos_token = None
    with pytest.raises(CheckpointError, match="neither an eos_token nor a sep_token"):
        seal_chat_template(tokenizer)


def test_what_the_template_refuses_is_told_with_its_reason(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(CheckpointError, match=r"roles \['user', 'assistant'\]: roles must alternate"):
        render(tokenizer, CONVERSATION)


@pytest.mark.parametrize(
    "body",
    [
        "{% for i in range(10000000) %}{{ i }}{% endfor %}",  # more than Jinja's sandbox lets one loop have
        "{{ 1 / 0 }}",
        "{% for tool in tools %}{{ tool }}{% endfor %}",
        "{{ messages[0].content.__class__.__mro__ }}",
        "{{ messages[9].content.x }}",
        "{{ messages['a' }}",
        "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
    ],
)
def test_whatever_a_template_does_is_its_error(tokenizer: PreTrainedTokenizerFast, body: str) -> None:
    tokenizer.chat_template = body
    with pytest.raises(CheckpointError, match="the chat template refuses a conversation with roles"):
        seal_chat_template(tokenizer)


@pytest.mark.parametrize(
    ("template", "who"),
    [
        ("{{ messages[0].content }}<eos>", "assistant"),
        ("{{ messages[-1].content }}<eos>", "user"),
        ("{% for m in messages %}{{ m.role }}: {{ m.content[0].text }}<eos>{% endfor %}", "user"),
        ("{% for m in messages %}{{ m.role }}<eos>{% endfor %}", "user"),
    ],
    ids=["no answer", "no question", "content in parts", "nothing"],
)
def test_a_template_that_leaves_out_what_was_said_is_refused(
    tokenizer: PreTrainedTokenizerFast, template: str, who: str
) -> None:
    tokenizer.chat_template = template
    with pytest.raises(CheckpointError, match=f"leaves out what the {who} says"):
        seal_chat_template(tokenizer)


def test_a_tokenizer_that_gives_no_ids_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    from tokenizers import normalizers

    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("a", "")
    assert begin_token(tokenizer) == "<bos>"  # though the text it is tried on has no id of its own
    tokenizer.chat_template = "{% if messages[0].content == 'other words' %}b{% endif %}"
    with pytest.raises(CheckpointError, match="leaves out what"):
        seal_chat_template(tokenizer)

"""A template says the same every day, or is refused."""

from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

from rewardlab.data.fixed_template import asks_clock, without_clock
from rewardlab.data.template import render, seal_chat_template
from rewardlab.errors import CheckpointError

CONVERSATION = [{"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "It is Paris."}]
TURNS = "{% for m in messages %}[{{ m.role }}] {{ m.content }}<eos>{% endfor %}"
LLAMA = (  # the shape of Llama 3.2's
    "{{ bos_token }}{%- if not date_string is defined %}{%- if strftime_now is defined %}"
    '{%- set date_string = strftime_now("%d %b %Y") %}{%- else %}{%- set date_string = "26 Jul 2024" %}{%- endif %}'
    "{%- endif %}Today: {{ date_string }}\n" + TURNS
)


class Tomorrow(chat_template_utils.datetime):  # type: ignore[name-defined, misc]
    """A clock that is years ahead."""

    @classmethod
    def now(cls, tz=None):
        return cls(2031, 1, 2)


def test_a_sealed_template_says_the_same_on_another_day(
    tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer.chat_template = LLAMA
    before = render(tokenizer, CONVERSATION)
    with monkeypatch.context() as later:
        later.setattr(chat_template_utils, "datetime", Tomorrow)
        assert "02 Jan 2031" in render(tokenizer, CONVERSATION) != before  # the clock is really asked
    changes = seal_chat_template(tokenizer).changes
    assert "one fixed day" in changes[0]
    sealed = render(tokenizer, CONVERSATION)
    assert "Today: 26 Jul 2024\n" in sealed
    monkeypatch.setattr(chat_template_utils, "datetime", Tomorrow)
    assert render(tokenizer, CONVERSATION) == sealed
    assert seal_chat_template(tokenizer).changes == ()


def test_only_what_jinja_reads_is_changed() -> None:
    text = "call strftime_now('%Y') | random {{ 'a' }}" + "{{ strftime_now( '%Y' ) }}"
    assert without_clock(text) == "call strftime_now('%Y') | random {{ 'a' }}{{ '2024' }}"
    assert not asks_clock("strftime_now('%Y')")
    assert asks_clock("{% set a = strftime_now(b) %}")
    assert asks_clock("{{ {'a': {'b': 1}}['a']['b'] ~ strftime_now('%Y') }}")  # the first }} ends no tag
    assert asks_clock("{% set m = '%}' ~ strftime_now('%Y') %}")
    assert without_clock('{{ strftime_now("%d %b \'%y") }}') == '{{ "26 Jul \'24" }}'
    assert without_clock(TURNS) == TURNS


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ strftime_now(format) }}" + TURNS, "in a format that it computes"),
        ("{{ ['a', 'b'] | random }}" + TURNS, "something random"),
        ("{{ lipsum() }}" + TURNS, "something random"),
    ],
)
def test_what_cannot_be_fixed_is_refused(tokenizer: PreTrainedTokenizerFast, template: str, said: str) -> None:
    tokenizer.chat_template = template
    with pytest.raises(CheckpointError, match=said):
        seal_chat_template(tokenizer)

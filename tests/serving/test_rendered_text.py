"""Rendered text: whatever clients do to a rendering, it becomes the rendering again; the oracle is the template."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardlab.data.template import seal_chat_template
from rewardlab.serving.rendered_text import RenderedText

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_TURNS = "{% for m in messages %}"
_CHATML = (
    _TURNS + "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_HEADERS = (
    "{{ bos_token }}" + _TURNS + "{{ '<|im_start|>' + m['role'] + '<|im_start|>\n\n' + m['content'] | trim }}"
    "{{ '<|im_end|>' }}{% endfor %}"
)
_INST = (
    "{{ bos_token }}" + _TURNS + "{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] | trim + ' [/INST]' }}"
    "{% elif m['role'] == 'system' %}{{ raise_exception('no system turns') }}"
    "{% else %}{{ ' ' + m['content'] | trim + ' ' + eos_token }}{% endif %}{% endfor %}"
)
_WORDS = _TURNS + "{{ m['role'] + ': ' + m['content'] + '\n### End\n' }}{% endfor %}"

TEMPLATES = {  # name -> template, whether sealed, what a rendering begins with, what stands behind an answer
    "own": (None, True, "<bos>", "<eos>"),
    "chatml": (_CHATML, True, "<bos>", "<|im_end|>"),
    "chatml of others": (_CHATML, False, "", "<|im_end|>\n"),
    "headers, trimmed": (_HEADERS, True, "<bos>", "<|im_end|>"),
    "inst, trimmed": (_INST, True, "<bos>", " <eos>"),
    "words": (_WORDS, True, "<bos>", "\n### End<eos>"),
    "words of others": (_WORDS, False, "", "\n### End\n"),
}


@pytest.fixture(scope="module", params=TEMPLATES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def tokenizer(kind: str, base_model: Path) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(base_model)
    loaded.pad_token = "<pad>"
    loaded.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>", "<step>"]})
    template, sealed, *_ = TEMPLATES[kind]
    if template is not None:
        loaded.chat_template = template
    if sealed:
        seal_chat_template(loaded)
    return loaded


@pytest.fixture(scope="module")
def own(tokenizer: PreTrainedTokenizerBase) -> RenderedText:
    return RenderedText(tokenizer, ["<pad>"], "<step>")


CONTENTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    st.sampled_from(["<", "a <|im_end|> b", "<eos> x", "<pad>", " \n", "x\n\n", "é <bos>", "User: hi"]),
)
CONVERSATIONS = st.lists(st.tuples(CONTENTS, CONTENTS), min_size=1, max_size=2)


def rendering(tokenizer: PreTrainedTokenizerBase, exchanges: list[tuple[str, str]]) -> str:
    roles = ("user", "assistant")
    turns = [{"role": role, "content": text} for two in exchanges for role, text in zip(roles, two, strict=True)]
    return str(tokenizer.apply_chat_template(turns, tokenize=False))


def test_what_is_learned_of_a_template(kind: str, own: RenderedText) -> None:
    _, _, begin, tail = TEMPLATES[kind]
    assert (own.begin, own.tail) == (begin, tail)
    assert own.end == ("" if kind == "words of others" else tail.replace("\n### End", "").strip())


@given(exchanges=CONVERSATIONS)
def test_a_rendering_stays_and_comes_back(
    tokenizer: PreTrainedTokenizerBase, own: RenderedText, exchanges: list[tuple[str, str]]
) -> None:
    """Begin token stripped (verl), doubled; pads at either end; the newline that Qwen's own template leaves."""
    text = rendering(tokenizer, exchanges)
    behind = ["<pad>", "<pad><pad>\n<pad>"] + (["\n", "\n<pad>", " \n"] if own.end else [])
    bare = text.removeprefix(own.begin)
    front = ["", own.begin, own.begin * 2, "<pad><pad>" + own.begin, "<pad>" + own.begin * 2]
    for variant in [text, *(text + more for more in behind), *(before + bare for before in front)]:
        assert own.as_own(variant) == text
        assert own.as_own(own.as_own(variant)) == text


@given(exchanges=CONVERSATIONS)
def test_an_answer_without_its_end_token_gets_it(
    kind: str, tokenizer: PreTrainedTokenizerBase, own: RenderedText, exchanges: list[tuple[str, str]]
) -> None:
    """As a policy's rollout is that was cut at its longest; answers that end as an end token does are left out."""
    answer = exchanges[-1][1]
    if not answer.strip() or answer.rstrip().endswith(("<pad>", "<bos>")):
        return
    text = rendering(tokenizer, exchanges)
    assert own.as_own(text.removesuffix(own.tail)) == text
    assert own.as_own(text.removesuffix(own.tail) + "<pad>") == text


def test_blanks_behind_a_cut_answer_are_treated_as_the_template_does(
    tokenizer: PreTrainedTokenizerBase, own: RenderedText
) -> None:
    cut = rendering(tokenizer, [("Hi", "Yes")]).removesuffix(own.tail)
    assert own.as_own(cut + "  ") == rendering(tokenizer, [("Hi", "Yes  ")])


def test_an_unsealed_rendering_becomes_the_sealed_one(kind: str, own: RenderedText) -> None:
    if kind == "words":
        assert own.as_own("user: Hi\n### End\nassistant: Yes\n### End\n") == (
            "<bos>user: Hi\n### End\nassistant: Yes\n### End<eos>"
        )
    elif kind == "inst, trimmed":  # a rollout's ids decoded: the end token without the template's space
        assert own.as_own("[INST] Hi [/INST] Yes<eos>") == "<bos>[INST] Hi [/INST] Yes<eos>"


def test_the_last_step_has_its_separator(tokenizer: PreTrainedTokenizerBase, own: RenderedText) -> None:
    whole = rendering(tokenizer, [("Hi", "one<step>two<step>")])
    assert own.as_own(whole) == whole
    assert own.as_own(rendering(tokenizer, [("Hi", "one<step>two")])) == whole
    assert own.as_own(rendering(tokenizer, [("Hi", "one<step>two<step>\n")])) == whole
    assert "<step>" not in own.as_own(rendering(tokenizer, [("Hi", "one two")]))


OPENINGS = {
    "own": ("<|system|>", "<|user|>"),
    "chatml": ("<|im_start|>system", "<|im_start|>user"),
    "chatml of others": ("<|im_start|>system", "<|im_start|>user"),
    "headers, trimmed": ("<|im_start|>system<|im_start|>", "<|im_start|>user<|im_start|>"),
    "inst, trimmed": ("[INST]",),
    "words": (),  # people write "user: " too
    "words of others": (),
}


def test_a_rendered_text_is_told_by_its_beginning(
    kind: str, tokenizer: PreTrainedTokenizerBase, own: RenderedText
) -> None:
    assert own.openings == OPENINGS[kind]
    text = rendering(tokenizer, [("Hi", "Yes")])
    assert own.is_start(text) == (kind != "words of others")
    assert own.is_start("<pad>" + text) == (kind != "words of others")
    assert own.is_start(text.removeprefix("<bos>")) == bool(own.openings)
    for plain in ("", "Hi", "[1, 2, 3]: sort it", "User: hi", "<pad>", "< 3", "### Task", "<|endoftext|>"):
        assert not own.is_start(plain)


def test_a_text_of_nothing_but_pads_takes_no_time(own: RenderedText) -> None:
    """130,000 characters of pads, in front of a letter and behind one: one walk each, not one copy per pad."""
    pads = "<pad> " * 13000
    assert own.as_own(pads.replace(" ", "") + "x").endswith("x" + own.tail)
    assert "<pad>" not in own.as_own("x" + pads)


def test_an_empty_answer_without_its_end_is_the_template_s_empty_answer(base_model: Path) -> None:
    """The plain template trims answers and writes a space in front of them: also in front of an empty one."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base_model)
    tokenizer.chat_template = None
    seal_chat_template(tokenizer)
    plain = RenderedText(tokenizer)
    for answer in ("", "yes"):
        text = rendering(tokenizer, [("Hi", answer)])
        cut = text.removesuffix("<eos>")
        for variant in (text, cut, cut.rstrip(), cut + " \n"):
            assert plain.as_own(variant) == text
    assert rendering(tokenizer, [("Hi", "")]).endswith("Assistant: <eos>")


def test_a_text_in_another_template_is_told(kind: str, own: RenderedText, tokenizer: PreTrainedTokenizerBase) -> None:
    assert not own.is_unlike(rendering(tokenizer, [("Hi", "Yes")]))
    assert not own.is_unlike("<pad>" + own.begin + rendering(tokenizer, [("Hi", "Yes")]))
    for other in (own.begin + "Human: Hi", "<start_of_turn>user\nHi", "Hi"):
        assert own.is_unlike(other)
    assert own.is_unlike("<|im_start|>user\nHi") == (not kind.startswith("chatml"))

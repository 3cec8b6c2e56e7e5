"""Items become the ids that Scorer.score would read; the oracles are its encoder and the tokenizer's own template."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardlab.data.encoding import EncodedGroup
from rewardlab.data.formats import scored_text
from rewardlab.errors import DataError
from rewardlab.scoring.ensemble import EnsembleScorer
from rewardlab.scoring.ensemble_encoding import EncodedForMembers
from rewardlab.scoring.scorer import Scorer
from rewardlab.serving.encoding import ItemEncoder, refusal_of
from rewardlab.serving.items import Continued, Conversation, Ids, Item, ItemRefusal, Rendered
from rewardlab.types import PromptGroup, ReadOut, Step, conversation

SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "Hi"}
ANSWER = {"role": "assistant", "content": "there"}

CONTENTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
PROMPTS = st.one_of(
    CONTENTS,
    st.lists(CONTENTS, min_size=1, max_size=2).map(
        lambda texts: tuple({"role": "user", "content": text or "x"} for text in texts)
    ),
    CONTENTS.map(lambda text: (SYSTEM, {"role": "user", "content": text or "x"})),
)


@pytest.fixture(scope="module")
def encoder(scorer: Scorer) -> ItemEncoder:
    return ItemEncoder(scorer)


@pytest.fixture(scope="module")
def process_encoder(process_scorer: Scorer) -> ItemEncoder:
    return ItemEncoder(process_scorer)


def rendering(scorer: Scorer, prompt: Any, completion: Any) -> str:
    prompt, completion = scored_text(prompt, completion)
    messages = list(conversation(prompt, completion))
    return str(scorer.encoder.tokenizer.apply_chat_template(messages, tokenize=False))


def ids_of(encoder: ItemEncoder, item: Item) -> tuple[int, ...]:
    (one,) = encoder.encode([item])
    assert isinstance(one, EncodedGroup), one
    return one.sequences[0]


def refusal(encoder: ItemEncoder, item: Item) -> ItemRefusal:
    (error,) = encoder.encode([item])
    assert isinstance(error, DataError), error
    return refusal_of(error)


@given(prompt=PROMPTS, completion=CONTENTS)
def test_every_kind_of_item_gives_the_encoder_s_ids(
    scorer: Scorer, encoder: ItemEncoder, prompt: Any, completion: str
) -> None:
    """A conversation; its rendering, whole, without the begin token (verl), with two, padded; and its ids."""
    text = rendering(scorer, prompt, completion)
    (expected,) = scorer.encoder.encode(PromptGroup(*_one(prompt, completion))).sequences
    bare, pad = text.removeprefix("<bos>"), scorer.encoder.tokenizer.pad_token
    items: list[Item] = [
        Conversation(prompt, completion),
        Rendered(text),
        Rendered(bare),
        Rendered("<bos>" + text),
        Rendered(f"{pad}{pad}{text}\n{pad}"),
        Rendered(bare.removesuffix("<eos>")),
        Ids(expected),
    ]
    assert [one.sequences[0] for one in encoder.encode(items) if isinstance(one, EncodedGroup)] == [expected] * 7


def _one(prompt: Any, completion: Any) -> tuple[Any, tuple[Any, ...]]:
    prompt, completion = scored_text(prompt, completion)
    return prompt, (completion,)


def test_transcripts_are_read_as_turns(encoder: ItemEncoder) -> None:
    turns = ({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"})
    transcript = "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:"
    assert ids_of(encoder, Conversation(transcript, " d")) == ids_of(encoder, Conversation(turns, "d"))


def test_what_is_cut_is_said_of_each_item(scorer: Scorer, encoder: ItemEncoder) -> None:
    turns = tuple(message for _ in range(9) for message in ({**USER, "content": "the sea and the wind"}, ANSWER))
    long = (*turns, USER)
    cut, whole = encoder.encode([Conversation(long, "yes"), Conversation("Hi", "yes")])
    assert isinstance(cut, EncodedGroup)
    assert isinstance(whole, EncodedGroup)
    assert (cut.truncated, whole.truncated) == (1, 0)
    assert cut.sequences == scorer.encoder.encode(PromptGroup(long, ("yes",))).sequences


# -- rendered text ----------------------------------------------------------------------------------------------------


def test_rendered_text_over_the_length_is_cut_only_where_it_may_be(scorer: Scorer, encoder: ItemEncoder) -> None:
    text = rendering(scorer, "the sea " * 60, "yes")
    whole = tuple(scorer.encoder.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    refused = refusal(encoder, Rendered(text))
    assert refused.kind == "too_long"
    assert f"{len(whole)} tokens" in refused.message
    assert "messages" in refused.hint
    assert "keep prompt and answer together within 128 tokens" in refused.hint
    for cut_to, kept in ((128, 128), (500, 128), (20, 20), (2, 2)):
        (one,) = encoder.encode([Rendered(text, cut_to=cut_to)])
        assert isinstance(one, EncodedGroup)
        assert one.sequences == ((whole[0], *whole[len(whole) - kept + 1 :]),)
        assert one.truncated == 1
    (short,) = encoder.encode([Rendered(rendering(scorer, "Hi", "yes"), cut_to=128)])
    assert isinstance(short, EncodedGroup)
    assert short.truncated == 0
    assert refusal(encoder, Rendered(text, cut_to=0)).kind == "invalid"


@pytest.mark.parametrize("text", ["", " \n", "PAD", "<bos>", "<bos><eos>", "PAD<bos> <eos>\nPAD"])
def test_an_empty_text_is_refused(scorer: Scorer, encoder: ItemEncoder, text: str) -> None:
    padded = text.replace("PAD", str(scorer.encoder.tokenizer.pad_token))
    assert refusal(encoder, Rendered(padded)) == ItemRefusal(
        "invalid", "the text is empty", "send the whole conversation as the chat template renders it"
    )


@pytest.mark.parametrize(
    "item",
    [Conversation("Hi", "a \ud800 b"), Conversation("\udc00", "b"), Continued("\ud800", "")],
)
def test_half_a_utf_16_pair_is_refused(encoder: ItemEncoder, item: Item) -> None:
    refused = refusal(encoder, item)
    assert refused.kind == "invalid"
    assert refused.message.startswith("lone surrogate in the ")


def test_a_prompt_that_is_rendered_is_continued_as_it_stands(scorer: Scorer, encoder: ItemEncoder) -> None:
    expected = ids_of(encoder, Conversation((SYSTEM, USER), "there"))
    asked = scorer.encoder.tokenizer.apply_chat_template([SYSTEM, USER], tokenize=False, add_generation_prompt=True)
    for prompt in (asked, asked.removeprefix("<bos>"), str(scorer.encoder.tokenizer.pad_token) + asked):
        assert ids_of(encoder, Continued(prompt, "there")) == expected
        assert ids_of(encoder, Continued(prompt, "there<eos>\n")) == expected
    assert ids_of(encoder, Continued("Hi", "there")) == ids_of(encoder, Conversation("Hi", "there"))
    assert ids_of(encoder, Continued("< 3", "there")) == ids_of(encoder, Conversation("< 3", "there"))
    assert encoder.settled(Continued("Hi", "x")) == Conversation("Hi", "x")


@pytest.mark.parametrize("prompt", ["Hi", (USER,), (SYSTEM, USER)])
def test_a_response_s_own_end_token_is_not_written_twice(scorer: Scorer, encoder: ItemEncoder, prompt: Any) -> None:
    """As a policy generated it: the template writes the end token itself. What stands within is the response's own."""
    expected = ids_of(encoder, Conversation(prompt, "there"))
    assert expected.count(scorer.encoder.tokenizer.eos_token_id) == rendering(scorer, prompt, "there").count("<eos>")
    for response in ("there", "there<eos>", "there<eos>\n", f"there<eos>{scorer.encoder.tokenizer.pad_token}"):
        assert ids_of(encoder, Continued(prompt, response)) == expected
    assert encoder.settled(Continued(prompt, "a <eos> b ")) == Conversation(prompt, "a <eos> b ")


# -- ids --------------------------------------------------------------------------------------------------------------


def test_ids_are_taken_as_they_are(scorer: Scorer, encoder: ItemEncoder) -> None:
    assert encoder.vocabulary_size == scorer.loaded.model.config.vocab_size
    for ids in ((0,), (5, 5, 5), tuple(range(128)), (encoder.vocabulary_size - 1,)):
        assert ids_of(encoder, Ids(ids)) == ids


@pytest.mark.parametrize(
    ("ids", "kind", "said"),
    [
        ((), "invalid", "no ids"),
        ((1, -1), "invalid", "-1 is no id"),
        ((1, 321), "invalid", "321 is no id"),
        ((10**40,), "invalid", "10000000000000000000 is no id"),
        ((0.0,), "invalid", "0.0 is no id"),
        ((True,), "invalid", "True is no id"),
        (("1",), "invalid", "1 is no id"),
        ((1,) * 129, "too_long", "129 ids"),
    ],
)
def test_ids_that_no_sequence_has_are_refused(encoder: ItemEncoder, ids: Any, kind: str, said: str) -> None:
    refused = refusal(encoder, Ids(ids))
    assert refused.kind == kind
    assert said in refused.message


# -- what is wrong with one item --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("item", "kind", "said"),
    [
        (Conversation("Hi", "the sea " * 99), "too_long", "the completion needs "),
        (Conversation((SYSTEM, USER), "the sea " * 99), "too_long", "the completion and the system turn need "),
        (Conversation("Hi", ({"role": "assistant"},)), "invalid", "content of completion[0] is missing"),
        (Conversation(({"role": "user", "content": " "},), "x"), "invalid", "prompt is empty"),
        (Conversation("Hi", "a b", steps=("a", "b")), "invalid", "this is no process model"),
    ],
)
def test_refusals_are_worded_for_the_item(encoder: ItemEncoder, item: Item, kind: str, said: str) -> None:
    refused = refusal(encoder, item)
    assert refused.kind == kind
    assert said in refused.message
    assert "item" not in refused.message
    assert len(refused.message) < 310


def test_the_hint_names_the_server_s_option(encoder: ItemEncoder) -> None:
    hint = refusal(encoder, Conversation("Hi", "the sea " * 99)).hint
    assert hint == "raise --max-length of the server if the model allows it, or shorten what cannot be cut"


def test_rendered_text_that_cannot_fit_is_refused_untokenised(
    scorer: Scorer, encoder: ItemEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The longest token has 8 bytes, so that 80,000 bytes are at least 10,000 tokens; beside it the others stay."""
    short = Rendered(rendering(scorer, "Hi", "yes"))
    expected = ids_of(encoder, short)
    read: list[str] = []
    call = type(scorer.encoder.tokenizer).__call__

    def counted(self: Any, texts: Any, **options: Any) -> Any:
        read.extend([texts] if isinstance(texts, str) else texts)
        return call(self, texts, **options)

    monkeypatch.setattr(type(scorer.encoder.tokenizer), "__call__", counted)
    found = encoder.encode([Rendered("a sea to " * 10_000), short])
    assert isinstance(found[0], DataError)
    assert re.search(r"the rendered text has at least \d{5} tokens, and at most 128 are read", found[0].message)
    assert isinstance(found[1], EncodedGroup)
    assert found[1].sequences == (expected,)
    assert max(map(len, read)) < 100


def test_one_bad_item_touches_no_other(encoder: ItemEncoder) -> None:
    good: list[Item] = [Conversation("Hi", "a"), Rendered("<|user|>\nHi<eos>\n"), Ids((1, 2)), Continued("Hi", "a")]
    bad: list[Item] = [Conversation("Hi", "\ud800"), Rendered(""), Ids(()), Continued("\ud800", "a")]
    mixed = [item for pair in zip(good, bad, strict=True) for item in pair]
    found = encoder.encode(mixed)
    assert found[::2] == encoder.encode(good)
    assert all(isinstance(one, DataError) for one in found[1::2])
    assert encoder.encode([]) == []


def test_what_a_template_s_code_raises_is_the_item_s(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = ItemEncoder(scorer)
    encode_many = scorer.encoder.encode_many

    def fragile(groups: list[PromptGroup], *rest: Any) -> Any:
        if any("boom" in str(group.prompt) for group in groups):
            raise AttributeError("'str object' has no attribute of this secret text")
        return encode_many(groups, *rest)

    monkeypatch.setattr(scorer.encoder, "encode_many", fragile)
    results = encoder.encode([Conversation("Hi", "a"), Conversation("boom", "a"), Conversation("Hi", "b")])
    assert [isinstance(one, EncodedGroup) for one in results] == [True, False, True]
    assert refusal(encoder, Conversation("boom", "a")).message == ("it cannot be turned into tokens (AttributeError)")


def test_long_messages_are_cut() -> None:
    roles = [str(number) for number in range(500)]
    assert (
        len(refusal_of(DataError(f"item: the chat template refuses a conversation with roles {roles}")).message) < 310
    )


# -- process models ---------------------------------------------------------------------------------------------------


def test_steps_are_read_at_every_separator(process_scorer: Scorer, process_encoder: ItemEncoder) -> None:
    separator = process_scorer.read_out.separator
    expected = process_scorer.encoder.encode(
        PromptGroup("1 + 1?", ("",), steps=((Step("one"), Step("and one is two")),))
    )
    text = rendering(process_scorer, "1 + 1?", f"one{separator}and one is two{separator}")
    items: list[Item] = [
        Conversation("1 + 1?", "", steps=("one", "and one is two")),
        Rendered(text),
        Rendered(text.removesuffix("<eos>").removesuffix(str(separator))),
        Ids(expected.sequences[0]),
    ]
    for one in process_encoder.encode(items):
        assert isinstance(one, EncodedGroup)
        assert one.sequences == expected.sequences
        assert one.readouts == expected.readouts
        assert len(one.readouts[0]) == 2


def test_without_a_separator_there_is_nothing_to_read(process_scorer: Scorer, process_encoder: ItemEncoder) -> None:
    text = rendering(process_scorer, "1 + 1?", "two")
    for item in (Rendered(text), Ids((3, 4, 5))):
        refused = refusal(process_encoder, item)
        assert refused.kind == "step_boundary"
        assert str(process_scorer.read_out.separator) in refused.message
    refused = refusal(process_encoder, Conversation("1 + 1?", "", steps=(f"a{process_scorer.read_out.separator}",)))
    assert refused.message.startswith("a step of the completion contains the step separator")


def test_steps_are_not_cut_away(process_scorer: Scorer, process_encoder: ItemEncoder) -> None:
    separator = process_scorer.read_out.separator
    text = rendering(process_scorer, "the sea " * 200, f"one{separator}two{separator}")
    (cut,) = process_encoder.encode([Rendered(text, cut_to=40)])
    assert isinstance(cut, EncodedGroup)
    assert len(cut.readouts[0]) == 2
    refused = refusal(process_encoder, Rendered(text, cut_to=4))
    assert (refused.kind, refused.message[-10:]) == ("too_long", "lose steps")


# -- scorers of several models ----------------------------------------------------------------------------------------


def test_members_of_one_encoder_read_rendered_text(scorer: Scorer) -> None:
    ensemble = EnsembleScorer([scorer, scorer], on="raw")
    encoder = ItemEncoder(ensemble)
    assert encoder.reads_rendered == ""
    (one,) = encoder.encode([Rendered(rendering(scorer, "Hi", "there"))])
    (same,) = encoder.encode([Conversation("Hi", "there")])
    assert isinstance(one, EncodedForMembers)
    assert isinstance(same, EncodedForMembers)
    assert one.sequences == same.sequences
    assert [group.sequences for group in one.by_encoder] == [group.sequences for group in same.by_encoder]


def test_members_of_other_ids_do_not(scorer: Scorer, reward_model: Path) -> None:
    other = Scorer.from_pretrained(reward_model, max_length=64)
    encoder = ItemEncoder(EnsembleScorer([scorer, other], on="raw"))
    assert encoder.reads_rendered == "its members read different ids, and a rendered text is one member's own"
    for item in (Rendered("x"), Ids((1,)), Continued("<bos>x", "y")):
        refused = refusal(encoder, item)
        assert refused.kind == "invalid"
        assert encoder.reads_rendered in refused.message
    assert isinstance(encoder.encode([Continued("Hi", "plain")])[0], EncodedForMembers)


def test_a_model_read_at_every_token_does_not(scorer: Scorer) -> None:
    """As outcome models and implicit rewards are."""
    outcome = SimpleNamespace(encoder=scorer.loaded.encoder(), checkpoints=(scorer.loaded,))
    outcome.encoder.read_out = ReadOut("token", "mean")
    encoder = ItemEncoder(outcome)  # type: ignore[arg-type]
    assert encoder.reads_rendered.startswith("it reads every token of the completion")
    assert refusal(encoder, Rendered("x")).kind == "invalid"
    (one,) = encoder.encode([Conversation("Hi", "there")])
    assert isinstance(one, EncodedGroup)
    assert one.readouts

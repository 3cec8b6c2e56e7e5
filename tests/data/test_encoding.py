"""Groups to ids: the seam between prompt and completion, and what truncation keeps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from rewardlab.data.encoding import Encoder, common_prefix_length
from rewardlab.data.template import seal_chat_template
from rewardlab.errors import (
    CheckpointError,
    CompletionOfSeveralTurnsError,
    CompletionTooLongError,
    DataError,
    StepBoundaryError,
)
from rewardlab.types import PromptGroup, ReadOut

LONG = PromptGroup(
    [
        {"role": "system", "content": "SYSTEM"},
        *({"role": role, "content": f"{role} {i} says this"} for i in range(3) for role in ("user", "assistant")),
        {"role": "user", "content": "one two three four five six seven eight nine ten"},
    ],
    ["a short answer", "another answer that is longer"],
)


@pytest.fixture
def encode(chat_tokenizer: PreTrainedTokenizerFast):
    seal_chat_template(chat_tokenizer)

    def run(group: PromptGroup, max_length: int = 512):
        return Encoder(chat_tokenizer, max_length).encode(group)

    run.tokenizer = chat_tokenizer
    return run


def test_each_sequence_is_the_tokenised_whole_conversation(encode) -> None:
    group = PromptGroup("What is the capital", [" of France?", "of France is Paris"])
    encoded = encode(group)
    for completion, ids in zip(group.completions, encoded.sequences, strict=True):
        whole = [{"role": "user", "content": group.prompt}, {"role": "assistant", "content": completion}]
        assert list(ids) == encode.tokenizer.apply_chat_template(whole, return_dict=False)


def test_text_and_equal_messages_give_the_same_ids(encode) -> None:
    text = encode(PromptGroup("Hello", ["there"]))
    messages = encode(
        PromptGroup([{"role": "user", "content": "Hello"}], [[{"role": "assistant", "content": "there"}]])
    )
    assert text.sequences == messages.sequences


def test_prefix_is_shared_and_leaves_each_completion_an_id(encode) -> None:
    encoded = encode(PromptGroup("Hello", ["the same", "the same"]))
    assert encoded.prefix_length == min(encoded.lengths) - 1
    encoded = encode(LONG)
    first, second = encoded.sequences
    n = encoded.prefix_length
    assert first[:n] == second[:n]
    assert first[n] != second[n]


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=5))
def test_common_prefix_by_brute_force(sequences: list[list[int]]) -> None:
    longest = 0
    while longest < min(map(len, sequences)) - 1 and len({tuple(s[: longest + 1]) for s in sequences}) == 1:
        longest += 1
    assert common_prefix_length(sequences) == longest


@pytest.mark.parametrize("cut", range(1, 90, 7))
def test_truncation_keeps_bos_system_turn_and_completion(encode, cut: int) -> None:
    whole = encode(LONG)
    limit = max(whole.lengths) - cut
    encoded = encode(LONG, limit)
    for ids, full, completion in zip(encoded.sequences, whole.sequences, LONG.completions, strict=True):
        text = encode.tokenizer.decode(ids)
        assert len(ids) <= limit
        assert text.startswith("<bos><|system|>\nSYSTEM<eos>\n<|user|>\n")
        assert text.endswith(f"<|assistant|>\n{completion}<eos>")
        assert (ids == full) == (len(full) <= limit)
    assert encoded.truncated == sum(length > limit for length in whole.lengths)


def test_oldest_whole_turns_go_first(encode) -> None:
    """One token too many costs the oldest exchange, and nothing else."""
    single = PromptGroup(LONG.prompt, LONG.completions[:1])
    text = encode.tokenizer.decode(encode(single, encode(single).lengths[0] - 1).sequences[0])
    assert "user 0 says" not in text
    assert "assistant 0 says" not in text
    assert "user 1 says" in text


def test_a_conversation_of_thousands_of_turns_is_rendered_a_few_times(encode, monkeypatch) -> None:
    """Twelve halvings of 3,000 turns, and once for the whole: dropping them one by one took minutes."""
    turns = [{"role": ("user", "assistant")[i % 2], "content": f"{i}"} for i in range(3001)]
    render, calls = encode.tokenizer.apply_chat_template, []

    def counted(messages, **options):
        calls.append(len(messages))
        return render(messages, **options)

    monkeypatch.setattr(encode.tokenizer, "apply_chat_template", counted)
    ids = encode(PromptGroup(turns, ["yes"]), 100).sequences[0]
    assert len(calls) <= 14
    kept = encode.tokenizer.decode(ids).count("<|user|>")
    one_more = PromptGroup(turns[-(2 * kept + 1) :], ["yes"])
    assert len(ids) <= 100 < len(encode(one_more).sequences[0])


def test_then_the_oldest_tokens_of_the_last_turn(encode) -> None:
    last = PromptGroup([LONG.prompt[0], LONG.prompt[-1]], LONG.completions[:1])
    limit = encode(last).lengths[0] - 4
    encoded = encode(LONG, limit)
    text = encode.tokenizer.decode(encoded.sequences[0])
    assert encoded.lengths[0] == limit  # no more is cut than must be
    assert "eight nine ten" in text
    assert "one two" not in text


def test_truncation_of_one_sequence_does_not_depend_on_its_group(encode) -> None:
    limit = max(encode(LONG).lengths) - 10
    together = encode(LONG, limit).sequences
    alone = tuple(encode(PromptGroup(LONG.prompt, (c,)), limit).sequences[0] for c in LONG.completions)
    assert together == alone


def test_a_completion_longer_than_the_limit_is_an_error_that_names_it(encode) -> None:
    group = PromptGroup("Hi", ["fine", "word " * 50], source="pairs.jsonl:17")
    with pytest.raises(CompletionTooLongError, match=r"pairs\.jsonl:17: completion 1 needs \d+ tokens.*length is 40"):
        encode(group, 40)


def test_many_groups_keep_their_order_and_their_errors(encode) -> None:
    groups = [PromptGroup(f"prompt {i}", [f"answer {i}" * (1 + 40 * (i % 3 == 2))], id=i) for i in range(600)]
    seen: list[int] = []
    results = Encoder(encode.tokenizer, 60).encode_many(groups, on_progress=seen.append)
    assert sum(seen) == len(groups)
    for i, result in enumerate(results):
        assert isinstance(result, DataError) == (i % 3 == 2)
        if not isinstance(result, DataError):
            assert result.group.id == i


def test_a_conversation_the_template_refuses_names_the_row(encode) -> None:
    encode.tokenizer.chat_template = "{{ raise_exception('no system role') }}"
    with pytest.raises(DataError, match=r"data\.jsonl:3: .*no system role"):
        encode(PromptGroup("Hi", ["there"], source="data.jsonl:3"))


def test_max_length_must_be_positive(encode) -> None:
    with pytest.raises(ValueError, match="max_length"):
        Encoder(encode.tokenizer, 0)


def test_what_is_read_of_a_truncated_sequence_moves_with_it(tokenizer: PreTrainedTokenizerFast) -> None:
    """However much of the prompt is cut, the same completion tokens are read."""
    seal_chat_template(tokenizer)
    group = PromptGroup("word " * 40, ["An answer.", "4"])
    read = []
    for limit in (400, 60, 25):
        encoded = Encoder(tokenizer, limit, ReadOut("token", "mean")).encode(group)
        read.append([[ids[i] for i in at] for ids, at in zip(encoded.sequences, encoded.readouts, strict=True)])
        assert encoded.truncated == (0 if limit == 400 else 2)
    assert read[0] == read[1] == read[2]
    assert [tokenizer.decode(ids).strip() for ids in read[0]] == ["An answer.<eos>", "4<eos>"]


@pytest.mark.parametrize("kind", ["tokenizer", "chat_tokenizer"])
def test_the_end_token_is_always_read(kind: str, request: pytest.FixtureRequest) -> None:
    """Also of an empty completion, whatever the template writes in front of it."""
    tokenizer = request.getfixturevalue(kind)
    seal_chat_template(tokenizer)
    group = PromptGroup("Hi", [""])
    assert Encoder(tokenizer, 64).encode(group).readouts == ()  # a sequence is read at its last token
    encoded = Encoder(tokenizer, 64, ReadOut("token", "mean")).encode(group)
    assert encoded.readouts == ((len(encoded.sequences[0]) - 1,),)


@pytest.mark.parametrize("refuses", ["not messages[-1].content", "add_generation_prompt"])
def test_a_template_may_refuse_an_empty_answer_or_one_to_come(tokenizer: PreTrainedTokenizerFast, refuses: str) -> None:
    """Where the completion begins is then told by the other way alone."""
    seal_chat_template(tokenizer)
    tokenizer.chat_template = (
        f"{{% if {refuses} %}}{{{{ raise_exception('no') }}}}{{% endif %}}{tokenizer.chat_template}"
    )
    group = PromptGroup("Hi", ["4"])
    encoded = Encoder(tokenizer, 64, ReadOut("token", "mean")).encode(group)
    read = [encoded.sequences[0][at] for at in encoded.readouts[0]]
    assert tokenizer.decode(read).strip() == "4<eos>"


def test_text_is_split_into_steps_where_the_read_out_says(tokenizer: PreTrainedTokenizerFast) -> None:
    """A separator in the text decides; else it is split, blank lines aside; else it is one step."""
    seal_chat_template(tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|step|>"]})
    group = PromptGroup("Hi", ["a\n\nb\n", "a\nb<|step|>c<|step|>", ({"role": "assistant", "content": "x\ny"},)])
    for split_at, expected in (("\n", (2, 2, 2)), (None, (1, 2, 1))):
        encoder = Encoder(tokenizer, 64, ReadOut("step", "min", 2, "<|step|>", split_at))
        encoded = encoder.encode(group)
        assert tuple(map(len, encoded.readouts)) == expected
        assert encoded.group == group
        for ids, at in zip(encoded.sequences, encoded.readouts, strict=True):
            assert [tokenizer.decode([ids[i]]) for i in at] == ["<|step|>"] * len(at)


@pytest.mark.parametrize("said", [{"content": None}, {}])
def test_a_turn_without_words_is_one_empty_step(tokenizer: PreTrainedTokenizerFast, said: dict[str, None]) -> None:
    """As of a message that only calls a tool; its words are not "None"."""
    seal_chat_template(tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|step|>"]})
    encoder = Encoder(tokenizer, 64, ReadOut("step", "min", 2, "<|step|>"))
    silent = PromptGroup("Hi", [({"role": "assistant", **said},)])
    assert encoder.encode(silent).sequences == encoder.encode(PromptGroup("Hi", [""])).sequences


def test_a_separator_that_is_no_token_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    seal_chat_template(tokenizer)
    with pytest.raises(CheckpointError, match="is no special token"):
        Encoder(tokenizer, 64, ReadOut("step", "min", 2, "<|step|>"))


def test_a_template_that_swallows_separators_is_found_out(tokenizer: PreTrainedTokenizerFast) -> None:
    seal_chat_template(tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|step|>"]})
    tokenizer.chat_template = str(tokenizer.chat_template).replace("| trim", "| replace('<|step|>', '')")
    encoder = Encoder(tokenizer, 64, ReadOut("step", "min", 2, "<|step|>"))
    with pytest.raises(StepBoundaryError, match="has 2 steps, and its ids 0 boundaries"):
        encoder.encode(PromptGroup("Hi", ["a<|step|>b"]))


def test_a_completion_of_several_turns_is_refused_where_each_of_its_tokens_is_read(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    """The user's words in it are not the model's; at its last token, or at steps' ends, it can be read."""
    seal_chat_template(tokenizer)
    turns = [{"role": r, "content": c} for r, c in (("assistant", "let"), ("user", "go on"), ("assistant", "4"))]
    group = PromptGroup("Hi", ["x", turns])
    with pytest.raises(CompletionOfSeveralTurnsError, match="completion 1 has several turns"):
        Encoder(tokenizer, 64, ReadOut("token", "mean")).encode(group)
    assert Encoder(tokenizer, 64).encode(group).sequences


def _turns(number: int, text: str) -> tuple[dict[str, str], ...]:
    return tuple({"role": ("user", "assistant")[i % 2], "content": f"{i} {text}"} for i in range(number))


@pytest.mark.parametrize(
    "prompt", ["word " * 900, _turns(1, "é" * 2000), _turns(201, "the sea "), (LONG.prompt[0], *_turns(31, "x" * 70))]
)
@pytest.mark.parametrize("completion", ["yes", "the sea and the wind " * 5, "x" * 300, "\U0001f468" * 400, "é " * 70])
@pytest.mark.parametrize("limit", [20, 100])
def test_bounds_change_nothing_but_the_time(encode, monkeypatch, prompt, completion: str, limit: int) -> None:
    """The oracle is the same encoder without them; of a completion that does not fit, the message says less."""
    group = PromptGroup(prompt, [completion])
    encoder = Encoder(encode.tokenizer, limit)
    (found,) = encoder.encode_many([group])
    monkeypatch.setattr(encoder._bounds, "at_least", lambda text: 0)
    (expected,) = encoder.encode_many([group])
    if isinstance(expected, DataError):
        assert type(found) is type(expected)
        assert "needs" in found.message or "need" in found.message
    else:
        assert found == expected


@pytest.mark.parametrize("prompt", ["Hi", "", _turns(401, "the sea ")])
def test_a_completion_that_cannot_fit_is_refused_untokenised(encode, monkeypatch, prompt) -> None:
    """The longest token has 8 bytes: 80,000 bytes are at least 10,000 tokens."""
    read: list[str] = []
    call = type(encode.tokenizer).__call__

    def counted(self, texts, **options):
        read.extend([texts] if isinstance(texts, str) else texts)
        return call(self, texts, **options)

    monkeypatch.setattr(type(encode.tokenizer), "__call__", counted)
    with pytest.raises(CompletionTooLongError, match=r"completion 0 needs at least \d{5} tokens"):
        encode(PromptGroup(prompt, ["the sea " * 10_000]), 128)
    assert [text for text in read if len(text) > 2000] == []


def test_of_a_long_conversation_only_what_may_be_kept_is_tokenised(encode, monkeypatch) -> None:
    group = PromptGroup(_turns(3001, "the sea "), ["yes"])
    expected = encode(PromptGroup(group.prompt[-201:], ["yes"]), 128).sequences
    read: list[str] = []
    call = type(encode.tokenizer).__call__

    def counted(self, texts, **options):
        read.extend([texts] if isinstance(texts, str) else texts)
        return call(self, texts, **options)

    monkeypatch.setattr(type(encode.tokenizer), "__call__", counted)
    assert encode(group, 128).sequences == expected
    assert sum(map(len, read)) < 8 * 128 * 4

"""Comparisons are known again by their texts, whatever their form; other texts never pass for them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rewardlab.monitoring.keys import pair_key, prompt_digest, unlabelled_key
from rewardlab.monitoring.snapshots import PairScore
from rewardlab.types import Pair, PromptGroup

WORDS = st.text("ab\n 1", max_size=4)


def test_a_label_turned_round_is_another_labelled_comparison_and_the_same_unlabelled_one() -> None:
    group = PromptGroup("p", ("x", "y"))
    assert pair_key(group, Pair(0, 1)) != pair_key(group, Pair(1, 0))
    assert unlabelled_key(group, 0, 1) == unlabelled_key(group, 1, 0)
    for pair in (Pair(0, 1), Pair(1, 0)):
        assert PairScore(pair_key(group, pair), "p", 1.0, 0.0).comparison == unlabelled_key(group, 0, 1)


def test_text_and_the_message_that_it_renders_as_are_the_same() -> None:
    text = PromptGroup("p", ("x", "y"))
    messages = PromptGroup([{"role": "user", "content": "p"}], ([{"role": "assistant", "content": "x"}], "y"))
    assert pair_key(text, Pair()) == pair_key(messages, Pair())
    assert prompt_digest(text) == prompt_digest(messages)


def test_subset_id_and_weight_are_no_part_of_it() -> None:
    plain = PromptGroup("p", ("x", "y"), pairs=(Pair(),))
    dressed = PromptGroup("p", ("x", "y"), pairs=(Pair(weight=2.0),), id=7, subset="s", source="f:1")
    assert pair_key(plain, plain.pairs[0]) == pair_key(dressed, dressed.pairs[0])


@given(st.tuples(WORDS, WORDS, WORDS), st.tuples(WORDS, WORDS, WORDS))
def test_keys_are_equal_only_for_equal_texts(one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
    keys = [pair_key(PromptGroup(prompt, (first, second)), Pair()) for prompt, first, second in (one, other)]
    assert (keys[0] == keys[1]) == (one == other)
    assert len(keys[0]) == 33


def test_half_a_surrogate_pair_has_a_key_too() -> None:
    assert len(prompt_digest(PromptGroup("\ud800", ("x",)))) == 32

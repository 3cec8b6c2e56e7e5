"""The records: one form for a conversation however it was written, and groups that cannot be inconsistent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardlab.types import Pair, PromptGroup, as_text, conversation, text_key, text_of

USER = {"role": "user", "content": "Hi"}
ASSISTANT = {"role": "assistant", "content": "Hello"}


def test_text_and_the_equal_messages_are_one_conversation():
    """Else the same row would get two scores, depending on the file it came from."""
    whole = (USER, ASSISTANT)
    assert conversation("Hi", "Hello") == whole
    assert conversation((USER,), "Hello") == whole
    assert conversation("Hi", (ASSISTANT,)) == whole


def test_a_row_without_prompt_has_no_user_turn():
    assert conversation("", "Hello") == (ASSISTANT,)


@given(text=st.text())
def test_the_key_of_a_text_is_the_key_of_its_message(text):
    assert text_key(text, role="user") == text_key(({"content": text, "role": "user"},), role="user")
    assert text_key(text, role="user") != text_key(text, role="assistant")


@given(one=st.text(), other=st.text())
def test_different_texts_have_different_keys(one, other):
    assert (text_key(one, role="user") == text_key(other, role="user")) == (one == other)


def test_further_keys_of_a_message_count_in_its_key():
    assert text_key((USER,), role="user") != text_key(({**USER, "name": "Ann"},), role="user")


def test_the_characters_of_messages():
    assert text_of((USER, ASSISTANT)) == "Hi\n\nHello"
    assert text_of(({"role": "assistant", "content": None},)) == ""
    assert text_of("Hi") == "Hi"


def test_lists_are_stored_as_tuples():
    group = PromptGroup([USER], ["a", [ASSISTANT]], [Pair(1, 0)])
    assert group == PromptGroup((USER,), ("a", (ASSISTANT,)), (Pair(1, 0),))
    assert as_text([USER]) == (USER,)


@pytest.mark.parametrize("pair", [Pair(0, 0), Pair(0, 2), Pair(-1, 0), Pair(2, 1)])
def test_a_pair_names_two_of_the_completions(pair):
    with pytest.raises(ValueError, match="does not name two of the 2 completions"):
        PromptGroup("p", ("a", "b"), (pair,))


def test_groups_of_one_prompt_share_its_key():
    assert PromptGroup("Hi", ("a",)).prompt_key == PromptGroup([USER], ("b", "c")).prompt_key
    assert PromptGroup("Hi", ("a",)).prompt_key != PromptGroup("Ho", ("a",)).prompt_key


def test_an_error_names_a_row_by_its_source_else_its_id():
    assert PromptGroup("p", ("a",), id=7, source="x.jsonl:3").name == "x.jsonl:3"
    assert PromptGroup("p", ("a",), id=7).name == "id 7"
    assert PromptGroup("p", ("a",), id=0).name == "id 0"
    assert PromptGroup("p", ("a",)).name == "a group made in memory"


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_a_weight_that_would_spoil_a_batch_is_refused(weight):
    with pytest.raises(ValueError, match="weight"):
        Pair(weight=weight)


def test_a_margin_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="margin"):
        Pair(margin=float("nan"))


@pytest.mark.parametrize("completions", ["bc", ()])
def test_completions_are_a_list_of_at_least_one(completions):
    with pytest.raises(ValueError, match="completions"):
        PromptGroup("a", completions)

"""Items cut into requests: every item once, equal prompts together, sizes kept, and bodies that the server reads."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardlab.errors import DataError
from rewardlab.serving.protocols.native import RewardsRequest
from rewardlab.serving.reward_answers import Unscored
from rewardlab.serving.reward_requests import ItemText, item_text, portions


def items_of(prompts: list[Any], **options: Any) -> list[ItemText]:
    found = [item_text(place, prompt, f"c{place}", None, **options) for place, prompt in enumerate(prompts)]
    assert all(isinstance(item, ItemText) for item in found)
    return found  # type: ignore[return-value]


@given(
    prompts=st.lists(st.sampled_from(["a", "b" * 50, "c"]), max_size=40),
    max_items=st.integers(1, 9),
    max_bytes=st.integers(1, 400),
)
def test_every_item_is_in_one_request_and_no_request_is_too_large(prompts: list[str], max_items: int, max_bytes: int):
    found = portions(items_of(prompts), max_items, max_bytes)
    assert sorted(place for one in found for place in one.places) == list(range(len(prompts)))
    for one in found:
        assert 1 <= len(one.items) <= max_items
        sizes = sum(len(item.prompt) + len(item.completion) + len(item.steps) for item in one.items)
        assert sizes <= max_bytes or len(one.items) == 1


def test_completions_of_one_prompt_stand_together():
    """Groups of 3 in requests of 7: two whole groups each, none torn."""
    found = portions(items_of(["a", "b", "c", "d"] * 3), 7, 10**6)
    assert [one.places for one in found] == [[0, 4, 8, 1, 5, 9], [2, 6, 10, 3, 7, 11]]


def test_a_group_that_is_too_large_is_cut_and_begins_a_request_of_its_own():
    found = portions(items_of(["a", *["b"] * 5]), 3, 10**6)
    assert [one.places for one in found] == [[0], [1, 2, 3], [4, 5]]


def test_a_prompt_that_all_share_is_sent_once():
    (one,) = portions(items_of(["a", "a"]), 9, 10**6)
    assert json.loads(one.body()) == {"prompt": "a", "completions": ["c0", "c1"]}


def test_bodies_are_what_the_server_s_own_model_reads():
    messages = [{"role": "user", "content": 'say "ü"\n'}]
    given = [item_text(0, messages, "c", ["one\n", "two"]), item_text(1, "", "", None)]
    (one,) = portions([item for item in given if isinstance(item, ItemText)], 9, 10**6)
    read = RewardsRequest.model_validate_json(one.body())
    assert (read.prompts, read.completions) == ([messages, ""], ["c", ""])
    assert read.steps == [["one\n", "two"], None]
    assert [item.steps for item in read.items()] == [("one\n", "two"), ()]


@pytest.mark.parametrize("where", [("p \ud800", "c", None), ("p", "c \ud800", None), ("p", "c", ["s", "\udfff"])])
def test_half_a_character_is_that_item_s_own_fault(where: tuple[str, str, list[str] | None]):
    """JSON in UTF-8 cannot carry it; the others of the call keep their scores."""
    found = item_text(0, *where)
    assert isinstance(found, Unscored)
    assert found.kind == "invalid"
    assert "lone surrogate" in found.message


@pytest.mark.parametrize(
    "completion",
    [7, None, b"bytes", ["text"], {"role": "user"}, [{"role": "user", "content": float("nan")}], [{1: {2}}]],
)
def test_what_is_neither_text_nor_messages_is_refused_here(completion: Any):
    with pytest.raises(DataError, match="item 3"):
        item_text(3, "p", completion, None)

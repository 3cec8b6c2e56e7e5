r"""hh-rlhf transcripts. The oracle is the reverse: messages written as a transcript by hand must come back."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardlab.data.transcripts import is_transcript, parse_transcript
from rewardlab.errors import DataError

SPEAKERS = {"user": "Human", "assistant": "Assistant"}
MARKER = re.compile(r"\n\n(Human|Assistant):")
contents = st.text().map(str.strip).filter(lambda text: not MARKER.search(f"\n\n{text}"))


def write(messages):
    return "".join(f"\n\n{SPEAKERS[m['role']]}: {m['content']}" for m in messages)


@given(st.lists(st.tuples(st.sampled_from(["user", "assistant"]), contents), min_size=1))
def test_every_conversation_survives_the_way_to_a_transcript_and_back(turns):
    messages = tuple({"role": role, "content": content} for role, content in turns)
    assert parse_transcript(write(messages)) == messages


def test_spaces_around_a_turn_go_and_those_inside_stay():
    assert parse_transcript("\n\nHuman:  a \n b\n\nAssistant: c  d \n") == (
        {"role": "user", "content": "a \n b"},
        {"role": "assistant", "content": "c  d"},
    )


def test_an_open_turn_is_a_message_without_content():
    assert parse_transcript("\n\nHuman: hello\n\nAssistant:")[-1] == {"role": "assistant", "content": ""}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\n\nHuman: hello", True),
        ("Human: hello\n\nAssistant: hi", True),
        ("Human: error is the commonest cause.", False),
        ("\n\nAssistant: hi", False),
        ("Describe the format '\n\nHuman: ...\n\nAssistant: ...'", False),
        ("", False),
    ],
)
def test_only_what_opens_with_a_human_turn_is_a_transcript(text, expected):
    assert is_transcript(text) is expected


@pytest.mark.parametrize("text", ["", "hello", "hello\n\nHuman: a"])
def test_text_without_a_turn_at_its_start_is_refused(text):
    with pytest.raises(DataError, match="not a transcript"):
        parse_transcript(text)

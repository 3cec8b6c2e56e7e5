"""The records between whoever asks and whoever speaks HTTP."""

from __future__ import annotations

import json

from rewardlab.judge.chat import ChatFailure, ChatReply, ChatRequest, Usage


def test_usage_is_json_with_every_attribute() -> None:
    used = Usage(3, 1, {"timeout": 1}, 2, 100, 20, True, 0.5)
    assert json.loads(json.dumps(used.to_dict())) == {name: getattr(used, name) for name in Usage.__slots__}
    assert Usage().cost is None  # without prices there is no cost, rather than one of 0


def test_a_question_is_asked_at_temperature_0_and_with_a_seed_unless_told() -> None:
    asked = ChatRequest(({"role": "user", "content": "?"},), 10)
    assert (asked.temperature, asked.seed, asked.schema, asked.top_logprobs) == (0.0, 0, None, 0)


def test_a_failure_has_no_text_that_could_be_read() -> None:
    assert not hasattr(ChatFailure("timeout", "after 3 s"), "text")
    assert not ChatReply("A").cached

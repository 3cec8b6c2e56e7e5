from __future__ import annotations

import pytest

from rewardlab.judge.chat import ChatRequest
from rewardlab.judge.wire import Accepted, key_of, parameters_of, unusable_extra

REQUEST = ChatRequest(({"role": "user", "content": "hi"},), 9, schema={"type": "object"}, top_logprobs=20)


def test_a_question_as_it_is_sent_at_first():
    assert parameters_of(REQUEST, "m", Accepted()) == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 9,
        "temperature": 0.0,
        "seed": 0,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "verdict", "strict": True, "schema": {"type": "object"}},
        },
        "logprobs": True,
        "top_logprobs": 20,
    }


def test_what_is_not_asked_for_is_not_sent():
    plain = ChatRequest(({"role": "user", "content": "hi"},), 9, seed=None)
    assert set(parameters_of(plain, "m", Accepted())) == {"model", "messages", "max_tokens", "temperature"}


def test_each_refusal_is_done_without():
    accepted = Accepted()
    for parameter, value in (("max_tokens", 9), ("temperature", 0.0), ("seed", 0), ("logprobs", True)):
        assert parameter in parameters_of(REQUEST, "m", accepted)
        accepted = accepted.without(parameter, value)
        assert parameter not in parameters_of(REQUEST, "m", accepted)
    sent = parameters_of(REQUEST, "m", accepted)
    assert set(sent) == {"model", "messages", "max_completion_tokens", "response_format"}
    assert sent["max_completion_tokens"] == 9


def test_fewer_alternatives_are_tried_before_none():
    accepted = Accepted().without("top_logprobs", 20)
    assert parameters_of(REQUEST, "m", accepted)["top_logprobs"] == 5
    assert accepted.without("top_logprobs", 20) == accepted  # another question, sent before it was learned
    assert accepted.without("top_logprobs", 5).top_logprobs == 0


def test_only_a_refused_temperature_changes_what_verdicts_mean_and_it_is_told():
    assert Accepted().notes == ()
    assert Accepted(max_completion_tokens=True).notes == ()
    assert "temperature" in Accepted(temperature=False).notes[0]
    assert len(Accepted(seed=False, top_logprobs=5).notes) == 2


def test_what_is_accepted_comes_back_as_it_was_and_anything_else_is_the_default():
    learned = Accepted(True, False, False, 5)
    assert Accepted.from_dict(learned.to_dict()) == learned
    for odd in (None, {"more": 1}, {"seed": "no"}, {"top_logprobs": True}, {"top_logprobs": -5}):
        assert Accepted.from_dict(odd) == Accepted()


def test_the_key_tells_apart_all_that_is_sent_and_where_to():
    sent = parameters_of(REQUEST, "m", Accepted())
    key = key_of("http://a/v1", sent, None)
    assert len(key) == 64
    assert key == key_of("http://a/v1", dict(reversed(sent.items())), {})
    others = [
        key_of("http://b/v1", sent, None),
        key_of("http://a/v1", sent, {"top_k": 1}),
        key_of("http://a/v1", {**sent, "seed": 1}, None),
        key_of("http://a/v1", parameters_of(REQUEST, "other", Accepted()), None),
    ]
    assert len({key, *others}) == 5
    assert key_of("http://a/v1", {"messages": "\ud800"}, None)  # half of a UTF-16 pair has a key too


@pytest.mark.parametrize(
    ("extra", "names"), [({}, []), ({"top_k": 1}, []), ({"stream": True, "n": 2}, ["n", "stream"])]
)
def test_extra_fields_may_not_change_what_is_asked(extra, names):
    assert unusable_extra(extra) == names
    for accepted in (Accepted(), Accepted(max_completion_tokens=True)):
        sent = parameters_of(REQUEST, "m", accepted)
        assert unusable_extra(sent) == sorted(sent)

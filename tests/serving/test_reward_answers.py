"""Answers are read strictly: what is not exactly an answer is an error, never a number."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.serving.scripted_server import native_answer

from rewardlab.errors import ConfigError
from rewardlab.serving.client_errors import BadAnswer, ModelChanged
from rewardlab.serving.reward_answers import Reward, Unscored, parsed, read_comparison, read_rewards

BODY = {"completions": ["one", "bad", "three"]}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def answer() -> dict[str, Any]:
    return native_answer(BODY)


def test_scores_and_reasons_are_read_in_order():
    results, fingerprint = read_rewards(answer(), 3, "POST url")
    assert [type(result) for result in results] == [Reward, Unscored, Reward]
    assert results[0] == Reward(3.0, None, None, None, None, None, None, 3, False)
    assert results[1] == Unscored("too_long", "it needs 900 tokens", "shorten it")
    assert fingerprint == "f" * 16


def test_fields_that_a_later_server_adds_are_no_error():
    given = answer()
    given["results"][0]["confidence"] = 0.5
    assert read_rewards({**given, "more": 1}, 3, "")[0][0] == read_rewards(answer(), 3, "")[0][0]


@pytest.mark.parametrize("name", ["raw", "index", "num_tokens", "truncated"])
def test_what_a_score_must_have_is_missed(name: str):
    given = answer()
    del given["results"][0][name]
    with pytest.raises(BadAnswer):
        read_rewards(given, 3, "POST url")


@pytest.mark.parametrize("value", [None, "1.0", True, math.nan, math.inf, [1.0], {}, 10**400])
@pytest.mark.parametrize("name", ["raw", "z", "disagreement", "step_scores"])
def test_no_score_but_a_finite_number(name: str, value: Any):
    given = answer()
    given["results"][0][name] = [value] if name == "step_scores" else value
    if value is None and name in ("z", "disagreement"):
        read_rewards(given, 3, "POST url")
        return
    with pytest.raises(BadAnswer):
        read_rewards(given, 3, "POST url")


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a.pop("results"),
        lambda a: a.update(results={}),
        lambda a: a["results"].pop(),
        lambda a: a["results"].append(a["results"][0]),
        lambda a: a["results"].append({**a["results"][0], "index": 3}),
        lambda a: a["results"].reverse(),
        lambda a: a["results"].__setitem__(0, None),
        lambda a: a["results"].__setitem__(0, 1.5),
        lambda a: a["results"][0].update(index=True),
        lambda a: a["results"][0].update(step_scores=0.5),
        lambda a: a["results"][0].update(num_tokens=-1),
        lambda a: a["results"][0].update(truncated=1),
        lambda a: a["results"][1].update(raw=1.0),
        lambda a: a["results"][1].update(error="no"),
        lambda a: a["results"][1].update(error={}),
        lambda a: a["results"][1]["error"].update(message=None),
        lambda a: a.pop("fingerprint"),
        lambda a: a.update(fingerprint=""),
        lambda a: a.update(fingerprint=7),
    ],
)
def test_an_answer_that_is_not_exactly_one_is_refused(change: Any):
    given = answer()
    change(given)
    with pytest.raises(BadAnswer, match="POST url"):
        read_rewards(given, 3, "POST url")


@given(result=JSON, place=st.integers(0, 2))
def test_no_json_in_a_result_s_place_becomes_a_score_or_another_error(result: Any, place: int):
    given = answer()
    given["results"][place] = result
    with pytest.raises(BadAnswer):
        read_rewards(given, 3, "")


def test_another_model_is_told_from_the_expected_one():
    assert read_rewards(answer(), 3, "", "f" * 16)[1] == "f" * 16
    with pytest.raises(ModelChanged, match="ffffffffffff answered"):
        read_rewards(answer(), 3, "", "e" * 16)


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"3", b'{"a":', b'{"a": NaN}', b'{"a": -Infinity}', b"\xff\xfe", b"[" * 10**5]
)
def test_what_is_no_json_object_is_refused(body: bytes):
    with pytest.raises(BadAnswer):
        parsed(body, "POST url")


def test_an_answer_that_is_no_json_is_not_quoted():
    """It may be a proxy's page, which repeats the request's headers."""
    with pytest.raises(BadAnswer) as caught:
        parsed(b"<html>Authorization: Bearer s3cret", "POST url")
    assert "s3cret" not in str(caught.value)


def comparison() -> dict[str, Any]:
    a, _, b = (dict(result) for result in answer()["results"])
    return {"probability": 0.25, "temperature": 1.5, "fitted": True, "a": a, "b": b, "fingerprint": "f"}


def test_a_comparison_is_read():
    found = read_comparison(json.loads(json.dumps(comparison())), "")
    assert (found.probability, found.temperature, found.fitted, found.fingerprint) == (0.25, 1.5, True, "f")
    assert (found.a.raw, found.b.raw) == (3.0, 5.0)


@pytest.mark.parametrize(
    "change",
    [
        {"probability": 1.5},
        {"probability": None},
        {"temperature": "1"},
        {"fitted": None},
        {"a": None},
        {"b": {"raw": 1}},
    ],
)
def test_a_comparison_that_is_none_is_refused(change: dict[str, Any]):
    with pytest.raises(BadAnswer):
        read_comparison({**comparison(), **change}, "")


def test_a_scale_that_the_model_lacks_is_no_number():
    one = Reward(1.0, None, 0.5, None, 70.0, None, None, 3, False)
    assert (one.on("raw"), one.on("z"), one.on("percentile")) == (1.0, 0.5, 70.0)
    for scale in ("calibrated", "centered", "stars"):
        with pytest.raises(ConfigError):
            one.on(scale)  # type: ignore[arg-type]

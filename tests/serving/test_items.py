"""The records of items and answers: what travels, and what ``/info`` shows."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import pytest

from rewardlab.calibration.reference import reference_statistics
from rewardlab.errors import ConfigError
from rewardlab.serving.items import (
    Answer,
    Continued,
    Conversation,
    Ids,
    Item,
    ItemRefusal,
    ItemScore,
    ModelInfo,
    Rendered,
    Result,
    num_chars,
)
from rewardlab.types import Scale

INFO = ModelInfo(
    name="rm",
    path="/secret/place/rm",
    fingerprint="f" * 64,
    contract_sha256="c" * 64,
    kind="sequence",
    architecture="Qwen3ForSequenceClassification",
    max_length=128,
    dtype="float32",
    device="cpu",
    layout="tree",
    tokens_per_batch=4096,
    reference=reference_statistics([0.0, 2.0, 4.0], "held-out", "aaaa"),
    temperature=2.0,
    versions={"torch": "2.13"},
)


@pytest.mark.parametrize(
    "item",
    [
        Conversation("Hi", ({"role": "assistant", "content": "x"},), steps=("a", "b")),
        Rendered("<bos>x", cut_to=5),
        Continued("Hi", "x"),
        Ids((1, 2)),
    ],
)
def test_items_travel(item: Item) -> None:
    assert pickle.loads(pickle.dumps(item)) == item


def test_turns_and_steps_count_beside_their_characters() -> None:
    """8 each: 2 turns of 2 characters, joined by 2, and a completion of 1 are 2 * 8 + 7; 3 steps 3 * 8 + 4."""
    turns = ({"role": "user", "content": "ab"}, {"role": "assistant", "content": "cd"})
    assert num_chars(Conversation(turns, "e")) == num_chars(Continued(turns, "e")) == 23
    assert num_chars(Conversation("", "a", ("b", "c", "d"))) == 28
    assert num_chars(Continued("ab", "c")) == num_chars(Rendered("abc")) == num_chars(Ids((1, 2, 3))) == 3


@pytest.mark.parametrize("result", [ItemScore(1.5, 7, True, (0.5,), 0.1, True), ItemRefusal("too_long", "m", "h")])
def test_answers_travel(result: Result) -> None:
    answer = Answer((result,), INFO)
    assert pickle.loads(pickle.dumps(answer)) == answer


@pytest.mark.parametrize(
    ("info", "scale", "said"),
    [
        (replace(INFO, reference=None), "percentile", "reference set"),
        (replace(INFO, temperature=None), "calibrated", "temperature"),
        (replace(INFO, members=("a", "b")), "z", "an ensemble has no scale 'z'"),
    ],
)
def test_a_scale_that_a_model_cannot_give_is_refused(info: ModelInfo, scale: Scale, said: str) -> None:
    info.require_scale("raw")
    with pytest.raises(ConfigError, match=said):
        info.require_scale(scale)


def test_info_is_json_without_the_path() -> None:
    shown = INFO.to_dict()
    text = json.dumps(shown, allow_nan=False)
    assert "secret" not in text
    assert shown["reference"] == {"num_scores": 3, "mean": 2.0, "std": pytest.approx((8 / 3) ** 0.5)}
    assert (shown["temperature"], shown["unit"], shown["how"], shown["members"]) == (2.0, "pair", None, [])
    assert shown["reads_rendered_text"] is True
    bare = replace(INFO, reference=None, temperature=None, how="min", members=("a", "b"), reads_rendered="no")
    shown = bare.to_dict()
    assert (shown["reference"], shown["how"], shown["members"], shown["reads_rendered_text"]) == (
        None,
        "min",
        ["a", "b"],
        False,
    )


def test_the_scale_is_the_model_s_own() -> None:
    """Centered (x - 2), and calibrated (x - 2) / T with T = 2: the formulas of the scale, by hand."""
    assert INFO.scale.transform([5.0], "centered") == pytest.approx([3.0])
    assert INFO.scale.transform([5.0], "calibrated") == pytest.approx([1.5])
    with pytest.raises(ConfigError):
        replace(INFO, reference=None).scale.require("z")

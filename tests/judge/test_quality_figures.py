"""The records of a judge's quality as JSON: every attribute of every part, nothing that JSON cannot hold."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest

from rewardlab.judge.chat import Usage
from rewardlab.judge.quality import JudgedPair, measure_quality
from rewardlab.judge.quality_figures import (
    Abstentions,
    HumanAgreement,
    JudgeQuality,
    JudgingCost,
    LengthEffect,
    PositionEffect,
    SelfPreference,
    StatedProbability,
)
from rewardlab.judge.verdicts import PairReading, PairVerdict

PARTS = {
    "abstentions": Abstentions,
    "agreement": HumanAgreement,
    "consistent": HumanAgreement,
    "position": PositionEffect,
    "length": LengthEffect,
    "self_preference": SelfPreference,
    "probability": StatedProbability,
    "cost": JudgingCost,
}


def test_json_has_every_attribute_of_every_part() -> None:
    reading = PairReading("first", 0.7)
    verdict = PairVerdict("first", 0.7, reading, reading)
    pairs = [JudgedPair(f"p{i}", verdict, "first", (9, 5), ("m", "n"), "easy") for i in range(4)]
    found = measure_quality(pairs, Usage(calls=8, cost=1.0), "m", seconds=2.0, resamples=10)
    out = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    of_bootstrap = {"confidence", "resamples", "seed"}
    assert set(out) == {one.name for one in fields(JudgeQuality)} - of_bootstrap | {"bootstrap"}
    for name, part in PARTS.items():
        assert set(out[name]) == {one.name for one in fields(part)}
    assert set(out["subsets"]["easy"]) == set(out["agreement"])
    assert out["agreement"]["accuracy"] == {"value": 1.0, "low": pytest.approx(0.025**0.25), "high": 1.0}
    assert out["agreement"]["three_way"]["kappa"] is None
    assert out["notes"] == []


def test_a_part_for_which_there_is_nothing_is_null() -> None:
    reading = PairReading("tie")
    out = measure_quality(
        [JudgedPair("p", PairVerdict("tie", None, reading, reading), None, (5, 5))], resamples=10
    ).to_dict()
    assert [name for name in PARTS if out[name] is None] == ["length", "self_preference", "probability", "cost"]
    assert out["position"]["consistency"] == {"value": 1.0, "low": None, "high": None}

"""Verdicts as records: what was not found is null, never a number."""

from __future__ import annotations

import json

import pytest

from rewardlab.judge.judged_rows import record_of
from rewardlab.judge.verdicts import (
    Abstention,
    PairReading,
    PairVerdict,
    RankingReading,
    RankingVerdict,
    RatingReading,
    StepsReading,
    Verdict,
    abstention_of,
)

LOST = Abstention("timeout", "after 6 attempts")
FIRST = PairReading("first", 0.9, "clearer")


def test_two_orders_are_consistent_or_not_or_cannot_be_told() -> None:
    assert PairVerdict("first", 0.9, FIRST, FIRST).consistent is True
    assert PairVerdict("tie", None, FIRST, PairReading("second")).consistent is False
    assert PairVerdict(None, None, FIRST, LOST, LOST).consistent is None


def test_the_record_of_a_pair() -> None:
    told = record_of(PairVerdict("tie", 0.5, FIRST, PairReading("second", 0.1)))
    assert told == {
        "verdict": "tie",
        "p_first": 0.5,
        "consistent": False,
        "as_given": {"verdict": "first", "p_first": 0.9, "reason": "clearer"},
        "swapped": {"verdict": "second", "p_first": 0.1, "reason": ""},
        "abstained": None,
    }


@pytest.mark.parametrize(
    "verdict",
    [
        LOST,
        PairVerdict(None, None, FIRST, LOST, LOST),
        RankingVerdict((), (), LOST, RankingReading((0, 1)), LOST),
    ],
)
def test_an_abstention_has_its_reason_and_no_verdict(verdict: Verdict) -> None:
    assert abstention_of(verdict) == LOST
    told = record_of(verdict)
    assert told["abstained"] == {"kind": "timeout", "message": "after 6 attempts"}
    assert [told.get(name) for name in ("verdict", "p_first", "better", "tied", "rating")] == [None] * 5
    json.dumps(told, allow_nan=False)


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        (RatingReading(7.0, 6.8, "good"), {"rating": 7.0, "expected": 6.8, "reason": "good", "abstained": None}),
        (
            StepsReading((1, -1, None), 1, "2 + 2"),
            {"labels": [1, -1, None], "first_error": 1, "reason": "2 + 2", "abstained": None},
        ),
    ],
)
def test_the_records_of_ratings_and_steps(verdict: Verdict, expected: dict[str, object]) -> None:
    assert abstention_of(verdict) is None
    assert record_of(verdict) == expected


def test_the_record_of_a_ranking() -> None:
    told = record_of(RankingVerdict(((0, 1),), ((1, 2),), RankingReading((0, 1, 1)), RankingReading((0, 1, 2))))
    assert (told["better"], told["tied"]) == ([[0, 1]], [[1, 2]])
    assert told["swapped"]["ranks"] == [0, 1, 2]

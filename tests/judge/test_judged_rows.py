"""A row holds its verdict whole: what is read back is what was written."""

from __future__ import annotations

import json

import pytest

from rewardlab.judge.items import Item
from rewardlab.judge.judge import pair_verdict, ranking_verdict
from rewardlab.judge.judged_rows import Asked, comparisons_of, judged_pairs, ratings_of, row_of, verdict_of
from rewardlab.judge.verdicts import Abstention, PairReading, RankingReading, RatingReading, StepsReading, Verdict
from rewardlab.types import Pair, PromptGroup

LOST = Abstention("malformed", "no verdict")
GROUP = PromptGroup(
    "Q?", ("aa", "b", "cccc"), (Pair(0, 1),), id=7, subset="s", source="f.jsonl:1", systems=("x", None, "y")
)


@pytest.mark.parametrize(
    ("mode", "verdict"),
    [
        ("pairwise", pair_verdict(PairReading("first", 0.75, "better"), PairReading("first", 0.5, "fine"))),
        ("pairwise", pair_verdict(PairReading("first"), PairReading("second"))),
        ("pairwise", pair_verdict(LOST, PairReading("second", 0.125))),
        ("listwise", ranking_verdict(RankingReading((0, 1, 1)), RankingReading((0, 1, 2)))),
        ("listwise", ranking_verdict(RankingReading((0, 1, 1)), LOST)),
        ("rating", RatingReading(7.0, 6.5, "good")),
        ("rating", LOST),
        ("steps", StepsReading((1, -1, None), 1, "wrong sum")),
        ("steps", Abstention("timeout", "nothing came")),
    ],
)
def test_a_verdict_survives_its_row(mode: str, verdict: Verdict) -> None:
    completions = (1, 0) if mode == "pairwise" else (2, 0, 1) if mode == "listwise" else (0,)
    row = row_of(GROUP, Item(0, 0, completions, None), verdict, Asked(mode, "m", "p"))  # type: ignore[arg-type]
    assert verdict_of(json.loads(json.dumps(row, allow_nan=False))) == verdict
    assert (row["id"], row["source"], row["subset"], row["model"], row["prompt_name"]) == (
        7,
        "f.jsonl:1",
        "s",
        "m",
        "p",
    )


def test_an_abstention_has_no_number_in_its_row() -> None:
    row = row_of(GROUP, Item(0, 0, (1, 0), "first"), pair_verdict(LOST, LOST), Asked("pairwise", "m", "p"))
    assert (row["verdict"], row["p_first"], row["consistent"]) == (None, None, None)
    assert row["abstained"] == {"kind": "malformed", "message": "no verdict"}
    assert (row["first"], row["second"], row["human"], row["systems"]) == (1, 0, "first", [None, "x"])


def test_comparisons_carry_what_people_said_and_lengths_in_their_own_order() -> None:
    """The verdict is about (1, 0): its first is "b", of one character, and people prefer 0, its second."""
    (pair,) = judged_pairs([GROUP], [(Item(0, 0, (1, 0)), pair_verdict(PairReading("second"), PairReading("second")))])
    assert (pair.human, pair.lengths, pair.systems) == ("second", (1, 2), (None, "x"))
    assert (pair.subset, pair.verdict.choice) == ("s", "second")


def test_a_ranking_is_all_its_comparisons() -> None:
    """Shown as (2, 0, 1) and ranked 0, 1, 2 in both orders: 2 beats 0 beats 1."""
    verdict = ranking_verdict(RankingReading((0, 1, 2)), RankingReading((0, 1, 2)))
    found = [(i, j, of.choice) for i, j, of in comparisons_of(Item(0, 0, (2, 0, 1)), verdict)]
    assert found == [(2, 0, "first"), (2, 1, "first"), (0, 1, "first")]
    assert [pair.human for pair in judged_pairs([GROUP], [(Item(0, 0, (2, 0, 1)), verdict)])] == [None, None, "first"]


def test_expected_ratings_and_plain_ones_do_not_mix_within_a_group() -> None:
    judged = [
        (Item(0, 0, (0,)), RatingReading(7.0, 6.5)),
        (Item(1, 0, (1,)), RatingReading(3.0)),
        (Item(2, 1, (0,)), RatingReading(7.0, 6.5)),
        (Item(3, 1, (1,)), LOST),
    ]
    assert ratings_of(judged) == {0: {0: 7.0, 1: 3.0}, 1: {0: 6.5}}

"""Ratings and critiques beside what the rows say."""

from __future__ import annotations

import pytest

from rewardlab.judge.findings import comparison_findings, first_error_findings, rating_findings
from rewardlab.judge.items import Item
from rewardlab.judge.judge import pair_verdict
from rewardlab.judge.verdicts import Abstention, PairReading, RatingReading, StepsReading
from rewardlab.types import Pair, PromptGroup, Step

LOST = Abstention("malformed", "no verdict")


def test_accuracy_of_ratings_counts_whole_rows_and_no_tie_as_a_win() -> None:
    """Rows: right, wrong, rated alike, and one of which a completion has no rating: 1 of 3 right, 1 tie, 1 left out."""
    groups = [PromptGroup(f"Q{i}?", ("a", "bb"), (Pair(0, 1),)) for i in range(4)]
    ratings = [(8, 3), (2, 4), (5, 5), (9, None)]
    judged = [
        (Item(2 * i + k, i, (k,)), LOST if value is None else RatingReading(float(value)))
        for i, row in enumerate(ratings)
        for k, value in enumerate(row)
    ]
    found = rating_findings(groups, judged)
    assert found.num_completions == 7
    assert found.mean == pytest.approx((8 + 3 + 2 + 4 + 5 + 5 + 9) / 7)
    assert (found.num_pairs, found.ties, found.left_out) == (3, 1, 1)
    assert found.accuracy is not None
    assert found.accuracy.value == pytest.approx(1 / 3)
    assert found.longer_wins is not None
    assert found.longer_wins.value == 0
    assert found.ratings is None


def test_ratings_are_compared_with_the_rows_own() -> None:
    groups = [PromptGroup(f"Q{i}?", ("a", "b"), ratings=(1.0, float(i))) for i in range(2, 5)]
    judged = [(Item(0, i, (k,)), RatingReading(float(1 + k * i))) for i in range(3) for k in range(2)]
    found = rating_findings(groups, judged)
    assert found.ratings is not None
    assert found.ratings.num_completions == 6
    assert found.accuracy is None
    assert found.to_dict()["ratings"]["num_completions"] == 6


def test_nothing_rated_is_no_number() -> None:
    found = rating_findings([PromptGroup("Q?", ("a",))], [(Item(0, 0, (0,)), LOST)])
    assert (found.num_completions, found.mean, found.left_out) == (0, None, 1)


def test_first_errors_are_compared_where_labels_say_where_they_are() -> None:
    """Three solutions: the error found exactly, one seen a step late, none seen where there is none."""

    def solution(*labels: int | None) -> PromptGroup:
        return PromptGroup("Q?", ("x",), steps=(tuple(Step("s", label) for label in labels),))

    groups = [solution(1, -1, None), solution(-1, None, None), solution(1, 1, 1), solution(None, None, None)]
    judged = [
        (Item(0, 0, (0,)), StepsReading((1, -1, None), 1)),
        (Item(1, 1, (0,)), StepsReading((1, -1, None), 1)),
        (Item(2, 2, (0,)), StepsReading((1, 1, 1), None)),
        (Item(3, 3, (0,)), StepsReading((1, 1, 1), None)),
    ]
    found = first_error_findings(groups, judged)
    assert found is not None
    assert (found.num_solutions, found.num_erroneous, found.num_undetermined) == (3, 2, 1)
    assert found.accuracy_on_erroneous is not None
    assert found.accuracy_on_erroneous.value == 0.5
    assert found.accuracy_on_correct is not None
    assert found.accuracy_on_correct.value == 1.0
    assert first_error_findings(groups[3:], [(Item(0, 0, (0,)), judged[3][1])]) is None


def test_a_system_that_never_lost_has_no_finite_strength_until_a_prior_is_stated() -> None:
    groups = [PromptGroup(f"Q{i}?", ("a", "b"), (Pair(0, 1),), systems=("x", "y")) for i in range(4)]
    judged = [(Item(i, i, (0, 1)), pair_verdict(PairReading("first"), PairReading("first"))) for i in range(4)]
    found = comparison_findings(groups, judged)
    assert found.ranking is None
    assert "no finite strengths" in found.notes[0]
    assert "--prior 1" in found.notes[0]
    assert found.to_dict()["ranking"] is None
    assert found.to_dict()["win_rates"][0]["win_rate"]["value"] == 1.0
    ranked = comparison_findings(groups, judged, prior=1.0)
    assert ranked.ranking is not None
    assert [system.name for system in ranked.ranking.systems] == ["x", "y"]
    unnamed = comparison_findings([PromptGroup("Q?", ("a", "b"))], judged[:1])
    assert "win_rates" not in unnamed.to_dict()

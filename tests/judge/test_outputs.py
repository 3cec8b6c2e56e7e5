"""Verdicts become training data that the reader of training data reads as what they were."""

from __future__ import annotations

from pathlib import Path

import pytest

from rewardlab.data.loading import load_groups
from rewardlab.errors import DataError, RewardLabError
from rewardlab.judge.items import Item
from rewardlab.judge.judge import pair_verdict, ranking_verdict
from rewardlab.judge.outputs import Preferences, preferences_of
from rewardlab.judge.verdicts import Abstention, PairReading, RankingReading, RatingReading, StepsReading
from rewardlab.types import PromptGroup, Step

LOST = Abstention("malformed", "no verdict")


def pair(index: int, given: PairReading | Abstention, swapped: PairReading | Abstention) -> tuple[Item, object]:
    return Item(index, index, (1, 0)), pair_verdict(given, swapped)


def read(made: Preferences, path: Path, **options: str) -> list[PromptGroup]:
    made.write(path)
    return load_groups(path, max_bad_fraction=0.0, **options)


def test_only_what_both_orders_found_becomes_a_pair(tmp_path: Path) -> None:
    """Given order is (1, 0), so "first" prefers completion 1, "no"."""
    groups = [PromptGroup(f"Q{i}?", ("yes", "no"), id=i, subset="s") for i in range(5)]
    judged = [
        pair(0, PairReading("first", 0.9), PairReading("first", 0.7)),
        pair(1, PairReading("second"), PairReading("second")),
        pair(2, PairReading("first", 0.9), PairReading("second", 0.2)),
        pair(3, PairReading("tie"), PairReading("tie")),
        pair(4, PairReading("first"), LOST),
    ]
    made = preferences_of(groups, "pairwise", judged)  # type: ignore[arg-type]
    first, second = read(made, tmp_path / "p.jsonl")
    assert (first.completions, first.id, first.subset) == (("no", "yes"), 0, "s")
    assert first.pairs[0].p_chosen == pytest.approx(0.8)
    assert second.completions == ("yes", "no")
    assert second.pairs[0].p_chosen is None
    assert made.left_out == {"ties because the two orders disagree": 1, "ties": 1, "without a verdict": 1}
    kept = read(preferences_of(groups, "pairwise", judged, keep_ties=True), tmp_path / "t.jsonl")  # type: ignore[arg-type]
    assert [group.pairs[0].tie for group in kept] == [False, False, True, True]
    assert [group.pairs[0].target for group in kept][2:] == [0.5, 0.5]


def test_a_choice_against_its_own_probability_becomes_no_row() -> None:
    groups = [PromptGroup("Q?", ("yes", "no"))] * 2
    judged = [
        pair(0, PairReading("first", 0.4), PairReading("first", 0.3)),
        pair(1, PairReading("first", 0.6), PairReading("first", 0.5)),
    ]
    made = preferences_of(groups, "pairwise", judged)  # type: ignore[arg-type]
    assert [row["p_chosen"] for row in made.rows] == [pytest.approx(0.55)]
    assert made.left_out == {"against the judge's own probability": 1}


def test_a_file_that_cannot_be_written_is_an_error_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RewardLabError, match="cannot be written"):
        Preferences(({"prompt": "Q?"},), {}).write(tmp_path / "file" / "p.jsonl")


def test_messages_and_text_become_one_form_and_systems_are_kept(tmp_path: Path) -> None:
    said = ({"role": "assistant", "content": "no"},)
    group = PromptGroup(({"role": "user", "content": "Q?"},), ("yes", said), systems=("x", "y"))
    made = preferences_of([group], "pairwise", [pair(0, PairReading("first"), PairReading("first"))])  # type: ignore[list-item]
    (found,) = read(made, tmp_path / "p.jsonl")
    assert found.completions[0] == said
    assert (made.rows[0]["chosen_model"], made.rows[0]["rejected_model"]) == ("y", "x")


def test_what_training_could_not_read_is_left_out_and_counted() -> None:
    groups = [PromptGroup("Q?", ("yes", ""))]
    made = preferences_of(groups, "pairwise", [pair(0, PairReading("second"), PairReading("second"))])  # type: ignore[list-item]
    assert made.rows == ()
    assert made.left_out == {"not readable as training data (rejected is empty)": 1}
    with pytest.raises(DataError, match="no verdict is a preference"):
        made.write(Path("nowhere.jsonl"))


def test_a_ranking_becomes_the_pairs_on_which_both_orders_agree(tmp_path: Path) -> None:
    """Given (2, 0, 1): ranks 0, 1, 2 and 0, 2, 1. Both put 2 before 0 and before 1; 0 and 1 are disagreed on."""
    group = PromptGroup("Q?", ("a", "b", "c"))
    verdict = ranking_verdict(RankingReading((0, 1, 2)), RankingReading((0, 2, 1)))
    made = preferences_of([group], "listwise", [(Item(0, 0, (2, 0, 1)), verdict)])
    assert [found.completions for found in read(made, tmp_path / "p.jsonl")] == [("c", "a"), ("c", "b")]
    assert made.left_out == {"ties because the two orders disagree": 1}


def test_ratings_become_scores_of_the_rated(tmp_path: Path) -> None:
    groups = [PromptGroup("Q?", ("a", "b", "c")), PromptGroup("R?", ("a",)), PromptGroup("S?", ("a", "b"))]
    judged = [
        (Item(0, 0, (0,)), RatingReading(7.0, 6.5)),
        (Item(1, 0, (1,)), LOST),
        (Item(2, 0, (2,)), RatingReading(3.0, 3.25)),
        (Item(3, 1, (0,)), RatingReading(9.0)),
        (Item(4, 2, (0,)), RatingReading(9.0)),
        (Item(5, 2, (1,)), LOST),
    ]
    made = preferences_of(groups, "rating", judged)
    first, second = read(made, tmp_path / "p.jsonl")
    assert (first.completions, first.ratings) == (("a", "c"), (6.5, 3.25))
    assert (second.completions, second.ratings) == (("a",), (9.0,))
    assert made.left_out == {"without a verdict": 2, "alone in their row with a rating": 1}


def test_critiques_become_labelled_steps(tmp_path: Path) -> None:
    solution = (Step("a", -1), Step("b"), Step("c"))
    groups = [PromptGroup("Q?", ("a b c",), steps=(solution,)), PromptGroup("R?", ("a b c",), steps=(solution,))]
    judged = [
        (Item(0, 0, (0,)), StepsReading((1, -1, None), 1)),
        (Item(1, 1, (0,)), StepsReading((1, 1, 1), None)),
    ]
    found = read(preferences_of(groups, "steps", judged), tmp_path / "p.jsonl")
    assert [[step.label for step in group.steps[0]] for group in found] == [[1, -1, None], [1, 1, 1]]
    fine = read(preferences_of(groups, "steps", judged[1:]), tmp_path / "q.jsonl")  # read as steps without being told
    assert [step.label for step in fine[0].steps[0]] == [1, 1, 1]
    neutral = preferences_of(groups, "steps", [(Item(0, 0, (0,)), StepsReading((1, 0, 1), None))])
    assert "--format steps" in neutral.notes[0]
    assert [step.label for step in read(neutral, tmp_path / "n.jsonl", format="steps")[0].steps[0]] == [1, 0, 1]

"""What a row of scores looks like, by the kind of its group; whole files are in `test_bulk.py`."""

from __future__ import annotations

from typing import Any

import pytest

from rewardlab.data.encoding import EncodedGroup
from rewardlab.errors import CompletionTooLongError
from rewardlab.scoring import bulk_rows
from rewardlab.scoring.bulk_rows import RowFacts, RowLayout, data_fingerprint, num_completions, score_rows
from rewardlab.types import Pair, PromptGroup, Ranking, Step

ONE = PromptGroup("p", ("a",), id=1)
LIST = PromptGroup("p", ("a", "b"), id=2)
PAIR = PromptGroup("p", ("a", "b"), (Pair(1, 0),), id=3)
RANKED = PromptGroup("p", ("a", "b"), rankings=(Ranking((0, 1), (0, 1)),), id=4)


def layout_of(groups: list[PromptGroup], format: str = "auto") -> RowLayout:
    facts = RowFacts()
    for group in groups:
        facts.add(group)
    return RowLayout.of(facts, format, "disagreement")


@pytest.mark.parametrize(
    ("group", "others", "expected"),
    [
        (ONE, [], {"score": 1.0, "disagreement": 5.0}),
        (ONE, [LIST], {"scores": [1.0], "disagreements": [5.0]}),
        (LIST, [], {"scores": [1.0, 2.0], "disagreements": [5.0, 6.0]}),
        (RANKED, [], {"scores": [1.0, 2.0], "disagreements": [5.0, 6.0]}),
        (
            PAIR,
            [],
            {"chosen_score": 2.0, "rejected_score": 1.0, "chosen_disagreement": 6.0, "rejected_disagreement": 5.0},
        ),
    ],
)
def test_columns_are_told_by_the_group(group: PromptGroup, others: list[PromptGroup], expected: dict[str, Any]) -> None:
    layout, count = layout_of([group, *others]), len(group.completions)
    assert layout.scores(group, [1.0, 2.0][:count], [5.0, 6.0][:count]) == expected
    assert layout.scores(group, None, None) == dict.fromkeys(expected)
    assert layout.columns == {name for one in (group, *others) for name in layout.scores(one, None, None)}
    assert layout.has_integer_ids


def test_the_fingerprint_tells_whatever_gives_another_output() -> None:
    rows = [
        [ONE],
        [LIST],
        [PAIR],
        [RANKED],
        [ONE, LIST],
        [LIST, ONE],
        [PromptGroup("q", ("a",), id=1)],
        [PromptGroup("p", ("b",), id=1)],
        [PromptGroup("p", ("a",), id=9)],
        [PromptGroup("p", ("a",), id=1, source="x:1")],
        [PromptGroup("p", ("a",), id=1, steps=((Step("a"),),))],
    ]
    assert len({data_fingerprint(groups) for groups in rows}) == len(rows)
    assert num_completions([ONE, LIST, PAIR]) == 5


@pytest.mark.parametrize(
    ("ids", "integers", "become_text"),
    [([1, 2], True, False), ([1, "a"], False, True), (["a"], False, False), ([1, 2**63], False, True)],
)
def test_what_a_column_of_ids_holds(ids: list[Any], integers: bool, become_text: bool) -> None:
    layout = layout_of([PromptGroup("p", ("a",), id=value) for value in ids])
    assert (layout.has_integer_ids, layout.ids_become_text) == (integers, become_text)


class SlicedScorer:
    """Scores are lengths of texts, plus a trace of the batch; counts the most sequences that it was given at once."""

    fingerprint, has_steps, is_ensemble = "x", False, True

    def __init__(self) -> None:
        self.most = 0

    @property
    def encoder(self) -> SlicedScorer:
        return self

    def encode_many(self, groups: Any) -> list[Any]:
        return [
            CompletionTooLongError(f"{group.name}: too long")
            if "x" * 9 in group.completions
            else EncodedGroup(group, tuple(tuple(c.encode()) for c in group.completions), 0, len(group.completions))
            for group in groups
        ]

    def score_encoded_disagreement(self, encoded: Any, on_progress: Any = None) -> Any:
        if not encoded:
            return [], []
        (item,) = encoded
        distinct = set(item.sequences)
        self.most = max(self.most, len(item.sequences))
        on_progress(len(item.sequences))
        trace = sum(map(len, distinct)) * 2.0**-30
        return [[len(ids) + trace for ids in item.sequences]], [[len(ids) * 10.0 for ids in item.sequences]]


def test_a_group_of_very_many_completions_is_scored_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of the row, with equal scores for equal completions, whichever slice they are in."""
    monkeypatch.setattr(bulk_rows, "CHUNK_COMPLETIONS", 7)
    texts = tuple("x" * (1 + i * i % 8) for i in range(100))
    group = PromptGroup("p", texts, id=1)
    scorer, done = SlicedScorer(), list[int]()
    ((row,), counts) = score_rows(scorer, [group], layout_of([group]), False, done.append)  # type: ignore[arg-type]
    assert [round(score) for score in row["scores"]] == [len(text) for text in texts]
    assert row["disagreements"] == [10.0 * len(text) for text in texts]
    assert len({(len(text), score) for text, score in zip(texts, row["scores"], strict=True)}) == len(set(texts))
    assert sum(done) == 100
    assert counts["truncated_sequences"] == 100
    assert scorer.most < 60

    bad = PromptGroup("p", (*texts, "x" * 9), id=1)
    done.clear()
    ((row,), counts) = score_rows(scorer, [bad], layout_of([bad]), False, done.append)  # type: ignore[arg-type]
    assert row["scores"] is None
    assert "too long" in row["error"]
    assert sum(done) == 101
    assert counts["reasons"].total() == 1

"""What a row of scores looks like, by the kind of its group; whole files are in `test_bulk.py`."""

from __future__ import annotations

from typing import Any

import pytest

from rewardlab.scoring.bulk_rows import RowLayout, data_fingerprint, num_completions
from rewardlab.types import Pair, PromptGroup, Ranking, Step

ONE = PromptGroup("p", ("a",), id=1)
LIST = PromptGroup("p", ("a", "b"), id=2)
PAIR = PromptGroup("p", ("a", "b"), (Pair(1, 0),), id=3)
RANKED = PromptGroup("p", ("a", "b"), rankings=(Ranking((0, 1), (0, 1)),), id=4)


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
    layout, count = RowLayout([group, *others], "auto", "disagreement"), len(group.completions)
    assert layout.scores(group, [1.0, 2.0][:count], [5.0, 6.0][:count]) == expected
    assert layout.scores(group, None, None) == dict.fromkeys(expected)
    assert layout.columns >= expected.keys()
    assert layout.ids == [one.id for one in (group, *others)]


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

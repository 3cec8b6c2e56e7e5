"""Ids of rows, and the one type that a column of them has."""

from __future__ import annotations

from typing import Any

import pytest

from rewardlab.scoring.row_ids import are_integers, as_text, ids_became_text, row_id
from rewardlab.types import PromptGroup


def test_an_id_is_the_rows_own_or_its_place() -> None:
    assert row_id(PromptGroup("p", ("a",), id=0, source="x.jsonl:1")) == 0
    assert row_id(PromptGroup("p", ("a",), source="x.jsonl:1")) == "x.jsonl:1"


@pytest.mark.parametrize(
    ("ids", "integers", "became_text"),
    [
        ([1, -(2**63), 2**63 - 1], True, False),
        ([1, 2**63], False, True),
        ([1, "two"], False, True),
        ([1, None], False, True),
        (["one", None], False, False),
    ],
)
def test_a_column_of_integers_holds_64_bits(ids: list[Any], integers: bool, became_text: bool) -> None:
    assert (are_integers(ids), ids_became_text(ids)) == (integers, became_text)


def test_no_id_stays_none() -> None:
    assert [as_text(value) for value in (1, "a", None)] == ["1", "a", None]

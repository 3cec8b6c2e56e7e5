"""Rows of two completions and a label: which side wins, ties, and what is refused instead of guessed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rewardlab.data.formats import parse_row
from rewardlab.data.loading import load_groups
from rewardlab.errors import DataError
from rewardlab.types import Pair

ROW: dict[str, Any] = {"id": "x1", "prompt": "2 + 2?", "a": "4", "b": "5", "subset": "sums", "why": {"rank": 1}}


@pytest.mark.parametrize(
    ("label", "pair"),
    [
        ("a", Pair(0, 1)),
        ("b", Pair(1, 0)),
        (" B ", Pair(1, 0)),
        ("tie", Pair(0, 1, strength=0.0, tie=True)),
    ],
)
def test_the_label_says_which_side_wins(label: str, pair: Pair) -> None:
    group = parse_row({**ROW, "label": label})
    assert (group.prompt, group.completions, group.pairs) == ("2 + 2?", ("4", "5"), (pair,))
    assert (group.id, group.subset) == ("x1", "sums")
    assert parse_row({**ROW, "label": label}, format="labelled") == group


def test_messages_weights_and_systems_are_read() -> None:
    turn = [{"role": "assistant", "content": "four"}]
    group = parse_row({**ROW, "a": turn, "label": "b", "weight": 2, "model_b": "m2"})
    assert group.completions == (tuple(turn), "5")
    assert group.pairs == (Pair(1, 0, weight=2.0),)
    assert group.systems == (None, "m2")
    assert parse_row({**ROW, "label": "a", "model_1": "m1", "model_2": None}).systems == ("m1", None)


def test_margin_and_votes_are_those_of_the_better_side() -> None:
    votes = {"a": 1, "b": 3, "equal": 0}
    group = parse_row({**ROW, "label": "b", "margin": 0.5, "votes": votes})
    assert group.pairs == (Pair(1, 0, margin=0.5, p_chosen=0.75, votes=(3, 1, 0)),)
    assert parse_row({**ROW, "label": "tie", "votes": votes}).pairs[0].votes == (1, 3, 0)


@pytest.mark.parametrize("label", ["a", "tie"])
def test_a_second_label_is_not_guessed_about(label: str) -> None:
    with pytest.raises(DataError, match="winner"):
        parse_row({**ROW, "label": label, "winner": "b"})


@pytest.mark.parametrize("label", [None, "", "  "])
def test_an_empty_label_is_none_yet(label: str | None) -> None:
    with pytest.raises(DataError, match="not labelled yet"):
        parse_row({**ROW, "label": label})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": None}, "not labelled yet: label is null"),
        ({"label": 0}, "label is none of .*: '0' .int."),
        ({"label": True}, "label is none of .*: 'True' .bool."),
        ({"label": "model_a"}, "label is none of .*model_a"),
        ({"label": ["a"]}, "label is none of .*list"),
        ({"label": "a", "b": "4"}, "identical sides: a and b"),
        ({"label": "a", "b": " "}, "b is empty"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_row({**ROW, **changes})


def test_without_the_column_it_is_a_tie_as_before() -> None:
    assert parse_row(ROW).pairs[0].tie


def test_a_file_labelled_in_part_gives_what_is_labelled_and_tells_the_rest(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_text("".join(json.dumps({**ROW, "id": i, "label": each}) + "\n" for i, each in enumerate(["b", None])))
    groups = load_groups(path, max_bad_fraction=0.5)
    assert [group.pairs for group in groups] == [(Pair(1, 0),)]
    assert "not labelled yet" in caplog.text
    with pytest.raises(DataError, match=r"not labelled yet \(first: labels.jsonl:2"):
        load_groups(path, strict=True)

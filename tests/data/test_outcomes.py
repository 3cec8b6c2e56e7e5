"""Checked completions -> outcome labels."""

from __future__ import annotations

import pytest

from rewardlab.data.formats import parse_row
from rewardlab.errors import DataError

ROW = {"prompt": "p", "completion": "x"}
LIST = {"prompt": "p", "completions": ["x", "y", "z"]}


@pytest.mark.parametrize(
    ("label", "outcome"),
    [(True, 1.0), (False, 0.0), (1, 1.0), (0, 0.0), (0.25, 0.25), ("0.25", 0.25), ("False", 0.0), ("true", 1.0)],
)
def test_a_label_is_true_or_false_or_a_probability(label, outcome):
    group = parse_row(ROW | {"label": label})
    assert (group.completions, group.labels, group.pairs) == (("x",), (outcome,), ())


def test_a_rating_beside_the_label_is_kept():
    assert parse_row(ROW | {"label": 1, "rating": 3}).ratings == (3.0,)


def test_a_share_and_votes_of_unknown_meaning_are_not_read():
    """In one real set ``p_safe`` is the share of raters who answered No: what is shared out, only its set knows."""
    row = ROW | {"label": False, "p_safe": 0.2778, "votes": {"No": 20, "Yes": 46}}
    assert parse_row(row).labels == (0.0,)
    assert parse_row(ROW | {"p_safe": 0.3}).labels == ()


def test_labels_of_a_list_are_of_its_completions_where_the_format_or_a_probability_says_so():
    assert parse_row(LIST | {"labels": [1, 0, None]}, format="outcomes").labels == (1.0, 0.0, None)
    assert parse_row(LIST | {"labels": [True, False, False]}, format="outcomes").labels == (1.0, 0.0, 0.0)
    assert parse_row(LIST | {"labels": [1, 0.5, 0]}).labels == (1.0, 0.5, 0.0)
    assert parse_row(LIST | {"labels": [1, 0.5, 0]}).completions == ("x", "y", "z")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (ROW | {"label": 2}, "label is not a probability"),
        (ROW | {"label": -1}, "label is not a probability"),
        (ROW | {"label": "positive"}, "label is not a finite number"),
        (ROW | {"label": 1, "score": "x"}, "score is not a finite number"),
        (ROW | {"label": 1, "completion": ""}, "completion is empty"),
        (LIST | {"labels": [0.5, 1]}, "labels do not match completions"),
        (LIST | {"labels": [0.5, 1, 3]}, "labels is not a probability"),
        (LIST | {"labels": 0.5}, "labels is of the wrong type"),
        (LIST | {"labels": []}, "labels is empty"),
        (LIST | {"labels": [1, 0, 1]}, "labels could be of steps or of completions"),
    ],
)
def test_a_bad_row_has_a_reason(row, reason):
    with pytest.raises(DataError) as error:
        parse_row(row)
    assert error.value.message.partition(": ")[0] == reason


def test_labels_of_nothing_but_nulls_are_a_reason_too():
    with pytest.raises(DataError, match="labels is empty: no completion"):
        parse_row(LIST | {"labels": [None, None, None]}, format="outcomes")

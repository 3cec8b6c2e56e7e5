"""Counts of what is known, by hand."""

from __future__ import annotations

import json

from rewardlab.data.check import check_groups
from rewardlab.data.contents import Contents
from rewardlab.types import Pair, PromptGroup, Ranking, Step


def test_every_kind_is_counted():
    """The ranking implies 3 pairs, of which 1 is a tie and 1 has two ratings."""
    groups = [
        PromptGroup("p", ("a", "b", "c"), rankings=[Ranking((0, 1, 2), (0, 1, 1))], ratings=(3.0, 1.0, None)),
        PromptGroup("p", ("a", "b"), [Pair(p_chosen=0.8), Pair(tie=True, strength=0.0)]),
        PromptGroup("p", ("a", "b", "c"), labels=(1.0, None, 0.5), attributes=({"tone": 1.0}, {}, {"tone": 2.0})),
        PromptGroup("p", ("a", "b"), steps=[[Step("s", 1), Step("t", -1)], [Step("s"), Step("t", 1)]]),
    ]
    found = Contents.of(groups)
    assert (found.ties, found.soft, found.strengths, found.ratings) == (2, 1, 1, 2)
    assert found.rankings == {3: 1}
    assert found.attributes == {"tone": 2}
    assert (found.outcomes, found.outcomes_correct) == (2, 0.75)
    assert found.solutions == 2
    assert found.steps == {"correct": 2, "neutral": 0, "incorrect": 1, "unlabelled": 1}
    report = json.loads(json.dumps(check_groups(groups).to_dict(), allow_nan=False))
    assert report["contents"]["rankings"] == {"3": 1}
    assert report["pairs"] == 3


def test_nothing_known_is_nothing_counted():
    found = Contents.of([PromptGroup("p", ("a",))])
    assert (found.ties, found.outcomes, found.outcomes_correct, found.steps, found.rankings) == (0, 0, None, {}, {})

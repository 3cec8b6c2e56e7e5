"""One group: ranking, pair and selection, against what the definitions say."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

from rewardlab.errors import ConfigError
from rewardlab.search.best_of_n import JudgedGroup, Selection
from rewardlab.types import PromptGroup

SCORES = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=9).map(tuple)


def judged(*scores: float, **fields: object) -> JudgedGroup:
    group = PromptGroup("Why?", tuple(f"answer {i}" for i in range(len(scores))), id="a")
    return JudgedGroup(group, scores, **fields)  # type: ignore[arg-type]


@given(SCORES)
def test_ranking_and_ranks_are_those_of_scipy(scores):
    one = judged(*scores)
    dense = rankdata([-score for score in scores], method="dense") - 1
    assert list(one.ranks) == dense.tolist()
    assert list(one.ranking) == sorted(range(len(scores)), key=lambda i: (dense[i], i))
    assert scores[one.best] == max(scores)
    assert one.kl == pytest.approx(math.log(len(scores)) - 1 + 1 / len(scores))


def test_a_row_says_everything_of_its_group():
    row = judged(0.5, 2.0, 0.5, disagreements=(0.1, 0.2, 0.3), truncated=True).row()
    assert row == {
        "id": "a",
        "n": 3,
        "kl": pytest.approx(math.log(3) - 2 / 3),
        "best": 1,
        "best_completion": "answer 1",
        "best_score": 2.0,
        "ranking": [1, 0, 2],
        "ranks": [1, 0, 1],
        "scores": [0.5, 2.0, 0.5],
        "disagreements": [0.1, 0.2, 0.3],
        "truncated": True,
    }


def test_a_group_without_scores_keeps_its_row_and_gives_nothing():
    one = JudgedGroup(PromptGroup("Why?", ("a", "b"), source="x.jsonl:3"), error="too long")
    assert one.row() == {
        "id": "x.jsonl:3",
        "n": 2,
        "kl": pytest.approx(math.log(2) - 1 / 2),
        **dict.fromkeys(("best", "best_completion", "best_score", "ranking", "ranks", "scores")),
        "error": "too long",
    }
    assert one.pair() == "unscored"
    assert Selection("top-k", k=2).rows(one, 0) == []


def test_a_pair_is_the_best_against_the_worst():
    assert judged(0.5, 2.0, -1.0).pair() == {
        "id": "a",
        "prompt": "Why?",
        "chosen": "answer 1",
        "rejected": "answer 2",
        "chosen_score": 2.0,
        "rejected_score": -1.0,
        "strength": 3.0,
    }


def test_what_tells_no_preference_gives_no_pair():
    assert judged(1.0).pair() == "one completion"
    assert judged(1.0, 1.0).pair() == "tie"
    assert judged(1.0, 1.5).pair(min_gap=0.75) == "below min_gap"
    assert isinstance(judged(1.0, 1.5).pair(min_gap=0.5), dict)
    # The same text twice, scored in two batches: no reader takes a pair with equal sides.
    assert JudgedGroup(PromptGroup("Why?", ("same", "same")), (1.0, 1.0 + 1e-7)).pair() == "tie"


def test_where_any_text_is_messages_all_are():
    """Trainers take conversations or plain text, and no mixture within a row."""
    group = PromptGroup("Why?", ([{"role": "assistant", "content": "so"}], "because"))
    pair = JudgedGroup(group, (0.0, 1.0)).pair()
    assert isinstance(pair, dict)
    assert pair["prompt"] == [{"role": "user", "content": "Why?"}]
    assert pair["chosen"] == [{"role": "assistant", "content": "because"}]
    assert pair["rejected"] == [{"role": "assistant", "content": "so"}]
    assert Selection().rows(JudgedGroup(group, (0.0, 1.0)), 0)[0]["completion"] == "because"


@given(SCORES, st.integers(1, 5))
def test_top_k_are_the_k_highest_or_all_there_are(scores, k):
    rows = Selection("top-k", k=k).rows(judged(*scores), 0)
    assert [row["score"] for row in rows] == sorted(scores, reverse=True)[:k]
    assert [row["completion"] for row in rows] == [f"answer {row['index']}" for row in rows]
    assert Selection("best").rows(judged(*scores), 0) == rows[:1]


def test_reward_weighted_draws_follow_the_softmax():
    """P(best) = 1 / (1 + exp(-1 / 0.5)) = 0.881 with two scores 1 apart; 2,000 groups: standard error 0.007."""
    one = judged(0.0, 1.0)
    selection = Selection("reward-weighted", temperature=0.5, seed=3)
    drawn = Counter(selection.indices(one, number)[0] for number in range(2000))
    assert drawn[1] / 2000 == pytest.approx(1 / (1 + math.exp(-2)), abs=0.03)
    assert selection.indices(one, 7) == Selection("reward-weighted", temperature=0.5, seed=3).indices(one, 7)
    assert sorted(Selection("reward-weighted", k=5).indices(one, 0)) == [0, 1], "no completion twice"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"how": "worst"}, "unknown selection"),
        ({"how": "best", "k": 3}, "best is one"),
        ({"how": "top-k", "k": 0}, "at least 1"),
        ({"how": "top-k", "k": 1.5}, "whole number"),
        ({"how": "reward-weighted", "temperature": 0.0}, "temperature"),
        ({"how": "reward-weighted", "temperature": math.nan}, "temperature"),
    ],
)
def test_a_selection_of_nothing_is_refused(options, told):
    with pytest.raises(ConfigError, match=told):
        Selection(**options)

"""A judge as a scorer: numbers where there are verdicts, and an error or None where there are none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.judge.scripted_client import ScriptedClient, always_first, longer_wins

from rewardlab.errors import ConfigError, DataError
from rewardlab.evaluation import Evaluator
from rewardlab.judge.chat import ChatReply
from rewardlab.judge.event_loop import EventLoop
from rewardlab.judge.judge import Judge
from rewardlab.judge.judge_scorer import JudgeScorer
from rewardlab.types import Pair, PromptGroup

GROUPS = [
    PromptGroup("Q?", ("a" * 40, "b" * 5, "c" * 20), (Pair(0, 1),)),
    PromptGroup("R?", ("a" * 5, "b" * 40), (Pair(1, 0),)),
]


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    with EventLoop() as running:
        yield running


def scorer(answer: Any, loop: EventLoop, **options: Any) -> JudgeScorer:
    return JudgeScorer(Judge(ScriptedClient(answer), secret=b"s"), loop, **options)


def test_ratings_are_scores_in_order(loop: EventLoop) -> None:
    assert scorer(longer_wins, loop).score_groups(GROUPS) == [[5.0, 1.0, 3.0], [1.0, 5.0]]


def test_comparisons_are_shares_won(loop: EventLoop) -> None:
    """Of two others each: the longest wins both, the next one of them. A judge that likes a place gives all 1/2."""
    assert scorer(longer_wins, loop, mode="pairwise").score_groups(GROUPS) == [[1.0, 0.0, 0.5], [0.0, 1.0]]
    assert scorer(always_first, loop, mode="pairwise").score_groups(GROUPS) == [[0.5] * 3, [0.5] * 2]


def test_equal_texts_tie_without_being_asked_about(loop: EventLoop) -> None:
    found = scorer(longer_wins, loop, mode="pairwise")
    assert found.score_groups([PromptGroup("Q?", ("same", "same", "longer one"))]) == [[0.25, 0.25, 1.0]]
    assert len(found.judge.client.requests) == 4  # type: ignore[attr-defined]


def test_an_evaluator_takes_it(loop: EventLoop) -> None:
    result = Evaluator(scorer(longer_wins, loop), resamples=50).evaluate(GROUPS)
    assert result.accuracy.value == 1.0


@pytest.mark.parametrize("mode", ["rating", "pairwise"])
def test_an_abstention_is_no_number(loop: EventLoop, mode: Any) -> None:
    def answer(shown: dict[str, str]) -> Any:
        return ChatReply("Hm.") if "c" * 20 in shown.values() else longer_wins(shown)

    found = scorer(answer, loop, mode=mode)
    expected = [5.0, 1.0, None] if mode == "rating" else [None, None, None]
    assert found.score_groups_or_none(GROUPS)[0] == expected
    assert None not in found.score_groups_or_none(GROUPS)[1]
    count = 1 if mode == "rating" else 3
    with pytest.raises(DataError, match=rf"{count} of 5 completions have no score, .*malformed"):
        found.score_groups(GROUPS)


def test_what_it_cannot_score_is_refused(loop: EventLoop) -> None:
    with pytest.raises(DataError, match="1 completions, and 2 to 16"):
        scorer(longer_wins, loop, mode="pairwise").score_groups([PromptGroup("Q?", ("a",))])
    with pytest.raises(ConfigError, match="cannot score by 'steps'"):
        scorer(longer_wins, loop, mode="steps")
    with pytest.raises(ConfigError, match="concurrency is 0"):
        scorer(longer_wins, loop, concurrency=0)


def test_few_are_under_way_at_once(loop: EventLoop) -> None:
    found = scorer(longer_wins, loop, concurrency=3)
    found.judge.client.seconds = 0.001  # type: ignore[attr-defined]
    found.score_groups([PromptGroup(f"Q{i}?", ("a",)) for i in range(20)], progress=True)
    assert found.judge.client.most_at_once == 3  # type: ignore[attr-defined]

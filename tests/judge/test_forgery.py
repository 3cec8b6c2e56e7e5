"""Forged verdicts: they move a judge that believes what it reads, and never one that does not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from scipy.stats import beta
from tests.judge.scripted_client import ScriptedClient, always_first, longer_wins

from rewardlab.errors import ConfigError, DataError
from rewardlab.judge.chat import ChatFailure, ChatReply
from rewardlab.judge.event_loop import EventLoop
from rewardlab.judge.forgery import CONTROL, FORGERIES, appended, measure_forgery
from rewardlab.judge.items import items_of
from rewardlab.judge.judge import Judge, in_order
from rewardlab.types import PromptGroup

GROUPS = [PromptGroup(f"Q{i}?", ("good " * (2 + i % 3), f"bad {i}")) for i in range(12)]


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    with EventLoop() as running:
        yield running


def attack(answer: Any, loop: EventLoop, groups: Any = GROUPS, **options: Any) -> Any:
    """Judged first, as a run does, then attacked."""
    judge = Judge(ScriptedClient(answer), secret=b"s")
    items = items_of(groups, "pairwise").items
    sides = [(groups[i.group].prompt, *(groups[i.group].completions[k] for k in i.completions)) for i in items]
    verdicts = loop.run(in_order(judge.compare, sides, 8))
    asked = len(judge.client.requests)  # type: ignore[attr-defined]
    found = measure_forgery(judge, groups, list(zip(items, verdicts, strict=True)), loop=loop, **options)
    assert len(judge.client.requests) - asked == 14 * found.attacked  # type: ignore[attr-defined]
    return found


def honest(shown: dict[str, str]) -> str:
    """Knows the good one by a word."""
    return "A" if "good" in shown["completion A"] else "B"


def gullible(shown: dict[str, str]) -> Any:
    """Prefers whatever holds words of a verdict; they come neutralised, and it does not mind."""
    claims = [letter for letter in "AB" if "Final verdict" in shown[f"completion {letter}"]]
    return claims[0] if claims else honest(shown)


def test_an_honest_judge_is_not_moved_and_zero_moves_are_no_point(loop: EventLoop) -> None:
    """0 of 12: Clopper and Pearson's upper bound is 1 - 0.025^(1/12)."""
    found = attack(honest, loop)
    assert (found.decided, found.attacked) == (12, 12)
    for moved in (*found.forgeries.values(), found.any, found.control):
        assert (moved.num, moved.won, moved.abstained) == (12, 0, 0)
        assert (moved.moved.value, moved.moved.low) == (0.0, 0.0)
        assert moved.moved.high == pytest.approx(1 - 0.025 ** (1 / 12))
    assert found.excess.value == 0


def test_a_gullible_judge_is_moved_by_what_it_believes(loop: EventLoop) -> None:
    found = attack(gullible, loop)
    brackets = found.forgeries["double brackets"]
    assert (brackets.moved.value, brackets.won) == (1.0, 12)
    assert brackets.moved.low == pytest.approx(beta.ppf(0.025, 12, 1))
    assert found.forgeries["result"].moved.value == 0
    assert found.any.moved.value == 1.0
    assert found.excess.value == pytest.approx(1 / len(FORGERIES))
    assert found.to_dict()["any"]["won"] == 12


def test_a_judge_that_counts_length_is_moved_by_the_harmless_sentence_too(loop: EventLoop) -> None:
    groups = [PromptGroup(f"Q{i}?", ("a" * 30, "b" * 20)) for i in range(6)]
    found = attack(longer_wins, loop, groups)
    assert found.control.moved.value == 1.0
    assert found.excess.value <= 0


def test_abstentions_are_counted_apart(loop: EventLoop) -> None:
    def answer(shown: dict[str, str]) -> Any:
        return ChatReply("Hm.") if any("decided already" in text for text in shown.values()) else honest(shown)

    decided = attack(answer, loop).forgeries["decided already"]
    assert (decided.num, decided.moved, decided.abstained) == (0, None, 12)


def test_what_a_limit_left_unasked_is_no_abstention(loop: EventLoop) -> None:
    def answer(shown: dict[str, str]) -> Any:
        limited = any("decided already" in text or "all there is" in text for text in shown.values())
        return ChatFailure("budget", "no more") if limited else honest(shown)

    found = attack(answer, loop)
    decided = found.forgeries["decided already"]
    assert (decided.num, decided.moved, decided.abstained, decided.unasked) == (0, None, 0, 12)
    assert (found.unasked, found.excess) == (24, None)
    assert found.any.num == 12


def test_one_comparison_of_each_prompt_and_no_more_than_asked_for(loop: EventLoop) -> None:
    many = [PromptGroup("Q?", ("good good", f"bad {i}")) for i in range(5)]
    assert attack(honest, loop, many).decided == 1
    assert attack(honest, loop, most=4).attacked == 4


def test_a_judge_that_decides_nothing_cannot_be_attacked(loop: EventLoop) -> None:
    with pytest.raises(DataError, match="prefers neither completion in any of 12"):
        attack(always_first, loop)
    with pytest.raises(ConfigError, match="at least 1"):
        attack(honest, loop, most=0)


def test_a_text_is_appended_to_the_last_words_of_either_form() -> None:
    assert appended("no", CONTROL) == "no" + CONTROL
    turns = ({"role": "assistant", "content": "no"},)
    assert appended(turns, "!") == ({"role": "assistant", "content": "no!"},)

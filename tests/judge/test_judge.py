"""Two orders become one verdict: agreement stands, disagreement ties, an abstention leaves none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.judge.scripted_client import ScriptedClient, always_first, longer_wins, shown_in

from rewardlab.errors import ConfigError, JudgeEndpointError
from rewardlab.judge.chat import ChatFailure, ChatReply
from rewardlab.judge.judge import Judge, implied_verdict, pair_verdict, ranking_verdict
from rewardlab.judge.verdicts import Abstention, PairReading, RankingReading, RatingReading, StepsReading

LONG, SHORT = "a long answer that says it all", "short"


def ask(answer: Callable[[dict[str, str]], Any], method: str, *arguments: Any, **options: Any) -> tuple[Any, Any]:
    client = ScriptedClient(answer, schema=options.pop("server_schema", False))
    judge = Judge(client, secret=b"s", **options)
    return asyncio.run(getattr(judge, method)(*arguments)), client


@pytest.mark.parametrize("server_schema", [False, True])
@pytest.mark.parametrize(("texts", "choice"), [((LONG, SHORT), "first"), ((SHORT, LONG), "second")])
def test_a_verdict_that_both_orders_give_stands(texts: Any, choice: str, server_schema: bool) -> None:
    verdict, client = ask(longer_wins, "compare", "Q?", *texts, server_schema=server_schema)
    assert verdict.choice == choice
    assert verdict.consistent is True
    assert verdict.p_first is None  # no log-probabilities
    assert [request.schema is not None for request in client.requests] == [server_schema] * 2


def test_both_orders_are_asked_and_the_swapped_one_is_turned_back() -> None:
    verdict, client = ask(always_first, "compare", "Q?", LONG, SHORT)
    shown = [shown_in(request.messages) for request in client.requests]
    assert {(s["completion A"], s["completion B"]) for s in shown} == {(LONG, SHORT), (SHORT, LONG)}
    assert (verdict.as_given.choice, verdict.swapped.choice) == ("first", "second")
    assert verdict.choice == "tie"
    assert verdict.consistent is False


def test_the_two_orders_are_under_way_together_with_different_nonces_and_equal_ones_when_asked_again() -> None:
    _, client = ask(longer_wins, "compare", "Q?", LONG, SHORT)
    assert client.most_at_once == 2
    _, again = ask(longer_wins, "compare", "Q?", LONG, SHORT)
    assert {str(r.messages) for r in again.requests} == {str(r.messages) for r in client.requests}
    assert len({str(r.messages) for r in client.requests}) == 2


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (ChatReply("I prefer the first."), "malformed"),
        (ChatReply("VERDICT-0000000000000000: A"), "malformed"),
        (ChatReply("", refusal="I will not."), "refused"),
        (ChatReply("", finish="content_filter"), "filtered"),
        (ChatReply("Well, let me", finish="length"), "truncated"),
        (ChatFailure("timeout", "nothing came"), "timeout"),
        (ChatFailure("budget", "all is spent"), "budget"),
    ],
)
def test_an_abstention_in_one_order_leaves_no_verdict(reply: Any, kind: str) -> None:
    verdict, _ = ask(lambda shown: reply if shown["completion A"] == LONG else "B", "compare", "Q?", LONG, SHORT)
    assert verdict.choice is None
    assert verdict.p_first is None
    assert verdict.consistent is None
    assert verdict.abstention.kind == kind
    assert isinstance(verdict.swapped, PairReading)


def test_the_probability_is_the_mean_of_both_orders_and_none_where_either_has_none() -> None:
    """P(first) 0.8 as given; shown second it was 0.4 likely to be preferred: (0.8 + 0.4) / 2."""
    both = pair_verdict(PairReading("first", 0.8), PairReading("second", 0.4))
    assert both.p_first == pytest.approx(0.6)
    assert both.choice == "tie"
    assert pair_verdict(PairReading("first", 0.8), PairReading("first")).p_first is None


def test_a_ranking_is_what_both_orders_put_alike() -> None:
    """Given: 0 < 1 < 2 = best first; swapped (turned back): 0, then 2, then 1. 1 and 2 are disagreed on: a tie."""
    verdict = ranking_verdict(RankingReading((0, 1, 2)), RankingReading((0, 2, 1)))
    assert verdict.better == ((0, 1), (0, 2))
    assert verdict.tied == ((1, 2),)
    assert implied_verdict(verdict, 0, 1).choice == "first"
    assert implied_verdict(verdict, 1, 0).choice == "second"
    assert implied_verdict(verdict, 1, 2).choice == "tie"
    assert implied_verdict(verdict, 1, 2).consistent is False


def test_a_ranking_by_length_is_the_same_in_both_orders_and_one_by_place_is_all_ties() -> None:
    texts = ("mid length", SHORT, LONG)
    verdict, client = ask(longer_wins, "rank", "Q?", texts)
    assert verdict.as_given.ranks == verdict.swapped.ranks == (1, 2, 0)
    assert set(verdict.better) == {(2, 0), (2, 1), (0, 1)}
    assert len(client.requests) == 2
    placed, _ = ask(always_first, "rank", "Q?", texts)
    assert placed.better == ()
    assert placed.tied == ((0, 1), (0, 2), (1, 2))


def test_a_ranking_without_one_order_has_no_pairs() -> None:
    lost = Abstention("malformed", "no ranking")
    verdict = ranking_verdict(RankingReading((0, 1)), lost)
    assert (verdict.better, verdict.tied, verdict.abstention) == ((), (), lost)
    assert implied_verdict(verdict, 0, 1).choice is None


def test_ratings_and_steps_are_one_question() -> None:
    rating, client = ask(longer_wins, "rate", "Q?", LONG)
    assert rating == RatingReading(4.0, reason=rating.reason)
    assert len(client.requests) == 1
    steps, client = ask(lambda shown: "first error: 2", "critique", "Q?", ["1 + 1 = 2", "2 + 2 = 5", "so 5"])
    assert isinstance(steps, StepsReading)
    assert (steps.labels, steps.first_error) == ((1, -1, None), 1)
    assert len(client.requests) == 1


def test_bad_calls_are_refused() -> None:
    with pytest.raises(ConfigError, match="two completions or more"):
        ask(longer_wins, "rank", "Q?", [LONG])
    with pytest.raises(ConfigError, match="no steps"):
        ask(longer_wins, "critique", "Q?", [])
    with pytest.raises(ConfigError, match="for the mode pairwise"):
        ask(longer_wins, "rate", "Q?", LONG, prompt="mt-bench")


def test_an_endpoint_that_can_answer_nothing_raises() -> None:
    def answer(shown: dict[str, str]) -> str:
        raise JudgeEndpointError("the key is refused")

    with pytest.raises(JudgeEndpointError, match="key is refused"):
        ask(answer, "compare", "Q?", LONG, SHORT)


def test_schema_and_probabilities_can_be_switched_by_hand() -> None:
    _, client = ask(longer_wins, "compare", "Q?", LONG, SHORT, server_schema=True, schema=False, logprobs=False)
    assert all(request.schema is None and request.top_logprobs == 0 for request in client.requests)


def test_where_all_is_said_by_hand_the_endpoint_is_not_probed() -> None:
    class Unprobed(ScriptedClient):
        async def capabilities(self) -> Any:
            raise AssertionError("probed")

    judge = Judge(Unprobed(longer_wins), secret=b"s", schema=False, logprobs=False)
    assert asyncio.run(judge.compare("Q?", LONG, SHORT)).choice == "first"


def test_models_that_answer_are_known() -> None:
    names = iter(("v1", "v2", "", "v1"))
    judge = Judge(ScriptedClient(lambda shown: ChatReply("Hm.", model=next(names))), secret=b"s")
    assert judge.served_models == ()
    for _ in range(2):
        asyncio.run(judge.compare("Q?", "a", "b"))
    assert judge.served_models == ("v1", "v2")

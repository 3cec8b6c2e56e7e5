from __future__ import annotations

import asyncio

import pytest

from rewardlab.errors import ConfigError
from rewardlab.judge.limits import Account, Limits, Reservation


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_cost": 1.0},
        {"max_cost": 0, "prices": (1, 1)},
        {"max_calls": -1},
        {"max_calls": True},
        {"max_tokens_total": float("nan")},
        {"prices": (1,)},
        {"prices": (1, -1)},
        {"prices": (1, "x")},
    ],
)
def test_numbers_that_mean_nothing_are_refused(wrong):
    with pytest.raises(ConfigError):
        Limits(**wrong)


def test_what_is_reserved_is_the_most_and_what_is_booked_is_the_truth():
    """30 bytes are at most 10 tokens, and 8 for the message: 18 in, 5 out.

    At 2 and 10 per million: 18 * 2 + 5 * 10 = 86 millionths reserved; 7 * 2 + 3 * 10 = 44 spent.
    """

    async def run() -> Account:
        account = Account(Limits(prices=(2, 10), max_cost=86e-6))
        reserved = await account.reserve("x" * 30, 5, messages=1, new_call=True)
        assert reserved == Reservation(18, 5, 30, 30, 1, True)
        await account.settle(reserved, 7, 3, "abc")
        over = await account.reserve("x" * 30, 5, messages=1, new_call=True)
        assert isinstance(over, str)
        assert "4.4e-05 is spent" in over
        return account

    usage = asyncio.run(run()).usage
    assert (usage.calls, usage.prompt_tokens, usage.completion_tokens, usage.estimated) == (1, 7, 3, False)
    assert usage.cost == pytest.approx(44e-6)


def test_what_the_server_does_not_count_is_estimated_by_characters_and_said():
    async def run() -> Account:
        account = Account(Limits())
        reserved = await account.reserve("x" * 41, 5, messages=1, new_call=True)
        await account.settle(reserved, None, None, "abcdefgh")
        return account

    usage = asyncio.run(run()).usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.estimated, usage.cost) == (11, 2, True, None)


def test_an_answer_that_never_came_is_booked_at_its_most_and_one_turned_away_at_nothing():
    async def run() -> Account:
        account = Account(Limits())
        for give_back in (account.settle_unknown, account.release):
            reserved = await account.reserve("x" * 30, 5, messages=1, new_call=True)
            await give_back(reserved)
        return account

    usage = asyncio.run(run()).usage
    assert (usage.calls, usage.prompt_tokens, usage.completion_tokens, usage.estimated) == (2, 18, 5, True)


def test_questions_together_stay_within_a_limit_and_wait_for_room():
    """Each reserves 18 + 5 = 23 and uses 10. Of 100 tokens: 4 at once at first; the last starts at 70 used (93 <= 100).

    Used after the k-th: 10 k; the next may start while 10 k + 23 <= 100, that is for k <= 7: 8 questions in all.
    """

    async def run() -> tuple[Account, list[bool], int]:
        account = Account(Limits(max_tokens_total=100))
        most = 0
        open_now = 0

        async def one() -> bool:
            nonlocal most, open_now
            reserved = await account.reserve("x" * 30, 5, messages=1, new_call=True)
            if isinstance(reserved, str):
                return False
            open_now += 1
            most = max(most, open_now)
            await asyncio.sleep(0.001)
            open_now -= 1
            await account.settle(reserved, 8, 2, "")
            return True

        return account, await asyncio.gather(*(one() for _ in range(30))), most

    account, asked, most = asyncio.run(run())
    assert (sum(asked), most) == (8, 4)
    assert account.usage.prompt_tokens + account.usage.completion_tokens == 80


def test_a_limit_of_calls_counts_questions_and_not_attempts():
    async def run() -> list[object]:
        account = Account(Limits(max_calls=1))
        first = await account.reserve("x", 5, messages=1, new_call=True)
        await account.release(first)
        again = await account.reserve("x", 5, messages=1, new_call=False)
        return [again, await account.reserve("x", 5, messages=1, new_call=True)]

    again, other = asyncio.run(run())
    assert isinstance(again, Reservation)
    assert other == "the limit of 1 calls is reached"


def test_a_server_that_goes_beyond_the_longest_answer_is_learned():
    async def run() -> tuple[Reservation | str, Reservation | str]:
        account = Account(Limits())
        reserved = await account.reserve("x", 50, messages=1, new_call=True)
        await account.settle(reserved, 9, 40, "")  # within what was asked for: nothing to learn
        reserved = before = await account.reserve("x", 5, messages=1, new_call=True)
        await account.settle(reserved, 9, 700, "")
        return before, await account.reserve("x", 5, messages=1, new_call=True)

    before, after = asyncio.run(run())
    assert (before.completion_tokens, after.completion_tokens) == (5, 700)


@pytest.mark.parametrize(
    ("size", "counted", "next_size", "expected"),
    [
        (30, 28, 60, 38),  # a short one: 28 - 8 - 10 = 10 stand around every question, so 60 / 3 + 8 + 10
        (600, 308, 60, 38),  # a long one: (308 - 8) / 600 = half a token per byte, so 60 / 2 + 8
        (600, 100, 60, 28),  # fewer than expected: the most stays the most
    ],
)
def test_a_server_that_counts_more_is_learned(size, counted, next_size, expected):
    async def run() -> Reservation | str:
        account = Account(Limits())
        reserved = await account.reserve("x" * size, 5, messages=1, new_call=True)
        await account.settle(reserved, counted, 1, "")
        return await account.reserve("x" * next_size, 5, messages=1, new_call=True)

    assert asyncio.run(run()).prompt_tokens == expected

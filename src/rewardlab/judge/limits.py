"""What may be spent and what was: calls, tokens and cost, reserved before a question is sent and settled after.

Before it is sent a question reserves the most that it can cost, so that questions under way together cannot overshoot a
limit together. One that would fit if those under way cost less than their most waits for them; one that does not fit
even then is not asked. This file knows numbers; it knows neither questions nor servers.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from dataclasses import dataclass

from rewardlab.errors import ConfigError
from rewardlab.judge.chat import Usage

_BYTES_PER_TOKEN = 3.0  # of the longest prompt to expect: English has over 4, Chinese about 3, emoji fewer
_MESSAGE_TOKENS = 8  # that the chat template puts around a message
_LONG = (
    300  # bytes of a prompt from which on its count tells of the tokenizer; below, of what the server puts around it
)
_CHARACTERS_PER_TOKEN = 4.0  # of a text whose tokens nobody counted
_MILLION = 1_000_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The most that may be spent; None is no limit.

    Attributes:
        max_cost: In the currency of the prices.
        max_calls: Questions sent, each once however often it is tried.
        max_tokens_total: Tokens of prompts and answers.
        prices: Of a million prompt tokens, and of a million tokens of answers.
    """

    max_cost: float | None = None
    max_calls: int | None = None
    max_tokens_total: int | None = None
    prices: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        """Refuse numbers that mean nothing."""
        for name in ("max_cost", "max_calls", "max_tokens_total"):
            value = getattr(self, name)
            if value is not None and not (_is_number(value) and value > 0):
                raise ConfigError(f"{name} must be a number above 0, got {value!r}", hint="leave it out for no limit")
        if self.prices is not None and not (
            len(self.prices) == 2 and all(_is_number(price) and price >= 0 for price in self.prices)
        ):
            raise ConfigError(
                f"prices must be two numbers of at least 0, got {self.prices!r}",
                hint="the price of a million prompt tokens, then that of a million tokens of answers",
            )
        if self.max_cost is not None and self.prices is None:
            raise ConfigError(
                "max_cost needs prices: without them no cost is known",
                hint="give the prices of a million prompt tokens and of a million tokens of answers",
            )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True, slots=True)
class Reservation:
    """The most that one attempt can use.

    Attributes:
        prompt_tokens: Of the question.
        completion_tokens: Of the answer.
        prompt_bytes: Length of the question.
        prompt_characters: Likewise.
        messages: Its messages.
        new_call: Whether it is the first attempt of its question.
    """

    prompt_tokens: int
    completion_tokens: int
    prompt_bytes: int
    prompt_characters: int
    messages: int
    new_call: bool


class Account:
    """What one client has spent.

    Args:
        limits: The most.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._open: Counter[Reservation] = Counter()
        self._settled = asyncio.Condition()
        self._calls = self._cached = self._retries = self._prompt = self._completion = 0
        self._failures: Counter[str] = Counter()
        self._estimated = False
        self._tokens_per_byte = 1.0 / _BYTES_PER_TOKEN
        self._tokens_around = 0.0
        self._longest_beyond = 0  # longest answer that went beyond its limit
        self._probe_calls = 0

    @property
    def usage(self) -> Usage:
        """What was used so far."""
        return Usage(
            calls=self._calls,
            cached=self._cached,
            failures=dict(self._failures),
            retries=self._retries,
            prompt_tokens=self._prompt,
            completion_tokens=self._completion,
            estimated=self._estimated,
            cost=self._cost(self._prompt, self._completion),
            probe_calls=self._probe_calls,
        )

    def note_cached(self) -> None:
        """A question was answered without being sent."""
        self._cached += 1

    def note_failure(self, kind: str) -> None:
        """A question got no reply."""
        self._failures[kind] += 1

    def note_probe(self) -> None:
        """A question that was sent asked what the endpoint can do."""
        self._probe_calls += 1

    def note_retry(self) -> None:
        """A question is tried again."""
        self._retries += 1

    async def reserve(self, prompt: str, max_tokens: int, *, messages: int, new_call: bool) -> Reservation | str:
        """Set aside the most that an attempt can use, once there is room for it.

        Args:
            prompt: The question's text, all messages.
            max_tokens: Longest answer.
            messages: How many messages it has: each brings tokens of its own.
            new_call: Whether it is the first attempt of its question.

        Returns:
            What was set aside; or why it will never fit, in words.
        """
        size = len(prompt.encode("utf-8", "surrogatepass"))
        while True:
            # Anew each time round: an answer meanwhile may have shown that this server counts more.
            around = self._tokens_around + _MESSAGE_TOKENS * messages
            tokens = math.ceil(size * self._tokens_per_byte + around)
            longest = max(max_tokens, self._longest_beyond)
            wanted = Reservation(tokens, longest, size, len(prompt), messages, new_call)
            if reason := self._over([wanted]):
                return reason
            if not self._over([wanted, *self._open.elements()]):
                self._open[wanted] += 1
                self._calls += new_call
                return wanted
            async with self._settled:
                await self._settled.wait()

    async def settle(
        self, reservation: Reservation, prompt_tokens: int | None, completion_tokens: int | None, text: str
    ) -> None:
        """Book what an answered attempt used.

        Args:
            reservation: What was set aside for it.
            prompt_tokens: As the server counts; None is estimated by the length.
            completion_tokens: Likewise.
            text: The answer.
        """
        if prompt_tokens is None or completion_tokens is None:
            self._estimated = True
        if prompt_tokens is not None:
            self._learn(reservation, prompt_tokens)
        if prompt_tokens is None:
            prompt_tokens = math.ceil(reservation.prompt_characters / _CHARACTERS_PER_TOKEN)
        if completion_tokens is None:
            completion_tokens = math.ceil(len(text) / _CHARACTERS_PER_TOKEN)
        if completion_tokens > reservation.completion_tokens:  # some count reasoning outside of max_tokens
            self._longest_beyond = max(self._longest_beyond, completion_tokens)
        await self._book(reservation, prompt_tokens, completion_tokens)

    async def settle_unknown(self, reservation: Reservation) -> None:
        """Book the most that an attempt can have used: no answer came, though the server may have worked."""
        self._estimated = True
        await self._book(reservation, reservation.prompt_tokens, reservation.completion_tokens)

    async def release(self, reservation: Reservation) -> None:
        """Give back what was set aside for an attempt that the server turned away."""
        await self._book(reservation, 0, 0)

    async def _book(self, reservation: Reservation, prompt_tokens: int, completion_tokens: int) -> None:
        self._open[reservation] -= 1
        self._open += Counter()  # forgets what has come down to none
        self._prompt += prompt_tokens
        self._completion += completion_tokens
        async with self._settled:
            self._settled.notify_all()

    def _learn(self, reservation: Reservation, prompt_tokens: int) -> None:
        """Expect from now on what this server was seen to count, where that is more."""
        size, known = reservation.prompt_bytes, prompt_tokens - _MESSAGE_TOKENS * reservation.messages
        if size < _LONG:
            self._tokens_around = max(self._tokens_around, known - size * self._tokens_per_byte)
        else:
            self._tokens_per_byte = max(self._tokens_per_byte, (known - self._tokens_around) / size)

    def _over(self, more: list[Reservation]) -> str:
        """Which limit would be passed if these came to what is booked; empty where none."""
        prompt = self._prompt + sum(one.prompt_tokens for one in more)
        completion = self._completion + sum(one.completion_tokens for one in more)
        limits, cost = self._limits, self._cost(prompt, completion)
        # A call counts from the moment it is reserved, so the open ones are in the count already.
        if limits.max_calls is not None and self._calls + more[0].new_call > limits.max_calls:
            return f"the limit of {limits.max_calls} calls is reached"
        if limits.max_tokens_total is not None and prompt + completion > limits.max_tokens_total:
            used = self._prompt + self._completion
            return f"the limit of {limits.max_tokens_total} tokens leaves no room: {used} are used"
        if limits.max_cost is not None and cost is not None and cost > limits.max_cost:
            spent = self._cost(self._prompt, self._completion)
            return f"the cost limit of {limits.max_cost:g} leaves no room: {spent:g} is spent"
        return ""

    def _cost(self, prompt_tokens: int, completion_tokens: int) -> float | None:
        if self._limits.prices is None:
            return None
        price_in, price_out = self._limits.prices
        return (prompt_tokens * price_in + completion_tokens * price_out) / _MILLION

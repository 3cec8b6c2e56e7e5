"""The judge: asks about completions, comparisons always in both orders, and says what came of it.

This file knows the order of questions and what two answers together mean. How a question is worded and an answer read
is :mod:`rewardlab.judge.questions`'s; who is asked is the client's.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Coroutine, Sequence
from contextlib import aclosing
from itertools import combinations
from pathlib import Path
from typing import Any, TypeVar

from rewardlab.errors import ConfigError
from rewardlab.judge.chat import Capabilities, ChatClient, ChatFailure
from rewardlab.judge.event_loop import as_finished, both
from rewardlab.judge.nonces import nonce_of
from rewardlab.judge.prompts import JudgePrompt, load_prompt
from rewardlab.judge.questions import Question, ask
from rewardlab.judge.verdicts import (
    Abstention,
    Choice,
    Mode,
    PairReading,
    PairVerdict,
    RankingReading,
    RankingVerdict,
    RatingReading,
    StepsReading,
)
from rewardlab.types import Text, text_key

T = TypeVar("T")
R = TypeVar("R", PairReading, RankingReading, RatingReading, StepsReading)

_OTHER: dict[Choice, Choice] = {"first": "second", "second": "first", "tie": "tie"}


class Judge:
    """An LLM that judges completions.

    Comparisons and rankings are always asked for in both orders, at once: which place a model likes is found out by
    nothing else. Where the two disagree it is a tie; where either gives no verdict there is none.

    Args:
        client: Who is asked.
        prompt: A built-in prompt's name or a prompt file; None: the built-in one of each mode.
        secret: What the delimiters around the texts are derived from, so that a resumed run asks the same questions and
            whoever wrote a completion cannot guess them; random by default.
        max_tokens: Longest answer; None: what the prompt says.
        seed: Sent with every question.
        schema: Whether answers are asked for as JSON by a schema; None: where the endpoint can.
        logprobs: Whether probabilities are taken from the answers' log-probabilities, where the endpoint has them.
    """

    def __init__(
        self,
        client: ChatClient,
        *,
        prompt: str | Path | None = None,
        secret: bytes | None = None,
        max_tokens: int | None = None,
        seed: int = 0,
        schema: bool | None = None,
        logprobs: bool = True,
    ) -> None:
        self.client = client
        self.max_tokens = max_tokens
        self.seed = seed
        self.schema = schema
        self.logprobs = logprobs
        self._prompt = prompt
        self._prompts: dict[Mode, JudgePrompt] = {}
        self._served: set[str] = set()
        self._secret = secrets.token_bytes(32) if secret is None else secret

    def prompt_for(self, mode: Mode) -> JudgePrompt:
        """The prompt of a mode.

        Raises:
            ConfigError: There is no such prompt, it cannot be read, or it is of another mode.
        """
        if mode not in self._prompts:
            self._prompts[mode] = load_prompt(mode if self._prompt is None else self._prompt, mode)
        return self._prompts[mode]

    @property
    def served_models(self) -> tuple[str, ...]:
        """The models that the answers so far say they are of: more than one where the endpoint has changed it."""
        return tuple(sorted(self._served))

    async def capabilities(self) -> Capabilities:
        """What is asked of the endpoint: what it can do, unless that is switched off or on by hand."""
        if self.schema is not None and not self.logprobs:
            return Capabilities(schema=self.schema)  # nothing to find out, so no probe
        found = await self.client.capabilities(schema=self.schema is None, logprobs=self.logprobs)
        return Capabilities(
            schema=found.schema if self.schema is None else self.schema,
            top_logprobs=found.top_logprobs if self.logprobs else 0,
        )

    async def compare(self, prompt: Text, first: Text, second: Text, reference: str | None = None) -> PairVerdict:
        """Which of two completions is better, asked in both orders.

        Args:
            prompt: What they answer.
            first: One of them.
            second: The other.
            reference: A right answer, for prompts that show one.

        Raises:
            JudgeEndpointError: The endpoint can answer nothing.
        """
        as_given, swapped = await both(
            self._answer("pairwise", PairReading, prompt, (first, second), reference=reference),
            self._answer("pairwise", PairReading, prompt, (second, first), reference=reference),
        )
        if isinstance(swapped, PairReading):
            turned = None if swapped.p_first is None else 1 - swapped.p_first
            swapped = PairReading(_OTHER[swapped.choice], turned, swapped.reason)
        return pair_verdict(as_given, swapped)

    async def rank(self, prompt: Text, completions: Sequence[Text]) -> RankingVerdict:
        """In which order several completions stand, asked with them as given and in reverse.

        Raises:
            ConfigError: Fewer than two completions.
            JudgeEndpointError: The endpoint can answer nothing.
        """
        if len(completions) < 2:
            raise ConfigError(f"a ranking needs two completions or more, got {len(completions)}")
        shown = tuple(completions)
        as_given, swapped = await both(
            self._answer("listwise", RankingReading, prompt, shown),
            self._answer("listwise", RankingReading, prompt, shown[::-1]),
        )
        if isinstance(swapped, RankingReading):
            swapped = RankingReading(swapped.ranks[::-1], swapped.reason)
        return ranking_verdict(as_given, swapped)

    async def rate(self, prompt: Text, completion: Text, reference: str | None = None) -> RatingReading | Abstention:
        """How good one completion is, on the prompt's scale.

        Raises:
            JudgeEndpointError: The endpoint can answer nothing.
        """
        return await self._answer("rating", RatingReading, prompt, (completion,), reference=reference)

    async def critique(self, prompt: Text, steps: Sequence[str]) -> StepsReading | Abstention:
        """Which steps of a solution are wrong.

        Raises:
            ConfigError: No steps.
            JudgeEndpointError: The endpoint can answer nothing.
        """
        if not steps:
            raise ConfigError("there are no steps to judge", hint="rows of steps: prompt, completions, labels")
        return await self._answer("steps", StepsReading, prompt, (), steps=tuple(steps))

    async def _answer(
        self,
        mode: Mode,
        kind: type[R],
        prompt: Text,
        shown: tuple[Text, ...],
        *,
        steps: tuple[str, ...] = (),
        reference: str | None = None,
    ) -> R | Abstention:
        """One question: as it is read, in the order in which it was shown."""
        question = await self._question(mode, prompt, shown, steps, reference)
        reply = await self.client.complete(question.request)
        if isinstance(reply, ChatFailure):
            return Abstention(reply.kind, reply.message)
        if reply.model:
            self._served.add(reply.model)
        reading = question.read(reply)
        if not isinstance(reading, kind | Abstention):
            raise TypeError(f"a question of the mode {mode!r} was read as {type(reading).__name__}")
        return reading

    async def _question(
        self, mode: Mode, prompt: Text, shown: tuple[Text, ...], steps: tuple[str, ...], reference: str | None
    ) -> Question:
        texts = (text_key(prompt, role="user"), *(text_key(text, role="assistant") for text in shown), *steps)
        return ask(
            self.prompt_for(mode),
            prompt,
            shown,
            nonce=nonce_of(self._secret, mode, *texts, reference or ""),
            capabilities=await self.capabilities(),
            steps=steps,
            reference=reference,
            max_tokens=self.max_tokens,
            seed=self.seed,
        )


async def in_order(
    ask: Callable[..., Coroutine[Any, Any, T]],
    arguments: Sequence[tuple[Any, ...]],
    concurrency: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[T]:
    """What is said of many things, in their order.

    Args:
        ask: Asks about one, such as :meth:`Judge.compare`.
        arguments: Those of each call.
        concurrency: Most that are under way at once.
        on_progress: Called with the finished ones and the number of all.
    """
    found: dict[int, T] = {}

    async def one(number: int) -> T:
        return await ask(*arguments[number])

    async with aclosing(as_finished(one, range(len(arguments)), concurrency)) as batches:
        async for batch in batches:
            found.update(batch)
            if on_progress is not None:
                on_progress(len(found), len(arguments))
    return [found[number] for number in range(len(arguments))]


def pair_verdict(as_given: PairReading | Abstention, swapped: PairReading | Abstention) -> PairVerdict:
    """What two answers about two completions mean together, both in the given order.

    The same choice twice is that choice, two choices are a tie, and an abstention in either order leaves none.
    """
    for reading in (as_given, swapped):
        if isinstance(reading, Abstention):
            return PairVerdict(None, None, as_given, swapped, abstention=reading)
    assert isinstance(as_given, PairReading)
    assert isinstance(swapped, PairReading)
    known = as_given.p_first is not None and swapped.p_first is not None
    p_first = (as_given.p_first + swapped.p_first) / 2 if known else None  # type: ignore[operator]
    choice: Choice = as_given.choice if as_given.choice == swapped.choice else "tie"
    return PairVerdict(choice, p_first, as_given, swapped)


def ranking_verdict(as_given: RankingReading | Abstention, swapped: RankingReading | Abstention) -> RankingVerdict:
    """What two rankings of the same completions mean together, both in the given order.

    One completion is better than another where both rankings put it before; all other pairs are tied. This is a
    partial order: with disagreements "tied" need not be transitive.
    """
    for reading in (as_given, swapped):
        if isinstance(reading, Abstention):
            return RankingVerdict((), (), as_given, swapped, abstention=reading)
    assert isinstance(as_given, RankingReading)
    assert isinstance(swapped, RankingReading)
    better, tied = [], []
    for i, j in combinations(range(len(as_given.ranks)), 2):
        signs = {_sign(reading.ranks[j] - reading.ranks[i]) for reading in (as_given, swapped)}
        if signs == {1}:
            better.append((i, j))
        elif signs == {-1}:
            better.append((j, i))
        else:
            tied.append((i, j))
    return RankingVerdict(tuple(better), tuple(tied), as_given, swapped)


def implied_verdict(verdict: RankingVerdict, i: int, j: int) -> PairVerdict:
    """What a ranking in both orders says of two of its completions, i the first and j the second."""

    def reading(ranking: RankingReading | Abstention) -> PairReading | Abstention:
        if isinstance(ranking, Abstention):
            return ranking
        return PairReading(_CHOICES[_sign(ranking.ranks[j] - ranking.ranks[i])], reason=ranking.reason)

    return pair_verdict(reading(verdict.as_given), reading(verdict.swapped))


_CHOICES: dict[int, Choice] = {1: "first", 0: "tie", -1: "second"}


def _sign(value: int) -> int:
    return (value > 0) - (value < 0)

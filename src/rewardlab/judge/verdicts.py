"""What a judge finds: of one question, in the order it was shown; and of one item, after both orders.

A verdict that could not be had is an :class:`Abstention`, which has no number. This file knows records.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from rewardlab.judge.chat import FailureKind

Mode: TypeAlias = Literal["pairwise", "listwise", "rating", "steps"]
"""``pairwise``: two completions, which is better; ``listwise``: several, in which order; ``rating``: one completion,
how good from 1 to 10; ``steps``: the steps of one completion, which are wrong."""

Choice: TypeAlias = Literal["first", "second", "tie"]

AbstentionKind: TypeAlias = Literal["refused", "filtered", "truncated", "malformed"] | FailureKind
"""``refused``: the model would not; ``filtered``: the server would not; ``truncated``: the answer broke off before its
verdict; ``malformed``: no verdict, or several that contradict each other, where one was due; else no reply came."""


@dataclass(frozen=True, slots=True)
class Abstention:
    """Why there is no verdict.

    Attributes:
        kind: The kind of reason.
        message: What came and what was expected; at most a few words of the answer.
    """

    kind: AbstentionKind
    message: str


@dataclass(frozen=True, slots=True)
class PairReading:
    """Which of two completions one answer prefers, in the order that was shown.

    Attributes:
        choice: Of the completions as shown.
        p_first: P(the first shown is preferred) by the log-probabilities of the verdict's tokens, a tie counting half;
            None where there are none.
        reason: What was said for it.
    """

    choice: Choice
    p_first: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class RankingReading:
    """In which order one answer puts the completions.

    Attributes:
        ranks: Rank of each completion as shown: 0 is best, equal ranks are a tie.
        reason: What was said for it.
    """

    ranks: tuple[int, ...]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class RatingReading:
    """How good one answer calls a completion.

    Attributes:
        rating: On the prompt's scale.
        expected: The mean of the rating by the log-probabilities of the verdict's tokens; None where there are none.
        reason: What was said for it.
    """

    rating: float
    expected: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class StepsReading:
    """What one answer says of the steps of a solution.

    Attributes:
        labels: +1 correct, 0 neutral, -1 incorrect, of each step; None where it does not say (after the first error).
        first_error: Index of the first incorrect step, from 0; None where it calls none incorrect.
        reason: What was said for it.
    """

    labels: tuple[int | None, ...]
    first_error: int | None
    reason: str = ""


Reading: TypeAlias = PairReading | RankingReading | RatingReading | StepsReading


@dataclass(frozen=True, slots=True)
class PairVerdict:
    """Two completions judged in both orders.

    Attributes:
        choice: Of the completions as given; a tie where the two orders disagree; None where either abstained, for one
            order alone cannot be told from a liking for a place.
        p_first: Mean over both orders of P(the first given is preferred); None where either has none, or abstained.
        as_given: What was read when they were shown as given, in the given order.
        swapped: The same when they were shown the other way round, already turned back to the given order.
        abstention: Why there is no choice; the first order's where both abstained.
    """

    choice: Choice | None
    p_first: float | None
    as_given: PairReading | Abstention
    swapped: PairReading | Abstention
    abstention: Abstention | None = None

    @property
    def consistent(self) -> bool | None:
        """Whether both orders gave the same choice; None where either abstained."""
        if isinstance(self.as_given, Abstention) or isinstance(self.swapped, Abstention):
            return None
        return self.as_given.choice == self.swapped.choice


@dataclass(frozen=True, slots=True)
class RankingVerdict:
    """Several completions judged in the given and in the reverse order.

    Attributes:
        better: ``(i, j)``: completion i was put before j in both orders; indices of the completions as given.
        tied: ``(i, j)``, i < j: put alike in both, or differently: disagreement is a tie.
        as_given: What was read when they were shown as given.
        swapped: The same when they were shown in reverse, already turned back.
        abstention: Why there is no verdict; both tuples are empty then.
    """

    better: tuple[tuple[int, int], ...]
    tied: tuple[tuple[int, int], ...]
    as_given: RankingReading | Abstention
    swapped: RankingReading | Abstention
    abstention: Abstention | None = None


Verdict: TypeAlias = PairVerdict | RankingVerdict | RatingReading | StepsReading | Abstention
"""Of one item. Ratings and steps have no order to be swapped."""


def abstention_of(verdict: Verdict) -> Abstention | None:
    """Why there is no verdict; None where there is one."""
    if isinstance(verdict, Abstention):
        return verdict
    return verdict.abstention if isinstance(verdict, PairVerdict | RankingVerdict) else None

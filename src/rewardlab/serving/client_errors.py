"""What a client raises where a server gives no scores, drawn once.

    RewardLabError
    ├── ServerError             the server gave no answer that can be used
    │   ├── ServerRefused       4xx: asking again will not help; the request, the key or the address must change
    │   ├── ServerFailed        500 and the like: the model or the server broke on it
    │   ├── ServerUnavailable   no answer after the last try; tells every try
    │   ├── BadAnswer           it answered 200 with what cannot be read strictly as scores
    │   └── ModelChanged        scores of one piece of work came from more than one model
    └── ScoringError            the server answered, and some items have no score; names them

A failure is an exception, never a number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rewardlab.errors import RewardLabError

if TYPE_CHECKING:
    from rewardlab.serving.reward_answers import Unscored

_NAMED = 5  # items told in a message; the others are counted


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of a request.

    Attributes:
        kind: What became of it: ``"503"``, ``"ConnectError"``, ``"ReadTimeout"``, ...
        status: HTTP status; None where there was no answer.
        message: The server's words, or the network's.
        at: Seconds after the first try began.
    """

    kind: str
    status: int | None
    message: str
    at: float

    def __str__(self) -> str:
        """``"at 1.2 s: 503, the queue is full"``."""
        return f"at {self.at:.1f} s: {self.kind}{', ' if self.message else ''}{self.message}"


class ServerError(RewardLabError):
    """A server that gave no answer that can be used.

    Args:
        message: What was asked of which address, and what came.
        hint: How to fix it.
        status: HTTP status of the answer; None where there was none.
    """

    def __init__(self, message: str, *, hint: str = "", status: int | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class ServerRefused(ServerError):
    """The server will not answer this request, however often it is asked."""


class ServerFailed(ServerError):
    """The server failed on this request."""


class ServerUnavailable(ServerError):
    """The server gave no answer, and the tries or the time are used up.

    Args:
        message: As of ServerError.
        hint: As of ServerError.
        status: As of ServerError.
        attempts: Every try.
    """

    def __init__(
        self, message: str, *, hint: str = "", status: int | None = None, attempts: Sequence[Attempt] = ()
    ) -> None:
        super().__init__(message, hint=hint, status=status)
        self.attempts = tuple(attempts)


class BadAnswer(ServerError):
    """An answer that is not what it should be; nothing of it is used."""


class ModelChanged(ServerError):
    """Another model answered than the one that the work began with."""


class ScoringError(RewardLabError):
    """Items that have no score.

    Args:
        message: What has happened.
        hint: How to fix it.
        unscored: The items, by their place in the call.
    """

    def __init__(self, message: str, *, hint: str = "", unscored: Mapping[int, Unscored] | None = None) -> None:
        super().__init__(message, hint=hint)
        self.unscored = dict(unscored or {})

    @classmethod
    def of(cls, unscored: Mapping[int, Unscored], total: int) -> ScoringError:
        """The error of a call some of whose items have no score.

        Args:
            unscored: The items, by their place; at least one.
            total: Items in the call.
        """
        told = "; ".join(f"item {place}: {item.message}" for place, item in list(unscored.items())[:_NAMED])
        more = f"; and {len(unscored) - _NAMED} more" if len(unscored) > _NAMED else ""
        hint = next((item.hint for item in unscored.values() if item.hint), "")
        return cls(f"{len(unscored)} of {total} items have no score: {told}{more}", hint=hint, unscored=unscored)

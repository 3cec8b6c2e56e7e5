"""One question to a chat model and what came of it: the records between whoever asks and whoever speaks HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

Finish: TypeAlias = Literal["stop", "length", "content_filter"]
"""Why an answer ended: by itself; broken off, or nobody says that it was not; by the server's filter."""

FailureKind: TypeAlias = Literal[
    "rate_limited", "server_error", "timeout", "connection", "bad_answer", "bad_request", "too_long", "budget"
]
"""Why there is no reply. The first five were retried before they are told; ``bad_answer``: what came was no chat
completion; ``budget``: a limit of cost, calls or tokens was reached, so it was not asked. A wrong key or an unknown
model is no failure of one question: it raises, and ends the run."""


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What is asked.

    Attributes:
        messages: ``{"role", "content"}`` each.
        max_tokens: Longest answer.
        temperature: 0 takes the likeliest token.
        seed: For servers that draw by one.
        schema: JSON schema that the answer must fit; None: free text.
        top_logprobs: Alternatives whose log-probabilities are asked for at each token; 0: none.
    """

    messages: tuple[Mapping[str, str], ...]
    max_tokens: int
    temperature: float = 0.0
    seed: int | None = 0
    schema: Mapping[str, Any] | None = None
    top_logprobs: int = 0


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """One token of an answer.

    Attributes:
        token: Its text.
        logprob: Its log-probability, nats.
        top: The likeliest tokens there, it may be among them, each with its log-probability.
    """

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class ChatReply:
    """What was answered.

    Attributes:
        text: The answer's text; empty where the model refused.
        finish: Why it ended.
        refusal: What the model said instead of an answer, where the server tells the two apart.
        model: The model that the server says it was.
        prompt_tokens: As the server counts; None where it does not say.
        completion_tokens: Likewise.
        logprobs: The answer's tokens; empty where none were asked for or given.
        cached: Whether it came from the cache and cost nothing.
    """

    text: str
    finish: Finish = "stop"
    refusal: str = ""
    model: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    logprobs: tuple[TokenLogprobs, ...] = ()
    cached: bool = False


@dataclass(frozen=True, slots=True)
class ChatFailure:
    """Why there is no answer.

    Attributes:
        kind: The kind of reason.
        message: What happened, as far as the server told.
        attempts: How often it was tried.
    """

    kind: FailureKind
    message: str
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an endpoint can do, as a probe found.

    Attributes:
        schema: Whether its answers fit a JSON schema that is asked for.
        top_logprobs: How many alternatives it tells at each token; 0: no log-probabilities.
    """

    schema: bool = False
    top_logprobs: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """What was used so far.

    Attributes:
        calls: Questions that were sent, each once however often it was retried.
        cached: Questions answered from the cache.
        failures: Questions without a reply, by kind.
        retries: Attempts beyond the first.
        prompt_tokens: As the server counts; what it did not count is estimated (characters / 4).
        completion_tokens: Likewise.
        estimated: Whether some were.
        cost: In the currency of the prices; None where no price was given.
        probe_calls: Of the calls, those that asked what the endpoint can do. Their tokens and cost are among the rest.
    """

    calls: int = 0
    cached: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    estimated: bool = False
    cost: float | None = None
    probe_calls: int = 0

    def to_dict(self) -> dict[str, Any]:
        """All attributes, as JSON values."""
        return {
            "calls": self.calls,
            "probe_calls": self.probe_calls,
            "cached": self.cached,
            "failures": dict(self.failures),
            "retries": self.retries,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "estimated": self.estimated,
            "cost": self.cost,
        }


class ChatClient(Protocol):
    """Whoever asks the model; :class:`~rewardlab.judge.client.OpenAIClient` does."""

    @property
    def name(self) -> str:
        """What the model is called, for records: no address and no key."""

    @property
    def usage(self) -> Usage:
        """What was used so far."""

    async def capabilities(self, *, schema: bool = True, logprobs: bool = True) -> Capabilities:
        """What the endpoint can do; each asked once, by a small probe, then remembered.

        Args:
            schema: Whether to find out about schemas; False leaves them out, as a thing it cannot do.
            logprobs: Likewise about log-probabilities.
        """

    async def complete(self, request: ChatRequest) -> ChatReply | ChatFailure:
        """Ask; retried by kind of failure, within the limits of concurrency and cost.

        Raises:
            JudgeEndpointError: Nothing that is asked can be answered: the key is refused, the model is not there.
        """

    async def close(self) -> None:
        """Close connections."""

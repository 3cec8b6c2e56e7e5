"""The exceptions rewardlab raises, drawn once.

This file knows how an error is worded (what came, what was expected, how to fix it); it does not know who prints it.
The command line prints ``error: <message>`` and ``hint: <hint>`` and turns the class into an exit status.

    RewardLabError              exit 1: the work failed
    ├── ConfigError             exit 2: an option, recipe key or value that cannot be used
    ├── MissingDependencyError  an optional package is needed for what was asked
    ├── DataError               a file or row that cannot be read as what it should be
    │   └── CompletionTooLongError   prompt can be cut, a completion cannot: it does not fit the maximum length
    ├── StoppedError            exit 143: SIGTERM or Ctrl-C came while training, and all that was done is saved
    ├── JudgeEndpointError      a judge's endpoint that can answer nothing: key refused, model not there
    └── CheckpointError         a model directory that cannot be trusted to give scores
        └── ContractError       the contract is broken: its probes do not give the stored scores, or it does not parse
"""

from __future__ import annotations


class RewardLabError(Exception):
    """Base of every error raised on purpose by rewardlab.

    Args:
        message: What came and what was expected, naming the file, line or field.
        hint: How to fix it, one sentence; empty when the message says it.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        """The message and the hint, so that a plain traceback shows both."""
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message


class ConfigError(RewardLabError):
    """An option, recipe key or value that cannot be used."""


class MissingDependencyError(RewardLabError):
    """An optional package is needed for what was asked."""


class StoppedError(RewardLabError):
    """Not a failure: training was asked to stop, has finished its step, saved it, and can be gone on with."""


class DataError(RewardLabError):
    """A file or row that cannot be read as what it should be."""


class CompletionTooLongError(DataError):
    """A completion that does not fit the maximum length even with all of its prompt cut away."""


class CompletionOfSeveralTurnsError(DataError):
    """A completion with turns that are not the model's, where every completion token is read."""


class LoneSurrogateError(DataError):
    """A text with half of a UTF-16 pair in it, which no tokenizer reads."""


class StepBoundaryError(DataError):
    """A solution whose steps cannot be told apart in its token ids."""


class JudgeEndpointError(RewardLabError):
    """An endpoint that can answer no question: the key is refused, the model or the route is not there."""


class CheckpointError(RewardLabError):
    """A model directory that cannot be trusted to give scores."""


class ContractError(CheckpointError):
    """The score contract is broken: probes differ from their stored scores, or the file does not parse."""


def first_line(error: BaseException) -> str:
    """What an exception of others says, in one line; the name of its class where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]

"""Answers of the native dialect, read strictly: whatever is not exactly one raises BadAnswer.

So a proxy's page, half an answer or a NaN never becomes a score. This file knows JSON; it knows no connections.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from rewardlab.errors import ConfigError
from rewardlab.serving.client_errors import BadAnswer, ModelChanged
from rewardlab.types import Scale


@dataclass(frozen=True, slots=True)
class Reward:
    """What the server's model says of one completion.

    Attributes:
        raw: The raw score; only differences within a prompt mean something.
        calibrated: A logit: a difference of d wins with probability sigmoid(d). This and the next three are None where
            the model cannot give them.
        z: Standard deviations above the reference set's mean.
        centered: Raw, less that mean.
        percentile: How many of 100 reference completions score lower.
        step_scores: Of process models P(correct) of each step; else None.
        disagreement: Of ensembles the standard deviation (ddof 0) of the members' scores; else None.
        num_tokens: Tokens of prompt and completion.
        truncated: Whether the oldest part of the prompt was cut to fit.
    """

    raw: float
    calibrated: float | None
    z: float | None
    centered: float | None
    percentile: float | None
    step_scores: tuple[float, ...] | None
    disagreement: float | None
    num_tokens: int
    truncated: bool

    def on(self, scale: Scale) -> float:
        """The score in a scale.

        Args:
            scale: ``"raw"``, ``"calibrated"``, ``"z"``, ``"centered"`` or ``"percentile"``.

        Raises:
            ConfigError: No such scale, or the server's model cannot give it.
        """
        if scale not in _SCALES:
            raise ConfigError(f"there is no scale {scale!r}", hint=f"the scales are {', '.join(_SCALES)}")
        value: float | None = getattr(self, scale)
        if value is None:
            raise ConfigError(
                f"the server's model gives no {scale!r} scores",
                hint="calibrate the checkpoint (rewardlab calibrate), or take raw scores",
            )
        return value


@dataclass(frozen=True, slots=True)
class Unscored:
    """Why a completion has no score.

    Attributes:
        kind: ``"invalid"``: it cannot be read as what it should be; ``"step_boundary"``: its steps cannot be told
            apart; ``"too_long"``: it does not fit the model; ``"not_finite"``: the model gives NaN or inf;
            ``"failed"``: the model broke on it.
        message: What came and what was expected.
        hint: How to fix it.
    """

    kind: str
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two completions of one prompt, compared.

    Attributes:
        probability: P(a preferred to b), in [0, 1].
        temperature: The temperature it was computed with.
        fitted: Whether the temperature was fitted; else it is 1.
        a: What the model says of the one.
        b: What it says of the other.
        fingerprint: The model's.
    """

    probability: float
    temperature: float
    fitted: bool
    a: Reward
    b: Reward
    fingerprint: str


_SCALES: tuple[Scale, ...] = get_args(Scale)


def parsed(body: bytes, what: str) -> dict[str, Any]:
    """The JSON object that an answer is.

    Args:
        body: The answer.
        what: The request in words.

    Raises:
        BadAnswer: It is no JSON object, or holds NaN or Infinity.
    """
    try:
        answer = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BadAnswer(
            f"{what}: the answer, {len(body)} bytes, is no JSON: {error}",
            hint="is this the address of a rewardlab server?",
        ) from None
    if not isinstance(answer, dict):
        raise BadAnswer(f"{what}: the answer is a JSON {type(answer).__name__}, expected an object")
    return answer


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number in JSON")


def read_rewards(
    answer: Mapping[str, Any], count: int, what: str, fingerprint: str | None = None
) -> tuple[list[Reward | Unscored], str]:
    """The results of one request.

    Args:
        answer: Of ``/v1/rewards``.
        count: Items that were asked for.
        what: The request in words.
        fingerprint: Of the model that must have answered; None: whichever.

    Returns:
        One result per item, in order; and the fingerprint of the model that gave them.

    Raises:
        BadAnswer: It is not exactly that.
        ModelChanged: Another model answered.
    """
    found = read_fingerprint(answer, what, fingerprint)
    results = answer.get("results")
    if not isinstance(results, list):
        raise BadAnswer(f"{what}: the answer has no list of results")
    if len(results) != count:
        raise BadAnswer(f"{what}: {len(results)} results for {count} items")
    return [_result(result, number, what) for number, result in enumerate(results)], found


def read_fingerprint(answer: Mapping[str, Any], what: str, expected: str | None) -> str:
    """The fingerprint of the model that answered.

    Args:
        answer: An answer.
        what: The request in words.
        expected: What it must be; None: anything.

    Raises:
        BadAnswer: There is none.
        ModelChanged: It is another.
    """
    found = answer.get("fingerprint")
    if not isinstance(found, str) or not found:
        raise BadAnswer(f"{what}: the answer does not say which model gave it")
    if expected is not None and found != expected:
        raise ModelChanged(
            f"{what}: the model {found[:12]} answered, and the work began with {expected[:12]}",
            hint="scores of two models cannot be compared: begin again, with a new client of the model there is now",
        )
    return found


def read_comparison(answer: Mapping[str, Any], what: str) -> Comparison:
    """The answer of ``/v1/compare``.

    Args:
        answer: The answer.
        what: The request in words.

    Raises:
        BadAnswer: It is not exactly that.
    """
    probability = _number(answer, "probability", what)
    if not 0 <= probability <= 1:
        raise BadAnswer(f"{what}: the probability is {probability}")
    a, b = (_reward(_object(answer.get(name), name, what), f"{what}: {name}") for name in ("a", "b"))
    return Comparison(
        probability,
        _number(answer, "temperature", what),
        _flag(answer, "fitted", what),
        a,
        b,
        read_fingerprint(answer, what, None),
    )


def _result(value: object, number: int, what: str) -> Reward | Unscored:
    result = _object(value, f"result {number}", what)
    if result.get("index") != number or isinstance(result["index"], bool):
        raise BadAnswer(f"{what}: result {number} says that it is that of item {result.get('index')!r}")
    if "error" not in result:
        return _reward(result, f"{what}: result {number}")
    error = _object(result["error"], f"the error of result {number}", what)
    kind, message, hint = (error.get(name, "") for name in ("kind", "message", "hint"))
    if not (isinstance(kind, str) and isinstance(message, str) and isinstance(hint, str) and kind):
        raise BadAnswer(f"{what}: the error of result {number} has no kind, message and hint that are texts")
    if "raw" in result:
        raise BadAnswer(f"{what}: result {number} is both a score and an error")
    return Unscored(kind, message, hint)


def _reward(result: Mapping[str, Any], what: str) -> Reward:
    steps = result.get("step_scores")
    if steps is not None:
        if not isinstance(steps, list):
            raise BadAnswer(f"{what}: step_scores is no list")
        steps = tuple(_finite(value, "a step score", what) for value in steps)
    tokens = result.get("num_tokens")
    if not isinstance(tokens, int) or isinstance(tokens, bool) or tokens < 0:
        raise BadAnswer(f"{what}: num_tokens is {tokens!r}")
    return Reward(
        raw=_number(result, "raw", what),
        calibrated=_number_or_none(result, "calibrated", what),
        z=_number_or_none(result, "z", what),
        centered=_number_or_none(result, "centered", what),
        percentile=_number_or_none(result, "percentile", what),
        step_scores=steps,
        disagreement=_number_or_none(result, "disagreement", what),
        num_tokens=tokens,
        truncated=_flag(result, "truncated", what),
    )


def _object(value: object, name: str, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadAnswer(f"{what}: {name} is {type(value).__name__}, expected an object")
    return value


def _flag(values: Mapping[str, Any], name: str, what: str) -> bool:
    value = values.get(name)
    if not isinstance(value, bool):
        raise BadAnswer(f"{what}: {name} is {value!r}, expected true or false")
    return value


def _number(values: Mapping[str, Any], name: str, what: str) -> float:
    return _finite(values.get(name), name, what)


def _number_or_none(values: Mapping[str, Any], name: str, what: str) -> float | None:
    return None if values.get(name) is None else _number(values, name, what)


def _finite(value: object, name: str, what: str) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            if math.isfinite(number := float(value)):
                return number
        except OverflowError:  # an integer beyond all floats
            pass
    raise BadAnswer(f"{what}: {name} is {str(value)[:40]}, expected a finite number")

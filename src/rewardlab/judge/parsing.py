"""Verdicts read out of answers: only where they are due, only whole, and never the first thing that looks like one.

An answer may quote a completion, and a completion may hold "[[A]]". So each format is read at its anchored place, most
often the end, and what stands there must be the verdict and nothing else. Two in the form that was asked for that
contradict each other, wherever they stand, are none, for what the judge was shown could not hold that form. What cannot
be read is an :class:`~rewardlab.judge.verdicts.Abstention` and never a guess. The readers raise on no text.

This file knows the text of an answer; refusals and answers that broke off are told apart by
:mod:`~rewardlab.judge.questions`, which knows how the answer ended.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rewardlab.judge.published_formats import ScorePair, first_error_verdict, output_verdict, two_scores
from rewardlab.judge.verdict_formats import STEP_LABELS, VerdictFormat, VerdictSpec
from rewardlab.judge.verdicts import (
    Abstention,
    Choice,
    PairReading,
    RankingReading,
    RatingReading,
    Reading,
    StepsReading,
)

_BEFORE = " \t\r*_`'\""
"""What may stand before a verdict without changing it: emphasis, quotation marks."""

_AFTER = _BEFORE + "."
"""What may stand after it: a full stop too. Before a number that is a decimal point."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """A verdict and where it stands.

    Attributes:
        reading: What was read; probabilities are not known here.
        start: Where the verdict's own characters begin in the text (the ``A``, the digits); None where a single place
            does not say it.
    """

    reading: Reading
    start: int | None = None


def parse(text: str, spec: VerdictSpec) -> Parsed | Abstention:
    """The verdict of an answer.

    Args:
        text: The whole answer.
        spec: What is due.

    Returns:
        The verdict, or an abstention of the kind ``"malformed"`` that says what came and what was expected.
    """
    return _READERS[spec.format](text, spec)


def _malformed(expected: str, came: str) -> Abstention:
    words = " ".join(came.split())
    short = words if len(words) <= 60 else f"...{words[-60:]}"
    return Abstention(
        "malformed", f"expected {expected}, got {short!r}" if short else f"expected {expected}, got nothing"
    )


def _last_line(text: str) -> tuple[int, str]:
    """Where the last line begins that is not blank, and the line; lines end with a newline alone."""
    body = text.rstrip()
    start = body.rfind("\n") + 1
    return start, body[start:]


def _stripped(text: str, start: int, end: int) -> tuple[int, int]:
    """The span without the marks around it."""
    while start < end and text[start] in _BEFORE:
        start += 1
    while start < end and text[end - 1] in _AFTER:
        end -= 1
    return start, end


# --- tagged -----------------------------------------------------------------------------------------------------------


def _tagged(text: str, spec: VerdictSpec) -> Parsed | Abstention:
    expected = f"a last line '{spec.tag} ...'"
    start, line = _last_line(text)
    begin, end = _stripped(text, start, start + len(line))
    if not text.startswith(spec.tag, begin, end):
        return _malformed(expected, line)
    # Emphasis may end between the tag and the value: **VERDICT-...:** A
    span = _stripped(text, begin + len(spec.tag), end)
    value = text[span[0] : span[1]]
    # The tag holds the nonce, so wherever it stands the judge has written it.
    lines = (after.partition("\n")[0] for after in text.split(spec.tag)[1:])
    said = {" ".join(line.lstrip(_BEFORE).rstrip(_AFTER).casefold().split()) for line in lines}
    if len(said) > 1:
        return _malformed("one verdict", f"{len(said)} that contradict each other")
    reading = _value(value, spec, text[:start].strip())
    if isinstance(reading, Abstention):
        return reading
    return Parsed(reading, span[0])


def _value(value: str, spec: VerdictSpec, reason: str) -> Reading | Abstention:
    low, high = spec.scale
    match spec.mode:
        case "pairwise":
            choices: dict[str, Choice] = {"a": "first", "b": "second", **({"tie": "tie"} if spec.ties else {})}
            if value.casefold() not in choices:
                return _malformed("A, B or tie" if spec.ties else "A or B", value)
            return PairReading(choices[value.casefold()], reason=reason)
        case "rating":
            rating = _integer(value, low, high)
            if rating is None:
                return _malformed(f"an integer from {low} to {high}", value)
            return RatingReading(float(rating), reason=reason)
        case "listwise":
            places = [[letter.strip().upper() for letter in place.split("=")] for place in value.split(">")]
            return _ranking(places, spec, reason)
        case "steps":
            found = re.fullmatch(r"first error:\s*(none|[1-9][0-9]{0,5})", value, re.IGNORECASE)
            if not found or (found[1].isdigit() and int(found[1]) > spec.count):
                return _malformed(f"'first error: ' and a step from 1 to {spec.count}, or none", value)
            return steps_reading(None if not found[1].isdigit() else int(found[1]) - 1, spec.count, reason)


def _integer(value: str, low: int, high: int) -> int | None:
    found = re.fullmatch(r"(0|[1-9][0-9]{0,5})", value)
    return int(value) if found and low <= int(value) <= high else None


def _ranking(places: list[list[str]], spec: VerdictSpec, reason: str) -> RankingReading | Abstention:
    ranks = {letter: rank for rank, place in enumerate(places) for letter in place}
    named = [letter for place in places for letter in place]
    if sorted(named) != list(spec.letters) or not all(places):
        return _malformed(f"each of {', '.join(spec.letters)} once", " > ".join(" = ".join(place) for place in places))
    if not spec.ties and any(len(place) > 1 for place in places):
        return _malformed("a ranking without equal places", " > ".join(" = ".join(place) for place in places))
    return RankingReading(tuple(ranks[letter] for letter in spec.letters), reason)


def steps_reading(first_error: int | None, count: int, reason: str) -> StepsReading:
    """What is said of each step by who says only where the first error is: those before it are correct.

    Args:
        first_error: Index from 0; None: no step is incorrect.
        count: Number of steps.
        reason: What was said for it.
    """
    if first_error is None:
        return StepsReading((1,) * count, None, reason)
    return StepsReading((1,) * first_error + (-1,) + (None,) * (count - first_error - 1), first_error, reason)


# --- json -------------------------------------------------------------------------------------------------------------

_FIELD = {"pairwise": "verdict", "listwise": "ranking", "rating": "rating", "steps": "labels"}


def _json(text: str, spec: VerdictSpec) -> Parsed | Abstention:
    body = text.strip()
    opening, _, inside = body.partition("\n")
    if opening.rstrip().casefold() in ("```", "```json") and inside.endswith("```"):
        body = inside.removesuffix("```").strip()
    try:
        given = json.loads(body, object_pairs_hook=_object, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        return _malformed("one JSON object and nothing else", f"{text} ({reason})")
    field = _FIELD[spec.mode]
    if not isinstance(given, dict) or set(given) != {"id", "reason", field} or not isinstance(given["reason"], str):
        return _malformed(f"an object with 'id', the text 'reason' and {field!r}", body)
    if given["id"] != spec.nonce:
        return _malformed(f"'id' to be {spec.nonce}, or it answers another question", json.dumps(given["id"]))
    reading = _json_value(given[field], spec, given["reason"])
    if isinstance(reading, Abstention):
        return reading
    if spec.mode not in ("pairwise", "rating"):
        return Parsed(reading)
    # The value stands after its key, which cannot be inside the reason: there its quotation marks are escaped.
    written = str(given[field])
    key = re.search(rf'(?<!\\)"{field}"\s*:\s*"?(?={written}["\s,}}])', text)
    return Parsed(reading, key.end() if key else None)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key comes twice")
    return found


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON number")


def _json_value(value: Any, spec: VerdictSpec, reason: str) -> Reading | Abstention:
    told = json.dumps(value)
    low, high = spec.scale
    match spec.mode:
        case "pairwise":
            allowed: dict[str, Choice] = {"A": "first", "B": "second", **({"tie": "tie"} if spec.ties else {})}
            if not isinstance(value, str) or value not in allowed:
                return _malformed(f"'verdict' to be {' or '.join(allowed)}", told)
            return PairReading(allowed[value], reason=reason)
        case "rating":
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                return _malformed(f"'rating' to be an integer from {low} to {high}", told)
            return RatingReading(float(value), reason=reason)
        case "listwise":
            lists = isinstance(value, list) and all(isinstance(place, list) for place in value)
            if not lists or not all(isinstance(letter, str) for place in value for letter in place):
                return _malformed("'ranking' to be lists of letters", told)
            return _ranking(value, spec, reason)
        case "steps":
            if not isinstance(value, list) or len(value) != spec.count:
                return _malformed(f"'labels' to be {spec.count} labels", told)
            if not all(isinstance(label, str) and label in STEP_LABELS for label in value):
                return _malformed("each label to be correct, neutral or incorrect", told)
            labels = tuple(STEP_LABELS[label] for label in value)
            return StepsReading(labels, labels.index(-1) if -1 in labels else None, reason)


# --- the formats of others --------------------------------------------------------------------------------------------


def _double_bracket(text: str, spec: VerdictSpec) -> Parsed | Abstention:
    letters: dict[str, Choice] = {"A": "first", "B": "second", **({"C": "tie"} if spec.ties else {})}
    start, line = _last_line(text)
    found = re.search(r"\[\[([^\[\]\n]*)\]\]\Z", line.rstrip(_AFTER + ")!"))
    if found is None:
        return _malformed("a verdict such as [[A]] at the end", line)
    choice = letters.get(found[1])
    if choice is None:
        return _malformed(" or ".join(f"[[{letter}]]" for letter in letters), found[0])
    if len(said := set(re.findall(r"\[\[([ABC])\]\]", text))) > 1:
        return _malformed("one verdict", f"{len(said)} that contradict each other")
    return Parsed(PairReading(choice, reason=text[: start + found.start()].strip()), start + found.start(1))


def _result(text: str, spec: VerdictSpec) -> Parsed | Abstention:
    what = "A or B" if spec.mode == "pairwise" else f"an integer from {spec.scale[0]} to {spec.scale[1]}"
    body = text.rstrip(_AFTER + "\n)")
    place = body.rfind("[RESULT]")
    if place < 0:
        return _malformed(f"[RESULT] and {what} at the end", _last_line(text)[1])
    start, end = place + len("[RESULT]"), len(body)
    while start < end and body[start] in _BEFORE + "\n(":
        start += 1
    value = body[start:end]
    said = {match[1] for match in re.finditer(r"\[RESULT\][\s*_`'\"(]*([AB]|[0-9]{1,6})\b", body)}
    if len(said) > 1:
        return _malformed("one verdict", f"{len(said)} that contradict each other")
    reason = body[:place].strip()
    if spec.mode == "rating":
        rating = _integer(value, *spec.scale)
        reading: Reading | None = None if rating is None else RatingReading(float(rating), reason=reason)
    else:
        choice = {"A": "first", "B": "second"}.get(value)
        reading = None if choice is None else PairReading(choice, reason=reason)  # type: ignore[arg-type]
    return _malformed(f"{what} after [RESULT], and nothing more", value) if reading is None else Parsed(reading, start)


_NUMBER_LINE = re.compile(
    r"(?:(?:final |overall )?(?:rating|score)\s*(?:is|[:=]))?[*_`\[\s]*(\d{1,6})(?:\s*/\s*(\d{1,6}))?\]*",
    re.IGNORECASE | re.ASCII,
)


def _number(text: str, spec: VerdictSpec) -> Parsed | Abstention:
    low, high = spec.scale
    start, line = _last_line(text)
    begin, end = _stripped(text, start, start + len(line))
    found = _NUMBER_LINE.fullmatch(text, begin, end)
    rating = _integer(found[1], low, high) if found and found[2] in (None, str(high)) else None
    if found is None or rating is None:
        return _malformed(f"a last line that is an integer from {low} to {high}", line)
    reading = RatingReading(float(rating), reason=text[:start].strip())
    return Parsed(reading, found.start(1))


def _llmbar(text: str, spec: VerdictSpec) -> Parsed | Abstention:
    found = output_verdict(text)
    if isinstance(found, str):
        return _malformed("'Output (a)' or 'Output (b)', or at the end that it is better", found)
    choice: Choice = "first" if text[found.at] == "a" else "second"
    return Parsed(PairReading(choice, reason=text[: found.begins].strip()), found.at)


def _two_scores(text: str, spec: VerdictSpec) -> Parsed | Abstention:
    found = two_scores(text)
    low, high = spec.scale
    if not isinstance(found, ScorePair) or not all(low <= score <= high for score in (found.first, found.second)):
        return _malformed(f"a first line of two scores from {low} to {high}", text.strip().split("\n")[0])
    choice: Choice = "first" if found.first > found.second else "second" if found.first < found.second else "tie"
    if choice == "tie" and not spec.ties:
        return _malformed("two different scores", f"{found.first:g} {found.second:g}")
    return Parsed(PairReading(choice, reason=found.rest))


def _mr_gsm8k(text: str, spec: VerdictSpec) -> Parsed | Abstention:
    found = first_error_verdict(text)
    if isinstance(found, str):
        return _malformed("a final judgement and its first error step", found)
    if found.step is not None and not 1 <= found.step <= spec.count:
        return _malformed(f"a first error step from 1 to {spec.count}", str(found.step))
    return Parsed(steps_reading(None if found.step is None else found.step - 1, spec.count, found.reason))


_READERS: dict[VerdictFormat, Callable[[str, VerdictSpec], Parsed | Abstention]] = {
    "json": _json,
    "tagged": _tagged,
    "double_bracket": _double_bracket,
    "result": _result,
    "number": _number,
    "llmbar": _llmbar,
    "two_scores": _two_scores,
    "mr_gsm8k": _mr_gsm8k,
}

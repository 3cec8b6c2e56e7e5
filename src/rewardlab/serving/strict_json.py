"""A body as JSON, or the reason why it is none: strict where Python's reader is lenient, bounded in time and memory.

Python's reader takes NaN, repeated keys (the last wins), integers of any length and halves of UTF-16 pairs. Each would
end as a score of something that the client did not mean, or as an error far from its cause.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

from rewardlab.serving.failures import RequestRefused

MAX_CONTAINERS = 2**17
"""Most lists and objects of a body: an empty one is 3 bytes on the wire and 100 in memory."""

_STRING = rb'"(?:[^"\\]++|\\.)*+"'
_TO_BRACKET = re.compile(rb'(?:[^\[\]{}"]++|' + _STRING + rb")*+([\[\]{}])", re.DOTALL)
_WITHOUT_LONE_SURROGATES = re.compile(
    rb"[^\\]*+(?:\\(?:[^u]|u(?![dD][89a-fA-F])|u[dD][89abAB]..\\u[dD][c-fC-F]..)[^\\]*+)*+", re.DOTALL
)
_SMALL_NUMBERS = re.compile(rb'(?:[^"0-9]++|' + _STRING + rb"|[0-9]{1,18}+(?:\.[0-9]*+)?(?![0-9.eE]))*+", re.DOTALL)


def parse(body: bytes, max_depth: int) -> Any:
    """The value that a body holds.

    Args:
        body: The body, UTF-8 without a byte order mark.
        max_depth: Deepest nesting of lists and objects.

    Raises:
        RequestRefused: It is not JSON as RFC 8259 has it, or holds what could be read in two ways.
    """
    if body.startswith(b"\xef\xbb\xbf"):
        _refuse("the body begins with a byte order mark", "send UTF-8 without one")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        _refuse(f"the body is not UTF-8: byte {error.start} is 0x{body[error.start]:02x}", "encode it as UTF-8")
    _require_shallow(body, max_depth)
    small = _SMALL_NUMBERS.match(body)
    # A call for each number is slow: only where one of them may be out of bounds.
    may_overflow = small is None or small.end() < len(body)
    try:
        value = json.loads(
            text,
            object_pairs_hook=_without_duplicates,
            parse_constant=_refuse_constant,
            parse_int=_int64 if may_overflow else None,
            parse_float=_finite if may_overflow else None,
        )
    except json.JSONDecodeError as error:
        _refuse(f"the body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}")
    except RecursionError:
        _refuse("the body is nested too deeply")
    if b"\\u" in body and (fine := _WITHOUT_LONE_SURROGATES.match(body)) and fine.end() < len(body):
        half = body[fine.end() : fine.end() + 6].decode("ascii", "replace")
        _refuse(f"the body has half of a UTF-16 pair, {half}, at byte {fine.end()}", "send whole characters")
    return value


def _require_shallow(body: bytes, max_depth: int) -> None:
    """Count brackets outside strings, before anything is built of them."""
    depth = containers = end = 0
    while found := _TO_BRACKET.match(body, end):
        end = found.end()
        if found[1] in b"]}":
            depth -= 1
            continue
        depth, containers = depth + 1, containers + 1
        if depth > max_depth:
            _refuse(f"the body is nested deeper than {max_depth} at byte {end - 1}")
        if containers > MAX_CONTAINERS:
            _refuse(f"the body has more than {MAX_CONTAINERS} lists and objects", "send several requests")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                _refuse(f"the key {_short(key)} stands twice in one object", "give it once", param=key[:80])
            seen.add(key)
    return found


def _refuse_constant(name: str) -> NoReturn:
    _refuse(f"{name} is no JSON number", "send finite numbers, or null")


def _int64(text: str) -> int:
    # The length first: Python takes quadratic time for long integers, and refuses the longest with an error of its own.
    if len(text) > 20 or not -(2**63) <= (number := int(text)) < 2**63:
        _refuse(f"the integer {_short(text)} does not fit 64 bits")
    return number


def _finite(text: str) -> float:
    if math.isinf(number := float(text)):
        _refuse(f"the number {_short(text)} is larger than any float")
    return number


def _short(text: str) -> str:
    shown = json.dumps(text[:40])
    return shown if len(text) <= 40 else f"{shown}... of {len(text)} characters"


def _refuse(message: str, hint: str = "", *, param: str | None = None) -> NoReturn:
    raise RequestRefused(message, hint=hint, param=param)

"""What pydantic found wrong with a body -> a sentence for each of three fields at most: what was expected, what came.

A field that may have several forms is reported once per form by pydantic, with the forms' names in its path; here it is
named once, by the form that came nearest. Of what came only short values are quoted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from rewardlab.serving.failures import RequestRefused

_Path: TypeAlias = tuple[str | int, ...]
_Found: TypeAlias = tuple[_Path, Mapping[str, Any]]

_EXPECTED = {
    "string_type": "a string",
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "bool_type": "true or false",
    "none_required": "null",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "int_parsing": "an integer",
    "float_parsing": "a number",
}
_BOUNDS = {
    "too_short": "at least {min_length} items",
    "too_long": "at most {max_length} items",
    "string_too_short": "at least {min_length} characters",
    "string_too_long": "at most {max_length} characters",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "literal_error": "{expected}",
    "enum": "{expected}",
}
_HINTS = {"extra_forbidden": "see /docs for the fields of this route"}
_QUOTED = 40
_TOLD = 3


def refusal_of(errors: Sequence[Mapping[str, Any]], body: object) -> RequestRefused:
    """The failure of a request whose body or parameters are not what they should be.

    Args:
        errors: As pydantic lists them, FastAPI's ``"body"``, ``"query"``, ... before each path.
        body: The body that was read.
    """
    about: list[list[_Found]] = []  # of each field its errors: those above and below the first of them
    for error in errors:
        path = _field(error, body)
        group = next((group for group in about if _is_within(path, group[0][0]) or _is_within(group[0][0], path)), None)
        if group is None:
            about.append([(path, error)])
        else:
            group.append((path, error))
    told = [_sentence(group) for group in about[:_TOLD]]
    message = "; ".join(sentence for _, sentence in told)
    if len(about) > _TOLD:
        message += f" (and {len(about) - _TOLD} more field{'s' if len(about) > _TOLD + 1 else ''})"
    hints = [_HINTS[error["type"]] for group in about for _, error in group if error["type"] in _HINTS]
    return RequestRefused(message, hint=hints[0] if hints else "", param=told[0][0] or None)


def _is_within(path: _Path, other: _Path) -> bool:
    return path[: len(other)] == other


def _sentence(about: Sequence[_Found]) -> tuple[str, str]:
    """The name of a field, and what is wrong with it: the error that lies deepest came nearest to what was meant."""
    path = max((path for path, _ in about), key=len)
    name = ".".join(map(str, path))[:100]
    return name, f"{name or 'the body'}: {_wrong([error for other, error in about if other == path])}"


def _field(error: Mapping[str, Any], body: object) -> _Path:
    """The path of the field within what was sent, without the names that pydantic gives to the forms of a union."""
    where, *parts = error["loc"]
    if error["type"] == "json_invalid":
        return ()
    if where != "body":
        return tuple(parts)
    path: list[str | int] = []
    value: Any = body
    for number, part in enumerate(parts):
        if part in range(len(value)) if isinstance(value, list) else isinstance(value, dict) and part in value:
            value = value[part]
        elif not (error["type"] == "missing" and number == len(parts) - 1):
            continue
        path.append(part)
    return tuple(path)


def _wrong(errors: Sequence[Mapping[str, Any]]) -> str:
    kind, value = errors[0]["type"], errors[0].get("input")
    if kind == "json_invalid":
        return "not JSON"
    if kind == "missing":
        return "missing"
    if kind == "extra_forbidden":
        return "no such field"
    if isinstance(value, bytes):
        return "expected JSON with Content-Type: application/json"
    expected = " or ".join(dict.fromkeys(_expected(error) for error in errors))
    return f"expected {expected}, got {shown(value)}"


def _expected(error: Mapping[str, Any]) -> str:
    if (plain := _EXPECTED.get(error["type"])) is not None:
        return plain
    if (bound := _BOUNDS.get(error["type"])) is not None:
        return bound.format(**error["ctx"])
    text = str(error["msg"]).removeprefix("Value error, ").removeprefix("Input should be ").removeprefix("a valid ")
    return text[0].lower() + text[1:] if text else "something else"


def shown(value: object) -> str:
    """A value in a few characters; long ones by their kind and length alone.

    Args:
        value: What JSON gave.
    """
    if isinstance(value, list | dict):
        many = len(value)
        kind, unit = ("a list", "item") if isinstance(value, list) else ("an object", "field")
        return f"{kind} of {many} {unit}{'' if many == 1 else 's'}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str) and len(value) > _QUOTED:
        return f"a string of {len(value)} characters"
    if isinstance(value, int) and abs(value) >= 10**_QUOTED:  # Python refuses to write very long ones down
        return "an integer of more than 40 digits"
    return f"{value!r} ({type(value).__name__})"

"""Small files that are read whole: recipes, configs, contracts, manifests.

Each is opened once, must be a regular file (a pipe would wait for ever, a device never ends), is bounded, and UTF-8;
JSON is bounded in depth too, for who reads it next may recurse. What cannot be read is told with the file's name, as
the error of the caller's choice. This file knows bytes, text and JSON; it does not know what a file says.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from rewardlab.errors import RewardLabError

MOST_BYTES = 1 << 26
"""Largest file that is read whole: some chat templates and vocabularies in a config take megabytes, none takes 64."""

MOST_DEPTH = 100
"""Deepest nesting of lists and objects in JSON; Python gives up near 1,000, from wherever it stands."""

RESTORE = "restore the file from a copy"
"""The hint where a file is damaged."""


def read_bytes(path: Path, error: type[RewardLabError], *, hint: str = RESTORE, most_bytes: int = MOST_BYTES) -> bytes:
    """The content of a regular file.

    Args:
        path: The file.
        error: What is raised.
        hint: Its hint.
        most_bytes: Largest size.

    Raises:
        RewardLabError: Of the class ``error``: it cannot be opened, is no regular file, or is larger.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe without a writer would block
    except (OSError, ValueError) as came:
        raise error(f"{path}: cannot be read: {_reason(came)}", hint=hint) from came
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise error(f"{path}: cannot be read: it is {_what(status.st_mode)}, expected a regular file", hint=hint)
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read(most_bytes + 1)
    except OSError as came:
        raise error(f"{path}: cannot be read: {_reason(came)}", hint=hint) from came
    finally:
        os.close(descriptor)
    if len(content) > most_bytes:
        raise error(f"{path}: {status.st_size:,} bytes, expected at most {most_bytes:,}", hint=hint)
    return content


def read_text(path: Path, error: type[RewardLabError], *, hint: str = RESTORE, most_bytes: int = MOST_BYTES) -> str:
    """The text of a regular file in UTF-8, line ends as they are; arguments and errors as :func:`read_bytes`."""
    try:
        return read_bytes(path, error, hint=hint, most_bytes=most_bytes).decode("utf-8")
    except UnicodeDecodeError as came:
        raise error(
            f"{path}: cannot be read: it is not UTF-8 text (byte {came.start} is 0x{came.object[came.start]:02x})",
            hint=hint,
        ) from came


def read_json(
    path: Path,
    error: type[RewardLabError],
    *,
    strict: bool = False,
    hint: str = RESTORE,
    most_bytes: int = MOST_BYTES,
) -> Any:
    """The value in a JSON file.

    Args:
        path: The file.
        error: What is raised.
        strict: Whether numbers must be finite, keys stand once in an object, and text be whole characters: what we
            write is. Others write NaN.
        hint: The error's hint.
        most_bytes: Largest size.

    Raises:
        RewardLabError: Of the class ``error``: as :func:`read_bytes`, or it is no such JSON.
    """
    text = read_text(path, error, hint=hint, most_bytes=most_bytes)
    try:
        return parse_json(text, strict=strict)
    except ValueError as came:
        raise error(f"{path}: not readable as JSON: {came}", hint=hint) from came


def read_json_object(
    path: Path,
    error: type[RewardLabError],
    *,
    strict: bool = False,
    hint: str = RESTORE,
    most_bytes: int = MOST_BYTES,
) -> dict[str, Any]:
    """The object in a JSON file; arguments and errors as :func:`read_json`."""
    record = read_json(path, error, strict=strict, hint=hint, most_bytes=most_bytes)
    if not isinstance(record, dict):
        raise error(f"{path}: expected a JSON object, got a {type(record).__name__}", hint=hint)
    return record


def parse_json(text: str, *, strict: bool = False, lone_surrogates: bool = False) -> Any:
    """The value of a JSON text, at most :data:`MOST_DEPTH` deep.

    Args:
        text: The text.
        strict: As in :func:`read_json`.
        lone_surrogates: Whether text may be half a character all the same: what a user's text is we write down.

    Raises:
        ValueError: It is none.
    """
    try:
        if strict:
            value = json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_refuse, parse_float=_finite)
            if "\\u" in text and not lone_surrogates:
                json.dumps(value, ensure_ascii=False).encode("utf-8")  # a UnicodeEncodeError is a ValueError
        else:
            value = json.loads(text)
    except RecursionError as came:
        raise ValueError(f"nested deeper than {MOST_DEPTH}") from came
    _require_shallow(value)
    return value


def require_regular(path: Path, error: type[RewardLabError], *, hint: str = RESTORE) -> None:
    """Refuse what is there and is no regular file, before a library opens it and waits; a link counts as its target.

    Raises:
        RewardLabError: Of the class ``error``.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as came:
        raise error(f"{path}: cannot be read: {_reason(came)}", hint=hint) from came
    if not stat.S_ISREG(mode):
        raise error(f"{path}: cannot be read: it is {_what(mode)}, expected a regular file", hint=hint)


def require_regular_files(folder: Path, patterns: Iterable[str], error: type[RewardLabError]) -> None:
    """As :func:`require_regular`, of every file of a folder with such a name (``*.json``).

    Raises:
        RewardLabError: Of the class ``error``.
    """
    for pattern in patterns:
        for path in sorted(folder.glob(pattern)):
            require_regular(path, error)


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _what(mode: int) -> str:
    kinds = {
        stat.S_ISDIR: "a folder",
        stat.S_ISFIFO: "a pipe",
        stat.S_ISSOCK: "a socket",
        stat.S_ISCHR: "a device",
        stat.S_ISBLK: "a device",
    }
    return next((name for test, name in kinds.items() if test(mode)), "something else")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key {key[:60]!r} stands twice in one object")
            seen.add(key)
    return found


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"the number {text[:40]} is larger than any float")
    return number


def _require_shallow(value: Any) -> None:
    """Level by level, which takes no stack."""
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MOST_DEPTH:
            raise ValueError(f"nested deeper than {MOST_DEPTH}")
        inside = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)]
        level = [one for many in inside for one in many if isinstance(one, dict | list)]

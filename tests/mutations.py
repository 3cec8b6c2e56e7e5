"""Files broken on purpose: what a disk, a wire, an editor or an attacker makes of a good one.

Each mutation takes a :class:`random.Random` and gives content that may or may not still be valid; the tests say what a
reader has to make of it: the right thing, or an error of ours.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from typing import Any

HOSTILE_BYTES = (
    b"\0",
    b"\xff",
    b"\xc3",
    b"\xed\xa0\x80",  # a lone surrogate, as UTF-8 would have it
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\r",
    b"\r\n",
    b"\n",
    "\u2028".encode(),
    b"\\ud800",
    b'"',
    b"'",
    b"\\",
    b"{",
    b"}",
    b"[" * 5,
    b"]",
    b",",
    b":",
    b"- ",
    b"NaN",
    b"Infinity",
    b"1e999",
    b"-" + b"9" * 400,
    b"9" * 5000,
    b"null",
    b"\x1b[31m",
    b"{{ 1/0 }}",
    b"{% for x in range(10**9) %}",
    b"&a [*a]",
    b"!!python/object/apply:os.system [x]",
)
"""What is put into a file at any place."""

HOSTILE_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    2**63,
    -(2**64),
    10**400,
    0.5,
    -0.0,
    1e308,
    float("nan"),
    float("inf"),
    float("-inf"),
    "",
    " ",
    "\0",
    "\ud800",
    "../../etc/passwd",
    "/dev/zero",
    "x" * 100_000,
    "NaN",
    "é\u2028\u202e\x1b[31m",
    "{{ messages[0].x.y }}",
    [],
    {},
    [[]],
    [None],
    [1, "a", None],
    {"": None},
    {"\ud800": 1},
    {"role": "user", "content": "x"},
    [{"role": "user", "content": 5}],
)
"""What takes the place of a JSON value of another type."""


def damaged(content: bytes, draw: random.Random) -> bytes:
    """Bytes flipped, cut, put in, repeated or taken from elsewhere; or all of it in another encoding."""
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        content = draw.choice(_BYTE_MUTATIONS)(content, draw)
    return content


def _flip(content: bytes, draw: random.Random) -> bytes:
    if not content:
        return content
    changed, place = bytearray(content), draw.randrange(len(content))
    changed[place] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _overwrite(content: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(content) + 1)
    new = draw.randbytes(draw.choice((1, 4, 8, 16)))
    return content[:start] + new + content[start + len(new) :]


def _cut_end(content: bytes, draw: random.Random) -> bytes:
    return content[: draw.randrange(len(content) + 1)]


def _cut_out(content: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(content) + 1)
    return content[:start] + content[start + draw.choice((1, 2, 10, 100)) :]


def _insert(content: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(content) + 1)
    return content[:start] + draw.choice(HOSTILE_BYTES) + content[start:]


def _repeat(content: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(content) + 1)
    piece = content[start : start + draw.choice((1, 10, 100, 1000))]
    return content[:start] + piece * draw.choice((2, 3, 50)) + content[start:]


def _move(content: bytes, draw: random.Random) -> bytes:
    start, target = draw.randrange(len(content) + 1), draw.randrange(len(content) + 1)
    return content[:target] + content[start : start + 64] + content[target + 64 :]


def _large_number(content: bytes, draw: random.Random) -> bytes:
    """A length or an offset that is far too large, as binary formats have them."""
    if len(content) < 8:
        return content
    start = draw.choice((0, draw.randrange(len(content) - 7)))
    number = draw.choice((2**63 - 1, 2**64 - 1, 2**31 - 1, 2**40, len(content), 0))
    return content[:start] + number.to_bytes(8, "little") + content[start + 8 :]


def _reencode(content: bytes, draw: random.Random) -> bytes:
    text = content.decode("utf-8", errors="replace")
    return draw.choice(
        (
            lambda: text.encode("utf-16"),
            lambda: text.encode("utf-16-be"),
            lambda: text.encode("latin-1", errors="replace"),
            lambda: b"\xef\xbb\xbf" + content,
            lambda: content.replace(b"\n", b"\r\n"),
            lambda: content.replace(b"\n", b"\r"),
            lambda: b"",
            lambda: b"\0" * 4096,
        )
    )()


_BYTE_MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _flip,
    _overwrite,
    _cut_end,
    _cut_out,
    _insert,
    _insert,
    _repeat,
    _move,
    _large_number,
    _reencode,
)


def changed_value(value: Any, draw: random.Random) -> Any:
    """The JSON value with some of its parts, at any depth, replaced, left out, renamed, repeated or wrapped."""
    changed = json.loads(json.dumps(value))
    for _ in range(draw.choice((1, 1, 2, 3))):
        holder = {"whole": changed}
        places = list(_places(holder))
        container, key = draw.choice(places)
        old, how = container[key], draw.randrange(8)
        if how == 0 and container is not holder:
            del container[key]
        elif how == 1:
            container[key] = [old]
        elif how == 2:
            container[key] = {"a": old}
        elif how == 3 and isinstance(container, list):
            container.extend([old] * draw.choice((1, 2, 20)))
        elif how == 4 and isinstance(container, dict) and container is not holder:
            container[draw.choice(("", "zzz", f"{key} ", "\0"))] = container.pop(key)
        elif how == 5 and isinstance(old, int | float) and not isinstance(old, bool):
            container[key] = draw.choice((-old, old + 1, old * 10**6, 0, str(old), 1.5))
        else:
            container[key] = copy.deepcopy(draw.choice(HOSTILE_VALUES))
        changed = holder["whole"]
    return changed


def _places(container: Any) -> Any:
    for key in list(container) if isinstance(container, dict) else range(len(container)):
        yield container, key
        if isinstance(container[key], dict | list):
            yield from _places(container[key])


def json_text(value: Any, draw: random.Random) -> bytes:
    """A value as JSON in one of the ways in which files have it."""
    try:
        text = json.dumps(value, ensure_ascii=draw.random() < 0.7, indent=draw.choice((None, None, 2)))
        return text.encode("utf-8", errors="surrogatepass")
    except ValueError:  # an integer longer than Python writes
        return b"1" * 5000


def nested(depth: int, kind: int = 0) -> bytes:
    """JSON, or YAML's flow style, nested as deep as told."""
    opened, closed = ((b"[", b"]"), (b'{"a":', b"}"), (b'[{"a":', b"}]"))[kind % 3]
    return opened * depth + b"1" + closed * depth

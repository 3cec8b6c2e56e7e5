"""What is no JSON, or could be read in two ways, is refused with its place; in bounded time whatever comes."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardlab.serving.failures import RequestRefused
from rewardlab.serving.strict_json import MAX_CONTAINERS, parse

MIB = 2**20

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("ab[{\\\"'é\U0001f600", max_size=3), inner),
    max_leaves=20,
)


@given(VALUES, st.booleans())
def test_whatever_python_writes_is_read_back(value: object, ascii_only: bool) -> None:
    """Also with every character escaped, pairs of surrogates too, and brackets, quotes and backslashes in strings."""
    assert parse(json.dumps(value, ensure_ascii=ascii_only).encode(), 64) == value


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b'{"a": 1,}', "line 1, column 9"),
        (b"[1]\n]", "line 2, column 1"),
        (b"'a'", "not JSON"),
        (b'["a\nb"]', "not JSON"),
        (b'["\\x"]', "not JSON"),
        (b'["\\', "not JSON"),
        (b'["\\u12"]', "not JSON"),
        (b'{"a": "\xff"}', "not UTF-8: byte 7 is 0xff"),
        (b'"\xed\xa0\x80"', "not UTF-8: byte 1"),
        ("{}".encode("utf-16"), "not UTF-8"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', 'the key "c" stands twice'),
        (b'{"a": 1, "\\u0061": 2}', 'the key "a" stands twice'),
        (b"[NaN]", "NaN is no JSON number"),
        (b"[Infinity]", "Infinity is no JSON number"),
        (b"[-Infinity]", "-Infinity is no JSON number"),
        (b"[1e400]", '"1e400" is larger than any float'),
        (b"[-1E+309]", "larger than any float"),
        (b"[" + b"9" * 400 + b".0]", "of 402 characters is larger than any float"),
        (b"[9223372036854775808]", "does not fit 64 bits"),
        (b"[-9223372036854775809]", "does not fit 64 bits"),
        (b"[" + b"9" * 5000 + b"]", "of 5000 characters does not fit 64 bits"),
        (b'["\\ud800"]', "half of a UTF-16 pair, \\ud800, at byte 2"),
        (b'["\\uDC00"]', "half of a UTF-16 pair"),
        (b'["\\ud83dx"]', "half of a UTF-16 pair"),
        (b'["\\ud83d\\ud83d\\ude00"]', "half of a UTF-16 pair"),
        (b'["\\\\\\ud800"]', "at byte 4"),
        (b'{"\\udfff": 1}', "half of a UTF-16 pair"),
        (b'["\\\\ud83d\\ude00"]', "half of a UTF-16 pair, \\ude00, at byte 9"),
        (b"[[[[[1]]]]]", "nested deeper than 4 at byte 4"),
        (b'{"a":{"a":{"a":{"a":{}}}}}', "nested deeper than 4"),
        (b"[" * 100_000, "nested deeper than 4"),
    ],
)
def test_refused_and_told_where(body: bytes, message: str) -> None:
    with pytest.raises(RequestRefused) as refused:
        parse(body, 4)
    assert message in refused.value.message
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'["\\\\ud800", "[[[[[[", "\\"[[[[["]', ["\\ud800", "[[[[[[", '"[[[[[']),
        (b'"\\ud83d\\ude00"', "\U0001f600"),
        (b"[9223372036854775807, -9223372036854775808, 1e308, 1e-400]", [2**63 - 1, -(2**63), 1e308, 0.0]),
        (b"[[[[]]], [[[]]]]", [[[[]]], [[[]]]]),
        (b" \n7\t", 7),
    ],
)
def test_what_only_looks_wrong_is_read(body: bytes, value: object) -> None:
    assert parse(body, 4) == value


def test_a_large_integer_or_float_among_others_is_still_found() -> None:
    with pytest.raises(RequestRefused, match="64 bits"):
        parse(b'{"a": [1, 2.5, 123456789012345678901234567890]}', 4)


def test_a_limit_of_depth_above_pythons_own_is_no_fault() -> None:
    with pytest.raises(RequestRefused, match="too deeply"):
        parse(b"[" * 100_000 + b"]" * 100_000, 10**6)


HOSTILE = {
    "brackets": b"[" * (8 * MIB),
    "lists": b"[" + b"[]," * (8 * MIB // 3) + b"[]]",
    "objects": b"[" + b"{}," * (8 * MIB // 3) + b"{}]",
    "integers": b"[" + b"1," * (4 * MIB - 2) + b"1]",
    "long integer": b"[" + b"9" * (8 * MIB - 2) + b"]",
    "one string": b'"' + b"x" * (8 * MIB) + b'"',
    "escapes": b'"' + b"\\u0041" * (8 * MIB // 6) + b'"',
    "backslashes": b'"' + b"\\" * (8 * MIB) + b'"',
    "open string": b'["' + b"[" * (8 * MIB),
    "empty strings": b"[" + b'"",' * (8 * MIB // 3) + b'""]',
    "no bracket": b"1," * (4 * MIB),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_body_takes_more_than_time_in_its_length(name: str) -> None:
    """Eight mebibytes take some tenths of a second, and a reader that begins anew at each byte takes hours.

    Processor time with an allowance of twenty, for whoever else runs here slows it, too.
    """
    start = time.process_time()
    with contextlib.suppress(RequestRefused):
        parse(HOSTILE[name], 32)
    assert time.process_time() - start < 10


def test_a_body_of_brackets_alone_takes_no_memory() -> None:
    """Eight mebibytes of empty lists would be 300 MB of Python objects; they are refused before any is built."""
    code = """if True:
        import resource
        from rewardlab.serving.failures import RequestRefused
        from rewardlab.serving.strict_json import parse
        bodies = [b"[" * 2**23, b"[" + b"[]," * (2**23 // 3) + b"[]]", b"[" + b"{}," * (2**23 // 3) + b"{}]"]
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for body in bodies:
            try:
                parse(body, 32)
                raise SystemExit("was read")
            except RequestRefused:
                pass
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 50 * 1024


def test_as_many_lists_as_are_allowed_are_read() -> None:
    body = b"[" + b"[]," * (MAX_CONTAINERS - 2) + b"[]]"
    found = len(parse(body, 2))
    assert found == MAX_CONTAINERS - 1
    with pytest.raises(RequestRefused, match="lists and objects"):
        parse(b"[[]," + body[1:], 2)

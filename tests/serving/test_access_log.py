"""A line per request: enough to find it, nothing of what was in it, and nothing that a client could forge."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator

import pytest

from rewardlab.serving.access_log import body_hash, failure_in_short, log_request, logger, record_of
from rewardlab.serving.failures import RequestRefused


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """The lines that are logged."""
    found: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: found.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield found
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


def scope(path: str = "/v1/rewards", **others: object) -> dict[str, object]:
    return {"path": path, "method": "POST", "client": ("127.0.0.1", 5), "query_string": b"key=secret", **others}


def test_a_line_says_who_what_and_how_it_ended(lines: list[str]) -> None:
    record = record_of(scope(), "abc")
    record.body, record.bytes_in, record.bytes_out = body_hash(b"{}"), 2, 17
    record.status, record.seconds = 200, 0.01234
    log_request(record)
    digest = hashlib.sha256(b"{}").hexdigest()[:12]
    assert lines == [f"abc 127.0.0.1:5 POST /v1/rewards 200 12.3 ms in=2 out=17 body={digest} failure=-"]


@pytest.mark.parametrize(
    ("param", "told"),
    [
        (None, "invalid_request_error"),
        ("completions.3", "invalid_request_error:completions.3"),
        ("my secret", "invalid_request_error:?"),
        ("a\nb", "invalid_request_error:?"),
        ("x" * 61, "invalid_request_error:?"),
    ],
)
def test_a_failure_is_told_by_its_kind_and_field_and_never_by_its_words(param: str | None, told: str) -> None:
    assert failure_in_short(RequestRefused("secret words", hint="more", param=param)) == told


@pytest.mark.parametrize("path", ["/a\nabc 1.2.3.4:5 POST /forged 200", "/a\r\n", "/a b\x1b[2J", "/\u2028\ud800", "/%"])
def test_a_path_cannot_forge_a_line(lines: list[str], path: str) -> None:
    log_request(record_of(scope(path), "abc"))
    (line,) = lines
    assert line.isascii()
    assert line.isprintable()
    assert len(line.split(" ")) == 11


def test_a_long_path_is_cut_and_an_unknown_client_is_no_fault(lines: list[str]) -> None:
    log_request(record_of(scope("/" + "x" * 10_000, client=None), "abc"))
    (line,) = lines
    assert line.startswith("abc - POST /xxx")
    assert len(line) < 250


def test_nothing_is_hashed_where_nobody_reads_it() -> None:
    logger.setLevel(logging.WARNING)
    try:
        assert body_hash(b"{}") == "-"
    finally:
        logger.setLevel(logging.NOTSET)

"""A fault is logged by its type and where it was raised, and its words, which may be a client's, are not."""

from __future__ import annotations

import logging

import pytest

from rewardlab.serving.fault_log import log_fault


def test_a_fault_is_told_without_its_words(caplog: pytest.LogCaptureFixture) -> None:
    try:
        int("secret")
    except ValueError as error:
        log_fault(logging.getLogger("some"), "request 5f: /classify", error)
    (record,) = caplog.records
    first, *way = record.getMessage().split("\n")
    assert (record.levelname, first) == ("ERROR", "request 5f: /classify raised ValueError")
    assert "in test_a_fault_is_told_without_its_words" in way[0]
    assert "invalid literal" not in caplog.text

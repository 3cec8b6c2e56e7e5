"""Settings that no server could work with are refused by name; a server is guarded by its address or by a key."""

from __future__ import annotations

from dataclasses import fields

import pytest

from rewardlab.errors import ConfigError
from rewardlab.serving.settings import ServerSettings

NUMBERS = [field.name for field in fields(ServerSettings) if field.name not in ("host", "port", "api_key", "scale")]


def test_by_default_nobody_else_can_reach_it() -> None:
    assert ServerSettings().host == "127.0.0.1"


@pytest.mark.parametrize(
    ("host", "key", "guarded"),
    [
        ("127.0.0.1", None, True),
        ("::1", None, True),
        ("localhost", None, True),
        ("0.0.0.0", None, False),
        ("::", None, False),
        ("10.0.0.7", None, False),
        ("0.0.0.0", "k", True),
    ],
)
def test_what_guards_a_server(host: str, key: str | None, guarded: bool) -> None:
    assert ServerSettings(host=host, api_key=key).is_guarded is guarded


@pytest.mark.parametrize("name", NUMBERS)
def test_limits_are_numbers_above_zero(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        ServerSettings(**{name: -1})


def test_a_batch_need_not_wait() -> None:
    assert ServerSettings(max_wait_ms=0).max_wait_ms == 0
    with pytest.raises(ConfigError, match="queue_items must be above 0"):
        ServerSettings(queue_items=0)


@pytest.mark.parametrize("key", ["", "schlüssel", "two\nlines", "a\x00b"])
def test_a_key_that_no_header_carries_is_refused(key: str) -> None:
    with pytest.raises(ConfigError, match="API key"):
        ServerSettings(api_key=key)


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_is_one(port: int) -> None:
    with pytest.raises(ConfigError, match=f"port {port}"):
        ServerSettings(port=port)

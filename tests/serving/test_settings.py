"""Settings that no server could work with are refused by name; a server is guarded by its address or by a key."""

from __future__ import annotations

import math
from dataclasses import fields

import pytest

from rewardlab.errors import ConfigError
from rewardlab.serving.settings import ServerSettings, checked_key

NUMBERS = [field.name for field in fields(ServerSettings) if field.name not in ("host", "port", "api_key", "scale")]


def test_by_default_nobody_else_can_reach_it() -> None:
    assert ServerSettings().host == "127.0.0.1"


@pytest.mark.parametrize(
    ("host", "key", "guarded"),
    [
        ("127.0.0.1", None, True),
        ("::1", None, True),
        ("localhost", None, True),
        ("LocalHost.", None, True),
        ("127.0.0.2", None, True),
        ("0:0:0:0:0:0:0:1", None, True),
        ("::ffff:127.0.0.1", None, True),
        ("::ffff:10.0.0.7", None, False),
        ("localhost.example.org", None, False),
        ("", None, False),
        ("0.0.0.0", None, False),
        ("::", None, False),
        ("10.0.0.7", None, False),
        ("0.0.0.0", "k", True),
    ],
)
def test_what_guards_a_server(host: str, key: str | None, guarded: bool) -> None:
    assert ServerSettings(host=host, api_key=key).is_guarded is guarded


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [-1, math.nan, math.inf, -math.inf])
def test_limits_are_numbers_above_zero(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{name} must be a number(.*)got {value}"):
        ServerSettings(**{name: value})


def test_a_batch_need_not_wait() -> None:
    assert ServerSettings(max_wait_ms=0).max_wait_ms == 0
    with pytest.raises(ConfigError, match="queue_items must be a number above 0"):
        ServerSettings(queue_items=0)


def test_a_request_that_is_allowed_fits_the_queue() -> None:
    """Else it would be told to ask again later, for ever."""
    assert ServerSettings(queue_items=4, max_items=4).queue_items == 4
    with pytest.raises(ConfigError, match="queue_items is 4, less than max_items, 5") as error:
        ServerSettings(queue_items=4, max_items=5)
    assert error.value.hint == "raise --queue to 5, or lower --max-items to 4"


@pytest.mark.parametrize("key", ["", "schlüssel", "two\nlines", "a\x00b", " key", "key ", " "])
def test_a_key_that_no_header_carries_is_refused(key: str) -> None:
    with pytest.raises(ConfigError, match="API key"):
        ServerSettings(api_key=key)
    with pytest.raises(ConfigError, match="API key"):
        checked_key(key)


def test_a_key_is_taken_as_it_is() -> None:
    assert checked_key("a key~!") == "a key~!"
    assert checked_key(None) is None


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_is_one(port: int) -> None:
    with pytest.raises(ConfigError, match=f"port {port}"):
        ServerSettings(port=port)

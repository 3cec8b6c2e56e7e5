"""The server's settings: what ``rewardlab serve`` lets one choose, with the defaults and what each guards against."""

from __future__ import annotations

import contextlib
import ipaddress
import math
from dataclasses import dataclass

from rewardlab.errors import ConfigError
from rewardlab.types import Scale

_POSITIVE = (
    "deadline_s",
    "queue_items",
    "max_items",
    "max_chars",
    "max_body_bytes",
    "max_json_depth",
    "max_headers",
    "max_header_bytes",
    "header_timeout_s",
    "body_timeout_s",
    "max_connections",
    "stall_s",
    "load_s",
    "drain_s",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """What the server is told beside its model.

    Attributes:
        host: Address to listen on; loopback unless told.
        port: Port; 0 takes a free one.
        api_key: With it every route but ``/health`` needs it. Without it, and on other than loopback, the routes that
            change the server (``/sleep``, ``/wake_up``, ``/reload``) are closed.
        scale: What the dialects' numbers are given in; ``/v1/rewards`` gives every scale always.
        max_wait_ms: How long the first of a batch waits for others while the worker is idle.
        deadline_s: How long a request may wait and be computed before it is answered 503.
        queue_items: Most items that wait; beyond it 503 at once. At least ``max_items``, for else a request that is
            allowed would never fit.
        max_items: Most items in one request.
        max_chars: Most characters in one item.
        max_body_bytes: Largest body.
        max_json_depth: Deepest nesting of a body.
        max_headers: Most headers of a request.
        max_header_bytes: Most bytes of all its headers and of its target together.
        header_timeout_s: How long a connection may take to send a request's head.
        body_timeout_s: How long it may take to send its body.
        max_connections: Most connections at a time; beyond it 503.
        stall_s: A worker from which nothing is heard for so long while it computes is killed and started again.
        load_s: How long loading a model may take.
        drain_s: How long accepted requests may take to finish after SIGTERM.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = None
    scale: Scale = "raw"
    max_wait_ms: float = 10.0
    deadline_s: float = 60.0
    queue_items: int = 4096
    max_items: int = 1024
    max_chars: int = 131_072
    max_body_bytes: int = 8 * 2**20
    max_json_depth: int = 32
    max_headers: int = 64
    max_header_bytes: int = 16 * 2**10
    header_timeout_s: float = 10.0
    body_timeout_s: float = 30.0
    max_connections: int = 4096
    stall_s: float = 60.0
    load_s: float = 1800.0
    drain_s: float = 30.0

    def __post_init__(self) -> None:
        """Refuse values that no server could work with."""
        checked_key(self.api_key)
        if not 0 <= self.port < 65536:
            raise ConfigError(f"port {self.port}: expected 0 to 65535")
        for name in _POSITIVE:
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name} must be a number above 0, got {value}")
        if not (math.isfinite(self.max_wait_ms) and self.max_wait_ms >= 0):
            raise ConfigError(f"max_wait_ms must be a number, 0 or more, got {self.max_wait_ms}")
        if self.queue_items < self.max_items:
            raise ConfigError(
                f"queue_items is {self.queue_items}, less than max_items, {self.max_items}: larger requests never fit",
                hint=f"raise --queue to {self.max_items}, or lower --max-items to {self.queue_items}",
            )

    @property
    def is_guarded(self) -> bool:
        """Whether strangers cannot reach it: it listens on loopback, or asks for a key."""
        return self.api_key is not None or is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether a server that listens there can be reached from its own machine alone.

    Args:
        host: A name or an address; of names only ``localhost`` is known to mean the machine itself.
    """
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(host)
        return (getattr(address, "ipv4_mapped", None) or address).is_loopback
    return host.lower().removesuffix(".") == "localhost"


def checked_key(key: str | None) -> str | None:
    """An API key that a header carries unchanged; None stays None.

    Raises:
        ConfigError: It is empty, has other characters than printable ASCII ones, or spaces around it, which HTTP drops.
    """
    if key is not None and not (key and key.isascii() and key.isprintable() and key == key.strip()):
        raise ConfigError(
            "the API key must be printable ASCII, without spaces around it, and not empty",
            hint="it travels in a header",
        )
    return key

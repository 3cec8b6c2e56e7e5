"""How a fault of ours is logged: where it was raised and of which type, never its words, which may be a client's."""

from __future__ import annotations

import logging
import traceback


def log_fault(logger: logging.Logger, what: str, error: BaseException) -> None:
    """Log an exception that nobody expected.

    Args:
        logger: Where to.
        what: What raised it, such as ``"request 5f: /classify"``; its own words are the caller's to choose.
        error: The exception.
    """
    lines = "".join(traceback.format_tb(error.__traceback__)).rstrip("\n")
    logger.error("%s raised %s\n%s", what, type(error).__name__, lines)

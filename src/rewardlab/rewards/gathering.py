"""What every rank of a distributed run has, on every rank. Without torch.distributed there is one rank."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

Gather = Callable[[Any], tuple[list[Any], int]]
"""Given this rank's part: all ranks' parts in rank order, alike on every rank, and which of them is this one's."""


def alone(part: Any) -> tuple[list[Any], int]:
    """This rank's part only: for calls that ranks do not make together."""
    return [part], 0


def gather_ranks(part: Any) -> tuple[list[Any], int]:
    """The parts of all ranks, by ``torch.distributed.all_gather_object`` in the default process group.

    A collective: every rank must call it, as often as every other. Parts are pickled, and may differ in size.

    Args:
        part: What this rank has.

    Returns:
        The parts in rank order, and this rank. ``([part], 0)`` where torch.distributed is not initialised.
    """
    if "torch" not in sys.modules:  # nobody can have initialised what nobody has imported; importing it takes seconds
        return [part], 0
    import torch.distributed as dist

    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return [part], 0
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, part)
    return parts, dist.get_rank()

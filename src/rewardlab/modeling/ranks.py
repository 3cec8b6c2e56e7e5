"""The processes of one run: which this is, what it does of some work, and how all learn what each has found.

This file knows ``torch.distributed`` and costs; it knows no model and no data. What travels are Python objects, through
a group of its own on gloo, so that it does not matter whether gradients go by NCCL.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch.distributed as dist

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ranks:
    """The processes of one run, as one of them sees them.

    Attributes:
        index: Which this is; 0 is the one that writes and prints.
        count: How many there are.
        group: What objects travel through; None for the default group, or where there is one process.
    """

    index: int = 0
    count: int = 1
    group: Any = None

    @classmethod
    def of_this_run(cls) -> Ranks:
        """Those that a launcher has connected; one alone where none has."""
        if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
            return cls()
        group = None if dist.get_backend() == "gloo" else _gloo_group()
        return cls(dist.get_rank(), dist.get_world_size(), group)

    def gather(self, value: T) -> list[T]:
        """What each process brings, in the order of their numbers, in every process."""
        if self.count == 1:
            return [value]
        found: list[Any] = [None] * self.count
        dist.all_gather_object(found, value, group=self.group)
        return found

    def own_share(self, costs: Sequence[float]) -> list[int]:
        """The numbers of the pieces of work that are this process's, in order."""
        return share_out(costs, self.count)[self.index]


def share_out(costs: Sequence[float], count: int) -> list[list[int]]:
    """Divide pieces of work so that the shares cost about the same; the same division in every process.

    The dearest piece first, each to the share that is the cheapest so far: at most 4/3 of the best division (Graham,
    Bounds on multiprocessing timing anomalies, 1969, theorem 2). The fewest pieces decide between equal shares, so that
    none stays empty while another has two.

    Args:
        costs: Of each piece, at least 0.
        count: Of shares.

    Returns:
        For each share the numbers of its pieces, in order; some are empty where there are fewer pieces than shares.
    """
    shares: list[list[int]] = [[] for _ in range(count)]
    heap = [(0.0, 0, number) for number in range(count)]
    for piece in sorted(range(len(costs)), key=lambda piece: (-costs[piece], piece)):
        cost, pieces, number = heapq.heappop(heap)
        shares[number].append(piece)
        heapq.heappush(heap, (cost + costs[piece], pieces + 1, number))
    return [sorted(share) for share in shares]


_GROUPS: list[Any] = []
_WAITING = timedelta(hours=12)  # the others wait here while the first writes and hashes a checkpoint


def _gloo_group() -> Any:
    if not _GROUPS:
        _GROUPS.append(dist.new_group(backend="gloo", timeout=_WAITING))
    return _GROUPS[0]

"""What waits to be scored, and which of it goes together into the next batch. No asyncio, no clock, no processes.

The oldest item always goes first; waiting items of equal prompt are pulled forward to it, so that what they share is
computed once; then the next oldest, up to a budget of tokens. The queue has no tokenizer: it estimates tokens from
UTF-8 bytes, by a ratio learned from what the worker reports. An estimate that is off costs a little speed and nothing
else, for the worker's engine divides what it is sent by exact counts anyway.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeAlias

from rewardlab.serving.items import Continued, Conversation, Ids, Item, Rendered, Result
from rewardlab.types import text_key, text_of

TOKENS_PER_BYTE = 0.3
"""Where the ratio starts: about what byte-pair encodings need for English."""
PREFIX_CHARS = 512
PREFIX_IDS = 64
_FIRST_BYTES = 4096  # what the first ratio weighs, against bytes seen
_DECAY = 0.9  # what a batch leaves of the weight of those before it

PrefixKey: TypeAlias = tuple[str, object]
"""Equal for items whose sequences probably begin alike."""


@dataclass(eq=False, slots=True)
class Job:
    """The items of one request.

    Attributes:
        items: The items.
        deadline: When nobody waits for them any more, on the caller's clock.
        since: When they came, on the same clock.
        results: One per item; None where there is none yet.
        begun_with: Fingerprint of the model that its results are from; None before an item of it was sent.
        attempt: How often it was begun anew.
    """

    items: tuple[Item, ...]
    deadline: float
    since: float
    results: list[Result | None] = field(init=False)
    begun_with: str | None = field(default=None, init=False)
    attempt: int = field(default=0, init=False)
    _entries: list[Entry] = field(default_factory=list, init=False)
    _missing: int = field(init=False)

    def __post_init__(self) -> None:
        """Nothing has a result yet."""
        self._forget()

    def _forget(self) -> None:
        self.results = [None] * len(self.items)
        self.begun_with = None
        self._missing = len(self.items)

    def answered(self) -> tuple[Result, ...]:
        """The results, once every item has one."""
        return tuple(result for result in self.results if result is not None)


@dataclass(eq=False, slots=True)
class Entry:
    """One item of a job, as it waits and as it is computed.

    Attributes:
        job: Its job.
        index: Which of the job's items it is.
        num_bytes: Bytes of its text, shared part and own; 0 for ids, whose tokens are known.
    """

    job: Job
    index: int
    num_bytes: int
    _key: PrefixKey
    _shared: int  # estimated tokens of what it has in common with the others of its key
    _own: int  # of the rest
    _attempt: int = 0
    _number: int = -1  # its place in the queue; -1 where it does not wait

    @property
    def item(self) -> Item:
        """The item."""
        return self.job.items[self.index]

    @property
    def is_awaited(self) -> bool:
        """Whether its result counts: its job was not begun anew since."""
        return self._attempt == self.job.attempt

    def settle(self, result: Result) -> bool:
        """Give the item its result, if it is awaited.

        Args:
            result: The result.

        Returns:
            Whether the job has all its results now.
        """
        if not self.is_awaited:
            return False
        self.job.results[self.index] = result
        self.job._missing -= 1
        return self.job._missing == 0


class Taken(NamedTuple):
    """What is to be computed together.

    Attributes:
        entries: The items. Those of one prompt stand together; prompts are in the order in which their oldest came.
        tokens: Their estimated tokens.
        relief: By how much :attr:`BatchQueue.tokens` fell for them. Less than their tokens where others of a prompt
            still wait: what they share will be computed again.
    """

    entries: list[Entry]
    tokens: int
    relief: int


@dataclass(slots=True)
class _Group:
    """What waits under one key."""

    shared: int
    entries: OrderedDict[int, Entry] = field(default_factory=OrderedDict)


class BatchQueue:
    """What waits.

    Adding, taking and removing an item cost the same however many wait.

    Args:
        most_items: Most items that may wait.
    """

    def __init__(self, most_items: int) -> None:
        self.most_items = most_items
        self._order: OrderedDict[int, Entry] = OrderedDict()  # unlike a dict's, its first is found at once
        self._groups: dict[PrefixKey, _Group] = {}
        self._next_number = 0
        self._tokens = 0
        self._bytes_seen = float(_FIRST_BYTES)
        self._tokens_seen = TOKENS_PER_BYTE * _FIRST_BYTES

    def __len__(self) -> int:
        return len(self._order)

    @property
    def tokens(self) -> int:
        """Estimated tokens of what waits, what is shared counted once."""
        return self._tokens

    @property
    def tokens_per_byte(self) -> float:
        """The ratio in use."""
        return self._tokens_seen / self._bytes_seen

    @property
    def oldest_since(self) -> float | None:
        """When the oldest item came; None where none waits."""
        return next(iter(self._order.values())).job.since if self._order else None

    def has_room(self, num_items: int) -> bool:
        """Whether so many items more may wait.

        Args:
            num_items: How many.
        """
        return len(self._order) + num_items <= self.most_items

    def put(self, job: Job) -> None:
        """Let all items of a job wait.

        Args:
            job: The job; a new one.

        Raises:
            ValueError: There is no room for them.
        """
        if not self.has_room(len(job.items)):
            raise ValueError(f"{len(job.items)} items do not fit: {len(self)} of {self.most_items} places are taken")
        job._entries = _entries_of(job, self.tokens_per_byte)
        for entry in job._entries:
            self._append(entry)

    def remove(self, job: Job) -> None:
        """Take back what still waits of a job.

        Args:
            job: The job.
        """
        for entry in job._entries:
            if entry._number >= 0:
                self._take(entry)

    def is_waiting(self, job: Job) -> bool:
        """Whether any of a job's items waits.

        Args:
            job: The job.
        """
        return any(entry._number >= 0 for entry in job._entries)

    def begin_anew(self, job: Job) -> None:
        """Forget a job's results, those still being computed too, and let all its items wait again, before all others.

        Args:
            job: A job that waited before.
        """
        self.remove(job)
        job._forget()
        job.attempt += 1
        job._entries = [replace(entry, _attempt=job.attempt) for entry in job._entries]
        for entry in reversed(job._entries):
            self._append(entry)
            self._order.move_to_end(entry._number, last=False)
            self._groups[entry._key].entries.move_to_end(entry._number, last=False)

    def next_batch(self, budget: int, now: float) -> Taken:
        """Take the items that are to be computed together.

        Args:
            budget: Most estimated tokens, what is shared counted once; an item over it goes alone.
            now: Jobs whose deadline has come are removed where they are met, and never taken.
        """
        taken: list[Entry] = []
        total = relief = 0
        while self._order:
            oldest = next(iter(self._order.values()))
            group = self._groups[oldest._key]
            if oldest.job.deadline <= now:
                self.remove(oldest.job)
                continue
            if taken and total + group.shared + oldest._own > budget:
                break
            total += group.shared
            while group.entries:
                entry = next(iter(group.entries.values()))
                if entry.job.deadline <= now:
                    self.remove(entry.job)
                    continue
                if taken and total + entry._own > budget:
                    return Taken(taken, total, relief)
                relief += self._take(entry)
                taken.append(entry)
                total += entry._own
        return Taken(taken, total, relief)

    def learn(self, num_bytes: int, num_tokens: int) -> None:
        """Correct the ratio by what a batch really had.

        Args:
            num_bytes: Bytes of its texts.
            num_tokens: Tokens of them.
        """
        if num_bytes > 0 and num_tokens > 0:
            self._bytes_seen = _DECAY * self._bytes_seen + num_bytes
            self._tokens_seen = _DECAY * self._tokens_seen + num_tokens

    def _append(self, entry: Entry) -> None:
        entry._number = self._next_number
        self._next_number += 1
        self._order[entry._number] = entry
        group = self._groups.get(entry._key)
        if group is None:
            group = self._groups[entry._key] = _Group(entry._shared)
            self._tokens += group.shared
        group.entries[entry._number] = entry
        self._tokens += entry._own

    def _take(self, entry: Entry) -> int:
        """Take an item out; returns the tokens that wait no more."""
        del self._order[entry._number]
        group = self._groups[entry._key]
        del group.entries[entry._number]
        relief = entry._own
        if not group.entries:
            del self._groups[entry._key]
            relief += group.shared
        self._tokens -= relief
        entry._number = -1
        return relief


def _entries_of(job: Job, tokens_per_byte: float) -> list[Entry]:
    prompts: dict[int, tuple[PrefixKey, int]] = {}  # by identity: a request may have one prompt a thousand times
    entries = []
    for index, item in enumerate(job.items):
        if isinstance(item, Ids):
            shared = min(len(item.ids), PREFIX_IDS)
            key: PrefixKey = ("ids", item.ids[:PREFIX_IDS])
            entries.append(Entry(job, index, 0, key, shared, len(item.ids) - shared))
            continue
        if isinstance(item, Continued) and not isinstance(item.prompt, str):
            item = Conversation(item.prompt, item.response)
        if isinstance(item, Conversation):
            if id(item.prompt) not in prompts:
                found = ("prompt", text_key(item.prompt, role="user")), _num_bytes(text_of(item.prompt))
                prompts[id(item.prompt)] = found
            key, shared = prompts[id(item.prompt)]
            # Steps are the completion in pieces where it is given too: whichever is longer.
            own = max(_num_bytes(text_of(item.completion)), sum(map(_num_bytes, item.steps)))
        else:
            key, shared, own = _rendered(item)
        entries.append(
            Entry(
                job,
                index,
                shared + own,
                key,
                math.ceil(shared * tokens_per_byte),
                max(1, math.ceil(own * tokens_per_byte)),
            )
        )
    return entries


def _rendered(item: Rendered | Continued) -> tuple[PrefixKey, int, int]:
    """Key, shared bytes and own bytes of a text of which only the beginning is compared."""
    parts: Sequence[str] = (item.text,) if isinstance(item, Rendered) else (text_of(item.prompt), item.response)
    prefix = "".join(part[:PREFIX_CHARS] for part in parts)[:PREFIX_CHARS]
    shared = _num_bytes(prefix)
    return ("text", prefix), shared, sum(map(_num_bytes, parts)) - shared


def _num_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())

"""What waits to be scored, and which of it goes together into the next batch. No asyncio, no clock, no processes.

Every second batch is filled in the order in which the items came, the others by turns: requests take turns by tokens,
so that one of a thousand items does not hold up those of one item, and by age, so that those do not hold up the large
one for more than twice its time. Turns are those of start-time fair queueing (Goyal, Vin and Cheng, 1996): an item's
turn is the tokens of its own request before it, counted from the turn that was reached when the request came.

Waiting items of equal prompt are pulled forward to one that goes, so that what they share is computed once; the oldest
of them first. So whoever is overtaken waits for every older prompt at most one batch more.

The queue has no tokenizer: it estimates tokens from UTF-8 bytes, by a ratio learned from what the worker reports. An
estimate that is off costs a little speed and nothing else, for the worker's engine divides what it is sent by exact
counts anyway.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from heapq import heapify, heappop, heappush
from typing import NamedTuple, TypeAlias

from rewardlab.data.encoding import common_length
from rewardlab.serving.items import Continued, Conversation, Ids, Item, Rendered, Result
from rewardlab.types import text_key, text_of

TOKENS_PER_BYTE = 0.3
"""Where the ratio starts: about what byte-pair encodings need for English."""
PREFIX_CHARS = 512
PREFIX_IDS = 64
_FIRST_BYTES = 4096  # what the first ratio weighs, against bytes seen
_DECAY = 0.9  # what a batch leaves of the weight of those before it
_STALE = 64  # turns of items that wait no more, beside as many as wait, before they are thrown away

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
    _rest: int  # of all that follows
    _own: int  # of what of it nothing else that waits under the key begins with too
    _before: int  # estimated tokens of the job's items before it, what is shared counted once
    _attempt: int = 0
    _number: int | None = None  # its place in the queue; None where it does not wait
    _turn: float = 0.0

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
        entries: The items. Those of one prompt stand together.
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
    first: str | tuple[int, ...]  # what the first to come begins with, as far as it can be told; "" for conversations
    own: int = 0
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
        self._turns: list[tuple[float, int]] = []  # a heap of turns and numbers, also of some that wait no more
        self._turn = 0.0  # the turn that is reached
        self._goes_by_age = False
        self._last_number = self._first_number = 0
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
            self._last_number += 1
            self._append(entry, self._last_number, self._turn + entry._before)

    def remove(self, job: Job) -> None:
        """Take back what still waits of a job.

        Args:
            job: The job.
        """
        for entry in job._entries:
            if entry._number is not None:
                self._take(entry)

    def is_waiting(self, job: Job) -> bool:
        """Whether any of a job's items waits.

        Args:
            job: The job.
        """
        return any(entry._number is not None for entry in job._entries)

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
            self._first_number -= 1
            self._append(entry, self._first_number, -math.inf)
            self._order.move_to_end(self._first_number, last=False)
            self._groups[entry._key].entries.move_to_end(self._first_number, last=False)

    def next_batch(self, budget: int, now: float) -> Taken:
        """Take the items that are to be computed together.

        Args:
            budget: Most estimated tokens, what is shared counted once; an item over it goes alone.
            now: Jobs whose deadline has come are removed where they are met, and never taken.
        """
        by_age = self._goes_by_age
        self._goes_by_age = not by_age
        taken: list[Entry] = []
        total = relief = 0
        while self._order:
            head = next(iter(self._order.values())) if by_age else self._next_in_turn()
            if head.job.deadline <= now:
                self.remove(head.job)
                continue
            group = self._groups[head._key]
            whole = group.shared + group.own
            if taken and total + (whole if whole <= budget else group.shared + head._own) > budget:
                break  # a group that fits into a batch is not divided: its prompt would be computed twice
            if not by_age:
                self._turn = max(self._turn, head._turn)
            total += group.shared
            entry: Entry | None = head
            while entry is not None:
                if entry.job.deadline <= now:
                    self.remove(entry.job)
                elif taken and total + entry._own > budget:
                    return Taken(taken, total, relief)
                else:
                    relief += self._take(entry)
                    taken.append(entry)
                    total += entry._own
                entry = next(iter(group.entries.values()), None)
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

    def _append(self, entry: Entry, number: int, turn: float) -> None:
        entry._number, entry._turn = number, turn
        self._order[number] = entry
        if len(self._turns) > 2 * len(self._order) + _STALE:
            self._turns = [waiting for waiting in self._turns if waiting[1] in self._order]
            heapify(self._turns)
        heappush(self._turns, (turn, number))
        group = self._groups.get(entry._key)
        text = _beginning(entry.item)
        entry._own = entry._rest
        if group is None:
            group = self._groups[entry._key] = _Group(entry._shared, text)
            self._tokens += group.shared
        elif text and group.first:  # rendered texts and ids have more in common than their key
            new = 1.0 - common_length(text, group.first) / len(text)
            entry._own = max(1, min(entry._rest, math.ceil(new * (entry._shared + entry._rest))))
        group.entries[number] = entry
        group.own += entry._own
        self._tokens += entry._own

    def _next_in_turn(self) -> Entry:
        """The item whose turn is next; some waits."""
        while self._turns[0][1] not in self._order:
            heappop(self._turns)
        return self._order[self._turns[0][1]]

    def _take(self, entry: Entry) -> int:
        """Take an item out; returns the tokens that wait no more."""
        assert entry._number is not None
        del self._order[entry._number]
        group = self._groups[entry._key]
        del group.entries[entry._number]
        group.own -= entry._own
        relief = entry._own
        if not group.entries:
            del self._groups[entry._key]
            relief += group.shared
        self._tokens -= relief
        entry._number = None
        return relief


def _entries_of(job: Job, tokens_per_byte: float) -> list[Entry]:
    prompts: dict[int, tuple[PrefixKey, int]] = {}  # by identity: a request may have one prompt a thousand times
    entries: list[Entry] = []
    keys: set[PrefixKey] = set()
    before = 0
    for index, item in enumerate(job.items):
        if isinstance(item, Continued) and not isinstance(item.prompt, str):
            item = Conversation(item.prompt, item.response)
        if isinstance(item, Ids):
            key: PrefixKey = ("ids", item.ids[:PREFIX_IDS])
            shared = min(len(item.ids), PREFIX_IDS)
            own, num_bytes = len(item.ids) - shared, 0
        else:
            if isinstance(item, Conversation):
                if id(item.prompt) not in prompts:
                    found = ("prompt", text_key(item.prompt, role="user")), _num_bytes(text_of(item.prompt))
                    prompts[id(item.prompt)] = found
                key, shared = prompts[id(item.prompt)]
                # Steps are the completion in pieces where it is given too: whichever is longer.
                own = max(_num_bytes(text_of(item.completion)), sum(map(_num_bytes, item.steps)))
            else:
                key, shared, own = _rendered(item)
            num_bytes = shared + own
            shared, own = math.ceil(shared * tokens_per_byte), max(1, math.ceil(own * tokens_per_byte))
        entries.append(Entry(job, index, num_bytes, key, shared, own, own, before))
        before += own if key in keys else shared + own
        keys.add(key)
    return entries


def _rendered(item: Rendered | Continued) -> tuple[PrefixKey, int, int]:
    """Key, shared bytes and own bytes of a text of which only the beginning is compared."""
    parts: Sequence[str] = (item.text,) if isinstance(item, Rendered) else (text_of(item.prompt), item.response)
    prefix = "".join(part[:PREFIX_CHARS] for part in parts)[:PREFIX_CHARS]
    shared = _num_bytes(prefix)
    return ("text", prefix), shared, sum(map(_num_bytes, parts)) - shared


def _beginning(item: Item) -> str | tuple[int, ...]:
    if isinstance(item, Ids):
        return item.ids
    return item.text if isinstance(item, Rendered) else ""


def _num_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())

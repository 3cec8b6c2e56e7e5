"""Scoring on several processes: process 0 does the work of a command, the others lend it their copies of its models.

=======================  =======================================================================================
process 0                every other process
=======================  =======================================================================================
opens a scorer           opens the same one, with the same options
plans the forwards       computes those that it is sent, whole, and sends back what its models gave
all else of a command    waits
=======================  =======================================================================================

Which forwards there are does not depend on the number of processes, so neither do scores. Data is read, and output
written, by process 0 alone.

This file knows processes, models and messages; what a forward is, and what is computed of it, is
:mod:`rewardlab.modeling.engine`'s.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
from torch import Tensor, nn

from rewardlab.errors import RewardLabError
from rewardlab.launching import is_started
from rewardlab.modeling.cost import ComputeCost
from rewardlab.modeling.ranks import Ranks, share_out

if TYPE_CHECKING:
    from rewardlab.modeling.engine import Computation, Engine
    from rewardlab.modeling.planner import Forward, Layout

Opened = TypeVar("Opened")

_CONNECTING = timedelta(minutes=10)
_WAITING = timedelta(days=7)  # who lends waits for as long as process 0 reads or writes; who dies is noticed at once


@dataclass(frozen=True, slots=True)
class _Open:
    """What to open, and the numbers of the models that are still needed."""

    request: Mapping[str, Any]
    needed: frozenset[int]


@dataclass(frozen=True, slots=True)
class _Compute:
    """Forwards of one model; each is answered by what it gave, or an error, which ends the answers."""

    model: int
    layout: Layout
    computation: Computation
    forwards: tuple[Forward, ...]


@dataclass(frozen=True, slots=True)
class _Stop:
    """There is nothing more to do."""


class Lenders:
    """The other processes, as process 0 sees them.

    Args:
        ranks: The processes of this run.
    """

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._others = range(1, ranks.count)
        self._numbers: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()
        self._opened = 0
        self._receivers: list[Thread] = []

    def holds(self, model: nn.Module) -> bool:
        """Whether the other processes have this model too."""
        return model in self._numbers

    def open(
        self, request: Mapping[str, Any], open_here: Callable[[], Opened], models_of: Callable[[Opened], list[Any]]
    ) -> Opened:
        """Open something in every process.

        Args:
            request: What to open, as the others' ``open_there`` (:func:`lend`) takes it.
            open_here: Opens it in this process.
            models_of: Its models, in the same order in every process.

        Raises:
            RewardLabError: Another process is gone. What opening raises, here or there, is raised as itself.
        """
        self._wait()
        for rank in self._others:
            self._send(_Open(request, frozenset(self._numbers.values())), rank)
        try:
            found = open_here()
        finally:  # each answers once, whatever came of it here
            answers = [self._receive(rank) for rank in self._others]
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        for model in models_of(found):
            if model not in self._numbers:
                self._numbers[model] = self._opened
                self._opened += 1
        return found

    def compute(
        self,
        engine: Engine,
        computation: Computation,
        forwards: Sequence[Forward],
    ) -> Iterator[tuple[int, Tensor | None]]:
        """What a computation makes of some forwards, each computed by one process.

        Args:
            engine: Of a model that the others hold.
            computation: As :meth:`Engine.attempt <rewardlab.modeling.engine.Engine.attempt>` has it; picklable.
            forwards: The forwards.

        Yields:
            The number of a forward, and what came of it as :meth:`Engine.attempt
            <rewardlab.modeling.engine.Engine.attempt>` has it, in the order in which they are done.

        Raises:
            RewardLabError: Another process is gone. What a forward raises there is raised as itself.
        """
        self._wait()
        cost = ComputeCost.of_model(engine.model)
        own, *lent = share_out([cost.of_forward(forward) for forward in forwards], self._ranks.count)
        arrived: SimpleQueue[tuple[int, Any]] = SimpleQueue()
        for rank, share in zip(self._others, lent, strict=True):
            if share:
                part = tuple(forwards[number] for number in share)
                self._send(_Compute(self._numbers[engine.model], engine.layout, computation, part), rank)
                self._receivers.append(Thread(target=self._collect, args=(rank, share, arrived), daemon=True))
                self._receivers[-1].start()
        missing = sum(map(len, lent))
        while own or missing:
            if own and arrived.empty():
                number = own.pop(0)
                yield number, engine.attempt(forwards[number], computation)
                continue
            number, values = arrived.get()
            if isinstance(values, BaseException):
                raise values
            missing -= 1
            yield number, values

    def stop(self) -> None:
        """Let the others go; those that are gone already stay so."""
        for rank in self._others:
            try:
                self._send(_Stop(), rank)
            except RewardLabError:
                continue
        self._wait()

    def _collect(self, rank: int, share: Sequence[int], arrived: SimpleQueue[tuple[int, Any]]) -> None:
        """Receive the answers of one process; a thread of its own, since waiting for one must not hold up others."""
        for number in share:
            try:
                answer = self._receive(rank)
            except Exception as error:  # whatever it is: an answer is waited for
                answer = error
            arrived.put((number, answer))
            if isinstance(answer, BaseException):
                return

    def _wait(self) -> None:
        """Until no answer is on its way: of a computation that ended early some may be."""
        for receiver in self._receivers:
            receiver.join()
        self._receivers.clear()

    def _send(self, message: Any, rank: int) -> None:
        _send(message, rank, self._ranks.group)

    def _receive(self, rank: int) -> Any:
        return _receive(rank, self._ranks.group)


_ACTIVE: list[Lenders] = []


def lenders_of(model: nn.Module) -> Lenders | None:
    """The processes that have this model too and compute for this one; None where it is alone."""
    return _ACTIVE[0] if _ACTIVE and _ACTIVE[0].holds(model) else None


def open_everywhere(
    request: Mapping[str, Any], open_here: Callable[[], Opened], models_of: Callable[[Opened], list[Any]]
) -> Opened:
    """Open something in this process, and in those that lend it theirs (:meth:`Lenders.open`)."""
    return _ACTIVE[0].open(request, open_here, models_of) if _ACTIVE else open_here()


def processes_of_this_run() -> Ranks:
    """Connect the processes that a launcher has started; one alone where none has.

    Each that has a GPU takes that of its number on the machine as its default.
    """
    if not is_started() or os.environ["WORLD_SIZE"] == "1":
        return Ranks()
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    if not dist.is_initialized():
        dist.init_process_group("gloo", timeout=_CONNECTING)
    return Ranks(dist.get_rank(), dist.get_world_size(), dist.new_group(backend="gloo", timeout=_WAITING))


@contextmanager
def borrowing(ranks: Ranks) -> Iterator[None]:
    """Within, process 0 has the models that it opens computed by the other processes too, which run :func:`lend`.

    After an error they are let go as after success. After an interruption they are not waited for: they notice that
    this process has ended.
    """
    if ranks.count == 1:
        yield
        return
    lenders = Lenders(ranks)
    _ACTIVE.append(lenders)
    try:
        yield
    except Exception:
        lenders.stop()
        raise
    else:
        lenders.stop()
    finally:
        _ACTIVE.clear()


def lend(
    ranks: Ranks,
    open_there: Callable[[Mapping[str, Any]], list[Any]],
    engine_of: Callable[[Any, Layout], Engine],
) -> None:
    """Compute what process 0 sends, until it lets this one go.

    Args:
        ranks: The processes of this run; this is not process 0.
        open_there: Opens what a request asks for, and gives its models.
        engine_of: The engine that runs a model in a layout.

    Raises:
        RewardLabError: Process 0 is gone.
    """
    models: dict[int, Any] = {}
    opened = 0
    while True:
        message = _receive(0, ranks.group)
        if isinstance(message, _Stop):
            return
        if isinstance(message, _Open):
            models = {number: model for number, model in models.items() if number in message.needed}
            try:
                found = dict.fromkeys(open_there(message.request))  # each once: an ensemble may have a model twice
            except Exception as error:
                _send(error, 0, ranks.group)
                continue
            models.update(enumerate(found, opened))
            opened += len(found)
            _send(None, 0, ranks.group)
        else:
            _answer(message, engine_of(models[message.model], message.layout), ranks)


def _answer(message: _Compute, engine: Engine, ranks: Ranks) -> None:
    """What came of each forward, one after the other; an error is the last."""
    for forward in message.forwards:
        try:
            answer: Any = engine.attempt(forward, message.computation)
        except Exception as error:
            answer = error
        _send(answer, 0, ranks.group)
        if isinstance(answer, Exception):
            return


def _send(message: Any, rank: int, group: Any) -> None:
    try:
        dist.send_object_list([message], rank, group=group)
    except RuntimeError as error:
        raise _gone(rank) from error


def _receive(rank: int, group: Any) -> Any:
    found: list[Any] = [None]
    try:
        dist.recv_object_list(found, rank, group=group)
    except RuntimeError as error:
        raise _gone(rank) from error
    return found[0]


def _gone(rank: int) -> RewardLabError:
    return RewardLabError(
        f"process {rank} of this run is gone: the connection to it is lost",
        hint="its own messages say why, or it was killed (by the system, where memory was short); start again",
    )

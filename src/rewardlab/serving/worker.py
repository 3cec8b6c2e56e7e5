"""The worker process: one scorer behind a socket, ``python -m rewardlab.serving.worker FD``.

A thread receives messages and turns batches into ids ahead of the main thread, which computes. The same thread sees the
server go, by a closed socket, even where the main thread hangs in a forward: the process then ends at once, so that a
worker never outlives its server. Signals meant for the server are ignored, for Ctrl-C reaches the whole process group.

torch is imported only after all that is in place.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from importlib import import_module
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import TYPE_CHECKING

from rewardlab.errors import CheckpointError, ConfigError, RewardLabError
from rewardlab.serving.fault_log import log_fault
from rewardlab.serving.messages import Alive, Batch, Done, Loaded, LoadFailed, Sleep, Stop, WakeUp, WorkerSpec

if TYPE_CHECKING:
    from rewardlab.data.encoding import EncodedGroup
    from rewardlab.errors import DataError
    from rewardlab.modeling.loading import RewardModel
    from rewardlab.serving.item_scoring import ItemScorer

    _Task = Sleep | WakeUp | tuple[int, list[EncodedGroup | DataError]]
    """What the main thread does next; of a batch its number and its items as ids."""

logger = logging.getLogger(__name__)


def main(fd: int) -> int:
    """Serve until the other end closes the socket or says so.

    Args:
        fd: File descriptor of a socket that was inherited. The first message is the
            :class:`~rewardlab.serving.messages.WorkerSpec`.

    Returns:
        An exit status: 1 where the model could not be loaded, or can no longer compute.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="worker: %(levelname)s: %(message)s")
    logging.captureWarnings(True)
    connection = Connection(fd)
    try:
        return _Worker(connection).run(connection.recv())
    except (EOFError, ConnectionError):
        return 0


def load(spec: WorkerSpec) -> ItemScorer:
    """Open what a worker is to serve.

    Args:
        spec: What to open, and how.

    Raises:
        RewardLabError: It cannot be trusted to give scores, or an option cannot be used.
    """
    options = dict(spec.options)
    if options.pop("trust_remote_code", False):
        raise ConfigError("a server never runs a repository's own Python code", hint="leave trust_remote_code out")
    if spec.require_contract:
        options["verify"] = True
    module, _, function = spec.opener.partition(":")
    scorer = getattr(import_module(module), function)(spec.path, **options)
    for each in scorer.checkpoints:
        _require_own_pad(each)
    without = [str(each.folder) for each in scorer.checkpoints if each.contract is None]
    if spec.require_contract and without:
        raise CheckpointError(
            f"{without[0]} has no contract, so nothing says that its scores are right",
            hint="`rewardlab import` gives a model of others one",
        )
    from rewardlab.serving.item_scoring import ItemScorer

    loaded = ItemScorer(scorer, name=spec.name, path=spec.path)
    loaded.info.require_scale(spec.scale)
    return loaded


def _require_own_pad(loaded: RewardModel) -> None:
    """Refuse a model that transformers reads one token before the end, and other servers at it."""
    pad = loaded.model.config.get_text_config().pad_token_id
    if loaded.read_out.kind == "sequence" and pad in (loaded.tokenizer.eos_token_id, loaded.tokenizer.sep_token_id):
        raise CheckpointError(
            f"{loaded.folder}: the padding token {pad} is the token that ends a text, so that tools read its score at "
            "different tokens",
            hint="`rewardlab import` gives it a padding token of its own",
        )


class _Worker:
    """What passes between the two threads.

    Args:
        connection: To the server; received from by the one thread, sent to by the other.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._tasks: SimpleQueue[_Task] = SimpleQueue()
        self._scorer: ItemScorer | None = None  # set before the server is told, hence before the first batch

    def run(self, spec: WorkerSpec) -> int:
        """Load, then answer messages one after another."""
        threading.Thread(target=self._receive, daemon=True).start()
        start = time.monotonic()
        try:
            self._scorer = scorer = load(spec)
        except RewardLabError as error:
            self._connection.send(LoadFailed(error.message, error.hint, isinstance(error, ConfigError)))
            return 1
        except Exception as error:
            log_fault(logger, "loading the model", error)
            said = (str(error).splitlines() or [""])[0]
            self._connection.send(LoadFailed(f"loading raised {type(error).__name__}: {said}"))
            return 1
        self._connection.send(Loaded(scorer.info, time.monotonic() - start))
        try:
            while True:
                self._connection.send(self._answer(scorer, self._tasks.get()))
        except ConnectionError:
            raise
        except Exception as error:  # single items were tried alone: it is the model or its device that is broken
            log_fault(logger, "computing", error)
            return 1

    def _answer(self, scorer: ItemScorer, task: _Task) -> Alive | Done:
        if isinstance(task, Sleep):
            scorer.sleep()
            return Alive()
        if isinstance(task, WakeUp):
            scorer.wake_up()
            return Alive()
        number, encoded = task
        results, work = scorer.score_encoded(encoded, lambda: self._connection.send(Alive()))
        return Done(number, results, work)

    def _receive(self) -> None:
        """Take messages in; ends the process where there will be no more."""
        status = 1
        try:
            while True:
                message = self._connection.recv()
                if isinstance(message, Stop):
                    status = 0
                    return
                if isinstance(message, Batch):
                    assert self._scorer is not None
                    message = (message.number, self._scorer.encode(message.items))
                self._tasks.put(message)
        except (EOFError, ConnectionError):
            status = 0
        except Exception as error:
            log_fault(logger, "receiving", error)
        finally:
            os._exit(status)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))

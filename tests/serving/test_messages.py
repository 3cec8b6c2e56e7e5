"""Messages between server and worker: they travel, and bring no torch into the server's process."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest

from rewardlab.serving.items import Conversation, ItemRefusal, ItemScore
from rewardlab.serving.messages import Alive, Batch, Done, LoadFailed, Sleep, Stop, WakeUp, Work, WorkerSpec


@pytest.mark.parametrize(
    "message",
    [
        WorkerSpec("runs/rm", {"dtype": "bfloat16"}, require_contract=True),
        Batch(3, (Conversation("Hi", "x"),)),
        Sleep(),
        WakeUp(),
        Stop(),
        LoadFailed("no", "yes"),
        Alive(),
        Done(3, (ItemScore(1.0, 5), ItemRefusal("invalid", "m")), Work(5, 5, 0.1)),
    ],
)
def test_messages_travel(message: object) -> None:
    assert pickle.loads(pickle.dumps(message)) == message


def test_a_worker_opens_as_the_scorer_is_opened_elsewhere() -> None:
    from importlib import import_module

    from rewardlab.scoring.opening import open_scorer

    module, _, function = WorkerSpec("x").opener.partition(":")
    assert getattr(import_module(module), function) is open_scorer


def test_messages_bring_no_torch() -> None:
    """Nor does the worker's own module, which must be listening before the seconds that torch takes."""
    code = (
        "import sys, rewardlab.serving.messages, rewardlab.serving.worker\n"
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""A worker process without torch: it speaks the real messages over the real socket, and fails as a prompt asks for it.

Run as ``python -m tiny_worker FD``. A spec whose path is ``broken`` cannot be loaded; options ``deaf`` and ``garbage``
make one that never reads again, and one that says what cannot be unpickled.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import replace
from multiprocessing.connection import Connection

from fake_worker import MODEL, score_of

from rewardlab.serving.messages import Alive, Batch, Done, Loaded, LoadFailed, Stop, Work


def main(fd: int) -> int:
    connection = Connection(fd)
    spec = connection.recv()
    if spec.path == "broken":
        connection.send(LoadFailed("it is broken", "train it again"))
        return 1
    connection.send(Loaded(replace(MODEL, path=spec.path, fingerprint=spec.path), 0.0))
    if "deaf" in spec.options:
        time.sleep(3600)
    if "garbage" in spec.options:
        connection.send_bytes(b"not a pickle")
        time.sleep(3600)
    while True:
        try:
            message = connection.recv()
        except EOFError:
            return 0
        if isinstance(message, Stop):
            return 0
        if not isinstance(message, Batch):
            connection.send(Alive())
            continue
        for item in message.items:
            if item.prompt == "DIE":
                os.kill(os.getpid(), signal.SIGKILL)
            if item.prompt == "HANG":
                time.sleep(3600)
        results = tuple(map(score_of, message.items))
        connection.send(Done(message.number, results, Work(10 * len(results), 10 * len(results), 0.0)))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))

"""The server as `rewardlab serve` starts it, with what none of its options sets: who opens the scorer, any setting.

Run as ``python launch.py SPEC SETTINGS``, both JSON: the fields of a WorkerSpec and of ServerSettings.
"""

from __future__ import annotations

import json
import sys

from rewardlab.serving.app import create_app
from rewardlab.serving.batching import BatchingBackend
from rewardlab.serving.messages import WorkerSpec
from rewardlab.serving.metrics import Metrics
from rewardlab.serving.server import configure_logging, run_server
from rewardlab.serving.settings import ServerSettings


def main(spec: str, chosen: str) -> None:
    settings, metrics = ServerSettings(port=0, **json.loads(chosen)), Metrics()
    backend = BatchingBackend(WorkerSpec(**json.loads(spec)), settings, metrics)
    configure_logging("warning")
    app = create_app(backend, settings, metrics)
    run_server(app, backend, settings, on_ready=lambda url, _: print(url, file=sys.stderr, flush=True))


if __name__ == "__main__":
    main(*sys.argv[1:])

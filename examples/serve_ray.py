"""Replicas of the server on a Ray cluster: the same application, routes and numbers, one worker per replica.

    pip install "rewardlab[serve]" "ray[serve]"
    REWARDLAB_API_KEY=... serve run examples.serve_ray:build model=/models/my-rm replicas=4 gpus=1

Each replica loads the model in a worker process of its own, on the GPU that Ray gave the replica, and gathers what Ray
sends it into batches; Ray divides the requests, starts a replica again that says it cannot serve any more, and changes
their number with the load if `max_replicas` is given. Completions of one prompt share its computation where they come
in one request: with several replicas, send them so.

`model` must be a folder that every node can read, or a hub id. The cluster's own HTTP proxy listens where Ray is told
(`serve start --http-host`); with REWARDLAB_API_KEY set every route but /health needs the key here too. `/sleep`,
`/wake_up` and `/reload` reach one replica only: change the model by `serve run` or `serve deploy` again, which replaces
the replicas one after the other. `/metrics` is of one replica too: scrape Ray's own, or each replica's.
"""

from __future__ import annotations

import os
from typing import Any

from ray import serve

from rewardlab.scoring.names import short_name
from rewardlab.serving.app import create_app
from rewardlab.serving.batching import BatchingBackend
from rewardlab.serving.messages import WorkerSpec
from rewardlab.serving.metrics import Metrics
from rewardlab.serving.settings import ServerSettings


class LoadedBackend(BatchingBackend):
    """A backend that has begun when its model is loaded: Ray sends a replica nothing before."""

    async def start(self) -> None:
        """Load the model; what it raises, Ray shows as the reason why the replica could not start."""
        await super().start()
        await self.wait_ready()


@serve.ingress()
class RewardModelReplica:
    """One replica: the server's application around a worker of its own.

    Args:
        model: What `rewardlab serve` takes: a folder, a hub id, `A,B,C`, or `POLICY:REFERENCE`.
        options: Of `rewardlab.scoring.opening.open_scorer`, such as `{"dtype": "bfloat16"}`.
        api_key: As of `rewardlab serve`.
    """

    def __init__(self, model: str, options: dict[str, Any], api_key: str | None) -> None:
        self.settings = ServerSettings(host="0.0.0.0", api_key=api_key)
        self.metrics = Metrics()
        spec = WorkerSpec(path=model, options=options, name=short_name(model))
        self.backend = LoadedBackend(spec, self.settings, self.metrics)

    def __serve_build_asgi_app__(self) -> Any:
        """The application; Ray runs its lifespan, which starts and stops the worker."""
        return create_app(self.backend, self.settings, self.metrics)

    def check_health(self) -> None:
        """What Ray asks every few seconds: a replica whose model cannot be loaded any more is replaced."""
        if self.backend.state == "failed":
            raise RuntimeError(self.backend.reason)


def build(arguments: dict[str, str]) -> serve.Application:
    """The application that `serve run` deploys.

    Args:
        arguments: `model`, and optionally `replicas`, `max_replicas`, `gpus`, `cpus` (of each replica) and `dtype`.
    """
    replicas = int(arguments.get("replicas", "1"))
    resources = {"num_cpus": float(arguments.get("cpus", "2")), "num_gpus": float(arguments.get("gpus", "0"))}
    scaling: dict[str, Any] = {"num_replicas": replicas}
    if "max_replicas" in arguments:
        limits = {"min_replicas": replicas, "max_replicas": int(arguments["max_replicas"])}
        scaling = {"autoscaling_config": {**limits, "target_ongoing_requests": 64}}
    deployment = serve.deployment(
        RewardModelReplica,
        ray_actor_options=resources,
        max_ongoing_requests=512,  # the replica gathers them into batches, and refuses for itself what is too much
        **scaling,
    )
    options = {"dtype": arguments["dtype"]} if "dtype" in arguments else {}
    return deployment.bind(arguments["model"], options, os.environ.get("REWARDLAB_API_KEY"))

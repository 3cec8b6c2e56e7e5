"""The example for Ray Serve: wired as Ray wants it (a stand-in for Ray), and on a real cluster where there is one."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from rewardlab.scoring.scorer import Scorer

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "serve_ray.py"


@pytest.fixture
def example(monkeypatch):
    """The example, imported with a Ray that only notes what it is told."""

    def deployment(cls, **options):
        return SimpleNamespace(bind=lambda *args: SimpleNamespace(cls=cls, args=args, options=options))

    serve = SimpleNamespace(ingress=lambda: lambda cls: cls, deployment=deployment, Application=object)
    ray = ModuleType("ray")
    ray.serve = serve
    monkeypatch.setitem(sys.modules, "ray", ray)
    spec = importlib.util.spec_from_file_location("serve_ray_example", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_arguments_become_replicas_and_their_resources(example, monkeypatch):
    monkeypatch.setenv("REWARDLAB_API_KEY", "secret")
    built = example.build({"model": "/models/rm", "replicas": "3", "gpus": "0.5", "cpus": "4", "dtype": "bfloat16"})
    assert built.cls is example.RewardModelReplica
    assert built.args == ("/models/rm", {"dtype": "bfloat16"}, "secret")
    assert built.options["num_replicas"] == 3
    assert built.options["ray_actor_options"] == {"num_cpus": 4.0, "num_gpus": 0.5}


def test_a_most_number_of_replicas_scales_them_with_the_load(example):
    options = example.build({"model": "rm", "replicas": "2", "max_replicas": "8"}).options
    assert "num_replicas" not in options
    assert options["autoscaling_config"] == {"min_replicas": 2, "max_replicas": 8, "target_ongoing_requests": 64}


@pytest.mark.parametrize(
    ("model", "name"), [("/models/rm/", "rm"), ("/models/a,/models/b", "ensemble"), ("dpo:models/sft", "dpo")]
)
def test_a_replicas_model_is_called_as_rewardlab_serve_calls_it(example, monkeypatch, model, name):
    specs = []
    monkeypatch.setattr(example, "LoadedBackend", lambda spec, *others: specs.append(spec))
    example.RewardModelReplica(model, {}, None)
    assert [spec.name for spec in specs] == [name]


def test_a_replica_whose_model_cannot_be_loaded_any_more_says_that_it_is_not_well(example):
    replica = example.RewardModelReplica("/models/rm/", {}, None)
    assert replica.backend.state == "loading"
    replica.check_health()
    replica.backend = SimpleNamespace(state="failed", reason="five workers ended")
    with pytest.raises(RuntimeError, match="five workers ended"):
        replica.check_health()


_ON_A_CLUSTER = """
import json, sys, urllib.request
import ray
from ray import serve
ray.init(num_cpus=2, include_dashboard=False, object_store_memory=80 * 2**20)
serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[2])})
from serve_ray import build
serve.run(build({"model": sys.argv[1], "replicas": "2", "cpus": "0.5"}), name="rm")
body = json.dumps({"prompt": "Write about the sea.", "completions": ["a poem", "the sea"]}).encode()
url = f"http://127.0.0.1:{sys.argv[2]}/v1/rewards"
for _ in range(6):
    with urllib.request.urlopen(urllib.request.Request(url, body, {"content-type": "application/json"})) as answer:
        print(json.dumps([result["raw"] for result in json.load(answer)["results"]]))
serve.shutdown()
"""


@pytest.mark.slow
def test_replicas_on_a_ray_cluster_give_the_scorer_s_numbers(reward_model: Path, unused_port: int):
    pytest.importorskip("ray.serve", reason='Ray is not installed: pip install "ray[serve]"')
    import rewardlab

    path = os.pathsep.join([str(EXAMPLE.parent), str(Path(rewardlab.__file__).parents[1])])
    environment = {**os.environ, "PYTHONPATH": path, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run(
        [sys.executable, "-c", _ON_A_CLUSTER, str(reward_model), str(unused_port)],
        env=environment, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    expected = Scorer.from_pretrained(reward_model).score(["Write about the sea."] * 2, ["a poem", "the sea"])
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert found == [pytest.approx(expected, abs=1e-5)] * 6


@pytest.fixture
def unused_port() -> int:
    """A port that is free now."""
    import socket

    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]

"""The same run under DDP, ZeRO-2, ZeRO-3 and torch's fully_shard, on two processes each: one loss, one model.

DeepSpeed builds a kernel the first time it runs on a machine, which takes a minute or two.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.damaging import require_each_byte_counts

from rewardlab.launching import run_processes
from rewardlab.modeling.verification import verify_checkpoint
from rewardlab.types import PromptGroup

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="DeepSpeed is not installed"),
]

_SECONDS = 600

# All parameters of a tiny model are below the size from which DeepSpeed divides them by itself.
_ALL_IN_SHARDS = {
    "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0},
    "train_micro_batch_size_per_gpu": "auto",
    "train_batch_size": "auto",
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
}


@pytest.fixture(scope="module")
def rows(pairs: list[PromptGroup], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs and ties in a file; of the 28 groups one step has 16, another 12."""
    path = tmp_path_factory.mktemp("rows") / "pairs.jsonl"
    with path.open("w") as file:
        for number, group in enumerate(pairs[:28]):
            names = ("a", "b") if number % 4 == 0 else ("chosen", "rejected")
            file.write(json.dumps({"prompt": group.prompt, **dict(zip(names, group.completions, strict=True))}) + "\n")
    return path


def _train(launcher: str, base: Path, rows: Path, output: Path, *options: str, config: Path | None = None) -> None:
    settings = {
        "objective": "davidson",
        "learning_rate": "1e-3",
        "max_length": "128",
        "per_device_train_batch_size": "4",
        "gradient_accumulation_steps": "2",
        "num_train_epochs": "2",
        "tokens_per_batch": "100",  # processes need different numbers of forwards, some groups two passes
        "logging_steps": "1",
        "save_steps": "2",
        "disable_tqdm": "true",
    }
    command = [sys.executable, "-m", "rewardlab.cli", "train", "--model", str(base), "--data", str(rows)]
    command += ["--output", str(output), "--dtype", "float32", "--launcher", launcher, "--processes", "2", *options]
    command += [text for name, value in settings.items() for text in ("--set", f"{name}={value}")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if config is not None:
        environment["ACCELERATE_DEEPSPEED_CONFIG_FILE"] = str(config)
    # Killed, it takes its processes with it.
    ended = subprocess.run(command, env=environment, timeout=_SECONDS, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-4000:]
    assert "DeepSpeed" not in ended.stdout


def _losses(output: Path) -> list[float]:
    log = json.loads((output / "training" / "log_history.json").read_text())
    return [entry["loss"] for entry in log if "loss" in entry]


def _probe_scores(output: Path) -> list[float]:
    contract = json.loads((output / "reward_contract.json").read_text())
    return [probe["score"] for probe in contract["probes"]]


def _learned(output: Path) -> dict[str, Any]:
    return dict(json.loads((output / "reward_contract.json").read_text())["objective"])


@pytest.fixture(scope="module")
def ddp(base_model: Path, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("ddp") / "rm"
    _train("ddp", base_model, rows, output)
    return output


@pytest.fixture(scope="module")
def all_in_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "zero3.json"
    path.write_text(json.dumps(_ALL_IN_SHARDS))
    return path


def _require_same(output: Path, expected: Path) -> None:
    assert _losses(output) == pytest.approx(_losses(expected), abs=1e-4)
    assert len(_losses(output)) == 4
    assert _probe_scores(output) == pytest.approx(_probe_scores(expected), abs=1e-4)
    mine, theirs = _learned(output), _learned(expected)
    assert mine.keys() == theirs.keys()
    for name, value in theirs.items():
        assert mine[name] == (pytest.approx(value, abs=1e-4) if isinstance(value, float) else value)
    assert all(check.ok for check in verify_checkpoint(output).checks)


def test_zero2_ends_where_ddp_does(ddp: Path, base_model: Path, rows: Path, tmp_path: Path) -> None:
    _train("zero2", base_model, rows, tmp_path / "rm")
    _require_same(tmp_path / "rm", ddp)


def test_zero3_ends_where_ddp_does_and_where_it_is_resumed(
    ddp: Path, base_model: Path, rows: Path, tmp_path: Path, all_in_shards: Path
) -> None:
    _train("zero3", base_model, rows, tmp_path / "rm", config=all_in_shards)
    _require_same(tmp_path / "rm", ddp)
    of_two = require_each_byte_counts(ddp / "training" / "checkpoint-2")
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= set(of_two)
    shards = require_each_byte_counts(tmp_path / "rm" / "training" / "checkpoint-2")
    assert sum(name.endswith("_optim_states.pt") for name in shards) == 2

    training = tmp_path / "again" / "training"
    training.mkdir(parents=True)
    shutil.copy(tmp_path / "rm" / "training" / "run.json", training)
    shutil.copytree(tmp_path / "rm" / "training" / "checkpoint-2", training / "checkpoint-2")
    _train("zero3", base_model, rows, tmp_path / "again", "--resume", config=all_in_shards)
    assert _losses(tmp_path / "again") == _losses(tmp_path / "rm")
    assert _probe_scores(tmp_path / "again") == _probe_scores(tmp_path / "rm")
    assert _learned(tmp_path / "again") == _learned(tmp_path / "rm")


def test_adapters_under_zero3_end_where_they_do_under_ddp(
    base_model: Path, rows: Path, tmp_path: Path, all_in_shards: Path
) -> None:
    _train("ddp", base_model, rows, tmp_path / "ddp", "--lora")
    _train("zero3", base_model, rows, tmp_path / "zero3", "--lora", config=all_in_shards)
    _require_same(tmp_path / "zero3", tmp_path / "ddp")


_FULLY_SHARD = """
import os, sys
import torch, torch.distributed as dist
from accelerate import Accelerator
from conftest import make_pairs
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from rewardlab.data.encoding import Encoder
from rewardlab.modeling.cost import ComputeCost
from rewardlab.modeling.engine import Engine
from rewardlab.modeling.preparing import prepare_for_training
from rewardlab.modeling.ranks import Ranks
from rewardlab.objectives import build_objective
from rewardlab.training.arguments import RewardArguments
from rewardlab.training.batches import GroupCollator, encode_groups
from rewardlab.training.gathering import of_fsdp, put_together, structure_of
from rewardlab.training.supervision import supervision_of

base, output = sys.argv[1:]
dist.init_process_group("gloo")
ranks = Ranks.of_this_run()
arguments = RewardArguments(output, use_cpu=True, accelerator_config={"use_configured_state": False})
torch.manual_seed(1)  # by which the new row of the padding token is drawn
prepared = prepare_for_training(base, seed=1)
supervision = supervision_of(arguments)
data = encode_groups(make_pairs(24), Encoder(prepared.tokenizer, 128, arguments.read_out), supervision)
objective = build_objective("bradley_terry", arguments.objective_values())

def losses_of(model, ranks):
    # Before anything runs: a forward leaves the outermost parameters gathered, and those are none to step.
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    engine = Engine(inner, "tree", 100_000)
    collator = GroupCollator(engine.planner, supervision, ComputeCost.of_model(inner), ranks)
    losses = []
    for start in range(0, 24, 8):
        (part,) = collator(data.examples[start:start + 8])["parts"]
        (forward,) = part.forwards
        scores = engine.scores(forward, model)[torch.tensor(forward.indices).argsort()]
        loss = objective(scores, part.targets) * ranks.count / 8  # gradients are averaged over ranks
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(sum(ranks.gather(loss.item())) / ranks.count)
    return losses

torch.manual_seed(1)
inner = prepare_for_training(base, seed=1).model
whole_losses = losses_of(inner, Ranks())
expected = {name: parameter.detach().clone() for name, parameter in inner.named_parameters()}

inner = prepared.model
structure = structure_of(inner)
mesh = init_device_mesh("cpu", (ranks.count,))
for layer in inner.model.layers:
    fully_shard(layer, mesh=mesh)
fully_shard(inner, mesh=mesh)
assert inner.score.weight.to_local().numel() <= inner.score.weight.numel()
sharded_losses = losses_of(inner, ranks)
whole = put_together(structure, inner, of_fsdp, keep=ranks.index == 0)
if whole is not None:
    whole.save_pretrained(output + "/saved")
    torch.save({"whole": whole_losses, "sharded": sharded_losses, "expected": expected}, output + "/end.pt")
dist.barrier()
dist.destroy_process_group()
"""


def test_fully_shard_ends_where_one_process_does(base_model: Path, tmp_path: Path) -> None:
    """What accelerate's FSDP2 does on GPUs, by torch alone: accelerate has no FSDP on the CPU."""
    script = tmp_path / "train.py"
    script.write_text(_FULLY_SHARD)
    tests = str(Path(__file__).resolve().parents[1])
    command = ["timeout", str(_SECONDS), sys.executable, str(script), str(base_model), str(tmp_path)]
    assert run_processes(command, 2, {"PYTHONPATH": tests, "OMP_NUM_THREADS": "1"}) == 0
    end = torch.load(tmp_path / "end.pt")
    assert end["sharded"] == pytest.approx(end["whole"], abs=1e-4)
    assert end["whole"][0] != pytest.approx(end["whole"][-1], abs=1e-3)  # it has learned something
    from safetensors.torch import load_file

    saved = load_file(tmp_path / "saved" / "model.safetensors")
    assert saved.keys() == end["expected"].keys()
    for name, value in end["expected"].items():
        assert torch.allclose(saved[name], value, atol=1e-4), name

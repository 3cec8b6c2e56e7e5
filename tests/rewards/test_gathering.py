"""Two real processes over gloo, against one process and against the formulas in plain Python."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rewardlab.rewards import RewardBatch, RewardChain, gather_ranks
from rewardlab.rewards.gathering import alone

SPECS = {
    "default": "default",
    "trlx_ref": "trlx_ref",
    "openrlhf": "openrlhf",
    "all": ["delta", {"clip": {"limit": 4}}, {"ref": {"shift_mean": True}}, "norm", "whiten", "group"],
    "tokens": [{"running": {"of": "sequences"}}, "group"],
}
NAN, OUT = float("nan"), float("-inf")
STEPS = [
    [[1.0, 4.0, -2.0, NAN, 0.3], [7.0, 2.5]],
    [[], [3.0, 3.5, 0.25]],
    [[NAN], []],
    [[0.1, 0.2, float("inf")], [0.7, 12.0]],
]
"""Per step the scores of rank 0 and of rank 1. Prompts go a, b, a, b ... over both, so each group is on both."""

SCRIPT = """
import json, sys
import numpy as np
import torch.distributed as dist
from rewardlab.errors import ConfigError, DataError
from rewardlab.rewards import RewardBatch, RewardChain

store, rank, given, output = sys.argv[1], int(sys.argv[2]), json.load(open(sys.argv[3])), sys.argv[4]
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
told = {}
for name, spec in given["specs"].items():
    chain = RewardChain.from_config(spec)
    told[name] = []
    for step in given["steps"][name]:
        mine = step[rank]
        scores = np.array(mine["scores"], dtype=np.float64)
        batch = RewardBatch(scores, prompts=mine["prompts"], baselines=np.array(mine["baselines"], dtype=np.float64))
        result = chain(batch)
        told[name].append([result.rewards.tolist(), dict(result.statistics), chain.state_dict()])
try:
    RewardChain.from_config("grpo")(RewardBatch(np.array([1.0]), prompts=["a"] if rank == 0 else None))
except ConfigError as error:
    told["error"] = error.message
chain = RewardChain.from_config([{"temperature": {"value": 1e-300}}, "running"])
try:
    chain(RewardBatch(np.array([1e30 if rank else 1e-300])))
except DataError as error:
    told["infinite"] = [error.message, chain.state_dict()]
json.dump(told, open(output, "w"))
dist.destroy_process_group()
"""


def steps_for(name):
    """Each step as one list per rank of scores, prompts and baselines; token rewards are wider on rank 1."""
    steps = []
    for step in STEPS:
        start, of_ranks = 0, []
        for rank, scores in enumerate(step):
            keys = [("a", "b")[(start + i) % 2] for i in range(len(scores))]
            baselines = [NAN if i % 3 == 2 else 0.5 * i for i in range(len(scores))]
            start += len(scores)
            rows = [[s, 0.5, OUT] if rank else [0.25, s] for s in scores] if name == "tokens" else scores
            of_ranks.append({"scores": rows, "prompts": keys, "baselines": baselines})
        steps.append(of_ranks)
    return steps


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    folder: Path = tmp_path_factory.mktemp("gloo")
    (folder / "script.py").write_text(SCRIPT)
    (folder / "given.json").write_text(json.dumps({"specs": SPECS, "steps": {name: steps_for(name) for name in SPECS}}))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    outputs = [folder / f"{rank}.json" for rank in range(2)]
    arguments = [
        [str(folder / "store"), str(rank), str(folder / "given.json"), str(outputs[rank])] for rank in range(2)
    ]
    command = [sys.executable, str(folder / "script.py")]
    processes = [subprocess.Popen([*command, *given], env=environment) for given in arguments]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    return [json.loads(output.read_text()) for output in outputs]


@pytest.mark.parametrize("name", SPECS)
def test_two_processes_give_what_one_does_with_one_state(told, name):
    chain = RewardChain.from_config(SPECS[name])
    for step, first, second in zip(steps_for(name), told[0][name], told[1][name], strict=True):
        both = [row for of_rank in step for row in of_rank["scores"]]
        if name == "tokens":
            both = [[*row, OUT][:3] for row in both]
        batch = RewardBatch(
            np.array(both, dtype=np.float64),
            prompts=[key for of_rank in step for key in of_rank["prompts"]],
            baselines=np.array([value for of_rank in step for value in of_rank["baselines"]]),
        )
        one = chain(batch)
        mine = [row for told_rank in (first, second) for row in told_rank[0]]
        if name == "tokens":
            mine = [[*row, OUT][:3] for row in mine]
        assert np.array(mine, dtype=np.float64).tobytes() == one.rewards.tobytes(), "bit for bit"
        assert first[1] == second[1] == dict(one.statistics)
        assert first[2] == second[2] == chain.state_dict(), "the state is one on both ranks"


def test_two_processes_give_the_published_formula(told):
    """The default chain: minus baseline, clip, divide by stdev of all that both ranks have seen."""
    seen: list[float] = []
    for step, *ranks in zip(steps_for("default"), told[0]["default"], told[1]["default"], strict=True):
        clipped = []
        for of_rank in step:
            pairs = zip(of_rank["scores"], of_rank["baselines"], strict=True)
            clipped.append([min(10.0, s - (b if b == b else 0.0)) if abs(s) < 1e9 else NAN for s, b in pairs])
        seen += [value for of_rank in clipped for value in of_rank if value == value]
        std = statistics.stdev(seen)
        for of_rank, (rewards, _, _) in zip(clipped, ranks, strict=True):
            expected = [value / std for value in of_rank]
            assert np.array(rewards) == pytest.approx(np.array(expected), rel=1e-12, nan_ok=True)


def test_what_one_process_lacks_is_an_error_on_both(told):
    assert told[0]["error"] == told[1]["error"] == "rank 1: the chain needs prompts, and the batch has none"


def test_what_is_infinite_on_one_process_is_an_error_on_both_and_moves_neither(told):
    assert told[0]["infinite"] == told[1]["infinite"]
    message, state = told[0]["infinite"]
    assert message.startswith("temperature makes inf of 1e+30")
    assert state == RewardChain.from_config([{"temperature": {"value": 1e-300}}, "running"]).state_dict()


def test_without_distributed_there_is_one_rank():
    assert gather_ranks({"any": 1}) == alone({"any": 1}) == ([{"any": 1}], 0)

"""A step is the same on one, two and three processes: its gradients for every objective, and whole runs.

The processes are started once for each number of them, and do all cases one after the other (``process_runs.py``).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.process_runs import RUNS, STEPS
from torch import Tensor

from rewardlab.launching import run_processes

pytestmark = pytest.mark.slow

_SECONDS = 900
_SCRIPT = Path(__file__).with_name("process_runs.py")

Results = dict[str, Any]


@pytest.fixture(scope="module")
def of_processes(base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Results]:
    """What one, two and three processes have found."""
    found = {}
    for count in (1, 2, 3):
        folder = tmp_path_factory.mktemp(f"on{count}")
        command = ["timeout", str(_SECONDS), sys.executable, str(_SCRIPT), str(base_model), str(folder)]
        environment = {"OMP_NUM_THREADS": "1"}
        if count == 1:  # no launcher, and no DDP
            subprocess.run(command, env={**os.environ, **environment}, check=True, timeout=_SECONDS)
        else:
            assert run_processes(command, count, environment) == 0
        found[count] = torch.load(folder / "results.pt", weights_only=False)
    return found


def _largest_difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Of a parameter's whole gradient, relative to its length: single elements are sums that nearly cancel.

    The models are float64, but scores and losses are float32 whatever the model is, by the house's law.
    """
    assert one.keys() == other.keys()
    sizes = {name: float(value.norm()) for name, value in one.items()}
    return max(float((other[name] - one[name]).norm()) / size for name, size in sizes.items() if size)


@pytest.mark.parametrize("case", STEPS)
def test_gradients_do_not_depend_on_the_processes(of_processes: dict[int, Results], case: str) -> None:
    one = of_processes[1]["gradients"][case]
    assert max(float(value.abs().max()) for value in one.values()) > 1e-6  # there is something to compare
    found = {count: _largest_difference(one, of_processes[count]["gradients"][case]) for count in (2, 3)}
    print(f"{case}: largest relative difference on 2 processes {found[2]:.1e}, on 3 {found[3]:.1e}")
    assert max(found.values()) < 1e-6


@pytest.mark.parametrize("case", RUNS)
def test_runs_do_not_depend_on_the_processes(of_processes: dict[int, Results], case: str) -> None:
    one = of_processes[1]["runs"][case]
    losses = [entry["loss"] for entry in one["log"] if "loss" in entry]
    assert len(losses) == 8
    for count in (2, 3):
        other = of_processes[count]["runs"][case]
        assert other["groups"] == one["groups"]
        for name in ("loss", "eval_loss"):
            mine, theirs = ([entry[name] for entry in run["log"] if name in entry] for run in (other, one))
            assert mine == pytest.approx(theirs, rel=1e-6)
        assert _largest_difference(one["weights"], other["weights"]) < 1e-5
        if case != "head alone":  # whose batches hold features, and no groups
            assert set(other["used"].values()) == {2}  # in either epoch once
            assert sorted(other["used"]) == sorted(one["groups"])
            assert all(other["shares"])

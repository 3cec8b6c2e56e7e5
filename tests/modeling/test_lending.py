"""Two processes, one of which lends the other its models: the same scores bit for bit, and no hang whatever fails.

One launch goes through all cases, since starting torch twice is what takes the time: process 0 writes what it found.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForSequenceClassification, LlamaForTokenClassification, PreTrainedModel

from rewardlab.errors import ConfigError, RewardLabError
from rewardlab.modeling.engine import Engine
from rewardlab.modeling.lending import borrowing, lend, open_everywhere, processes_of_this_run
from rewardlab.modeling.planner import Forward
from rewardlab.modeling.ranks import Ranks

TIMEOUT = 300  # seconds; a busy machine starts torch slowly
BUDGET = 60


def make_sequences() -> list[list[int]]:
    rng = random.Random(0)
    prompts = [[rng.randrange(5, 300) for _ in range(4 + number)] for number in range(12)]
    return [prompt + [rng.randrange(5, 300) for _ in range(2 + 3 * k)] for prompt in prompts for k in range(4)]


SEQUENCES = make_sequences()
READOUTS = [(1, len(ids) - 1) for ids in SEQUENCES]


def opened(request: Mapping[str, Any]) -> list[PreTrainedModel]:
    """The models that a request names by their seeds; an odd seed has a token head."""
    if request.get("breaks_in", "none") == os.environ.get("RANK"):
        raise ConfigError("this process cannot open it", hint="there is no such hint")
    models: list[PreTrainedModel] = []
    for seed in request["seeds"]:
        torch.manual_seed(seed)
        sizes = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
        heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128}
        special = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2, "use_cache": False}
        config = LlamaConfig(**sizes, **heads, **special, num_labels=1 + seed % 2)
        models.append((LlamaForTokenClassification if seed % 2 else LlamaForSequenceClassification)(config).eval())
    return models


# -- computations, which the other process knows by their names -----------------------------------------------------


def _rank(engine: Engine, forward: Forward) -> Tensor:
    return torch.full((len(forward.indices),), float(os.environ["RANK"]))


def _fails_there(engine: Engine, forward: Forward) -> Tensor:
    if os.environ["RANK"] == "1":
        raise ConfigError("found no number", hint="of process 1")
    return engine.scores(forward)


def _short_of_memory_there(engine: Engine, forward: Forward) -> Tensor:
    if os.environ["RANK"] == "1" and forward.num_tokens > BUDGET // 2:
        raise torch.OutOfMemoryError("CUDA out of memory")
    return engine.scores(forward)


def _killed_there(engine: Engine, forward: Forward) -> Tensor:
    if os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    return engine.scores(forward)


# -- what the processes do ------------------------------------------------------------------------------------------


def first(ranks: Ranks, output: Path) -> None:
    """Process 0: its findings, as JSON."""
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    alone = Engine(opened({"seeds": [0]})[0], "tree", BUDGET)
    at_tokens = Engine(opened({"seeds": [1]})[0], "tree", BUDGET)
    expected = alone.score(SEQUENCES)
    with borrowing(ranks):
        (model,) = open_everywhere({"seeds": [0]}, lambda: opened({"seeds": [0]}), list)
        other, same = open_everywhere({"seeds": [1, 2]}, lambda: opened({"seeds": [1, 2]}), list)
        engine, steps = Engine(model, "tree", BUDGET), Engine(other, "tree", BUDGET)

        progress: list[int] = []
        found["scores"] = engine.score(SEQUENCES, progress.append) == expected
        found["progress"] = sum(progress) == len(SEQUENCES)
        ranks = engine.rows(SEQUENCES, None, None, _rank)
        found["each computes"] = {0.0, 1.0} == set(ranks.tolist())
        mine = steps.outputs(SEQUENCES, READOUTS)
        found["second model"] = all(map(torch.equal, mine, at_tokens.outputs(SEQUENCES, READOUTS)))
        features = at_tokens.features(SEQUENCES, READOUTS)
        found["features"] = torch.equal(steps.features(SEQUENCES, READOUTS), features)
        third = Engine(opened({"seeds": [2]})[0], "packed", BUDGET).score(SEQUENCES)
        found["third model"] = Engine(same, "packed", BUDGET).score(SEQUENCES) == third
        found["nothing"] = engine.score([]) == []

        found["error there"] = _error(lambda: engine.rows(SEQUENCES, None, None, _fails_there))
        found["after an error there"] = engine.score(SEQUENCES) == expected

        def leave(_: int) -> None:
            raise KeyError("left")

        try:
            engine.score(SEQUENCES, leave)
        except KeyError:
            found["after an error here"] = engine.score(SEQUENCES) == expected
        request = {"seeds": [0], "breaks_in": "1"}
        found["not opened there"] = _error(lambda: open_everywhere(request, lambda: opened(request), list))
        request = {"seeds": [0], "breaks_in": "0"}
        found["not opened here"] = _error(lambda: open_everywhere(request, lambda: opened(request), list))
        found["after both"] = engine.score(SEQUENCES) == expected

        divided = Engine(model, "tree", BUDGET)
        rows = divided.rows(SEQUENCES, None, None, _short_of_memory_there)
        found["out of memory there"] = float((rows - torch.tensor(expected)).abs().max())
        found["budget"] = divided.planner.tokens_per_batch
        found["killed there"] = _error(lambda: engine.rows(SEQUENCES, None, None, _killed_there))
    output.write_text(json.dumps(found), encoding="utf-8")


def _error(call: Any) -> list[str]:
    try:
        call()
    except RewardLabError as error:
        return [type(error).__name__, error.message, error.hint]
    return []


def main(what: str, output: Path) -> None:
    ranks = processes_of_this_run()
    if ranks.index:
        lend(ranks, opened, Engine)
    elif what == "cases":
        first(ranks, output)
    elif what == "is killed":
        with borrowing(ranks):
            open_everywhere({"seeds": [0]}, lambda: opened({"seeds": [0]}), list)
            os.kill(os.getpid(), signal.SIGKILL)
    else:  # an error of the command itself
        with borrowing(ranks):
            raise ConfigError("nothing to do")


def launched(what: str, output: Path) -> list[tuple[int, str]]:
    """Status and stderr of each of two processes that have ended by themselves."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, what, str(output)],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        for rank in range(2)
    ]
    try:
        told = [process.communicate(timeout=TIMEOUT)[1] for process in processes]
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
    return [(process.returncode, err) for process, err in zip(processes, told, strict=True)]


# -- the tests ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    output = tmp_path_factory.mktemp("lending") / "found.json"
    (status, told), (killed, _) = launched("cases", output)
    assert status == 0, told
    assert killed == -signal.SIGKILL
    found: dict[str, Any] = json.loads(output.read_text(encoding="utf-8"))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        *("scores", "progress", "each computes", "second model", "features", "third model", "nothing"),
        *("after an error there", "after an error here", "after both"),
    ],
)
def test_as_in_one_process_bit_for_bit(cases: dict[str, Any], case: str) -> None:
    assert cases[case] is True


@pytest.mark.slow
def test_errors_arrive_as_themselves(cases: dict[str, Any]) -> None:
    assert cases["error there"] == ["ConfigError", "found no number", "of process 1"]
    assert cases["not opened there"] == ["ConfigError", "this process cannot open it", "there is no such hint"]
    assert cases["not opened here"] == cases["not opened there"]


@pytest.mark.slow
def test_out_of_memory_in_the_other_process_divides_the_forward(cases: dict[str, Any]) -> None:
    assert cases["out of memory there"] <= 1e-6
    assert cases["budget"] <= BUDGET // 2


@pytest.mark.slow
def test_a_killed_process_is_an_error(cases: dict[str, Any]) -> None:
    name, message, hint = cases["killed there"]
    assert (name, message) == ("RewardLabError", "process 1 of this run is gone: the connection to it is lost")
    assert "killed" in hint


@pytest.mark.slow
def test_when_process_0_is_killed_the_other_fails(tmp_path: Path) -> None:
    (status, _), (other, told) = launched("is killed", tmp_path)
    assert (status, other) == (-signal.SIGKILL, 1)
    assert "process 0 of this run is gone" in told


@pytest.mark.slow
def test_when_process_0_fails_the_other_leaves_quietly(tmp_path: Path) -> None:
    (status, told), (other, silence) = launched("fails", tmp_path)
    assert (status, other) == (1, 0)
    assert "nothing to do" in told
    assert "Error" not in silence


def test_alone_nothing_is_lent() -> None:
    with borrowing(processes_of_this_run()):
        (model,) = open_everywhere({"seeds": [0]}, lambda: opened({"seeds": [0]}), list)
        assert Engine(model, "tree", BUDGET).score(SEQUENCES) == pytest.approx(Engine(model).score(SEQUENCES), abs=1e-5)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))

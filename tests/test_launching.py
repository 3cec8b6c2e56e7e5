"""Processes are started with the environment that accelerate's own launcher gives, and none is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest

from rewardlab.errors import ConfigError
from rewardlab.launching import LAUNCHERS, is_first, launch, num_gpus, run_processes

ROOT = Path(__file__).resolve().parents[1]

# What accelerate sets whatever a config says, and FSDP1's settings, which version 2 does not read.
_OF_ALL = {
    "ACCELERATE_MIXED_PRECISION": "no",
    "ACCELERATE_CONFIG_DS_FIELDS": "",
    **{f"ACCELERATE_DYNAMO_{name}": value for name, value in (("BACKEND", "NO"), ("MODE", "default"))},
    **{f"ACCELERATE_DYNAMO_USE_{name}": "False" for name in ("FULLGRAPH", "DYNAMIC", "REGIONAL_COMPILATION")},
}
_OF_FSDP1 = {
    *("FSDP_SHARDING_STRATEGY", "FSDP_MIN_NUM_PARAMS", "FSDP_FORWARD_PREFETCH", "FSDP_USE_ORIG_PARAMS"),
    *("FSDP_SYNC_MODULE_STATES", "FSDP_ACTIVATION_CHECKPOINTING_OFFLOAD"),
}


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """No launcher has been here, and none will have been."""
    with mock.patch.dict(os.environ):
        for name in list(os.environ):
            if name in ("RANK", "WORLD_SIZE", "LOCAL_RANK") or name.startswith(("ACCELERATE_", "FSDP_")):
                del os.environ[name]
        yield


@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_launcher_sets_what_accelerate_launch_sets_with_its_recipe(name: str) -> None:
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

    config = ROOT / "recipes" / "distributed" / f"{name}.yaml"
    given = ["--config_file", str(config), "--num_processes", "2", "--main_process_port", "0", "train.py"]
    arguments, _, _ = _validate_launch_command(launch_command_parser().parse_args(given))
    if arguments.use_deepspeed:
        arguments.deepspeed_fields_from_accelerate_config = ""
        environment = prepare_deepspeed_cmd_env(arguments)[1]
    else:
        environment = prepare_multi_gpu_env(arguments)
    theirs = {key: value for key, value in environment.items() if key.startswith(("ACCELERATE_", "FSDP_"))}
    assert {key: value for key, value in theirs.items() if key not in {*_OF_ALL, *_OF_FSDP1}} == LAUNCHERS[name]
    assert {key: value for key, value in theirs.items() if key in _OF_ALL}.items() <= _OF_ALL.items()


def test_nothing_is_started_where_none_is_asked_for_or_another_launcher_has(monkeypatch: pytest.MonkeyPatch) -> None:
    assert launch(None, None) is None
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert launch("zero3", 2) is None
    assert os.environ["ACCELERATE_DEEPSPEED_ZERO_STAGE"] == "3"
    assert not is_first()
    with pytest.raises(ConfigError, match="another launcher has started 2"):
        launch("ddp", 3)


def test_accelerates_own_choice_of_the_engine_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "ACCELERATE_USE_FSDP": "true"}.items():
        monkeypatch.setenv(name, value)
    assert launch("zero3", None) is None
    assert "ACCELERATE_USE_DEEPSPEED" not in os.environ


def test_what_cannot_be_started_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(ConfigError, match="unknown launcher 'zero4'"):
        launch("zero4", 2)
    with pytest.raises(ConfigError, match="without --launcher"):
        launch(None, 2)
    with pytest.raises(ConfigError, match="this machine has no GPU"):
        launch("ddp", None)
    with pytest.raises(ConfigError, match="--processes 0"):
        launch("ddp", 0)


@pytest.mark.parametrize(("visible", "count"), [("", 0), ("-1", 0), ("0", 1), ("2,3", 2), ("GPU-8f6e, GPU-11aa", 2)])
def test_gpus_are_counted_as_cuda_counts_them(monkeypatch: pytest.MonkeyPatch, visible: str, count: int) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert num_gpus() == count


def _python(code: str) -> list[str]:
    return [sys.executable, "-c", "import os, signal, sys, time\nrank = int(os.environ['RANK'])\n" + code]


def test_the_first_has_stdout_and_each_its_number(capfd: pytest.CaptureFixture[str]) -> None:
    told = "print(rank, *(os.environ[n] for n in ('LOCAL_RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'WHO')), flush=True)"
    assert run_processes(_python(told), 3, {"WHO": "us"}) == 0
    assert capfd.readouterr().out == "0 0 3 127.0.0.1 us\n"


def test_when_one_fails_its_stderr_is_told_and_the_others_are_ended(capfd: pytest.CaptureFixture[str]) -> None:
    code = """
if rank == 1:
    sys.exit("no such row")
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # and it does not even listen
print(os.getpid(), flush=True)
time.sleep(600)
"""
    start = time.monotonic()
    assert run_processes(_python(code), 2, {}, seconds_to_end=1) == 1
    assert time.monotonic() - start < 60
    told = capfd.readouterr()
    assert "no such row" in told.err
    assert "process 1 of 2 failed with status 1" in told.err
    _require_gone(told.out.split())


def test_a_signal_that_kills_one_is_its_status(capfd: pytest.CaptureFixture[str]) -> None:
    code = "os.kill(os.getpid(), signal.SIGKILL) if rank == 1 else time.sleep(600)"
    assert run_processes(_python(code), 2, {}, seconds_to_end=1) == 128 + signal.SIGKILL
    assert "process 1 of 2 was ended by SIGKILL" in capfd.readouterr().err


_SAVES = """
def save(number, frame):
    time.sleep(2 + rank)  # longer than the others have once one has failed
    open(f"{sys.argv[1]}/saved-{rank}", "w").close()
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
open(f"{sys.argv[1]}/ready-{rank}", "w").write(str(os.getpid()))
time.sleep(600)
"""


def _parent(folder: Path, code: str) -> subprocess.Popen[bytes]:
    program = "import sys; from rewardlab.launching import run_processes; "
    program += "sys.exit(run_processes(sys.argv[1:], 2, {}, seconds_to_end=0.2))"
    return subprocess.Popen([sys.executable, "-c", program, *_python(code), str(folder)], start_new_session=True)


def test_a_sigterm_goes_to_all_which_may_take_their_time_to_save(tmp_path: Path) -> None:
    parent = _parent(tmp_path, _SAVES)
    try:
        _wait(lambda: len(list(tmp_path.glob("ready-*"))) == 2)
        parent.send_signal(signal.SIGTERM)
        assert parent.wait(timeout=60) == 143
    finally:
        parent.kill()
        parent.wait()
    assert sorted(path.name for path in tmp_path.glob("saved-*")) == ["saved-0", "saved-1"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a kernel that tells of a parent's death")
def test_nothing_is_left_when_the_parent_is_killed(tmp_path: Path) -> None:
    parent = _parent(tmp_path, _SAVES)
    try:
        _wait(lambda: sum(bool(path.read_text()) for path in tmp_path.glob("ready-*")) == 2)
    finally:
        parent.kill()
        parent.wait()
    _require_gone([path.read_text() for path in tmp_path.glob("ready-*")])


def _wait(until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _require_gone(pids: list[str]) -> None:
    assert pids

    def gone(pid: str) -> bool:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        return state == "Z"  # dead, and nobody here waits for it

    _wait(lambda: all(gone(pid) for pid in pids))

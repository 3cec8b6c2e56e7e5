"""Every command on a machine that fails it: a clear error, the right status, and earlier results as they were.

Each fault is met by all commands in one process (``commands_in_turn.py``), after a run without any fault has left the
results that must stand. Disks are mounted in a mount namespace of the process's own, which takes root.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tests.conftest import make_pairs
from tests.judge.fake_judges import honest
from tests.judge.fake_server import fake_server

HERE = Path(__file__).resolve().parent
SECONDS = 400.0
"""The last resort against a hang; a free machine takes 40."""
WRITING = {
    "data check", "train", "import", "evaluate", "calibrate", "benchmark", "report", "score", "best-of-n", "monitor",
    "judge", "demo",
}  # fmt: skip
READING = {"verify", "compare"}
RESUMED = (".partial", ".partial.journal", ".cache.sqlite", ".history-wal", ".history-shm")
"""What a command that failed may leave: the same command goes on from it, or SQLite reads it at its next opening."""

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="mounts and limits are Linux's")]


def namespace_refused() -> str:
    """Why no disk can be mounted here; empty where one can."""
    if os.geteuid() != 0:
        return "only root may mount a disk of its own"
    tried = subprocess.run(
        ["unshare", "-m", "sh", "-c", "mount -t tmpfs none /mnt"], capture_output=True, text=True, timeout=60
    )
    return "" if tried.returncode == 0 else f"no disk can be mounted here: {tried.stderr.strip()}"


def as_nobody_refused() -> str:
    """Why nothing can be run as another user; empty where it can."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        return "only root may run a command as another user, with setpriv"
    words = [*AS_NOBODY, sys.executable, "-c", "import rewardlab"]
    tried = subprocess.run(words, capture_output=True, text=True, timeout=120, cwd="/")
    return "" if tried.returncode == 0 else "another user may not read this Python or this checkout"


AS_NOBODY = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--bounding-set", "-all"]


@dataclass
class Machine:
    """What the commands read, and a place that holds the results of a run without faults."""

    root: Path
    judge_url: str
    ended: dict[str, Any] = field(default_factory=dict)

    @property
    def place(self) -> Path:
        """Where all outputs go."""
        return self.root / "place"

    def commands(self, *, again: bool = True) -> dict[str, list[str]]:
        """Every command but serve (its own tests) and overopt (a minute before it writes), with its arguments."""
        inputs, place = self.root / "inputs", self.place
        rm, pairs = str(inputs / "rm"), str(inputs / "pairs.jsonl")
        new = "other-rm" if again else "new-rm"
        train = ["--set", "max_steps=1", "--set", "max_length=128", "--set", "disable_tqdm=true", "--dtype", "float32"]
        train += ["--json"]
        commands = {
            "data check": ["data", "check", pairs, "--quarantine", str(place / "bad.jsonl"), "--json"],
            "train": ["train", "--model", str(inputs / "base"), "--data", pairs, "--output", str(place / new), *train],
            "import": ["import", str(inputs / "lf"), "--output", str(place / f"imported-{new}"), "--device", "cpu"],
            "verify": ["verify", rm, "--json"],
            "evaluate": ["evaluate", rm, "--data", pairs, "--quarantine", str(place / "of-evaluate.jsonl"), "--json"],
            "calibrate": ["calibrate", str(place / "rm"), "--data", pairs, "--force"],
            "benchmark": ["benchmark", "llmbar", rm, "--data", str(inputs / "llmbar")],
            "report": ["report", rm, "--data", pairs, "--output", str(place / "report.html")],
            "score": ["score", rm, "--data", pairs, "--output", str(place / "scores.jsonl")],
            "best-of-n": ["best-of-n", rm, "--data", pairs, "--output", str(place / "best.jsonl")],
            "monitor": ["monitor", rm, "--fresh", pairs, "--history", str(place / "rm.history"), "--json"],
            "compare": ["compare", rm, rm, "--data", pairs, "--json"],
            "judge": ["judge", "--data", str(inputs / "judged.jsonl"), "--base-url", self.judge_url, "--model", "m"],
        }
        commands["benchmark"] += ["--output", str(place / "items.jsonl"), "--overwrite", "--json"]
        commands["judge"] += ["--output", str(place / "verdicts.jsonl"), "--no-logprobs"]
        for name in ("score", "best-of-n", "judge"):
            commands[name] += ["--overwrite"]
        if again:
            commands["demo"] = ["demo", "--output", str(place / "demo")]
        return commands

    def run(
        self,
        *,
        commands: dict[str, list[str]] | None = None,
        before: str = "true",
        after: str = "true",
        prefix: list[str] | None = None,
        environment: dict[str, str] | None = None,
        broken: list[int] | None = None,
        in_namespace: bool = True,
    ) -> dict[str, Any]:
        """Run the commands between two of the shell, the first of which makes the fault; how each ended, by name."""
        logs = Path(tempfile.mkdtemp(dir=self.root, prefix="logs-"))
        logs.chmod(0o777)
        task = {"commands": commands or self.commands(), "logs": str(logs), "broken": broken or []}
        (logs / "task.json").write_text(json.dumps(task))
        script = f'{before} && "$@"; status=$?; {after}; exit $status'
        words = [*(prefix or []), sys.executable, str(HERE / "commands_in_turn.py"), str(logs / "task.json")]
        namespace = ["unshare", "-m"] if in_namespace else []
        process = subprocess.Popen(
            [*namespace, "bash", "-c", script, "bash", *words],
            cwd="/",
            env={**os.environ, "OMP_NUM_THREADS": "1", "HOME": str(logs), **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            _, told = process.communicate(timeout=SECONDS)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        assert process.returncode == 0, told
        ended: dict[str, Any] = json.loads((logs / "ended.json").read_text())
        return ended

    def contents(self, place: Path | None = None) -> dict[str, bytes]:
        """Every file of the place, whole."""
        place = place or self.place
        return {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def machine(base_model: Path, reward_model: Path) -> Iterator[Machine]:
    """All inputs, and a run of all commands that meets no fault and leaves its results."""
    root = Path(tempfile.mkdtemp(prefix="faults-"))  # pytest's own folders are closed to other users
    root.chmod(0o755)
    inputs = root / "inputs"
    inputs.mkdir()
    for source, name in ((base_model, "base"), (base_model, "lf"), (reward_model, "rm"), (reward_model, "../place/rm")):
        shutil.copytree(source, inputs / name, ignore=shutil.ignore_patterns("checkpoint-*"))
    head = {"v_head.summary.weight": torch.ones(1, 32), "v_head.summary.bias": torch.tensor([-0.5])}
    save_file(head, inputs / "lf" / "value_head.safetensors")
    rows = [
        {"prompt": g.prompt, "chosen": g.completions[i % 4 == 0], "rejected": g.completions[i % 4 != 0]}
        for i, g in enumerate(make_pairs(40, seed=7))
    ]
    lines = [*rows, {"prompt": "only one side", "chosen": "of a pair"}]
    (inputs / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    judged = [{"prompt": f"Q{i}?", "chosen": "quality=9", "rejected": f"quality=2 {i}"} for i in range(4)]
    (inputs / "judged.jsonl").write_text("".join(json.dumps(row) + "\n" for row in judged))
    natural = inputs / "llmbar" / "LLMBar" / "Natural"
    natural.mkdir(parents=True)
    items = [{"input": f"Q{i}", "output_1": f"a {i}", "output_2": f"b {i}", "label": 1 + i % 2} for i in range(6)]
    (natural / "dataset.json").write_text(json.dumps(items))
    try:
        with fake_server(honest()) as server:
            made = Machine(root, server.base_url)
            made.ended = made.run(commands=made.commands(again=False), in_namespace=False)
            for path in (root, *root.rglob("*")):  # another user reads it, and may not write
                path.chmod(path.stat().st_mode | stat.S_IRGRP | stat.S_IROTH | (0o111 if path.is_dir() else 0))
            yield made
    finally:
        shutil.rmtree(root)


def require_failed(ended: dict[str, Any], *said: str) -> None:
    """Every command that writes has failed as it should, an error in words; those that only read have not."""
    wrong = {}
    for name in sorted(WRITING):
        how = ended[name]
        errors = [line for line in how["err"].splitlines() if line.startswith("error: ")]
        is_told = len(errors) == 1 and "Traceback" not in how["err"] and any(words in how["err"] for words in said)
        if how["status"] != 1 or not is_told:
            wrong[name] = how
    assert wrong == {}
    assert {name: ended[name]["status"] for name in READING} == dict.fromkeys(READING, 0)


def require_intact(before: dict[str, bytes], after: dict[str, bytes]) -> None:
    """All that was there is as it was, and nothing is new but what a command goes on from."""
    assert [name for name in before if after.get(name) != before[name]] == []
    assert [name for name in after if name not in before and not any(part in name for part in RESUMED)] == []


def test_without_a_fault_every_command_does_its_work(machine):
    assert {name: how["status"] for name, how in machine.ended.items()} == dict.fromkeys(machine.ended, 0)
    assert set(machine.ended) | {"demo"} == WRITING | READING
    for name in ("data check", "train", "verify", "evaluate", "benchmark", "monitor", "compare"):
        json.loads(machine.ended[name]["out"])  # data, and nothing else: DeepSpeed, where it is there, tells stdout


def test_a_disk_that_is_full(machine):
    """A small disk with the earlier results on it, filled to its last byte."""
    if refused := namespace_refused():
        pytest.skip(refused)
    place, aside = machine.place, machine.root / "aside"
    before = machine.contents()
    fill = f"dd if=/dev/zero of={place}/ballast bs=4k 2>&1 | grep -q 'No space left'"
    ended = machine.run(
        before=f"cp -a {place} {aside} && mount -t tmpfs -o size=4m none {place} && cp -a {aside}/. {place} && {fill}",
        after=f"rm -r {aside}; cp -a {place} {aside}",  # the disk goes with the process
    )
    require_failed(ended, "No space left on device", "disk is full", "disk I/O error")
    after = machine.contents(aside)
    del after["ballast"]
    require_intact(before, after)
    assert machine.contents() == before


def test_a_disk_that_is_read_only(machine):
    if refused := namespace_refused():
        pytest.skip(refused)
    place = machine.place
    before = machine.contents()
    ended = machine.run(before=f"mount --bind {place} {place} && mount -o remount,bind,ro {place}")
    require_failed(ended, "Read-only file system", "cannot be written", "unable to open", "readonly")
    assert machine.contents() == before


def test_a_folder_of_somebody_else(machine):
    if refused := as_nobody_refused():
        pytest.skip(refused)
    before = machine.contents()
    ended = machine.run(prefix=AS_NOBODY, in_namespace=False)
    require_failed(ended, "Permission denied", "cannot be written", "unable to open", "readonly")
    assert machine.contents() == before


@pytest.fixture
def put_back(machine: Machine) -> Iterator[None]:
    """The place as it was, after a test in which commands do their work."""
    shutil.copytree(machine.place, machine.root / "kept")
    yield
    shutil.rmtree(machine.place)
    (machine.root / "kept").rename(machine.place)


@pytest.mark.parametrize("stream", [1, 2])
@pytest.mark.usefixtures("put_back")
def test_a_pipe_that_nobody_reads(machine, stream):
    """No traceback, no talk of it; who has nothing to say there does all its work, and what is written is whole."""
    commands = machine.commands()
    del commands["demo"], commands["train"]  # minutes, and as the others
    before = machine.contents()
    ended = machine.run(commands=commands, broken=[stream], in_namespace=False)
    told = {name: how for name, how in ended.items() if how["status"] not in (0, 1) or "Traceback" in how["err"]}
    assert told == {}
    assert {name: how["err"] for name, how in ended.items() if "error: " in how["err"]} == {}
    if stream == 1:
        printing = {"data check", "import", "verify", "evaluate", "calibrate", "benchmark", "monitor", "compare"}
        assert {name: ended[name]["status"] for name in printing} == dict.fromkeys(printing, 1)
        assert {name: ended[name]["status"] for name in ("report", "score")} == {"report": 0, "score": 0}
    after = machine.contents()
    for name in ("bad.jsonl", "of-evaluate.jsonl", "scores.jsonl", "items.jsonl"):
        assert after[name] == before[name]
    json.loads(after["rm/reward_contract.json"])


@pytest.mark.usefixtures("put_back")
def test_a_home_and_temporary_folders_that_cannot_be_used(machine):
    """Caches of the libraries are a convenience: no command needs its home, /dev/shm or $TMPDIR."""
    shm = "true" if namespace_refused() else "mount -t tmpfs -o size=4k none /dev/shm && echo full > /dev/shm/full"
    nowhere = dict.fromkeys(("HOME", "TMPDIR", "XDG_CACHE_HOME", "MPLCONFIGDIR", "TRITON_CACHE_DIR"), "/proc/nowhere")
    commands = machine.commands()
    del commands["demo"]
    ended = machine.run(commands=commands, before=shm, environment=nowhere, in_namespace=not namespace_refused())
    assert {name: how for name, how in ended.items() if how["status"] != 0} == {}


@pytest.mark.usefixtures("put_back")
def test_the_parent_is_killed(machine):
    """The command goes on to its end without it, though nobody reads what it tells; its output is whole."""
    output = machine.place / "scores.jsonl"
    expected = output.read_bytes()
    output.unlink()
    words = [sys.executable, "-c", "import sys; from rewardlab.cli.main import main; sys.exit(main(sys.argv[1:]))"]
    parent = subprocess.Popen(
        ["bash", "-c", '"$@" & echo $!; wait', "bash", *words, *machine.commands()["score"]],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert parent.stdin and parent.stdout and parent.stderr  # noqa: PT018
    child = int(parent.stdout.readline())
    try:
        parent.kill()
        parent.wait()
        for stream in (parent.stdin, parent.stdout, parent.stderr):
            stream.close()
        until = time.monotonic() + SECONDS
        while Path(f"/proc/{child}/stat").exists() and time.monotonic() < until:
            if Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                break  # ended, and whoever adopted it has not looked yet
            time.sleep(0.2)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(parent.pid, signal.SIGKILL)
    assert output.read_bytes() == expected
    assert not list(machine.place.glob("scores.jsonl.partial*"))

"""What is imported is declared, what is declared is imported, and all of it is locked."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SOURCES = sorted((ROOT / "src" / "rewardlab").rglob("*.py"))
LOCKED = [ROOT / "constraints.txt", ROOT / "constraints-deepspeed.txt"]

MODULE_OF = {"pyyaml": "yaml", "scikit-learn": "sklearn"}
# Imported by name here, and always there: they come with what is named.
COMES_WITH = {"tokenizers": "transformers", "starlette": "fastapi", "pydantic": "fastapi"}
FOR_TYPES_ALONE = {"_typeshed", "typing_extensions"}
OPTIONAL = {"bitsandbytes", "triton"}  # where there is a GPU; asked for where they are wanted
# An extra's packages that no file of ours imports: what runs its server, or builds it.
NOT_IMPORTED = {"ninja", "uvloop", "wheel"}

IN_THE_CORE_TOO = {"httpx2"}  # huggingface-hub asks with it


def _name(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[\s\[<>=!;~]", requirement.strip(), maxsplit=1)[0]).lower()


def _module(name: str) -> str:
    return MODULE_OF.get(name, name.replace("-", "_"))


CORE = {_name(line) for line in PROJECT["dependencies"]}
EXTRAS = {
    extra: {_name(line) for line in lines} - {"rewardlab"} for extra, lines in PROJECT["optional-dependencies"].items()
}


@cache
def _imported() -> dict[str, set[Path]]:
    """Top-level module -> the files that import it, anywhere in them."""
    found: dict[str, set[Path]] = {}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for name in names:
                found.setdefault(name.partition(".")[0], set()).add(path)
    return found


def test_what_is_imported_is_declared() -> None:
    declared = {_module(name) for name in CORE.union(*EXTRAS.values())} | COMES_WITH.keys() | FOR_TYPES_ALONE | OPTIONAL
    foreign = _imported().keys() - set(sys.stdlib_module_names) - {"rewardlab"}
    assert foreign - declared == set()


def test_the_core_is_minimal_every_dependency_is_imported() -> None:
    assert {name for name in CORE if _module(name) not in _imported()} == set()
    extras = set[str]().union(*EXTRAS.values()) - NOT_IMPORTED
    assert {name for name in extras if _module(name) not in _imported()} == set()


def test_the_extra_all_has_every_other() -> None:
    (line,) = PROJECT["optional-dependencies"]["all"]
    named = re.search(r"\[(.*)\]", line)
    assert named is not None
    assert set(named[1].split(",")) == EXTRAS.keys() - {"all"}


def test_everything_is_locked_with_a_hash_but_torch() -> None:
    blocks = [
        block
        for path in LOCKED
        for block in re.split(r"\n(?=[a-z0-9])", re.sub(r"^#.*\n", "", path.read_text(encoding="utf-8"), flags=re.M))
    ]
    locked = {_name(block): block for block in blocks}
    assert [name for name, block in locked.items() if "--hash=sha256:" not in block or "==" not in block] == []
    assert CORE.union(*EXTRAS.values()) - locked.keys() == {"torch"}
    pinned = (ROOT / "constraints-torch.txt").read_text(encoding="utf-8").splitlines()
    assert [line.partition("==")[0] for line in pinned if not line.startswith("#")] == ["torch"]


def test_the_image_has_the_versions_that_are_tested() -> None:
    versions = {
        path.name: dict(re.findall(r"^([a-z0-9-]+)==(\S+)", path.read_text(encoding="utf-8"), re.M))
        for path in (ROOT / "constraints.txt", ROOT / "constraints-serve.txt")
    }
    image, tested = versions["constraints-serve.txt"], versions["constraints.txt"]
    assert {name: version for name, version in image.items() if tested.get(name) != version} == {}


# Extra -> code that wants it.
WITHOUT = {
    "lora": "from rewardlab.modeling.preparing import LoraOptions, with_adapters; "
    "with_adapters(None, LoraOptions(), set())",
    "judge": "from rewardlab.judge.transport import Transport; "
    "Transport('http://127.0.0.1:1/v1', api_key='k', timeout_s=1, extra_body={})",
    "rl": "from rewardlab.studies.grpo import run_grpo; run_grpo('p', [], [], 'o', held_out=[], steps=1, beta=0.0)",
    "serve": "from rewardlab.cli.serve import serve; serve('rm')",
    "ray": "from rewardlab.adapters.ray_data import RayWorkers; RayWorkers.__enter__(None)",
    "deepspeed": "import os; os.environ.update(RANK='0', WORLD_SIZE='2', ACCELERATE_USE_DEEPSPEED='true'); "
    "from rewardlab.training.processes import connect; connect()",
}


def test_each_extra_has_a_case_below() -> None:
    assert WITHOUT.keys() == EXTRAS.keys() - {"all"}


# One process for all, with every extra's packages blocked, since importing the core takes most of the time.
ABSENT = sorted({_module(name) for name in set[str]().union(*EXTRAS.values())} - IN_THE_CORE_TOO)
WITHOUT_EXTRAS = f"import sys; sys.modules.update(dict.fromkeys({ABSENT}))\n"


def _printed(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", WITHOUT_EXTRAS + program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_a_missing_extra_is_told_with_the_command_that_installs_it() -> None:
    program = f"""
import json
from rewardlab.errors import MissingDependencyError
hints = {{}}
for extra, code in {WITHOUT!r}.items():
    try:
        exec(code, {{}})
    except MissingDependencyError as error:
        hints[extra] = error.hint
print(json.dumps(hints))
"""
    hints = json.loads(_printed(program).splitlines()[-1])
    assert {
        extra: hints.get(extra)
        for extra in WITHOUT
        if not re.search(rf"pip install .*['\"]rewardlab\[{extra}\]['\"]", hints.get(extra, ""))
    } == {}


@pytest.mark.slow
def test_the_core_commands_run_without_any_extra_s_package() -> None:
    """Help, and the imports that train, evaluate and score begin with."""
    program = """
import rewardlab
from rewardlab import Scorer, Evaluator, RewardTrainer, train_reward_model, load_groups
from rewardlab.cli.main import main
for command in ("train", "score", "evaluate"):
    assert main([command, "--help"]) == 0
print("ran")
"""
    assert _printed(program).rstrip().endswith("ran")

"""The layer table: a module imports only lower layers or its own room, inside functions too.

The table is ARCHITECTURE.md's; a new room is one line here and one there. What is read is the source (by AST), so an
import that never runs counts as well.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "rewardlab"

LAYERS = {
    "errors": 0,
    "types": 0,
    "config": 0,
    "documents": 0,
    "files": 0,
    "launching": 0,
    "concordance": 0,
    "objectives": 1,
    "metrics": 1,
    "data": 1,
    "calibration": 2,
    "modeling": 3,
    "rewards": 3,
    "scoring": 4,
    "training": 4,
    "evaluation": 5,
    "search": 5,
    "adapters": 5,
    "studies": 6,
    "serving": 6,
    "monitoring": 6,
    "judge": 6,
    "cli": 8,
}
"""Room to layer. scoring and training share one, so neither imports the other; nothing imports cli, the top one."""

FOREIGN = {
    "errors": {"torch", "transformers", "numpy"},
    "types": {"torch", "transformers", "numpy"},
    "config": {"torch", "transformers", "numpy"},
    "documents": {"torch", "transformers", "numpy"},
    "files": {"torch", "transformers", "numpy"},
    "launching": {"torch", "transformers", "numpy"},
    "metrics": {"torch", "transformers"},
    "calibration": {"torch", "transformers"},
    "rewards": {"transformers", "datasets"},
    "objectives": {"transformers", "datasets"},
}
"""Libraries that a room must not know: records and metrics are pure, objectives see scores and never text or models."""

ONLY_IN = {
    "trl": {"adapters", "studies"},
    "openai": {"judge"},
    "ray": {"adapters"},
    "deepspeed": {"modeling", "training"},
    **{name: {"serving"} for name in ("fastapi", "starlette", "uvicorn", "prometheus_client", "httpx2", "pydantic")},
}
"""Optional libraries to the only rooms that may know them."""


def room_of(path: Path) -> str:
    """The room of a source file: its folder under the package, or the file itself at the top."""
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imports_of(source: str, package: str) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything that a module imports; ``from a import b`` gives ``a.b``."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def faults_of(source: str, room: str, package: str) -> list[str]:
    """What is wrong with a module's imports, one sentence each."""
    faults = []
    for line, name in imports_of(source, package):
        top, _, rest = name.partition(".")
        target = rest.partition(".")[0]
        if top in FOREIGN.get(room, ()):
            faults.append(f"line {line}: {room} must not know {top}")
        elif room not in ONLY_IN.get(top, {room}):
            faults.append(f"line {line}: {top} is for {', '.join(sorted(ONLY_IN[top]))} alone")
        elif top != "rewardlab" or target in ("", "__version__", room):
            continue
        elif target not in LAYERS:
            faults.append(f"line {line}: {name} comes from the package's top; import it from its own module")
        elif not (LAYERS[target] < LAYERS[room] or LAYERS[target] == LAYERS[room] == 0):
            faults.append(f"line {line}: {room} (L{LAYERS[room]}) imports {name} (L{LAYERS[target]})")
    return faults


SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def test_every_room_is_in_the_table():
    assert {room_of(path) for path in SOURCES} == set(LAYERS)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_module_imports_only_lower_layers_or_its_own_room(path):
    package = ".".join(["rewardlab", *path.relative_to(PACKAGE).parts[:-1]])
    assert faults_of(path.read_text(encoding="utf-8"), room_of(path), package) == []


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("training", "from rewardlab.scoring.scorer import Scorer"),
        ("scoring", "def f():\n    import rewardlab.training"),
        ("data", "from rewardlab import modeling"),
        ("data", "from ..modeling import head"),
        ("data", "from rewardlab import Scorer"),
        ("evaluation", "from rewardlab.cli.main import app"),
        ("metrics", "import torch.nn"),
        ("objectives", "from transformers import AutoModel"),
        ("types", "from numpy import array"),
        ("training", "import trl"),
    ],
)
def test_the_check_sees_a_broken_rule(room, source):
    assert len(faults_of(source, room, f"rewardlab.{room}")) == 1


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("config", "from rewardlab.errors import ConfigError"),
        ("scoring", "from rewardlab.modeling.head import head\nfrom . import batching\nimport torch"),
        ("cli", "from rewardlab import __version__\nfrom rewardlab.studies import demo"),
        ("data", "from rewardlab.data.rows import read\nfrom .rows import read"),
    ],
)
def test_the_check_lets_the_rule_be_kept(room, source):
    assert faults_of(source, room, f"rewardlab.{room}") == []


def test_the_table_is_the_one_that_the_architecture_page_shows():
    page = (PACKAGE.parents[1] / "ARCHITECTURE.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| L(\d) \| (.+?) \|", page, re.MULTILINE)
    assert {room: int(layer) for layer, rooms in rows for room in re.findall(r"`(\w+)`", rooms)} == LAYERS


def test_the_readme_tree_names_every_room():
    page = (PACKAGE.parents[1] / "README.md").read_text(encoding="utf-8")
    assert [room for room in LAYERS if f"  {room}/ " not in page and f"{room}.py" not in page] == []

"""Every module can be imported, and the ones that must answer at once load nothing heavy."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys

import pytest

import rewardlab

MODULES = sorted(module.name for module in pkgutil.walk_packages(rewardlab.__path__, "rewardlab."))
LIGHT = [name for name in MODULES if name.split(".")[1] in ("errors", "types", "config", "files", "launching", "cli")]
HEAVY = (
    *("torch", "transformers", "accelerate", "datasets", "tokenizers", "huggingface_hub", "safetensors"),
    *("numpy", "scipy", "sklearn", "pandas", "pyarrow"),
    *("peft", "trl", "deepspeed", "ray", "fastapi", "uvicorn", "openai", "httpx2"),
)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_can_be_imported(name):
    """Lint cannot see a name that is missing only at import, such as one behind a star or in a decorator."""
    importlib.import_module(name)


def test_the_package_the_records_and_the_command_line_load_no_heavy_library():
    """`rewardlab --help` must not wait seconds for torch. A fresh process, since this one has loaded everything."""
    code = f"import sys, rewardlab, {', '.join(LIGHT)}; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_command_s_help_loads_no_heavy_library():
    """One process for all commands: what one of them loads stays loaded."""
    code = (
        "import contextlib, io, sys\n"
        "from typer.main import get_command\n"
        "from rewardlab.cli.main import app, main\n"
        "def asked(command, words):\n"
        "    with contextlib.redirect_stdout(io.StringIO()):\n"
        "        assert main([*words, '--help']) == 0, words\n"
        "    return 1 + sum(asked(below, [*words, name]) for name, below in getattr(command, 'commands', {}).items())\n"
        f"print(asked(get_command(app), []), [name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    count, loaded = done.stdout.strip().split(" ", 1)
    assert int(count) > 15
    assert loaded == "[]"

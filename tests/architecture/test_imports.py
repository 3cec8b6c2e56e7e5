"""Every module can be imported, and the ones that must answer at once load nothing heavy."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys

import pytest

import rewardlab

MODULES = sorted(module.name for module in pkgutil.walk_packages(rewardlab.__path__, "rewardlab."))
LIGHT = [name for name in MODULES if name.split(".")[1] in ("errors", "types", "config", "cli")]
HEAVY = ("torch", "transformers", "accelerate", "datasets", "pyarrow", "pandas", "scipy", "sklearn", "peft")


@pytest.mark.parametrize("name", MODULES)
def test_a_module_can_be_imported(name):
    """Lint cannot see a name that is missing only at import, such as one behind a star or in a decorator."""
    importlib.import_module(name)


def test_the_package_the_records_and_the_command_line_load_no_heavy_library():
    """`rewardlab --help` must not wait seconds for torch. A fresh process, since this one has loaded everything."""
    code = f"import sys, rewardlab, {', '.join(LIGHT)}; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

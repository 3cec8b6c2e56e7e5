"""The wheel and the sdist: what is in them, that each gives the same files, and that the wheel works elsewhere."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "rewardlab"
NOT_PYTHON = ("py.typed", "*.html", "*.css", "*.js", "*.jinja", "prompt_files/*.yaml")
BUILT = "import sys, setuptools.build_meta as backend; getattr(backend, sys.argv[1])(sys.argv[2])"


def _run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """What a command prints; it runs as on a machine that knows nothing of this checkout."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=kept | environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def _built(source: Path, hook: str, out: Path) -> Path:
    """What the build backend makes of a source tree, with nothing but what is installed here."""
    out.mkdir(parents=True)
    _run(sys.executable, "-c", BUILT, hook, out, cwd=source)
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that the checkout gets no build folders, and none that it has matters."""
    folder = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("*.egg-info"))
    (folder / "tests").mkdir()
    (folder / "tests" / "test_left_out.py").touch()
    return _built(folder, "build_sdist", folder / "dist")


@pytest.fixture(scope="module")
def unpacked(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (inner,) = folder.iterdir()
    return inner


@pytest.fixture(scope="module")
def wheel(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made of the sdist, as whoever downloads that makes it."""
    return _built(unpacked, "build_wheel", tmp_path_factory.mktemp("wheel") / "dist")


def test_the_wheel_holds_the_package_whole_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    patterns = ("*.py", *NOT_PYTHON)
    files = {path.relative_to(PACKAGE.parent).as_posix() for pattern in patterns for path in PACKAGE.rglob(pattern)}
    assert held == files
    everything = {path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert {path.relative_to(PACKAGE.parent).as_posix() for path in everything} == files, "a file that is not shipped"
    assert {"rewardlab/py.typed", "rewardlab/serving/page.html"} <= held


def test_the_sdist_gives_the_same_wheel_as_the_checkout_and_is_complete(unpacked: Path, wheel: Path) -> None:
    assert {"LICENSE", "README.md", "pyproject.toml", "PKG-INFO", "src"} <= {path.name for path in unpacked.iterdir()}
    with zipfile.ZipFile(wheel) as archive:
        metadata = {name.rpartition("/")[2] for name in archive.namelist() if ".dist-info/" in name}
        for name in archive.namelist():
            if ".dist-info/" not in name:
                assert archive.read(name) == (ROOT / "src" / name).read_bytes()
    assert {"LICENSE", "METADATA", "entry_points.txt"} <= metadata


def test_the_wheel_works_in_a_clean_environment_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    _run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    # The libraries are this environment's: its folder is on the path, but no .pth of it, so no editable checkout.
    purelib = Path(_run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip())
    libraries = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (purelib / "libraries.pth").write_text("\n".join(sorted(libraries)) + "\n")

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    came_from = _run(python, "-c", "import rewardlab; print(rewardlab.__file__)", cwd=elsewhere).strip()
    assert Path(came_from) == purelib / "rewardlab" / "__init__.py"
    command = tmp_path / "env" / "bin" / "rewardlab"
    version = json.loads(
        _run(python, "-c", "import json, rewardlab; print(json.dumps(rewardlab.__version__))", cwd=elsewhere)
    )
    assert version in _run(command, "--version", cwd=elsewhere)
    assert "train" in _run(command, "--help", cwd=elsewhere)
    config = {"model_type": "llama", "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "vocab_size": 9}
    (elsewhere / "config.json").write_text(json.dumps(config | {"num_attention_heads": 2, "pad_token_id": 0}))
    planned = _run(command, "train", "--model", elsewhere, "--plan", "--json", cwd=elsewhere, HF_HUB_OFFLINE="1")
    assert json.loads(planned)["trained"] > 0
    pages = "from rewardlab.evaluation.report import rendering; from rewardlab.judge import prompts; print('read')"
    assert _run(python, "-c", pages, cwd=elsewhere).strip() == "read"

"""Where things stand and what they are called: no drawer files, files readable whole, tests beside their source."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "rewardlab"
SOURCES = sorted(PACKAGE.rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))

DRAWERS = {"utils", "util", "common", "helpers", "helper", "misc", "tools"}
MOST_LINES = 500

WITHOUT_TEST_FILE: dict[str, str] = {
    "src/rewardlab/errors.py": "tests/cli/test_main.py",  # how each is told and with which status
    "src/rewardlab/modeling/planner.py": "tests/modeling/test_engine.py",  # what is planned is what the engine runs
    "src/rewardlab/training/step_trainer.py": "tests/training/test_trainer.py",  # which inherits it
}
"""Source file to the test that covers it instead."""

WITHOUT_SOURCE_FILE: dict[str, str] = {
    "tests/training/test_sharded.py": "DDP, ZeRO and fully_shard have the same losses and save the same model",
    "tests/training/test_killed.py": "a run ends at the same bits however often it was killed",
    "tests/scoring/test_bulk_killed.py": "a scored file is the same however often its scoring was killed",
    "tests/cli/test_launched.py": "a command gives on several processes, byte for byte, what it gives on one",
    "tests/cli/test_faults.py": "every command where the disk is full or read-only, or nobody reads what it prints",
    "tests/data/test_fuzz.py": "any bytes in a data file are rows, bad rows or an error of ours, in bounded memory",
    "tests/evaluation/report/test_in_browser.py": "both pages, whole, in a real browser",
    "tests/evaluation/test_published_scores.py": "published scores give the figures that their authors' code gives",
    "tests/modeling/test_fuzz_checkpoint.py": "any bytes in a file of a checkpoint are a score or a refusal",
    "tests/serving/protocols/test_verl.py": "what verl sends and reads, which is vLLM's dialect or SGLang's",
    "tests/serving/test_batching_admission.py": "who is admitted is answered in time, and who is not is told at once",
    "tests/serving/test_browser.py": "both pages of the server, in a real browser before a real scorer",
    "tests/serving/test_faults.py": "faults of worker, server and clients, in real processes",
    "tests/serving/test_faults_http.py": "bad input on every route of the real application",
    "tests/serving/test_openapi.py": "the application keeps what its OpenAPI document says",
    "tests/serving/test_serve_ray.py": "the example for Ray Serve",
    "tests/serving/test_vllm_checkpoint.py": "a checkpoint is what vLLM reads as ours is meant",
    "tests/test_fuzz_yaml.py": "any bytes as a YAML file of ours are what they say, or an error of ours",
    "tests/training/test_every_objective.py": "each objective, through the real trainer, keeps the same laws",
}
"""Test file of a law that runs through several source files, to that law."""


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def mirror_of(source: Path) -> Path:
    inside = source.relative_to(PACKAGE)
    return ROOT / "tests" / inside.parent / f"test_{inside.name}"


def test_no_module_is_a_drawer_for_anything():
    parts = {part for path in SOURCES for part in path.relative_to(PACKAGE).with_suffix("").parts}
    assert parts & DRAWERS == set(), "name a module after the one thing it does"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_a_source_file_can_be_read_whole(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MOST_LINES, f"{lines} lines: which two ideas live together here?"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_a_source_file_has_its_test_file(path):
    if path.name == "__init__.py" or relative(path) in WITHOUT_TEST_FILE:
        return
    body = ast.parse(path.read_text(encoding="utf-8")).body
    names = [node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    if any(not name.startswith("_") for name in names):
        assert mirror_of(path).is_file(), f"expected {relative(mirror_of(path))}"


@pytest.mark.parametrize("path", TESTS, ids=relative)
def test_a_test_file_has_its_source_file(path):
    if path.is_relative_to(ROOT / "tests" / "architecture") or relative(path) in WITHOUT_SOURCE_FILE:
        return
    mirrored = PACKAGE / path.relative_to(ROOT / "tests").parent / path.name.removeprefix("test_")
    assert mirrored.is_file(), f"expected {relative(mirrored)}"


def test_the_exceptions_are_still_needed():
    assert [name for name in WITHOUT_TEST_FILE if not (ROOT / name).is_file()] == []
    assert [name for name in WITHOUT_SOURCE_FILE if not (ROOT / name).is_file()] == []

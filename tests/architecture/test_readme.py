"""What the documents tell people to type exists: commands with their options, make targets, Python imports, files.

docs/log.md is left out: it records what was typed on a day, and is not rewritten when a command changes.
"""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from rewardlab.cli.main import app

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "ARCHITECTURE.md",
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if path.name != "log.md"),
]
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(text: str) -> list[tuple[str, str]]:
    """Language and content of each fenced code block."""
    return FENCE.findall(text)


def commands(text: str) -> list[list[str]]:
    """The arguments of every ``rewardlab`` command in shell blocks; of a pipe, the part before it."""
    found = []
    for language, block in blocks(text):
        if language in ("python", "json", "yaml"):
            continue
        for line in block.replace("\\\n", " ").splitlines():
            line = line.strip().removeprefix("$ ")
            if line.startswith("rewardlab "):
                words = shlex.split(line, comments=True)
                found.append(words[1 : words.index("|") if "|" in words else None])
    return found


def faults_of(arguments: list[str]) -> list[str]:
    """What the command line would not know in these arguments: a command, or options of it."""
    command = get_command(app)
    words = list(arguments)
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        name = words.pop(0)
        if name not in command.commands:
            return [f"no command {name!r}"]
        command = command.commands[name]
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    options |= {"--help", "-h"}
    given = {word.partition("=")[0] for word in words if word.startswith("-")}
    needed = [parameter.opts for parameter in command.params if parameter.required and parameter.opts[0][0] == "-"]
    missing = [names[0] for names in needed if not given & set(names)] if "--help" not in given else []
    return [f"no option {name}" for name in sorted(given - options)] + [f"{name} is missing" for name in missing]


def every_command(command: Any) -> Iterator[Any]:
    """A command and all those below it."""
    yield command
    for below in getattr(command, "commands", {}).values():
        yield from every_command(below)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_exists_with_its_options(path):
    faults = {" ".join(words): faults_of(words) for words in commands(path.read_text(encoding="utf-8"))}
    assert {command: fault for command, fault in faults.items() if fault} == {}


def test_every_example_in_a_command_s_own_help_exists():
    pages = [command.help for command in every_command(get_command(app))]
    examples = [words for page in pages for words in commands(f"```\n{page}\n```")]
    assert len(examples) >= len(pages) - 1, "`rewardlab data` only groups its commands; all others have an example"
    assert {" ".join(words): faults_of(words) for words in examples if faults_of(words)} == {}


def test_the_readme_shows_every_command():
    shown = {words[0] for words in commands((ROOT / "README.md").read_text(encoding="utf-8"))}
    assert set(get_command(app).commands) <= shown


def test_the_check_sees_what_does_not_exist():
    text = "```\n$ rewardlab score --dada x --output \\\n  y  # why\nrewardlab trian\n```\n"
    assert commands(text) == [["score", "--dada", "x", "--output", "y"], ["trian"]]
    faults = [fault for words in commands(text) for fault in faults_of(words)]
    assert faults == ["no option --dada", "--data is missing", "no command 'trian'"]


@pytest.mark.parametrize("path", [*DOCUMENTS, ROOT / ".ci" / "run"], ids=lambda path: path.name)
def test_every_make_target_exists(path):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = re.findall(r"(?:^|`|\$ )make ([a-z-]+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(named) - targets == set()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_python_block_parses_and_what_it_imports_from_us_exists(path):
    for language, block in blocks(path.read_text(encoding="utf-8")):
        if language != "python":
            continue
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rewardlab"):
                module = importlib.import_module(str(node.module))
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_file_that_is_linked_exists(path):
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", path.read_text(encoding="utf-8"))
    assert [link for link in links if not (path.parent / link).exists()] == []

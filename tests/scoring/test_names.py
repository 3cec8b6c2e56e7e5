"""Which models a name means."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rewardlab.errors import ConfigError
from rewardlab.scoring.names import members_of, policy_and_reference, short_name


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("runs/rm", None),
        (Path("runs/rm"), None),
        ("owner/policy:owner/reference", ("owner/policy", "owner/reference")),
        ("policy:", ("policy", None)),
        ("C:\\models\\rm", None),
        ("hf://owner/rm", None),
        ("a:b:c", None),
    ],
)
def test_a_colon_names_two_models(path: str | Path, expected: tuple[str, str | None] | None) -> None:
    assert policy_and_reference(path) == expected


def test_a_folder_that_exists_is_one_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run:3").mkdir()
    assert policy_and_reference("run:3") is None
    assert policy_and_reference("run:4") == ("run", "4")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("runs/rm", None),
        ("a,b", ["a", "b"]),
        ("owner/a, policy:reference ,c", ["owner/a", "policy:reference", "c"]),
    ],
)
def test_commas_name_members(path: str, expected: list[str] | None) -> None:
    assert members_of(path) == expected


def test_a_folder_with_a_comma_is_one_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a,b").mkdir()
    assert members_of("a,b") is None
    assert members_of("a,c") == ["a", "c"]
    for broken in ("a,", ",a", "a,,b"):
        with pytest.raises(ConfigError, match="a member has no name"):
            members_of(broken)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("org/a-model", "a-model"),
        ("runs/rm/", "rm"),
        (Path("runs/rm"), "rm"),
        ("runs/dpo:models/sft", "dpo"),
        ("runs/dpo:", "dpo"),
        ("runs/a,runs/b", "ensemble"),
        ("/", "reward-model"),
    ],
)
def test_what_a_model_is_called_where_nobody_has_said(path: str | Path, name: str) -> None:
    assert short_name(path) == name


def test_a_folder_is_called_what_it_is_whatever_leads_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run-3").mkdir()
    Path("latest").symlink_to("run-3")
    assert (short_name("."), short_name("latest"), short_name("run-3/..")) == (tmp_path.name, "run-3", tmp_path.name)
    with pytest.raises(ConfigError, match="a member has no name"):
        short_name("a,,b")


def test_names_are_read_without_torch() -> None:
    """The options of every command read them."""
    code = "import sys, rewardlab.scoring.names; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"

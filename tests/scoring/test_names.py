"""Which models a name means."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rewardlab.errors import CheckpointError, ConfigError, RewardLabError
from rewardlab.scoring.names import members_of, policy_and_reference, require_models, short_name


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


def test_folders_that_hold_no_model_are_refused_and_what_may_be_on_the_hub_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder, files in {
        "rm": ["config.json", "reward_contract.json"],
        "bare": ["config.json"],
        "empty": [],
        "lora": ["adapter_config.json"],
    }.items():
        Path(folder).mkdir()
        for file in files:
            Path(folder, file).touch()
    for fine in ("rm", "bare", "rm,bare", "rm:bare", "bare:", "owner/model", "model", "rm,owner/model:bare"):
        require_models(fine)
    require_models("rm,owner/model", contract=True)
    for broken, message in {
        "empty": "empty: no config.json",
        "rm,empty": "empty: no config.json",
        "rm:empty": "empty: no config.json",
        "lora": "lora: no config.json, only a PEFT adapter",
        "rm/config.json": "rm/config.json is a file, expected a model folder",
        "./nothing": "no such folder: ./nothing",
        "~/nothing": "no such folder: ~/nothing",
        "a/b/c": "no such folder: a/b/c",
        "x" * 5000 + "/y/z": "no such folder: ",
    }.items():
        with pytest.raises(CheckpointError) as caught:
            require_models(broken)
        assert caught.value.message.startswith(message)
    for broken in ("", " ", "a\0b", "rm,a\0b"):
        with pytest.raises(ConfigError, match="names no model"):
            require_models(broken)
    with pytest.raises(CheckpointError, match="bare has no contract"):
        require_models("rm,bare", contract=True)


@pytest.mark.parametrize("name", ["empty", "lora", "./nothing", "config.json"])
def test_it_is_refused_in_the_words_of_who_would_load_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rewardlab.modeling.loading import load_config, resolve_folder

    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("lora").mkdir()
    for file in ("lora/adapter_config.json", "config.json"):
        Path(file).touch()
    said = []
    for refuse in (require_models, lambda name: load_config(resolve_folder(name))):
        with pytest.raises(RewardLabError) as caught:
            refuse(name)
        said.append((type(caught.value), caught.value.message.replace("./", ""), caught.value.hint))
    assert said[0] == said[1]


def test_names_are_read_without_torch() -> None:
    """The options of every command read them."""
    code = "import sys, rewardlab.scoring.names; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"

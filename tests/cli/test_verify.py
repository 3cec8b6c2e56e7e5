"""``rewardlab verify``: what it prints, and its exit status."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from rewardlab.cli.main import main


@pytest.fixture
def changed(reward_model: Path, tmp_path: Path) -> Path:
    """A copy of a trained reward model whose chat template was changed after saving."""
    folder = tmp_path / "copy"
    shutil.copytree(reward_model, folder, ignore=shutil.ignore_patterns("training"))
    template = folder / "chat_template.jinja"
    template.write_text("<bos>" + template.read_text())
    return folder


def test_table_and_json(reward_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(reward_model)]) == 0
    table = capsys.readouterr().out
    assert "through plain transformers" in table
    assert "FAILED" not in table
    assert main(["verify", str(reward_model), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["ok"] is True
    assert all(set(check) == {"name", "max_difference", "tolerance", "ok"} for check in record["checks"])


def test_a_failed_check_is_exit_status_1(changed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(changed)]) == 1
    captured = capsys.readouterr()
    assert "FAILED" in captured.out
    assert "error:" in captured.err
    assert "chat template unchanged" in captured.err


def test_json_still_holds_the_checks_that_failed(changed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(changed), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["ok"] is False


def test_no_such_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(tmp_path / "nowhere")]) == 1
    assert "no such folder" in capsys.readouterr().err

"""``rewardlab report`` writes one page, of one model or of two."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.evaluation.report.conftest import make_contract, make_groups, make_scores
from tests.monitoring.simulated_history import write_history

from rewardlab.cli.report import report
from rewardlab.errors import ConfigError, DataError
from rewardlab.training.held_out import write_held_out


@pytest.fixture
def folder(tmp_path):
    """A checkpoint without weights."""
    path = tmp_path / "rm"
    path.mkdir()
    groups = make_groups(40)
    scores = make_scores(groups)
    make_contract(scores).save(path)
    write_held_out(path, groups, scores, None)
    return path


def test_one_model(folder, tmp_path, capsys):
    output = tmp_path / "page.html"
    report([str(folder)], output=output, bias=False)
    page = output.read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "are ranked right" in page
    told = capsys.readouterr()
    assert told.out == ""
    assert "page.html" in told.err


def test_two_models(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    report([str(folder), str(folder)])
    assert "percentage points" in (tmp_path / "comparison.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("models", "output"), [(["a", "b", "c"], None), (["a"], "no/such/folder/page.html"), (["a"], ".")]
)
def test_bad_usage_is_told_before_anything_is_loaded(models, output, tmp_path):
    with pytest.raises(ConfigError):
        report(models, output=tmp_path / output if output else None)


def test_the_trends_of_a_history(tmp_path, capsys):
    path = write_history(tmp_path / "rm.history", windows=2, looks_live=1)
    output = tmp_path / "page.html"
    report(None, history=path, output=output)
    assert "rewardlab monitor: " in output.read_text(encoding="utf-8")
    with pytest.raises(ConfigError, match="is also what is read"):
        report(None, history=path, output=path)
    report(["elsewhere/rm"], history=path, output=output)
    with pytest.raises(DataError, match="nothing in it is of other"):
        report(["other"], history=path, output=output)
    told = capsys.readouterr()
    assert told.out == ""
    assert "page.html" in told.err


@pytest.mark.parametrize(
    ("models", "more"),
    [
        (None, {}),
        (["a", "b"], {"history": "h"}),
        (["a"], {"history": "h", "data": ["d.jsonl"]}),
        (None, {"history": Path("h"), "launcher": "ddp"}),
    ],
)
def test_what_does_not_go_together_is_told(models, more):
    with pytest.raises(ConfigError):
        report(models, **more)

"""What the commands that score files share."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from rewardlab.cli.scoring import opened_scorer, scoring_bar


def test_an_ensemble_says_who_its_members_are(reward_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scorer, told = opened_scorer(str(reward_model), {"device": "cpu"})
    assert told == {"scale": scorer.scale} == {"scale": "raw"}
    assert capsys.readouterr().err == ""
    scorer, told = opened_scorer(f"{reward_model},{reward_model}", {"device": "cpu", "ensemble": "min", "on": "z"})
    assert told["scale"] == scorer.scale
    assert told["ensemble"]["members"] == [str(reward_model)] * 2
    assert "scoring with an ensemble of 2 (min) on the scale z" in capsys.readouterr().err


def test_the_bar_appears_with_the_first_count_and_goes_at_the_end() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    with scoring_bar(console) as update:
        update(40, 100)
        update(100, 100)
    written = console.file.getvalue()  # type: ignore[attr-defined]
    assert "100/100" in written
    assert written.endswith("\x1b[2K"), "its line is erased"

"""The options that commands share, as the scorer is given them."""

from __future__ import annotations

from inspect import signature
from pathlib import Path

import pytest

from rewardlab.cli.main import main
from rewardlab.cli.options import one_model, scorer_options
from rewardlab.errors import ConfigError


def test_what_is_not_given_is_none() -> None:
    """open_scorer refuses what means nothing to a kind of model, unless it is None."""
    always = {"engine": "auto", "trust_remote_code": False, "verify": True}
    found = scorer_options()
    assert {name: value for name, value in found.items() if value is not None} == always


def test_every_option_arrives_under_the_scorers_name() -> None:
    from rewardlab.scoring.implicit import ImplicitRewardScorer
    from rewardlab.scoring.opening import open_scorer

    given = scorer_options(
        batch_tokens=64,
        no_verify=True,
        neutral_is_correct=True,
        scale="z",
        length_normalised=True,
        ensemble="weighted",
        ensemble_k=2.0,
        ensemble_weights="2, 1,0.5",
        ensemble_scale="z",
    )
    assert {name: value for name, value in given.items() if value is not None} == {
        "tokens_per_batch": 64,
        "verify": False,
        "engine": "auto",
        "trust_remote_code": False,
        "neutral_is_correct": True,
        "scale": "z",
        "length_normalised": True,
        "ensemble": "weighted",
        "k": 2.0,
        "weights": [2.0, 1.0, 0.5],
        "on": "z",
    }
    known = {*signature(ImplicitRewardScorer.from_pretrained).parameters, *signature(open_scorer).parameters}
    assert given.keys() <= known


@pytest.mark.parametrize("weights", ["", "2;1", "2,,1", "two"])
def test_weights_are_numbers(weights: str) -> None:
    with pytest.raises(ConfigError, match="expected numbers with commas between"):
        scorer_options(ensemble_weights=weights)


@pytest.mark.parametrize("command", [["verify"], ["calibrate", "--data", "rows.jsonl"], ["report"]])
def test_commands_on_one_model_say_so(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "runs/a,runs/b"]) == 2
    told = capsys.readouterr().err
    assert "runs/a,runs/b: this command takes one model" in told
    assert "give it each in turn" in told


def test_a_folder_with_a_comma_is_one_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a,b").mkdir()
    assert one_model("a,b") == "a,b"

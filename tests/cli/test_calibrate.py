"""``rewardlab calibrate``: what it prints, what it stores, what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from rewardlab.cli.main import main
from rewardlab.modeling.contract import load_contract
from rewardlab.scoring.scorer import Scorer


@pytest.fixture(scope="module")
def model(reward_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calibrate") / "rm"
    shutil.copytree(reward_model, folder)
    return folder


@pytest.fixture(scope="module")
def rows(model: Path) -> Path:
    """Pairs that the model has not seen, three of four labelled as it scores them."""
    prompts = [f"Question number {i}?" for i in range(60)]
    first, second = [f"Answer {i * 7}." for i in range(60)], [f"No, {i * i}!" for i in range(60)]
    scorer, lines = Scorer.from_pretrained(model), []
    better = np.array(scorer.score(prompts, first)) > np.array(scorer.score(prompts, second))
    for i, prompt in enumerate(prompts):
        chosen, rejected = (first[i], second[i]) if better[i] == (i % 4 != 0) else (second[i], first[i])
        lines.append(json.dumps({"prompt": prompt, "chosen": chosen, "rejected": rejected}))
    path = model.parent / "rows.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_json_says_what_the_contract_then_holds(model: Path, rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", str(model), "--data", str(rows), "--reference", str(rows), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told["temperature"]) == {"value", "low", "high"}
    assert set(told["before"]) == set(told["after"]) >= {"log_loss", "ece", "brier"}
    contract = load_contract(model)
    assert contract is not None
    assert contract.reference is not None
    assert contract.temperature == told["temperature"]["value"]
    assert contract.reference.source == "rows.jsonl"
    assert told["heads"] == [], "a plain checkpoint has none"
    assert main(["verify", str(model), "--json"]) == 0, "the probes still give their scores"


def test_a_dry_run_prints_and_stores_nothing(model: Path, rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (model / "reward_contract.json").read_bytes()
    assert main(["calibrate", str(model), "--data", str(rows), "--dry-run"]) == 0
    captured = capsys.readouterr()
    assert "temperature" in captured.out
    assert "calibration error" in captured.out
    assert "nothing is stored" in captured.err
    assert (model / "reward_contract.json").read_bytes() == before


def test_scores_on_a_scale(model: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Percentiles of the reference set's own completions lie evenly between 0 and 100."""
    assert main(["calibrate", str(model), "--data", str(rows), "--reference", str(rows)]) == 0
    out = tmp_path / "scores.jsonl"
    arguments = ["score", str(model), "--data", str(rows), "--output", str(out), "--scale", "percentile"]
    assert main(arguments) == 0
    rows_out = map(json.loads, out.read_text().splitlines())
    ranks = [value for row in rows_out for key, value in row.items() if key.endswith("score")]
    assert np.mean(ranks) == pytest.approx(50, abs=2)
    assert main([*arguments[:-1], "quality", "--overwrite"]) == 2
    assert "quality" in capsys.readouterr().err


def test_evaluate_shows_the_stored_temperature(model: Path, rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", str(model), "--data", str(rows)]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(model), "--data", str(rows), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    contract = load_contract(model)
    assert contract is not None
    assert told["temperature"] == contract.temperature
    assert told["calibrated"]["log_loss"]["value"] <= told["log_loss"]["value"] + 1e-9, "fitted on these very pairs"


def test_a_hub_id_cannot_be_written_to(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", "someone/a-model", "--data", str(rows)]) == 2
    assert "not a local folder" in capsys.readouterr().err


def test_bad_rows_are_told(model: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "one_bad.jsonl"
    path.write_text(rows.read_text() + '{"prompt": "no sides"}\n')
    assert main(["calibrate", str(model), "--data", str(path), "--dry-run"]) == 0
    assert "1 of 61 rows are bad and left out" in capsys.readouterr().err

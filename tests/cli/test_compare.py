"""From a model to its refreshed successor, and ``rewardlab compare`` between them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from rewardlab.cli.main import main
from rewardlab.types import PromptGroup

FAST = ["--set", "max_length=128", "--set", "learning_rate=1e-3", "--set", "disable_tqdm=true", "--dtype", "float32"]


def _write(path: Path, groups: Sequence[PromptGroup]) -> str:
    rows = [
        {"prompt": g.prompt, "chosen": g.completions[0], "rejected": g.completions[1], "subset": g.subset}
        for g in groups
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_train_refresh_verify_compare(
    base_model: Path, pairs: list[PromptGroup], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """24 rows, 6 of them held out; 20 new ones, of which 2 are canaries and 1 has a held-out prompt."""
    first = _write(tmp_path / "first.jsonl", pairs[:24])
    old, new = str(tmp_path / "old"), str(tmp_path / "new")
    arguments = ["train", "--model", str(base_model), "--data", first, "--eval-fraction", "0.25", "--output", old]
    assert main([*arguments, "--set", "per_device_train_batch_size=4", "--set", "num_train_epochs=2", *FAST]) == 0
    before = json.loads((tmp_path / "old" / "reward_contract.json").read_text())
    assert before["lineage"] == []
    held_out = json.loads((tmp_path / "old/training/held_out.jsonl").read_text().splitlines()[0])["group"]
    rows = [*pairs[24:43], PromptGroup(held_out["prompt"], ("never", "seen"), pairs[0].pairs)]
    more, canary = _write(tmp_path / "more.jsonl", rows), _write(tmp_path / "canary.jsonl", pairs[24:26])
    capsys.readouterr()

    arguments = ["train", "--refresh", old, "--data", more, "--exclude", canary, "--output", new, "--json"]
    assert main([*arguments, "--set", "weight_decay=0.1", "--set", "disable_tqdm=true"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["rows"]["used"] == 18 + 17
    told = " ".join(captured.err.split())
    for said in (
        "learning_rate 0.001",
        "per_device_train_batch_size 4",
        "weight_decay 0.1 (was 0.0)",
        "not inherited: 2 epochs",
        "18 old rows and 17 new ones",
        "2 new rows left out, excluded",
        "1 new row left out, held out",
        "6 held-out rows, those of the old run",
    ):
        assert said in told
    after = json.loads((tmp_path / "new" / "reward_contract.json").read_text())
    assert after["data"]["held_out"] == before["data"]["held_out"]
    assert after["training"]["epochs"] == 1
    assert [line["data"]["train"]["sha256"] for line in after["lineage"]] == [before["data"]["train"]["sha256"]]
    assert "## Lineage" in (tmp_path / "new" / "README.md").read_text()
    assert str(tmp_path) not in json.dumps(after["data"]["files"])
    assert main(["verify", new]) == 0
    assert main(["train", "--refresh", old, "--data", more, "--output", str(tmp_path / "x"), "--config", first]) == 2
    capsys.readouterr()

    fresh = _write(tmp_path / "fresh.jsonl", pairs[43:])
    wide = ["--tolerance", "0.5", "--tolerated-ece", "0.5", "--json"]
    status = main(["compare", old, new, "--data", fresh, *wide])
    captured = capsys.readouterr()
    decision = json.loads(captured.out)
    assert status == (0 if decision["may_replace"] else 1)
    assert decision["comparison"]["num_pairs"] == 5
    assert decision["ledger"]["rows"]["used"] == 5
    assert "lineage" not in captured.err
    assert main(["compare", new, old, "--data", more, "--data", fresh]) == 1
    captured = capsys.readouterr()
    warnings = " ".join(captured.err.split())
    assert "lineage does not name the old one" in warnings
    assert "the old model: 17 of 25 rows have a completion that the model was trained on" in warnings
    assert "new model" in captured.out


def test_a_model_against_itself_and_an_ensemble(
    reward_model: Path, pairs: list[PromptGroup], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, model = _write(tmp_path / "rows.jsonl", pairs[32:]), str(reward_model)
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write(json.dumps({"prompt": "unlabelled", "completions": ["a", "b"]}) + "\n")
        file.write(json.dumps({"prompt": "too long", "chosen": "sea " * 400, "rejected": "b"}) + "\n")
    assert main(["compare", model, model, "--data", data]) == 0
    captured = capsys.readouterr()
    assert "both models give these 16 comparisons the same scores" in captured.out
    assert "lineage" not in captured.err
    assert f'POST /reload with {{"path": "{model}"}}' in captured.err
    assert f"rewardlab monitor {model} --canary canary.jsonl --history rm.history" in captured.err
    assert "left out for both" in captured.err
    assert "1 rows that say no preference" in captured.err
    twin = str(shutil.copytree(reward_model, tmp_path / "twin"))
    wide = ["--tolerance", "0.3", "--tolerated-ece", "0.1", "--json"]
    assert main(["compare", f"{model},{twin}", model, "--data", data, *wide]) == 0
    decision = json.loads(capsys.readouterr().out)
    assert (decision["verdict"], decision["comparison"]["mcnemar"]["p"]) == ("not worse", 1.0)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["compare", "/nowhere", "RM", "--data", "rows.jsonl"], 1, "no such folder: /nowhere"),
        (["compare", "RM", "RM"], 2, "--data"),
        (["compare", "RM", "RM", "--data", "missing.jsonl"], 1, "no such file"),
        (["compare", "RM", "RM", "--data", "rows.jsonl", "--tolerance", "2"], 2, "--tolerance"),
        (["train", "--refresh", "/nowhere", "--data", "rows.jsonl", "--output", "x"], 1, "no such folder"),
    ],
)
def test_what_cannot_be_done_is_told_on_stderr_alone(
    reward_model: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, message: str
) -> None:
    assert main([str(reward_model) if argument == "RM" else argument for argument in arguments]) == status
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""
    assert "Traceback" not in captured.err

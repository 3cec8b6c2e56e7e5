"""``rewardlab train`` from files to a checkpoint, and what it says when it cannot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rewardlab.cli.main import main
from rewardlab.types import PromptGroup

FAST = ["--set", "max_length=128", "--set", "learning_rate=1e-3", "--set", "disable_tqdm=true", "--dtype", "float32"]


@pytest.fixture
def data(tmp_path: Path, pairs: list[PromptGroup]) -> Path:
    """40 good rows and one without a rejected side."""
    path = tmp_path / "pairs.jsonl"
    rows = [{"prompt": g.prompt, "chosen": g.completions[0], "rejected": g.completions[1], "id": g.id} for g in pairs]
    lines = [json.dumps(row) for row in rows[:40]]
    lines.insert(7, json.dumps({"prompt": "Hi", "chosen": "only one side"}))
    path.write_text("\n".join(lines) + "\n")
    return path


def test_from_files_to_a_checkpoint_with_a_ledger(
    base_model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "rm"
    arguments = ["train", "--model", str(base_model), "--data", str(data), "--output", str(output), "--json"]
    assert main([*arguments, "--eval-fraction", "0.25", *FAST]) == 0
    captured = capsys.readouterr()
    summary = json.loads(captured.out)
    assert summary["verification"]["ok"] is True
    assert summary["rows"] == {"read": 41, "used": 40, "quarantined": 1, "dropped": 0, "truncated": 0}
    assert summary["held_out"]["num_pairs"] == 10
    assert "1 of 41 rows set aside" in captured.err
    bad = json.loads((output / "training" / "quarantine.jsonl").read_text())
    assert (bad["line"], bad["reason"]) == (8, "rejected is missing")
    contract = json.loads((output / "reward_contract.json").read_text())
    assert [(file["role"], file["file"]) for file in contract["data"]["files"]] == [("train", "pairs.jsonl")]
    # The same command again must not write over what is there.
    assert main([*arguments, *FAST]) == 2
    assert "not an empty folder" in capsys.readouterr().err


def test_heads_are_told_how_they_are_scored(
    base_model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", "--model", str(base_model), "--data", str(data), "--set", "max_steps=1", *FAST]
    assert main([*arguments, "--output", str(tmp_path / "heads"), "--ensemble-heads", "2"]) == 0
    assert "(--ensemble min for the worst of the heads)" in " ".join(capsys.readouterr().err.split())
    assert main([*arguments, "--output", str(tmp_path / "plain")]) == 0
    assert "--ensemble" not in capsys.readouterr().err


def test_a_recipe_and_shared_prompts(
    base_model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"model: {base_model}\ndata: [{data}]\neval_data: [{data}]\noutput: {tmp_path / 'rm'}\nmax_length: 128\n"
        "max_steps: 1\ndisable_tqdm: true\ndtype: float32\nmode: head_only\n"
    )
    assert main(["train", "--config", str(recipe)]) == 0
    captured = capsys.readouterr()
    assert "prompts are in both the training and the held-out data" in captured.err
    assert "mode head_only" in captured.err
    assert "accuracy" in captured.out


def test_a_file_that_is_labelled_in_part(
    base_model: Path, tmp_path: Path, pairs: list[PromptGroup], capsys: pytest.CaptureFixture[str]
) -> None:
    """A third has no label yet, which is no bad row; one prompt is excluded, though its completions are new."""
    labels = ["a", "b", None] * 4
    rows = [
        {"prompt": g.prompt, "a": g.completions[0], "b": g.completions[1], "label": label}
        for g, label in zip(pairs, labels, strict=False)
    ]
    data, canary = tmp_path / "labels.jsonl", tmp_path / "canary.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    canary.write_text(json.dumps({"prompt": f"{rows[0]['prompt']} ", "chosen": "other", "rejected": "texts"}) + "\n")
    arguments = ["train", "--model", str(base_model), "--data", str(data), "--exclude", str(canary), "--head-only"]
    output = tmp_path / "rm"
    assert main([*arguments, "--output", str(output), "--set", "max_steps=1", "--json", *FAST]) == 0
    captured = capsys.readouterr()
    summary = json.loads(captured.out)
    assert summary["rows"] == {"read": 12, "used": 7, "quarantined": 0, "dropped": 5, "truncated": 0}
    assert summary["reasons"] == {"not labelled yet": 4, "excluded but for formatting": 1}
    assert captured.err.count("4 of 12 comparisons have no label yet") == 2  # where it was read, and at the end
    assert "set aside" not in captured.err
    assert not (output / "training" / "quarantine.jsonl").exists()


@pytest.mark.parametrize(
    ("extra", "status", "message"),
    [
        (["--strict"], 1, "1 of 41 rows are bad"),
        (["--set", "learning_rat=1"], 2, "learning_rate"),
        (["--lora", "--head-only"], 2, "exclude each other"),
        (["--dtype", "int3"], 2, "dtype"),
        (["--engine", "warp"], 2, "unknown engine 'warp'"),
    ],
)
def test_what_cannot_be_done_is_told(
    base_model: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    extra: list[str],
    status: int,
    message: str,
) -> None:
    arguments = ["train", "--model", str(base_model), "--data", str(data), "--output", str(tmp_path / "rm")]
    assert main([*arguments, *extra]) == status
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_a_missing_required_key_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--model", "m"]) == 2
    assert "data" in capsys.readouterr().err

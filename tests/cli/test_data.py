"""`rewardlab data check`: what goes to stdout, what to stderr, and the exit status."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from rewardlab.cli.data import app
from rewardlab.errors import CheckpointError, DataError

SECRET = "do not print me"
ROWS = [
    {"prompt": f"{SECRET} {n}", "chosen": f"{SECRET}, indeed, at length", "rejected": "no", "subset": f"[red]s{n % 2}"}
    for n in range(30)
]


@pytest.fixture
def pairs(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*ROWS, ROWS[0] | {"chosen": ""}]))
    return path


def run(*arguments):
    return CliRunner().invoke(app, ["check", *map(str, arguments)], env={"COLUMNS": "80"})


def test_the_report_is_on_stdout_within_80_columns_and_shows_no_text_of_the_data(pairs):
    result = run(pairs)
    assert result.exit_code == 0
    assert result.stderr == ""
    for part in (
        "pairs",
        "31",
        "30",
        "chosen is empty",
        "pairs.jsonl:31",
        "[red]s0",
        "100% of pairs",
        "what to look at",
    ):
        assert part in result.stdout
    assert SECRET not in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_json_is_one_object_with_the_ledger_at_the_top(pairs):
    result = run(pairs, "--json", "--against", pairs)
    report = json.loads(result.stdout)
    assert report["rows"] == {"read": 31, "used": 30, "quarantined": 1, "dropped": 0, "truncated": 0}
    assert report["reasons"] == {"chosen is empty": 1}
    assert (report["pairs"], report["shared_prompts"], report["longer_wins"]["longer"]) == (30, 30, 1.0)
    assert "1 of 31 rows of the other set are bad" in result.stderr


def test_too_many_bad_rows_fail_after_the_report(pairs, tmp_path):
    kept = tmp_path / "bad.jsonl"
    result = run(pairs, "--strict", "--quarantine", kept)
    assert isinstance(result.exception, DataError), "which the program turns into exit status 1"
    assert "1 of 31 rows are bad" in result.exception.message
    assert "what to look at" in result.stdout
    assert json.loads(kept.read_text())["line"] == 31
    assert isinstance(run(pairs, "--max-bad-fraction", "0.01").exception, DataError)
    assert run(pairs, "--max-bad-fraction", "0.04").exit_code == 0


def test_a_set_without_a_good_row_is_still_accounted_for(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": 1}\n{"b": 2}\n')
    result = run(path, "--json")
    assert json.loads(result.stdout)["rows"]["quarantined"] == 2
    assert isinstance(result.exception, DataError)
    assert "no known format" in run(path).stdout


def test_what_is_known_of_the_completions_is_told(tmp_path):
    path = tmp_path / "x.jsonl"
    rows = [
        {"prompt": "p", "a": "x", "b": "y"},
        {"prompt": "p", "completions": ["x", "y", "z"], "scores": [3, 2, 1]},
        {"prompt": "p", "response": "x", "helpfulness": 3, "verbosity": 1},
        {"prompt": "p", "completion": "x", "label": True},
        {"prompt": "p", "completion": "y", "label": False},
        {"prompt": "p", "completions": ["x", "y"], "labels": [True, False]},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = [" ".join(line.split()) for line in run(path).stdout.splitlines()]
    for line in (
        "pairs 3",
        "ties 1",
        "strengths 3 pairs that say how much better",
        "rankings 1 1 of 3 completions",
        "ratings 3 completions",
        "helpfulness 1 completions",
        "outcomes 2 completions, 50.0% correct",
        "solutions with steps 1",
        "steps 2 50.0% correct, 50.0% incorrect",
    ):
        assert line in lines
    report = json.loads(run(path, "--json").stdout)
    assert report["contents"]["rankings"] == {"3": 1}
    assert report["contents"]["outcomes_correct"] == 0.5


def test_tokens_and_truncation_with_a_model(pairs, tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path / "model")
    report = json.loads(run(pairs, "--json", "--model", tmp_path / "model", "--max-length", "52").stdout)
    assert report["truncation"]["max_length"] == 52
    assert report["truncation"]["sequences"] == 60
    assert report["tokens"]["max"] <= 52
    assert 0 < report["rows"]["truncated"] <= report["truncation"]["truncated"]
    assert "cut" in run(pairs, "--model", tmp_path / "model", "--max-length", "52").stdout
    whole = json.loads(run(pairs, "--json", "--model", tmp_path / "model").stdout)
    assert (whole["truncation"]["max_length"], whole["truncation"]["truncated"]) == (
        512,
        0,
    )  # the tokenizer's own limit


def test_a_model_without_a_tokenizer_is_told(pairs, tmp_path):
    assert isinstance(run(pairs, "--model", tmp_path).exception, CheckpointError)

"""`rewardlab best-of-n` with a small trained model: what it writes, prints and refuses."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest

from rewardlab.cli.main import main

WORDS = ["the", "sea", "and", "wind", "of", "a", "poem", "about", "Paris", "is", "short", "but", "long"]


def write_rows(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read_rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def samples(number: int, *, rated: bool = False) -> list[dict[str, object]]:
    """Answers of many lengths; the model of the fixture has learned that longer is better, and so are the ratings."""
    draw = Random(0)
    rows: list[dict[str, object]] = []
    for i in range(number):
        answers = [" ".join(draw.choices(WORDS, k=draw.randint(1, 14))) for _ in range(4)]
        row: dict[str, object] = {"id": i, "prompt": f"Write about {WORDS[i % 13]}.", "completions": answers}
        rows.append({**row, "scores": [len(answer.split()) for answer in answers]} if rated else row)
    return rows


def run(*arguments: object) -> int:
    return main(["best-of-n", *map(str, arguments), "--device", "cpu"])


def test_best_pairs_and_selection_of_a_trained_model(
    reward_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The files hold what `Scorer.score` says; data goes to stdout, talk to stderr."""
    from rewardlab.scoring.scorer import Scorer

    rows = [*samples(12, rated=True), {"id": "long", "prompt": "Write.", "completions": ["sea " * 2000, "wind"]}]
    data = write_rows(tmp_path / "samples.jsonl", rows)
    best, sft, pairs = (tmp_path / f"{name}.jsonl" for name in ("best", "sft", "pairs"))
    options = ("--selected", sft, "--select", "top-k", "--k", 2, "--pairs", pairs, "--min-gap", 0.001, "--json")
    assert run(reward_model, "--data", data, "--output", best, *options) == 0
    told = capsys.readouterr()
    summary = json.loads(told.out)
    assert (summary["num_groups"], summary["num_scored"], summary["unscored_rows"]) == (13, 12, 1)
    assert summary["n"] == {"min": 4, "median": 4, "max": 4}
    assert [point["n"] for point in summary["expected"]] == [1, 2, 4]
    assert summary["pairs"]["rows"] + sum(summary["pairs"]["without"].values()) == 13
    assert summary["selected"] == {"file": str(sft), "rows": 24}
    known = summary["known"]["rating"]["points"][-1]
    assert summary["known"]["rating"]["random"]["value"] < known["value"]["value"] <= known["oracle"]["value"]
    assert "best of n of 13 rows, n = 4" in told.err
    assert "1 without a score" in told.err

    found = read_rows(best)
    prompt, answers = rows[0]["prompt"], rows[0]["completions"]
    expected = Scorer.from_pretrained(reward_model, device="cpu").score([prompt] * 4, answers)
    assert found[0]["scores"] == pytest.approx(expected, abs=1e-5)
    assert found[0]["best_completion"] == answers[expected.index(max(expected))]
    assert "samples.jsonl:13" in str(found[12]["error"])
    assert read_rows(sft)[0]["completion"] == found[0]["best_completion"]


def test_empty_completions_and_unreadable_rows_do_not_stop_it(
    reward_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A policy writes empty ones; the error about bad rows names an option that this command has."""
    rows = [{"prompt": "Write.", "completions": ["sea", "", "the wind"]}, *samples(3), {"prompt": "Write."}]
    data, best = write_rows(tmp_path / "samples.jsonl", rows), tmp_path / "best.jsonl"
    assert run(reward_model, "--data", data, "--output", best) == 1
    told = " ".join(capsys.readouterr().err.split())
    assert "--max-bad-fraction of score, best-of-n" in told
    assert "1 of 5 rows are bad" in told
    assert run(reward_model, "--data", data, "--output", best, "--max-bad-fraction", 0.2) == 0
    assert "1 rows cannot be read" in capsys.readouterr().err
    first = read_rows(best)[0]
    assert isinstance(first["scores"], list)
    assert len(set(first["scores"])) == 3
    assert (tmp_path / "best.jsonl.quarantine.jsonl").exists()


def test_the_table_says_what_fewer_would_have_given(
    reward_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    data = write_rows(tmp_path / "samples.jsonl", [*samples(5, rated=True), *samples(3)])
    assert run(reward_model, "--data", data, "--output", tmp_path / "best.parquet") == 0
    table = capsys.readouterr().out
    assert "rating of the pick" in table
    assert "oracle" in table
    assert [line.split()[:2] for line in table.splitlines() if line.strip()[:1].isdigit()] == [
        ["1", "0.00"],
        ["2", "0.19"],
        ["4", "0.64"],
    ]
    assert "rating: known of 5 of 8 rows" in table


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--k", 3), "--selected FILE"),
        (("--select", "best"), "--selected FILE"),
        (("--selected", "NEW", "--temperature", 2), "--select reward-weighted"),
        (("--selected", "NEW", "--select", "worst"), "one of best, top-k, reward-weighted"),
        (("--selected", "NEW", "--k", 2), "select top-k"),
        (("--min-gap", 1), "--pairs FILE"),
        (("--pairs", "DATA"), "give another output"),
    ],
)
def test_bad_usage_is_told_before_the_model_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[object, ...], told: str
) -> None:
    data = write_rows(tmp_path / "samples.jsonl", samples(2))
    files = {"NEW": tmp_path / "new.jsonl", "DATA": data}
    given = [files.get(str(option), option) for option in options]
    assert run("no/such-model", "--data", data, "--output", tmp_path / "out.jsonl", *given) == 2
    assert told in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["samples.jsonl"]

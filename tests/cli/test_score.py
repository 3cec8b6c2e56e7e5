"""`rewardlab score` with a small trained model: what it writes, what it says, and that kill -9 leaves no trace."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rewardlab.cli.main import main

WORDS = ["the", "sea", "and", "wind", "of", "a", "poem", "about", "Paris", "is", "short", "but", "long"]


def write_rows(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def many_rows(number: int) -> list[dict[str, object]]:
    """Completions of many lengths, so that a batch's width depends on its neighbours."""
    return [
        {
            "id": i,
            "prompt": f"Write about {WORDS[i % 13]}.",
            "completion": " ".join(WORDS[j % 13] for j in range(i, 2 * i % 23 + i + 1)),
        }
        for i in range(number)
    ]


def run(*arguments: object) -> int:
    return main(["score", *map(str, arguments), "--device", "cpu"])


def test_scores_are_the_scorers_own(reward_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file holds what `Scorer.score` gives, to 1e-5; data goes to stdout, talk to stderr."""
    from rewardlab.scoring.scorer import Scorer

    rows = [
        {"id": "a", "prompt": "Write about the sea.", "completion": "the sea is long"},
        {"id": 2, "prompt": "Write about wind.", "chosen": "the wind and the sea", "rejected": "short"},
        {"prompt": "Write about Paris.", "completions": ["Paris is a poem", "the poem", "wind"]},
        {"id": "long", "prompt": "Write.", "completion": "sea " * 2000},
        *({"prompt": "Write about the poem.", "completion": word} for word in WORDS),
    ]
    data = write_rows(tmp_path / "rows.jsonl", rows)
    assert run(reward_model, "--data", data, "--output", tmp_path / "out.jsonl", "--json") == 0
    told = capsys.readouterr()
    summary = json.loads(told.out)
    assert (summary["rows"], summary["quarantined_rows"], summary["resumed_rows"]) == (len(rows), 1, 0)
    assert summary["ledger"]["reasons"] == {"completion too long": 1}
    assert "1 rows have no score" in told.err

    first, second, third, fourth, *_ = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    expected = Scorer.from_pretrained(reward_model, device="cpu").score(
        ["Write about the sea.", "Write about wind.", "Write about wind.", *["Write about Paris."] * 3],
        ["the sea is long", "the wind and the sea", "short", "Paris is a poem", "the poem", "wind"],
    )
    assert first["id"] == "a"
    assert second["id"] == 2
    assert third["id"] == "rows.jsonl:3"
    found = [*first["scores"], second["chosen_score"], second["rejected_score"], *third["scores"]]
    assert found == pytest.approx(expected, abs=1e-5)
    assert fourth["scores"] is None
    assert "rows.jsonl:4" in fourth["error"]


def test_bad_usage_is_told_before_the_model_is_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_rows(tmp_path / "rows.jsonl", many_rows(2))
    assert run("no/such-model", "--data", data, "--output", data, "--overwrite") == 2
    assert "is the data itself" in capsys.readouterr().err
    (tmp_path / "out.jsonl").touch()
    assert run("no/such-model", "--data", data, "--output", tmp_path / "out.jsonl") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert run("no/such-model", "--data", tmp_path / "missing.jsonl", "--output", tmp_path / "new.jsonl") == 1
    assert "no such file" in capsys.readouterr().err


@pytest.mark.slow
def test_kill_minus_nine_leaves_no_trace(reward_model: Path, tmp_path: Path) -> None:
    """The real command, killed after its first chunk and given again, writes what an uninterrupted run writes."""
    data = write_rows(tmp_path / "rows.jsonl", many_rows(2500))
    whole, output = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    arguments = ["score", reward_model, "--data", data, "--device", "cpu", "--batch-tokens", 512, "--output"]
    program = [sys.executable, "-c", "import sys; from rewardlab.cli.main import main; sys.exit(main())"]
    command = [*program, *map(str, [*arguments, output])]
    journal = tmp_path / "out.jsonl.partial.journal"
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not (journal.exists() and journal.read_bytes().count(b"\n") > 1):
        assert time.monotonic() < deadline, "no chunk was written within two minutes"
        assert process.poll() is None, "the command ended by itself"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not output.exists()
    again = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    assert 0 < json.loads(again.stdout)["resumed_rows"] < 2500
    subprocess.run([*program, *map(str, [*arguments, whole])], capture_output=True, check=True)
    assert output.read_bytes() == whole.read_bytes()
    assert len(whole.read_bytes().splitlines()) == 2500


def test_an_ensemble_is_scored_end_to_end(
    reward_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Twice one model: the mean is its own scaled score, nobody disagrees, and another combination is another run."""
    from rewardlab.scoring.scorer import Scorer

    rows = [
        {"id": 1, "prompt": "Write about wind.", "chosen": "the wind and the sea", "rejected": "short"},
        {"id": 2, "prompt": "Write about Paris.", "completions": ["Paris is a poem", "the poem", "wind"]},
    ]
    data = write_rows(tmp_path / "rows.jsonl", rows)
    name, output = f"{reward_model},{reward_model}", tmp_path / "out.jsonl"
    assert run(name, "--data", data, "--output", output, "--ensemble-scale", "z", "--json") == 0
    told = capsys.readouterr()
    assert "scoring with an ensemble of 2 (mean) on the scale z" in told.err
    assert json.loads(told.out)["ensemble"]["members"] == [str(reward_model)] * 2
    pair, several = map(json.loads, output.read_text().splitlines())
    assert (pair["chosen_disagreement"], pair["rejected_disagreement"]) == (0.0, 0.0)
    assert several["disagreements"] == [0.0, 0.0, 0.0]
    own = Scorer.from_pretrained(reward_model, device="cpu", scale="z").score(
        ["Write about wind."] * 2 + ["Write about Paris."] * 3,
        ["the wind and the sea", "short", "Paris is a poem", "the poem", "wind"],
    )
    assert [pair["chosen_score"], pair["rejected_score"], *several["scores"]] == pytest.approx(own, abs=1e-5)
    assert run(name, "--data", data, "--output", tmp_path / "new.jsonl", "--ensemble-k", "2") == 2
    assert "k means nothing to 'mean'" in capsys.readouterr().err
    assert run(reward_model, "--data", data, "--output", tmp_path / "new.jsonl", "--ensemble", "min") == 2
    assert "has one head" in capsys.readouterr().err

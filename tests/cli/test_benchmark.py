"""`rewardlab benchmark`: what goes to stdout, to stderr and to the file of items. The scorer is a stand-in."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import pytest
import typer
from typer.testing import CliRunner

from rewardlab.cli.benchmark import benchmark
from rewardlab.data.encoding import EncodedGroup
from rewardlab.errors import CheckpointError, ConfigError
from rewardlab.evaluation.benchmarks import BENCHMARKS
from rewardlab.evaluation.benchmarks.rewardbench import PUBLISHED_COUNTS

ROWS = [
    {
        "prompt": "secret question",
        "chosen": "yes, indeed",
        "rejected": "no" * (1 + 9 * (n % 4 == 0)),
        "subset": name,
        "id": n,
    }
    for n, name in enumerate([*PUBLISHED_COUNTS] * 3)
]


class ByLength:
    loaded: list[tuple[str, dict[str, object]]]

    def __init__(self) -> None:
        self.encoder = SimpleNamespace(
            encode_many=lambda groups: [EncodedGroup(group, ((1,),) * len(group.completions), 0) for group in groups]
        )

    @classmethod
    def open(cls, path: str, **options: object) -> ByLength:
        if path == "gone":
            raise CheckpointError("gone: no such model")
        cls.loaded.append((path, options))
        return cls()

    def score_groups(self, groups, *, progress: bool = False):
        print("scoring", file=sys.stderr)
        return [[float(len(text)) for text in group.completions] for group in groups]


@pytest.fixture(autouse=True)
def scorer(monkeypatch):
    """Stands in for the module, so that the command is tested without torch."""
    module = ModuleType("rewardlab.scoring.opening")
    monkeypatch.setattr(ByLength, "loaded", [], raising=False)
    module.open_scorer = ByLength.open
    monkeypatch.setitem(sys.modules, "rewardlab.scoring.opening", module)
    return ByLength


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "filtered.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def run(*arguments):
    app = typer.Typer()
    app.command()(benchmark)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_json_alone_is_on_stdout(rows):
    """By length every fourth pair is lost."""
    result = run("rewardbench", "model", "--data", rows, "--json")
    assert result.exit_code == 0
    out = json.loads(result.stdout)
    assert list(out) == [
        *("benchmark", "title", "measures", "source", "num_items", "num_left_out"),
        *("overall", "sections", "subsets", "notes"),
    ]
    assert (out["benchmark"], out["num_items"], out["num_left_out"]) == ("rewardbench", 69, 0)
    assert list(out["sections"]) == ["Chat", "Chat Hard", "Safety", "Reasoning"]
    mean = sum(section["value"] for section in out["sections"].values()) / 4
    assert out["overall"]["value"] == pytest.approx(mean)
    assert 0 < out["overall"]["low"] < out["overall"]["value"] < out["overall"]["high"] < 1
    assert "scoring" in result.stderr


def test_the_table_is_on_stdout(rows):
    result = run("rewardbench", "model", "--data", rows)
    assert result.exit_code == 0
    assert all(word in result.stdout for word in ("overall", "Chat Hard", "xstest-should-respond", "note: "))
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_items_are_written_without_texts(rows, tmp_path):
    items = tmp_path / "out" / "items.jsonl"
    assert run("rewardbench", "model", "--data", rows, "--output", items).exit_code == 0
    written = [json.loads(line) for line in items.read_text().splitlines()]
    assert written[1] == {"id": 1, "subset": "alpacaeval-length", "scores": [11.0, 2.0], "correct": True}
    assert len(written) == 69
    assert "secret" not in items.read_text()
    refused = run("rewardbench", "model", "--data", rows, "--output", items)
    assert isinstance(refused.exception, ConfigError)
    assert "--overwrite" in refused.exception.hint
    assert run("rewardbench", "model", "--data", rows, "--output", items, "--overwrite").exit_code == 0


def test_two_runs_are_equal(rows):
    first, second = (run("rewardbench", "model", "--data", rows, "--json").stdout for _ in range(2))
    assert first == second


def test_an_unknown_benchmark_names_the_six_before_anything_is_read(scorer):
    result = run("reward-bench", "gone", "--data", "gone.jsonl")
    assert isinstance(result.exception, ConfigError)
    assert all(name in result.exception.message for name in BENCHMARKS)
    assert scorer.loaded == []


def test_rows_are_read_before_the_model_is_loaded(scorer, tmp_path):
    result = run("rewardbench", "model", "--data", tmp_path / "gone.jsonl")
    assert "no such file" in result.exception.message
    assert scorer.loaded == []


def test_without_a_network_the_error_comes_soon_and_alone(tmp_path):
    """The hub's address is one that refuses: no talk of retries, and none of the 23 seconds that they would take."""
    command = "from rewardlab.cli.main import main; exit(main(['benchmark', 'rewardbench', 'model']))"
    online = {name: value for name, value in os.environ.items() if name not in ("HF_HUB_OFFLINE", "HF_HUB_VERBOSITY")}
    found = subprocess.run(
        [sys.executable, "-c", command],
        env=online | {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert (found.returncode, found.stdout) == (1, "")
    error, hint = found.stderr.splitlines()
    assert error.startswith("error: RewardBench: allenai/reward-bench: cannot be loaded from the hub (")
    assert "refused" in error
    assert "--data FILE" in hint


def test_how_to_load_the_model_is_passed_on(rows, scorer):
    run("rewardbench", "some/model", "--data", rows, "--device", "cpu", "--max-length", "512", "--no-verify")
    (path, options), unset = (
        scorer.loaded[0],
        ("dtype", "tokens_per_batch", "aggregation", "neutral_is_correct", "beta"),
    )
    assert path == "some/model"
    given = {"device": "cpu", "max_length": 512, "verify": False, "engine": "auto", "trust_remote_code": False}
    of_ensembles = ("ensemble", "k", "weights", "on")
    assert options == given | dict.fromkeys((*unset, *of_ensembles, "length_normalised", "scale"))


def test_an_ensemble_is_named(rows, monkeypatch):
    """In the notes of the table, and in the JSON with how its members are combined."""

    class Members(ByLength):
        is_ensemble = True

        def score_groups_members(self, groups, *, progress: bool = False):
            raise AssertionError("a benchmark asks for the scores alone")

        def to_dict(self):
            return {"members": ["a", "b"], "how": "mean-std", "k": 2.0, "weights": None, "on": "z"}

    monkeypatch.setattr(sys.modules["rewardlab.scoring.opening"], "open_scorer", Members.open)
    result = run("rewardbench", "a,b", "--data", rows, "--ensemble", "mean-std", "--ensemble-k", "2", "--json")
    out = json.loads(result.stdout)
    assert out["ensemble"] == Members().to_dict()
    assert "the model is an ensemble of 2 (mean-std, k = 2) on the scale z: a; b" in out["notes"]
    assert Members.loaded[0][1].items() >= {"ensemble": "mean-std", "k": 2.0}.items()


def test_the_help_lists_every_benchmark():
    text = inspect.getdoc(benchmark)
    assert all(f"[bold]{name}[/bold]" in text for name in BENCHMARKS)
    shown = run("--help").stdout
    assert all(name in shown for name in BENCHMARKS)

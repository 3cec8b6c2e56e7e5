"""`rewardlab evaluate`: what goes to stdout, what to stderr, and what is passed on. The scorer is a stand-in."""

from __future__ import annotations

import json
import math
import sys
from types import ModuleType
from typing import ClassVar

import pytest
import typer
from typer.testing import CliRunner

from rewardlab.cli.evaluate import evaluate
from rewardlab.data.encoding import EncodedGroup
from rewardlab.errors import CompletionTooLongError, ConfigError, DataError

ROWS = [
    {"prompt": "a?", "chosen": "yes, indeed", "rejected": "no", "subset": "easy"},
    {"prompt": "b?", "chosen": "yes", "rejected": "certainly not", "subset": "hard"},
    {"prompt": "c?", "chosen": "yes, it is", "rejected": "no", "subset": "hard"},
]


class ByLength:
    """Scores a completion by its length; remembers what it was loaded with."""

    loaded: list[tuple[str, dict[str, object]]]
    contract = None

    @classmethod
    def from_pretrained(cls, path: str, **options: object) -> ByLength:
        cls.loaded.append((path, options))
        return cls()

    @property
    def encoder(self) -> ByLength:
        return self

    def encode_many(self, groups):
        """A completion of more than 100 characters is too long; a prompt of more than 100 is cut."""
        return [
            CompletionTooLongError(f"{group.name}: completion 0 needs too many tokens")
            if any(len(text) > 100 for text in group.completions)
            else EncodedGroup(group, tuple((1,) for _ in group.completions), 0, truncated=int(len(group.prompt) > 100))
            for group in groups
        ]

    def score_groups(self, groups, *, progress: bool = False):
        print("scoring", file=sys.stderr)
        return [[float(len(text)) for text in group.completions] for group in groups]


@pytest.fixture(autouse=True)
def scorer(monkeypatch):
    """Stands in for the module, so that the command is tested without torch."""
    module = ModuleType("rewardlab.scoring.opening")
    monkeypatch.setattr(ByLength, "loaded", [], raising=False)
    module.open_scorer = ByLength.from_pretrained
    monkeypatch.setitem(sys.modules, "rewardlab.scoring.opening", module)
    return ByLength


@pytest.fixture
def pairs(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def run(*arguments):
    app = typer.Typer()
    app.command()(evaluate)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_json_alone_is_on_stdout(pairs):
    """By length, 2 of 3 pairs are won, which is exactly what always-longer gives."""
    result = run("model", "--data", pairs, "--json")
    assert result.exit_code == 0
    out = json.loads(result.stdout)
    assert out["num_pairs"] == 3
    assert out["accuracy"]["value"] == out["longer_wins"]["value"] == pytest.approx(2 / 3)
    assert out["above_length_baselines"] is False
    assert {name: subset["num_pairs"] for name, subset in out["subsets"].items()} == {"easy": 1, "hard": 2}
    assert out["ledger"]["rows"] == {"read": 3, "used": 3, "quarantined": 0, "dropped": 0, "truncated": 0}
    assert "scoring" in result.stderr


def test_the_table_is_on_stdout(pairs):
    result = run("model", "--data", pairs)
    assert result.exit_code == 0
    assert "66.7 %" in result.stdout
    assert "always the longer" in result.stdout
    assert "hard" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_several_files_are_one_set(pairs, tmp_path):
    more = tmp_path / "more.jsonl"
    more.write_text(json.dumps(ROWS[0] | {"prompt": "d?"}) + "\n")
    out = json.loads(run("model", "--data", pairs, "--data", more, "--json").stdout)
    assert (out["num_pairs"], out["num_prompts"]) == (4, 4)


def test_how_to_load_the_model_is_passed_on(pairs, scorer):
    run("some/model", "--data", pairs, "--device", "cpu", "--dtype", "float32", "--trust-remote-code")
    run("some/model", "--data", pairs, "--no-verify", "--engine", "packed")
    given = {"device": "cpu", "dtype": "float32", "engine": "auto", "trust_remote_code": True, "verify": True}
    # Options of one kind of scorer alone are None unless they are given.
    of_ensembles = ("ensemble", "k", "weights", "on")
    unset = dict.fromkeys(("aggregation", "neutral_is_correct", "beta", "length_normalised", *of_ensembles))
    unset |= dict.fromkeys(("scale", "max_length", "tokens_per_batch"))
    assert scorer.loaded[0] == ("some/model", given | unset)
    given = {"device": None, "dtype": None, "engine": "packed", "trust_remote_code": False, "verify": False}
    assert scorer.loaded[1:] == [("some/model", given | unset)]
    run("policy:reference", "--data", pairs, "--beta", "0.2", "--length-normalised")
    run("process-model", "--data", pairs, "--aggregation", "min", "--neutral-is-correct")
    assert scorer.loaded[2][1].items() >= {"beta": 0.2, "length_normalised": True, "aggregation": None}.items()
    assert scorer.loaded[3][1].items() >= {"aggregation": "min", "neutral_is_correct": True, "beta": None}.items()


@pytest.fixture
def one_bad(tmp_path):
    path = tmp_path / "one_bad.jsonl"
    rows = [ROWS[0] | {"prompt": f"{number}?"} for number in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"prompt": "x", "chosen": "lonely"}\n')
    return path


def test_bad_rows_are_told_counted_and_kept(one_bad, tmp_path):
    quarantine = tmp_path / "bad.jsonl"
    result = run("model", "--data", one_bad, "--json", "--quarantine", quarantine)
    assert json.loads(result.stdout)["ledger"]["rows"]["quarantined"] == 1
    assert f"1 of 41 rows are bad and left out, see {quarantine}" in result.stderr
    assert "one_bad.jsonl:41" in result.stderr
    assert json.loads(quarantine.read_text())["line"] == 41


def test_strict_refuses_them_before_a_model_is_loaded(one_bad, scorer):
    result = run("model", "--data", one_bad, "--strict")
    assert isinstance(result.exception, DataError)
    assert "one_bad.jsonl:41" in str(result.exception)
    assert scorer.loaded == []


def test_rows_without_a_label_are_refused(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"prompt": "a", "completion": "b"}) + "\n")
    result = run("model", "--data", path, "--json")
    assert isinstance(result.exception, DataError)
    assert "1 of 1 rows say nothing that a score could be compared with: rows.jsonl:1" in str(result.exception)
    assert result.stdout == ""


def test_scores_that_are_not_finite_are_refused(pairs, scorer, monkeypatch):
    monkeypatch.setattr(scorer, "score_groups", lambda self, groups, progress: [[math.nan, 0.0] for _ in groups])
    result = run("model", "--data", pairs)
    assert isinstance(result.exception, DataError)
    assert "pairs.jsonl:1: the score of completion 0 is nan" in str(result.exception)


@pytest.mark.parametrize("arguments", [["model"], ["--data", "x.jsonl"], ["model", "--data", "x", "--no-such-option"]])
def test_bad_usage(arguments):
    assert run(*arguments).exit_code == 2


def test_a_completion_that_is_too_long_is_left_out_told_and_counted(tmp_path):
    path = tmp_path / "pairs.jsonl"
    rows = [
        {"prompt": "a", "chosen": "longer", "rejected": "short"},
        {"prompt": "b" * 200, "chosen": "longer", "rejected": "short"},
        {"prompt": "c", "chosen": "x" * 200, "rejected": "short"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = run("model", "--data", path, "--json")
    record = json.loads(result.stdout)
    assert record["num_pairs"] == 2
    assert record["ledger"]["rows"] == {"read": 3, "used": 2, "quarantined": 1, "dropped": 0, "truncated": 1}
    assert record["ledger"]["reasons"] == {"completion too long": 1}
    assert "left out: pairs.jsonl:3" in result.stderr


@pytest.fixture
def sentences(tmp_path):
    path = tmp_path / "sentences.jsonl"
    rows = [
        {"prompt": f"p{i}?", "chosen": "It is so. " * (3 + i % 3) + "Yes.", "rejected": f"No. It is {i}."}
        for i in range(9)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_bias_probes_are_printed_after_the_metrics(sentences):
    """By length, every added word raises the score."""
    result = run("model", "--data", sentences, "--bias")
    assert result.exit_code == 0, result.output
    assert result.stdout.index("accuracy") < result.stdout.index("bias probes: 18 answers of 9 rows")
    assert "score without a better answer" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_bias_probes_are_in_the_json_where_asked_for(sentences):
    assert "bias" not in json.loads(run("model", "--data", sentences, "--json").stdout)
    out = json.loads(run("model", "--data", sentences, "--bias", "--bias-groups", 4, "--json").stdout)
    assert (out["num_pairs"], out["bias"]["num_groups"], out["bias"]["num_completions"]) == (9, 4, 8)
    assert out["bias"]["probes"]["empty"]["verdict"] == "lowers the score"
    # The stand-in's limit is 100 characters: filler makes every answer longer than that.
    assert out["bias"]["not_measured"]["padding"] == "too long or refused by the chat template"


def test_bias_of_a_process_model_is_refused_before_it_scores(sentences, scorer, monkeypatch):
    monkeypatch.setattr(scorer, "has_steps", True, raising=False)
    result = run("model", "--data", sentences, "--bias")
    assert isinstance(result.exception, ConfigError)
    assert "process model" in result.exception.message
    assert "scoring" not in result.stderr


class Members(ByLength):
    """An ensemble of one that likes length and one that likes it less."""

    is_ensemble = True
    contracts: ClassVar[dict[str, object]] = {}

    def score_groups(self, groups, *, progress: bool = False):
        return self.score_groups_members(groups)[0]

    def score_groups_members(self, groups, *, progress: bool = False):
        each = [[[float(len(text)), 0.5 * len(text)] for text in group.completions] for group in groups]
        return [[sum(of_one) / 2 for of_one in of_group] for of_group in each], each

    def to_dict(self):
        return {"members": ["a", "b"], "how": "mean", "k": None, "weights": None, "on": "z"}


def test_an_ensemble_says_what_its_members_say(pairs, monkeypatch):
    """Lengths 11 2, 3 13, 10 2: differences 9 -10 8 and half of them; both members are right twice."""
    monkeypatch.setattr(sys.modules["rewardlab.scoring.opening"], "open_scorer", Members.from_pretrained)
    result = run("a,b", "--data", pairs, "--ensemble-weights", "2,1", "--ensemble", "weighted", "--json")
    assert result.exit_code == 0
    assert Members.loaded[0][1].items() >= {"ensemble": "weighted", "weights": [2.0, 1.0], "k": None}.items()
    out = json.loads(result.stdout)
    assert out["accuracy"]["value"] == pytest.approx(2 / 3)
    told = out["ensemble"]
    assert (told["members"], told["how"], told["num_completions"]) == (["a", "b"], "mean", 6)
    assert told["mean_disagreement"]["value"] == pytest.approx(0.25 * (11 + 2 + 3 + 13 + 10 + 2) / 6)
    assert told["pairs"]["mean_disagreement"]["value"] == pytest.approx(0.25 * (9 + 10 + 8) / 3)
    assert {name: one["value"] for name, one in told["pairs"]["member_accuracy"].items()} == {
        "a": pytest.approx(2 / 3),
        "b": pytest.approx(2 / 3),
    }
    table = run("a,b", "--data", pairs).stdout
    assert "accuracy by disagreement" in table
    assert "An ensemble of 2 (mean) on the scale z: a; b." in table
    assert run("a,b", "--data", pairs, "--bias", "--json").exit_code == 0


def test_weights_that_are_no_numbers(pairs, scorer):
    result = run("a,b", "--data", pairs, "--ensemble-weights", "2;1")
    assert isinstance(result.exception, ConfigError)
    assert "--ensemble-weights '2;1'" in result.exception.message
    assert scorer.loaded == []

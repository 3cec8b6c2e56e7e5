"""rewardlab.monitoring.running: from file to stored snapshot, what is refused before that, and a real model."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from tests.monitoring.stand_in import StandIn

from rewardlab.data.fingerprints import CompletionSketch
from rewardlab.data.loading import load_groups
from rewardlab.errors import DataError
from rewardlab.monitoring import running
from rewardlab.monitoring.history import History
from rewardlab.monitoring.running import run_baseline, run_canary, run_fresh
from rewardlab.monitoring.thresholds import Thresholds

NOW = datetime(2026, 11, 21, tzinfo=UTC)


def rows(count, start=0, right=lambda i: i % 4):
    """Three of four are right, but for the third of each dozen or so."""
    return [
        {"prompt": f"p{i}?", "chosen": f"yes {i} {1.0 if right(i) else -1.0}", "rejected": f"no {i} 0.0"}
        for i in range(start, start + count)
    ]


@pytest.fixture
def write(tmp_path):
    def to_file(name, records):
        path = tmp_path / name
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        return path

    return to_file


@pytest.fixture
def history(tmp_path):
    with History(tmp_path / "h") as opened:
        yield opened


@pytest.fixture
def opened(monkeypatch):
    """What was opened, and with which options; each path is a stand-in, or what is put in ``scorers``."""
    calls = SimpleNamespace(paths=[], scorers={})

    def open_scorer(path, **options):
        calls.paths.append((str(path), options))
        return calls.scorers.get(str(path), StandIn())

    monkeypatch.setattr(running, "open_scorer", open_scorer)
    return calls


def test_a_canary_is_stored_and_recognised(write, history, opened):
    path = write("canary.jsonl", rows(40))
    first = run_canary("runs/rm", [path], history, now=NOW, options={"device": "cpu"})
    second = run_canary("runs/rm", [path], history)
    assert (first.number, first.kind, first.model, first.at) == (1, "canary", "rm", "2026-11-21T00:00:00Z")
    assert first.data == ("canary.jsonl",)
    assert second.findings[0].message.endswith("bit for bit")
    assert opened.paths[0] == ("runs/rm", {"device": "cpu"})
    assert first.metrics["verified"] is True
    assert run_canary("runs/rm", [path], history, options={"verify": False}).metrics["verified"] is False
    assert [one.number for one in history.snapshots()] == [1, 2, 3]


def test_a_changed_canary_is_refused_before_the_model_is_loaded(write, history, opened):
    run_canary("rm", [write("canary.jsonl", rows(40))], history)
    with pytest.raises(DataError, match="1 of its 40 comparisons are missing"):
        run_canary("rm", [write("canary.jsonl", rows(39))], history)
    with pytest.raises(DataError, match=r"bad.*\n.*canary\.jsonl:41|canary\.jsonl:41"):
        run_canary("rm", [write("canary.jsonl", [*rows(40), {"prompt": "p"}])], history)
    assert len(opened.paths) == 1
    assert len(history.snapshots()) == 1


def test_a_canary_row_twice_is_refused_and_not_stored(write, history, opened):
    with pytest.raises(DataError, match=r"1 comparisons come twice; the first: canary.jsonl:41, after canary.jsonl:1"):
        run_canary("rm", [write("canary.jsonl", [*rows(40), *rows(1)])], history)
    assert history.snapshots() == []


def test_fresh_windows_are_held_against_the_baseline(write, history, opened):
    """Accuracy 3/4 in the baseline and in a quiet window, 1/4 in the next three: an alarm."""
    baseline = run_baseline("rm", [write("b.jsonl", rows(400))], history, now=NOW)
    assert [(one.watch, one.state) for one in baseline.findings] == [("baseline", "ok")]
    quiet = run_fresh("rm", [write("w.jsonl", rows(200, 1000))], history)
    assert {one.watch: one.state for one in quiet.findings} == {"accuracy": "ok", "ece": "ok"}
    for start in (2000, 3000, 4000):
        window = write("w.jsonl", rows(200, start, right=lambda i: not i % 4))
        stored = run_fresh("rm", [window], history)
    assert "accuracy" in [one.watch for one in stored.alarms]
    lenient = Thresholds(fewest_pairs=500)
    few = run_fresh("rm", [write("w.jsonl", rows(50, 9000))], history, thresholds=lenient)
    assert "not tested" in few.findings[0].message


def test_bad_rows_of_a_window_are_left_out_and_told(write, history, opened):
    many = [*rows(60), {"prompt": "no completions"}, {"prompt": "p", "chosen": "long 1", "rejected": "b 2"}]
    stored = run_fresh("rm", [write("w.jsonl", many)], history)
    assert stored.metrics["left_out"] == 2
    told = [one.message for one in stored.findings if (one.watch, one.state) == ("data", "warning")]
    assert len(told) == 2
    assert "w.jsonl:61" in told[0]
    assert "1 of 61 rows do not fit the model" in told[1]


def test_against_an_ensemble_there_is_a_gap(write, history, opened):
    opened.scorers = {"a,b": StandIn(fingerprint="ab", members=(0.0, 1.0)), "rm": StandIn(reference=(-1.0, 1.0))}
    options = {"device": "cpu", "dtype": None, "ensemble": None, "aggregation": "min"}
    stored = run_fresh("rm", [write("w.jsonl", rows(60))], history, against="a,b", options=options)
    assert stored.metrics["gap"]["against"] == "ab"
    assert "gap" in [one.watch for one in stored.findings]
    assert opened.paths[1] == ("a,b", {"device": "cpu", "dtype": None, "on": "z"}), "the machine's options alone"
    assert "gap scale" not in [one.watch for one in stored.findings]
    without = run_fresh("x", [write("w.jsonl", rows(60))], history, against="y")
    (raw,) = [one for one in without.findings if one.watch == "gap scale"]
    assert (raw.state, raw.message.startswith("the model and --against: no reference set")) == ("warning", True)


def test_rows_that_were_trained_on_are_told(write, history, opened):
    path = write("canary.jsonl", rows(40))
    sketch = CompletionSketch.of(load_groups(path)[:10]).to_dict()
    contract = SimpleNamespace(data={"train": {"sketch": sketch}}, calibration={})

    class Trained(StandIn):
        @property
        def checkpoints(self):
            return (SimpleNamespace(contract=None, dtype="float32"),)

    opened.scorers = {"rm": Trained(contract=contract)}
    for run in (run_canary, run_baseline, run_fresh):
        (finding,) = [one for one in run("rm", [path], history).findings if one.watch == "data"]
        assert finding.state == "warning"
        assert "10 of 40 rows have a completion that the model was trained on" in finding.message


def test_a_real_model_scores_its_canary_bit_for_bit_alone_and_as_an_ensemble(reward_model, pairs, write, history):
    told = [{"prompt": one.prompt, "chosen": one.completions[0], "rejected": one.completions[1]} for one in pairs[32:]]
    path = write("canary.jsonl", told)
    for model in (reward_model, f"{reward_model},{reward_model}"):
        first = run_canary(model, [path], history)
        second = run_canary(model, [path], history)
        assert second.findings[0].message.endswith("bit for bit")
        assert [pair.chosen.hex() for pair in first.pairs] == [pair.chosen.hex() for pair in second.pairs]
        assert second.settings == first.settings
        assert 0 < second.findings[0].limit < 1e-2
    assert (first.model, first.metrics["disagreement"]["mean"]) == ("ensemble", 0.0)
    padded = run_canary(reward_model, [path], history, options={"engine": "padded"})
    assert padded.findings[0].state == "warning", "another layout: the same scores to within the tolerance, but told"
    assert "other settings: layout: tree, then padded" in padded.findings[0].message

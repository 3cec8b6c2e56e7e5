"""rewardlab.monitoring.prometheus_file: read back by the reference parser, replaced whole, and told where it fails."""

from __future__ import annotations

from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from rewardlab.errors import DataError
from rewardlab.monitoring.prometheus_file import textfile, write_textfile
from rewardlab.monitoring.snapshots import Finding, Snapshot

METRICS = {
    "num_pairs": 200,
    "accuracy": {"value": 0.1 + 0.2, "low": None, "high": None},
    "ece": {"value": 0.05, "low": 0.0, "high": 0.1},
    "scores": {"mean": -1e-300, "std": 2.0},
    "gap": None,
}


def snapshot(kind="canary", number=7, at="2026-11-21T09:30:00Z", states=("ok",), model="rm", **more):
    findings = tuple(
        Finding(watch, state, "why", value=1.5 if watch == "ece" else None)
        for watch, state in zip(("accuracy", "ece"), states, strict=False)
    )
    return Snapshot(kind, at, model, "f", None, ("a",), "b", {}, METRICS, findings=findings, number=number, **more)


def samples(text):
    return {
        (sample.name.removeprefix("rewardlab_monitor_"), *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_figures_come_back_exactly():
    found = samples(textfile([snapshot(states=("alarm", "warning"))]))
    assert found == {
        ("accuracy", "canary", "rm"): 0.1 + 0.2,
        ("ece", "canary", "rm"): 0.05,
        ("pairs", "canary", "rm"): 200.0,
        ("score_mean", "canary", "rm"): -1e-300,
        ("score_std", "canary", "rm"): 2.0,
        ("alarm", "accuracy", "canary", "rm"): 1.0,
        ("alarm", "canary", "ece", "rm"): 0.0,
        ("warning", "accuracy", "canary", "rm"): 0.0,
        ("warning", "canary", "ece", "rm"): 1.0,
        ("finding_value", "canary", "ece", "rm"): 1.5,
        ("snapshot", "canary", "rm"): 7.0,
        ("last_run_timestamp_seconds", "canary", "rm"): 1795253400.0,  # date -u -d 2026-11-21T09:30:00 +%s
    }


def test_the_last_of_each_kind_is_shown_and_every_family_once():
    text = textfile([snapshot(number=1, states=("alarm",)), snapshot("fresh", 2), snapshot(number=3)])
    found = samples(text)
    assert {key[1:]: value for key, value in found.items() if key[0] == "snapshot"} == {
        ("canary", "rm"): 3.0,
        ("fresh", "rm"): 2.0,
    }
    assert found["alarm", "accuracy", "canary", "rm"] == 0.0
    names = [line for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(names) == len(set(names))


def test_snapshots_without_these_figures_and_names_that_need_escaping():
    name = 'a "model" \\ of\ntwo lines'
    live = replace(snapshot("live", model=name), metrics={"scores": {"psi": 0.3}})
    assert samples(textfile([live]))[("snapshot", *sorted(["live", name]))] == 7.0
    assert samples(textfile([])) == {}


def test_the_file_is_replaced_whole(tmp_path):
    path = tmp_path / "rm.prom"
    for number in (1, 2):
        write_textfile(path, [snapshot(number=number)])
        assert samples(path.read_text())["snapshot", "canary", "rm"] == number
    assert [one.name for one in tmp_path.iterdir()] == ["rm.prom"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_failure_names_the_file_and_leaves_nothing_behind(tmp_path):
    with pytest.raises(DataError, match=r"rm\.prom: the Prometheus file cannot be written: No such file"):
        write_textfile(tmp_path / "nowhere" / "rm.prom", [snapshot()])
    (tmp_path / "folder.prom").mkdir()
    with pytest.raises(DataError, match="cannot be written"):
        write_textfile(tmp_path / "folder.prom", [snapshot()])
    assert [one.name for one in tmp_path.iterdir()] == ["folder.prom"]

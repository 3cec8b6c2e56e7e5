"""rewardlab.monitoring.thresholds: the page states every default, and limits that mean nothing are refused."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from rewardlab.errors import ConfigError
from rewardlab.monitoring.thresholds import Thresholds, load_thresholds

DOCS = Path(__file__).resolve().parents[2] / "docs" / "monitoring.md"


def test_the_page_states_every_key_and_its_default():
    table = DOCS.read_text(encoding="utf-8").partition("## Thresholds")[2].partition("\n## ")[0]
    stated = {key: json.loads(value) for key, value in re.findall(r"^\| `(\w+)` \| ([^|]+) \|", table, re.MULTILINE)}
    assert stated == json.loads(json.dumps(dataclasses.asdict(Thresholds())))


def test_what_is_stated_as_a_file_is_the_defaults(tmp_path):
    path = tmp_path / "t.yaml"
    path.write_text(json.dumps(dataclasses.asdict(Thresholds())))
    assert load_thresholds(path) == load_thresholds(None) == Thresholds()


def test_a_file_changes_what_it_names(tmp_path):
    path = tmp_path / "t.yaml"
    path.write_text("fewest_pairs: 100\ngap_steps: [0.5]\ncanary_tolerance: 0\n")
    found = load_thresholds(path)
    assert (found.fewest_pairs, found.gap_steps, found.canary_tolerance, found.horizon) == (100, (0.5,), 0.0, 200)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("fewest_pair: 3", "did you mean 'fewest_pairs'"),
        ("false_alarm_rate: 0", "above 0 and below 1"),
        ("ks_p: 1", "above 0 and below 1"),
        ("horizon: 0", "at least 1"),
        ("psi_alarm: .nan", "at least 0"),
        ("psi_warning: 0.5", "is above psi_alarm"),
        ("accuracy_drops: []", "one or more numbers above 0"),
        ("accuracy_drops: [0.05, 5]", "below 1 (0.05 is 5 points)"),
        ("gap_steps: [-1]", "one or more numbers above 0"),
        ("canary_tolerance: -1", "at least 0"),
        ("horizon: many", "must be an integer"),
    ],
)
def test_limits_that_mean_nothing_are_refused(tmp_path, line, reason):
    path = tmp_path / "t.yaml"
    path.write_text(line + "\n")
    with pytest.raises(ConfigError) as caught:
        load_thresholds(path)
    assert reason in str(caught.value)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        load_thresholds(tmp_path / "none.yaml")

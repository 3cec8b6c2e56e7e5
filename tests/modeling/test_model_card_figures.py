"""The card's figures: every key it shows is one that the metrics really have."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.modeling.test_model_card import contract_of

from rewardlab.calibration.reference import reference_statistics
from rewardlab.metrics.known import evaluate_known
from rewardlab.modeling.contract import HeadRecord
from rewardlab.modeling.model_card_figures import (
    _COUNTED,
    _SHOWN,
    bounds_text,
    headlines,
    heads_table,
    lineage_section,
    metrics_section,
)
from rewardlab.types import Pair, PromptGroup, Ranking, Step


def test_bounds() -> None:
    assert bounds_text({"value": 1.0, "low": 0.5, "high": 1.5}) == "0.5000 to 1.5000"
    assert bounds_text({"value": 1.0, "low": 0.5, "high": None}) == "0.5000 to no upper bound"
    assert bounds_text({"value": 1.0, "low": None, "high": None}) == bounds_text(0.5) == "-"


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    """The metrics of random groups of which everything is known."""
    draw = np.random.default_rng(0)
    groups = []
    for index in range(60):
        texts = ("a" * int(draw.integers(5, 9)), "b" * int(draw.integers(5, 9)))
        labels = tuple(int(x) for x in draw.permutation([1, -1]))
        groups += [
            PromptGroup(f"p{index}", texts, (Pair(0, 1),), ratings=tuple(draw.normal(size=2))),
            PromptGroup(f"r{index}", texts, rankings=(Ranking((0, 1), (0, 1)),), labels=(1.0, 0.0)),
            PromptGroup(f"s{index}", texts, steps=tuple((Step("x", 1), Step("y", label)) for label in labels)),
        ]
    scores = [tuple(draw.normal(size=2)) for _ in groups]
    step_scores = [tuple(tuple(draw.uniform(size=len(s))) for s in g.steps) for g in groups]
    return evaluate_known(groups, scores, step_scores, resamples=200).to_dict()


def test_every_key_that_is_shown_exists(measured: dict[str, Any]) -> None:
    """A metric that is renamed would silently vanish from every card."""
    for part, keys in _SHOWN.items():
        metrics = measured[part] if part else measured
        assert _COUNTED[part][1] in metrics
        for key in keys:
            value: Any = metrics
            for name in key.split("."):
                assert name in value, (part, key)
                value = value[name]


def test_every_part_has_its_table(measured: dict[str, Any]) -> None:
    section = metrics_section(contract_of(held_out_metrics=measured))
    for heading, _, _ in _COUNTED.values():
        assert f"**{heading}**: " in section
    assert section.count("| | value | interval |") == len(_COUNTED) == 6
    for line in section.splitlines():
        if line.startswith("|"):
            assert line.count("|") == 4
    assert "95 % intervals are bootstrapped by prompt." in section


def test_headlines_are_of_every_part(measured: dict[str, Any]) -> None:
    found = headlines(contract_of(held_out_metrics=measured))
    names = ["accuracy", "log_loss", "kendall_tau", "within_prompt", "auc", "auc", "macro_f1", "f1"]
    assert [name for name, _, _ in found] == names
    assert found[0][2] == measured["accuracy"]["value"]
    assert len({told for _, told, _ in found}) == len(found)


def test_nothing_measured_is_said() -> None:
    assert metrics_section(contract_of()) == "None were measured when the model was saved."
    assert headlines(contract_of()) == []


def test_each_head_has_its_scale() -> None:
    """Of 1 and 3 the mean is 2, and the standard deviation that the reference statistics state."""
    known = reference_statistics([1.0, 3.0], "held-out", sha256="ab")
    heads = [HeadRecord(known, 1.25, {}, []), HeadRecord(None, None, {}, [])]
    table = "\n".join(heads_table(contract_of(heads=heads)))
    assert f"| 0 | 2.0000 | {known.std:.4f} | 1.25 |" in table
    assert "| 1 | - | - | - |" in table
    assert list(heads_table(contract_of())) == []


def test_the_lineage_is_a_table_and_nothing_where_there_is_none() -> None:
    assert lineage_section(contract_of()) == []
    known = {
        "name": "rm-1",
        "fingerprint": "0123456789abcdef0123",
        "versions": {"rewardlab": "0.1.0"},
        "data": {"train": {"sha256": "ab", "num_groups": 16000}},
        "held_out_accuracy": {"value": 0.75, "low": 0.7, "high": 0.8},
    }
    heading, _, table = lineage_section(contract_of(lineage=[known, {"fingerprint": "f"}]))
    assert heading == "## Lineage"
    assert table.splitlines()[2:] == [
        "| `0123456789abcdef` | 16,000 rows | 0.7500 (0.7000 to 0.8000) | 0.1.0 |",
        "| `f` | unknown | unknown | unknown |",
    ]

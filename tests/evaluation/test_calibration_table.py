"""A calibration on a terminal of 80 columns."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from rewardlab.calibration.fitting import calibrate_scores
from rewardlab.calibration.reference import ReferenceStatistics, reference_statistics
from rewardlab.calibration.shift import reference_shift
from rewardlab.evaluation.calibrating import Calibrated
from rewardlab.evaluation.calibration_table import render_calibrated
from rewardlab.modeling.contract import load_contract
from rewardlab.types import Pair, PromptGroup


@pytest.fixture(scope="module")
def result(reward_model: Path) -> Calibrated:
    random = np.random.default_rng(0)
    margins = random.normal(0, 2, 200)
    won = random.random(200) < 1 / (1 + np.exp(-margins))
    groups = [PromptGroup(f"p{i}", ["a", "b"], [Pair(0, 1) if w else Pair(1, 0)]) for i, w in enumerate(won)]
    scores = [[float(margin), 0.0] for margin in margins]
    contract = load_contract(reward_model)
    assert contract is not None
    reference = reference_statistics(list(margins), "canary.jsonl", "x")
    shift = reference_shift(reference, reference)
    return Calibrated(calibrate_scores(groups, scores), reference, shift, contract, (), 0, 0)


def shown(result: Calibrated) -> str:
    console = Console(width=80, no_color=True)
    with console.capture() as captured:
        console.print(render_calibrated(result))
    return captured.get()


def test_all_figures_are_shown_in_80_columns(result: Calibrated) -> None:
    text = shown(result)
    assert max(map(len, text.splitlines())) <= 80
    found = result.calibration
    assert f"temperature {found.temperature.value:.4g}, 95 % interval {found.temperature.low:.4g} to" in text
    assert "200 pairs of 200 prompts" in text
    for figures in (found.before, found.after):
        for value in figures.values():
            assert f"{value:.4f}" in text
    assert "reference set: canary.jsonl" in text
    assert f"{result.reference.quantiles['0.95']:.3f}" in text
    assert "shift since the version before: mean +0.000" in text


def test_heads_have_one_line(result: Calibrated) -> None:
    assert "heads" not in shown(result)
    found = result.calibration
    other = dataclasses.replace(found, temperature=dataclasses.replace(found.temperature, value=12.5))
    line = shown(dataclasses.replace(result, heads=(other, found))).splitlines()[-1]
    assert line.rstrip().endswith(f"2 heads each: temperatures {found.temperature.value:.4g} to 12.5")
    assert len(line) <= 80
    assert "12.5, 1 without one" in " ".join(shown(dataclasses.replace(result, heads=(other, None))).split())
    assert "2 heads each: no temperature" in shown(dataclasses.replace(result, heads=(None, None)))


def test_an_open_interval_and_missing_quantiles(result: Calibrated) -> None:
    """Of an imported model mean and std are known alone; of few pairs no upper bound."""
    temperature = dataclasses.replace(result.calibration.temperature, high=None)
    calibration = dataclasses.replace(result.calibration, temperature=temperature)
    bare = ReferenceStatistics("openrlhf config", 0, 0.5, 2.0, {})
    text = shown(dataclasses.replace(result, calibration=calibration, reference=bare, shift=None))
    assert "to no bound" in text
    assert "median" not in text
    assert "shift" not in text

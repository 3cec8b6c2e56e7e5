"""What evaluation asks of a scorer: steps where it has them, and raw scores."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from rewardlab.calibration.scale import ScoreScale
from rewardlab.errors import ConfigError
from rewardlab.evaluation.scorers import (
    is_ensemble,
    pair_temperature,
    require_raw,
    scores_and_steps,
    scores_steps,
)
from rewardlab.types import PromptGroup

GROUPS = [PromptGroup("p", ["a"])]


class Whole:
    def score_groups(self, groups, *, progress=False):
        return [[1.0]] if progress else [[0.0]]


class Steps(Whole):
    def __init__(self, has_steps: bool) -> None:
        self.has_steps = has_steps

    def score_groups_steps(self, groups, *, progress=False):
        return [[2.0]], [[[0.5]]]


def test_steps_come_in_the_same_pass_where_there_are_any() -> None:
    assert scores_and_steps(Whole(), GROUPS, progress=True) == ([[1.0]], None)
    assert scores_and_steps(Steps(False), GROUPS) == ([[0.0]], None)
    assert scores_and_steps(Steps(True), GROUPS) == ([[2.0]], [[[0.5]]])
    assert [scores_steps(scorer) for scorer in (Whole(), Steps(False), Steps(True))] == [False, False, True]


def test_an_ensemble_is_what_says_so() -> None:
    assert not is_ensemble(Whole())
    assert not is_ensemble(SimpleNamespace(is_ensemble=False, score_groups_members=lambda groups: None))
    assert is_ensemble(SimpleNamespace(is_ensemble=True))


def test_other_than_raw_scores_are_refused() -> None:
    require_raw(Whole(), "log loss is of")
    require_raw(SimpleNamespace(scale="raw"), "log loss is of")
    with pytest.raises(ConfigError, match="log loss is of raw scores, and this scorer gives them on the scale 'z'"):
        require_raw(SimpleNamespace(scale="z"), "log loss is of")


def test_a_margin_is_divided_by_a_temperature_of_preferences_alone() -> None:
    for scale, expected in (
        (ScoreScale(None, 2.5), 2.5),
        (ScoreScale(None, None), None),
        (ScoreScale(None, 2.5, "completion"), None),
    ):
        assert pair_temperature(SimpleNamespace(reference_scale=scale)) == expected


def test_an_ensemble_of_calibrated_members_gives_logits() -> None:
    fitted, unfitted = (SimpleNamespace(temperature_of=lambda unit, t=t: t) for t in (2.5, None))

    def of(on, *contracts):
        named = {str(place): contract for place, contract in enumerate(contracts)}
        return pair_temperature(SimpleNamespace(is_ensemble=True, on=on, contracts=named))

    assert of("calibrated", fitted, fitted) == 1.0
    assert of("calibrated", fitted, unfitted) is None
    assert of("z", fitted, fitted) is None

"""The table of objectives, and how one is built from a trainer's arguments."""

from __future__ import annotations

import pytest

from rewardlab.objectives import OBJECTIVES, Objective, build_objective, parameters_of


def test_what_each_objective_is_told() -> None:
    assert {name: parameters_of(name) for name in OBJECTIVES} == {
        "bradley_terry": ("center_rewards_coefficient", "label_smoothing"),
        "grouped_pairs": ("center_rewards_coefficient", "label_smoothing"),
        "davidson": ("center_rewards_coefficient",),
        "scaled_bradley_terry": ("center_rewards_coefficient",),
        "plackett_luce": ("center_rewards_coefficient", "ranking_ties"),
        "regression": ("rating_mean", "rating_std"),
        "outcome": (),
        "process": ("step_classes",),
    }


def test_an_objective_takes_what_it_knows_and_leaves_the_rest() -> None:
    values = {"center_rewards_coefficient": 0.3, "ranking_ties": "breslow", "learning_rate": 1.0, "rating_std": 2.0}
    built = build_objective("plackett_luce", values)
    assert (built.center_rewards_coefficient, built.ranking_ties) == (0.3, "breslow")
    assert float(build_objective("regression", values).rating_std) == 2.0
    assert build_objective("bradley_terry", values).label_smoothing == 0.0
    assert build_objective("process", {}).step_classes == 3


@pytest.mark.parametrize("name", OBJECTIVES)
def test_kind_and_parameters(name: str) -> None:
    objective = build_objective(name, {})
    assert objective.kind == {"outcome": "token", "process": "step"}.get(name, "sequence")
    assert [tuple(p.shape) for p in objective.parameters()] == ([()] if name == "davidson" else [])
    assert isinstance(objective, Objective)


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if "center_rewards_coefficient" in parameters_of(name)])
@pytest.mark.parametrize("value", [-0.1, float("nan")])
def test_negative_coefficient_is_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match="center_rewards_coefficient"):
        build_objective(name, {"center_rewards_coefficient": value})


@pytest.mark.parametrize("name", ["bradley_terry", "grouped_pairs"])
@pytest.mark.parametrize("value", [-0.1, 0.5, float("nan")])
def test_smoothing_that_would_turn_preferences_round_is_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=r"label_smoothing must be in \[0, 0.5\)"):
        build_objective(name, {"label_smoothing": value})

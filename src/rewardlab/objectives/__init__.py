"""Objectives: scores -> loss. Pure torch; no model, no text.

``OBJECTIVES`` is the one table of names. A new objective is one function, one line here, one test file and one row in
the docs.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from rewardlab.objectives.davidson import Davidson, davidson_loss, davidson_tie_probability
from rewardlab.objectives.listwise import RANKING_TIES, PlackettLuce, plackett_luce_loss
from rewardlab.objectives.margins import MARGINS, margin_of
from rewardlab.objectives.outcome import Outcome, outcome_loss
from rewardlab.objectives.pairwise import BradleyTerry, GroupedPairs, ScaledBradleyTerry, bradley_terry_loss
from rewardlab.objectives.process import Process, class_of, process_loss
from rewardlab.objectives.reduction import Objective
from rewardlab.objectives.regression import Regression, regression_loss
from rewardlab.objectives.targets import (
    MASKED,
    PairTargets,
    RankingTargets,
    RatingTargets,
    StepTargets,
    Targets,
    TokenTargets,
)

OBJECTIVES: dict[str, type[Objective]] = {
    "bradley_terry": BradleyTerry,
    "grouped_pairs": GroupedPairs,
    "davidson": Davidson,
    "scaled_bradley_terry": ScaledBradleyTerry,
    "plackett_luce": PlackettLuce,
    "regression": Regression,
    "outcome": Outcome,
    "process": Process,
}


def parameters_of(name: str) -> tuple[str, ...]:
    """The names of the constructor arguments of an objective, in their order.

    Args:
        name: One of :data:`OBJECTIVES`.
    """
    arguments = inspect.signature(OBJECTIVES[name]).parameters.values()
    return tuple(argument.name for argument in arguments if argument.kind is argument.POSITIONAL_OR_KEYWORD)


def build_objective(name: str, values: Mapping[str, Any]) -> Objective:
    """An objective with those of some values that it knows; what is missing keeps its default.

    Args:
        name: One of :data:`OBJECTIVES`.
        values: Values by argument name, such as all fields of a trainer's arguments.

    Raises:
        ValueError: A value is one that the objective refuses.
    """
    return OBJECTIVES[name](**{key: values[key] for key in parameters_of(name) if key in values})


__all__ = [
    "MARGINS",
    "MASKED",
    "OBJECTIVES",
    "RANKING_TIES",
    "BradleyTerry",
    "Davidson",
    "GroupedPairs",
    "Objective",
    "Outcome",
    "PairTargets",
    "PlackettLuce",
    "Process",
    "RankingTargets",
    "RatingTargets",
    "Regression",
    "ScaledBradleyTerry",
    "StepTargets",
    "Targets",
    "TokenTargets",
    "bradley_terry_loss",
    "build_objective",
    "class_of",
    "davidson_loss",
    "davidson_tie_probability",
    "margin_of",
    "outcome_loss",
    "parameters_of",
    "plackett_luce_loss",
    "process_loss",
    "regression_loss",
]

"""Objectives: scores -> loss. Pure torch; no model, no text.

``OBJECTIVES`` is the one table of names. A new objective is one function, one line here, one test file and one row in
the docs.
"""

from __future__ import annotations

from rewardlab.objectives.pairwise import BradleyTerry, GroupedPairs, bradley_terry_loss
from rewardlab.objectives.reduction import PairTargets

OBJECTIVES: dict[str, type[BradleyTerry] | type[GroupedPairs]] = {
    "bradley_terry": BradleyTerry,
    "grouped_pairs": GroupedPairs,
}

__all__ = ["OBJECTIVES", "BradleyTerry", "GroupedPairs", "PairTargets", "bradley_terry_loss"]

"""The records an objective is given: what is left out, what is refused, what moves."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from rewardlab.objectives import MASKED, PairTargets, RankingTargets, RatingTargets, StepTargets, Targets, TokenTargets

ONE, TWO = torch.zeros(1), torch.zeros(2)


def test_pairs_are_certain_preferences_of_unknown_strength_unless_told() -> None:
    targets = PairTargets(TWO.long(), TWO.long(), TWO, TWO, TWO.long())
    assert targets.p_chosen.tolist() == [1.0, 1.0]
    assert targets.strength.isnan().tolist() == [True, True]
    assert targets.tie.tolist() == [False, False]
    assert (targets.p_chosen.dtype, targets.strength.dtype, targets.tie.dtype) == (
        torch.float32,
        torch.float32,
        torch.bool,
    )


def test_a_tie_has_a_target_of_one_half_unless_told() -> None:
    tie = torch.tensor([True, False])
    assert PairTargets(TWO.long(), TWO.long(), TWO, TWO, TWO.long(), tie=tie).p_chosen.tolist() == [0.5, 1.0]
    told = PairTargets(TWO.long(), TWO.long(), TWO, TWO, TWO.long(), torch.tensor([0.75, 0.25]), tie=tie)
    assert told.p_chosen.tolist() == [0.75, 0.25]


@pytest.mark.parametrize("field", ["chosen", "rejected", "margin", "weight", "group", "p_chosen", "strength", "tie"])
def test_pair_vectors_of_different_lengths_are_refused(field: str) -> None:
    values = dict.fromkeys(("margin", "weight", "p_chosen", "strength"), ONE)
    values |= {name: ONE.long() for name in ("chosen", "rejected", "group")} | {"tie": ONE.bool()}
    values[field] = values[field].repeat(2)
    with pytest.raises(ValueError, match="vectors of one length"):
        PairTargets(**values)


def test_ranking_tables_that_do_not_fit_are_refused() -> None:
    table = torch.zeros(2, 3).long()
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(2, 2\)"):
        RankingTargets(table, table[:, :2], TWO, TWO.long())
    with pytest.raises(ValueError, match=r"rankings.*\(2,\).*weight.*\(1,\)"):
        RankingTargets(table, table, ONE, TWO.long())


def test_ratings_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="vectors of one length"):
        RatingTargets(TWO.long(), ONE, TWO, TWO.long())


@pytest.mark.parametrize(
    "targets",
    [
        PairTargets(ONE.long(), ONE.long(), ONE, ONE, ONE.long()),
        RankingTargets(torch.zeros(1, 2).long(), torch.zeros(1, 2).long(), ONE, ONE.long()),
        RatingTargets(ONE.long(), ONE, ONE, ONE.long()),
        TokenTargets(ONE),
        StepTargets(ONE.long() + MASKED),
    ],
    ids=lambda targets: type(targets).__name__,
)
def test_all_of_a_record_moves(targets: Targets) -> None:
    moved = targets.to(torch.device("meta"))
    assert type(moved) is type(targets)
    for field in dataclasses.fields(targets):
        before, after = getattr(targets, field.name), getattr(moved, field.name)
        assert after.device.type == "meta"
        assert (after.shape, after.dtype) == (before.shape, before.dtype)

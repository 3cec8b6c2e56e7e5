"""The pairwise objectives against hand-derived values and their laws."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from rewardlab.objectives import OBJECTIVES, BradleyTerry, GroupedPairs, PairTargets, bradley_terry_loss

SCORES = st.lists(st.tuples(*[st.floats(-50, 50)] * 2), min_size=1, max_size=8)


def columns(rows: list[tuple[float, ...]]) -> list[torch.Tensor]:
    return [torch.tensor(column, dtype=torch.float64) for column in zip(*rows, strict=True)]


def test_value_by_hand() -> None:
    """Chosen 2, rejected 1, margin 0.5: -log sigmoid(0.5) = log(1 + e^-0.5) = log(1.6065307) = 0.4740770.

    Centering with 0.01 adds 0.01 * (2 + 1)^2 = 0.09: 0.5640770.
    """
    loss = bradley_terry_loss(torch.tensor([2.0]), torch.tensor([1.0]), torch.tensor([0.5]), 0.01)
    assert loss.item() == pytest.approx(0.5640770, abs=1e-6)


def test_equal_scores_cost_log_two() -> None:
    assert bradley_terry_loss(torch.zeros(1), torch.zeros(1)).item() == pytest.approx(math.log(2))


@given(SCORES, st.floats(-20, 20))
def test_without_centering_a_shift_is_not_seen(rows: list[tuple[float, float]], shift: float) -> None:
    chosen, rejected = columns(rows)
    torch.testing.assert_close(
        bradley_terry_loss(chosen + shift, rejected + shift), bradley_terry_loss(chosen, rejected), atol=1e-9, rtol=1e-9
    )


@given(SCORES)
def test_swapping_the_sides_adds_the_difference(rows: list[tuple[float, float]]) -> None:
    """-log sigmoid(-d) = d - log sigmoid(d): the two losses differ by the score difference."""
    chosen, rejected = columns(rows)
    swapped = bradley_terry_loss(rejected, chosen)
    torch.testing.assert_close(swapped - bradley_terry_loss(chosen, rejected), chosen - rejected)


@pytest.mark.parametrize("difference", [-1000.0, 1000.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_finite_at_large_margins(difference: float, dtype: torch.dtype) -> None:
    """log(sigmoid(-1000)) written plainly is -inf, and its gradient NaN; the loss there is 1000, its gradient -1."""
    chosen = torch.tensor([difference], dtype=dtype, requires_grad=True)
    loss = bradley_terry_loss(chosen, torch.zeros(1, dtype=dtype))
    loss.sum().backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(max(0.0, -difference))
    assert chosen.grad is not None
    assert chosen.grad.item() == pytest.approx(-1.0 if difference < 0 else 0.0)


def test_gradient_in_float64() -> None:
    chosen = torch.randn(5, dtype=torch.float64, requires_grad=True)
    rejected = torch.randn(5, dtype=torch.float64, requires_grad=True)
    margin = torch.rand(5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda c, r: bradley_terry_loss(c, r, margin, 0.01), (chosen, rejected))


@given(SCORES)
def test_best_shift_of_the_centering_penalty(rows: list[tuple[float, float]]) -> None:
    """With equal differences the penalty sum((c + r + 2t)^2) is least at t = -mean(c + r) / 2; as scipy finds."""
    chosen, rejected = columns(rows)
    expected = float(-(chosen + rejected).mean() / 2)
    found = minimize_scalar(
        lambda t: float(bradley_terry_loss(chosen + t, rejected + t, center_rewards_coefficient=0.5).sum())
    )
    assert found.x == pytest.approx(expected, abs=1e-3)


def test_different_shapes_are_refused() -> None:
    """(3,) against (3, 1) would broadcast to nine comparisons, six of them between strangers."""
    with pytest.raises(ValueError, match=r"chosen.*\(3,\).*rejected.*\(3, 1\)"):
        bradley_terry_loss(torch.zeros(3), torch.zeros(3, 1))
    with pytest.raises(ValueError, match="margin"):
        bradley_terry_loss(torch.zeros(3), torch.zeros(3), torch.zeros(1))


def test_objective_sums_weighted_pairs_over_shared_completions() -> None:
    """Scores 3, 1, 0; pairs (0>1) weight 2 and (1>2) weight 0.5 with margin 1.

    Losses log(1+e^-2) = 0.1269280 and log(1+e^0) = 0.6931472; sum 2*0.1269280 + 0.5*0.6931472 = 0.6004296; units 2.5.
    """
    targets = PairTargets(
        torch.tensor([0, 1]),
        torch.tensor([1, 2]),
        torch.tensor([0.0, 1.0]),
        torch.tensor([2.0, 0.5]),
        torch.tensor([0, 0]),
    )
    objective = OBJECTIVES["bradley_terry"](center_rewards_coefficient=0.0)
    assert objective(torch.tensor([3.0, 1.0, 0.0]), targets).item() == pytest.approx(0.6004296, abs=1e-6)
    assert objective.num_units(targets) == 2.5


@pytest.mark.parametrize("objective", OBJECTIVES.values())
def test_negative_coefficient_is_refused(objective: type[BradleyTerry] | type[GroupedPairs]) -> None:
    with pytest.raises(ValueError, match="center_rewards_coefficient"):
        objective(center_rewards_coefficient=-0.1)


def targets_of(rows: list[tuple[int, int, float, float, int]]) -> PairTargets:
    """Rows of (chosen, rejected, margin, weight, group)."""
    chosen, rejected, margin, weight, group = zip(*rows, strict=True)
    return PairTargets(*map(torch.tensor, (chosen, rejected, margin, weight, group)))


def test_grouped_pairs_by_hand() -> None:
    """Group 4 ranks scores 2 > 1 > 0 (three pairs), group 7 has 1 over 1 alone, of weight 5; no centering.

    Group 4: [log(1+e^-1) + log(1+e^-2) + log(1+e^-1)] / 3 = (0.3132617 + 0.1269280 + 0.3132617) / 3 = 0.2511505.
    Group 7: 5 * log(2) / 5 = 0.6931472. Sum 0.9442976 over 2 prompts, not 4 pairs and not their weight of 8.
    """
    targets = targets_of(
        [(0, 1, 0.0, 1.0, 4), (3, 4, 0.0, 5.0, 7), (0, 2, 0.0, 1.0, 4), (1, 2, 0.0, 1.0, 4)],
    )
    objective = OBJECTIVES["grouped_pairs"](center_rewards_coefficient=0.0)
    loss = objective(torch.tensor([2.0, 1.0, 0.0, 1.0, 1.0]), targets)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(0.9442976, abs=1e-6)
    assert objective.num_units(targets) == 2.0


def test_grouped_pairs_weigh_the_pairs_of_a_group_by_hand() -> None:
    """Scores 3, 1, 0; pairs (0>1) weight 2, (1>2) weight 0.5, margin 1: 0.6004296 as above, over weight 2.5: 0.2401718.

    Centering with 0.01 adds [2 * 0.01 * (3+1)^2 + 0.5 * 0.01 * (1+0)^2] / 2.5 = 0.325 / 2.5 = 0.13.
    """
    targets = targets_of([(0, 1, 0.0, 2.0, 0), (1, 2, 1.0, 0.5, 0)])
    scores = torch.tensor([3.0, 1.0, 0.0])
    assert GroupedPairs(0.0)(scores, targets).item() == pytest.approx(0.2401718, abs=1e-6)
    assert GroupedPairs(0.01)(scores, targets).item() == pytest.approx(0.3701718, abs=1e-6)


PAIR_ROWS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(4, 7), st.floats(-1, 1), st.floats(0.1, 5), st.integers(0, 3)),
    min_size=1,
    max_size=10,
)
ALL_SCORES = st.lists(st.floats(-50, 50), min_size=8, max_size=8).map(lambda v: torch.tensor(v, dtype=torch.float64))


@given(PAIR_ROWS, ALL_SCORES)
def test_grouped_pairs_are_the_mean_of_each_group_summed(
    rows: list[tuple[int, int, float, float, int]], scores: torch.Tensor
) -> None:
    """Group by group, as Bradley-Terry's own weighted mean over the group's pairs."""
    parts = [targets_of([row for row in rows if row[4] == group]) for group in {row[4] for row in rows}]
    plain = BradleyTerry(0.01)
    expected = sum(float(plain(scores, part)) / plain.num_units(part) for part in parts)
    targets = targets_of(rows)
    assert float(GroupedPairs(0.01)(scores, targets)) == pytest.approx(expected, rel=1e-6)
    assert GroupedPairs.num_units(targets) == len(parts)


@given(PAIR_ROWS, ALL_SCORES)
def test_grouped_pairs_of_single_pairs_are_bradley_terry(
    rows: list[tuple[int, int, float, float, int]], scores: torch.Tensor
) -> None:
    targets = targets_of([(c, r, margin, 1.0, index) for index, (c, r, margin, _, _) in enumerate(rows)])
    grouped, plain = GroupedPairs(0.01), BradleyTerry(0.01)
    torch.testing.assert_close(grouped(scores, targets), plain(scores, targets))
    assert grouped.num_units(targets) == plain.num_units(targets) == len(rows)


@given(PAIR_ROWS, ALL_SCORES, st.integers(2, 4))
def test_saying_all_pairs_of_one_prompt_again_changes_nothing(
    rows: list[tuple[int, int, float, float, int]], scores: torch.Tensor, times: int
) -> None:
    """Under Bradley-Terry it does: there the prompt then counts twice as much."""
    again = rows + [row for row in rows if row[4] == rows[0][4]] * (times - 1)
    one, more = targets_of(rows), targets_of(again)
    torch.testing.assert_close(GroupedPairs(0.01)(scores, more), GroupedPairs(0.01)(scores, one))
    assert GroupedPairs.num_units(more) == GroupedPairs.num_units(one)
    assert BradleyTerry.num_units(more) > BradleyTerry.num_units(one)


def test_gradient_of_grouped_pairs_in_float64() -> None:
    scores = torch.randn(5, dtype=torch.float64, requires_grad=True)
    targets = targets_of([(0, 1, 0.5, 2.0, 0), (1, 2, 0.0, 0.5, 0), (3, 4, -0.2, 3.0, 1)])
    assert torch.autograd.gradcheck(lambda s: GroupedPairs(0.01)(s, targets), (scores,))

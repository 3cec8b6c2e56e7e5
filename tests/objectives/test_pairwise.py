"""The Bradley-Terry loss against hand-derived values, TRL's formula, and its laws."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from rewardlab.objectives import OBJECTIVES, BradleyTerry, PairTargets, bradley_terry_loss

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
        torch.tensor([0, 1]), torch.tensor([1, 2]), torch.tensor([0.0, 1.0]), torch.tensor([2.0, 0.5])
    )
    objective = OBJECTIVES["bradley_terry"](center_rewards_coefficient=0.0)
    assert objective(torch.tensor([3.0, 1.0, 0.0]), targets).item() == pytest.approx(0.6004296, abs=1e-6)
    assert objective.num_units(targets) == 2.5


def test_negative_coefficient_is_refused() -> None:
    with pytest.raises(ValueError, match="center_rewards_coefficient"):
        BradleyTerry(center_rewards_coefficient=-0.1)

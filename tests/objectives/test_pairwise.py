"""The pairwise objectives against hand-derived values and their laws."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize, minimize_scalar

from rewardlab.objectives import (
    OBJECTIVES,
    BradleyTerry,
    GroupedPairs,
    Objective,
    PairTargets,
    ScaledBradleyTerry,
    bradley_terry_loss,
)

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


def targets_of(rows: list[tuple[int, int, float, float, int]], **more: list[float] | list[bool]) -> PairTargets:
    """Rows of (chosen, rejected, margin, weight, group)."""
    chosen, rejected, margin, weight, group = zip(*rows, strict=True)
    known = {name: torch.tensor(value) for name, value in more.items()}
    return PairTargets(*map(torch.tensor, (chosen, rejected, margin, weight, group)), **known)


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


@settings(max_examples=40)
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


@settings(max_examples=40)
@given(PAIR_ROWS, ALL_SCORES)
def test_grouped_pairs_of_single_pairs_are_bradley_terry(
    rows: list[tuple[int, int, float, float, int]], scores: torch.Tensor
) -> None:
    targets = targets_of([(c, r, margin, 1.0, index) for index, (c, r, margin, _, _) in enumerate(rows)])
    grouped, plain = GroupedPairs(0.01), BradleyTerry(0.01)
    torch.testing.assert_close(grouped(scores, targets), plain(scores, targets))
    assert grouped.num_units(targets) == plain.num_units(targets) == len(rows)


@settings(max_examples=40)
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


def test_soft_label_by_hand() -> None:
    """Difference 1, three of four raters for it: -0.75 log sigmoid(1) - 0.25 log sigmoid(-1).

    0.75 * 0.3132617 + 0.25 * 1.3132617 = 0.5632617. With margin 1 the difference is 0, and any label costs log 2.
    """
    chosen, rejected, p = torch.tensor([2.0]), torch.tensor([1.0]), torch.tensor([0.75])
    assert bradley_terry_loss(chosen, rejected, p_chosen=p).item() == pytest.approx(0.5632617, abs=1e-6)
    shifted = bradley_terry_loss(chosen, rejected, torch.ones(1), p_chosen=p)
    assert shifted.item() == pytest.approx(math.log(2), abs=1e-6)


@given(SCORES, st.floats(0, 1))
def test_a_label_given_to_the_other_side_is_its_complement(rows: list[tuple[float, float]], share: float) -> None:
    chosen, rejected = columns(rows)
    p = torch.full_like(chosen, share)
    turned = bradley_terry_loss(rejected, chosen, p_chosen=1 - p)
    torch.testing.assert_close(bradley_terry_loss(chosen, rejected, p_chosen=p), turned)


@given(SCORES)
def test_a_certain_label_changes_no_bit(rows: list[tuple[float, float]]) -> None:
    chosen, rejected = columns(rows)
    certain = bradley_terry_loss(chosen, rejected, p_chosen=torch.ones_like(chosen))
    assert torch.equal(certain, bradley_terry_loss(chosen, rejected))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_a_soft_label_is_least_at_its_logit(p: float) -> None:
    """The probability that fits a share of p is p: sigmoid(d) = p. Found by scipy."""
    share = torch.tensor([p], dtype=torch.float64)
    found = minimize_scalar(
        lambda d: float(bradley_terry_loss(torch.tensor([d]).double(), share * 0, p_chosen=share)), (-1.0, 1.0)
    )
    assert found.x == pytest.approx(math.log(p / (1 - p)), abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_soft_labels_are_finite_at_large_differences(dtype: torch.dtype) -> None:
    """At p = 1/4 and d = +-1000 the loss is 0.75 * 1000 and 0.25 * 1000; its gradient sigmoid(d) - p."""
    chosen = torch.tensor([1000.0, -1000.0], dtype=dtype, requires_grad=True)
    loss = bradley_terry_loss(chosen, torch.zeros(2, dtype=dtype), p_chosen=torch.tensor([0.25, 0.25]))
    loss.sum().backward()
    assert loss.dtype == torch.float32
    assert loss.tolist() == [750.0, 250.0]
    assert chosen.grad is not None
    assert chosen.grad.tolist() == [0.75, -0.25]


def test_labels_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="p_chosen"):
        bradley_terry_loss(torch.zeros(3), torch.zeros(3), p_chosen=torch.ones(1))


def test_label_smoothing_by_hand() -> None:
    """Difference 1, smoothing 0.1: a preference has the target 0.9, p = 0.75 becomes 0.75 * 0.9 + 0.25 * 0.1 = 0.7.

    d = 1 costs 0.3132617 + (1 - target): 0.4132617 and 0.6132617. A tie stays at 1/2: 0.8132617. Sum 1.8397851.
    """
    targets = targets_of([(0, 1, 0.0, 1.0, 0)] * 3, p_chosen=[1.0, 0.75, 0.5], tie=[False, False, True])
    scores = torch.tensor([1.0, 0.0])
    assert BradleyTerry(0.0, 0.1)(scores, targets).item() == pytest.approx(1.8397851, abs=1e-6)
    assert GroupedPairs(0.0, 0.1)(scores, targets).item() == pytest.approx((0.4132617 + 0.6132617) / 2, abs=1e-6)


def test_strengths_of_players_are_those_that_scipy_finds() -> None:
    """Four players, each pair (i, j) with how often i beat j; the likelihood written plainly, the first fixed at 0.

    At scipy's optimum the gradient of the objective is zero; one step beside it is not.
    """
    wins = [
        (0, 1, 7),
        (1, 0, 3),
        (0, 2, 5),
        (2, 0, 6),
        (1, 2, 2),
        (2, 1, 8),
        (2, 3, 9),
        (3, 2, 1),
        (1, 3, 4),
        (3, 1, 4),
    ]

    def likelihood(free: list[float]) -> float:
        s = [0.0, *free]
        return -sum(n * math.log(math.exp(s[i]) / (math.exp(s[i]) + math.exp(s[j]))) for i, j, n in wins)

    best = minimize(likelihood, [0.0, 0.0, 0.0], tol=1e-12)
    targets = targets_of([(i, j, 0.0, float(n), 0) for i, j, n in wins])
    scores = torch.tensor([0.0, *best.x], dtype=torch.float64, requires_grad=True)
    loss = BradleyTerry(0.0)(scores, targets)
    (gradient,) = torch.autograd.grad(loss, scores)
    assert loss.item() == pytest.approx(best.fun, rel=1e-12)
    assert gradient.abs().max() < 1e-4
    (beside,) = torch.autograd.grad(BradleyTerry(0.0)(scores + torch.tensor([0.0, 0.1, 0.0, 0.0]), targets), scores)
    assert beside.abs().max() > 0.1


def test_a_tie_draws_two_scores_together_under_bradley_terry() -> None:
    """Target 1/2: the gradient at difference d is sigmoid(d) - 1/2, which is 0 at d = 0 and pulls back elsewhere."""
    targets = targets_of([(0, 1, 0.0, 1.0, 0)], tie=[True])
    for d in (-1.0, 0.0, 2.0):
        scores = torch.tensor([d, 0.0], dtype=torch.float64, requires_grad=True)
        BradleyTerry(0.0)(scores, targets).backward()
        assert scores.grad is not None
        assert scores.grad[0].item() == pytest.approx(1 / (1 + math.exp(-d)) - 0.5)


def test_ties_count_nothing_in_grouped_pairs() -> None:
    """Scores 2, 1, 0; group 4: 0 > 1, 0 > 2, 1 = 2; group 7: 1 = 2 alone. Centering off.

    Group 4: [log(1+e^-1) + log(1+e^-2)] / 2 = (0.3132617 + 0.1269280) / 2 = 0.2200948, not a third of three; group 7 is
    no unit: 1 unit. The tied scores get no gradient from each other.
    """
    rows = [(0, 1, 0.0, 1.0, 4), (0, 2, 0.0, 1.0, 4), (1, 2, 0.0, 1.0, 4), (1, 2, 0.0, 1.0, 7)]
    targets = targets_of(rows, tie=[False, False, True, True])
    scores = torch.tensor([2.0, 1.0, 0.0])
    assert GroupedPairs(0.0)(scores, targets).item() == pytest.approx(0.2200948, abs=1e-6)
    assert GroupedPairs.num_units(targets) == 1.0


def test_a_batch_of_only_ties_is_a_grouped_loss_of_zero() -> None:
    """0 / 0 here would spoil the sum of the whole step."""
    scores = torch.tensor([2.0, 1.0], requires_grad=True)
    targets = targets_of([(0, 1, 0.0, 1.0, 0)], tie=[True])
    loss = GroupedPairs(0.01)(scores, targets)
    loss.backward()
    assert (loss.item(), GroupedPairs.num_units(targets)) == (0.0, 0.0)
    assert scores.grad is not None
    assert scores.grad.tolist() == [0.0, 0.0]


def test_scaled_bradley_terry_by_hand() -> None:
    """Scores 3, 1, 0; strengths 3, 1/2 and a tie of unknown strength; weights 1, 2, 1.

    3 * log(1+e^-2) + 2 * 0.5 * log(1+e^-1) = 3 * 0.1269280 + 0.3132617 = 0.6940457; the tie 0. Units 4: the weights
    alone. Centering with 0.01 adds 3 * 0.01 * 16 + 2 * 0.5 * 0.01 * 1 = 0.49.
    """
    targets = targets_of(
        [(0, 1, 0.0, 1.0, 0), (1, 2, 0.0, 2.0, 0), (0, 2, 0.0, 1.0, 0)],
        strength=[3.0, 0.5, math.nan],
        tie=[False, False, True],
    )
    scores = torch.tensor([3.0, 1.0, 0.0])
    assert ScaledBradleyTerry(0.0)(scores, targets).item() == pytest.approx(0.6940457, abs=1e-6)
    assert ScaledBradleyTerry(0.01)(scores, targets).item() == pytest.approx(1.1840457, abs=1e-6)
    assert ScaledBradleyTerry.num_units(targets) == 4.0


@settings(max_examples=40)
@given(PAIR_ROWS, ALL_SCORES, st.floats(0.1, 10))
def test_the_unit_of_strengths_only_scales_the_loss(
    rows: list[tuple[int, int, float, float, int]], scores: torch.Tensor, unit: float
) -> None:
    one = ScaledBradleyTerry(0.01)(scores, targets_of(rows, strength=[1.0] * len(rows)))
    other = ScaledBradleyTerry(0.01)(scores, targets_of(rows, strength=[unit] * len(rows)))
    torch.testing.assert_close(one, BradleyTerry(0.01)(scores, targets_of(rows)))
    torch.testing.assert_close(other, one * unit, rtol=1e-6, atol=1e-9)


def test_a_pair_without_strength_is_named() -> None:
    """NaN times a loss would spoil the sum of the whole step, or 0 in its place drop the pair silently."""
    targets = targets_of([(0, 1, 0.0, 1.0, 0)] * 2, strength=[1.0, math.nan])
    with pytest.raises(ValueError, match=r"1 of 2 pairs have no strength.*give each row a strength"):
        ScaledBradleyTerry()(torch.zeros(2), targets)


@pytest.mark.parametrize("objective", [BradleyTerry(0.01, 0.1), GroupedPairs(0.01, 0.1), ScaledBradleyTerry(0.01)])
def test_gradients_with_soft_labels_ties_and_strengths_in_float64(objective: Objective) -> None:
    scores = torch.randn(5, dtype=torch.float64, requires_grad=True)
    targets = targets_of(
        [(0, 1, 0.5, 2.0, 0), (1, 2, 0.0, 0.5, 0), (3, 4, -0.2, 3.0, 1)],
        p_chosen=[0.8, 0.5, 1.0],
        strength=[2.0, 0.0, 0.3],
        tie=[False, True, False],
    )
    assert torch.autograd.gradcheck(lambda s: objective(s, targets), (scores,))

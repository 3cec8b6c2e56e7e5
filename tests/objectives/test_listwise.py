"""Plackett-Luce against enumeration, plain formulas of its ties, scipy's optimum and Bradley-Terry."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from rewardlab.objectives import (
    RANKING_TIES,
    BradleyTerry,
    PairTargets,
    PlackettLuce,
    RankingTargets,
    bradley_terry_loss,
    plackett_luce_loss,
)


def table(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def loss_of(scores: list[float], ranks: list[int], ranking_ties: str = "efron") -> float:
    return float(
        plackett_luce_loss(table(scores), torch.tensor([ranks]), torch.ones(1, len(ranks)).bool(), ranking_ties)
    )


def plainly(scores: list[float], ranks: list[int], ranking_ties: str = "efron") -> float:
    """The loss by the formulas of Efron 1977 and Breslow 1974, level by level."""
    loss = 0.0
    for rank in sorted({r for r in ranks if r >= 0}):
        tied = [s for s, r in zip(scores, ranks, strict=True) if r == rank]
        at_risk = sum(math.exp(s) for s, r in zip(scores, ranks, strict=True) if r >= rank or r < 0)
        among = sum(math.exp(s) for s in tied)
        for j, score in enumerate(tied):
            taken = j / len(tied) if ranking_ties == "efron" else 0.0
            loss += math.log(at_risk - taken * among) - score
    return loss


def test_value_by_hand() -> None:
    """Scores log 1, log 3, log 2 with ranks 2, 0, 1: P = 3/6 * 2/3 = 1/3, the loss log 3 = 1.0986123."""
    assert loss_of([0.0, math.log(3), math.log(2)], [2, 0, 1]) == pytest.approx(1.0986123, abs=1e-7)


def test_ties_by_hand() -> None:
    """Exponentials 3 and 2 share the first rank, 1 is last.

    Breslow: 3/6 * 2/6 = 1/6, log 6 = 1.7917595. Efron's second denominator is 6 - 5/2 = 3.5: 3/6 * 2/3.5 = 2/7,
    log 3.5 = 1.2527630.
    """
    scores = [math.log(3), 0.0, math.log(2)]
    assert loss_of(scores, [0, 1, 0], "breslow") == pytest.approx(1.7917595, abs=1e-7)
    assert loss_of(scores, [0, 1, 0], "efron") == pytest.approx(1.2527630, abs=1e-7)


def test_top_one_of_three_by_hand() -> None:
    """Only the best is known, exponentials 3 of 6: log 2. It is the softmax; the unranked order costs nothing."""
    assert loss_of([math.log(3), 0.0, math.log(2)], [0, -1, -1]) == pytest.approx(math.log(2))


def test_the_last_that_is_ranked_is_compared_with_the_unranked() -> None:
    """Exponentials 3 first, 1 second, 2 unranked: 3/6 * 1/3. Ending at K - 1 terms of the ranked would give 3/6."""
    assert loss_of([math.log(3), 0.0, math.log(2)], [0, 1, -1]) == pytest.approx(math.log(6))


ITEMS = st.lists(st.tuples(st.floats(-8, 8), st.integers(-1, 6)), min_size=1, max_size=7)


def dense(ranks: list[int]) -> list[int]:
    place = {rank: number for number, rank in enumerate(sorted({r for r in ranks if r >= 0}))}
    return [place.get(rank, -1) for rank in ranks]


@pytest.mark.parametrize("ranking_ties", RANKING_TIES)
@given(ITEMS)
def test_agrees_with_the_plain_formulas(ranking_ties: str, items: list[tuple[float, int]]) -> None:
    """Any ties, any unranked, in any order."""
    scores, ranks = [item[0] for item in items], dense([item[1] for item in items])
    expected = plainly(scores, ranks, ranking_ties)
    assert loss_of(scores, ranks, ranking_ties) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_the_probabilities_of_all_rankings_sum_to_one() -> None:
    scores = [0.3, -1.2, 2.0, 0.7]
    whole = [math.exp(-loss_of(scores, list(ranks))) for ranks in itertools.permutations(range(4))]
    assert len(whole) == 24
    assert sum(whole) == pytest.approx(1.0)


def test_the_probabilities_of_all_top_twos_sum_to_one() -> None:
    scores = [0.3, -1.2, 2.0, 0.7]
    tops = [[{i: 0, j: 1}.get(k, -1) for k in range(4)] for i, j in itertools.permutations(range(4), 2)]
    assert sum(math.exp(-loss_of(scores, ranks)) for ranks in tops) == pytest.approx(1.0)


@given(st.lists(st.tuples(*[st.floats(-50, 50)] * 2), min_size=1, max_size=6))
def test_of_two_it_is_bradley_terry(rows: list[tuple[float, float]]) -> None:
    scores = torch.tensor(rows, dtype=torch.float64)
    ranks = torch.tensor([[0, 1]]).expand(len(rows), 2)
    found = plackett_luce_loss(scores, ranks, torch.ones_like(ranks).bool())
    torch.testing.assert_close(found, bradley_terry_loss(scores[:, 0], scores[:, 1]))


def test_of_two_the_objective_is_bradley_terry_s_with_its_centering() -> None:
    scores = torch.randn(6, dtype=torch.float64)
    index, weight = torch.tensor([[3, 0], [5, 1], [2, 4]]), torch.tensor([1.0, 0.5, 2.0])
    ranks = torch.tensor([[0, 1], [1, 0], [0, -1]])
    group = torch.arange(3)
    pairs = PairTargets(torch.tensor([3, 1, 2]), torch.tensor([0, 5, 4]), torch.zeros(3), weight, group)
    rankings = RankingTargets(index, ranks, weight, group)
    torch.testing.assert_close(PlackettLuce(0.3)(scores, rankings), BradleyTerry(0.3)(scores, pairs))
    assert PlackettLuce.num_units(rankings) == BradleyTerry.num_units(pairs) == 3.5


@pytest.mark.parametrize("ranking_ties", RANKING_TIES)
@given(st.floats(-20, 20), st.floats(-20, 20))
def test_two_that_tie_cost_twice_a_target_of_one_half(ranking_ties: str, first: float, second: float) -> None:
    half = bradley_terry_loss(*table([first], [second]), p_chosen=table([0.5])[0])
    constant = math.log(2) if ranking_ties == "efron" else 0.0
    assert loss_of([first, second], [0, 0], ranking_ties) == pytest.approx(2 * float(half) - constant, abs=1e-9)


def test_objective_by_hand() -> None:
    """Ranking of three (log 3) with weight 2, and of two, exponentials 3 over 1 (log 4/3), with weight 1.

    2 * 1.0986123 + 0.2876821 = 2.4849066. Centering with 0.1: means log(6)/3 and log(3)/2, so
    2 * 0.1 * (2 log(6)/3)^2 + 0.1 * log(3)^2 = 0.2853691 + 0.1206949 = 0.4060640.
    """
    scores = torch.tensor([0.0, math.log(3), math.log(2)])
    targets = RankingTargets(
        torch.tensor([[0, 1, 2], [1, 0, -1]]),
        torch.tensor([[2, 0, 1], [0, 1, -1]]),
        torch.tensor([2.0, 1.0]),
        torch.tensor([0, 0]),
    )
    assert PlackettLuce(0.0)(scores, targets).item() == pytest.approx(2.4849066, abs=1e-6)
    assert PlackettLuce(0.1)(scores, targets).item() == pytest.approx(2.4849066 + 0.4060640, abs=1e-6)
    assert PlackettLuce.num_units(targets) == 3.0


def test_the_objective_hands_its_rule_of_ties_on() -> None:
    targets = RankingTargets(torch.tensor([[0, 1, 2]]), torch.tensor([[0, 1, 0]]), torch.ones(1), torch.zeros(1).long())
    scores = torch.tensor([math.log(3), 0.0, math.log(2)])
    assert PlackettLuce(0.0, "breslow")(scores, targets).item() == pytest.approx(math.log(6))
    assert PlackettLuce(0.0)(scores, targets).item() == pytest.approx(math.log(3.5))


@pytest.mark.parametrize("ranking_ties", RANKING_TIES)
def test_padding_changes_nothing_and_gets_no_gradient(ranking_ties: str) -> None:
    """Rows of 2, 3 and 4 padded to 6 with infinities and NaN, at the end and in between, against each row alone."""
    rows = [([0.5, -1.0], [1, 0]), ([2.0, 0.1, 0.3], [0, 0, 1]), ([1.0, 3.0, -2.0, 0.0], [0, -1, -1, 1])]
    spots = [[1, 4], [0, 1, 2], [0, 2, 3, 5]]
    padded = torch.full((3, 6), math.nan, dtype=torch.float64)
    padded[0, 0] = math.inf
    ranks, mask = torch.full((3, 6), -1), torch.zeros(3, 6, dtype=torch.bool)
    for row, ((scores, places), spot) in enumerate(zip(rows, spots, strict=True)):
        padded[row, spot], ranks[row, spot], mask[row, spot] = table(scores)[0], torch.tensor(places), True
    padded.requires_grad_()
    losses = plackett_luce_loss(padded, ranks, mask, ranking_ties)
    losses.sum().backward()
    assert losses.tolist() == pytest.approx([plainly(*row, ranking_ties) for row in rows])
    assert padded.grad is not None
    assert padded.grad[~mask].tolist() == [0.0] * 9
    for row, ((scores, places), spot) in enumerate(zip(rows, spots, strict=True)):
        alone = table(scores).requires_grad_()
        plackett_luce_loss(alone, torch.tensor([places]), mask[row, spot][None], ranking_ties).backward()
        assert alone.grad is not None
        torch.testing.assert_close(padded.grad[row, spot], alone.grad[0])


def test_padding_leaves_the_other_completions_of_the_batch_alone() -> None:
    """Padding has index -1, which in Python is the last completion: it must get nothing from there."""
    scores = torch.randn(4, dtype=torch.float64, requires_grad=True)
    targets = RankingTargets(
        torch.tensor([[1, 2, -1]]), torch.tensor([[0, 1, -1]]), torch.ones(1), torch.zeros(1).long()
    )
    PlackettLuce(0.5)(scores, targets).backward()
    assert scores.grad is not None
    assert scores.grad[[0, 3]].tolist() == [0.0, 0.0]
    assert (scores.grad[[1, 2]] != 0).all()


@given(ITEMS, st.floats(-30, 30), st.permutations(range(7)))
def test_neither_a_shift_nor_the_order_of_the_list_is_seen(
    items: list[tuple[float, int]], shift: float, order: list[int]
) -> None:
    scores, ranks = [item[0] for item in items], dense([item[1] for item in items])
    order = [i for i in order if i < len(items)]
    moved = loss_of([scores[i] + shift for i in order], [ranks[i] for i in order])
    assert moved == pytest.approx(loss_of(scores, ranks), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("ranking_ties", RANKING_TIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_finite_at_large_scores(dtype: torch.dtype, ranking_ties: str) -> None:
    """Worst first, 2000 apart: the first place costs 2000, the second 0, in the gradient -1 and +1."""
    scores = torch.tensor([[-1000.0, 1000.0, -1000.0], [1000.0, 1000.0, -1000.0]], dtype=dtype, requires_grad=True)
    ranks, mask = torch.tensor([[0, 1, -1], [0, 0, 1]]), torch.tensor([[True, True, False], [True, True, True]])
    losses = plackett_luce_loss(scores, ranks, mask, ranking_ties)
    losses.sum().backward()
    assert losses.dtype == torch.float32
    tied = math.log(2) if ranking_ties == "efron" else 2 * math.log(2)
    assert losses.tolist() == pytest.approx([2000.0, tied], abs=1e-6)
    assert scores.grad is not None
    assert scores.grad[0].tolist() == [-1.0, 1.0, 0.0]
    assert scores.grad[1].tolist() == pytest.approx([0.0, 0.0, 0.0], abs=1e-6)


@pytest.mark.parametrize("ranking_ties", RANKING_TIES)
def test_gradient_in_float64(ranking_ties: str) -> None:
    scores = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    ranks = torch.tensor([[0, 1, 2, 3, 4], [1, 0, 0, -1, -1], [0, 2, 1, 2, 2]])
    mask = torch.tensor([[True] * 5, [True] * 4 + [False], [True] * 5])
    assert torch.autograd.gradcheck(lambda s: plackett_luce_loss(s, ranks, mask, ranking_ties), (scores,))
    index = torch.where(mask, torch.arange(15).reshape(3, 5), -1)
    targets = RankingTargets(index, ranks, torch.tensor([1.0, 2.0, 0.5]), torch.arange(3))
    objective = PlackettLuce(0.1, ranking_ties)
    assert torch.autograd.gradcheck(lambda s: objective(s.reshape(-1), targets), (scores,))


def test_strengths_are_those_that_scipy_finds() -> None:
    """Five rankings of up to four, with a tie and a top-2, by the plain formula, the first fixed at 0.

    At scipy's optimum the gradient of the objective is zero; one step beside it is not.
    """
    rankings = [
        ([0, 1, 2, 3], [0, 1, 2, 3]),
        ([3, 2, 0], [0, 1, 2]),
        ([1, 0, 3], [0, 0, 1]),
        ([2, 3, 1, 0], [0, 1, -1, -1]),
    ]
    rankings += [([1, 2], [0, 1])]

    def likelihood(free: list[float]) -> float:
        s = [0.0, *free]
        return sum(plainly([s[i] for i in index], ranks) for index, ranks in rankings)

    best = minimize(likelihood, [0.0, 0.0, 0.0], tol=1e-12)
    targets = RankingTargets(
        torch.tensor([index + [-1] * (4 - len(index)) for index, _ in rankings]),
        torch.tensor([ranks + [-1] * (4 - len(ranks)) for _, ranks in rankings]),
        torch.ones(5),
        torch.arange(5),
    )
    scores = torch.tensor([0.0, *best.x], dtype=torch.float64, requires_grad=True)
    loss = PlackettLuce(0.0)(scores, targets)
    (gradient,) = torch.autograd.grad(loss, scores)
    assert loss.item() == pytest.approx(best.fun, rel=1e-12)
    assert gradient.abs().max() < 1e-4
    (beside,) = torch.autograd.grad(PlackettLuce(0.0)(scores + torch.tensor([0.0, 0.3, 0.0, 0.0]), targets), scores)
    assert beside.abs().max() > 0.05


def test_different_shapes_are_refused() -> None:
    scores, ranks = torch.zeros(2, 3), torch.zeros(2, 3).long()
    for wrong in (
        (scores[:, :2], ranks, ranks.bool()),
        (scores, ranks[:1], ranks.bool()),
        (scores[0], ranks[0], ranks[0]),
    ):
        with pytest.raises(ValueError, match=r"one shape \(rankings, K\)"):
            plackett_luce_loss(*wrong)


def test_ranks_that_are_not_dense_enough_are_refused() -> None:
    """Rank 3 of three completions would be taken for unranked."""
    with pytest.raises(ValueError, match=r"below K = 3.*got 3"):
        loss_of([0.0, 0.0, 0.0], [0, 1, 3])


def test_an_unknown_rule_of_ties_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'exact'.*efron, breslow"):
        PlackettLuce(ranking_ties="exact")
    with pytest.raises(ValueError, match="'exact'"):
        loss_of([0.0, 1.0], [0, 1], "exact")

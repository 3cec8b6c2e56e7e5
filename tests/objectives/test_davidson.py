"""Davidson's ties: the three probabilities, hand-derived losses, and nu found again from generated ties."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from rewardlab.objectives import Davidson, PairTargets, bradley_terry_loss, davidson_loss, davidson_tie_probability

NUMBERS = st.floats(-12, 12)


def float64(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def plainly(first: float, second: float, log_nu: float) -> tuple[float, float, float]:
    """P(first wins), P(tie), P(second wins) by Davidson's own formula."""
    a, b, nu = math.exp(first), math.exp(second), math.exp(log_nu)
    whole = a + b + nu * math.sqrt(a * b)
    return a / whole, nu * math.sqrt(a * b) / whole, b / whole


def outcomes(first: float, second: float, log_nu: float) -> tuple[float, float, float]:
    """The same from the losses."""
    a, b, nu = float64(first), float64(second), float64(log_nu)[0]
    no, yes = torch.tensor([False]), torch.tensor([True])
    losses = davidson_loss(a, b, no, nu), davidson_loss(a, b, yes, nu), davidson_loss(b, a, no, nu)
    win, tie, loss = (math.exp(-float(value)) for value in losses)
    return win, tie, loss


def test_value_by_hand() -> None:
    """Scores 2 log 2 and 0, nu = 1: weights 4, 1 and 1 * sqrt(4) = 2, whole 7.

    A win of the first costs log(7/4) = 0.5596158, a tie log(7/2) = 1.2527630, and with three of four raters for the
    first 0.75 log(7/4) + 0.25 log 7 = 0.9061894. Centering with 0.1 adds 0.1 * (2 log 2)^2 = 0.1921812.
    """
    chosen, rejected = torch.full((3,), 2 * math.log(2)), torch.zeros(3)
    tie, p = torch.tensor([False, True, False]), torch.tensor([1.0, 0.5, 0.75])
    losses = davidson_loss(chosen, rejected, tie, torch.zeros(()), p_chosen=p)
    assert losses.tolist() == pytest.approx([0.5596158, 1.2527630, 0.9061894], abs=1e-6)
    centered = davidson_loss(chosen, rejected, tie, torch.zeros(()), None, 0.1, p)
    assert (centered - losses).tolist() == pytest.approx([0.1921812] * 3, abs=1e-6)


def test_objective_by_hand() -> None:
    """The win and the tie of above, of weights 2 and 0.5: 2 * 0.5596158 + 0.5 * 1.2527630 = 1.7456131 over 2.5."""
    targets = PairTargets(
        torch.tensor([1, 0]),
        torch.tensor([0, 1]),
        torch.zeros(2),
        torch.tensor([2.0, 0.5]),
        torch.tensor([0, 0]),
        tie=torch.tensor([False, True]),
    )
    objective = Davidson(center_rewards_coefficient=0.0)
    assert objective.nu == 1.0
    assert objective.num_units(targets) == 2.5
    loss = objective(torch.tensor([0.0, 2 * math.log(2)]), targets)
    assert loss.item() == pytest.approx(1.7456131, abs=1e-6)


def test_a_margin_shifts_the_difference() -> None:
    margin = davidson_loss(float64(3.0), float64(0.5), torch.tensor([False]), float64(0.3)[0], float64(2.0))
    shifted = davidson_loss(float64(0.5), float64(0.0), torch.tensor([False]), float64(0.3)[0])
    torch.testing.assert_close(margin, shifted)


@settings(max_examples=50)
@given(NUMBERS, NUMBERS, NUMBERS)
def test_the_three_probabilities_are_davidson_s_and_sum_to_one(first: float, second: float, log_nu: float) -> None:
    found = outcomes(first, second, log_nu)
    assert found == pytest.approx(plainly(first, second, log_nu), rel=1e-9)
    assert sum(found) == pytest.approx(1.0)
    tie = davidson_tie_probability(float64(first - second), float64(log_nu)[0])
    assert tie.item() == pytest.approx(found[1], rel=1e-9)


@settings(max_examples=50)
@given(NUMBERS, NUMBERS, NUMBERS)
def test_given_a_decision_the_probability_is_the_sigmoid_of_the_difference(
    first: float, second: float, log_nu: float
) -> None:
    win, _, loss = outcomes(first, second, log_nu)
    assert win / (win + loss) == pytest.approx(1 / (1 + math.exp(second - first)), rel=1e-9)


def test_without_ties_it_is_bradley_terry() -> None:
    chosen, rejected, p = float64(3.0, -1.0, 0.2), float64(1.0, 2.0, 0.2), float64(1.0, 0.7, 0.1)
    none = torch.tensor([False] * 3)
    found = davidson_loss(chosen, rejected, none, float64(-60.0)[0], center_rewards_coefficient=0.01, p_chosen=p)
    torch.testing.assert_close(found, bradley_terry_loss(chosen, rejected, None, 0.01, p))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_finite_at_large_differences(dtype: torch.dtype) -> None:
    """At 1000 a loss of the better costs 1000, a tie 1000/2, a win nothing."""
    chosen = torch.tensor([1000.0, 1000.0, -1000.0], dtype=dtype, requires_grad=True)
    log_nu = torch.zeros((), requires_grad=True)
    tie = torch.tensor([False, True, False])
    losses = davidson_loss(chosen, torch.zeros(3, dtype=dtype), tie, log_nu)
    losses.sum().backward()
    assert losses.dtype == torch.float32
    assert losses.tolist() == [0.0, 500.0, 1000.0]
    assert chosen.grad is not None
    assert chosen.grad.tolist() == [0.0, 0.5, -1.0]
    assert log_nu.grad is not None
    assert log_nu.grad.item() == pytest.approx(-1.0)


def test_gradient_in_float64_with_that_of_nu() -> None:
    scores = torch.randn(4, dtype=torch.float64, requires_grad=True)
    log_nu = float64(0.4)[0].requires_grad_()
    tie, p, margin = torch.tensor([False, True, False]), float64(0.7, 0.5, 1.0), float64(0.3, 0.0, -0.2)

    def loss(s: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
        return davidson_loss(s[[0, 1, 2]], s[[1, 2, 3]], tie, n, margin, 0.01, p)

    assert torch.autograd.gradcheck(loss, (scores, log_nu))


def test_different_shapes_are_refused() -> None:
    one = torch.zeros(3)
    with pytest.raises(ValueError, match=r"rejected.*\(3, 1\)"):
        davidson_loss(one, one[:, None], one.bool(), torch.zeros(()))
    with pytest.raises(ValueError, match=r"tie.*\(1,\)"):
        davidson_loss(one, one, torch.zeros(1).bool(), torch.zeros(()))


def generated(nu: float, seed: int, players: int, pairs: int) -> PairTargets:
    """Comparisons of players of known scores, drawn by Davidson's formula with numpy."""
    generator = np.random.default_rng(seed)
    scores = generator.normal(0, 1.2, players)
    first = generator.integers(0, players, pairs)
    second = (first + generator.integers(1, players, pairs)) % players
    truth = np.array([plainly(scores[i], scores[j], math.log(nu)) for i, j in zip(first, second, strict=True)])
    drawn = (generator.random((pairs, 1)) > truth.cumsum(axis=1)).sum(axis=1)  # 0 first wins, 1 tie, 2 second wins
    chosen, rejected = np.where(drawn == 2, second, first), np.where(drawn == 2, first, second)
    return PairTargets(
        torch.tensor(chosen),
        torch.tensor(rejected),
        torch.zeros(pairs),
        torch.ones(pairs),
        torch.zeros(pairs).long(),
        tie=torch.tensor(drawn == 1),
    )


@pytest.mark.parametrize("nu", [0.3, 1.7])
def test_nu_is_found_again_within_ten_percent(nu: float) -> None:
    """12 players, 6000 comparisons: the standard error of log nu is about 1/sqrt(number of ties), 3 to 4 percent."""
    targets = generated(nu, seed=0, players=12, pairs=6000)
    objective = Davidson(center_rewards_coefficient=0.01)
    scores = torch.zeros(12, requires_grad=True)
    optimizer = torch.optim.LBFGS([scores, *objective.parameters()], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = objective(scores, targets) / objective.num_units(targets)
        value.backward()
        return value

    optimizer.step(loss)
    assert objective.nu == pytest.approx(nu, rel=0.1)
    assert abs(objective.nu - 1.0) > 0.3, "started there"


def test_the_optimum_is_scipy_s() -> None:
    """Scores of three players and log nu that maximise the plain formula: there the objective's gradient is zero."""
    targets = generated(0.8, seed=1, players=3, pairs=60)
    rows = list(zip(targets.chosen.tolist(), targets.rejected.tolist(), targets.tie.tolist(), strict=True))

    def likelihood(free: list[float]) -> float:
        s = [0.0, *free[:2]]
        return -sum(math.log(plainly(s[i], s[j], free[2])[1 if tie else 0]) for i, j, tie in rows)

    best = minimize(likelihood, [0.0, 0.0, 0.0], tol=1e-12)
    objective = Davidson(0.0).double()
    with torch.no_grad():
        objective.log_nu.fill_(best.x[2])
    scores = float64(0.0, *best.x[:2]).requires_grad_()
    loss = objective(scores, targets)
    loss.backward()
    assert loss.item() == pytest.approx(best.fun, rel=1e-12)
    assert scores.grad is not None
    assert objective.log_nu.grad is not None
    assert scores.grad.abs().max() < 1e-4
    assert abs(objective.log_nu.grad) < 1e-4


def test_nu_is_stored() -> None:
    objective, other = Davidson(), Davidson()
    with torch.no_grad():
        objective.log_nu.fill_(math.log(0.7))
    other.load_state_dict(objective.state_dict())
    assert other.nu == pytest.approx(0.7)
    assert objective.log_nu.dtype == torch.float32

"""Regression: standardised ratings by hand, weights, and refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rewardlab.objectives import RatingTargets, Regression, regression_loss


def targets_of(index: list[int], rating: list[float], weight: list[float] | None = None) -> RatingTargets:
    ones = [1.0] * len(index)
    return RatingTargets(
        torch.tensor(index), torch.tensor(rating), torch.tensor(weight or ones), torch.zeros(len(index)).long()
    )


def test_value_by_hand() -> None:
    """Mean 3, std 2: ratings 5 and 2 become 1 and -0.5. Scores 0.5 and 1 (places 2 and 0), weights 1 and 4.

    (0.5 - 1)^2 = 0.25, (1 + 0.5)^2 = 2.25; 0.25 + 4 * 2.25 = 9.25 over weight 5. Place 1 is not rated.
    """
    objective, targets = Regression(3.0, 2.0), targets_of([2, 0], [5.0, 2.0], [1.0, 4.0])
    assert objective(torch.tensor([1.0, 99.0, 0.5]), targets).item() == pytest.approx(9.25)
    assert objective.num_units(targets) == 5.0


def test_the_best_scores_of_a_line_are_least_squares() -> None:
    """A slope without a bias on standardised ratings: the gradient is zero at numpy's least squares, and not beside."""
    generator = np.random.default_rng(0)
    x, rating = generator.normal(size=30), generator.normal(4.0, 1.5, size=30)
    slope = np.linalg.lstsq(x[:, None], (rating - rating.mean()) / rating.std(), rcond=None)[0][0]
    targets = targets_of(list(range(30)), rating.tolist())
    objective = Regression(float(rating.mean()), float(rating.std()))
    for offset, gradient in ((0.0, 0.0), (0.1, 0.2 * float(x @ x))):
        w = torch.tensor(slope + offset, dtype=torch.float64, requires_grad=True)
        objective(w * torch.tensor(x), targets).backward()
        assert w.grad is not None
        assert w.grad.item() == pytest.approx(gradient, abs=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_scores_are_raised(dtype: torch.dtype) -> None:
    """1000^2 is beyond float16, whose largest number is 65504."""
    scores = torch.tensor([1000.0, -1000.0], dtype=dtype, requires_grad=True)
    loss = Regression()(scores, targets_of([0, 1], [0.0, 0.0]))
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(2e6)
    assert scores.grad is not None
    assert scores.grad.tolist() == [2000.0, -2000.0]


def test_gradient_in_float64() -> None:
    scores = torch.randn(4, dtype=torch.float64, requires_grad=True)
    targets = targets_of([0, 3, 1], [1.0, 4.0, 2.5], [1.0, 2.0, 0.5])
    assert torch.autograd.gradcheck(lambda s: Regression(2.0, 1.5)(s, targets), (scores,))


def test_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"scores.*\(3, 1\).*ratings.*\(3,\)"):
        regression_loss(torch.zeros(3, 1), torch.zeros(3))


@pytest.mark.parametrize(("mean", "std"), [(0.0, 0.0), (0.0, -1.0), (float("nan"), 1.0), (0.0, float("inf"))])
def test_a_scale_that_is_none_is_refused(mean: float, std: float) -> None:
    with pytest.raises(ValueError, match="standard deviation > 0"):
        Regression(mean, std)


def test_mean_and_std_are_stored() -> None:
    other = Regression()
    other.load_state_dict(Regression(3.0, 2.0).state_dict())
    assert (float(other.rating_mean), float(other.rating_std)) == (3.0, 2.0)

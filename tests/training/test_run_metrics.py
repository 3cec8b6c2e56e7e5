"""The metrics of a run, and the warning that its scores have collapsed."""

from __future__ import annotations

import pytest
import torch

from rewardlab.errors import RewardLabError
from rewardlab.objectives import PairTargets
from rewardlab.training.run_metrics import collapse_warning, pair_metrics


def targets(chosen: list[int], rejected: list[int]) -> PairTargets:
    count = len(chosen)
    return PairTargets(
        torch.tensor(chosen), torch.tensor(rejected), torch.zeros(count), torch.ones(count), torch.zeros(count).long()
    )


def test_metrics_are_over_all_pairs_of_all_batches() -> None:
    """Three pairs in batches of 2 and 1: differences 2, 0 (a tie is no win) and -1; a mean of means would be 1/4."""
    parts = [
        (torch.tensor([3.0, 1.0, 5.0, 5.0]), targets([0, 2], [1, 3])),
        (torch.tensor([-2.0, -1.0]), targets([0], [1])),
    ]
    metrics = pair_metrics(parts)
    assert metrics == pytest.approx(
        {"accuracy": 1 / 3, "margin": 1 / 3, "min_reward": -2.0, "mean_reward": 11 / 6, "max_reward": 5.0}
    )


def test_a_score_that_is_not_finite_is_an_error() -> None:
    with pytest.raises(RewardLabError, match="1 of 2 scores are NaN or infinite"):
        pair_metrics([(torch.tensor([1.0, float("nan")]), targets([0], [1]))])


@pytest.mark.parametrize(
    ("scores", "margins", "expected"),
    [
        ([1.0, 2.0, 0.0, 1.5], [1.0, -1.5], None),
        ([1.0, 1.0, 1.0, 1.0], [0.0, 0.0], "the scores of 4"),
        ([1.0, 0.0, 2.0, 1.0], [1.0, 1.0], "the margins of 4"),
        ([float("nan"), 0.0], [float("nan")], "not finite"),
    ],
)
def test_collapse_warning(scores: list[float], margins: list[float], expected: str | None) -> None:
    warning = collapse_warning(torch.tensor(scores), torch.tensor(margins))
    assert (warning is None) if expected is None else (warning is not None and expected in warning)

"""What is recorded of each of several heads."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rewardlab.calibration.fitting import calibrate_scores
from rewardlab.data.encoding import EncodedGroup
from rewardlab.metrics.known import evaluate_known
from rewardlab.training.head_records import head_records
from rewardlab.types import Pair, PromptGroup

# Groups of one pair each; 16 of them.
EXAMPLES = [
    EncodedGroup(PromptGroup(f"p{i}", ("a", "b"), [Pair()], id=i), ((1, 2), (1, 3)), prefix_length=1) for i in range(16)
]


def test_each_head_has_its_own_scale_and_temperature() -> None:
    """Three of four margins of 1 are right: T = 1 / log 3 (0.910); the second head's margins are twice as large."""
    margins = torch.tensor([1.0, 1.0, 1.0, -1.0] * 4)
    one = torch.stack([margins, torch.zeros(16)], dim=1)
    lines: list[str] = []

    def fit(groups, scores, report):
        report("fitted")
        return calibrate_scores(groups, scores)

    groups = [example.group for example in EXAMPLES]
    scores = [one.tolist(), (2 * one + 1).tolist()]
    first, second = head_records(
        EXAMPLES,
        scores,
        source="held-out",
        fit=fit,
        measure=lambda own: evaluate_known(groups, own),
        report=lines.append,
    )
    assert (first.temperature, second.temperature) == pytest.approx((1 / np.log(3), 2 / np.log(3)), rel=1e-3)
    assert first.calibration["num_pairs"] == 16
    assert first.reference is not None
    assert second.reference is not None
    assert first.reference.mean == pytest.approx(float(one.mean()))
    assert second.reference.mean == pytest.approx(2 * float(one.mean()) + 1)
    assert second.reference.sha256 == first.reference.sha256, "the same reference set"
    assert first.held_out_metrics["accuracy"]["value"] == 0.75
    assert first.held_out_metrics["log_loss"]["value"] == pytest.approx(np.log1p(np.exp(-margins.numpy())).mean())
    assert second.held_out_metrics["log_loss"]["value"] == pytest.approx(np.log1p(np.exp(-2 * margins.numpy())).mean())
    assert lines == ["head 0: fitted", "head 1: fitted"]


def test_without_held_out_rows_there_is_no_temperature() -> None:
    (record,) = head_records(EXAMPLES[:1], [[[0.0, 1.0]]], source="training", fit=None, measure=None, report=print)
    assert (record.temperature, record.calibration, record.held_out_metrics) == (None, {}, {})

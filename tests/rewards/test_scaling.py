"""Oracles: ``statistics`` over plain lists, and numbers worked out by hand, never the package's own moments."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
import torch

from rewardlab.calibration import ReferenceStatistics, reference_statistics
from rewardlab.errors import ConfigError, DataError
from rewardlab.rewards import Norm, RefScale, RewardBatch, RewardChain, Running, to_token_rewards
from rewardlab.rewards.scaling import FLOAT32_EPS, from_contract

STREAM = [[1.0, 4.0, -2.0], [0.5], [3.0, 3.0, 9.0, -1.0]]
REFERENCE = ReferenceStatistics("held-out", 4, 1.5, 2.0, {})


def rewards_of(transform, scores, **more):
    return RewardChain([transform])(RewardBatch(np.asarray(scores, dtype=np.float64), **more)).rewards


def test_float32_eps_is_torch_s():
    assert torch.finfo(torch.float32).eps == FLOAT32_EPS


def test_running_divides_by_the_std_of_all_so_far_and_does_not_shift():
    running, seen = Running(), []
    for batch in STREAM:
        seen += batch
        expected = [score / statistics.stdev(seen) for score in batch]
        assert rewards_of(running, batch) == pytest.approx(expected, rel=1e-12)


def test_norm_shifts_by_the_mean_of_all_so_far_and_adds_eps():
    norm, seen = Norm(), []
    for batch in STREAM:
        seen += batch
        mean, std = statistics.fmean(seen), statistics.stdev(seen)
        expected = [(score - mean) / (std + 2.0**-23) for score in batch]
        assert rewards_of(norm, batch) == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_one_score_and_equal_scores_have_stated_results():
    for scores in ([2.5], [2.5] * 7):
        assert rewards_of(Running(), scores).tolist() == scores, "std is 1"
        assert rewards_of(Norm(), scores).tolist() == [0.0] * len(scores)
        assert rewards_of(RefScale(), scores).tolist() == scores, "no reference yet"


def test_running_over_token_rewards_takes_tokens_or_sums():
    """Rows 1, 2, 3 and 10: tokens have std of (1, 2, 3, 10), sums that of (6, 10), which is sqrt(8)."""
    table = to_token_rewards([[1.0, 2.0, 3.0], [10.0]])
    of_tokens = rewards_of(Running(), table)
    assert of_tokens[0].tolist() == pytest.approx([x / statistics.stdev([1, 2, 3, 10]) for x in (1, 2, 3)], rel=1e-14)
    assert of_tokens[1].tolist()[1:] == [-math.inf, -math.inf]
    of_sums = rewards_of(Running(of="sequences"), table)
    assert of_sums[1, 0] == pytest.approx(10 / math.sqrt(8), rel=1e-14)
    normed = rewards_of(Norm(of="sequences", eps=0.0), table)
    sums = np.where(np.isinf(normed), 0.0, normed).sum(axis=1)
    assert sums == pytest.approx([-2 / math.sqrt(8), 2 / math.sqrt(8)], rel=1e-14), "a completion's sum is normed"


def test_ref_keeps_the_first_batch_s_std():
    ref = RefScale()
    std = statistics.stdev(STREAM[0])
    for batch in STREAM:
        assert rewards_of(ref, batch) == pytest.approx([score / std for score in batch], rel=1e-14)
    shifted = RefScale(shift_mean=True)
    for batch in STREAM:
        expected = [(score - 1.0) / std for score in batch]
        assert rewards_of(shifted, batch) == pytest.approx(expected, rel=1e-14)


def test_ref_waits_for_two_scores_that_differ():
    ref = RefScale()
    assert rewards_of(ref, [4.0]).tolist() == [4.0]
    assert rewards_of(ref, [5.0, 5.0]).tolist() == [5.0, 5.0]
    assert rewards_of(ref, [1.0, 3.0]) == pytest.approx([1 / math.sqrt(2), 3 / math.sqrt(2)])


def test_ref_of_a_contract_is_the_scale_of_its_reference_set():
    reference = reference_statistics([1.0, 2.0, 6.0], "held-out")
    assert rewards_of(RefScale.from_reference(reference), [3.0]) == pytest.approx([3 / math.sqrt(14 / 3)])
    shifted = RefScale.from_reference(reference, shift_mean=True)
    assert rewards_of(shifted, [6.0]) == pytest.approx([3 / math.sqrt(14 / 3)])
    with pytest.raises(ConfigError, match=r"std must be a number above 0, got 0\.0"):
        RefScale.from_reference(reference_statistics([1.0, 1.0], "held-out"))


def test_from_contract_fills_in_and_refuses_another_model_s_number():
    assert from_contract("ref", {}, REFERENCE, ("mean", "std")) == {"mean": 1.5, "std": 2.0}
    assert from_contract("ref", {"std": 2.0}, REFERENCE, ("std",)) == {"std": 2.0}
    assert from_contract("ref", {"std": 7.0}, None, ("std",)) == {"std": 7.0}
    with pytest.raises(ConfigError, match="for another model"):
        from_contract("ref", {"std": 7.0}, REFERENCE, ("std",))
    with pytest.raises(ConfigError, match="the model has none"):
        from_contract("ref", {}, None, ("std",))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Running(eps=-1.0), "eps must be a number from 0 on"),
        (lambda: Running(of="rows"), "of must be tokens or sequences"),
        (lambda: RefScale(source="last"), "first_batch or contract"),
        (lambda: RefScale(std=0.0), "std must be a number above 0"),
        (lambda: RefScale(source="contract"), "std is missing"),
        (lambda: RefScale(mean=1.0), "std is missing"),
        (lambda: RefScale(mean=math.nan, std=1.0), "mean must be a finite number"),
        (lambda: RefScale(std=1.0, shift_mean=True), "needs a mean"),
    ],
)
def test_options_out_of_range_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_the_first_batch_s_statistics_are_a_state():
    ref = RefScale()
    assert ref.state_dict() == {}
    rewards_of(ref, [1.0, 3.0])
    other = RefScale()
    other.load_state_dict(ref.state_dict())
    assert other.first == ref.first == (2.0, math.sqrt(2))
    other.load_state_dict({})
    assert other.first is None
    with pytest.raises(DataError):
        other.load_state_dict({"mean": 1.0})
    with pytest.raises(DataError, match="no state"):
        RefScale(std=1.0).load_state_dict({"mean": 1.0, "std": 1.0})

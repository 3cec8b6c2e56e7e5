from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from rewardlab.errors import ConfigError, DataError
from rewardlab.rewards import RewardBatch
from rewardlab.rewards.intake import LARGEST, merge, read_share

OUT, NAN = -math.inf, math.nan
ALL = frozenset({"prompts", "baselines", "ended"})


def share_of(scores, **more):
    return read_share(RewardBatch(np.asarray(scores, dtype=np.float64), **more), frozenset(), ALL)


def test_scores_that_are_no_finite_numbers_are_refused_with_their_reason():
    share = share_of([1.0, NAN, math.inf, OUT, 2 * LARGEST, LARGEST])
    assert share.entries.values.tolist() == [1.0, LARGEST]
    assert share.entries.rows.tolist() == [0, 5]
    assert [offence.index for offence in share.offences] == [1, 2, 3, 4]
    assert math.isnan(share.offences[0].value)
    assert [offence.value for offence in share.offences[1:]] == [math.inf, OUT, 2 * LARGEST]
    reasons = " / ".join(offence.reason for offence in share.offences)
    assert "no score (NaN)" in reasons
    assert "infinite" in reasons
    assert "float32" in reasons


def test_a_masked_position_is_no_offence_and_a_nan_refuses_the_whole_completion():
    share = share_of([[1.0, 2.0, OUT], [3.0, NAN, OUT], [OUT, OUT, OUT], [4.0, OUT, 5.0]])
    assert share.entries.values.tolist() == [1.0, 2.0, 4.0, 5.0]
    assert share.entries.rows.tolist() == [0, 0, 3, 3]
    assert share.entries.last.tolist() == [False, True, False, True]
    assert [offence.index for offence in share.offences] == [1]
    filled = share.filled(np.array([10.0, 20.0, 40.0, 50.0]))
    expected = [[10.0, 20.0, OUT], [NAN, NAN, OUT], [OUT, OUT, OUT], [40.0, OUT, 50.0]]
    assert np.array_equal(filled, expected, equal_nan=True)


def test_an_infinite_baseline_refuses_its_completion_once():
    share = share_of([1.0, NAN, 3.0], baselines=np.array([math.inf, OUT, NAN]))
    assert share.offences[0].value == math.inf
    assert [offence.index for offence in share.offences] == [0, 1]
    assert "baseline" in share.offences[0].reason


@pytest.mark.parametrize("need", sorted(ALL))
def test_what_is_needed_and_not_there_is_an_error_that_says_where_to_give_it(need):
    with pytest.raises(ConfigError, match=f"needs {need}") as error:
        read_share(RewardBatch(np.array([1.0])), {need}, ALL)
    assert f"{need}=" in error.value.hint
    read_share(RewardBatch(np.array([])), {need}, ALL)  # a rank with no completions has nothing of them either


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (RewardBatch(np.zeros((1, 1, 1))), "shape"),
        (RewardBatch(np.float64(1.0)), "shape"),
        (RewardBatch([[1.0], [1.0, 2.0]]), "one array"),
        (RewardBatch(np.zeros(2), prompts=["a"]), "2 completions, 1 prompts"),
        (RewardBatch(np.zeros(1), prompts=[["a"]]), "compared"),
        (RewardBatch(np.zeros(1), prompts=5), "compared"),
        (RewardBatch(torch.zeros(1, requires_grad=True)), "one array"),
        (RewardBatch([10**400]), "one array"),
        (RewardBatch(np.zeros(2), baselines=np.zeros(3)), r"baselines must be one per completion, shape \(2,\)"),
        (RewardBatch(np.zeros(2), ended=np.array([True])), "2 times true or false"),
        (RewardBatch(np.zeros(1), ended=np.array([0.3])), "true or false, got float64"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(batch, message):
    with pytest.raises(DataError, match=message):
        read_share(batch, frozenset(), ALL)


def test_lists_and_none_are_taken_as_numbers():
    assert read_share(RewardBatch([1, None]), frozenset(), ALL).entries.values.tolist() == [1.0]


def test_only_what_is_used_is_taken_along():
    share = read_share(RewardBatch(np.zeros(1), prompts=["a"], ended=np.array([True])), frozenset(), {"ended"})
    assert (share.entries.prompts, share.entries.baselines) == (None, None)
    assert share.entries.ended.tolist() == [True]


def test_shares_are_merged_in_rank_order():
    first = share_of([[1.0], [NAN], [2.0]], prompts="aab", ended=np.array([True, True, False]))
    second = share_of([])  # of no completions the shape says nothing
    third = share_of([[3.0, 4.0]], prompts="a", ended=np.array([False]))
    entries, mine = merge([first, second, third], 2)
    assert entries.values.tolist() == [1.0, 2.0, 3.0, 4.0]
    assert entries.rows.tolist() == [0, 2, 3, 3]
    assert entries.last.tolist() == [True, True, False, True]
    assert (entries.num_rows, list(entries.prompts), entries.ended.tolist()) == (4, list("aaba"), [1, 1, 0, 0])
    assert entries.values[mine].tolist() == [3.0, 4.0]
    assert merge([first, second, third], 1)[0].values[merge([first, second, third], 1)[1]].tolist() == []


def test_what_some_ranks_have_and_others_have_not_is_an_error():
    with pytest.raises(DataError, match="some ranks have baselines"):
        merge([share_of([1.0], baselines=np.array([1.0])), share_of([1.0])], 0)
    with pytest.raises(DataError, match=r"others one per token"):
        merge([share_of([1.0]), share_of([[1.0]])], 0)

from __future__ import annotations

import math

import numpy as np
import pytest

from rewardlab.errors import DataError
from rewardlab.rewards import on_last_token, to_token_rewards

OUT = -math.inf


def test_the_scalar_lands_on_the_last_token_and_not_behind_it():
    table = on_last_token([2.0, -1.0, 0.5], [2, 4, 1])
    assert table.tolist() == [[0, 2.0, OUT, OUT], [0, 0, 0, -1.0], [0.5, OUT, OUT, OUT]]


def test_a_completion_without_reward_has_none_on_any_token():
    table = on_last_token([math.nan, 1.0], [2, 3])
    assert np.isnan(table[0, :2]).all()
    assert table[0, 2] == OUT


def test_nothing_is_an_empty_table():
    assert on_last_token([], []).shape == (0, 0)
    assert to_token_rewards([]).shape == (0, 0)


def test_an_infinite_reward_is_refused():
    with pytest.raises(DataError, match="reward 1 is -inf"):
        on_last_token([0.0, OUT], [1, 1])


@pytest.mark.parametrize(("rewards", "lengths"), [([1.0], [1, 2]), ([1.0], [0]), ([1.0], [1.5]), ([[1.0]], [1])])
def test_lengths_that_do_not_fit_are_refused(rewards, lengths):
    with pytest.raises(DataError):
        on_last_token(rewards, lengths)


def test_lists_of_different_lengths_are_padded():
    assert to_token_rewards([[1.0, 2.0], [], [3.0]]).tolist() == [[1.0, 2.0], [OUT, OUT], [3.0, OUT]]


def test_a_number_that_would_pass_for_a_mask_is_refused():
    with pytest.raises(DataError, match="row 1 has -inf"):
        to_token_rewards([[1.0], [2.0, OUT]])
    assert math.isnan(to_token_rewards([[math.nan]])[0, 0])

from __future__ import annotations

import numpy as np
import pytest

from rewardlab.errors import ConfigError, DataError
from rewardlab.rewards import Center, Clip, Delta, Entries, Group, Norm, RefScale, Running, Transform, Whiten
from rewardlab.rewards.entries import Known, require

TOKENS = Entries(
    values=np.array([1.0, 2.0, 5.0, 7.0]),
    rows=np.array([0, 0, 2, 2]),
    last=np.array([False, True, False, True]),
    num_rows=4,
)


def test_observations_are_tokens_or_the_sums_of_completions_that_have_any():
    assert TOKENS.observations("tokens").tolist() == [1.0, 2.0, 5.0, 7.0]
    assert TOKENS.observations("sequences").tolist() == [3.0, 12.0]


def test_a_mean_of_sums_is_taken_off_once_per_completion():
    assert TOKENS.shifted(1.0, "tokens").tolist() == [0.0, 1.0, 4.0, 6.0]
    assert TOKENS.shifted(1.0, "sequences").tolist() == [1.0, 1.0, 5.0, 6.0]


def test_a_transform_without_memory_has_no_state():
    clip = Clip(2.0)
    assert clip.state_dict() == {}
    clip.load_state_dict({})
    with pytest.raises(DataError, match="clip has no state, got \\['std'\\]"):
        clip.load_state_dict({"std": 1.0})
    with pytest.raises(DataError, match="clip has no state, got NoneType"):
        clip.load_state_dict(None)


def test_options_are_all_of_them():
    assert Clip().options() == {"limit": 10.0}
    assert Clip.resolved({"limit": 1.0}, Known()) == {"limit": 1.0}


def test_which_transforms_depend_on_the_rest_of_their_batch():
    assert all(one.by_batch for one in (Whiten(), Group(), Center(), RefScale()))
    others = (Clip(), Delta(), Running(), Norm(), Center("reference", 1.0), RefScale(std=2.0))
    assert not any(one.by_batch for one in others)


def test_a_transform_must_say_what_it_does():
    with pytest.raises(NotImplementedError):
        Transform().apply(TOKENS)


def test_require_names_what_came():
    require(True, Clip(), "limit", "anything")
    with pytest.raises(ConfigError, match=r"clip: limit must be small, got 10\.0"):
        require(False, Clip(), "limit", "small")

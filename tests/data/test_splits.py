"""Splits by prompt: no prompt on both sides, sizes as asked, the same for the same seed whatever the order."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardlab.data.splits import folds_by_prompt, split_by_prompt
from rewardlab.errors import ConfigError, DataError
from rewardlab.types import Pair, PromptGroup


def groups_of(sizes):
    """``sizes[n]`` groups of prompt n, shuffled, with ids in order of place."""
    prompts = [f"p{n}" for n, size in enumerate(sizes) for _ in range(size)]
    random.Random(0).shuffle(prompts)
    return [PromptGroup(prompt, ("a", "b"), (Pair(),), id=index) for index, prompt in enumerate(prompts)]


def ids(groups):
    return [group.id for group in groups]


def prompts(groups):
    return {group.prompt_key for group in groups}


sizes = st.lists(st.integers(1, 12), min_size=2, max_size=30)


@given(sizes, st.floats(0.01, 0.99), st.integers(0, 5))
def test_a_split_keeps_prompts_together_and_loses_nothing(sizes, fraction, seed):
    groups = groups_of(sizes)
    train, held = split_by_prompt(groups, fraction, seed)
    assert train
    assert held
    assert prompts(train).isdisjoint(prompts(held))
    assert sorted(ids(train) + ids(held)) == ids(groups)
    assert ids(train) == sorted(ids(train)), "each side keeps the order"


@given(sizes, st.integers(2, 5), st.integers(0, 5))
def test_folds_hold_each_group_out_once_with_its_prompt(sizes, k, seed):
    groups = groups_of(sizes)
    if len(sizes) < k:
        with pytest.raises(DataError, match="prompts"):
            folds_by_prompt(groups, k, seed)
        return
    folds = folds_by_prompt(groups, k, seed)
    assert len(folds) == k
    assert sorted(i for _, held in folds for i in ids(held)) == ids(groups)
    for train, held in folds:
        assert held
        assert prompts(train).isdisjoint(prompts(held))
        assert len(train) + len(held) == len(groups)
    # Filling the emptiest fold keeps any two within the largest prompt of each other.
    lengths = [len(held) for _, held in folds]
    assert max(lengths) - min(lengths) <= max(sizes)


@pytest.mark.parametrize("fraction", [0.05, 0.2, 0.5])
def test_the_held_out_share_is_the_one_asked_for(fraction):
    groups = groups_of([random.Random(1).randint(1, 9) for _ in range(300)])
    _, held = split_by_prompt(groups, fraction, seed=0)
    assert abs(len(held) / len(groups) - fraction) < 0.005


def test_few_large_prompts_are_still_split():
    """Three prompts of 100 rows: a tenth cannot be had, so one prompt, the least possible, is held out."""
    train, held = split_by_prompt(groups_of([100, 100, 100]), 0.1, seed=0)
    assert (len(train), len(held)) == (200, 100)


def test_the_split_depends_on_the_seed_and_the_prompts_but_not_on_the_order():
    groups = groups_of([2] * 40)
    _, held = split_by_prompt(groups, 0.25, seed=1)
    _, again = split_by_prompt(groups[::-1], 0.25, seed=1)
    _, other = split_by_prompt(groups, 0.25, seed=2)
    assert prompts(held) == prompts(again) != prompts(other)


def test_text_and_the_equal_message_are_one_prompt():
    groups = [
        PromptGroup("p", ("a",)),
        PromptGroup(({"role": "user", "content": "p"},), ("b",)),
        PromptGroup("q", ("a",)),
    ]
    train, held = split_by_prompt(groups, 0.5, seed=0)
    assert Counter(map(len, (train, held))) == Counter([1, 2])


def test_what_cannot_be_split_is_told():
    with pytest.raises(DataError, match="1 different prompts"):
        split_by_prompt(groups_of([5]), 0.5, seed=0)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        split_by_prompt(groups_of([1, 1]), 1.0, seed=0)
    with pytest.raises(ConfigError, match="at least 2 folds"):
        folds_by_prompt(groups_of([1, 1]), 1, seed=0)

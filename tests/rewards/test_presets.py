"""Each preset against its source's own arithmetic, written out in plain Python over two steps."""

from __future__ import annotations

import statistics

import numpy as np
import pytest

from rewardlab.rewards import PRESETS, RewardBatch, RewardChain

STEPS = [[1.0, 14.0, -2.0, 3.0], [-30.0, 0.5, 2.0, 2.5]]
PROMPTS = ["a", "a", "b", "b"]
EPS = 2.0**-23


def clip(values, limit=10.0):
    return [max(-limit, min(limit, value)) for value in values]


def trl(scores, seen):
    seen += scores
    return clip([(s - statistics.mean(seen)) / (statistics.stdev(seen) + EPS) for s in scores])


def trl_scaling(scores, seen):
    seen += scores
    return clip([s / (statistics.stdev(seen) + EPS) for s in scores])


def trlx(scores, seen):
    clipped = clip(scores)
    seen += clipped
    return [s / statistics.stdev(seen) for s in clipped]


def trlx_ref(scores, seen):
    clipped = clip(scores)
    if not seen:
        seen += clipped
    return [s / statistics.stdev(seen) for s in clipped]


def per_prompt(scores, formula):
    return [*formula(scores[:2]), *formula(scores[2:])]


def z(group, eps):
    return [(s - statistics.mean(group)) / (statistics.stdev(group) + eps) for s in group]


def openrlhf(scores, seen):
    return clip(per_prompt(scores, lambda group: z(group, 1e-9)))


def grpo(scores, seen):
    return per_prompt(scores, lambda group: z(group, 1e-4))


def dr_grpo(scores, seen):
    return per_prompt(scores, lambda group: [s - statistics.mean(group) for s in group])


def rloo(scores, seen):
    return per_prompt(scores, lambda group: [s - (sum(group) - s) / (len(group) - 1) for s in group])


SOURCES = {
    "default": trlx,  # without baselines
    "trl": trl,
    "trl_scaling": trl_scaling,
    "trlx": trlx,
    "trlx_ref": trlx_ref,
    "openrlhf": openrlhf,
    "grpo": grpo,
    "dr_grpo": dr_grpo,
    "rloo": rloo,
}


def test_every_preset_has_its_source_here():
    assert list(SOURCES) == list(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_its_source(name):
    chain, seen = RewardChain.from_config(name), []
    for scores in STEPS:
        expected = SOURCES[name](scores, seen)
        ours = chain(RewardBatch(np.array(scores), prompts=PROMPTS)).rewards
        assert ours == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_the_default_takes_the_difference_where_there_is_a_baseline():
    chain = RewardChain.from_config("default")
    ours = chain(RewardBatch(np.array([3.0, 5.0, 40.0]), baselines=np.array([1.0, np.nan, 2.0]))).rewards
    std = statistics.stdev([2.0, 5.0, 10.0])
    assert ours == pytest.approx([2 / std, 5 / std, 10 / std], rel=1e-12)

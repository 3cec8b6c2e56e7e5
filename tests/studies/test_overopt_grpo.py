"""The GRPO half: measures become a curve in the gold's units (the run itself is test_grpo's and test_overopt's)."""

from __future__ import annotations

import numpy as np
import pytest

from rewardlab.studies import overopt_grpo
from rewardlab.studies.grpo import GrpoRun, Measure
from rewardlab.studies.overopt_grpo import GrpoSize, grpo_curve
from rewardlab.studies.overopt_proxies import GoldUnits
from rewardlab.studies.policy import Sample


class Lengths:
    """Scores by length."""

    def score_groups(self, groups):
        return [[float(len(one)) for one in group.completions] for group in groups]


def measure(step, texts, ratio):
    samples = tuple(tuple(Sample(text, (1,), True, 0.0) for text in own) for own in texts)
    return Measure(step, 0.0, samples, tuple((ratio,) * len(own) for own in texts))


def test_measures_become_a_curve(tmp_path, monkeypatch):
    """Gold = 10 - length. The pool's lengths are 1 and 3: mean 2, so length 4 is proxy +2 and gold -2."""
    measures = [measure(0, [("ab", "ab"), ("a", "abc")], -1e-9), measure(5, [("abcd", "abcd")] * 2, 1.5)]

    def run(policy, reward, prompts, output, *, on_measure, beta, steps, **options):
        assert (beta, steps, prompts) == (0.0, 5, ["t"])
        for one in measures:
            on_measure(one)
        return GrpoRun(output, (), tuple(measures))

    monkeypatch.setattr(overopt_grpo, "run_grpo", run)
    monkeypatch.setattr(overopt_grpo, "RewardFunction", lambda scorer: scorer)
    lengths = np.array([[1.0, 3.0], [1.0, 3.0]])
    told = []
    curve = grpo_curve(
        tmp_path,
        Lengths(),
        GoldUnits(10 - lengths, lengths),
        lambda groups: [[10.0 - len(one) for one in group.completions] for group in groups],
        prompts=["t"],
        held_out=["p", "q"],
        output=tmp_path,
        size=GrpoSize(steps=5),
        max_new_tokens=8,
        seed=0,
        report=told.append,
    )
    assert (curve.step, curve.kl) == ((0, 5), (0.0, 1.5))
    assert [point.value for point in curve.gold] == pytest.approx([0.0, -2.0])
    assert [point.value for point in curve.proxy] == pytest.approx([0.0, 2.0])
    assert curve.drop == pytest.approx(2.0)
    assert len(told) == 2

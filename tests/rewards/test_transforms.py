"""Oracles: the published formulas in plain Python and torch, TRL 1.16's own arithmetic, cases worked out by hand."""

from __future__ import annotations

import ast
import functools
import importlib.util
import math
import statistics
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rewardlab.errors import ConfigError
from rewardlab.rewards import (
    TRANSFORMS,
    Center,
    Clip,
    Delta,
    Group,
    MissingEos,
    RewardBatch,
    RewardChain,
    Temperature,
    Whiten,
    to_token_rewards,
)

FLOATS = st.floats(-50, 50).map(lambda x: round(x, 4))
SCORES = st.lists(FLOATS, min_size=2, max_size=12)


def result_of(transform, scores, **more):
    return RewardChain([transform])(RewardBatch(np.asarray(scores, dtype=np.float64), **more))


def rewards_of(transform, scores, **more):
    return result_of(transform, scores, **more).rewards


def test_the_table_has_the_names_of_the_configuration():
    names = "center running norm ref whiten group clip delta temperature missing_eos"
    assert list(TRANSFORMS) == names.split()


def test_center_by_the_batch_and_by_the_reference():
    assert rewards_of(Center(), [1.0, 2.0, 6.0]).tolist() == [-2.0, -1.0, 3.0]
    assert rewards_of(Center("reference", 1.5), [1.0, 2.0]).tolist() == [-0.5, 0.5]
    assert rewards_of(Center(), [4.25]).tolist() == [0.0]


@given(SCORES)
def test_plain_whitening_is_its_formula(scores):
    std = statistics.pstdev(scores)  # exact, as mean is: fmean's last bit, divided by 1e-8, would be seen
    expected = [(score - statistics.mean(scores)) / (std + 1e-8) for score in scores]
    assert rewards_of(Whiten(), scores) == pytest.approx(expected, rel=1e-7, abs=1e-7)


@given(SCORES, st.booleans())
def test_trl_whitening_is_its_formula_in_torch(scores, shift_mean):
    """TRL's masked_whiten: unbiased variance, rsqrt(var + 1e-8), the mean added back without shift_mean."""
    values = torch.tensor(scores, dtype=torch.float64)
    mean, var = values.mean(), values.var(correction=1)
    expected = (values - mean) * torch.rsqrt(var + 1e-8) + (0 if shift_mean else mean)
    ours = rewards_of(Whiten("trl", shift_mean), scores)
    assert ours == pytest.approx(expected.numpy(), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("scores", [[0.1] * 49, [3.7]])
def test_whitening_without_spread_gives_exactly_0_or_the_mean(scores):
    for style in ("plain", "trl"):
        assert rewards_of(Whiten(style), scores).tolist() == [0.0] * len(scores)
        assert rewards_of(Whiten(style, shift_mean=False), scores).tolist() == scores


def test_whitening_tokens_is_over_unmasked_ones():
    ours = rewards_of(Whiten(), to_token_rewards([[1.0], [2.0, 3.0]]))
    one = 1 / (math.sqrt(2 / 3) + 1e-8)
    assert ours.tolist() == [[pytest.approx(-one), -math.inf], [0.0, pytest.approx(one)]]


@functools.cache
def trl_nanstd():
    """TRL's own function, out of its file: to import that file takes many seconds, and transformers."""
    spec = importlib.util.find_spec("trl")
    tree = ast.parse((Path(spec.origin).parent / "trainer" / "utils.py").read_text(encoding="utf-8"))
    wanted = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "nanstd"]
    names = {"torch": torch}
    exec(compile(ast.Module(wanted, []), "trl", "exec"), names)
    return names["nanstd"]


def grpo(rewards: torch.Tensor, per_prompt: int, scale: str) -> torch.Tensor:
    """TRL 1.16's advantages with TRL's own nanstd: (r - group mean) / (std + 1e-4); unscorable ones are left NaN.

    Its n / (n - 1) is a float32 quotient, whatever the rewards are: it is off by up to 6e-8.
    """
    nanstd = trl_nanstd()
    grouped = rewards.view(-1, per_prompt)
    centered = rewards - torch.nanmean(grouped, dim=1).repeat_interleave(per_prompt)
    if scale == "none":
        return centered
    of_group = nanstd(grouped, dim=1).repeat_interleave(per_prompt)
    return centered / ((of_group if scale == "group" else nanstd(rewards)) + 1e-4)


@given(st.lists(FLOATS, min_size=12, max_size=12), st.sampled_from(["group", "batch", "none"]))
def test_group_is_trl_s_grpo(scores, scale):
    expected = grpo(torch.tensor(scores, dtype=torch.float64), 4, scale)
    prompts = ["a"] * 4 + ["b"] * 4 + ["c"] * 4
    assert rewards_of(Group(scale), scores, prompts=prompts) == pytest.approx(expected.numpy(), rel=1e-7, abs=1e-8)


@given(st.lists(FLOATS, min_size=6, max_size=6), st.sampled_from(["group", "batch"]))
def test_group_is_its_formula_in_float64(scores, scale):
    expected = []
    for group in (scores[:2], scores[2:]):
        std = statistics.stdev(group if scale == "group" else scores)
        expected += [(score - statistics.mean(group)) / (std + 1e-4) for score in group]
    assert rewards_of(Group(scale), scores, prompts="aabbbb") == pytest.approx(expected, rel=1e-10, abs=1e-10)


def test_group_leaves_out_unscorable_completions_as_trl_does():
    scores = [1.0, math.nan, 3.0, 7.0, 2.0, 2.5, 2.0, 9.0]
    expected = grpo(torch.tensor(scores, dtype=torch.float64), 4, "group")
    result = result_of(Group(), scores, prompts=[0] * 4 + [1] * 4)
    assert result.rewards == pytest.approx(expected.numpy(), rel=1e-7, nan_ok=True)
    assert [offence.index for offence in result.offences] == [1]


@given(st.lists(FLOATS, min_size=2, max_size=9))
def test_leave_one_out_is_the_mean_of_the_others(scores):
    expected = [score - statistics.mean(scores[:i] + scores[i + 1 :]) for i, score in enumerate(scores)]
    ours = rewards_of(Group("none", "leave_one_out"), scores, prompts=["p"] * len(scores))
    assert ours == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_groups_may_lie_mixed_and_be_of_any_size():
    """a: 1, 3 (mean 2, std sqrt 2), b: 5 alone."""
    result = result_of(Group(), [1.0, 5.0, 3.0], prompts=[("a", 1), None, ("a", 1)])
    scaled = 1 / (math.sqrt(2) + 1e-4)
    assert result.rewards == pytest.approx([-scaled, 0.0, scaled])
    assert result.statistics["group/number"] == 2
    assert result.statistics["group/share_without_spread"] == 0.5


def test_equal_scores_of_a_group_give_exactly_0():
    assert rewards_of(Group(), [0.1] * 49, prompts=[0] * 49).tolist() == [0.0] * 49


def test_group_over_tokens_is_over_all_tokens_of_the_prompt():
    """Prompt a has 1, 2 and 6: mean 3, std sqrt 7."""
    ours = rewards_of(Group(eps=1e-9), to_token_rewards([[1.0, 2.0], [6.0]]), prompts="aa")
    assert ours[0] == pytest.approx([-2 / math.sqrt(7), -1 / math.sqrt(7)])
    assert ours[1, 0] == pytest.approx(3 / math.sqrt(7))


def test_clip_says_how_many():
    result = result_of(Clip(), [-11.0, 10.0, 12.0, 3.0])
    assert result.rewards.tolist() == [-10.0, 10.0, 10.0, 3.0]
    assert result.statistics["clip/share_clipped"] == 0.5


def test_delta_keeps_and_counts_what_has_no_baseline():
    result = result_of(Delta(), [1.0, 2.0, 4.0, 5.0], baselines=np.array([0.5, math.nan, 6.0, 0.0]))
    assert result.rewards.tolist() == [0.5, 2.0, -2.0, 5.0]
    assert result.statistics["delta/share_without_baseline"] == 0.25


def test_delta_of_token_rewards_lowers_the_sum():
    table = to_token_rewards([[1.0, 2.0], [3.0]])
    ours = rewards_of(Delta(), table, baselines=np.array([0.5, math.nan]))
    assert ours.tolist() == [[1.0, 1.5], [3.0, -math.inf]]


def test_delta_may_be_optional():
    assert Delta().needs == {"baselines"} == Delta(optional=True).uses
    assert Delta(optional=True).needs == frozenset()
    result = result_of(Delta(optional=True), [1.0])
    assert result.rewards.tolist() == [1.0]
    assert result.statistics["delta/share_without_baseline"] == 1.0


def test_temperature_divides():
    assert rewards_of(Temperature(0.5), [1.0, -2.0]).tolist() == [2.0, -4.0]


def test_missing_eos_costs_the_penalty():
    result = result_of(MissingEos(1.5), [1.0, 2.0], ended=np.array([True, False]))
    assert result.rewards.tolist() == [1.0, 0.5]
    assert result.statistics["missing_eos/share_not_ended"] == 0.5
    table = to_token_rewards([[1.0, 2.0], [3.0]])
    tokens = rewards_of(MissingEos(1.0), table, ended=np.array([False, False]))
    assert tokens.tolist() == [[1.0, 1.0], [2.0, -math.inf]]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Center("reference"), "by='reference' with mean=None"),
        (lambda: Center("batch", 1.0), "by='batch' with mean=1.0"),
        (lambda: Center("mode"), "batch or reference"),
        (lambda: Center("reference", math.inf), "finite"),
        (lambda: Whiten("zca"), "plain or trl"),
        (lambda: Group("std"), "group, batch or none"),
        (lambda: Group(baseline="median"), "mean or leave_one_out"),
        (lambda: Group(eps=0.0), "above 0"),
        (lambda: Clip(0.0), "above 0"),
        (lambda: Clip(math.inf), "above 0"),
        (lambda: Temperature(0.0), "above 0"),
        (lambda: Temperature(math.nan), "above 0"),
        (lambda: MissingEos(-1.0), "from 0 on"),
    ],
)
def test_options_out_of_range_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize("name", TRANSFORMS)
def test_every_transform_states_its_formula(name):
    text = TRANSFORMS[name].__doc__ or ""
    assert "s <-" in text or "(s - mean)" in text or "[-limit, limit]" in text

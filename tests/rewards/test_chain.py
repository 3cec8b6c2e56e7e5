from __future__ import annotations

import json
import math
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rewardlab.errors import ConfigError, DataError
from rewardlab.rewards import (
    PRESETS,
    TRANSFORMS,
    Clip,
    Group,
    Norm,
    RefScale,
    RewardBatch,
    RewardChain,
    Running,
    to_token_rewards,
)

NAN, INF = math.nan, math.inf
PROMPTS = "abcd"
PAGE = (Path(__file__).resolve().parents[2] / "docs" / "rewards.md").read_text(encoding="utf-8")

EVERY = [
    {"missing_eos": {"penalty": 0.5}},
    "delta",
    {"temperature": {"value": 0.7}},
    {"clip": {"limit": 4}},
    {"ref": {"shift_mean": True}},
    "running",
    "norm",
    "center",
    "whiten",
    "group",
]
"""All transforms at once, which nobody would do."""


def batch_of(rows):
    """Rows of (score, prompt number, baseline, ended)."""
    scores, prompts, baselines, ended = zip(*rows, strict=True) if rows else ((), (), (), ())
    return RewardBatch(
        np.array(scores, dtype=np.float64),
        prompts=[PROMPTS[prompt] for prompt in prompts],
        baselines=np.array(baselines, dtype=np.float64),
        ended=np.array(ended, dtype=bool),
    )


SCORE = st.one_of(st.floats(-100, 100), st.sampled_from([NAN, INF, -INF, 0.0, 1.0]), st.floats())
ROW = st.tuples(SCORE, st.integers(0, 3), st.one_of(st.floats(-10, 10), st.just(NAN)), st.booleans())
BATCHES = st.lists(st.lists(ROW, max_size=6), min_size=1, max_size=6)


def bits(array):
    return np.asarray(array, dtype=np.float64).tobytes()


@settings(max_examples=40)
@given(BATCHES, st.data())
def test_saved_at_step_k_and_restored_the_remaining_rewards_are_bit_equal(batches, data):
    k = data.draw(st.integers(0, len(batches)))
    whole, first, rest = (RewardChain.from_config(EVERY) for _ in range(3))
    expected = [whole(batch_of(rows)) for rows in batches]
    for rows in batches[:k]:
        first(batch_of(rows))
    with tempfile.TemporaryDirectory() as folder:
        first.save(Path(folder) / "state.json")
        rest.load(Path(folder) / "state.json")
    ours = [rest(batch_of(rows)) for rows in batches[k:]]
    assert [bits(result.rewards) for result in ours] == [bits(result.rewards) for result in expected[k:]]
    assert [result.statistics for result in ours] == [result.statistics for result in expected[k:]]
    assert rest.state_dict() == whole.state_dict()


@settings(max_examples=40)
@given(BATCHES)
def test_offences_move_nothing_and_everything_else_has_a_finite_reward(batches):
    """A chain that never saw the refused completions ends in the same state, and gives the others the same rewards."""
    chain, clean = RewardChain.from_config(EVERY), RewardChain.from_config(EVERY)
    for rows in batches:
        result = chain(batch_of(rows))
        refused = {offence.index for offence in result.offences}
        assert refused == {i for i, row in enumerate(rows) if not abs(row[0]) <= 3.4028234663852886e38}
        kept = [row for i, row in enumerate(rows) if i not in refused]
        rewards = clean(batch_of(kept)).rewards
        assert np.isfinite(rewards).all()
        assert bits(result.rewards[[i for i in range(len(rows)) if i not in refused]]) == bits(rewards)
        assert np.isnan(result.rewards[sorted(refused)]).all()
        assert chain.state_dict() == clean.state_dict()
        assert all(map(math.isfinite, result.statistics.values()))


def test_the_order_is_the_declared_one():
    """Clip to 1, then center: 1, 1, 0 less 2/3. Center, then clip: 2, -1, -1 clipped."""
    scores = RewardBatch(np.array([4.0, 1.0, 0.0]))
    clip_first = RewardChain.from_config([{"clip": {"limit": 1}}, "center"])
    assert clip_first(scores).rewards == pytest.approx([1 / 3, 1 / 3, -2 / 3])
    center_first = RewardChain.from_config(["center", {"clip": {"limit": 1}}])
    assert center_first(scores).rewards == pytest.approx([1.0, -2 / 3, -1.0])


def test_a_batch_with_nothing_finite_changes_no_state():
    chain = RewardChain.from_config(["running", "ref", "norm"])
    for scores in ([], [NAN, INF], [[-INF, -INF]]):
        result = chain(RewardBatch(np.array(scores)))
        assert not np.isfinite(result.rewards).any()
        assert set(result.statistics) == {"offences"}
        assert chain.state_dict() == RewardChain.from_config(["running", "ref", "norm"]).state_dict()


def test_statistics_are_of_scores_before_of_rewards_after_and_of_each_transform():
    """3, 5, 40 clipped to 3, 5, 10: mean 6, std (ddof 1) sqrt 13; scores: mean 16, squares 169 + 121 + 576."""
    result = RewardChain.from_config(["clip", "running", {"clip": {"limit": 1}}])(
        RewardBatch(np.array([3.0, 5, 40, NAN]))
    )
    std = math.sqrt(13)
    rewards = [3 / std, 1.0, 1.0]
    expected = {
        "offences": 1.0,
        "score/mean": 16.0,
        "score/std": math.sqrt(866 / 3),
        "score/min": 3.0,
        "score/max": 40.0,
        "reward/mean": sum(rewards) / 3,
        "reward/std": float(np.std(rewards)),
        "reward/min": rewards[0],
        "reward/max": 1.0,
        "clip/share_clipped": 1 / 3,
        "running/mean": 6.0,
        "running/std": std,
        "running/count": 3.0,
        "clip_2/share_clipped": 2 / 3,
    }
    assert result.statistics == pytest.approx(expected, rel=1e-12)


def test_statistics_of_token_rewards_are_of_completions_sums():
    result = RewardChain([])(RewardBatch(to_token_rewards([[1.0, 2.0], [5.0]])))
    assert (result.statistics["score/mean"], result.statistics["reward/std"]) == (4.0, 1.0)
    assert result.rewards.tolist() == [[1.0, 2.0], [5.0, -INF]]


def test_a_refused_batch_moves_nothing():
    chain = RewardChain([Running(), Group()])
    with pytest.raises(ConfigError, match="the chain needs prompts"):
        chain(RewardBatch(np.array([1.0, 5.0])))
    assert chain.state_dict() == RewardChain([Running(), Group()]).state_dict()


def test_needs_and_uses():
    assert RewardChain.from_config(EVERY).needs == {"prompts", "baselines", "ended"}
    default = RewardChain.from_config("default")
    assert (default.needs, default.uses) == (frozenset(), {"baselines"})


def test_one_transform_may_not_stand_twice():
    clip = Clip()
    with pytest.raises(ConfigError, match="twice"):
        RewardChain([clip, clip])
    RewardChain([Clip(), Clip()])


def test_a_configuration_makes_the_same_chain():
    assert RewardChain.from_config(EVERY).to_config() == EVERY


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ([Running()], "another chain: running; this one is clip, running"),
        ([Running(), Clip()], "another chain: running, clip"),
        ([], "another chain: nothing"),
        ([Clip(5.0), Running()], "clip with {'limit': 5.0}, and here it has {'limit': 10.0}"),
        ([Clip(), Running(of="sequences")], "running with"),
    ],
)
def test_another_chain_s_state_is_refused(other, message):
    chain = RewardChain([Clip(), Running()])
    with pytest.raises(ConfigError, match=message):
        chain.load_state_dict(RewardChain(other).state_dict())


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"version": 2, "transforms": []}',
        '{"version": 1, "transforms": [3]}',
        '{"version": 1, "transforms": {"name": "norm"}}',
    ],
)
def test_a_file_that_is_no_state_is_refused(tmp_path, text):
    path = tmp_path / "state.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"state\.json") as error:
        RewardChain([Norm()]).load(path)
    assert "damaged" in error.value.hint


def test_a_damaged_number_is_refused_and_nothing_is_changed(tmp_path):
    chain, path = RewardChain([Norm(), RefScale()]), tmp_path / "sub" / "state.json"
    chain(RewardBatch(np.array([1.0, 2.0])))
    chain.save(path)
    before = chain.state_dict()
    chain(RewardBatch(np.array([5.0])))
    moved = chain.state_dict()
    damaged = json.loads(path.read_text())
    damaged["transforms"][1]["state"]["std"] = None
    path.write_text(json.dumps(damaged))
    with pytest.raises(DataError, match=r"state\.json: .*std must be a finite number, got None"):
        chain.load(path)
    assert chain.state_dict() == moved != before
    with pytest.raises(DataError, match="cannot be read"):
        chain.load(tmp_path / "none.json")
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["state.json"], "nothing is left beside it"


@pytest.mark.parametrize("state", [{"mean": 0.0, "std": 0.0}, {"mean": 0.0, "std": -1.0}, None, [], 10**400])
def test_a_damaged_reference_is_refused(state):
    chain = RewardChain([Running(), RefScale()])
    chain(RewardBatch(np.array([1.0, 2.0])))
    before = chain.state_dict()
    damaged = chain.state_dict()
    damaged["transforms"][1]["state"] = state
    with pytest.raises(DataError, match="first batch"):
        chain.load_state_dict(damaged)
    assert chain.state_dict() == before


def test_whatever_a_transform_raises_at_loading_every_state_is_as_before():
    class Strict(Running):
        def load_state_dict(self, state):
            if state["mean"] == 7.0:
                raise KeyError("no error of ours")
            super().load_state_dict(state)

    chain = RewardChain([Running(), Strict()])
    chain(RewardBatch(np.array([1.0, 2.0])))
    before, other = chain.state_dict(), chain.state_dict()
    other["transforms"][0]["state"]["mean"], other["transforms"][1]["state"]["mean"] = 5.0, 7.0
    with pytest.raises(KeyError):
        chain.load_state_dict(other)
    assert chain.state_dict() == before


@pytest.mark.parametrize(
    ("spec", "scores", "name"),
    [
        (["running", {"temperature": {"value": 1e-310}}, "norm"], [1e30, 1.0], "temperature makes inf of "),
        (["running", "temperature", {"temperature": {"value": 1e-310}}], [1e30, 1.0], "temperature_2 makes inf of "),
        (["running", {"ref": {"std": 1e-310}}], [0.0, 1.0], "ref makes inf of "),
        ([{"temperature": {"value": 1e-200}}, "running"], [1.0, 2.0], "temperature makes 2e+200 of 2.0"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_transform_that_leaves_the_numbers_is_named_and_no_state_moves(spec, scores, name):
    """1e200 is a number, but its square is none: the moments would be infinite, and all rewards 0 ever after."""
    chain = RewardChain.from_config(spec, temperature=1.0)
    chain(RewardBatch(np.zeros(2)))
    before = chain.state_dict()
    with pytest.raises(DataError, match=re.escape(name)):
        chain(RewardBatch(np.array(scores)))
    assert chain.state_dict() == before


def test_without_update_rewards_are_the_same_and_the_state_stays():
    batch = RewardBatch(np.array([1.0, 5.0, NAN]))
    spec = ["ref", "running", "norm"]
    chain, moved = RewardChain.from_config(spec), RewardChain.from_config(spec)
    for each in (chain, moved):
        each(RewardBatch(np.array([2.0, 3.0])))
    before = chain.state_dict()
    result, expected = chain(batch, update=False), moved(batch)
    assert bits(result.rewards) == bits(expected.rewards)
    assert result.statistics == expected.statistics
    assert chain.state_dict() == before != moved.state_dict()
    fresh = RewardChain([RefScale()])
    fresh(batch, update=False)
    assert fresh.state_dict() == RewardChain([RefScale()]).state_dict(), "no first batch either"


def test_numbers_of_numpy_are_options_that_can_be_saved(tmp_path):
    chain = RewardChain([Clip(np.float32(3.3)), Group(eps=np.float64(1e-3))])
    chain.save(tmp_path / "state.json")
    same = RewardChain.from_config(chain.to_config())
    same.load(tmp_path / "state.json")
    assert same.transforms[0].limit == float(np.float32(3.3))


def ranks_of(parts):
    """A gather for one process that plays several ranks: it is told the others' parts first."""

    def chain_on(rank, spec, batches):
        collected = []

        def record(part):
            collected.append(part)
            raise InterruptedError

        for batch in batches:
            with pytest.raises(InterruptedError):
                RewardChain.from_config(spec, gather=record)(batch)
        return RewardChain.from_config(spec, gather=lambda part: (collected, rank))(batches[rank])

    return [chain_on(rank, EVERY, parts) for rank in range(len(parts))]


def test_ranks_of_different_sizes_are_one_batch():
    rows = [(3.0, 0, 1.0, True), (NAN, 1, 0.0, True), (-2.0, 0, NAN, False), (9.0, 1, 2.0, True), (1.0, 1, 0.5, False)]
    one = RewardChain.from_config(EVERY)(batch_of(rows))
    several = ranks_of([batch_of(rows[:2]), batch_of([]), batch_of(rows[2:])])
    assert bits(np.concatenate([result.rewards for result in several])) == bits(one.rewards)
    assert all(result.statistics == one.statistics for result in several)
    assert [[offence.index for offence in result.offences] for result in several] == [[1], [], []]


def test_what_one_rank_refuses_is_refused_on_all():
    with pytest.raises(ConfigError, match="rank 1: the chain needs prompts"):
        ranks_of(
            [batch_of([(1.0, 0, 0.0, True)]), RewardBatch(np.array([1.0]), ended=np.array([True]), baselines=[0.0])]
        )


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([[1.0, 2.0]], r"others one per token, shape \(n, tokens\)"),
        (torch.tensor([1.0], requires_grad=True), r"rank 1: scores must be numbers in one array: .*grad"),
        ([10**400], "rank 1: scores must be numbers in one array"),
    ],
)
def test_what_fits_on_one_rank_only_is_refused_on_all(scores, message):
    """For each of two ranks: one that raised alone would leave the other waiting."""
    told = []
    for batch in (RewardBatch(np.array([1.0])), RewardBatch(scores)):
        with pytest.raises(InterruptedError):
            RewardChain([Running()], gather=lambda share: told.append(share) or _interrupt())(batch)
    for rank in range(2):
        chain = RewardChain([Running()], gather=lambda _, rank=rank: (told, rank))
        with pytest.raises(DataError, match=message):
            chain(RewardBatch(np.array([1.0])))
        assert chain.state_dict() == RewardChain([Running()]).state_dict()


def _interrupt():
    raise InterruptedError


def test_the_page_names_every_transform_option_preset_and_statistic():
    options = {
        field
        for kind in TRANSFORMS.values()
        for field in kind.__dataclass_fields__
        if field not in ("moments", "first")
    }
    assert [name for name in (*TRANSFORMS, *PRESETS) if f"| `{name}` |" not in PAGE] == []
    assert [option for option in options if f"`{option}" not in PAGE] == []
    rows = [(3.0, 0, 1.0, True), (4.0, 1, 1.0, True)]
    named = {name.replace("norm/", "running/") for name in RewardChain.from_config(EVERY)(batch_of(rows)).statistics}
    assert [name for name in named if f"`{name}`" not in PAGE] == []


def test_the_page_s_examples_run():
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(block, "docs/rewards.md", "exec"), {"__name__": "__main__"})
    chain = RewardChain.from_config("default")
    result = chain(RewardBatch(np.array([1.2, -0.3, 14.0, NAN])))
    assert (result.offences[0].index, result.offences[0].reason) == (3, "there is no score (NaN)")

"""Several rewards as one: what runs on what, what a weight means, and what happens to what is missing."""

from __future__ import annotations

import asyncio
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from rewardlab.errors import ConfigError, DataError
from rewardlab.rewards.chain import RewardChain
from rewardlab.rewards.combining import CombinedReward, RewardPart
from rewardlab.rewards.scaling import Running
from rewardlab.rewards.transforms import Clip

PROMPTS = ["p", "p", "q", "q"]
COMPLETIONS = ["a", "bb", "ccc", "dddd"]


class Recorded:
    """A reward function that gives what a table says, and remembers what it was asked."""

    def __init__(self, table: dict[str, float | None]) -> None:
        self.table = table
        self.calls: list[dict] = []

    def __call__(self, prompts, completions, **columns):
        self.calls.append({"prompts": prompts, "completions": completions, **columns})
        return [self.table[completion] for completion in completions]


def given(*values: float | None) -> Recorded:
    return Recorded(dict(zip(COMPLETIONS, values, strict=True)))


def whitened(*values: float) -> np.ndarray:
    array = np.array(values)
    return (array - array.mean()) / (array.std() + 1e-8)


def test_each_part_is_whitened_before_its_weight():
    """Lengths in the thousands against scores near 1: with equal weights each adds a spread of 1."""
    lengths, scores = given(1000, 3000, 2000, 9000), given(0.1, 0.4, -0.3, 0.2)
    reward = CombinedReward([RewardPart("length", lengths), RewardPart("score", scores, weight=2.0)])
    result = reward.combine(PROMPTS, COMPLETIONS)
    wanted = whitened(1000, 3000, 2000, 9000) + 2 * whitened(0.1, 0.4, -0.3, 0.2)
    np.testing.assert_allclose(result.rewards, wanted, rtol=1e-12)
    assert result.statistics["length/contribution"] == pytest.approx(1.0)
    assert result.statistics["score/contribution"] == pytest.approx(2.0)
    assert result.statistics["length/mean"] == 3750
    assert result.values["score"].tolist() == [0.1, 0.4, -0.3, 0.2]
    assert reward(PROMPTS, COMPLETIONS) == result.rewards.tolist()


def test_a_part_has_the_transforms_it_names():
    parts = [
        RewardPart("raw", given(1, 2, 3, 4), transforms=[]),
        RewardPart("clipped", given(-9, 9, 0, 1), transforms=[{"clip": {"limit": 2}}]),
        RewardPart("group", given(0, 1, 5, 5), transforms=RewardChain.from_config(["group"])),
    ]
    result = CombinedReward(parts).combine(PROMPTS, COMPLETIONS)
    group = [-0.5 / (math.sqrt(0.5) + 1e-4), 0.5 / (math.sqrt(0.5) + 1e-4), 0.0, 0.0]  # ddof 1, by prompt
    np.testing.assert_allclose(result.rewards, np.array([[1, 2, 3, 4], [-2, 2, 0, 1], group]).sum(axis=0), rtol=1e-9)


def test_what_fails_a_required_part_is_asked_nothing_more():
    first, second, model = given(1, 1, 0, 1), given(1, 0.5, 1, 1), given(2, 4, 8, 16)
    reward = CombinedReward(
        [
            RewardPart("model", model),  # given first, run last
            RewardPart("first", first, weight=0, required=True),
            RewardPart("second", second, weight=0, required=True),
        ]
    )
    result = reward.combine(PROMPTS, COMPLETIONS)
    assert [call["completions"] for call in (*first.calls, *second.calls, *model.calls)] == [
        COMPLETIONS,
        ["a", "bb", "dddd"],
        ["a", "dddd"],
    ]
    assert result.failed.tolist() == [False, True, True, False]
    np.testing.assert_allclose(result.rewards, [-1, -3, -3, 1], rtol=1e-7)  # whitened over the two that passed
    statistics = {name: result.statistics[name] for name in ("failed", "first/failed", "second/failed", "model/asked")}
    assert statistics == {"failed": 0.5, "first/failed": 1, "second/failed": 1, "model/asked": 2}


def test_a_required_part_may_ask_for_less_than_everything_and_have_a_weight():
    tests = given(0.25, 0.5, 1.0, 0.75)
    part = RewardPart("tests", tests, weight=3.0, required=True, passes_at=0.5)
    result = CombinedReward([part], failure_reward=-7.0).combine(PROMPTS, COMPLETIONS)
    np.testing.assert_allclose(result.rewards, [-7.0, *(3 * whitened(0.5, 1.0, 0.75))])


def test_where_nothing_passes_no_model_is_run():
    model = given(1, 1, 1, 1)
    reward = CombinedReward([RewardPart("check", given(0, 0, 0, 0), weight=0, required=True), RewardPart("m", model)])
    assert reward(PROMPTS, COMPLETIONS) == [-3.0] * 4
    assert model.calls == []


def test_a_missing_part_is_stood_for_by_the_others():
    """Row 2 has only the model: its 1.0 x z counts as the whole weight of 1.0 + 3.0 does."""
    check, model = given(1, None, 0, 1), given(1, 2, 3, 6)
    reward = CombinedReward([RewardPart("check", check, weight=3.0), RewardPart("model", model)])
    result = reward.combine(PROMPTS, COMPLETIONS)
    checked, scored = whitened(1, 0, 1), whitened(1, 2, 3, 6)
    wanted = [3 * checked[0] + scored[0], 4 * scored[1], 3 * checked[1] + scored[2], 3 * checked[2] + scored[3]]
    np.testing.assert_allclose(result.rewards, wanted, rtol=1e-9)
    assert result.statistics["check/none"] == 1


def test_nothing_known_is_none_and_counted():
    """Row 0: no weighted part; row 1: a required part that could not be checked; NaN is None as well."""
    required, model = given(1, None, 1, 1), given(None, 5, float("nan"), 2)
    reward = CombinedReward([RewardPart("check", required, weight=0, required=True), RewardPart("model", model)])
    result = reward.combine(PROMPTS, COMPLETIONS)
    assert reward(PROMPTS, COMPLETIONS) == [None, None, None, 0.0]
    assert result.statistics["none"] == 0.75
    assert result.statistics["model/none"] == 2
    assert result.statistics["model/asked"] == 3
    assert "model/mean" in result.statistics
    assert not result.failed.any()


@pytest.mark.parametrize("wrong", [math.inf, -math.inf, 1e39])
def test_an_infinite_value_is_an_offence_that_nothing_stands_for(wrong):
    """The length alone would count twice for row 2, as where the model gave None; the model is broken instead."""
    model, length = given(1, 2, wrong, 6), given(1, 2, 3, 6)
    reward = CombinedReward([RewardPart("model", model), RewardPart("length", length)])
    result = reward.combine(PROMPTS, COMPLETIONS)
    assert [(offence.index, offence.value) for offence in result.offences] == [(2, wrong)]
    assert "part 'model' gave" in result.offences[0].reason
    scored, measured = whitened(1, 2, 6), whitened(1, 2, 3, 6)
    np.testing.assert_allclose(result.rewards[[0, 1, 3]], scored + measured[[0, 1, 3]], rtol=1e-9)
    assert reward(PROMPTS, COMPLETIONS)[2] is None
    statistics = {name: result.statistics[name] for name in ("offences", "model/none", "none", "model/mean")}
    assert statistics == {"offences": 1, "model/none": 0, "none": 0.25, "model/mean": 3}


@pytest.mark.parametrize("wrong", [math.inf, -math.inf])
def test_an_infinite_value_neither_passes_nor_fails_a_required_part(wrong):
    model = given(1, 2, 3, 4)
    reward = CombinedReward([RewardPart("check", given(1, wrong, 0, 1), required=True), RewardPart("model", model)])
    result = reward.combine(PROMPTS, COMPLETIONS)
    assert model.calls[0]["completions"] == ["a", "dddd"]
    assert result.failed.tolist() == [False, False, True, False]
    assert np.isnan(result.rewards).tolist() == [False, True, False, False]


def test_parts_that_never_gave_anything_leave_no_statistics():
    reward = CombinedReward([RewardPart("model", given(None, None, None, None))])
    assert reward(PROMPTS, COMPLETIONS) == [None] * 4
    assert "reward_mean" not in reward.combine(PROMPTS, COMPLETIONS).statistics
    assert reward([], []) == []


def test_columns_are_cut_with_the_completions():
    model, state = given(1, 2, 3, 4), object()
    reward = CombinedReward([RewardPart("check", given(1, 0, 1, 0), weight=0, required=True), RewardPart("m", model)])
    reward(PROMPTS, COMPLETIONS, answer=["1", "2", "3", "4"], trainer_state=state, completion_ids=[[1], [2], [3], [4]])
    (call,) = model.calls
    assert call["prompts"] == ["p", "q"]
    assert (call["answer"], call["completion_ids"]) == (["1", "3"], [[1], [3]])
    assert call["trainer_state"] is state


def test_what_a_part_logs_has_a_row_for_every_completion():
    """TRL joins the columns to the table of completions: a part that saw two of four must not log two rows."""
    tables: dict[str, list] = {}
    metrics: dict[str, float] = {}

    def model(prompts, completions, log_extra, **columns):
        log_extra("seen", completions)
        return [1.0] * len(completions)

    reward = CombinedReward([RewardPart("check", given(1, 0, 1, 0), weight=0, required=True), RewardPart("m", model)])
    reward(PROMPTS, COMPLETIONS, log_extra=tables.__setitem__, log_metric=metrics.__setitem__)
    assert tables == {"seen": ["a", None, "ccc", None]}
    assert metrics["rewards/combined/failed"] == 0.5
    assert metrics["rewards/combined/m/asked"] == 2
    assert all(name.startswith("rewards/combined/") for name in metrics)


def test_a_part_that_is_not_asked_leaves_no_rows_of_an_earlier_step_in_the_table():
    """TRL keeps the last rows of every column, as many as completions: one that is not written shows old ones."""
    table: dict[str, list] = {}

    def log_extra(column: str, rows: list) -> None:
        table[column] = [*table.get(column, []), *rows][-len(COMPLETIONS) :]

    def model(prompts, completions, log_extra, **columns):
        log_extra("seen", completions)
        for completion in completions:  # as it goes: TRL appends
            log_extra("length", [len(completion)])
        return [1.0] * len(completions)

    check = given(1, 1, 1, 1)
    parts = [RewardPart("check", check, weight=0, required=True), RewardPart("m", model)]
    reward, silent = CombinedReward(parts), CombinedReward(parts)
    reward(PROMPTS, COMPLETIONS, log_extra=log_extra)
    assert table == {"seen": COMPLETIONS, "length": [1, 2, 3, 4]}
    check.table = dict.fromkeys(COMPLETIONS, 0)
    silent(PROMPTS, COMPLETIONS, log_extra=log_extra)  # it has never been asked: which columns is not known
    assert table["seen"] == COMPLETIONS
    reward(PROMPTS, COMPLETIONS)
    reward(PROMPTS, COMPLETIONS, log_extra=log_extra)
    assert table == {"seen": [None] * 4, "length": [None] * 4}


class Trainer:
    """A trainer in evaluation, as far as reward functions see one."""

    model = SimpleNamespace(training=False)

    def log_metric(self, name: str, value: float) -> None:
        """Nothing."""


def test_in_evaluation_running_statistics_are_used_and_do_not_move():
    def made() -> CombinedReward:
        return CombinedReward([RewardPart("m", given(1, 2, 4, 8), transforms=["running"])])

    reward, other, trainer = made(), made(), Trainer()
    for each in (reward, other):
        each(PROMPTS, COMPLETIONS)
    before = reward.state_dict()
    rewards = reward(PROMPTS, COMPLETIONS, log_metric=trainer.log_metric)
    assert reward.state_dict() == before
    trainer.model = SimpleNamespace(training=True)
    assert rewards == other(PROMPTS, COMPLETIONS, log_metric=trainer.log_metric)
    assert other.state_dict() != before


def test_prompts_and_completions_may_be_messages():
    def length(prompts, completions, **columns):
        return [len(completion[0]["content"]) for completion in completions]

    prompts = [[{"role": "user", "content": prompt}] for prompt in PROMPTS]
    completions = [[{"role": "assistant", "content": completion}] for completion in COMPLETIONS]
    rewards = CombinedReward([RewardPart("length", length, transforms=["group"])])(prompts, completions)
    assert rewards[0] == rewards[2] == pytest.approx(-0.5 / (math.sqrt(0.5) + 1e-4))


def test_state_goes_on_where_it_was():
    def made() -> CombinedReward:
        return CombinedReward([RewardPart("m", given(1, 2, 4, 8), transforms=["running"])])

    first, second = made(), made()
    first(PROMPTS, COMPLETIONS)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert first(PROMPTS, COMPLETIONS) == second(PROMPTS, COMPLETIONS)
    with pytest.raises(ConfigError, match=r"parts \['x'\]"):
        second.load_state_dict({"x": {}})
    for wrong in (None, 5, [], "m"):
        with pytest.raises(ConfigError, match="these are"):
            second.load_state_dict(wrong)


@pytest.mark.parametrize("broken", [{"mean": 0.0}, None, "x"])
def test_a_state_is_taken_whole_or_not_at_all(broken):
    """The second part's state is damaged: the first must not have gone on with the new one."""

    def made() -> CombinedReward:
        parts = [RewardPart(name, given(1, 2, 4, 8), transforms=["running"]) for name in ("a", "b")]
        return CombinedReward(parts)

    first, second = made(), made()
    first(PROMPTS, COMPLETIONS)
    state = first.state_dict()
    state["b"]["transforms"][0]["state"] = broken
    before = second.state_dict()
    with pytest.raises(DataError):
        second.load_state_dict(state)
    assert second.state_dict() == before


def test_parts_with_one_transform_between_them_are_refused():
    """Lengths and scores in one running std: neither would be whitened by its own."""
    chain, clip = RewardChain.from_config(["running"]), Clip(1.0)
    for one, other in ((chain, chain), (RewardChain([clip]), RewardChain([clip, Running()]))):
        parts = [
            RewardPart("a", given(1, 1, 1, 1), transforms=one),
            RewardPart("b", given(1, 1, 1, 1), transforms=other),
        ]
        with pytest.raises(ConfigError, match="'a' and 'b' have one"):
            CombinedReward(parts)


@pytest.mark.parametrize("answer", [None, 1.0, "1234", ["x"] * 4, ["1.0"] * 4, [[1.0]] * 4, [{}] * 4])
def test_a_part_that_gives_no_numbers_is_named(answer):
    reward = CombinedReward([RewardPart("broken", lambda prompts, completions, **columns: answer)])
    with pytest.raises(DataError, match="'broken' gave"):
        reward(PROMPTS, COMPLETIONS)


@pytest.mark.parametrize("kind", [np.array, torch.tensor, tuple])
def test_a_part_may_give_any_row_of_numbers(kind):
    reward = CombinedReward([RewardPart("m", lambda prompts, completions, **columns: kind([1.0, 2.0, 3.0, 4.0]))])
    np.testing.assert_allclose(reward(PROMPTS, COMPLETIONS), whitened(1, 2, 3, 4))


async def asynchronous(prompts, completions, **columns):
    await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([], "weight other than 0"),
        ([RewardPart("a", given(1, 1, 1, 1), weight=0)], "weight other than 0"),
        ([RewardPart("a", given(1, 1, 1, 1)), RewardPart("a", given(1, 1, 1, 1))], "different names"),
        ([RewardPart("a", given(1, 1, 1, 1), weight=math.nan)], "finite"),
        ([RewardPart("a", asynchronous)], "asynchronous"),
        ([RewardPart("a", given(1, 1, 1, 1), transforms=["delta"])], "baselines"),
        ([RewardPart("a", given(1, 1, 1, 1), transforms=["whitten"])], "whitten"),
    ],
)
def test_what_makes_no_reward_is_refused(parts, message):
    with pytest.raises(ConfigError, match=message):
        CombinedReward(parts)


def test_answers_that_do_not_fit_are_refused():
    reward = CombinedReward([RewardPart("short", lambda prompts, completions, **columns: [1.0])])
    with pytest.raises(DataError, match="'short' gave 1 values for 4"):
        reward(PROMPTS, COMPLETIONS)
    with pytest.raises(DataError, match="1 prompts but 4"):
        reward(["p"], COMPLETIONS)
    with pytest.raises(ConfigError, match="failure_reward"):
        CombinedReward([RewardPart("a", given(1, 1, 1, 1))], failure_reward=math.nan)

"""Called as verl's reward managers do: keyword arguments, from threads or tasks, ``reward_kwargs`` in every call."""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from rewardlab.adapters import single_rewards, verl
from rewardlab.adapters.verl import make_async_compute_score, make_compute_score
from rewardlab.errors import ConfigError, DataError


def rows(six, key="question") -> list[dict]:
    return [
        {"data_source": "demo", "solution_str": answer, "ground_truth": None, "extra_info": {key: prompt, "index": 0}}
        for prompt, answer in zip(*six, strict=True)
    ]


def test_sync_and_async_give_the_scorers_scores(scorer, six):
    compute, coroutine = make_compute_score(scorer), make_async_compute_score(scorer)
    assert inspect.iscoroutinefunction(coroutine)
    expected = scorer.score(*six)
    with ThreadPoolExecutor(6) as pool:
        assert [one["score"] for one in pool.map(lambda row: compute(**row), rows(six))] == pytest.approx(
            expected, abs=1e-5
        )

    async def together():
        return await asyncio.gather(*(coroutine(**row, reward_router_address=None) for row in rows(six)))

    found = asyncio.run(together())
    assert [one["score"] for one in found] == pytest.approx(expected, abs=1e-5)
    assert [one["reward_model_score"] for one in found] == [one["score"] for one in found]


def test_a_poisoned_row_fails_alone(scorer, six, too_long):
    coroutine = make_async_compute_score(scorer, max_wait_ms=50)
    given = rows(six)
    given[2]["solution_str"] = too_long

    async def together():
        return await asyncio.gather(*(coroutine(**row) for row in given), return_exceptions=True)

    found = asyncio.run(together())
    assert [isinstance(one, DataError) for one in found] == [index == 2 for index in range(6)]


def test_the_prompt_is_found_by_its_key_as_text_or_as_parquet_gives_messages(scorer):
    compute = make_compute_score(scorer, prompt_key="messages")
    expected = scorer.score(["p"], ["a poem"])[0]
    messages = np.array([{"role": "user", "content": "p"}], dtype=object)
    for prompt in ("p", messages):
        found = compute("demo", "a poem", None, {"messages": prompt, "question": "another"})
        assert found["score"] == pytest.approx(expected, abs=1e-5)
    with pytest.raises(DataError, match="looked for messages, it has question"):
        compute("demo", "a poem", None, {"question": "p"})
    with pytest.raises(DataError, match="it has nothing"):
        compute("demo", "a poem", None)


def test_a_reference_completion_comes_from_the_row(scorer):
    compute = make_compute_score(scorer, transforms=["delta"], baseline_key="answer")
    found = compute("demo", "a poem", None, {"question": "p", "answer": "the sea"})
    assert found["score"] == pytest.approx(np.subtract(*scorer.score(["p", "p"], ["a poem", "the sea"])), abs=1e-5)


def test_the_functions_that_a_configuration_names_open_their_model_once(reward_model, scorer, six, monkeypatch):
    opened = []
    original = single_rewards.SingleRewards
    monkeypatch.setattr(single_rewards, "SingleRewards", lambda *a, **k: opened.append(a) or original(*a, **k))
    kwargs = {"scorer": str(reward_model), "unscored": -1.0, "transforms": [{"clip": {"limit": 0.5}}]}
    found = [verl.compute_score(**row, **kwargs)["score"] for row in rows(six)]
    assert found == pytest.approx(np.clip(scorer.score(*six), -0.5, 0.5), abs=1e-5)
    assert asyncio.run(verl.compute_score_async(**rows(six)[0], **kwargs))["score"] == pytest.approx(found[0], abs=1e-6)
    assert opened == [(str(reward_model),)]


def test_the_scorer_may_be_named_by_the_environment(reward_model, scorer, monkeypatch):
    row = {"data_source": "demo", "solution_str": "a poem", "ground_truth": None, "extra_info": {"prompt": "p"}}
    monkeypatch.delenv(verl.SCORER, raising=False)
    with pytest.raises(ConfigError, match="no scorer is named"):
        verl.compute_score(**row)
    monkeypatch.setenv(verl.SCORER, str(reward_model))
    assert verl.compute_score(**row)["score"] == pytest.approx(scorer.score(["p"], ["a poem"])[0], abs=1e-5)


def test_the_example_file_has_what_verl_looks_for():
    path = Path(__file__).resolve().parents[2] / "examples" / "verl_reward.py"
    spec = importlib.util.spec_from_file_location("custom_module", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.compute_score is verl.compute_score
    assert inspect.iscoroutinefunction(module.compute_score_async)

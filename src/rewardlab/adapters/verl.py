"""A reward model as verl takes it: ``compute_score``, named in its configuration.

    reward.custom_reward_function.path=examples/verl_reward.py           # it imports the two functions from here
    reward.custom_reward_function.name=compute_score_async
    +reward.custom_reward_function.reward_kwargs.scorer=my-reward-model
    +reward.custom_reward_function.reward_kwargs.prompt_key=question

verl asks for one completion at a time and gives its text alone, decoded without special tokens; the prompt must be in
the row's ``extra_info``. This file knows that signature; what it does is :mod:`rewardlab.adapters.single_rewards`'.

References:
    verl: ``trainer/ppo/reward.py`` (``get_custom_reward_fn``), ``reward_manager/naive.py``.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from rewardlab.adapters.single_rewards import Single, SingleRewards, made_once
from rewardlab.adapters.text_scores import AnyText
from rewardlab.errors import ConfigError, DataError
from rewardlab.scoring.scorer import Scorer

PROMPT_KEYS = ("prompt", "raw_prompt", "question")
"""Where in ``extra_info`` a prompt is looked for, in this order, unless its key is named."""

SCORER = "REWARDLAB_SCORER"
"""The environment variable that names the scorer where ``reward_kwargs`` does not."""

Score = dict[str, float]
ComputeScore = Callable[..., Score]
AsyncComputeScore = Callable[..., Awaitable[Score]]


def make_compute_score(
    scorer: str | Path | Scorer, *, prompt_key: str | None = None, baseline_key: str | None = None, **options: Any
) -> ComputeScore:
    """``compute_score`` for one reward model, to be called from any number of threads.

    Args:
        scorer: A folder or hub id, a comma list (an ensemble), ``POLICY:REFERENCE``, or a scorer.
        prompt_key: Where in ``extra_info`` the prompt is; by default the first of :data:`PROMPT_KEYS` there is.
        baseline_key: Where in ``extra_info`` the prompt's reference completion is, for the transform ``delta``.
        **options: Of :class:`~rewardlab.adapters.single_rewards.SingleRewards` (``unscored``, ``transforms``, ...) and
            :class:`~rewardlab.adapters.rewarding.Rewarder`.

    Returns:
        A function ``(data_source, solution_str, ground_truth, extra_info, **ignored) -> {"score": reward, ...}``.
        Beside the reward stands ``reward_model_score``, the score before the transforms, and an ensemble's
        ``disagreement``. It raises DataError where there is no prompt, and where a completion has no score and
        ``unscored`` is None.

    Raises:
        ConfigError: An option that cannot be used.
    """
    rewards = SingleRewards(scorer, **options)

    def compute_score(
        data_source: Any,
        solution_str: str,
        ground_truth: Any = None,
        extra_info: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> Score:
        item = _item(solution_str, extra_info, prompt_key, baseline_key)
        return _answer(rewards.submit(item).result())

    return compute_score


def make_async_compute_score(
    scorer: str | Path | Scorer, *, prompt_key: str | None = None, baseline_key: str | None = None, **options: Any
) -> AsyncComputeScore:
    """The same as a coroutine function, whose concurrent calls are computed together.

    Args:
        scorer: As for :func:`make_compute_score`.
        prompt_key: Likewise.
        baseline_key: Likewise.
        **options: Likewise.
    """
    rewards = SingleRewards(scorer, **options)

    async def compute_score(
        data_source: Any,
        solution_str: str,
        ground_truth: Any = None,
        extra_info: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> Score:
        item = _item(solution_str, extra_info, prompt_key, baseline_key)
        return _answer(await asyncio.wrap_future(rewards.submit(item)))

    return compute_score


def compute_score(
    data_source: Any,
    solution_str: str,
    ground_truth: Any = None,
    extra_info: Mapping[str, Any] | None = None,
    *,
    scorer: str | None = None,
    prompt_key: str | None = None,
    baseline_key: str | None = None,
    reward_router_address: Any = None,
    reward_model_tokenizer: Any = None,
    **reward_kwargs: Any,
) -> Score:
    """What verl calls; configured by ``reward_kwargs``, which verl gives to every call. The model is loaded once.

    Args:
        data_source: Not used.
        solution_str: The completion.
        ground_truth: Not used.
        extra_info: The row's, with the prompt in it.
        scorer: A path or name; by default the environment variable ``REWARDLAB_SCORER``.
        prompt_key: As for :func:`make_compute_score`.
        baseline_key: Likewise.
        reward_router_address: Not used.
        reward_model_tokenizer: Not used.
        **reward_kwargs: Options as there, with plain values.

    Raises:
        ConfigError: No scorer is named, or an option cannot be used.
        DataError: There is no prompt; or the completion has no score.
    """
    rewards = made_once(_named(scorer), reward_kwargs)
    return _answer(rewards.submit(_item(solution_str, extra_info, prompt_key, baseline_key)).result())


async def compute_score_async(
    data_source: Any,
    solution_str: str,
    ground_truth: Any = None,
    extra_info: Mapping[str, Any] | None = None,
    *,
    scorer: str | None = None,
    prompt_key: str | None = None,
    baseline_key: str | None = None,
    reward_router_address: Any = None,
    reward_model_tokenizer: Any = None,
    **reward_kwargs: Any,
) -> Score:
    """:func:`compute_score` as a coroutine: what verl's managers ask for at the same time is computed together."""
    rewards = await asyncio.to_thread(made_once, _named(scorer), reward_kwargs)
    item = _item(solution_str, extra_info, prompt_key, baseline_key)
    return _answer(await asyncio.wrap_future(rewards.submit(item)))


def _named(scorer: str | None) -> str:
    name = scorer or os.environ.get(SCORER)
    if not name:
        raise ConfigError(
            "no scorer is named",
            hint=f"+reward.custom_reward_function.reward_kwargs.scorer=DIR, or the environment variable {SCORER}",
        )
    return name


def _item(
    solution: str, extra_info: Mapping[str, Any] | None, prompt_key: str | None, baseline_key: str | None
) -> Single:
    given = extra_info or {}
    keys = PROMPT_KEYS if prompt_key is None else (prompt_key,)
    found = next((given[key] for key in keys if given.get(key) is not None), None)
    if found is None:
        raise DataError(
            f"extra_info has no prompt: looked for {', '.join(keys)}, it has {', '.join(map(str, given)) or 'nothing'}",
            hint="put the prompt into extra_info when the data is prepared, and name its key: prompt_key=...",
        )
    baseline = None if baseline_key is None else given.get(baseline_key)
    return Single(_plain(found), solution, None if baseline is None else _plain(baseline))


def _plain(text: Any) -> AnyText:
    """Text or messages: parquet gives messages as an array."""
    return text if isinstance(text, str) else list(text)


def _answer(reward: Any) -> Score:
    return {"score": reward.reward, **reward.extras()}

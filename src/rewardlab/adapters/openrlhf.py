"""A reward model as OpenRLHF takes it: a file with ``reward_func``, named by ``--reward.remote_url file.py``.

    # my_reward.py
    from rewardlab.adapters.openrlhf import make_reward_func
    reward_func = make_reward_func("my-reward-model", policy="my-policy")

OpenRLHF gives the prompt as the policy's chat template wrote it, and prompt and response together, decoded with special
tokens; both are turned back into messages here, so that the reward model's own template can be applied. It asks for one
completion at a time, from many threads. This file knows those texts; what it does with them is
:mod:`rewardlab.adapters.single_rewards`'.

References:
    OpenRLHF 0.11, ``openrlhf/utils/agent.py``: ``SingleTurnAgentExecutor``; ``examples/python/reward_func.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rewardlab.adapters.single_rewards import Single, SingleRewards
from rewardlab.adapters.text_scores import AnyText
from rewardlab.data.template import render
from rewardlab.errors import CheckpointError, ConfigError, DataError
from rewardlab.scoring.scorer import Scorer
from rewardlab.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

RewardFunc = Callable[[Sequence[str], Sequence[str], Sequence[Any]], dict[str, Any]]


def make_reward_func(
    scorer: str | Path | Scorer,
    *,
    policy: str | Path | PreTrainedTokenizerBase | None = None,
    templated: bool = True,
    baseline_of: Callable[[Any], AnyText | None] | None = None,
    **options: Any,
) -> RewardFunc:
    """``reward_func`` for one reward model, to be called from any number of threads.

    Args:
        scorer: A folder or hub id, a comma list (an ensemble), ``POLICY:REFERENCE``, or a scorer.
        policy: The policy's tokenizer, or where it is: by its chat template prompts are turned back into messages, and
            its special tokens are taken off responses.
        templated: Whether prompts are as the policy's chat template wrote them (``--data.apply_chat_template``); False:
            they are plain text.
        baseline_of: Gives a row's reference completion from its label, for the transform ``delta``.
        **options: Of :class:`~rewardlab.adapters.single_rewards.SingleRewards` (``unscored``, ``transforms``, ...) and
            :class:`~rewardlab.adapters.rewarding.Rewarder`.

    Returns:
        A function ``(queries, prompts, labels) -> {"rewards", "scores", "extra_logs"}``, each a float32 tensor of shape
        (n,): the rewards; the scores before the transforms; what else is known, by name. It raises DataError where a
        query does not continue its prompt, a prompt is none of the template's, or a completion has no score and
        ``unscored`` is None.

    Raises:
        ConfigError: ``templated`` without a policy; or an option that cannot be used.

    Note:
        OpenRLHF catches what a reward function raises, logs it, and goes on without that reward.
    """
    tokenizer = _tokenizer(policy)
    if templated and tokenizer is None:
        raise ConfigError(
            "prompts come as the policy's chat template wrote them, and policy is not given",
            hint="policy='the policy', or templated=False where prompts are plain text",
        )
    read = TemplatedPrompts(tokenizer).read if templated and tokenizer is not None else str
    rewards = SingleRewards(scorer, policy_tokenizer=tokenizer, **options)

    def reward_func(queries: Sequence[str], prompts: Sequence[str], labels: Sequence[Any], **_: Any) -> dict[str, Any]:
        import torch

        futures = [
            rewards.submit(
                Single(read(prompt), response_of(query, prompt), None if baseline_of is None else baseline_of(label))
            )
            for query, prompt, label in zip(queries, prompts, labels, strict=True)
        ]
        answers = [future.result() for future in futures]
        extras = [answer.extras() for answer in answers]
        return {
            "rewards": torch.tensor([answer.reward for answer in answers], dtype=torch.float32),
            "scores": torch.tensor(
                [answer.reward if math.isnan(answer.score) else answer.score for answer in answers],
                dtype=torch.float32,
            ),
            "extra_logs": {
                name: torch.tensor([extra[name] for extra in extras], dtype=torch.float32)
                for name in (extras[0] if extras else ())
            },
        }

    return reward_func


def response_of(query: str, prompt: str) -> str:
    """What a query has beyond its prompt; OpenRLHF may have cut the oldest part of the prompt off.

    Raises:
        DataError: The query begins with no end of the prompt.
    """
    if query.startswith(prompt):
        return query[len(prompt) :]
    for start in range(1, len(prompt)):
        if query.startswith(prompt[start:]) and len(prompt) - start >= min(len(prompt), 16):
            return query[len(prompt) - start :]
    raise DataError(
        f"the query does not continue its prompt: {query[:60]!r} after {prompt[:60]!r}",
        hint="give reward_func the queries and prompts as OpenRLHF makes them",
    )


class TemplatedPrompts:
    """Turns prompts that a chat template wrote back into messages.

    What the template writes around a turn is found by rendering turns that are known; every answer is rendered again
    and must be the prompt it came from.

    Args:
        tokenizer: The policy's.

    Raises:
        ConfigError: It has no chat template, or one that changes what it is given.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        if not tokenizer.chat_template:
            raise ConfigError("the policy's tokenizer has no chat template", hint="templated=False: plain text prompts")
        roles = ("user", "assistant", "user")
        self._ways = [way for system in (True, False) if (way := self._around(("system", *roles) if system else roles))]
        if not self._ways:
            raise ConfigError(
                "the policy's chat template does not render plain turns as they are",
                hint="templated=False, and prompts as text",
            )

    def _around(self, roles: Sequence[str]) -> dict[str, str] | None:
        """What stands before the first turn, between two, and after the last; by the roles on both sides."""
        marks = [f"[[turn {number}]]" for number in range(len(roles))]
        text = self._render([{"role": r, "content": m} for r, m in zip(roles, marks, strict=True)])
        if text is None or any(text.count(mark) != 1 for mark in marks):
            return None
        around, rest = {}, text
        for before, role, mark in zip(("", *roles), roles, marks, strict=False):
            around[f"{before}>{role}"], _, rest = rest.partition(mark)
        return around | {"end": rest}

    def _render(self, messages: Sequence[Message]) -> str | None:
        try:
            return render(self._tokenizer, messages, add_generation_prompt=True)
        except CheckpointError:
            return None

    def read(self, prompt: str) -> list[Message]:
        """The messages of a prompt.

        Raises:
            DataError: The template gives no such prompt.
        """
        for around in self._ways:
            messages = self._read(prompt, around)
            if messages and self._render(messages) == prompt:
                return messages
        raise DataError(
            f"no prompt of the policy's chat template: {prompt[:80]!r}",
            hint="is it the policy's own tokenizer? For plain text prompts: templated=False",
        )

    def _read(self, prompt: str, around: dict[str, str]) -> list[Message]:
        first = "system" if ">system" in around else "user"
        start, end = around[f">{first}"], around["end"]
        if not (prompt.startswith(start) and prompt.endswith(end)):
            return []
        rest = prompt[len(start) : len(prompt) - len(end)] if end else prompt[len(start) :]
        messages: list[Message] = []
        role = first
        while True:
            following = "assistant" if role == "user" else "user"
            separator = around[f"{role}>{following}"]
            content, found, rest = rest.partition(separator)
            messages.append({"role": role, "content": content})
            if not found:
                return messages
            role = following


def _tokenizer(policy: str | Path | PreTrainedTokenizerBase | None) -> PreTrainedTokenizerBase | None:
    if policy is None or not isinstance(policy, str | Path):
        return policy
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(policy)

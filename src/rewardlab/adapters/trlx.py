"""A reward model as trlX takes it: ``reward_fn(samples, prompts, outputs, tokenizer, **metadata)``.

    trlx.train(reward_fn=make_reward_fn("my-reward-model", transforms=["delta"], baseline="original_output"), ...)

trlX is unmaintained; this is for runs that exist. It computes rewards on its main process alone, for the completions of
all, and clips and scales them itself (``cliprange_reward``, ``scale_reward``). This file knows that signature.

References:
    trlX, ``trlx/trainer/accelerate_ppo_trainer.py``: ``make_experience``; ``examples/hh/ppo_hh.py`` (the delta reward).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rewardlab.adapters.rewarding import Rewarder
from rewardlab.adapters.text_scores import EndTokens
from rewardlab.errors import DataError
from rewardlab.rewards.gathering import alone
from rewardlab.scoring.scorer import Scorer

RewardFn = Callable[..., list[float]]


def make_reward_fn(
    scorer: str | Path | Scorer,
    *,
    baseline: str | None = None,
    unscored: float | None = None,
    **options: Any,
) -> RewardFn:
    """``reward_fn`` for one reward model.

    Args:
        scorer: A folder or hub id, a comma list (an ensemble), ``POLICY:REFERENCE``, or a scorer.
        baseline: The metadata with each prompt's reference completion, for the transform ``delta`` (trlX's examples:
            ``"original_output"``).
        unscored: The reward of a completion that has no score; None: it raises.
        **options: Of :class:`~rewardlab.adapters.rewarding.Rewarder`.

    Returns:
        The function. Its rewards are plain floats, which trlX puts on each completion's last token. It raises DataError
        where the metadata lack the baseline, or a completion has no score and ``unscored`` is None.

    Raises:
        ConfigError: An option that cannot be used.
    """
    rewarder = Rewarder(scorer, gather=alone, **options)

    def reward_fn(
        samples: Sequence[str],
        prompts: Sequence[str],
        outputs: Sequence[str],
        tokenizer: Any = None,
        **metadata: Any,
    ) -> list[float]:
        if baseline is not None and baseline not in metadata:
            raise DataError(
                f"the metadata has no {baseline!r}; it has {', '.join(sorted(metadata)) or 'nothing'}",
                hint="give trlX's prompts as dicts: {'prompt': ..., 'original_output': ...}",
            )
        tokenizer = tokenizer or metadata.get("model_tok")  # trlX's name of it before 0.7
        ends = EndTokens(() if tokenizer is None else tokenizer.all_special_tokens)
        answers = [ends.strip(output) for output in outputs]  # trlX writes the end token behind each
        given = None if baseline is None else metadata[baseline]
        return rewarder.reward(prompts, answers, baselines=given).rewards_or(unscored)

    return reward_fn

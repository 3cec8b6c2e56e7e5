"""A reward model as TRL's GRPO and RLOO take it: a reward function, sync or async, that logs what it does.

    trainer = GRPOTrainer(model, reward_funcs=RewardFunction("my-reward-model", transforms="default"), ...)
    keep_reward_state(trainer)                                  # running statistics, in every checkpoint
    use_kl_control(trainer, AdaptiveKL(0.05, target=6.0))       # beta follows the KL, in nats per completion

Written for TRL 1.16. What a reward function is called with is told in its ``_calculate_rewards``; this file knows that,
and nothing of how rewards become advantages. The callbacks are :mod:`rewardlab.adapters.trl_callbacks`'.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rewardlab.adapters.rewarding import Rewarder, Rewards, numbers_or_none
from rewardlab.adapters.text_scores import AnyText
from rewardlab.adapters.trl_callbacks import (
    KLCallback,
    RewardStateCallback,
    keep_reward_state,
    keeps_reward_state,
    use_kl_control,
)
from rewardlab.errors import ConfigError, DataError
from rewardlab.rewards.batch import FloatArray
from rewardlab.rewards.trainer_mode import is_evaluating
from rewardlab.scoring.names import policy_and_reference
from rewardlab.scoring.scorer import Scorer

__all__ = [
    "AsyncRewardFunction",
    "KLCallback",
    "RewardFunction",
    "RewardStateCallback",
    "keep_reward_state",
    "use_kl_control",
]

logger = logging.getLogger(__name__)


class _TRLReward:
    """What the sync and the async function share: all but how they are called."""

    def __init__(
        self,
        scorer: str | Path | Scorer,
        *,
        transforms: Any = None,
        name: str | None = None,
        baseline_column: str | None = None,
        baseline: Callable[[AnyText], AnyText | None] | None = None,
        eos_token_id: int | Sequence[int] | None = None,
        policy_tokenizer: Any = None,
        strip: Iterable[str] = (),
        cache_size: int = 10_000,
        **options: Any,
    ) -> None:
        if baseline is not None and baseline_column is not None:
            raise ConfigError("baseline and baseline_column both say what a reference completion is", hint="give one")
        if not isinstance(scorer, Scorer):
            options = _on_this_ranks_device(options)
        self.rewarder = Rewarder(
            scorer,
            transforms=transforms,
            baseline=baseline,
            policy_tokenizer=policy_tokenizer,
            strip=strip,
            cache_size=cache_size,
            **options,
        )
        self.baseline_column = baseline_column
        if eos_token_id is None and policy_tokenizer is not None:
            eos_token_id = policy_tokenizer.eos_token_id
        self.end_ids = None if eos_token_id is None else _as_ids(eos_token_id)
        self.__name__ = name or _name_of(scorer, self.scorer)
        self._warned = False

    @property
    def scorer(self) -> Scorer:
        """The scorer."""
        return self.rewarder.scorer

    def state_dict(self) -> dict[str, Any]:
        """The transforms' state, as plain JSON values."""
        return self.rewarder.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the transforms' state."""
        self.rewarder.load_state_dict(state)

    def _rewards(
        self,
        prompts: Sequence[AnyText],
        completions: Sequence[AnyText],
        completion_ids: Sequence[Sequence[int]] | None,
        log_metric: Callable[[str, float], None] | None,
        columns: Mapping[str, Any],
    ) -> Rewards:
        trainer = getattr(log_metric, "__self__", None)  # the trainer whose method it is
        baselines = None
        if self.baseline_column is not None:
            if self.baseline_column not in columns:
                given = ", ".join(sorted(columns)) or "none"
                raise DataError(
                    f"the data set has no column {self.baseline_column!r} beside prompts and completions, but {given}",
                    hint="baseline_column names the column with each prompt's reference completion",
                )
            baselines = columns[self.baseline_column]
        rewards = self.rewarder.reward(
            prompts,
            completions,
            baselines=baselines,
            ended=self._ended(completion_ids, trainer),
            update=not is_evaluating(log_metric),
        )
        if trainer is not None and not self._warned and self.rewarder.has_state:
            self._warned = True
            if not keeps_reward_state(trainer, self):
                logger.warning(
                    "%s: the transforms' running statistics are not saved in checkpoints; call "
                    "keep_reward_state(trainer) before trainer.train()",
                    self.__name__,
                )
        return rewards

    def _ended(self, completion_ids: Sequence[Sequence[int]] | None, trainer: Any) -> list[bool] | None:
        """Whether each completion's last id is an end token of the policy; None where nobody can say."""
        ids = self.end_ids if self.end_ids is not None else getattr(trainer, "eos_token_ids", None)
        if ids is None or completion_ids is None:
            return None
        ends = frozenset(_as_ids(ids))
        return [len(of_one) > 0 and int(of_one[-1]) in ends for of_one in completion_ids]

    def _log(
        self,
        rewards: Rewards,
        log_extra: Callable[[str, list[Any]], None] | None,
        log_metric: Callable[[str, float], None] | None,
    ) -> list[float | None]:
        """Tell TRL what was seen; give the rewards back in its form."""
        scored = rewards.scored
        if log_extra is not None:
            log_extra(f"{self.__name__}/score", list(numbers_or_none(scored.scores)))
            if scored.disagreements is not None:
                log_extra(f"{self.__name__}/disagreement", list(numbers_or_none(scored.disagreements)))
        if log_metric is not None:
            for name, value in self._metrics(rewards).items():
                if np.isfinite(value):
                    log_metric(f"rewards/{self.__name__}/{name}", float(value))
        return rewards.rewards_or_none()

    def _metrics(self, rewards: Rewards) -> dict[str, float]:
        scored = rewards.scored
        metrics = {"unscored": float(len(scored.unscored)), "truncated": float(scored.num_truncated)}
        finite = scored.scores[np.isfinite(scored.scores)]
        if finite.size:
            metrics |= {"score_mean": float(finite.mean()), "score_std": float(finite.std())}
            metrics |= self._on_scales(finite)
        if scored.disagreements is not None and finite.size:
            metrics["disagreement"] = float(np.nanmean(scored.disagreements))
        told = {name.replace("/", "_"): float(value) for name, value in rewards.result.statistics.items()}
        return metrics | told  # a chain's score_mean is of all ranks

    def _on_scales(self, scores: FloatArray) -> dict[str, float]:
        """Means of raw scores on the scales that the model's contract gives."""
        if self.scorer.scale != "raw":
            return {}
        known = self.scorer.reference_scale
        found = {}
        if known.reference is not None and known.reference.quantiles:
            found["percentile"] = float(np.mean(known.transform(scores.tolist(), "percentile")))
        if known.temperature is not None and (known.reference is not None or known.unit == "completion"):
            found["calibrated"] = float(np.mean(known.transform(scores.tolist(), "calibrated")))
        return found


class RewardFunction(_TRLReward):
    """A reward function for TRL's ``reward_funcs``.

    Args:
        scorer: A folder or hub id, a comma list (an ensemble), ``POLICY:REFERENCE``, or a scorer.
        transforms: As for :class:`~rewardlab.adapters.rewarding.Rewarder`; None: the rewards are the scores.
        name: What TRL logs it as, ``rewards/<name>/...``; by default the name of the model's folder.
        baseline_column: The data set's column with each prompt's reference completion, for the transform ``delta``.
        baseline: Instead of a column, a function of the prompt.
        eos_token_id: The policy's end tokens, which tell whether a completion ended (``missing_eos``); by default the
            trainer's own.
        policy_tokenizer: The policy's; its special tokens are taken off the ends of completions. TRL decodes without
            special tokens, so it is seldom needed.
        strip: Further special tokens, as text, to take off there.
        cache_size: Reference completions whose score is remembered.
        **options: Of :func:`~rewardlab.scoring.opening.open_scorer`, where ``scorer`` is a name; ``device`` is by
            default this rank's.

    Attributes:
        rewarder: What scores and transforms.

    Note:
        Logged per call, under ``rewards/<name>/``: ``score_mean`` and ``score_std`` (ddof 0) of the scores before the
        transforms, in the scorer's scale; ``percentile`` and ``calibrated``, the mean of raw scores on these scales,
        where the contract gives them; ``truncated`` and ``unscored``, counts; ``disagreement``, an ensemble's mean;
        each transform's statistics. TRL averages them over ranks and over its logging step. TRL's own
        ``rewards/<name>/mean`` is that of the rewards returned. To the table of completions: ``<name>/score`` and
        ``<name>/disagreement``.

        In evaluation running statistics are used and not updated. TRL does not say which it is: ``log_metric`` is a
        method of the trainer, whose model's mode is what TRL itself asks. Called by anything else, it is training.
    """

    def __call__(
        self,
        prompts: Sequence[AnyText],
        completions: Sequence[AnyText],
        completion_ids: Sequence[Sequence[int]] | None = None,
        trainer_state: Any = None,
        log_extra: Callable[[str, list[Any]], None] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """One reward per completion; None where it has no score, which TRL leaves out.

        Args:
            prompts: Text, or lists of messages.
            completions: Likewise.
            completion_ids: Their ids.
            trainer_state: Not used.
            log_extra: Takes a column of the table of completions.
            log_metric: Takes a number to log.
            **columns: The data set's other columns.
        """
        return self._log(
            self._rewards(prompts, completions, completion_ids, log_metric, columns), log_extra, log_metric
        )


class AsyncRewardFunction(_TRLReward):
    """:class:`RewardFunction` as a coroutine, with the same arguments and the same numbers.

    The model runs in a thread of its own, so that other async reward functions (those that wait for a network) go on
    meanwhile. In a run of several processes at most one async function can have transforms: they gather over ranks, and
    which of two came first could differ between ranks.
    """

    async def __call__(
        self,
        prompts: Sequence[AnyText],
        completions: Sequence[AnyText],
        completion_ids: Sequence[Sequence[int]] | None = None,
        trainer_state: Any = None,
        log_extra: Callable[[str, list[Any]], None] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """As :meth:`RewardFunction.__call__`."""
        rewards = await asyncio.to_thread(self._rewards, prompts, completions, completion_ids, log_metric, columns)
        return self._log(rewards, log_extra, log_metric)


def _on_this_ranks_device(options: dict[str, Any]) -> dict[str, Any]:
    """Options with the GPU of this process, where a launcher started several and none is named.

    Reward functions are made before the trainer, which sets the current device; all ranks would load their model on the
    first one.
    """
    rank = os.environ.get("LOCAL_RANK")
    if rank is None or options.get("device") is not None or not torch.cuda.is_available():
        return options
    return options | {"device": f"cuda:{rank}"}


def _as_ids(value: Any) -> tuple[int, ...]:
    return (int(value),) if isinstance(value, int) else tuple(int(item) for item in value)


def _name_of(given: str | Path | Scorer, scorer: Scorer) -> str:
    """How a scorer is called in logs: by the name of its folder, or of its policy's."""
    if scorer.is_ensemble:
        return "ensemble"
    path = scorer.loaded.folder if isinstance(given, Scorer) else given
    policy, _ = policy_and_reference(path) or (path, None)
    return Path(policy).name or "reward_model"

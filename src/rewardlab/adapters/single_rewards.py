"""Rewards for trainers that ask for one completion at a time, from many threads or tasks: verl and OpenRLHF.

What comes at the same time is computed together. Such a call knows no batch, so transforms that need one are refused;
ranks do not meet in it either, so running statistics are each process's own.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rewardlab.adapters.gathered_calls import GatheredCalls
from rewardlab.adapters.rewarding import Rewarder
from rewardlab.adapters.text_scores import AnyText
from rewardlab.errors import ConfigError, DataError
from rewardlab.rewards.gathering import alone


@dataclass(frozen=True, slots=True)
class Single:
    """What is asked.

    Attributes:
        prompt: Text or messages.
        completion: Text or messages.
        baseline: The prompt's reference completion; None where there is none.
    """

    prompt: AnyText
    completion: AnyText
    baseline: AnyText | None = None


@dataclass(frozen=True, slots=True)
class SingleReward:
    """What is answered.

    Attributes:
        reward: After the transforms.
        score: Before them, in the scorer's scale; NaN where the completion has none and ``unscored`` stands in.
        disagreement: Of an ensemble, NaN likewise; else None.
    """

    reward: float
    score: float
    disagreement: float | None

    def extras(self) -> dict[str, float]:
        """What is known beside the reward, by name: the same names for every completion of a scorer.

        verl takes the names from the first of a batch and asks each for all of them; OpenRLHF's columns would come out
        shorter than their batch.
        """
        found = {"reward_model_score": self.score}
        return found if self.disagreement is None else {**found, "disagreement": self.disagreement}


class SingleRewards:
    """Rewards of single completions, gathered.

    Args:
        scorer: As for :class:`~rewardlab.adapters.rewarding.Rewarder`.
        transforms: Likewise; none that needs a batch.
        unscored: The reward of a completion that has no score; None: asking for it raises.
        max_wait_ms: How long a completion waits for others.
        max_items: Most completions computed together.
        **options: Further ones of :class:`~rewardlab.adapters.rewarding.Rewarder`.

    Raises:
        ConfigError: A transform that needs a batch.
    """

    def __init__(
        self,
        scorer: Any,
        *,
        transforms: Any = None,
        unscored: float | None = None,
        max_wait_ms: float = 5.0,
        max_items: int = 256,
        **options: Any,
    ) -> None:
        self.rewarder = Rewarder(scorer, transforms=transforms, gather=alone, **options)
        for transform in self.rewarder.chain.transforms:
            if transform.by_batch:
                raise ConfigError(
                    f"the transform {transform.name} needs a batch, and this trainer asks for one completion at a time",
                    hint="take delta, clip, running, norm, temperature, or the contract's reference set",
                )
            if "ended" in transform.needs:
                raise ConfigError(
                    f"the transform {transform.name} asks which completions ended, and this trainer does not say",
                    hint="leave it out",
                )
        self.unscored = unscored
        self._calls = GatheredCalls(self._rewards, max_wait_ms=max_wait_ms, max_items=max_items)
        self.submit = self._calls.submit

    def _rewards(self, items: Sequence[Single]) -> list[SingleReward | Exception]:
        """What each is worth, whatever came with it: who has no baseline fails alone, or is given none."""
        chain = self.rewarder.chain
        baselines = [self._baseline_of(item) for item in items] if "baselines" in chain.uses else [None] * len(items)
        asked = [i for i, one in enumerate(baselines) if one is not None or "baselines" not in chain.needs]
        answers: list[SingleReward | Exception] = [_NO_BASELINE] * len(items)
        if not asked:
            return answers
        rewards = self.rewarder.reward(
            [items[i].prompt for i in asked],
            [items[i].completion for i in asked],
            baselines=[baselines[i] for i in asked],
        )
        spread = rewards.scored.disagreements
        for index, (place, score) in enumerate(zip(asked, rewards.scored.scores, strict=True)):
            disagreement = None if spread is None else float(spread[index])
            try:
                answers[place] = SingleReward(rewards.reward_or(index, self.unscored), float(score), disagreement)
            except DataError as error:  # this item's alone; the state of the transforms has moved by the others
                answers[place] = error
        return answers

    def _baseline_of(self, item: Single) -> AnyText | None:
        """The item's own, else what the function of the prompt gives."""
        if item.baseline is not None or self.rewarder.baseline is None:
            return item.baseline
        return self.rewarder.baseline(item.prompt)


_NO_BASELINE = DataError(
    "the transform delta needs a baseline, and this completion's prompt has none",
    hint='give each row one, a baseline function, or take {"delta": {"optional": true}}',
)

_made: dict[str, SingleRewards] = {}
_making = threading.Lock()


def made_once(scorer: str, options: dict[str, Any]) -> SingleRewards:
    """The same object for the same scorer and options: trainers repeat them in every call.

    Args:
        scorer: A path or name.
        options: Of :class:`SingleRewards`, with plain values.
    """
    key = repr((scorer, sorted(options.items())))
    with _making:
        if key not in _made:
            _made[key] = SingleRewards(scorer, **options)
        return _made[key]

"""Prompts and completions -> rewards: what every trainer's adapter does, without any trainer.

    rewarder = Rewarder("my-reward-model", transforms="default")
    rewarder.reward(prompts, completions).rewards_or_none()      # [0.31, None, ...]

Only text crosses from policy to reward model, so their tokenizers may differ. This file knows scores, reference
completions and transforms; it knows no trainer, and no KL.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rewardlab.adapters.text_scores import AnyText, EndTokens, Scored, Unscored, score_texts, texts_of
from rewardlab.errors import ConfigError, DataError
from rewardlab.rewards.batch import FloatArray, Offence, RewardBatch, RewardResult
from rewardlab.rewards.chain import RewardChain
from rewardlab.rewards.gathering import Gather, alone
from rewardlab.scoring.opening import open_scorer
from rewardlab.scoring.scorer import Scorer
from rewardlab.types import Text, text_key

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

Baseline = Callable[[AnyText], AnyText | None]
"""Gives a prompt's reference completion, or None."""


@dataclass(frozen=True, slots=True)
class Rewards:
    """What a call gave, in the order of its completions.

    Attributes:
        result: Rewards after the transforms, what they refused, and their statistics.
        scored: Scores before the transforms, and why some completions have none.
    """

    result: RewardResult
    scored: Scored

    def rewards_or_none(self) -> list[float | None]:
        """One reward per completion; None where it has none. A failure is never a number."""
        return numbers_or_none(self.result.rewards)

    def rewards_or(self, unscored: float | None) -> list[float]:
        """One reward per completion, for trainers that cannot take None; each as :meth:`reward_or` gives it."""
        return [self.reward_or(index, unscored) for index in range(len(self.result.rewards))]

    def reward_or(self, index: int, unscored: float | None) -> float:
        """The reward of one completion.

        Args:
            index: Which.
            unscored: What it is given if it has none; None refuses it.

        Raises:
            DataError: It has no reward, and nothing was said of such.
        """
        reward = float(self.result.rewards[index])
        if np.isfinite(reward):
            return reward
        if unscored is None:
            raise DataError(
                f"completion {index} has no reward: {self._why(index)}",
                hint="say what such completions are given, e.g. unscored=-10.0",
            )
        return float(unscored)

    def _why(self, index: int) -> str:
        told: Iterable[Unscored | Offence] = (*self.scored.unscored, *self.result.offences)
        return next((item.reason for item in told if item.index == index), "the transforms give none")


def numbers_or_none(values: FloatArray) -> list[float | None]:
    """Plain floats, None for what is no finite number."""
    return [float(value) if np.isfinite(value) else None for value in values]


class Rewarder:
    """Turns prompts and completions into rewards.

    Args:
        scorer: A folder or hub id, a comma list (an ensemble), ``POLICY:REFERENCE`` (an implicit reward), or a scorer.
        transforms: A :class:`~rewardlab.rewards.chain.RewardChain`, or what
            :meth:`~rewardlab.rewards.chain.RewardChain.from_config` takes: a preset's name, a list, a YAML path. None:
            the rewards are the scores.
        baseline: Gives a prompt's reference completion, for the transform ``delta``; calls may give them instead.
        policy_tokenizer: The policy's; its special tokens are taken off the ends of completions.
        strip: Further special tokens, as text, to take off there (``"<|im_end|>"``).
        cache_size: Reference completions whose score is remembered; the least recently used go first.
        gather: How the scores of all ranks are brought together for the transforms, where they are no chain yet; by
            default ``torch.distributed``'s, so that every rank must make every call.
        **options: Of :func:`~rewardlab.scoring.opening.open_scorer` (``scale``, ``device``, ``dtype``, ``ensemble``,
            ``tokens_per_batch``, ...), where ``scorer`` is a name.

    Attributes:
        scorer: The scorer.
        chain: The transforms; without any, one of none.
        num_unscored: Completions without a score so far.
        num_truncated: Sequences cut to the maximum length so far.

    Raises:
        ConfigError: An option that cannot be used, or options beside a scorer that is already loaded.
        CheckpointError: The model cannot be trusted to give scores.
    """

    def __init__(
        self,
        scorer: str | Path | Scorer,
        *,
        transforms: Any = None,
        baseline: Baseline | None = None,
        policy_tokenizer: PreTrainedTokenizerBase | None = None,
        strip: Iterable[str] = (),
        cache_size: int = 10_000,
        gather: Gather | None = None,
        **options: Any,
    ) -> None:
        if isinstance(scorer, Scorer) and options:
            raise ConfigError(
                f"{min(options)} cannot be changed on a scorer that is loaded",
                hint="give the option when the scorer is made, or pass its path here",
            )
        if cache_size < 1:
            raise ConfigError(f"cache_size must be at least 1, got {cache_size}")
        self.baseline = baseline
        self.ends = EndTokens((*strip, *(policy_tokenizer.all_special_tokens if policy_tokenizer is not None else ())))
        self._source = None if isinstance(scorer, Scorer) else (scorer, options)
        self.scorer = scorer if isinstance(scorer, Scorer) else open_scorer(scorer, **options)
        self.chain = _chain_of(transforms, self.scorer, gather)
        self._cache_size = cache_size
        self._cache: OrderedDict[bytes, float] = OrderedDict()
        self._lock = threading.Lock()
        self.num_unscored = self.num_truncated = 0

    @property
    def has_state(self) -> bool:
        """Whether there is a state to keep: running moments are one from the start, a first batch once it came."""
        return any(transform.state_dict() for transform in self.chain.transforms)

    def reward(
        self,
        prompts: Sequence[AnyText],
        completions: Sequence[AnyText],
        *,
        baselines: Sequence[AnyText | None] | None = None,
        ended: Sequence[bool] | None = None,
        update: bool = True,
    ) -> Rewards:
        """Rewards of completions, each to its own prompt.

        Args:
            prompts: One per completion: text or messages. Completions of equal prompts are one group.
            completions: Text or messages.
            baselines: The reference completion of each completion's prompt, None where there is none; by default what
                ``baseline`` gives, where the transforms need it.
            ended: Whether each completion ended by itself.
            update: Whether running statistics learn from this call; False for evaluation.

        Raises:
            ConfigError: The transforms need what is not known here.
            DataError: Numbers differ, an item is neither text nor messages, or the chat template refuses it.
        """
        texts = texts_of(prompts, completions, self.ends)
        references = self._references(texts, baselines)
        if ended is None and "ended" in self.chain.needs:
            raise ConfigError(
                "the transforms need to know which completions ended, and nothing here says so",
                hint="give eos_token_id, or leave missing_eos out",
            )
        with self._lock:
            scored, baseline_scores = self._score(texts, references)
            self._tell(scored, len(texts))
            batch = RewardBatch(
                scored.scores,
                prompts=[text_key(prompt, role="user") for prompt, _ in texts],
                baselines=baseline_scores,
                ended=None if ended is None else np.asarray(ended, dtype=np.bool_),
            )
            return Rewards(self.chain(batch, update=update), scored)

    def state_dict(self) -> dict[str, Any]:
        """The transforms' state, as plain JSON values."""
        return self.chain.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave.

        Raises:
            ConfigError: It is of other transforms.
            DataError: It is no state; nothing has been changed.
        """
        self.chain.load_state_dict(state)

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled or copied: a scorer that was opened by its name is opened again by it."""
        state = {name: value for name, value in self.__dict__.items() if name != "_lock"}
        return state if self._source is None else state | {"scorer": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()
        if self._source is not None:
            path, options = self._source
            self.scorer = open_scorer(path, **options)

    def _references(
        self, texts: Sequence[tuple[Text, Text]], given: Sequence[AnyText | None] | None
    ) -> list[Text | None] | None:
        """The reference completion of each prompt; None where the transforms use none.

        Raises:
            ConfigError: They need one, and none is known.
            DataError: Not one per completion.
        """
        if "baselines" not in self.chain.uses:
            return None
        if given is None and self.baseline is None:
            if "baselines" in self.chain.needs:
                raise ConfigError(
                    "the transform delta needs each prompt's reference completion",
                    hint="say what it is (baseline, or baseline_column), or leave delta out",
                )
            return None
        if given is None:
            assert self.baseline is not None
            given = [self.baseline(prompt) for prompt, _ in texts]
        if len(given) != len(texts):
            raise DataError(f"{len(given)} reference completions for {len(texts)} completions")
        known = [index for index, reference in enumerate(given) if reference is not None]
        read = texts_of([texts[i][0] for i in known], [given[i] or "" for i in known], self.ends)
        found: list[Text | None] = [None] * len(texts)
        for index, (_, reference) in zip(known, read, strict=True):
            found[index] = reference
        return found

    def _score(
        self, texts: list[tuple[Text, Text]], references: Sequence[Text | None] | None
    ) -> tuple[Scored, FloatArray | None]:
        """Scores, and those of the references: what is not remembered is scored in its prompt's group."""
        if references is None:
            return score_texts(self.scorer, texts), None
        keys = [
            None if reference is None else self._key(prompt, reference)
            for (prompt, _), reference in zip(texts, references, strict=True)
        ]
        fresh: dict[bytes, tuple[Text, Text]] = {}
        for (prompt, _), reference, key in zip(texts, references, keys, strict=True):
            if key is None or reference is None:
                continue
            if key in self._cache:
                self._cache.move_to_end(key)
            else:
                fresh[key] = (prompt, reference)
        n = len(texts)
        both = score_texts(self.scorer, [*texts, *fresh.values()])
        self._cache.update(zip(fresh, both.scores[n:].tolist(), strict=True))
        for item in both.unscored:
            if item.index >= n:
                logger.warning("a reference completion has no score: %s", item.reason)
        scores = np.array([np.nan if key is None else self._cache[key] for key in keys], dtype=np.float64)
        while len(self._cache) > self._cache_size:
            self._cache.popitem(last=False)
        spread = None if both.disagreements is None else both.disagreements[:n]
        unscored = tuple(item for item in both.unscored if item.index < n)
        return Scored(both.scores[:n], spread, unscored, both.num_truncated), scores

    def _key(self, prompt: Text, reference: Text) -> bytes:
        parts = (self.scorer.fingerprint, text_key(prompt, role="user"), text_key(reference, role="assistant"))
        return hashlib.sha256("\0".join(parts).encode()).digest()

    def _tell(self, scored: Scored, total: int) -> None:
        """Count what has no score or was cut; the first of each is warned about."""
        if scored.unscored and not self.num_unscored:
            logger.warning(
                "%d of %d completions have no score and no reward; the first: %s (later ones are only counted)",
                len(scored.unscored),
                total,
                scored.unscored[0].reason,
            )
        if scored.num_truncated and not self.num_truncated:
            logger.warning(
                "%d sequences are longer than %d tokens and lose the oldest part of their prompt (later ones are only "
                "counted)",
                scored.num_truncated,
                self.scorer.encoder.max_length,
            )
        self.num_unscored += len(scored.unscored)
        self.num_truncated += scored.num_truncated


def _chain_of(transforms: Any, scorer: Scorer, gather: Gather | None) -> RewardChain:
    """The transforms as a chain; what they take from the contract is of raw scores."""
    if transforms is None:
        return RewardChain([], gather=alone)  # nothing to bring together: ranks need not call together either
    if isinstance(transforms, RewardChain):
        return transforms
    raw = scorer.scale == "raw"
    return RewardChain.from_config(
        transforms,
        reference=scorer.reference_scale.reference if raw else None,
        temperature=scorer.reference_scale.temperature if raw else None,
        gather=gather,
    )

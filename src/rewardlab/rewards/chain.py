"""A chain of transforms: a batch of scores in, rewards out, in a declared order, with a state that can be saved.

What is computed is computed from the scores of all ranks, on every rank alike, so that state and statistics are equal
bit for bit everywhere. Refused scores are taken out before the first transform and come back as NaN. This file knows
batches, ranks and state; it knows no transform's formula.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from rewardlab.calibration.reference import ReferenceStatistics
from rewardlab.errors import ConfigError, DataError, RewardLabError
from rewardlab.files import write_safely
from rewardlab.rewards.batch import FloatArray, RewardBatch, RewardResult
from rewardlab.rewards.configuration import Configuration, configuration_of, transforms_from
from rewardlab.rewards.entries import Entries, Known, Transform
from rewardlab.rewards.gathering import Gather, gather_ranks
from rewardlab.rewards.intake import RankShare, merge, read_share
from rewardlab.rewards.moments import DAMAGED, mean_and_std

VERSION = 1
"""Of the saved state's form."""

_LARGEST = 1e100
"""What a transform may give: any sum of squares of such values is finite, and so are the statistics after it."""


class RewardChain:
    """Transforms in their order.

    Args:
        transforms: In the order in which they are applied; none at all leaves scores as they are.
        gather: How the shares of all ranks are brought together; ``torch.distributed`` where it is initialised.

    Raises:
        ConfigError: One transform stands there twice (two of a kind may).

    Example:
        >>> import numpy as np
        >>> from rewardlab.rewards import RewardBatch
        >>> chain = RewardChain.from_config(["center", {"clip": {"limit": 1}}])
        >>> chain(RewardBatch(np.array([1.0, 2.0, 6.0]))).rewards.tolist()
        [-1.0, -1.0, 1.0]
    """

    def __init__(self, transforms: Sequence[Transform], *, gather: Gather | None = None) -> None:
        self.transforms = tuple(transforms)
        if len({id(transform) for transform in self.transforms}) < len(self.transforms):
            raise ConfigError("one transform stands twice in the chain", hint="make two of it: each has its own state")
        self.gather = gather or gather_ranks

    @classmethod
    def from_config(
        cls,
        spec: Configuration,
        *,
        reference: ReferenceStatistics | None = None,
        temperature: float | None = None,
        gather: Gather | None = None,
    ) -> RewardChain:
        """A chain as a configuration names it.

        Args:
            spec: A preset's name, a YAML file's path (with the key ``transforms``), or a list such as
                ``["delta", {"clip": {"limit": 10}}, "running"]``.
            reference: The model's reference statistics, for ``ref: {source: contract}`` and ``center: {by:
                reference}``.
            temperature: The model's temperature, for ``temperature`` without a value.
            gather: As the class.

        Raises:
            ConfigError: What does not exist or does not fit, with its place and the nearest name.
        """
        return cls(transforms_from(spec, Known(reference, temperature)), gather=gather)

    def to_config(self) -> list[str | dict[str, dict[str, Any]]]:
        """The list from which :meth:`from_config` makes this chain, numbers of the contract included; without state."""
        return configuration_of(self.transforms)

    @property
    def needs(self) -> frozenset[str]:
        """Which of ``prompts``, ``baselines`` and ``ended`` a batch must have."""
        return frozenset().union(*(transform.needs for transform in self.transforms))

    @property
    def uses(self) -> frozenset[str]:
        """Which of them are looked at where they are there."""
        return frozenset().union(*(transform.uses for transform in self.transforms))

    def __call__(self, batch: RewardBatch, *, update: bool = True) -> RewardResult:
        """Rewards of this rank's completions; the state moves by the scores of all ranks.

        In a distributed run every rank must call it, also one with no completions.

        Args:
            batch: This rank's scores.
            update: Whether the state stays moved; False, for evaluation: rewards are the same, and it is as before.

        Returns:
            Rewards in the shape of the scores. A completion with a score that is no finite number (for per-token
            rewards: with any such unmasked position) is an offence: it moves no statistic and no state, and its
            reward is NaN.

        Raises:
            ConfigError: A transform lacks what it needs; on every rank, and no state has moved.
            DataError: Shapes that do not fit, or a transform gives what is no finite number; on every rank, and no
                state has moved.
        """
        share: RankShare | RewardLabError
        try:
            share = read_share(batch, self.needs, self.uses)
        except RewardLabError as error:
            share = error  # told to all: a rank that raises alone leaves the others waiting for ever
        gathered, rank = self.gather(share)
        shares = _all_readable(gathered)
        entries, mine = merge(shares, rank)
        before = _summary("score", entries) | {"offences": float(sum(len(share.offences) for share in shares))}
        with self._restoring(always=not update):
            after, statistics = self._apply(entries)
        rewards = shares[rank].filled(after.values[mine])
        return RewardResult(rewards, shares[rank].offences, before | _summary("reward", after) | statistics)

    def _apply(self, entries: Entries) -> tuple[Entries, dict[str, float]]:
        statistics: dict[str, float] = {}
        if not entries.values.size:  # nothing finite: nothing to learn from, and nothing to say
            return entries, statistics
        for name, transform in zip(self._names(), self.transforms, strict=True):
            with np.errstate(all="ignore"):  # what comes of it is looked at
                values, told = transform.apply(entries)
            if not (np.abs(values) <= _LARGEST).all():
                wrong = int(np.argmax(np.abs(values)))  # a NaN before any number
                raise DataError(
                    f"{name} makes {values[wrong]} of {entries.values[wrong]}, and no reward may be beyond "
                    f"{_LARGEST:g}; no state has moved",
                    hint=f"look at the options of {name}: {transform.options()}",
                )
            entries = dataclasses.replace(entries, values=values)
            statistics |= {f"{name}/{key}": value for key, value in told.items()}
        return entries, statistics

    @contextmanager
    def _restoring(self, *, always: bool) -> Iterator[None]:
        """Put every transform's state back as it was: always, or where something is raised."""
        before = [transform.state_dict() for transform in self.transforms]
        moved = False
        try:
            yield
            moved = not always
        finally:
            if not moved:
                for transform, state in zip(self.transforms, before, strict=True):
                    transform.load_state_dict(state)

    def _names(self) -> list[str]:
        """One per transform; the second of a kind is ``clip_2``."""
        kinds = [transform.name for transform in self.transforms]
        earlier = [kinds[:number].count(kind) for number, kind in enumerate(kinds)]
        return [f"{kind}_{count + 1}" if count else kind for kind, count in zip(kinds, earlier, strict=True)]

    def state_dict(self) -> dict[str, Any]:
        """What the transforms have learned, and which they are, in plain JSON values; equal on every rank."""
        learned = [
            {"name": transform.name, "options": transform.options(), "state": transform.state_dict()}
            for transform in self.transforms
        ]
        return {"version": VERSION, "transforms": learned}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another chain of the same transforms, in the same order and with the same options, left off.

        Raises:
            ConfigError: It is another chain's state; nothing has been changed.
            DataError: It is no state; nothing has been changed.
        """
        learned = state.get("transforms") if isinstance(state, Mapping) else None
        if not isinstance(learned, list) or state.get("version") != VERSION:
            raise DataError(f"no state of a reward chain (version {VERSION})", hint=DAMAGED)
        for item in learned:
            if not isinstance(item, Mapping) or set(item) != {"name", "options", "state"}:
                raise DataError(f"no state of a transform: {item!r}", hint=DAMAGED)
        self._require_same([(item["name"], item["options"]) for item in learned])
        with self._restoring(always=False):
            for transform, item in zip(self.transforms, learned, strict=True):
                transform.load_state_dict(item["state"])

    def _require_same(self, theirs: list[tuple[Any, Any]]) -> None:
        names = [name for name, _ in theirs]
        ours = [transform.name for transform in self.transforms]
        hint = "make the chain by the configuration that the state was saved with"
        if names != ours:
            told = ", ".join(map(str, names)) or "nothing"
            raise ConfigError(
                f"the state is of another chain: {told}; this one is {', '.join(ours) or 'empty'}", hint=hint
            )
        for transform, (name, options) in zip(self.transforms, theirs, strict=True):
            if options != transform.options():
                raise ConfigError(
                    f"the state is of {name} with {options}, and here it has {transform.options()}", hint=hint
                )

    def save(self, path: str | Path) -> None:
        """Write the state as JSON: whole or not at all, numbers exact. One rank's file serves all."""
        path = Path(path)
        text = json.dumps(self.state_dict(), indent=2, allow_nan=False) + "\n"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_safely(path, text)  # ranks may write at once

    def load(self, path: str | Path) -> None:
        """Read what :meth:`save` wrote.

        Raises:
            ConfigError: It is another chain's state.
            DataError: The file cannot be read, or is no state.
        """
        try:
            state = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no JSON"
            raise DataError(f"{path}: the state cannot be read: {reason}", hint=DAMAGED) from error
        try:
            self.load_state_dict(state)
        except RewardLabError as error:
            raise type(error)(f"{path}: {error.message}", hint=error.hint) from error


def _all_readable(gathered: Sequence[RankShare | RewardLabError]) -> list[RankShare]:
    """The shares; on all ranks alike the first rank's complaint where there is one."""
    for number, share in enumerate(gathered):
        if isinstance(share, RewardLabError):
            where = f"rank {number}: " if len(gathered) > 1 else ""
            raise type(share)(f"{where}{share.message}", hint=share.hint)
    return [share for share in gathered if isinstance(share, RankShare)]


def _summary(name: str, entries: Entries) -> dict[str, float]:
    """Mean and std (ddof 0) over completions, of per-token rewards their sums; nothing where there are none."""
    sums: FloatArray = entries.observations("sequences")
    if not sums.size:
        return {}
    mean, std = mean_and_std(sums, 0)
    return {
        f"{name}/mean": mean,
        f"{name}/std": std,
        f"{name}/min": float(np.min(sums)),
        f"{name}/max": float(np.max(sums)),
    }

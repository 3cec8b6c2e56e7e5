"""Several rewards of one completion: verifiable checks first, then models, each on one scale before it is weighted.

    reward = CombinedReward(
        [
            RewardPart("format", has_tags("think", "answer"), weight=0, required=True),
            RewardPart("tests", passes_unit_tests(), weight=1.0),
            RewardPart("model", RewardFunction("my-rm"), weight=0.5),
        ]
    )
    GRPOTrainer(..., reward_funcs=reward)

This file knows functions and numbers; it does not know whether a function asks a model, a file or a compiler.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rewardlab.errors import ConfigError, DataError
from rewardlab.rewards.batch import FloatArray, Offence, RewardBatch
from rewardlab.rewards.chain import RewardChain
from rewardlab.rewards.intake import LARGEST
from rewardlab.rewards.trainer_mode import is_evaluating
from rewardlab.types import as_text, text_key

RewardCallable: TypeAlias = Callable[..., Sequence[float | None]]
"""``f(prompts=..., completions=..., **columns) -> [float or None]``, TRL's signature of a reward function."""

WHITEN: tuple[str, ...] = ("whiten",)
"""What a part is normalised by where it does not say: mean 0 and std 1 over the batch."""

_FAILURE_IN_STDS = 3.0


@dataclass(frozen=True, slots=True)
class RewardPart:
    """One of several rewards.

    Attributes:
        name: What statistics call it.
        function: Gives one value per completion; None (or NaN) where it has none to give.
        weight: What its normalised value is multiplied by; 0 for a part that is only required, below 0 for a penalty.
        transforms: A chain of its own, or the configuration of one (:meth:`RewardChain.from_config`); ``[]`` for a part
            whose values are on the common scale already.
        required: Whether a completion must pass it to be judged by the others at all.
        passes_at: The value from which on a required part is passed: 1, for checks that give 1 or 0.
    """

    name: str
    function: RewardCallable
    weight: float = 1.0
    transforms: RewardChain | Sequence[Any] | str = WHITEN
    required: bool = False
    passes_at: float = 1.0


@dataclass(frozen=True, slots=True)
class CombinedResult:
    """What several rewards gave together.

    Attributes:
        rewards: Shape (n,), float64; NaN where a completion has none.
        values: Part -> what its function gave, shape (n,), before its transforms; NaN where it gave nothing or was not
            asked.
        normalized: Part -> its values after its transforms, before its weight, shape (n,); NaN likewise.
        failed: Which completions failed a required part, shape (n,), bool.
        offences: Values that are infinite or beyond float32, with the part that gave them; their completions have no
            reward.
        statistics: By name: ``failed`` and ``none`` (shares of all completions), ``offences`` (their number),
            ``reward_mean``, ``reward_std``; of each part ``NAME/asked``, ``NAME/none`` and, of required ones,
            ``NAME/failed`` (numbers of completions), ``NAME/mean`` and ``NAME/std`` (ddof 0) of its values, and
            ``NAME/contribution``: the std of what it adds to the reward. A statistic of nothing is left out.
    """

    rewards: FloatArray
    values: Mapping[str, FloatArray]
    normalized: Mapping[str, FloatArray]
    failed: NDArray[np.bool_]
    offences: tuple[Offence, ...]
    statistics: Mapping[str, float]


class CombinedReward:
    """Several rewards as one, callable as TRL calls a reward function.

    1. Required parts run first, in the order given, each only on what passed those before it. A completion that fails
       one gets ``failure_reward``, and nothing else is asked about it: no model is run on it.
    2. The other parts run on what is left, in the order given.
    3. Each part is normalised by its own chain over the completions that passed all required parts, then weighted, so
       that a weight says how much a part counts, whatever its unit: without that the part with the widest values
       decides alone.
    4. The reward is ``sum_i w_i z_i``. Where parts gave None for a completion (a check that does not apply to its row,
       a completion that could not be scored), those that did give something stand for them: ``sum_i w_i z_i`` over
       them, times ``sum |w|`` of all over ``sum |w|`` of them. Where a required part gave None, it is not known whether
       the completion may have a reward at all, and where all weighted parts did there is none: the reward is None,
       which TRL leaves out of the group's statistics.
    5. A value that is infinite or beyond float32 is an offence, not something missing: the part is broken there,
       nothing stands for it, and the completion's reward is None.

    In evaluation (:func:`~rewardlab.rewards.trainer_mode.is_evaluating`) the chains' running statistics are used and
    do not move.

    Args:
        parts: At least one with a weight other than 0; names all different.
        failure_reward: What a completion gets that fails a required part; None: ``-3 sum |w|``, three standard
            deviations of every part at once below the average that passed. Give your own where parts are not whitened.
        name: What TRL logs it as.

    Raises:
        ConfigError: No parts, equal names, numbers that are not finite, a coroutine function, two parts with one
            transform (its state would mix them), or a chain that needs more than prompts (a delta, a missing-EOS
            penalty: those belong into the part's own reward function).

    Note:
        On several processes every part's chain is called in every step, whatever passed, so that exchanged statistics
        match. The functions are not: one that itself talks to other processes must not stand behind a required part.

    References:
        One reward drowning the others: TRL pull request 4785 (``multi_objective_aggregation``).
    """

    def __init__(
        self, parts: Sequence[RewardPart], *, failure_reward: float | None = None, name: str = "combined"
    ) -> None:
        self.__name__ = name
        self.parts = tuple(sorted(parts, key=lambda part: not part.required))  # stable: the order given within both
        names = [part.name for part in parts]
        if not any(part.weight for part in parts) or len(set(names)) < len(names):
            raise ConfigError(
                f"parts must have different names and a weight other than 0 somewhere, got {names} with the weights "
                f"{[part.weight for part in parts]}"
            )
        for part in parts:
            if not (math.isfinite(part.weight) and math.isfinite(part.passes_at)):
                raise ConfigError(f"part {part.name!r}: weight and passes_at must be finite")
            called = part.function if inspect.isroutine(part.function) else type(part.function).__call__
            if inspect.iscoroutinefunction(called):
                raise ConfigError(
                    f"part {part.name!r} is asynchronous", hint="wrap it in a function that waits for it (asyncio.run)"
                )
        self.chains = {part.name: _chain_of(part) for part in self.parts}
        _require_separate(self.chains)
        self._logged: dict[str, set[str]] = {part.name: set() for part in parts}  # part -> the columns it has written
        self.total_weight = sum(abs(part.weight) for part in parts)
        self.failure_reward = -_FAILURE_IN_STDS * self.total_weight if failure_reward is None else failure_reward
        if not math.isfinite(self.failure_reward):
            raise ConfigError(f"failure_reward must be finite, got {failure_reward}")

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        """The rewards, as TRL wants them; statistics go to ``log_metric`` as ``rewards/<name>/...``.

        Args:
            prompts: One per completion, text or messages.
            completions: Text or messages.
            columns: What else the trainer passes; lists of one entry per completion are cut to the completions that a
                part is asked about, all else is passed on.
        """
        result = self.combine(prompts, completions, **columns)
        log_metric = columns.get("log_metric")
        if log_metric is not None:
            for name, value in result.statistics.items():
                log_metric(f"rewards/{self.__name__}/{name}", value)
        return [None if math.isnan(reward) else float(reward) for reward in result.rewards]

    def combine(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> CombinedResult:
        """The same, with every part's values and the statistics.

        Args:
            prompts: One per completion, text or messages.
            completions: Text or messages.
            columns: As for a call.

        Raises:
            DataError: Prompts and completions differ in number, or a part gave another number of values than it was
                asked for, or what is no number.
        """
        count = len(completions)
        if len(prompts) != count:
            raise DataError(f"{len(prompts)} prompts but {count} completions", hint="one prompt per completion")
        statistics: dict[str, float] = {}
        values: dict[str, FloatArray] = {}
        left = np.ones(count, dtype=bool)
        failed = np.zeros(count, dtype=bool)
        offences: list[Offence] = []
        for part in self.parts:
            value = _ask(part, prompts, completions, columns, np.flatnonzero(left), self._logged[part.name])
            values[part.name] = value
            statistics |= _described(part.name, value[left])
            offences += [
                Offence(int(index), float(value[index]), f"part {part.name!r} gave {value[index]}")
                for index in np.flatnonzero(np.abs(value) > LARGEST)  # NaN is not
            ]
            if part.required:
                known = np.abs(value) <= LARGEST
                fails = left & known & (value < part.passes_at)
                statistics[f"{part.name}/failed"] = float(fails.sum())
                failed |= fails
                left &= known & ~fails
        update = not is_evaluating(columns.get("log_metric"))
        keys = [text_key(as_text(prompt), role="user") for prompt in prompts]
        normalized = {
            part.name: self.chains[part.name](
                RewardBatch(np.where(left, values[part.name], np.nan), prompts=keys), update=update
            ).rewards
            for part in self.parts
        }
        rewards = self._weighted(normalized, count)
        rewards[failed] = self.failure_reward
        rewards[[offence.index for offence in offences]] = np.nan
        statistics["offences"] = float(len(offences))
        for part in self.parts:
            added = part.weight * normalized[part.name]
            if part.weight and np.isfinite(added).any():
                statistics[f"{part.name}/contribution"] = float(np.nanstd(added))
        if count:
            statistics |= {"failed": float(failed.mean()), "none": float(np.isnan(rewards).mean())}
        if np.isfinite(rewards).any():
            statistics |= {"reward_mean": float(np.nanmean(rewards)), "reward_std": float(np.nanstd(rewards))}
        return CombinedResult(rewards, values, normalized, failed, tuple(offences), statistics)

    def _weighted(self, normalized: Mapping[str, FloatArray], count: int) -> FloatArray:
        """The weighted sum over the parts that are there, scaled to the weight of all; NaN where none is."""
        total, weight = np.zeros(count), np.zeros(count)
        for part in self.parts:
            there = np.isfinite(normalized[part.name])
            total[there] += part.weight * normalized[part.name][there]
            weight[there] += abs(part.weight)
        return np.divide(total * self.total_weight, weight, out=np.full(count, np.nan), where=weight > 0)

    def state_dict(self) -> dict[str, Any]:
        """Part -> its chain's state, plain JSON values."""
        return {name: chain.state_dict() for name, chain in self.chains.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take every chain's state.

        Raises:
            ConfigError: The state is of other parts, or other chains; nothing has been changed.
            DataError: A chain's state is none; nothing has been changed.
        """
        if not isinstance(state, Mapping) or set(state) != set(self.chains):
            came = sorted(map(str, state)) if isinstance(state, Mapping) else repr(state)
            raise ConfigError(f"the state is of the parts {came}, these are {sorted(self.chains)}")
        before = self.state_dict()
        try:
            for name, chain in self.chains.items():
                chain.load_state_dict(state[name])
        except Exception:
            for name, chain in self.chains.items():
                chain.load_state_dict(before[name])
            raise


def _chain_of(part: RewardPart) -> RewardChain:
    chain = part.transforms if isinstance(part.transforms, RewardChain) else RewardChain.from_config(part.transforms)
    beyond = set(chain.needs) - {"prompts"}
    if beyond:
        raise ConfigError(
            f"part {part.name!r}: its transforms need {', '.join(sorted(beyond))}, which parts are not given",
            hint="put these transforms into the part's own reward function, and leave [] or ['whiten'] here",
        )
    return chain


def _require_separate(chains: Mapping[str, RewardChain]) -> None:
    owner: dict[int, str] = {}
    for name, chain in chains.items():
        for transform in chain.transforms:
            first = owner.setdefault(id(transform), name)
            if first != name:
                raise ConfigError(
                    f"the parts {first!r} and {name!r} have one {transform.name!r} between them",
                    hint="give each part a chain of its own: one state would be of both parts' values",
                )


def _ask(
    part: RewardPart,
    prompts: Sequence[Any],
    completions: Sequence[Any],
    columns: Mapping[str, Any],
    which: NDArray[np.intp],
    logged: set[str],
) -> FloatArray:
    """A part's values, NaN where it gave none or was not asked; ``logged`` are the columns it writes, seen so far."""
    count = len(completions)
    value = np.full(count, np.nan)
    log_extra = columns.get("log_extra")
    if not len(which):
        if log_extra is not None:
            for column in sorted(logged):  # else TRL's table has an earlier step's rows beside this step's completions
                log_extra(column, [None] * count)
        return value

    def cut(column: Any) -> Any:
        per_completion = isinstance(column, list | tuple) and len(column) == count
        return [column[index] for index in which] if per_completion else column

    given = {name: cut(column) for name, column in columns.items()}
    if log_extra is not None:
        given["log_extra"] = _widened(log_extra, which, count, logged)
    answer = part.function(prompts=cut(list(prompts)), completions=cut(list(completions)), **given)
    try:
        numbers = [_number(entry) for entry in answer]
    except (TypeError, ValueError) as error:
        raise DataError(
            f"part {part.name!r} gave {str(answer)[:80]!r}, expected a number or None per completion",
            hint="a reward function returns a list, also for one completion",
        ) from error
    if len(numbers) != len(which):
        raise DataError(f"part {part.name!r} gave {len(numbers)} values for {len(which)} completions")
    value[which] = numbers
    return value


def _number(entry: Any) -> float:
    if isinstance(entry, str | bytes):  # float() would read "1.0"
        raise TypeError(entry)
    return math.nan if entry is None else float(entry)


def _widened(
    log_extra: Callable[[str, list[Any]], None], which: NDArray[np.intp], count: int, logged: set[str]
) -> Callable[[str, list[Any]], None]:
    """``log_extra`` for a part that sees some completions: the table it writes has a row for each of all."""

    def log(column: str, entries: list[Any]) -> None:
        logged.add(column)
        if len(which) < count:
            seen, entries = entries, [None] * count
            for index, entry in zip(which, seen, strict=True):
                entries[index] = entry
        log_extra(column, entries)

    return log


def _described(name: str, asked: FloatArray) -> dict[str, float]:
    """How many completions a part was asked about, how many it gave nothing for, and how its values are spread."""
    there = asked[np.abs(asked) <= LARGEST]
    statistics = {f"{name}/asked": float(len(asked)), f"{name}/none": float(np.isnan(asked).sum())}
    if len(there):
        statistics |= {f"{name}/mean": float(there.mean()), f"{name}/std": float(there.std())}
    return statistics

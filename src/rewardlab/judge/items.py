"""Groups -> what the judge is asked about, each an item of one mode; and which completion is shown first.

A row's first completion is often the chosen one, so which is shown first is decided by a hash of the texts, which knows
nothing of labels or places. This file knows groups; it asks nobody.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from random import Random

from rewardlab.errors import ConfigError, DataError
from rewardlab.judge.questions import MOST_COMPLETIONS
from rewardlab.judge.verdicts import Choice, Mode
from rewardlab.types import PromptGroup

MAX_PAIRS = 10
"""Comparisons that are asked for of one group without preferences; of more, as many are drawn."""


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to judge.

    Attributes:
        number: Its place in the run, from 0.
        group: Index of its group.
        completions: Indices of the completions in the group, in the given order: the first is shown first in the order
            as given, and last in the other.
        human: What the row says of a comparison, in the given order; None where it says nothing.
    """

    number: int
    group: int
    completions: tuple[int, ...]
    human: Choice | None = None


@dataclass(frozen=True, slots=True)
class Items:
    """What is judged of some groups.

    Attributes:
        mode: What is asked.
        items: One by one, in the order of the groups.
        left_out: What is not asked about, by reason.
    """

    mode: Mode
    items: tuple[Item, ...]
    left_out: dict[str, int] = field(default_factory=dict)


def items_of(
    groups: Sequence[PromptGroup],
    mode: Mode,
    *,
    max_pairs: int = MAX_PAIRS,
    max_items: int | None = None,
    seed: int = 0,
) -> Items:
    """What there is to judge.

    Args:
        groups: Groups with or without labels.
        mode: ``"pairwise"``: the group's own comparisons, else all pairs of its completions; ``"listwise"``: all its
            completions at once; ``"rating"``: each completion; ``"steps"``: each completion that has steps.
        max_pairs: Most comparisons of one group that has none of its own; of more, a seeded draw.
        max_items: Most items of all; of more, a seeded draw. Of ratings it draws whole groups, for a completion that is
            rated alone is compared with nothing.
        seed: Of the draws.

    Raises:
        ConfigError: An unknown mode, a limit below 1, or one that no group fits into.
        DataError: There is nothing to judge.
    """
    ways = {"pairwise": _comparisons, "listwise": _lists, "rating": _each, "steps": _solutions}
    if mode not in ways:
        raise ConfigError(f"no mode is called {mode!r}", hint=f"one of: {', '.join(ways)}")
    for name, limit in (("max_pairs", max_pairs), ("max_items", max_items)):
        if limit is not None and limit < 1:
            raise ConfigError(f"{name} is {limit}, and must be at least 1")
    left_out: Counter[str] = Counter()
    found = [
        (index, *item)
        for index, group in enumerate(groups)
        for item in ways[mode](group, left_out, max_pairs, Random(f"{seed}:{index}"))
    ]
    if max_items is not None and len(found) > max_items:
        if mode == "rating":
            drawn = _whole_groups([index for index, *_ in found], max_items, Random(seed))
        else:
            drawn = Random(seed).sample(range(len(found)), max_items)
        left_out["beyond --max-items"] += len(found) - len(drawn)
        found = [found[place] for place in sorted(drawn)]
    if not found:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in left_out.items())
        raise DataError(f"none of {len(groups):,} rows has anything to judge as {mode}: {reasons}", hint=_NEEDS[mode])
    items = tuple(Item(number, *one) for number, one in enumerate(found))
    return Items(mode, items, dict(left_out))


_NEEDS = {
    "pairwise": "give rows of two completions or more (prompt, chosen, rejected or prompt, completions)",
    "listwise": f"give rows of 2 to {MOST_COMPLETIONS} completions (prompt, completions)",
    "rating": "give rows with completions (prompt, completion)",
    "steps": "give rows of steps (--format steps: prompt, completions, labels)",
}

_Found = list[tuple[tuple[int, ...], Choice | None]]


def _comparisons(group: PromptGroup, left_out: Counter[str], most: int, draw: Random) -> _Found:
    """The group's own comparisons, each once, else all there are."""
    if len(group.completions) < 2:
        left_out["rows with one completion"] += 1
        return []
    own = {frozenset((pair.chosen, pair.rejected)) for pair in group.pairs}
    pairs = sorted(tuple(sorted(sides)) for sides in own) or list(combinations(range(len(group.completions)), 2))
    keys = group.completion_keys
    different = [pair for pair in pairs if keys[pair[0]] != keys[pair[1]]]
    if len(different) < len(pairs):
        left_out["comparisons of equal texts"] += len(pairs) - len(different)
    if not own and len(different) > most:
        left_out["comparisons beyond --max-pairs"] += len(different) - most
        different = sorted(draw.sample(different, most))
    found: _Found = []
    for pair in different:
        given = _given_order(group, pair)
        found.append((given, human_choice(group, *given)))
    return found


def _lists(group: PromptGroup, left_out: Counter[str], most: int, draw: Random) -> _Found:
    """All completions at once; of equal texts the first."""
    keys = group.completion_keys
    indices = tuple(index for index, key in enumerate(keys) if key not in keys[:index])
    if len(indices) < len(keys):
        left_out["completions of equal texts"] += len(keys) - len(indices)
    if len(indices) < 2:
        left_out["rows with one completion"] += 1
        return []
    if len(indices) > MOST_COMPLETIONS:
        left_out[f"rows with more than {MOST_COMPLETIONS} completions"] += 1
        return []
    return [(_given_order(group, indices), None)]


def _each(group: PromptGroup, left_out: Counter[str], most: int, draw: Random) -> _Found:
    return [((index,), None) for index in range(len(group.completions))]


def _solutions(group: PromptGroup, left_out: Counter[str], most: int, draw: Random) -> _Found:
    with_steps = [index for index, steps in enumerate(group.steps) if steps]
    if without := len(group.completions) - len(with_steps):
        left_out["completions without steps"] += without
    return [((index,), None) for index in with_steps]


def _whole_groups(groups: Sequence[int], most: int, draw: Random) -> list[int]:
    """Places of the items of groups drawn one by one, up to the first that no longer fits."""
    places: dict[int, list[int]] = {}
    for place, group in enumerate(groups):
        places.setdefault(group, []).append(place)
    drawn: list[int] = []
    for group in draw.sample(list(places), len(places)):
        if len(drawn) + len(places[group]) > most:
            break
        drawn += places[group]
    if not drawn:
        raise ConfigError(
            f"max_items is {most}, and whole rows of ratings are drawn: the first has more completions",
            hint=f"at least {max(map(len, places.values()))}, the completions of the longest row",
        )
    return drawn


def human_choice(group: PromptGroup, first: int, second: int) -> Choice | None:
    """What the row's preferences say of two completions: whichever has more than half of their weight, else a tie.

    Args:
        group: The row.
        first: Index of one completion.
        second: Index of the other.
    """
    told = [pair for pair in group.pairs if {pair.chosen, pair.rejected} == {first, second}]
    if not told:
        return None
    lead = sum(pair.weight * (2 * pair.target - 1) * (1 if pair.chosen == first else -1) for pair in told)
    return "tie" if lead == 0 else "first" if lead > 0 else "second"


def _given_order(group: PromptGroup, indices: tuple[int, ...]) -> tuple[int, ...]:
    """The indices in the order of a hash of their texts, within the prompt."""
    prompt, keys = group.prompt_key, group.completion_keys
    return tuple(sorted(indices, key=lambda i: (hashlib.sha256(f"{prompt}\0{keys[i]}".encode()).digest(), i)))

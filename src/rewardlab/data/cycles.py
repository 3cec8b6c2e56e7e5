"""Preferences that go round in a circle: a over b, b over c, c over a.

No scores can agree with all of them, so each circle bounds the accuracy of every model. Two completions preferred both
ways are :mod:`rewardlab.data.check`'s; here the majority of their rows decides, and where there is none they count as
not compared. So what is found has three completions at least. This file knows groups with keys.

References:
    Tarjan 1972 (SIAM J. Comput. 1:146), strongly connected components; Kendall & Babington Smith 1940 (Biometrika
    31:324), "On the method of paired comparisons", circular triads and the coefficient of consistence.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rewardlab.data.keys import KeyedGroup, comparisons

_PLACES = 5

_Wins = Mapping[str, set[str]]
"""A completion and those it is preferred to."""


@dataclass(frozen=True, slots=True)
class Cycles:
    """How far the preferences of single prompts are from an order.

    Attributes:
        cycles: Sets of completions each of which is preferred, by way of the others, to itself (strongly connected
            components of three or more).
        prompts: Prompts with such a set.
        pairs: Compared pairs that lie on a circle; at least one of each circle must be wrong.
        places: Of the first sets, the place of one row.
        triads: Sets of three completions that were all compared with one another.
        cyclic_share: Share of them that go round in a circle; None without any. Coin flips have 1/4.
        consistency: Kendall's coefficient of consistence, its mean over the prompts whose completions, three at least,
            were all compared: 1 of an order, 0 of as many circles as there can be; None without such prompts.
    """

    cycles: int
    prompts: int
    pairs: int
    places: tuple[str, ...]
    triads: int
    cyclic_share: float | None
    consistency: float | None


def find_cycles(rows: Sequence[KeyedGroup]) -> Cycles:
    """Look for circles under each prompt. Groups without a prompt are not known to belong together: each is by itself.

    Args:
        rows: The groups, with the keys of their texts; what a ranking implies counts as compared, ties do not.
    """
    counts: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
    first: dict[tuple[str, str, str], str] = {}
    for row, pair, winner, loser in comparisons(rows):
        if not pair.tie:
            counts[row.unit][winner, loser] += 1
            first.setdefault((row.unit, winner, loser), row.group.name)
    cycles = pairs = triads = cyclic = 0
    circular: set[str] = set()
    places: list[str] = []
    consistencies: list[float] = []
    for prompt, of_prompt in counts.items():
        if len(of_prompt) < 3:  # two comparisons close no circle
            continue
        wins = _majorities(of_prompt)
        for component in _components(wins):
            inside = [edge for edge in of_prompt if component.issuperset(edge) and edge[1] in wins[edge[0]]]
            cycles += 1
            pairs += len(inside)
            circular.add(prompt)
            places.append(first[prompt, *inside[0]])
        here, round_here = _triads(wins)
        triads += here
        cyclic += round_here
        size = len({completion for edge in of_prompt for completion in edge})
        if (value := _consistency(size, sum(map(len, wins.values())), round_here)) is not None:
            consistencies.append(value)
    return Cycles(
        cycles=cycles,
        prompts=len(circular),
        pairs=pairs,
        places=tuple(places[:_PLACES]),
        triads=triads,
        cyclic_share=cyclic / triads if triads else None,
        consistency=sum(consistencies) / len(consistencies) if consistencies else None,
    )


def _majorities(counts: Mapping[tuple[str, str], int]) -> dict[str, set[str]]:
    wins: dict[str, set[str]] = {}
    for (winner, loser), count in counts.items():
        if count > counts.get((loser, winner), 0):
            wins.setdefault(winner, set()).add(loser)
    return wins


def _components(wins: _Wins) -> Iterator[set[str]]:
    """Strongly connected components of more than one node, by Tarjan's algorithm with a stack of its own.

    Python's would be too short: a chain of a thousand completions is a thousand calls deep.
    """
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    open_nodes: list[str] = []
    is_open: set[str] = set()
    for start in wins:
        if start in number:
            continue
        number[start] = lowest[start] = len(number)
        open_nodes.append(start)
        is_open.add(start)
        path = [(start, iter(wins[start]))]
        while path:
            node, rest = path[-1]
            for following in rest:
                if following not in number:
                    number[following] = lowest[following] = len(number)
                    open_nodes.append(following)
                    is_open.add(following)
                    path.append((following, iter(wins.get(following, ()))))
                    break
                if following in is_open:
                    lowest[node] = min(lowest[node], number[following])
            else:
                path.pop()
                if path:
                    lowest[path[-1][0]] = min(lowest[path[-1][0]], lowest[node])
                if lowest[node] == number[node]:
                    component = {open_nodes.pop()}
                    while node not in component:
                        component.add(open_nodes.pop())
                    is_open -= component
                    if len(component) > 1:
                        yield component


def _triads(wins: _Wins) -> tuple[int, int]:
    """How many threes are all compared with one another, and how many of them go round."""
    losses: dict[str, set[str]] = defaultdict(set)
    for winner, losers in wins.items():
        for loser in losers:
            losses[loser].add(winner)
    none = set[str]()
    compared_with = {one: wins.get(one, none) | losses.get(one, none) for one in {*wins, *losses}}
    compared = round_ = 0
    for winner, losers in wins.items():
        for loser in losers:  # an intersection goes through the smaller set: one completion may stand in all pairs
            compared += len(compared_with[winner] & compared_with[loser])
            round_ += len(wins.get(loser, none) & losses.get(winner, none))
    return compared // 3, round_ // 3  # each is met at its three pairs


def _consistency(size: int, compared: int, cyclic: int) -> float | None:
    """1 - d / (the most that d can be), where d counts circular triads; None if not all pairs were compared."""
    if size < 3 or compared != size * (size - 1) // 2:
        return None
    most = (size**3 - size) / 24 if size % 2 else (size**3 - 4 * size) / 24
    return 1 - cyclic / most

"""Verdicts as rows of the output file, and rows as verdicts again.

All that is made of a run (tables, preference data) is made of what is read back here, so that a resumed run and one
that was never interrupted give the same. This file knows groups, items, verdicts and JSON values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, TypeAlias

from rewardlab.judge.items import Item, human_choice
from rewardlab.judge.judge import implied_verdict, pair_verdict, ranking_verdict
from rewardlab.judge.quality import JudgedPair
from rewardlab.judge.verdicts import (
    Abstention,
    Mode,
    PairReading,
    PairVerdict,
    RankingReading,
    RankingVerdict,
    RatingReading,
    StepsReading,
    Verdict,
    abstention_of,
)
from rewardlab.scoring.row_ids import row_id
from rewardlab.types import PromptGroup, text_of

Judged: TypeAlias = Sequence[tuple[Item, Verdict]]
"""What was asked and what came of it, in the order of the items."""

FAILED = frozenset(
    {"rate_limited", "server_error", "timeout", "connection", "bad_answer", "bad_request", "too_long", "budget"}
)
"""Kinds of abstention that say nothing of the item: asked again, of a mended server, there may be one."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Who was asked, and how.

    Attributes:
        mode: What was asked.
        model: The model's name.
        prompt: The judge prompt's name.
    """

    mode: Mode
    model: str
    prompt: str


def row_of(group: PromptGroup, item: Item, verdict: Verdict, asked: Asked) -> dict[str, Any]:
    """The output row of one item.

    ``completions`` are the indices of what was judged, in the given order: places in ``verdict`` and in what follows
    it (``first``, ``second``, ranks, ``better``) are places in that list. A comparison also has them as ``first`` and
    ``second``, and ``human``, what the row's own preferences say.
    """
    row: dict[str, Any] = {"id": row_id(group), "source": group.source, "subset": group.subset, "mode": asked.mode}
    if asked.mode == "pairwise":
        row |= {"first": item.completions[0], "second": item.completions[1], "human": item.human}
    else:
        row["completions"] = list(item.completions)
    if group.systems:
        row["systems"] = [group.systems[index] for index in item.completions]
    return {**row, **record_of(verdict), "model": asked.model, "prompt_name": asked.prompt}


def record_of(verdict: Verdict) -> dict[str, Any]:
    """A verdict as JSON values, for the output file; what was not found is null and never a number."""
    abstention = abstention_of(verdict)
    told = None if abstention is None else {"kind": abstention.kind, "message": abstention.message}
    match verdict:
        case PairVerdict():
            found: dict[str, Any] = {
                "verdict": verdict.choice,
                "p_first": verdict.p_first,
                "consistent": verdict.consistent,
                "as_given": _of_order(verdict.as_given),
                "swapped": _of_order(verdict.swapped),
            }
        case RankingVerdict():
            found = {
                "better": [list(pair) for pair in verdict.better] if abstention is None else None,
                "tied": [list(pair) for pair in verdict.tied] if abstention is None else None,
                "as_given": _of_order(verdict.as_given),
                "swapped": _of_order(verdict.swapped),
            }
        case RatingReading():
            found = {"rating": verdict.rating, "expected": verdict.expected, "reason": verdict.reason}
        case StepsReading():
            found = {"labels": list(verdict.labels), "first_error": verdict.first_error, "reason": verdict.reason}
        case Abstention():
            found = {}
    return {**found, "abstained": told}


def verdict_of(row: Mapping[str, Any]) -> Verdict:
    """The verdict that an output row holds; the inverse of :func:`record_of`."""
    told = row["abstained"]
    match row["mode"]:
        case "pairwise":
            return pair_verdict(*(_pair_reading(row[order]) for order in ("as_given", "swapped")))
        case "listwise":
            return ranking_verdict(*(_ranking_reading(row[order]) for order in ("as_given", "swapped")))
    if told is not None:
        return _abstention(told)
    if row["mode"] == "rating":
        return RatingReading(row["rating"], row["expected"], row["reason"])
    return StepsReading(tuple(row["labels"]), row["first_error"], row["reason"])


def judged_pairs(groups: Sequence[PromptGroup], judged: Judged) -> list[JudgedPair]:
    """All comparisons of a run, for its quality; a ranking is all the comparisons that it implies."""
    found = []
    for item, verdict in judged:
        group = groups[item.group]
        for first, second, of_pair in comparisons_of(item, verdict):
            systems = group.systems or (None,) * len(group.completions)
            found.append(
                JudgedPair(
                    prompt=group.prompt_key,
                    verdict=of_pair,
                    human=human_choice(group, first, second),
                    lengths=(len(text_of(group.completions[first])), len(text_of(group.completions[second]))),
                    systems=(systems[first], systems[second]),
                    subset=group.subset,
                )
            )
    return found


def comparisons_of(item: Item, verdict: Verdict) -> Iterator[tuple[int, int, PairVerdict]]:
    """The comparisons in a verdict: indices in the group of the first and the second, and which is better."""
    if isinstance(verdict, PairVerdict):
        yield item.completions[0], item.completions[1], verdict
    elif isinstance(verdict, RankingVerdict):
        for i, j in combinations(range(len(item.completions)), 2):
            yield item.completions[i], item.completions[j], implied_verdict(verdict, i, j)


def ratings_of(judged: Judged) -> dict[int, dict[int, float]]:
    """The ratings of a run: index of a group to index of a completion to its score, see :func:`scores_of`."""
    readings: dict[int, dict[int, RatingReading]] = {}
    for item, verdict in judged:
        if isinstance(verdict, RatingReading):
            readings.setdefault(item.group, {})[item.completions[0]] = verdict
    found = {}
    for group, of_group in readings.items():
        scores = scores_of(list(of_group.values()))
        found[group] = {index: score for index, score in zip(of_group, scores, strict=True) if score is not None}
    return found


def scores_of(of_group: Sequence[RatingReading | Abstention]) -> list[float | None]:
    """The scores of one group's ratings; None where there is none.

    These are the expected ratings where all ratings of the group have one, else the ratings: the two do not mix.
    """
    read = [reading for reading in of_group if isinstance(reading, RatingReading)]
    soft = all(reading.expected is not None for reading in read)
    return [(r.expected if soft else r.rating) if isinstance(r, RatingReading) else None for r in of_group]


def _of_order(reading: PairReading | RankingReading | Abstention) -> dict[str, Any]:
    match reading:
        case Abstention():
            return {"abstained": {"kind": reading.kind, "message": reading.message}}
        case PairReading():
            return {"verdict": reading.choice, "p_first": reading.p_first, "reason": reading.reason}
        case RankingReading():
            return {"ranks": list(reading.ranks), "reason": reading.reason}


def _pair_reading(record: Mapping[str, Any]) -> PairReading | Abstention:
    if "abstained" in record:
        return _abstention(record["abstained"])
    return PairReading(record["verdict"], record["p_first"], record["reason"])


def _ranking_reading(record: Mapping[str, Any]) -> RankingReading | Abstention:
    if "abstained" in record:
        return _abstention(record["abstained"])
    return RankingReading(tuple(record["ranks"]), record["reason"])


def _abstention(record: Mapping[str, Any]) -> Abstention:
    return Abstention(record["kind"], record["message"])

"""Completions that were ranked or rated -> groups with rankings, ratings and attributes.

This file knows the columns of K-wise and rated rows, UltraFeedback's, Nectar's and HelpSteer2's among them; single
columns are :mod:`rewardlab.data.columns`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rewardlab.concordance import count_concordance
from rewardlab.data.columns import (
    Row,
    answer_of,
    answered,
    answers_of,
    list_of,
    list_per,
    names_of,
    number,
    number_of,
    probability,
    prompt_of,
    systems_of,
    weight_of,
    which,
)
from rewardlab.errors import DataError
from rewardlab.types import PromptGroup, Ranking, Text

HELPSTEER_ATTRIBUTES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
"""What HelpSteer2's annotators rated, each from 0 to 4 (arXiv:2406.08673)."""


def kwise(row: Row) -> PromptGroup:
    """``prompt, completions`` and one or more of ``ranks``, ``scores``, ``attributes``: ranks order, scores rate.

    Without ranks the scores order the completions that have one; equal scores are a tie.
    """
    prompt, transcript = prompt_of(row)
    completions = answers_of(list_of(row, "completions"), "completions", transcript)

    def known(column: str) -> Sequence[Any]:
        return () if row.get(column) is None else list_per(row, column, "completions", len(completions))

    ranks, ratings = _ranks(known("ranks"), "ranks"), _ratings(known("scores"), "scores")
    if row.get("higher_is_better") is False:
        ratings = tuple(None if rating is None else 0.0 - rating for rating in ratings)
    attributes = tuple(_attributes(value, f"attributes[{index}]") for index, value in enumerate(known("attributes")))
    if attributes and not any(attributes):
        raise DataError("attributes are empty: no completion has one")
    labels = tuple(
        None if value is None else probability(value, f"labels[{index}]") for index, value in enumerate(known("labels"))
    )
    _require_agreement(ranks, ratings)
    rankings = _by_rank(row, ranks) or _by_rating(row, ratings)
    return PromptGroup(
        prompt,
        completions,
        rankings=rankings,
        ratings=ratings,
        attributes=attributes,
        labels=labels,
        systems=systems_of(row, len(completions)),
    )


def ultrafeedback(row: Row) -> PromptGroup:
    """UltraFeedback's own rows: ``instruction`` and completions of ``response, overall_score, annotations``.

    A rating that is "N/A" is none (arXiv:2310.01377; github.com/OpenBMB/UltraFeedback).
    """
    prompt, transcript = prompt_of(row, "instruction")
    entries = _entries(row, "completions", "response")
    completions = answers_of([entry["response"] for entry in entries], "completions", transcript)
    ratings = _ratings([entry.get("overall_score") for entry in entries], "overall_score")
    attributes = []
    for index, entry in enumerate(entries):
        notes = entry.get("annotations") or {}
        if not isinstance(notes, Mapping):
            raise DataError(f"annotations is of the wrong type: that of completions[{index}] is {type(notes).__name__}")
        given = {name: note.get("Rating") for name, note in notes.items() if isinstance(note, Mapping)}
        attributes.append(_attributes(given, "annotations"))
    known = tuple(attributes) if any(attributes) else ()
    return PromptGroup(
        prompt,
        completions,
        rankings=_by_rating(row, ratings),
        ratings=ratings,
        attributes=known,
        systems=_models(entries, "completions"),
    )


def nectar(row: Row) -> PromptGroup:
    """Nectar's rows: ``prompt`` and ``answers`` of ``answer, rank``, the best of rank 1."""
    prompt, transcript = prompt_of(row)
    entries = _entries(row, "answers", "answer")
    completions = answers_of([entry["answer"] for entry in entries], "answers", transcript)
    ranks = _ranks([entry.get("rank") for entry in entries], "rank")
    return PromptGroup(prompt, completions, rankings=_by_rank(row, ranks), systems=_models(entries, "answers"))


def rated(row: Row) -> PromptGroup:
    """``prompt, completion`` and its ``rating`` or ``score``."""
    prompt, transcript = prompt_of(row)
    column = which(row, "rating|score") or ""
    completion = answered(answer_of(row, "completion", transcript), "completion")
    return PromptGroup(prompt, (completion,), ratings=(number(row[column], column),))


def helpsteer(row: Row) -> PromptGroup:
    """HelpSteer2's rows: ``prompt, response`` and the response's ratings by attribute."""
    prompt, transcript = prompt_of(row)
    completion: Text = answered(answer_of(row, "response", transcript), "response")
    found = {name: number_of(row, name) for name in HELPSTEER_ATTRIBUTES}
    return PromptGroup(prompt, (completion,), attributes=({k: v for k, v in found.items() if v is not None},))


def _entries(row: Row, column: str, text: str) -> Sequence[Mapping[str, Any]]:
    entries = list_of(row, column)
    for index, entry in enumerate(entries):
        if not isinstance(entry, Mapping) or entry.get(text) is None:
            raise DataError(f"{column} is of the wrong type: {column}[{index}] is no object with {text}")
    return entries


def _models(entries: Sequence[Mapping[str, Any]], column: str) -> tuple[str | None, ...]:
    return names_of({f"{column}[{index}].model": entry.get("model") for index, entry in enumerate(entries)})


def _ranks(values: Sequence[Any], column: str) -> tuple[int | None, ...]:
    """Ranks from 0 without gaps, the smallest number the best; None where a completion has none."""
    found = [None if value is None else number(value, f"{column}[{index}]") for index, value in enumerate(values)]
    for index, value in enumerate(found):
        if value is not None and not value.is_integer():
            raise DataError(f"{column} is not a whole number: {column}[{index}] is {value:g}")
    if values and not any(value is not None for value in found):
        raise DataError(f"{column} is empty: no completion has one")
    if len(values) == 1:
        raise DataError(f"{column} of one completion: a ranking needs two or more")
    return _dense(found)


def _ratings(values: Sequence[Any], column: str) -> tuple[float | None, ...]:
    found = tuple(None if value is None else number(value, f"{column}[{index}]") for index, value in enumerate(values))
    if values and not any(value is not None for value in found):
        raise DataError(f"{column} is empty: no completion has one")
    return found


def _dense(values: Sequence[float | None]) -> tuple[int | None, ...]:
    place = {value: rank for rank, value in enumerate(sorted({v for v in values if v is not None}))}
    return tuple(None if value is None else place[value] for value in values)


def _by_rank(row: Row, ranks: tuple[int | None, ...]) -> tuple[Ranking, ...]:
    """One ranking of all completions; those without a rank are worse than the others, as in a top-k list."""
    return (Ranking(tuple(range(len(ranks))), ranks, weight_of(row)),) if ranks else ()


def _by_rating(row: Row, ratings: Sequence[float | None]) -> tuple[Ranking, ...]:
    """One ranking of the completions that have a rating: of the others nothing is known."""
    rated = [index for index, rating in enumerate(ratings) if rating is not None]
    ranks = _dense([None if rating is None else -rating for rating in ratings])
    return (Ranking(tuple(rated), tuple(ranks[i] for i in rated), weight_of(row)),) if len(rated) > 1 else ()


def _require_agreement(ranks: Sequence[int | None], ratings: Sequence[float | None]) -> None:
    """Scores that say the opposite of the ranks are mostly costs, the lowest the best: that is not to be guessed."""
    rows = [(r, s) for r, s in zip(ranks, ratings, strict=False) if r is not None and s is not None]
    if not rows:
        return
    against, along = count_concordance(*zip(*rows, strict=True))  # the best has the lowest rank
    if against > along:
        raise DataError(
            f"scores contradict ranks: {against} of {along + against} pairs are ordered the other way; if low scores "
            "are good, say so with a column higher_is_better: false"
        )


def _attributes(value: object, place: str) -> dict[str, float]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise DataError(f"attributes is of the wrong type: {place} is {type(value).__name__}, expected an object")
    absent = (None, "N/A", "")
    return {str(name): number(rating, f"{place}[{name}]") for name, rating in value.items() if rating not in absent}

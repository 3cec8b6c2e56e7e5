"""Rows of one prompt -> one group, so that the prompt is computed once and its pairs meet in one step.

Preference files hold one row per pair, and often many rows per prompt, with completions that come again in several of
them. Rows are merged after they are encoded: what cannot be encoded is set aside row by row before, and completions are
the same if their ids are and what is known of them. This file knows prompts by
:attr:`rewardlab.types.PromptGroup.prompt_key` and completions by a key; it knows no tokenizer, no model and no
objective.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterable, Sequence

from rewardlab.data.encoding import EncodedGroup, common_prefix_length
from rewardlab.types import Pair, PromptGroup, Ranking, text_key


def merge_by_prompt(encoded: Sequence[EncodedGroup], max_completions: int) -> list[EncodedGroup]:
    """One group for the rows of each prompt, in the order in which their first rows came.

    Completions with the same ids and read-outs, of which the same is known (rating, attributes, label, steps), become
    one; its text is the first that came, and its system is told where all that say one say the same. Every pair and
    ranking stays, with its margin and weight: one that occurs twice is there twice, and A over B beside B over A both
    count. Rows without a prompt share nothing but the absence and stay as they are, and so does a row with a pair or a
    ranking in which two completions are the same.

    Args:
        encoded: The rows.
        max_completions: Most completions of a merged group. A row that would exceed it starts another group of its
            prompt; a row that is larger by itself stays whole. 1 or less: nothing is merged.

    Returns:
        The groups. A row that is alone in its group is the very object that came. A merged one has its first row's
        prompt, id and source, the subset if all its rows have the same, and ``truncated`` as the sum over its rows
        of the cut sequences, at most as many as the row adds: exact where a row's sequences were cut all or none.
    """
    if max_completions <= 1:
        return list(encoded)
    bins = _bins(((row.group, _keys(row)) for row in encoded), max_completions)
    return [encoded[rows[0]] if len(rows) == 1 else _merged([encoded[i] for i in rows]) for rows in bins]


def count_merged(groups: Sequence[PromptGroup], max_completions: int) -> int:
    """How many groups :func:`merge_by_prompt` will leave, estimated without a tokenizer.

    Completions are compared as text, so it differs from the result where different texts give the same ids and where
    encoding sets rows aside.

    Args:
        groups: The rows.
        max_completions: As for :func:`merge_by_prompt`.
    """
    if max_completions <= 1:
        return len(groups)
    rows = (
        (group, [(text_key(c, role="assistant"), _known(group, i)) for i, c in enumerate(group.completions)])
        for group in groups
    )
    return len(_bins(rows, max_completions))


def _keys(row: EncodedGroup) -> list[tuple[Hashable, ...]]:
    """What tells a row's sequences apart: ids, where the head is read, and what is known of each alone."""
    readouts = row.readouts or ((),) * len(row.sequences)
    return [
        (ids, read, _known(row.group, index))
        for index, (ids, read) in enumerate(zip(row.sequences, readouts, strict=True))
    ]


def _known(group: PromptGroup, index: int) -> Hashable:
    """What is known of one completion alone; alike for nothing known of it and nothing known of any."""
    return (
        group.ratings[index] if group.ratings else None,
        frozenset(group.attributes[index].items()) if group.attributes else frozenset(),
        group.labels[index] if group.labels else None,
        group.steps[index] if group.steps else (),
    )


def _bins(rows: Iterable[tuple[PromptGroup, Sequence[Hashable]]], max_completions: int) -> list[list[int]]:
    """Which rows go together: their indices, bin by bin; each row comes with the keys of its completions.

    Only the newest bin of a prompt is open, so one pass suffices, and merging what was merged changes nothing.
    """
    bins: list[list[int]] = []
    newest: dict[str, tuple[list[int], set[Hashable]]] = {}
    for index, (group, keys) in enumerate(rows):
        if not group.prompt or _compares_alike(group, keys):
            bins.append([index])
            continue
        prompt = group.prompt_key
        members, held = newest.get(prompt, ([], set[Hashable]()))
        if not members or len(held) + len(set(keys) - held) > max_completions:
            members, held = newest[prompt] = ([], set())
            bins.append(members)
        members.append(index)
        held.update(keys)
    return bins


def _compares_alike(group: PromptGroup, keys: Sequence[Hashable]) -> bool:
    """Whether a pair or a ranking of the row has a completion twice: merged, it would be compared with itself."""
    return any(keys[pair.chosen] == keys[pair.rejected] for pair in group.pairs) or any(
        len({keys[i] for i in ranking.completions}) < len(ranking.completions) for ranking in group.rankings
    )


def _merged(rows: Sequence[EncodedGroup]) -> EncodedGroup:
    index_of: dict[Hashable, int] = {}
    systems_of: dict[Hashable, set[str]] = {}
    first_of: list[tuple[EncodedGroup, int]] = []  # where each completion came first: a row, and its place there
    pairs: list[Pair] = []
    rankings: list[Ranking] = []
    truncated = 0
    for row in rows:
        before = len(index_of)
        keys = _keys(row)
        for place, key in enumerate(keys):
            if key not in index_of:
                index_of[key] = len(index_of)
                first_of.append((row, place))
            if row.group.systems and (system := row.group.systems[place]) is not None:
                systems_of.setdefault(key, set()).add(system)
        truncated += min(row.truncated, len(index_of) - before)
        at = [index_of[key] for key in keys]
        pairs += (dataclasses.replace(p, chosen=at[p.chosen], rejected=at[p.rejected]) for p in row.group.pairs)
        rankings += (
            dataclasses.replace(r, completions=tuple(at[i] for i in r.completions)) for r in row.group.rankings
        )
    first = rows[0].group
    groups = [(row.group, place) for row, place in first_of]
    ratings = tuple(group.ratings[place] if group.ratings else None for group, place in groups)
    attributes = tuple(group.attributes[place] if group.attributes else {} for group, place in groups)
    labels = tuple(group.labels[place] if group.labels else None for group, place in groups)
    steps = tuple(group.steps[place] if group.steps else () for group, place in groups)
    # What wrote a completion is nothing to learn from: two systems that wrote the same do not keep it apart.
    systems = tuple(next(iter(of_one)) if len(of_one := systems_of.get(key, ())) == 1 else None for key in index_of)
    group = dataclasses.replace(
        first,
        completions=tuple(group.completions[place] for group, place in groups),
        pairs=tuple(pairs),  # those that the rankings imply among them, since every row's group has its own
        subset=first.subset if all(row.group.subset == first.subset for row in rows) else None,
        rankings=tuple(rankings),
        ratings=ratings if any(rating is not None for rating in ratings) else (),
        attributes=attributes if any(attributes) else (),
        labels=labels if any(label is not None for label in labels) else (),
        steps=steps if any(steps) else (),
        systems=systems if any(systems) else (),
    )
    sequences = tuple(row.sequences[place] for row, place in first_of)
    readouts = tuple(row.readouts[place] for row, place in first_of if row.readouts)
    return EncodedGroup(group, sequences, common_prefix_length(sequences), truncated, readouts)

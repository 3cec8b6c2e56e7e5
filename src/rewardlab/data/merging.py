"""Rows of one prompt -> one group, so that the prompt is computed once and its pairs meet in one step.

Preference files hold one row per pair, and often many rows per prompt, with completions that come again in several of
them. Rows are merged after they are encoded: what cannot be encoded is set aside row by row before, and completions are
the same if their ids are. This file knows prompts by :attr:`rewardlab.types.PromptGroup.prompt_key` and completions by
a key; it knows no tokenizer, no model and no objective.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterable, Sequence

from rewardlab.data.encoding import EncodedGroup, common_prefix_length
from rewardlab.types import Pair, PromptGroup, Text, text_key


def merge_by_prompt(encoded: Sequence[EncodedGroup], max_completions: int) -> list[EncodedGroup]:
    """One group for the rows of each prompt, in the order in which their first rows came.

    Completions with the same ids become one (its text is the first that came). Every pair stays, with its margin and
    weight: one that occurs twice is there twice, and A over B beside B over A both count. Rows without a prompt share
    nothing but the absence and stay as they are, and so does a row with a pair whose two sides are the same ids.

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
    bins = _bins(((row.group, row.sequences) for row in encoded), max_completions)
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
    rows = ((group, [text_key(c, role="assistant") for c in group.completions]) for group in groups)
    return len(_bins(rows, max_completions))


def _bins(rows: Iterable[tuple[PromptGroup, Sequence[Hashable]]], max_completions: int) -> list[list[int]]:
    """Which rows go together: their indices, bin by bin; each row comes with the keys of its completions.

    Only the newest bin of a prompt is open, so one pass suffices, and merging what was merged changes nothing.
    """
    bins: list[list[int]] = []
    newest: dict[str, tuple[list[int], set[Hashable]]] = {}
    for index, (group, keys) in enumerate(rows):
        if not group.prompt or any(keys[pair.chosen] == keys[pair.rejected] for pair in group.pairs):
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


def _merged(rows: Sequence[EncodedGroup]) -> EncodedGroup:
    index_of: dict[tuple[int, ...], int] = {}
    completions: list[Text] = []
    pairs: list[Pair] = []
    truncated = 0
    for row in rows:
        before = len(index_of)
        for completion, sequence in zip(row.group.completions, row.sequences, strict=True):
            if sequence not in index_of:
                index_of[sequence] = len(index_of)
                completions.append(completion)
        truncated += min(row.truncated, len(index_of) - before)
        places = [index_of[sequence] for sequence in row.sequences]
        pairs += (dataclasses.replace(p, chosen=places[p.chosen], rejected=places[p.rejected]) for p in row.group.pairs)
    first = rows[0].group
    alike = all(row.group.subset == first.subset for row in rows)
    group = dataclasses.replace(
        first, completions=tuple(completions), pairs=tuple(pairs), subset=first.subset if alike else None
    )
    sequences = tuple(index_of)
    return EncodedGroup(group, sequences, common_prefix_length(sequences), truncated)

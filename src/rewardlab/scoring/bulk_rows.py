"""Rows of scores: which columns each kind has, and how a chunk of groups becomes its rows.

This file knows groups, rows and a :class:`BulkScorer`; it knows no file, model, tokenizer or device.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

from rewardlab.data.encoding import EncodedGroup, reason_of
from rewardlab.data.ledger import reason_kind
from rewardlab.errors import CheckpointError, DataError
from rewardlab.scoring.row_ids import are_integers, row_id
from rewardlab.types import PromptGroup, text_key

CHUNK_COMPLETIONS = 8192
"""Most completions scored at a time; a row that has more is scored in slices of as many."""

OF_LISTS = {"score": "scores", "step_scores": "step_scores", "disagreement": "disagreements"}
"""What a row says of its one completion -> what it says of a list of them."""


class BulkEncoder(Protocol):
    """What :func:`score_file` needs of an encoder; see :class:`rewardlab.data.encoding.Encoder`."""

    def encode_many(self, groups: Sequence[PromptGroup]) -> list[EncodedGroup | DataError]:
        """Ids of many groups, in order; a group that cannot be encoded gives its error in place."""


class BulkScorer(Protocol):
    """What :func:`score_file` needs of a scorer; see :class:`rewardlab.scoring.scorer.Scorer`."""

    @property
    def encoder(self) -> BulkEncoder:
        """Turns groups into ids."""

    @property
    def fingerprint(self) -> str:
        """Equal for equal checkpoints."""

    def score_encoded(
        self, encoded: Sequence[EncodedGroup], on_progress: Callable[[int], None] | None = None
    ) -> list[list[float]]:
        """One list per group, one score per completion; reports the number of completions just scored."""

    @property
    def has_steps(self) -> bool:
        """Whether it also scores the steps of completions, with :meth:`score_encoded_steps`."""

    def score_encoded_steps(
        self, encoded: Sequence[EncodedGroup], on_progress: Callable[[int], None] | None = None
    ) -> tuple[list[list[float]], list[list[list[float]]]]:
        """Scores as :meth:`score_encoded`, and one list per group and completion with a score for each step."""

    @property
    def is_ensemble(self) -> bool:
        """Whether it also says how far its members disagree, with :meth:`score_encoded_disagreement`."""

    def score_encoded_disagreement(
        self, encoded: Sequence[EncodedGroup], on_progress: Callable[[int], None] | None = None
    ) -> tuple[list[list[float]], list[list[float]]]:
        """Scores as :meth:`score_encoded`, and as many numbers that say how far the members disagree."""


@dataclass(slots=True)
class RowFacts:
    """What must be known of all rows before the first is scored, one row at a time; facts of several files add up.

    Attributes:
        rows: How many there are.
        completions: In all of them.
        pairs: Rows of two sides.
        lists: Rows of several completions that are no pair.
        lists_without_steps: Those of them whose completions came without steps.
        integer_ids: Rows whose id a column of integers can hold.
        numbers: Rows whose id is a number, however large.
    """

    rows: int = 0
    completions: int = 0
    pairs: int = 0
    lists: int = 0
    lists_without_steps: int = 0
    integer_ids: int = 0
    numbers: int = 0

    def add(self, group: PromptGroup) -> None:
        """Count one row."""
        self.rows += 1
        self.completions += len(group.completions)
        if is_pair(group):
            self.pairs += 1
        elif len(group.completions) > 1:
            self.lists += 1
            self.lists_without_steps += not group.steps
        self.integer_ids += are_integers([row_id(group)])
        self.numbers += isinstance(row_id(group), int)

    def __add__(self, other: RowFacts) -> RowFacts:
        """Those of both."""
        return RowFacts(*(getattr(self, part.name) + getattr(other, part.name) for part in fields(self)))


@dataclass(frozen=True, slots=True)
class RowLayout:
    """Which columns a row has; known from the groups alone, before anything is scored.

    Attributes:
        beside: What a row says of a completion beside its score, by :func:`beside_scores`.
        has_lists: Whether single completions too are lists, of one.
        columns: Names of all columns with scores, and what stands beside them.
        has_integer_ids: Whether a column of integers can hold all ids.
        ids_become_text: Whether some ids are integers, and a column of them has to hold text.
    """

    beside: str | None
    has_lists: bool
    columns: frozenset[str]
    has_integer_ids: bool
    ids_become_text: bool

    @classmethod
    def of(cls, facts: RowFacts, format: str, beside: str | None = None) -> RowLayout:
        """The layout of rows of which this is known, read as a format."""
        has_lists = format == "completions" or facts.lists > 0
        columns = set[str]()
        for name in ("score", *((beside,) if beside else ())):
            columns |= {f"chosen_{name}", f"rejected_{name}"} if facts.pairs else set()
            if facts.pairs < facts.rows:
                columns.add(OF_LISTS[name] if has_lists else name)
        integers = facts.integer_ids == facts.rows
        return cls(beside, has_lists, frozenset(columns), integers, not integers and facts.numbers > 0)

    def scores(
        self, group: PromptGroup, scores: Sequence[float] | None, beside: Sequence[Any] | None
    ) -> dict[str, Any]:
        """The scores, and what stands beside them, under the names of the row's kind; nulls where there are none."""
        found: dict[str, Any] = {}
        for name, values in (("score", scores), *(((self.beside, beside),) if self.beside else ())):
            if is_pair(group):
                pair = group.pairs[0]
                found[f"chosen_{name}"] = values[pair.chosen] if values else None
                found[f"rejected_{name}"] = values[pair.rejected] if values else None
            elif len(group.completions) > 1 or self.has_lists:
                found[OF_LISTS[name]] = list(values) if values else None
            else:
                found[name] = values[0] if values else None
        return found


def is_pair(group: PromptGroup) -> bool:
    """Whether a row has two sides; a ranked list of two is a list."""
    return len(group.completions) == 2 and len(group.pairs) == 1 and not group.rankings


def beside_scores(scorer: BulkScorer) -> str | None:
    """What a scorer gives of each completion beside its score."""
    return "step_scores" if scorer.has_steps else "disagreement" if scorer.is_ensemble else None


def score_rows(
    scorer: BulkScorer, groups: Sequence[PromptGroup], layout: RowLayout, strict: bool, advance: Callable[[int], None]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The output rows of one chunk, and its counts."""
    rows: list[dict[str, Any]] = []
    reasons: Counter[str] = Counter()
    truncated: list[int] = []
    for group, found in zip(groups, _scored(scorer, groups, layout.beside, advance), strict=True):
        row: dict[str, Any] = {"id": row_id(group)}
        if not isinstance(found, DataError):
            row |= layout.scores(group, _finite(group, found.scores), found.beside)
            if found.truncated:
                row["truncated"] = True
                truncated.append(found.truncated)
        elif strict:
            raise found
        else:
            row |= layout.scores(group, None, None) | {"error": found.message}
            reasons[reason_kind(reason_of(found))] += 1
        rows.append(row)
    return rows, {"truncated_rows": len(truncated), "truncated_sequences": sum(truncated), "reasons": reasons}


@dataclass(frozen=True, slots=True)
class _Scored:
    """What a scorer says of one group; ``truncated`` counts its sequences that were cut."""

    scores: Sequence[float]
    beside: Sequence[Any] | None
    truncated: int


def _scored(
    scorer: BulkScorer, groups: Sequence[PromptGroup], beside: str | None, advance: Callable[[int], None]
) -> Iterator[_Scored | DataError]:
    """The scores of each group, or why it has none."""
    if len(groups) == 1 and len(groups[0].completions) > CHUNK_COMPLETIONS:
        yield _scored_in_slices(scorer, groups[0], beside, advance)
    else:
        yield from _scored_together(scorer, groups, beside, advance)


def _scored_together(
    scorer: BulkScorer, groups: Sequence[PromptGroup], beside: str | None, advance: Callable[[int], None]
) -> Iterator[_Scored | DataError]:
    results = scorer.encoder.encode_many(groups)
    encoded = [result for result in results if isinstance(result, EncodedGroup)]
    of_groups: Iterator[tuple[list[float], Any]]
    if beside == "step_scores":
        of_groups = zip(*scorer.score_encoded_steps(encoded, advance), strict=True)
    elif beside == "disagreement":
        of_groups = zip(*scorer.score_encoded_disagreement(encoded, advance), strict=True)
    else:
        of_groups = ((scores, None) for scores in scorer.score_encoded(encoded, advance))
    for group, result in zip(groups, results, strict=True):
        if isinstance(result, EncodedGroup):
            yield _Scored(*next(of_groups), result.truncated)
        else:
            advance(len(group.completions))
            yield result


def _scored_in_slices(
    scorer: BulkScorer, group: PromptGroup, beside: str | None, advance: Callable[[int], None]
) -> _Scored | DataError:
    """A group of very many completions, some at a time, so that no more ids and states than theirs are in memory.

    Equal completions stay in one slice, where they are computed once: a tie stays a tie.
    """
    keys = [text_key(completion, role="assistant") for completion in group.completions]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    scores: list[float] = [0.0] * len(order)
    others: list[Any] = [None] * len(order)
    truncated = start = 0
    while start < len(order):
        stop = start + CHUNK_COMPLETIONS
        while stop < len(order) and keys[order[stop]] == keys[order[stop - 1]]:
            stop += 1
        own = order[start:stop]
        part = PromptGroup(
            group.prompt,
            tuple(group.completions[index] for index in own),
            id=group.id,
            source=group.source,
            steps=tuple(group.steps[index] for index in own) if group.steps else (),
        )
        (found,) = _scored_together(scorer, [part], beside, advance)
        if isinstance(found, DataError):
            advance(len(order) - start - len(own))
            return found
        for place, index in enumerate(own):
            scores[index] = found.scores[place]
            others[index] = found.beside[place] if found.beside else None
        truncated += found.truncated
        start = stop
    return _Scored(scores, others if beside else None, truncated)


def _finite(group: PromptGroup, scores: Sequence[float]) -> Sequence[float]:
    if not all(map(math.isfinite, scores)):
        raise CheckpointError(
            f"{group.name}: the model gives {list(scores)}, and a score must be finite",
            hint="score in float32; `rewardlab verify` tells whether the weights themselves are broken",
        )
    return scores


def num_completions(groups: Sequence[PromptGroup]) -> int:
    """How many completions the groups have."""
    return sum(len(group.completions) for group in groups)


def data_fingerprint(groups: Sequence[PromptGroup]) -> str:
    """Different for rows that would give another output: their texts, steps, order, ids, places and pairs."""
    digest = hashlib.sha256()
    for group in groups:
        digest.update(identity(group))
    return digest.hexdigest()


def identity(group: PromptGroup) -> bytes:
    """What :func:`data_fingerprint` reads of a row."""
    pairs = [(pair.chosen, pair.rejected) for pair in group.pairs]
    steps = [[step.text for step in some] for some in group.steps]
    row = [group.id, group.source, group.prompt, group.completions, pairs, is_pair(group), *([steps] if steps else ())]
    return json.dumps(row, default=str).encode()

"""Rows of scores: which columns each kind has, and how a chunk of groups becomes its rows.

This file knows groups, rows and a :class:`BulkScorer`; it knows no file, model, tokenizer or device.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from rewardlab.data.encoding import EncodedGroup, reason_of
from rewardlab.data.ledger import reason_kind
from rewardlab.errors import CheckpointError, DataError
from rewardlab.scoring.row_ids import row_id
from rewardlab.types import PromptGroup

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


class RowLayout:
    """Which columns a row has; known from the groups alone, before anything is scored."""

    def __init__(self, groups: Sequence[PromptGroup], format: str, beside: str | None = None) -> None:
        self.beside = beside
        self.has_lists = format == "completions" or any(len(g.completions) > 1 and not is_pair(g) for g in groups)
        self.columns = {name for group in groups for name in self.scores(group, None, None)}
        self.ids = list(map(row_id, groups))

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
    results = scorer.encoder.encode_many(groups)
    encoded = [result for result in results if isinstance(result, EncodedGroup)]
    of_groups: Iterator[tuple[list[float], Any]]
    if layout.beside == "step_scores":
        of_groups = zip(*scorer.score_encoded_steps(encoded, advance), strict=True)
    elif layout.beside == "disagreement":
        of_groups = zip(*scorer.score_encoded_disagreement(encoded, advance), strict=True)
    else:
        of_groups = ((scores, None) for scores in scorer.score_encoded(encoded, advance))
    rows: list[dict[str, Any]] = []
    reasons: Counter[str] = Counter()
    for group, result in zip(groups, results, strict=True):
        row: dict[str, Any] = {"id": row_id(group)}
        if isinstance(result, EncodedGroup):
            scores, beside = next(of_groups)
            row |= layout.scores(group, _finite(group, scores), beside)
            if result.truncated:
                row["truncated"] = True
        elif strict:
            raise result
        else:
            row |= layout.scores(group, None, None) | {"error": result.message}
            reasons[reason_kind(reason_of(result))] += 1
            advance(len(group.completions))
        rows.append(row)
    return rows, {
        "truncated_rows": sum(result.truncated > 0 for result in encoded),
        "truncated_sequences": sum(result.truncated for result in encoded),
        "reasons": reasons,
    }


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
        pairs = [(pair.chosen, pair.rejected) for pair in group.pairs]
        steps = [[step.text for step in some] for some in group.steps]
        row = [group.id, group.source, group.prompt, group.completions, pairs, *([steps] if steps else ())]
        digest.update(json.dumps(row, default=str).encode())
    return digest.hexdigest()

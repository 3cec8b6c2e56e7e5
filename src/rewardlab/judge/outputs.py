"""Verdicts -> preference data that ``rewardlab train`` reads.

Only what the judge found in both orders becomes a preference. Ties, among them all comparisons on which the two orders
disagree, are left out unless they are wanted; what has no verdict never becomes data. Every row is read back by
the reader of training data before it is given, so that no file is written that cannot be read.

This file knows groups and verdicts; the rows' format is :mod:`rewardlab.data.formats`'s.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rewardlab.data.formats import parse_row
from rewardlab.data.records import text_as_json
from rewardlab.errors import DataError, RewardLabError
from rewardlab.files import replace_safely
from rewardlab.judge.judged_rows import Judged, comparisons_of, ratings_of
from rewardlab.judge.verdicts import Mode, PairVerdict, RatingReading, StepsReading, abstention_of
from rewardlab.scoring.partial import beside
from rewardlab.scoring.row_ids import row_id
from rewardlab.types import PromptGroup, Text, messages_of


@dataclass(frozen=True, slots=True)
class Preferences:
    """Training data that a judge made.

    Attributes:
        rows: The rows, in the order of the items.
        left_out: What became no row, by reason: comparisons, ratings or solutions.
        notes: What else one should know, one sentence each.
    """

    rows: tuple[dict[str, Any], ...]
    left_out: Mapping[str, int]
    notes: tuple[str, ...] = ()

    def write(self, path: Path) -> None:
        """Write the rows as JSON Lines, at once.

        Raises:
            DataError: There are none.
            RewardLabError: The file cannot be written.
        """
        if not self.rows:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.left_out.items())
            raise DataError(f"no verdict is a preference, so {path} is not written: {reasons}")
        new = beside(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            new.write_text("".join(json.dumps(row, allow_nan=False) + "\n" for row in self.rows), encoding="utf-8")
            replace_safely(new, path)
        except OSError as error:
            raise RewardLabError(f"{path} cannot be written: {error}", hint="mend that, then repeat the run") from error


def preferences_of(
    groups: Sequence[PromptGroup], mode: Mode, judged: Judged, *, keep_ties: bool = False
) -> Preferences:
    """The training data in some verdicts.

    Comparisons and rankings become pairs (``prompt, chosen, rejected``), with ``p_chosen`` where the judge's
    probability is known; where it speaks against the choice there is no row. Ratings become a row for each group
    (``prompt, completions, scores``: the expected rating where all of its ratings have one, else the rating); step
    critiques rows of steps (``prompt, completions, labels``).

    Args:
        groups: The groups that were judged.
        mode: What was asked.
        judged: The verdicts.
        keep_ties: Whether ties become rows too, with ``tie: true``.
    """
    left_out: Counter[str] = Counter()
    notes: list[str] = []
    if mode in ("pairwise", "listwise"):
        found = list(_pairs(groups, judged, keep_ties, left_out))
    elif mode == "rating":
        found = list(_ratings(groups, judged, left_out))
    else:
        found = list(_steps(groups, judged, left_out))
        marks = [label for row in found for label in row["labels"]]
        if -1 not in marks and any(label == 0 and label is not None for label in marks):
            notes.append("no step is incorrect: train on them with --format steps, since 0 alone could mean either")
    rows = []
    for row in found:
        try:
            parse_row(row, format="steps" if mode == "steps" else "auto")
        except DataError as error:
            left_out[f"not readable as training data ({error.message.partition(':')[0]})"] += 1
        else:
            rows.append(row)
    return Preferences(tuple(rows), {reason: count for reason, count in left_out.items() if count}, tuple(notes))


def _pairs(
    groups: Sequence[PromptGroup], judged: Judged, keep_ties: bool, left_out: Counter[str]
) -> Iterator[dict[str, Any]]:
    for item, verdict in judged:
        group = groups[item.group]
        for first, second, of_pair in comparisons_of(item, verdict):
            if of_pair.choice is None:
                left_out["without a verdict"] += 1
                continue
            if of_pair.choice == "tie":
                reason = "ties" if of_pair.consistent else "ties because the two orders disagree"
                if not keep_ties:
                    left_out[reason] += 1
                    continue
            chosen, rejected = (second, first) if of_pair.choice == "second" else (first, second)
            p_chosen = _p_chosen(of_pair)
            if p_chosen is not None and p_chosen < 0.5:
                left_out["against the judge's own probability"] += 1
                continue
            row = _row(group)
            row["chosen"], row["rejected"] = _alike(group.completions[chosen], group.completions[rejected])
            if p_chosen is not None:
                row["p_chosen"] = p_chosen
            if of_pair.choice == "tie":
                row["tie"] = True
            if group.systems:
                row["chosen_model"], row["rejected_model"] = group.systems[chosen], group.systems[rejected]
            yield row


def _p_chosen(verdict: PairVerdict) -> float | None:
    """P(chosen is preferred); None where it is unknown, or of a tie."""
    if verdict.p_first is None or verdict.choice == "tie":
        return None
    return verdict.p_first if verdict.choice == "first" else 1 - verdict.p_first


def _ratings(groups: Sequence[PromptGroup], judged: Judged, left_out: Counter[str]) -> Iterator[dict[str, Any]]:
    left_out["without a verdict"] += sum(not isinstance(verdict, RatingReading) for _, verdict in judged)
    for index, scores in ratings_of(judged).items():
        group = groups[index]
        completions = [text_as_json(group.completions[place]) for place in scores]
        values = list(scores.values())
        if len(group.completions) == 1:
            yield {**_row(group), "completion": completions[0], "rating": values[0]}
        elif len(values) < 2:
            left_out["alone in their row with a rating"] += 1
        else:
            yield {**_row(group), "completions": completions, "scores": values}


def _steps(groups: Sequence[PromptGroup], judged: Judged, left_out: Counter[str]) -> Iterator[dict[str, Any]]:
    for item, verdict in judged:
        if not isinstance(verdict, StepsReading):
            assert abstention_of(verdict) is not None
            left_out["without a verdict"] += 1
            continue
        group = groups[item.group]
        texts = [step.text for step in group.steps[item.completions[0]]]
        # true rather than 1, by which a file without any incorrect step is still known for one of steps.
        labels = [True if label == 1 else label for label in verdict.labels]
        yield {**_row(group), "completions": texts, "labels": labels}


def _row(group: PromptGroup) -> dict[str, Any]:
    """What every row begins with."""
    subset = {} if group.subset is None else {"subset": group.subset}
    return {"id": row_id(group), **subset, "prompt": text_as_json(group.prompt)}


def _alike(first: Text, second: Text) -> tuple[Any, Any]:
    """Two completions in one form: text if both are, else messages."""
    if isinstance(first, str) == isinstance(second, str):
        return text_as_json(first), text_as_json(second)
    return text_as_json(messages_of(first, role="assistant")), text_as_json(messages_of(second, role="assistant"))

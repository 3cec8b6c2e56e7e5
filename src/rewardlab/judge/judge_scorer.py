"""A judge as a scorer: each completion of each group a number, for the evaluator and whatever else takes a scorer.

The numbers are no logits: ratings, or shares of comparisons won. Only a completion that has a verdict has one.
This file knows groups and a judge.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from itertools import combinations
from typing import Any, Literal, TypeVar

from rewardlab.errors import ConfigError, DataError
from rewardlab.judge.event_loop import EventLoop
from rewardlab.judge.judge import Judge, in_order
from rewardlab.judge.judged_rows import scores_of
from rewardlab.judge.verdicts import Abstention, PairVerdict, abstention_of
from rewardlab.types import PromptGroup, Text

MOST_COMPARED = 16
"""Completions of a group that are compared each with each: 240 questions."""

T = TypeVar("T")


class JudgeScorer:
    """Scores completions by a judge.

    ``"rating"``: one question for each completion; its score is the expected rating where the endpoint tells
    log-probabilities of all ratings in its group, else the rating. ``"pairwise"``: each completion is compared with
    each other of its group in both orders; its score is the mean, over the others, of P(it is preferred), where a tie
    counts half: in [0, 1].

    Args:
        judge: Who judges.
        loop: Where its client lives.
        mode: How completions are judged.
        concurrency: Completions, or comparisons, that are being asked about at once.

    Example:
        >>> with EventLoop() as loop:  # doctest: +SKIP
        ...     Evaluator(JudgeScorer(judge, loop)).evaluate(groups).accuracy
    """

    def __init__(
        self, judge: Judge, loop: EventLoop, *, mode: Literal["rating", "pairwise"] = "rating", concurrency: int = 8
    ) -> None:
        if mode not in ("rating", "pairwise"):
            raise ConfigError(f"a judge cannot score by {mode!r}", hint="rating or pairwise")
        if concurrency < 1:
            raise ConfigError(f"the concurrency is {concurrency}, and must be at least 1")
        self.judge = judge
        self.mode = mode
        self.concurrency = concurrency
        self._loop = loop

    def score_groups(self, groups: Sequence[PromptGroup], *, progress: bool = False) -> list[list[float]]:
        """One score per completion.

        Args:
            groups: The groups.
            progress: Whether to show a progress bar on stderr.

        Raises:
            DataError: Some have no verdict: an abstention is no number. :meth:`score_groups_or_none` leaves them out.
            JudgeEndpointError: The endpoint can answer nothing.
        """
        found, reasons = self._scored(groups, progress)
        scores: list[list[float]] = []
        missing: list[str] = []
        for group, row in zip(groups, found, strict=True):
            scores.append([score for score in row if score is not None])
            missing += [group.name] * (len(row) - len(scores[-1]))
        if missing:
            raise DataError(
                f"{len(missing):,} of {sum(map(len, found)):,} completions have no score, the first in {missing[0]}: "
                f"{reasons[0].kind}, {reasons[0].message}",
                hint="ask again (what was answered is in the cache), or leave them out with score_groups_or_none",
            )
        return scores

    def score_groups_or_none(
        self, groups: Sequence[PromptGroup], *, progress: bool = False
    ) -> list[list[float | None]]:
        """One score per completion; None where the judge gave no verdict, of a comparison, for either side.

        Raises:
            JudgeEndpointError: The endpoint can answer nothing.
        """
        return self._scored(groups, progress)[0]

    def _scored(
        self, groups: Sequence[PromptGroup], progress: bool
    ) -> tuple[list[list[float | None]], list[Abstention]]:
        """The scores, and why some have none."""
        if self.mode == "rating":
            return self._rated(groups, progress)
        return self._compared(groups, progress)

    def _rated(
        self, groups: Sequence[PromptGroup], progress: bool
    ) -> tuple[list[list[float | None]], list[Abstention]]:
        readings = self._all(
            self.judge.rate,
            [(group.prompt, completion) for group in groups for completion in group.completions],
            progress,
        )
        found: list[list[float | None]] = []
        reasons: list[Abstention] = []
        place = 0
        for group in groups:
            row = readings[place : place + len(group.completions)]
            place += len(row)
            reasons += [reading for reading in row if isinstance(reading, Abstention)]
            found.append(scores_of(row))
        return found, reasons

    def _compared(
        self, groups: Sequence[PromptGroup], progress: bool
    ) -> tuple[list[list[float | None]], list[Abstention]]:
        for group in groups:
            if not 2 <= len(group.completions) <= MOST_COMPARED:
                raise DataError(
                    f"{group.name}: {len(group.completions)} completions, and 2 to {MOST_COMPARED} can be compared",
                    hint="score by rating",
                )
        sides = [(index, i, j) for index, group in enumerate(groups) for i, j in _different(group)]
        verdicts = self._all(
            self.judge.compare,
            [(groups[g].prompt, groups[g].completions[i], groups[g].completions[j]) for g, i, j in sides],
            progress,
        )
        # Equal texts are not asked about: they tie.
        won: list[list[list[PairVerdict | None]]] = [
            [[None] * len(group.completions) for _ in group.completions] for group in groups
        ]
        reasons = []
        for (g, i, j), verdict in zip(sides, verdicts, strict=True):
            won[g][i][j] = verdict
            if (abstention := abstention_of(verdict)) is not None:
                reasons.append(abstention)
        return [_shares(row) for row in won], reasons

    def _all(
        self, ask: Callable[..., Coroutine[Any, Any, T]], arguments: Sequence[tuple[Text, ...]], progress: bool
    ) -> list[T]:
        """What is said of each, in order."""
        from rich.console import Console
        from rich.progress import Progress

        talk = Console(stderr=True)
        with Progress(console=talk, transient=True, disable=not (progress and talk.is_terminal)) as bar:
            task = bar.add_task("judging", total=len(arguments))
            told = in_order(ask, arguments, self.concurrency, lambda done, total: bar.update(task, completed=done))
            return self._loop.run(told)


def _different(group: PromptGroup) -> list[tuple[int, int]]:
    keys = group.completion_keys
    return [(i, j) for i, j in combinations(range(len(keys)), 2) if keys[i] != keys[j]]


def _shares(verdicts: Sequence[Sequence[PairVerdict | None]]) -> list[float | None]:
    """The mean share that each completion wins; by probabilities if all verdicts of the group have one."""
    asked = [verdict for row in verdicts for verdict in row if verdict is not None]
    soft = all(verdict.p_first is not None for verdict in asked if verdict.choice is not None)
    shares: list[list[float | None]] = [[] for _ in verdicts]
    for i, j in combinations(range(len(verdicts)), 2):
        first = _share(verdicts[i][j], soft)
        shares[i].append(first)
        shares[j].append(None if first is None else 1 - first)
    return [None if None in row else sum(share for share in row if share is not None) / len(row) for row in shares]


def _share(verdict: PairVerdict | None, soft: bool) -> float | None:
    if verdict is None:
        return 0.5
    if verdict.choice is None:
        return None
    return verdict.p_first if soft else {"first": 1.0, "tie": 0.5, "second": 0.0}[verdict.choice]
